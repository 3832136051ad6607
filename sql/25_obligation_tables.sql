-- What accounts may come to owe: the worst loss at expiry, options on one side of the market, cash
-- that open orders and short puts could take. And the tiers of position limits.

create type risk_private.obligation as (
  bull numeric,
  bear numeric,
  max_loss numeric,
  unlimited integer,
  cash_need numeric,
  held_bull numeric,
  held_bear numeric,
  held_loss numeric,
  held_unlimited integer,
  held_need numeric
);
comment on type risk_private.obligation is
  'What an account may come to owe in one underlying: bull and bear in units of 100 shares; '
  'max_loss in base currency, or unlimited = 1; cash_need in base currency. held_: of positions '
  'alone, else with every open order.';

create table risk_private.obligations (
  counter_id bigint primary key,
  scope_id integer not null,
  dimension smallint not null,
  key_id integer not null,
  bull numeric not null default 0,
  bear numeric not null default 0,
  max_loss numeric not null default 0,
  unlimited integer not null default 0,
  cash_need numeric not null default 0,
  held_bull numeric not null default 0,
  held_bear numeric not null default 0,
  held_loss numeric not null default 0,
  held_unlimited integer not null default 0,
  held_need numeric not null default 0
) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
comment on table risk_private.obligations is
  'Sums of the accounts'' obligations below a scope, for all or for one sector or underlying, '
  'where a limit needs them; numbered as counters are. Below such a scope every account keeps a '
  'row per underlying: that is the value, its parents'' rows are sums. No row: nothing is owed.';
comment on column risk_private.obligations.unlimited is
  'Pairs of account and underlying whose loss is without bound; max_loss is the sum of the others.';

create type risk_private.payoff as (
  horizons date[],
  prices numeric[],
  losses numeric[],
  slopes numeric[],
  put_losses numeric[],
  costs numeric
);
comment on type risk_private.payoff is
  'What legs come to at expiry, point by point (horizon, price of the underlying), in base '
  'currency: what was paid less the payoff, of the positions, plus that of each open order where '
  'it loses; how that grows beyond all strikes, per 1.00 of price; and what the puts alone would '
  'take, their cost aside. costs: what the open orders would pay. NULL arrays: no legs.';

create table risk_private.payoffs (
  account_id integer,
  underlying_id integer,
  payoff risk_private.payoff not null,
  primary key (account_id, underlying_id)
) with (fillfactor = 50, toast_tuple_target = 8160);
comment on table risk_private.payoffs is
  'The payoff of all that an account holds and has open in an underlying with options, exact where '
  'there is a row: by it an order is judged at its points instead of leg by leg. Whatever else '
  'changes legs makes it anew.';

create table risk_private.position_limit_tiers (
  tier text primary key check (risk_private.is_code(tier)),
  amount numeric not null check (risk_private.is_amount(amount)),
  loaded_by name not null default session_user,
  loaded_at timestamptz not null default pg_catalog.clock_timestamp()
);
comment on table risk_private.position_limit_tiers is
  'Tiers of position limits, as exchanges publish them: contracts of 100 shares on one side.';

create table risk_private.underlying_tiers (
  underlying_id integer primary key references risk_private.instruments,
  tier text not null references risk_private.position_limit_tiers
);
comment on table risk_private.underlying_tiers is 'The tier that each underlying is in.';
