-- 00_schemas.sql
-- Roles and schemas. `risk` is the public interface: procedures, functions and views.
-- `risk_private` holds tables and internals. Only the NOLOGIN owner reaches a table; everybody else
-- goes through what 90_grants.sql allows.

do $$
declare
  v_role text;
begin
  foreach v_role in array array['risk_owner', 'risk_trader', 'risk_execution', 'risk_feed',
    'risk_admin',
                                'risk_worker', 'risk_analyst', 'risk_auditor'] loop
    begin
      execute pg_catalog.format('create role %I nologin', v_role);
    exception when duplicate_object or unique_violation then
      null;  -- roles belong to the cluster: another database may have made them
    end;
  end loop;
end
$$;

create schema risk authorization risk_owner;
comment on schema risk is
  'The public interface of the pre-trade risk engine: procedures that change, views that show.';
create schema risk_private authorization risk_owner;
comment on schema risk_private is
  'Tables and internals of the risk engine. Only risk_owner has rights here.';

select pgmq.create(queue_name)
from (values ('risk_events'), ('risk_alerts'), ('risk_dead')) as queues (queue_name);

do $$
declare
  v_table regclass;
begin
  grant usage on schema pgmq to risk_owner;
  grant select on all tables in schema pgmq to risk_owner;
  grant execute on all functions in schema pgmq to risk_owner;
  for v_table in
    select c.oid from pg_catalog.pg_class as c
    where c.relnamespace = 'pgmq'::regnamespace and c.relname ~ '^[aq]_risk_' and c.relkind = 'r'
  loop
    execute pg_catalog.format('grant all on table %s to risk_owner', v_table);
  end loop;
  grant all on all sequences in schema pgmq to risk_owner;
end
$$;

grant risk_owner to current_user;
set role risk_owner;

alter default privileges for role risk_owner revoke execute on functions from public;
alter default privileges for role risk_owner revoke usage on types from public;

-- 10_foundation.sql
-- Function bodies written as expressions are bound when they are created: no caller's search_path
-- can redirect them. What everything else stands on: the clock, errors, who is calling, and how
-- counters are numbered.

create function risk_private.clock() returns timestamptz
language sql volatile
return pg_catalog.clock_timestamp();
comment on function risk_private.clock() is
  'The engine''s only clock. Unlike now() it moves inside a transaction, so an old transaction '
  'cannot pass for a fresh one.';

create function risk_private.fail(code text, message text, detail text default null,
  hint text default null)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Arguments are echoed, and may be of any length.
  if hint is null then
    raise exception using errcode = code, message = pg_catalog."left"(message, 1000),
      detail = pg_catalog."left"(coalesce(detail, ''), 1000);
  end if;
  raise exception using errcode = code, message = pg_catalog."left"(message, 1000),
    detail = pg_catalog."left"(coalesce(detail, ''), 1000), hint = hint;
end
$$;
comment on function risk_private.fail(text, text, text, text) is
  'Raises an error of class RK: RK400 malformed, RK403 not allowed, RK404 unknown, RK409 conflict, '
  'RK500 broken invariant. Never returns; typed boolean so that it can stand in an expression.';

-- A SECURITY DEFINER function runs as the owner, so current_user says nothing about the caller; the
-- role setting does.
create function risk_private.caller() returns name
language sql stable
return coalesce(nullif(pg_catalog.current_setting('role'), 'none')::name, session_user);
comment on function risk_private.caller() is
  'The role on whose behalf a definer function runs: SET ROLE''s, else the login.';

create function risk_private.is_owner() returns boolean
language sql stable
return pg_catalog.pg_has_role(risk_private.caller(), 'risk_owner', 'member');
comment on function risk_private.is_owner() is
  'Whether the caller is a superuser or a member of risk_owner.';

-- Scopes are numbered downwards as they are created, so a child's number is always below its
-- parent's, and ascending counter numbers run from the accounts up to the firm. That order is the
-- lock order of the whole engine.
create sequence risk_private.scope_ids as integer
  increment by -1 minvalue 1 maxvalue 536870911 start with 536870911;

create function risk_private.counter_id(scope_id integer, dimension integer default 0,
  key_id integer default 0)
returns bigint
language sql immutable
return (scope_id::bigint << 34) | (dimension::bigint << 32) | key_id::bigint;
comment on function risk_private.counter_id(integer, integer, integer) is
  'The number of a counter row: scope, then dimension (0 all, 1 sector, 2 underlying, 3 '
  'instrument), then its key.';

create function risk_private.order_id(account text, client_order_id text) returns uuid
language sql immutable
return pg_catalog.md5(account || pg_catalog.chr(31) || client_order_id)::uuid;
comment on function risk_private.order_id(text, text) is
  'The name-based id of an order, so that a retry gets the same one. The unit separator keeps (a, '
  'bc) and (ab, c) apart.';

create function risk_private.is_finite(value numeric) returns boolean
language sql immutable
return coalesce(value > '-Infinity' and value < 'Infinity', false);
comment on function risk_private.is_finite(numeric) is
  'True for an ordinary number; false for NULL, NaN and infinities.';

create function risk_private.is_code(value text) returns boolean
language sql immutable
return coalesce(value ~ '^[^[:cntrl:]]{1,64}$' and value !~ '^\s|\s$', false);
comment on function risk_private.is_code(text) is
  'True for 1 to 64 printable characters without surrounding blanks: what codes, symbols and order '
  'ids must be.';

create function risk_private.is_amount(value numeric) returns boolean
language sql immutable
return coalesce(value >= 0 and value <= 1e15 and pg_catalog.min_scale(value) <= 12, false);
comment on function risk_private.is_amount(numeric) is
  'True for a finite amount of 0 to 1e15 with at most 12 decimals: what limits, multipliers and '
  'rates must be.';

-- 12_alerts.sql
-- Alerts: what the orchestrator, the execution gateway and the dashboard must hear of, on the queue
-- risk_alerts. A message is sent in the transaction that causes it, so it is seen exactly when the
-- cause is.

create function risk_private.alert(kind text, payload jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgmq.send('risk_alerts', pg_catalog.jsonb_build_object('kind', kind) || payload);
end
$$;
comment on function risk_private.alert(text, jsonb) is
  'Sends one message on risk_alerts: the kind and the keys of the payload.';

create function risk_private.alerts(kind text, payloads jsonb[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_catalog.cardinality(payloads) > 0 then
    perform pgmq.send_batch('risk_alerts', array(
      select pg_catalog.jsonb_build_object('kind', kind) || p.payload
      from pg_catalog.unnest(payloads) with ordinality as p (payload, number)
      order by p.number));
  end if;
end
$$;
comment on function risk_private.alerts(text, jsonb[]) is
  'Sends a message of one kind on risk_alerts for each payload, in their order.';

-- 20_reference_tables.sql
-- Reference data: who trades (scopes), what is traded (instruments), at what prices (marks), under
-- which settings.

create table risk_private.scopes (
  scope_id integer primary key,
  code text not null unique check (risk_private.is_code(code)),
  kind text not null check (kind in ('firm', 'desk', 'account', 'strategy')),
  parent_id integer references risk_private.scopes,
  chain integer[] not null,
  is_leaf boolean not null default true,
  tracks_sector boolean not null default false,
  tracks_underlying boolean not null default false,
  tracks_instrument boolean not null default false,
  max_mark_age double precision not null default 60,
  max_heartbeat_age double precision not null default 3,
  collar_floor numeric not null default 0.10,
  required_types bit(32) not null default b'0'::bit(32),
  trading_day date,
  created_at timestamptz not null default pg_catalog.clock_timestamp(),
  constraint scopes_parent_after_child check (parent_id > scope_id)
);
create index scopes_parent_idx on risk_private.scopes (parent_id);
create index scopes_chain_idx on risk_private.scopes using gin (chain);
comment on table risk_private.scopes is
  'The hierarchy firm > desk > account > strategy, any depth. A leaf (no scopes below) holds '
  'positions and orders.';
comment on column risk_private.scopes.chain is
  'The scope itself and all its ancestors, ascending: itself first, the firm last.';
comment on column risk_private.scopes.tracks_sector is
  'Whether counters exist per sector at this scope; likewise the next two.';
comment on column risk_private.scopes.max_mark_age is
  'Seconds, resolved along the chain: the strictest non-zero setting; 0 = off.';
comment on column risk_private.scopes.required_types is
  'Limit types that must be found on the chain, by limit_types.bit.';
comment on column risk_private.scopes.trading_day is
  'Leaf: the trading day that its traded notional counts.';

create table risk_private.settings (
  name text not null,
  scope_id integer references risk_private.scopes,
  value text not null,
  set_by name not null default session_user,
  set_at timestamptz not null default pg_catalog.clock_timestamp(),
  unique nulls not distinct (name, scope_id)
);
comment on table risk_private.settings is
  'Settings per scope; scope NULL is the whole installation.';

create table risk_private.trading_grants (
  scope_id integer not null references risk_private.scopes,
  role_id regrole not null,
  granted_by name not null default session_user,
  granted_at timestamptz not null default pg_catalog.clock_timestamp(),
  primary key (scope_id, role_id)
);
comment on table risk_private.trading_grants is
  'Which roles may trade a scope and everything below it.';

create table risk_private.sectors (
  sector_id integer generated always as identity primary key,
  name text not null unique check (risk_private.is_code(name))
);
comment on table risk_private.sectors is 'Sectors that instruments name.';

create table risk_private.fx_rates (
  currency text primary key check (currency ~ '^[A-Z]{3}$'),
  rate numeric not null check (rate > 0 and risk_private.is_amount(rate)),
  as_of timestamptz not null
);
comment on table risk_private.fx_rates is
  'One unit of a currency in the base currency. The base currency itself is at 1.';
insert into risk_private.fx_rates (currency, rate, as_of) values ('USD', 1, '-infinity');

create table risk_private.instruments (
  instrument_id integer generated always as identity primary key,
  symbol text not null unique check (risk_private.is_code(symbol)),
  kind text not null check (kind in ('stock', 'etf', 'index', 'option', 'future')),
  underlying_id integer not null references risk_private.instruments,
  sector_id integer references risk_private.sectors,
  expiry date,
  strike numeric check (strike is null or (strike > 0 and risk_private.is_amount(strike))),
  option_right text check (option_right in ('call', 'put')),
  multiplier numeric not null check (multiplier > 0 and risk_private.is_amount(multiplier)),
  lot numeric not null check (lot > 0 and risk_private.is_amount(lot)),
  tick numeric check (tick is null or (tick > 0 and risk_private.is_amount(tick))),
  currency text not null check (currency ~ '^[A-Z]{3}$'),
  allow_negative_price boolean not null,
  status text not null default 'ACTIVE' check (status in ('ACTIVE', 'RESTRICTED', 'NO_NEW_SHORTS',
    'BLOCKED')),
  status_reason text,
  constraint instruments_option_terms check (
    (kind = 'option') = (strike is not null and option_right is not null)
    and (kind <> 'option' or expiry is not null)
  )
);
create index instruments_underlying_idx on risk_private.instruments (underlying_id);
create index instruments_sector_idx on risk_private.instruments (sector_id);
comment on table risk_private.instruments is 'What can be traded. A stock''s underlying is itself.';
comment on column risk_private.instruments.status is
  'ACTIVE; RESTRICTED: closing only; NO_NEW_SHORTS: no order that makes or enlarges a short; '
  'BLOCKED: nothing.';

create table risk_private.marks (
  instrument_id integer primary key references risk_private.instruments,
  price numeric not null check (risk_private.is_finite(price)),
  bid numeric check (bid is null or risk_private.is_finite(bid)),
  ask numeric check (ask is null or risk_private.is_finite(ask)),
  implied_volatility double precision,
  delta double precision,
  gamma double precision,
  vega double precision,
  theta double precision,
  rho double precision,
  as_of timestamptz not null
) with (fillfactor = 50);
comment on table risk_private.marks is 'The latest mark and quote of each instrument.';

create table risk_private.trading_calendar (
  singleton boolean primary key default true check (singleton),
  trading_date date,
  opened_at timestamptz,
  opened_by name
);
insert into risk_private.trading_calendar default values;
comment on table risk_private.trading_calendar is
  'The trading date set by the last open_day; NULL before the first.';

create table risk_private.heartbeat (
  singleton boolean primary key default true check (singleton),
  beat_at timestamptz,
  inputs_as_of timestamptz
);
insert into risk_private.heartbeat default values;
comment on table risk_private.heartbeat is
  'When the circuit breakers were last evaluated, and the data time of the oldest input they saw.';

create table risk_private.trading_states (
  scope_id integer not null references risk_private.scopes,
  underlying_id integer not null default 0,
  state text not null check (state in ('ACTIVE', 'REDUCE_ONLY', 'HALTED')),
  reason text not null,
  changed_by name not null default session_user,
  since timestamptz not null,
  primary key (scope_id, underlying_id)
);
comment on table risk_private.trading_states is
  'The state a person set on a scope, for one underlying or (0) for all. No row means ACTIVE.';

-- 21_limit_tables.sql
-- Limits: every version ever set, and the compiled levels that the accepting path compares with.

create table risk_private.limit_types (
  limit_type text primary key,
  bit smallint not null unique check (bit between 0 and 31),
  judged text not null check (judged in ('order', 'instrument', 'sum', 'window', 'switch')),
  reason text not null,
  warns boolean not null,
  description text not null
);
comment on table risk_private.limit_types is
  'The kinds of limit. A new kind is a row here and its measure in 42_checks.sql.';
comment on column risk_private.limit_types.judged is
  'order and instrument: a wider limit is the default for each instrument, and within a scope the '
  'most specific one wins; sum, window and switch: every matching limit applies to its own '
  'dimension.';
comment on column risk_private.limit_types.warns is
  'Whether reaching warn_pct of the limit is reported as a warning.';

insert into risk_private.limit_types (limit_type, bit, judged, reason, warns, description) values
('order_quantity', 0, 'order', 'RISK_LIMIT_EXCEEDED', true,
  'Quantity of one order; each leg of a combo by itself.'),
('order_notional', 1, 'order', 'RISK_LIMIT_EXCEEDED', true,
  'Notional of one order: quantity x multiplier x price x rate.'),
('price_collar_pct', 2, 'order', 'PRICE_OUT_OF_BAND', false,
  'How far beyond the reference price an order may bid or offer, %.'),
('net_position', 3, 'instrument', 'RISK_LIMIT_EXCEEDED', true,
  'Larger of the long and the short side of an instrument.'),
('long_position', 4, 'instrument', 'RISK_LIMIT_EXCEEDED', true,
  'Position plus open buys of an instrument.'),
('short_position', 5, 'instrument', 'RISK_LIMIT_EXCEEDED', true,
  'Open sells less position of an instrument.'),
('gross_position', 6, 'sum', 'RISK_LIMIT_EXCEEDED', true, 'Sum of worst-case quantities.'),
('gross_notional', 7, 'sum', 'RISK_LIMIT_EXCEEDED', true,
  'Sum of worst-case quantities at their marks, in base currency.'),
('traded_notional', 8, 'sum', 'RISK_LIMIT_EXCEEDED', true,
  'Notional filled since the day opened plus what is open.'),
('open_orders', 9, 'sum', 'RISK_LIMIT_EXCEEDED', true, 'Number of live orders; a combo is one.'),
('open_positions', 10, 'sum', 'RISK_LIMIT_EXCEEDED', true,
  'Number of (account, instrument) pairs held or in open orders.'),
('order_rate', 11, 'window', 'RATE_LIMIT_EXCEEDED', true,
  'Accepted orders and replaces in any one second.'),
('order_rate_minute', 12, 'window', 'RATE_LIMIT_EXCEEDED', true,
  'Accepted orders and replaces in any 60 seconds.'),
('duplicate_window', 13, 'switch', 'DUPLICATE_ORDER', false,
  'Seconds in which the same order may not be repeated.'),
('self_cross', 14, 'switch', 'SELF_CROSS', false,
  '1: an order may not trade against another agent below the scope.');

create table risk_private.limits (
  limit_id bigint generated always as identity primary key,
  scope_id integer not null references risk_private.scopes,
  limit_type text not null references risk_private.limit_types,
  dimension smallint not null check (dimension between 0 and 3),
  key_id integer not null,
  version integer not null,
  amount numeric check (amount is null or risk_private.is_amount(amount)),
  warn_pct numeric not null check (warn_pct > 0 and warn_pct <= 100),
  valid_from timestamptz not null,
  valid_until timestamptz not null,
  reason text,
  set_by name not null default session_user,
  set_at timestamptz not null,
  unique (scope_id, limit_type, dimension, key_id, version),
  constraint limits_window check (valid_from < valid_until)
);
create index limits_key_idx on risk_private.limits (scope_id, dimension, key_id);
comment on table risk_private.limits is
  'Every version of every limit; never updated. In force at a moment is the highest version whose '
  'window holds it. Amount NULL is a removal.';

create table risk_private.limit_periods (
  scope_id integer not null,
  dimension smallint not null,
  key_id integer not null,
  limit_type text not null,
  valid_until timestamptz not null,
  valid_from timestamptz not null,
  limit_id bigint not null,
  amount numeric not null check (risk_private.is_amount(amount)),
  warn_pct numeric not null check (warn_pct > 0 and warn_pct <= 100),
  version integer not null,
  primary key (scope_id, dimension, key_id, limit_type, valid_until)
);
comment on table risk_private.limit_periods is
  'Compiled from limits: which version is in force in which stretch of time, so that no decision '
  'reads history.';

create function risk_private.is_level(value numeric) returns boolean
language sql immutable
return coalesce(value >= 0 and value < 'Infinity', value is null);
comment on function risk_private.is_level(numeric) is
  'True for a finite amount >= 0 and for NULL (no limit); false for NaN.';

-- One column per limit type, named as the type is.
create table risk_private.warning_levels (
  scope_id integer not null,
  dimension smallint not null,
  key_id integer not null,
  valid_until timestamptz not null,
  valid_from timestamptz not null,
  types bit(32) not null,
  keeps_rate boolean not null,
  keeps_fingerprints boolean not null,
  order_quantity numeric check (risk_private.is_level(order_quantity)),
  order_notional numeric check (risk_private.is_level(order_notional)),
  price_collar_pct numeric check (risk_private.is_level(price_collar_pct)),
  net_position numeric check (risk_private.is_level(net_position)),
  long_position numeric check (risk_private.is_level(long_position)),
  short_position numeric check (risk_private.is_level(short_position)),
  gross_position numeric check (risk_private.is_level(gross_position)),
  gross_notional numeric check (risk_private.is_level(gross_notional)),
  traded_notional numeric check (risk_private.is_level(traded_notional)),
  open_orders numeric check (risk_private.is_level(open_orders)),
  open_positions numeric check (risk_private.is_level(open_positions)),
  order_rate numeric check (risk_private.is_level(order_rate)),
  order_rate_minute numeric check (risk_private.is_level(order_rate_minute)),
  duplicate_window numeric check (risk_private.is_level(duplicate_window)),
  self_cross numeric check (risk_private.is_level(self_cross)),
  primary key (scope_id, dimension, key_id, valid_until)
);
comment on column risk_private.warning_levels.keeps_rate is
  'Whether acceptances are kept in rate_events, now or for a rate limit to come; '
  'keeps_fingerprints likewise for duplicates.';
comment on table risk_private.warning_levels is
  'Compiled from limit_periods: per scope, dimension and stretch of time, the value of each '
  'measure from which a decision must be explained (warn_pct of the limit, or the limit itself). '
  'Below all of them no limit can fail. NULL: no limit.';

-- 22_order_tables.sql
-- What orders leave behind: orders, fills, positions and the counters that limits are judged by.

create table risk_private.orders (
  account_id integer not null,
  client_order_id text not null,
  agent text,
  instrument_ids integer[] not null,
  ratios integer[] not null,
  quantity numeric not null,
  price numeric,
  is_combo boolean not null,
  time_in_force text not null,
  unit_prices numeric[] not null,
  filled numeric[] not null,
  decision text not null,
  reason text,
  allowed_quantity numeric not null,
  detail jsonb,
  state text not null,
  decided_at timestamptz not null,
  decided_xid xid8 not null default pg_catalog.pg_current_xact_id(),
  decided_by name not null default session_user,
  closed_at timestamptz,
  replaces text,
  replaced_by text,
  replace_pending boolean not null default false,
  cancel_requested_at timestamptz,
  sent_at timestamptz,
  acknowledged_at timestamptz,
  broker_order_id text,
  close_reason text,
  primary key (account_id, client_order_id)
) with (fillfactor = 85);
create index orders_open_idx on risk_private.orders (account_id) where closed_at is null;
create index orders_decided_at_idx on risk_private.orders using brin (decided_at);
comment on table risk_private.orders is 'Every decision, and the life of every accepted order.';
comment on column risk_private.orders.account_id is
  'The leaf scope. No foreign key: scopes are never removed, and every order would lock its row.';
comment on column risk_private.orders.ratios is
  'Signed quantity of each leg per unit of the order: + buys, - sells.';
comment on column risk_private.orders.unit_prices is
  'Per leg, the money one unit of quantity is reserved at in traded notional: |price| x multiplier '
  'x rate.';
comment on column risk_private.orders.filled is 'Filled quantity per leg, unsigned.';
comment on column risk_private.orders.decided_xid is
  'The deciding transaction: an answer is never given from inside it, so no caller sees an accept '
  'that could roll back.';

create table risk_private.fills (
  account_id integer not null references risk_private.scopes,
  exec_id text not null,
  client_order_id text,
  instrument_id integer not null references risk_private.instruments,
  signed_quantity numeric not null,
  price numeric not null,
  fee numeric not null,
  unit_price numeric not null,
  kind text not null,
  flag text,
  trading_day date,
  executed_at timestamptz not null,
  recorded_at timestamptz not null,
  recorded_xid xid8 not null default pg_catalog.pg_current_xact_id(),
  recorded_by name not null default session_user,
  primary key (account_id, exec_id)
);
create index fills_order_idx on risk_private.fills (account_id, client_order_id);
comment on table risk_private.fills is 'Executions, each once, as the broker reported them.';
comment on column risk_private.fills.unit_price is
  'Money per unit of quantity: |price| x multiplier x rate.';
comment on column risk_private.fills.flag is
  'over_fill, fill_on_closed_order, fill_on_rejected_order, unexplained_trade.';

create table risk_private.positions (
  account_id integer not null,
  instrument_id integer not null,
  quantity numeric not null default 0,
  open_buy numeric not null default 0,
  open_sell numeric not null default 0,
  unit_notional numeric not null default 0,
  average_price numeric not null default 0,
  realized_pnl_today numeric not null default 0,
  primary key (account_id, instrument_id)
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);
create index positions_instrument_idx on risk_private.positions (instrument_id);
comment on table risk_private.positions is
  'Per account and instrument: position, open orders, and the unit values carried.';
comment on column risk_private.positions.unit_notional is
  '|mark| x multiplier x rate at which this position is carried in the counters; moved by '
  'revaluation.';

create table risk_private.counters (
  counter_id bigint primary key,
  scope_id integer not null,
  dimension smallint not null,
  key_id integer not null,
  quantity numeric not null default 0,
  open_buy numeric not null default 0,
  open_sell numeric not null default 0,
  gross_position numeric not null default 0,
  gross_notional numeric not null default 0,
  traded_notional numeric not null default 0,
  open_orders integer not null default 0,
  open_positions integer not null default 0,
  accepted_orders bigint not null default 0
) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
comment on table risk_private.counters is
  'What limits are judged by: sums over the accounts below a scope, for all or for one sector, '
  'underlying or instrument. The row (leaf, 0, 0) is the account''s lock. No index on a changing '
  'column, so that updates stay heap-only.';
comment on column risk_private.counters.quantity is
  'Net position; only in instrument rows, like open_buy and open_sell.';
comment on column risk_private.counters.accepted_orders is
  'Running number of accepted orders and replaces: numbers rate_events.';

create table risk_private.rate_events (
  counter_id bigint not null,
  number bigint not null,
  accepted_at timestamptz not null,
  primary key (counter_id, number)
);
comment on table risk_private.rate_events is
  'When the n-th order was accepted, kept where an order_rate limit needs it: the limit is one '
  'probe, however busy the scope.';

create table risk_private.recent_orders (
  account_id integer not null,
  fingerprint uuid not null,
  accepted_at timestamptz not null,
  primary key (account_id, fingerprint)
) with (fillfactor = 70);
comment on table risk_private.recent_orders is
  'When an order of this content was last accepted; kept where duplicate_window is set.';

create table risk_private.start_equities (
  account_id integer not null references risk_private.scopes,
  day date not null,
  equity numeric not null check (risk_private.is_finite(equity)),
  primary key (account_id, day)
);
comment on table risk_private.start_equities is
  'Equity of an account at the start of a trading day, as told to open_day.';

-- 23_working_legs.sql
-- What live orders reserve.

create view risk_private.working_legs as
select
  o.account_id, o.client_order_id, l.leg, l.instrument_id, l.ratio,
  greatest(0, r.old_open, r.new_open) as open_quantity,
  greatest(0, r.old_open * l.unit_price, r.new_open * l.new_unit_price) as open_notional,
  pg_catalog.cardinality(o.instrument_ids) as legs
from risk_private.orders as o
left join risk_private.orders as n
  on o.replaced_by is not null and o.replace_pending and n.account_id = o.account_id
  and n.client_order_id = o.replaced_by
left join risk_private.orders as old
  on o.replaces is not null and o.replace_pending and old.account_id = o.account_id
  and old.client_order_id = o.replaces and old.closed_at is null
cross join lateral unnest(o.instrument_ids, o.ratios, o.filled, o.unit_prices,
  n.unit_prices) with ordinality
  as l (instrument_id, ratio, filled, unit_price, new_unit_price, leg)
cross join lateral (
  select o.quantity * abs(l.ratio) - l.filled as old_open,
    n.quantity * abs(l.ratio) - l.filled as new_open
) as r
where o.closed_at is null and old.account_id is null;
comment on view risk_private.working_legs is
  'Legs of live orders and what each reserves. A live order and its pending replacement are one, '
  'under the old id: the larger of the two, per leg.';

-- 24_rates.sql
-- What rate limits look back on.

create function risk_private.accepted_since(counter_id bigint, since timestamptz) returns bigint
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_last bigint;
  v_low bigint;
  v_high bigint;
  v_middle bigint;
begin
  select min(e.number) - 1, max(e.number) into v_low, v_last
  from risk_private.rate_events as e where e.counter_id = accepted_since.counter_id;
  v_high := v_last;
  while v_low < v_high loop
    v_middle := (v_low + v_high + 1) / 2;
    if (select e.accepted_at from risk_private.rate_events as e
        where e.counter_id = accepted_since.counter_id and e.number = v_middle) > since then
      v_high := v_middle - 1;
    else
      v_low := v_middle;
    end if;
  end loop;
  return coalesce(v_last - v_low, 0);
end
$$;
comment on function risk_private.accepted_since(bigint, timestamptz) is
  'How many orders a counter has accepted after that moment: bisection, as the numbers are in '
  'order of time.';

-- 30_reference.sql
-- Reference data: scopes, instruments, grants and settings.

create function risk_private.scope(code text) returns risk_private.scopes
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_scope risk_private.scopes;
begin
  select s.* into v_scope from risk_private.scopes as s where s.code = scope.code;
  if v_scope.scope_id is null then
    perform risk_private.fail('RK404', pg_catalog.format('unknown scope %L', code),
      'argument: scope',
      'Create it with risk.create_scope.');
  end if;
  return v_scope;
end
$$;
comment on function risk_private.scope(text) is
  'The scope of that code; RK404 where there is none.';

create function risk_private.instrument_id(symbol text) returns integer
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id integer;
begin
  select i.instrument_id into v_id from risk_private.instruments as i
    where i.symbol = instrument_id.symbol;
  if v_id is null then
    perform risk_private.fail('RK404', pg_catalog.format('unknown symbol %L', symbol),
      'argument: symbol',
      'Add it with risk.upsert_instruments.');
  end if;
  return v_id;
end
$$;
comment on function risk_private.instrument_id(text) is
  'The instrument of that symbol; RK404 where there is none.';

create function risk_private.create_scope(code text, kind text, parent text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_parent risk_private.scopes;
  v_scope_id integer := pg_catalog.nextval('risk_private.scope_ids');
  v_kinds constant text[] := array['firm', 'desk', 'account', 'strategy'];
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.limits'));
  if not risk_private.is_code(code) then
    perform risk_private.fail('RK400', 'code must be 1 to 64 printable characters',
      'argument: code');
  end if;
  if (kind = any (v_kinds)) is not true then
    perform risk_private.fail('RK400', pg_catalog.format('unknown kind %L', kind), 'argument: kind',
      'One of firm, desk, account, strategy.');
  end if;
  if (kind = 'firm') is distinct from (parent is null) then
    perform risk_private.fail('RK400', 'a firm has no parent and every other scope has one',
      'argument: parent');
  end if;
  if exists (select from risk_private.scopes as s where s.code = create_scope.code) then
    perform risk_private.fail('RK409', pg_catalog.format('scope %L exists', code),
      'argument: code');
  end if;
  if parent is not null then
    v_parent := risk_private.scope(parent);
    if pg_catalog.array_position(v_kinds, v_parent.kind) > pg_catalog.array_position(v_kinds,
      kind) then
      perform risk_private.fail('RK400',
        pg_catalog.format('a %s cannot stand below a %s', kind, v_parent.kind),
        'argument: kind', 'The order is firm > desk > account > strategy.');
    end if;
    perform from risk_private.counters as c
    where c.counter_id = risk_private.counter_id(v_parent.scope_id) for no key update;
    if exists (select from risk_private.positions as p where p.account_id = v_parent.scope_id)
      or exists (select from risk_private.orders as o where o.account_id = v_parent.scope_id) then
      perform risk_private.fail('RK409', pg_catalog.format('%L holds positions or orders', parent),
        'argument: parent',
        'Only a scope that has never traded can get scopes below it.');
    end if;
    update risk_private.scopes as s set is_leaf = false where s.scope_id = v_parent.scope_id
      and s.is_leaf;
  end if;
  insert into risk_private.scopes (scope_id, code, kind, parent_id, chain, trading_day)
  values (v_scope_id, create_scope.code, create_scope.kind, v_parent.scope_id,
          v_scope_id || coalesce(v_parent.chain, '{}'),
          (select c.trading_date from risk_private.trading_calendar as c));
  insert into risk_private.counters (counter_id, scope_id, dimension, key_id)
  values (risk_private.counter_id(v_scope_id), v_scope_id, 0, 0);
  perform risk_private.resolve_settings(v_scope_id);
  delete from risk_private.account_levels as l where l.account_id = v_parent.scope_id;
  perform risk_private.compile_account_levels(v_scope_id, risk_private.clock());
end
$$;
comment on function risk_private.create_scope(text, text, text) is 'What risk.create_scope does.';

create procedure risk.create_scope(code text, kind text, parent text default null)
language plpgsql
as $$
begin
  perform risk_private.create_scope(code, kind, parent);
  commit;
end
$$;
comment on procedure risk.create_scope(text, text, text) is
  'Adds a scope: firm > desk > account > strategy, any depth. A scope with none below it holds '
  'positions and orders. Errors: RK400, RK404 unknown parent, RK409 the code exists or the parent '
  'has traded.';

create type risk_private.instrument_terms as (
  symbol text,
  kind text,
  underlying text,
  expiry date,
  strike numeric,
  option_right text,
  multiplier numeric,
  lot numeric,
  tick numeric,
  currency text,
  sector text,
  allow_negative_price boolean
);

create function risk_private.validate_instrument(t risk_private.instrument_terms) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_problem text := case
    when not risk_private.is_code(t.symbol) then 'symbol must be 1 to 64 printable characters'
    when (t.kind in ('stock', 'etf', 'index', 'option', 'future')) is not true
      then 'kind must be stock, etf, index, option or future'
    when (t.kind = 'option') is distinct
      from (t.strike is not null) then 'an option, and nothing else, has a strike'
    when (t.kind = 'option') is distinct from (t.option_right is not null)
      then 'an option, and nothing else, has an option_right'
    when t.option_right not in ('call', 'put') then 'option_right must be call or put'
    when t.kind = 'option' and t.expiry is null then 'an option needs an expiry'
    when t.kind = 'option' and t.underlying is null then 'an option needs an underlying'
    when t.strike is not null and not (risk_private.is_amount(t.strike) and t.strike > 0)
      then 'strike must be a positive finite number'
    when not (risk_private.is_amount(t.multiplier) and t.multiplier > 0)
      then 'multiplier must be a positive finite number'
    when not (risk_private.is_amount(t.lot) and t.lot > 0)
      then 'lot must be a positive finite number'
    when t.tick is not null and not (risk_private.is_amount(t.tick) and t.tick > 0)
      then 'tick must be a positive finite number'
    when t.currency !~ '^[A-Z]{3}$' then 'currency must be three capital letters'
    when t.sector is not null
      and not risk_private.is_code(t.sector) then 'sector must be 1 to 64 printable characters'
    when t.expiry in ('infinity', '-infinity') then 'expiry must be a date'
  end;
begin
  if v_problem is not null then
    perform risk_private.fail('RK400', v_problem, 'instrument: ' || coalesce(t.symbol, 'NULL'));
  end if;
end
$$;
comment on function risk_private.validate_instrument(risk_private.instrument_terms) is
  'Raises RK400 for impossible terms.';

create function risk_private.upsert_instrument(item jsonb) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_terms risk_private.instrument_terms;
  v_old risk_private.instruments;
  v_underlying_id integer;
  v_underlying risk_private.instruments;
  v_sector_id integer;
  v_unknown text;
begin
  if pg_catalog.jsonb_typeof(item) is distinct from 'object' then
    perform risk_private.fail('RK400', 'each instrument must be a JSON object',
      'item: ' || coalesce(item::text, 'NULL'));
  end if;
  v_unknown := (select k from pg_catalog.jsonb_object_keys(item) as k
                where not k = any (array['symbol', 'kind', 'underlying', 'expiry', 'strike',
                  'option_right', 'multiplier',
                                         'lot', 'tick', 'currency', 'sector',
                                         'allow_negative_price']) limit 1);
  if v_unknown is not null then
    perform risk_private.fail('RK400', pg_catalog.format('unknown key %L', v_unknown),
      'item: ' || item::text);
  end if;
  begin
    v_terms := pg_catalog.jsonb_populate_record(
      row(null, null, null, null, null, null, case when item ->> 'kind' = 'option' then 100
        else 1 end, 1, null,
          'USD', null, false)::risk_private.instrument_terms, item);
  exception when data_exception then
    perform risk_private.fail('RK400', sqlerrm, 'item: ' || item::text);
  end;
  perform risk_private.validate_instrument(v_terms);
  select i.* into v_old from risk_private.instruments as i
    where i.symbol = v_terms.symbol for update;
  if v_terms.underlying is not null and v_terms.underlying <> v_terms.symbol then
    v_underlying_id := risk_private.instrument_id(v_terms.underlying);
    select i.* into v_underlying from risk_private.instruments as i
      where i.instrument_id = v_underlying_id;
  end if;
  if v_terms.sector is not null then
    insert into risk_private.sectors (name) values (v_terms.sector) on conflict (name) do nothing;
    select s.sector_id into v_sector_id from risk_private.sectors as s
      where s.name = v_terms.sector;
  end if;
  v_sector_id := coalesce(v_sector_id, v_underlying.sector_id);
  if v_old.instrument_id is null then
    insert into risk_private.instruments (
      symbol, kind, underlying_id, sector_id, expiry, strike, option_right, multiplier, lot, tick,
      currency,
      allow_negative_price)
    values (
      v_terms.symbol, v_terms.kind,
      coalesce(v_underlying.instrument_id,
               pg_catalog.currval(pg_catalog.pg_get_serial_sequence('risk_private.instruments',
                 'instrument_id'))),
      v_sector_id, v_terms.expiry, v_terms.strike, v_terms.option_right, v_terms.multiplier,
      v_terms.lot, v_terms.tick,
      v_terms.currency, coalesce(v_terms.allow_negative_price, false));
    return;
  end if;
  perform risk_private.change_instrument(
    v_old, v_terms, coalesce(v_underlying.instrument_id, v_old.instrument_id), v_sector_id);
end
$$;
comment on function risk_private.upsert_instrument(jsonb) is 'Adds or changes one instrument.';

-- Lock order: accounts that have traded the instrument, ascending.
create function risk_private.change_instrument(
  old risk_private.instruments, terms risk_private.instrument_terms, underlying_id integer,
  sector_id integer)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if row(old.kind, old.underlying_id, old.sector_id, old.expiry, old.strike, old.option_right,
    old.multiplier,
         old.currency)
    is distinct from row(terms.kind, change_instrument.underlying_id, change_instrument.sector_id,
      terms.expiry,
                         terms.strike, terms.option_right, terms.multiplier, terms.currency) then
    perform from risk_private.counters as c
    where c.counter_id = any (array(
      select risk_private.counter_id(p.account_id) from risk_private.positions as p
      where p.instrument_id = old.instrument_id))
    order by c.counter_id for no key update;
    if exists (select from risk_private.positions as p
      where p.instrument_id = old.instrument_id) then
      perform risk_private.fail('RK409',
        pg_catalog.format('%s has been traded: its terms cannot change', old.symbol),
        'kind, underlying, sector, expiry, strike, option_right, multiplier and currency are fixed '
        'once traded',
        'Add an instrument with the new terms.');
    end if;
  end if;
  update risk_private.instruments as i set
    kind = terms.kind, underlying_id = change_instrument.underlying_id,
    sector_id = change_instrument.sector_id,
    expiry = terms.expiry, strike = terms.strike, option_right = terms.option_right,
    multiplier = terms.multiplier,
    lot = terms.lot, tick = terms.tick, currency = terms.currency,
    allow_negative_price = coalesce(terms.allow_negative_price, false)
  where i.instrument_id = old.instrument_id;
end
$$;
comment on function risk_private.change_instrument(
  risk_private.instruments, risk_private.instrument_terms, integer, integer) is
  'Changes an instrument. Counters are kept by its terms, so those are fixed once it has been '
  'traded.';

create function risk_private.upsert_instruments(instruments jsonb) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_catalog.jsonb_typeof(instruments) is distinct from 'array' then
    perform risk_private.fail('RK400', 'instruments must be a JSON array of objects',
      'argument: instruments');
  end if;
  perform risk_private.upsert_instrument(e.value)
  from pg_catalog.jsonb_array_elements(instruments) with ordinality as e (value, position)
  order by e.position;
end
$$;
comment on function risk_private.upsert_instruments(jsonb) is 'What risk.upsert_instruments does.';

create procedure risk.upsert_instruments(instruments jsonb)
language plpgsql
as $$
begin
  perform risk_private.upsert_instruments(instruments);
  commit;
end
$$;
comment on procedure risk.upsert_instruments(jsonb) is
  'Adds or changes instruments, all or none: an array of {symbol, kind (stock, etf, index, option, '
  'future), underlying, expiry, strike, option_right (call, put), multiplier (default 100 for '
  'options, else 1), lot (default 1), tick (default none), currency (default USD), sector (default '
  'the underlying''s), allow_negative_price}. An underlying comes before its options. Errors: '
  'RK400, RK404 unknown underlying, RK409 fixed terms of a traded instrument.';

create function risk_private.grant_trading(role name, scope text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_role_id regrole := pg_catalog.to_regrole(pg_catalog.quote_ident(role));
begin
  if v_role_id is null then
    perform risk_private.fail('RK404', pg_catalog.format('unknown role %L', role), 'argument: role',
      'Make it with CREATE ROLE.');
  end if;
  insert into risk_private.trading_grants (scope_id, role_id)
  values ((risk_private.scope(grant_trading.scope)).scope_id, v_role_id)
  on conflict do nothing;
end
$$;
comment on function risk_private.grant_trading(name, text) is 'What risk.grant_trading does.';

create procedure risk.grant_trading(role name, scope text)
language plpgsql
as $$
begin
  perform risk_private.grant_trading(role, scope);
  commit;
end
$$;
comment on procedure risk.grant_trading(name, text) is
  'Lets a role (and its members) trade a scope and everything below it. Errors: RK404.';

create function risk_private.revoke_trading(role name, scope text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from risk_private.trading_grants as g
  where g.scope_id = (risk_private.scope(revoke_trading.scope)).scope_id
    and g.role_id = pg_catalog.to_regrole(pg_catalog.quote_ident(role));
  if not found then
    perform risk_private.fail('RK404', pg_catalog.format('role %L has no grant on %L', role, scope),
      'argument: role');
  end if;
end
$$;
comment on function risk_private.revoke_trading(name, text) is 'What risk.revoke_trading does.';

create procedure risk.revoke_trading(role name, scope text)
language plpgsql
as $$
begin
  perform risk_private.revoke_trading(role, scope);
  commit;
end
$$;
comment on procedure risk.revoke_trading(name, text) is
  'Takes a trading grant back. Errors: RK404 where there is none.';

-- 31_limits.sql
-- Setting limits. A limit is a version that is only ever added; two compiled tables tell decisions
-- what is in force.

create type risk_private.limit_request as (
  scope text,
  limit_type text,
  amount numeric,
  symbol text,
  underlying text,
  sector text,
  warn_pct numeric,
  valid_from timestamptz,
  valid_until timestamptz
);

create function risk_private.compile_limits(scope_id integer, dimension integer, key_id integer,
  at timestamptz)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from risk_private.limit_periods as p
  where p.scope_id = compile_limits.scope_id and p.dimension = compile_limits.dimension
    and p.key_id = compile_limits.key_id;
  insert into risk_private.limit_periods (
    scope_id, dimension, key_id, limit_type, valid_until, valid_from, limit_id, amount, warn_pct,
    version)
  with versions as (
    select l.* from risk_private.limits as l
    where l.scope_id = compile_limits.scope_id and l.dimension = compile_limits.dimension
      and l.key_id = compile_limits.key_id and l.valid_until > at
  ), moments as (
    select v.limit_type, greatest(v.valid_from, at) as moment from versions as v
    union
    select v.limit_type, v.valid_until from versions as v
  ), periods as (
    select m.limit_type, m.moment as starts,
      pg_catalog.lead(m.moment) over (partition by m.limit_type order by m.moment) as ends
    from moments as m
  )
  select compile_limits.scope_id, compile_limits.dimension, compile_limits.key_id, p.limit_type,
    p.ends, p.starts,
    w.limit_id, w.amount, w.warn_pct, w.version
  from periods as p
  cross join lateral (
    select v.* from versions as v
    where v.limit_type = p.limit_type and v.valid_from <= p.starts and p.starts < v.valid_until
    order by v.version desc limit 1
  ) as w
  where w.amount is not null and p.ends is not null;

  delete from risk_private.warning_levels as w
  where w.scope_id = compile_limits.scope_id and w.dimension = compile_limits.dimension
    and w.key_id = compile_limits.key_id;
  insert into risk_private.warning_levels
  with periods as (
    select p.*, t.bit, t.judged,
      case when t.warns then p.amount * p.warn_pct / 100 else p.amount end as level
    from risk_private.limit_periods as p
    join risk_private.limit_types as t on t.limit_type = p.limit_type
    where p.scope_id = compile_limits.scope_id and p.dimension = compile_limits.dimension
      and p.key_id = compile_limits.key_id
  ), moments as (
    select p.valid_from as moment from periods as p
    union
    select p.valid_until from periods as p
    union
    select '-infinity'
  ), stretches as (
    select m.moment as starts,
      pg_catalog.lead(m.moment, 1, 'infinity') over (order by m.moment) as ends
    from moments as m
  )
  select r.*
  from stretches as s
  cross join lateral (
    select
      coalesce(pg_catalog.jsonb_object_agg(p.limit_type,
        p.level) filter (where p.limit_type is not null), '{}')
      || pg_catalog.jsonb_build_object(
        'scope_id', compile_limits.scope_id, 'dimension', compile_limits.dimension,
        'key_id', compile_limits.key_id, 'valid_from', s.starts, 'valid_until', s.ends,
        'types', coalesce(pg_catalog.bit_or(pg_catalog.set_bit(b'0'::bit(32), p.bit, 1)),
          b'0'::bit(32)),
        'keeps_rate', exists (select from periods as k where k.judged = 'window'),
        'keeps_fingerprints', exists (select from periods as k
          where k.limit_type = 'duplicate_window')) as level
    from periods as p
    where p.valid_from <= s.starts and s.starts < p.valid_until
  ) as j
  cross join lateral pg_catalog.jsonb_populate_record(null::risk_private.warning_levels,
    j.level) as r
  where s.starts < s.ends and exists (select from periods);
  if dimension = 0 then
    perform risk_private.compile_account_levels(scope_id, at);
  else
    perform risk_private.renew_account_levels(scope_id);
  end if;
end
$$;
comment on function risk_private.compile_limits(integer, integer, integer, timestamptz) is
  'Rebuilds limit_periods and warning_levels for one scope, dimension and key, and what accounts '
  'below make of them.';

-- Locks every account below the scope, ascending, for as long as the transaction lasts.
create function risk_private.lock_accounts_below(scope_ids integer[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from risk_private.scopes as s
  join risk_private.counters as c on c.counter_id = risk_private.counter_id(s.scope_id)
  where s.is_leaf and s.chain && scope_ids
  order by c.counter_id
  for no key update of c;
end
$$;
comment on function risk_private.lock_accounts_below(integer[]) is
  'Stops every movement below some scopes until commit.';

-- Lock order: accounts below, ascending; then the counters it makes, ascending.
create function risk_private.track(scope_id integer, dimension integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select from risk_private.scopes as s
    where s.scope_id = track.scope_id
      and (array[true, s.tracks_sector, s.tracks_underlying, s.tracks_instrument])[dimension + 1]
  ) then
    return;
  end if;
  perform risk_private.lock_accounts_below(array[scope_id]);
  insert into risk_private.counters (
    counter_id, scope_id, dimension, key_id, quantity, open_buy, open_sell, gross_position,
    gross_notional,
    traded_notional, open_orders, open_positions)
  select r.counter_id, r.scope_id, r.dimension, r.key_id, r.quantity, r.open_buy, r.open_sell,
    r.gross_position,
    r.gross_notional, r.traded_notional, r.open_orders, r.open_positions
  from risk_private.recount(track.scope_id) as r
  where r.dimension = track.dimension
  order by r.counter_id;
  update risk_private.scopes as s set
    tracks_sector = s.tracks_sector or dimension = 1,
    tracks_underlying = s.tracks_underlying or dimension = 2,
    tracks_instrument = s.tracks_instrument or dimension = 3
  where s.scope_id = track.scope_id;
  perform risk_private.compile_account_levels(scope_id, risk_private.clock());
end
$$;
comment on function risk_private.track(integer, integer) is
  'Starts keeping counters per sector (1), underlying (2) or instrument (3) at a scope, exact '
  'while orders flow. From then on a key without a row is one that nobody below has ever traded.';

-- Lock order: accounts below, ascending; then counters, ascending.
create function risk_private.remember_recent_orders(
  scope_id integer, limit_type text, dimension integer, key_id integer, amount numeric,
  at timestamptz)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_counter_id bigint := risk_private.counter_id(scope_id, dimension, key_id);
  v_window interval := case
    when limit_type = 'duplicate_window'
      then pg_catalog.make_interval(secs => amount::double precision)
    else interval '60 seconds'
  end;
  v_times timestamptz[];
begin
  perform risk_private.lock_accounts_below(array[scope_id]);
  if limit_type = 'duplicate_window' then
    insert into risk_private.recent_orders as r (account_id, fingerprint, accepted_at)
    select o.account_id, f.fingerprint, max(o.decided_at)
    from risk_private.orders as o
    join risk_private.scopes as s on s.scope_id = o.account_id
      and s.chain @> array[remember_recent_orders.scope_id]
    cross join lateral (
      select risk_private.fingerprint(o.instrument_ids, o.ratios, o.quantity,
        o.price) as fingerprint
    ) as f
    where o.decision = 'ACCEPTED' and o.decided_at > at - v_window
    group by o.account_id, f.fingerprint
    on conflict (account_id, fingerprint) do update
      set accepted_at = greatest(r.accepted_at, excluded.accepted_at);
    return;
  end if;
  insert into risk_private.counters (counter_id, scope_id, dimension, key_id)
  values (v_counter_id, remember_recent_orders.scope_id, remember_recent_orders.dimension,
          remember_recent_orders.key_id)
  on conflict on constraint counters_pkey do nothing;
  v_times := array(
    select o.decided_at
    from risk_private.orders as o
    join risk_private.scopes as s on s.scope_id = o.account_id
      and s.chain @> array[remember_recent_orders.scope_id]
    where o.decision = 'ACCEPTED' and o.decided_at > at - v_window
      and exists (
        select from pg_catalog.unnest(o.instrument_ids) as leg (instrument_id)
        join risk_private.instruments as i on i.instrument_id = leg.instrument_id
        where remember_recent_orders.key_id
          = (array[0, i.sector_id, i.underlying_id, i.instrument_id])[dimension + 1])
    order by o.decided_at desc);
  delete from risk_private.rate_events as e where e.counter_id = v_counter_id;
  insert into risk_private.rate_events (counter_id, number, accepted_at)
  select c.counter_id, c.accepted_orders + 1 - t.recency, t.accepted_at
  from risk_private.counters as c
  cross join pg_catalog.unnest(v_times) with ordinality as t (accepted_at, recency)
  where c.counter_id = v_counter_id;
end
$$;
comment on function risk_private.remember_recent_orders(integer, text, integer, integer, numeric,
  timestamptz) is
  'Fills in what a rate or duplicate limit must know of the orders accepted before it was set.';

create function risk_private.stops_orders(s risk_private.scopes, t risk_private.limit_types,
  dimension integer)
returns boolean
language sql immutable
return t.judged = 'window' or t.limit_type = 'duplicate_window'
  or (t.judged = 'sum'
      and not (array[true, s.tracks_sector, s.tracks_underlying,
        s.tracks_instrument])[dimension + 1])
  or (not s.is_leaf and not s.tracks_instrument
    and (t.judged = 'instrument' or t.limit_type = 'self_cross'));
comment on function risk_private.stops_orders(risk_private.scopes, risk_private.limit_types,
  integer) is
  'Whether setting a limit of this type must hold the accounts below for a moment, to start '
  'counting or to look back.';

create function risk_private.limit_key(
  symbol text, underlying text, sector text, out dimension integer, out key_id integer)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_catalog.num_nonnulls(symbol, underlying, sector) > 1 then
    perform risk_private.fail('RK400', 'a limit has at most one of symbol, underlying and sector',
      pg_catalog.format('symbol: %s, underlying: %s, sector: %s', symbol, underlying, sector));
  end if;
  dimension := case when symbol is not null then 3 when underlying is not null then 2
    when sector is not null then 1
    else 0 end;
  if dimension = 0 then
    key_id := 0;
  elsif dimension = 1 then
    select s.sector_id into key_id from risk_private.sectors as s where s.name = sector;
  else
    key_id := risk_private.instrument_id(coalesce(symbol, underlying));
  end if;
  if key_id is null then
    perform risk_private.fail('RK404', pg_catalog.format('unknown sector %L', sector),
      'argument: sector',
      'Sectors come into being with risk.upsert_instruments.');
  end if;
end
$$;
comment on function risk_private.limit_key(text, text, text) is
  'The dimension and key that a limit''s arguments name.';

create function risk_private.validate_limit(request risk_private.limit_request, at timestamptz)
  returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select from risk_private.limit_types as t
    where t.limit_type = request.limit_type) then
    perform risk_private.fail('RK400',
      pg_catalog.format('unknown limit type %L', request.limit_type),
      'argument: limit_type',
      'Known: ' || (select pg_catalog.string_agg(t.limit_type, ', ' order by t.bit)
                    from risk_private.limit_types as t));
  end if;
  if not risk_private.is_amount(request.amount) then
    perform risk_private.fail('RK400',
      pg_catalog.format('amount must be a finite number of 0 to 1e15, got %s',
      coalesce(request.amount::text, 'NULL')), 'argument: amount', '0 permits nothing.');
  end if;
  if request.limit_type = 'self_cross' and request.amount not in (0, 1) then
    perform risk_private.fail('RK400', 'self_cross is 1 (on) or 0 (off)', 'argument: amount');
  end if;
  if request.limit_type = 'duplicate_window' and request.amount > 86400 then
    perform risk_private.fail('RK400', 'duplicate_window is at most 86400 seconds',
      'argument: amount');
  end if;
  if (request.warn_pct > 0 and request.warn_pct <= 100) is not true then
    perform risk_private.fail('RK400',
      pg_catalog.format('warn_pct must be above 0 and at most 100, got %s',
      coalesce(request.warn_pct::text, 'NULL')), 'argument: warn_pct');
  end if;
  if (coalesce(request.valid_from, at) < coalesce(request.valid_until, 'infinity')
      and coalesce(request.valid_until, 'infinity') > at) is not true then
    perform risk_private.fail('RK400', 'valid_until must lie after valid_from and in the future',
      pg_catalog.format('valid_from: %s, valid_until: %s', request.valid_from,
        request.valid_until));
  end if;
end
$$;
comment on function risk_private.validate_limit(risk_private.limit_request, timestamptz) is
  'Raises RK400 for a limit that makes no sense.';

-- Lock order: other limit changes; accounts below, where stops_orders says so; the counters it
-- makes, ascending.
create function risk_private.set_limit(request risk_private.limit_request, reason text)
  returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := risk_private.clock();
  v_scope risk_private.scopes := risk_private.scope(request.scope);
  v_type risk_private.limit_types;
  v_dimension integer;
  v_key_id integer;
  v_limit_id bigint;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.limits'));
  if request.amount is not null then
    perform risk_private.validate_limit(request, v_at);
  end if;
  if set_limit.reason is not null then
    perform risk_private.require_reason(set_limit.reason);
  end if;
  select t.* into v_type from risk_private.limit_types as t where t.limit_type = request.limit_type;
  select k.dimension, k.key_id into v_dimension, v_key_id
  from risk_private.limit_key(request.symbol, request.underlying, request.sector) as k;
  insert into risk_private.limits (
    scope_id, limit_type, dimension, key_id, version, amount, warn_pct, valid_from, valid_until,
    reason, set_at)
  select v_scope.scope_id, v_type.limit_type, v_dimension, v_key_id,
    coalesce(max(l.version), 0) + 1, request.amount,
    coalesce(request.warn_pct, 100), coalesce(request.valid_from, v_at),
    coalesce(request.valid_until, 'infinity'),
    set_limit.reason, v_at
  from risk_private.limits as l
  where l.scope_id = v_scope.scope_id and l.limit_type = v_type.limit_type
    and l.dimension = v_dimension
    and l.key_id = v_key_id
  returning limit_id into v_limit_id;
  if request.amount is not null then
    if v_type.judged in ('sum', 'window') then
      perform risk_private.track(v_scope.scope_id, v_dimension);
    elsif not v_scope.is_leaf
      and (v_type.judged = 'instrument' or v_type.limit_type = 'self_cross') then
      perform risk_private.track(v_scope.scope_id, 3);
    end if;
    if v_type.judged = 'window' or v_type.limit_type = 'duplicate_window' then
      perform risk_private.remember_recent_orders(
        v_scope.scope_id, v_type.limit_type, v_dimension, v_key_id, request.amount, v_at);
    end if;
  end if;
  perform risk_private.compile_limits(v_scope.scope_id, v_dimension, v_key_id, v_at);
  return v_limit_id;
end
$$;
comment on function risk_private.set_limit(risk_private.limit_request, text) is
  'Adds a version of a limit; amount NULL removes it. Returns the version''s id.';

create procedure risk.set_limit(
  scope text, limit_type text, amount numeric, symbol text default null,
  underlying text default null,
  sector text default null, warn_pct numeric default 80, valid_from timestamptz default null,
  valid_until timestamptz default null, reason text default null,
  inout request_id bigint default null, inout status text default null)
language plpgsql
as $$
begin
  if amount is null then
    perform risk_private.fail('RK400', 'amount must not be NULL', 'argument: amount',
      'Use risk.remove_limit to remove one.');
  end if;
  request_id := risk_private.set_limit(
    row(scope, limit_type, amount, symbol, underlying, sector, warn_pct, valid_from, valid_until),
      reason);
  status := 'IN_FORCE';
  commit;
end
$$;
comment on procedure risk.set_limit(
  text, text, numeric, text, text, text, numeric, timestamptz, timestamptz, text, bigint, text) is
  'Sets a limit on a scope for all instruments, or for one symbol, underlying or sector. In force '
  'at once or from valid_from, until valid_until. Amounts are finite and >= 0; 0 permits nothing; '
  'a limit is inclusive. Errors: RK400, RK404.';

create function risk_private.limit_requests(limits jsonb) returns risk_private.limit_request[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_requests risk_private.limit_request[] := '{}';
  v_item jsonb;
  v_problem text;
begin
  if pg_catalog.jsonb_typeof(limits) is distinct from 'array' then
    perform risk_private.fail('RK400', 'limits must be a JSON array of objects',
      'argument: limits');
  end if;
  for v_item in select e.value from pg_catalog.jsonb_array_elements(limits) as e loop
    v_problem := case
      when pg_catalog.jsonb_typeof(v_item) <> 'object' then 'each limit must be an object'
      when v_item - array['scope', 'limit_type', 'amount', 'symbol', 'underlying', 'sector',
                          'warn_pct', 'valid_from', 'valid_until'] <> '{}'
        then 'a limit has the arguments of risk.set_limit, nothing else'
      when v_item ->> 'amount' is null then 'amount must not be NULL'
    end;
    if v_problem is not null then
      perform risk_private.fail('RK400', v_problem, 'argument: limits, item: ' || v_item::text);
    end if;
    begin
      v_requests := v_requests || pg_catalog.jsonb_populate_record(
        row(null, null, null, null, null, null, 80, null, null)::risk_private.limit_request,
        v_item);
    exception when data_exception then
      perform risk_private.fail('RK400', 'a limit holds a value of the wrong kind: ' || sqlerrm,
        'argument: limits, item: ' || v_item::text);
    end;
  end loop;
  return v_requests;
end
$$;
comment on function risk_private.limit_requests(jsonb) is
  'Reads a list of limits; RK400 where it makes no sense.';

create function risk_private.set_limits(limits jsonb, reason text) returns bigint[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_requests risk_private.limit_request[] := risk_private.limit_requests(limits);
  v_request risk_private.limit_request;
  v_ids bigint[] := '{}';
begin
  if reason is not null then
    perform risk_private.require_reason(reason);
  end if;
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.limits'));
  -- All accounts at once, ascending: limit by limit they would be taken in any order.
  perform risk_private.lock_accounts_below(array(
    select s.scope_id
    from pg_catalog.unnest(v_requests) as r
    join risk_private.scopes as s on s.code = r.scope
    join risk_private.limit_types as t on t.limit_type = r.limit_type
    where risk_private.stops_orders(s, t, case when r.symbol is not null then 3
      when r.underlying is not null then 2 when r.sector is not null then 1 else 0 end)));
  foreach v_request in array v_requests loop
    v_ids := v_ids || risk_private.set_limit(v_request, reason);
  end loop;
  return v_ids;
end
$$;
comment on function risk_private.set_limits(jsonb, text) is
  'Sets many limits, all or none; returns the versions'' ids.';

create procedure risk.set_limits(limits jsonb, reason text default null,
  inout request_ids bigint[] default null)
language plpgsql
as $$
begin
  request_ids := risk_private.set_limits(limits, reason);
  commit;
end
$$;
comment on procedure risk.set_limits(jsonb, text, bigint[]) is
  'Sets many limits, all or none: an array of objects with the arguments of risk.set_limit. '
  'Errors: RK400, RK404.';

create procedure risk.remove_limit(
  scope text, limit_type text, symbol text default null, underlying text default null,
  sector text default null,
  reason text default null)
language plpgsql
as $$
begin
  perform risk_private.remove_limit(scope, limit_type, symbol, underlying, sector, reason);
  commit;
end
$$;
comment on procedure risk.remove_limit(text, text, text, text, text, text) is
  'Removes a limit, from now on. Other scopes'' and wider dimensions'' limits still hold. Errors: '
  'RK404 where there is none.';

create function risk_private.remove_limit(
  scope text, limit_type text, symbol text, underlying text, sector text, reason text)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (
    select from risk_private.limits as l
    join risk_private.limit_key(symbol, underlying, sector) as k on k.dimension = l.dimension
      and k.key_id = l.key_id
    where l.scope_id = (risk_private.scope(remove_limit.scope)).scope_id
      and l.limit_type = remove_limit.limit_type
  ) then
    perform risk_private.fail('RK404',
      pg_catalog.format('no %s limit is set at %L for this dimension', limit_type, scope),
      pg_catalog.format('symbol: %s, underlying: %s, sector: %s', symbol, underlying, sector));
  end if;
  perform risk_private.set_limit(
    row(scope, limit_type, null, symbol, underlying, sector, null, null,
      null)::risk_private.limit_request, reason);
end
$$;
comment on function risk_private.remove_limit(text, text, text, text, text, text) is
  'What risk.remove_limit does.';

-- 32_settings.sql
-- Settings: stored per scope, resolved along the chain onto the scopes themselves, so that a
-- decision reads one row.

create function risk_private.validate_setting(name text, value text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_unknown text;
begin
  if name in ('max_mark_age', 'max_heartbeat_age', 'max_indicator_age', 'collar_floor') then
    if (value ~ '^[0-9]{1,9}(\.[0-9]{1,9})?$') is not true then
      perform risk_private.fail('RK400',
        pg_catalog.format('%s must be a number >= 0, got %L', name, value),
        'argument: value');
    end if;
  elsif name = 'four_eyes' then
    if (value in ('on', 'off')) is not true then
      perform risk_private.fail('RK400',
        pg_catalog.format('four_eyes must be on or off, got %L', value), 'argument: value');
    end if;
  elsif name = 'required_limit_types' then
    select t into v_unknown from pg_catalog.unnest(pg_catalog.string_to_array(value, ',')) as t
    where not exists (select from risk_private.limit_types as k
      where k.limit_type = pg_catalog.btrim(t)) limit 1;
    if value is null or v_unknown is not null then
      perform risk_private.fail('RK400', pg_catalog.format('unknown limit type %L', v_unknown),
        'argument: value',
        'A comma-separated list of limit types; net_position is always required.');
    end if;
  elsif name = 'exchange_time_zone' then
    if not exists (select from pg_catalog.pg_timezone_names as z where z.name = value) then
      perform risk_private.fail('RK400', pg_catalog.format('unknown time zone %L', value),
        'argument: value',
        'A name like America/New_York.');
    end if;
  else
    perform risk_private.fail('RK400', pg_catalog.format('unknown setting %L', name),
      'argument: name',
      'Known: max_mark_age, max_heartbeat_age, max_indicator_age, collar_floor, four_eyes, '
      'required_limit_types, exchange_time_zone.');
  end if;
end
$$;
comment on function risk_private.validate_setting(text, text) is
  'Raises RK400 for an unknown setting or an impossible value.';

create function risk_private.resolve_settings(scope_id integer) returns void
language sql volatile
begin atomic
  update risk_private.scopes as s set
    max_mark_age = coalesce(r.max_mark_age, 60),
    max_heartbeat_age = coalesce(r.max_heartbeat_age, 3),
    collar_floor = coalesce(r.collar_floor, 0.10),
    required_types = pg_catalog.set_bit(coalesce(r.required_types, b'0'::bit(32)), 3, 1)
  from risk_private.scopes as t
  cross join lateral (
    select
      coalesce(min(g.value::double precision) filter (where g.name = 'max_mark_age'
        and g.value::numeric > 0),
               max(g.value::double precision) filter (where g.name = 'max_mark_age'))
                 as max_mark_age,
      coalesce(min(g.value::double precision) filter (where g.name = 'max_heartbeat_age'
        and g.value::numeric > 0),
               max(g.value::double precision) filter (where g.name = 'max_heartbeat_age'))
                 as max_heartbeat_age,
      (pg_catalog.array_agg(g.value::numeric
        order by g.scope_id) filter (where g.name = 'collar_floor'))[1]
        as collar_floor,
      (select pg_catalog.bit_or(pg_catalog.set_bit(b'0'::bit(32), k.bit, 1))
       from risk_private.limit_types as k
       where k.limit_type = any (
         select pg_catalog.btrim(n) from risk_private.settings as q
         cross join pg_catalog.unnest(pg_catalog.string_to_array(q.value, ',')) as n
         where q.name = 'required_limit_types'
           and (q.scope_id is null or q.scope_id = any (t.chain)))
      ) as required_types
    from risk_private.settings as g
    where g.scope_id is null or g.scope_id = any (t.chain)
  ) as r
  where t.chain @> array[resolve_settings.scope_id] and s.scope_id = t.scope_id;
end;
comment on function risk_private.resolve_settings(integer) is
  'Resolves the settings of a scope and all below it: ages take the strictest non-zero value on '
  'the chain, the collar floor the nearest, required limit types add up.';

create function risk_private.set_setting(name text, value text, scope text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_scope_id integer;
begin
  perform risk_private.validate_setting(name, value);
  if scope is not null then
    v_scope_id := (risk_private.scope(set_setting.scope)).scope_id;
  end if;
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.settings'));
  delete from risk_private.settings as s where s.name = set_setting.name
    and s.scope_id is not distinct from v_scope_id;
  insert into risk_private.settings (name, scope_id, value) values (set_setting.name, v_scope_id,
    set_setting.value);
  if v_scope_id is not null then
    perform risk_private.resolve_settings(v_scope_id);
  else
    perform risk_private.resolve_settings(s.scope_id) from risk_private.scopes as s
      where s.parent_id is null;
  end if;
end
$$;
comment on function risk_private.set_setting(text, text, text) is 'What risk.set_setting does.';

create procedure risk.set_setting(name text, value text, scope text default null)
language plpgsql
as $$
begin
  perform risk_private.set_setting(name, value, scope);
  commit;
end
$$;
comment on procedure risk.set_setting(text, text, text) is
  'Sets a setting for a scope and everything below it, or (scope NULL) for all: max_mark_age (60), '
  'max_heartbeat_age (3), max_indicator_age (60) in seconds, 0 = off, the strictest on the chain '
  'holds; collar_floor (0.10, for options); four_eyes (on, off; stored, not yet enforced); '
  'required_limit_types (comma-separated); exchange_time_zone (America/New_York). Errors: RK400, '
  'RK404.';

create function risk_private.trading_date() returns date
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(
      c.trading_date,
      (risk_private.clock() at time zone coalesce(
        (select s.value from risk_private.settings as s where s.name = 'exchange_time_zone'
          and s.scope_id is null),
        'America/New_York'))::date)
    from risk_private.trading_calendar as c);
end
$$;
comment on function risk_private.trading_date() is
  'The last open_day, else today in the exchange''s time zone.';

-- 34_account_levels.sql
-- What an account's orders are compared with, folded along its chain into one row, so that
-- accepting an order looks at one row instead of every scope. 31_limits.sql keeps it up to date.

create type risk_private.counter_level as (
  counter_id bigint,
  dimension integer,
  net_position numeric,
  long_position numeric,
  short_position numeric,
  self_cross boolean,
  gross_position numeric,
  gross_notional numeric,
  traded_notional numeric,
  open_orders numeric,
  open_positions numeric,
  order_rate numeric,
  order_rate_minute numeric,
  keeps_rate boolean
);
comment on type risk_private.counter_level is
  'A counter that orders of an account move, and the warning levels in force there (Infinity: no '
  'limit). Its key is 0: an order adds the key of its sector, underlying or instrument.';

create table risk_private.account_levels (
  account_id integer primary key,
  is_narrowed boolean not null,
  valid_from timestamptz not null,
  valid_until timestamptz not null,
  types bit(32) not null,
  order_quantity numeric not null,
  order_notional numeric not null,
  price_collar_pct numeric not null,
  net_position numeric not null,
  long_position numeric not null,
  short_position numeric not null,
  self_cross boolean not null,
  gross_position numeric not null,
  gross_notional numeric not null,
  traded_notional numeric not null,
  open_orders numeric not null,
  open_positions numeric not null,
  duplicate_window numeric not null,
  keeps_track boolean not null,
  keeps_fingerprints boolean not null,
  counters risk_private.counter_level[] not null,
  version bigint
);
create sequence risk_private.level_versions;
comment on column risk_private.account_levels.version is
  'Changes with every limit that concerns the account.';
comment on table risk_private.account_levels is
  'Compiled from warning_levels: per leaf, the lowest level of each type on its whole chain, among '
  'those that hold for all instruments. Infinity: no limit.';
comment on column risk_private.account_levels.is_narrowed is
  'Whether some scope of the chain also has levels for a sector, underlying or instrument.';
comment on column risk_private.account_levels.net_position is
  'The account''s own: those of its parents stand with their counters. Likewise the next eight.';
comment on column risk_private.account_levels.keeps_track is
  'Whether a rate or duplicate limit looks back on the account''s orders.';
comment on column risk_private.account_levels.counters is
  'Every counter that an order of the account moves, ascending.';

create function risk_private.fold_levels(
  account_id integer, sector_id integer, underlying_id integer, instrument_id integer,
  at timestamptz)
returns risk_private.account_levels
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_levels risk_private.account_levels;
begin
  select
    fold_levels.account_id, bool_or(r.is_narrowed),
    coalesce(max(r.valid_from), '-infinity'), coalesce(min(r.valid_until), 'infinity'),
    bit_or(r.types), min(r.order_quantity), min(r.order_notional), min(r.price_collar_pct),
    min(r.net_position) filter (where r.is_own), min(r.long_position) filter (where r.is_own),
    min(r.short_position) filter (where r.is_own), bool_or(r.self_cross and r.is_own),
    min(k.gross_position) filter (where r.is_own and k.dimension = 0),
    min(k.gross_notional) filter (where r.is_own and k.dimension = 0),
    min(k.traded_notional) filter (where r.is_own and k.dimension = 0),
    min(k.open_orders) filter (where r.is_own and k.dimension = 0),
    min(k.open_positions) filter (where r.is_own and k.dimension = 0),
    max(r.duplicate_window), bool_or(r.keeps_fingerprints or k.keeps_rate),
    bool_or(r.keeps_fingerprints),
    array_agg(row(
      k.counter_id, k.dimension, r.net_position, r.long_position, r.short_position, r.self_cross,
      k.gross_position, k.gross_notional, k.traded_notional, k.open_orders, k.open_positions,
      k.order_rate, k.order_rate_minute, k.keeps_rate)::risk_private.counter_level
      order by k.counter_id) filter (where k.is_tracked)
  into v_levels
  from (
    select
      s.scope_id, s.scope_id = fold_levels.account_id as is_own, s.tracks_sector,
      s.tracks_underlying, s.tracks_instrument, l0, l1, l2, l3,
      exists (
        select from risk_private.warning_levels as w
        where w.scope_id = s.scope_id and w.dimension > 0) as is_narrowed,
      greatest(l0.valid_from, l1.valid_from, l2.valid_from, l3.valid_from) as valid_from,
      least(l0.valid_until, l1.valid_until, l2.valid_until, l3.valid_until) as valid_until,
      coalesce(l0.types, b'0'::bit(32)) | coalesce(l1.types, b'0'::bit(32))
        | coalesce(l2.types, b'0'::bit(32)) | coalesce(l3.types, b'0'::bit(32)) as types,
      coalesce(l3.order_quantity, l2.order_quantity, l1.order_quantity, l0.order_quantity,
        'Infinity') as order_quantity,
      coalesce(l3.order_notional, l2.order_notional, l1.order_notional, l0.order_notional,
        'Infinity') as order_notional,
      coalesce(l3.price_collar_pct, l2.price_collar_pct, l1.price_collar_pct, l0.price_collar_pct,
        'Infinity') as price_collar_pct,
      coalesce(l3.net_position, l2.net_position, l1.net_position, l0.net_position, 'Infinity')
        as net_position,
      coalesce(l3.long_position, l2.long_position, l1.long_position, l0.long_position, 'Infinity')
        as long_position,
      coalesce(l3.short_position, l2.short_position, l1.short_position, l0.short_position,
        'Infinity') as short_position,
      coalesce(greatest(l0.self_cross, l1.self_cross, l2.self_cross, l3.self_cross), 0) <> 0
        as self_cross,
      coalesce(greatest(l0.duplicate_window, l1.duplicate_window, l2.duplicate_window,
        l3.duplicate_window), 0) as duplicate_window,
      l0.keeps_fingerprints is true or l1.keeps_fingerprints is true
        or l2.keeps_fingerprints is true or l3.keeps_fingerprints is true as keeps_fingerprints
    from risk_private.scopes as leaf
    join risk_private.scopes as s on s.scope_id = any (leaf.chain)
    left join risk_private.warning_levels as l0
      on l0.scope_id = s.scope_id and l0.dimension = 0 and l0.key_id = 0
      and at < l0.valid_until and l0.valid_from <= at
    left join risk_private.warning_levels as l1
      on l1.scope_id = s.scope_id and l1.dimension = 1 and l1.key_id = fold_levels.sector_id
      and at < l1.valid_until and l1.valid_from <= at
    left join risk_private.warning_levels as l2
      on l2.scope_id = s.scope_id and l2.dimension = 2 and l2.key_id = fold_levels.underlying_id
      and at < l2.valid_until and l2.valid_from <= at
    left join risk_private.warning_levels as l3
      on l3.scope_id = s.scope_id and l3.dimension = 3 and l3.key_id = fold_levels.instrument_id
      and at < l3.valid_until and l3.valid_from <= at
    where leaf.scope_id = fold_levels.account_id
  ) as r
  cross join lateral (
    select
      risk_private.counter_id(r.scope_id, d.dimension) as counter_id, d.dimension, d.is_tracked,
      coalesce((d.l).gross_position, 'Infinity') as gross_position,
      coalesce((d.l).gross_notional, 'Infinity') as gross_notional,
      coalesce((d.l).traded_notional, 'Infinity') as traded_notional,
      coalesce((d.l).open_orders, 'Infinity') as open_orders,
      coalesce((d.l).open_positions, 'Infinity') as open_positions,
      coalesce((d.l).order_rate, 'Infinity') as order_rate,
      coalesce((d.l).order_rate_minute, 'Infinity') as order_rate_minute,
      coalesce((d.l).keeps_rate, false) as keeps_rate
    from (
      values (0, true, r.l0), (1, r.tracks_sector, r.l1), (2, r.tracks_underlying, r.l2),
        (3, r.tracks_instrument, r.l3)
    ) as d (dimension, is_tracked, l)
  ) as k;
  return v_levels;
end
$$;
comment on function risk_private.fold_levels(integer, integer, integer, integer, timestamptz) is
  'The warning levels for an account''s orders in one instrument: within a scope the most '
  'specific, over the chain the lowest. Keys NULL: those that hold for all instruments.';

create table risk_private.instrument_levels (
  account_id integer not null,
  instrument_id integer not null,
  version bigint not null,
  levels risk_private.account_levels not null,
  primary key (account_id, instrument_id)
);
comment on table risk_private.instrument_levels is
  'Levels folded for one instrument of a narrowed account, kept for its next order. Of use only '
  'while the version is that of account_levels.';

create function risk_private.renew_account_levels(scope_id integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update risk_private.account_levels as l set
    version = nextval('risk_private.level_versions'),
    is_narrowed = l.is_narrowed or exists (
      select from risk_private.warning_levels as w
      where w.scope_id = any (s.chain) and w.dimension > 0)
  from risk_private.scopes as s
  where s.chain @> array[renew_account_levels.scope_id] and l.account_id = s.scope_id;
end
$$;
comment on function risk_private.renew_account_levels(integer) is
  'Gives account_levels at or below a scope a new version, so that nothing folded before is used.';

create function risk_private.compile_account_levels(scope_id integer, at timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from risk_private.account_levels as l
  using risk_private.scopes as s
  where s.chain @> array[compile_account_levels.scope_id] and l.account_id = s.scope_id;
  insert into risk_private.account_levels
  select l.*
  from risk_private.scopes as s
  cross join lateral risk_private.fold_levels(s.scope_id, null, null, null, at) as l
  where s.is_leaf and s.chain @> array[compile_account_levels.scope_id];
  perform risk_private.renew_account_levels(scope_id);
end
$$;
comment on function risk_private.compile_account_levels(integer, timestamptz) is
  'Rebuilds account_levels for every account at or below a scope. The caller holds the lock on '
  'limits.';

create function risk_private.refresh_account_levels(account_id integer, at timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Whoever sets limits has the row locked and rebuilds it himself: he is not waited for.
  perform from risk_private.account_levels as l
  where l.account_id = refresh_account_levels.account_id for no key update skip locked;
  if not found then
    return;
  end if;
  update risk_private.account_levels as l set
    is_narrowed = n.is_narrowed, valid_from = n.valid_from, valid_until = n.valid_until,
    types = n.types, order_quantity = n.order_quantity, order_notional = n.order_notional,
    price_collar_pct = n.price_collar_pct, net_position = n.net_position,
    long_position = n.long_position, short_position = n.short_position, self_cross = n.self_cross,
    gross_position = n.gross_position, gross_notional = n.gross_notional,
    traded_notional = n.traded_notional, open_orders = n.open_orders,
    open_positions = n.open_positions,
    duplicate_window = n.duplicate_window, keeps_track = n.keeps_track,
    keeps_fingerprints = n.keeps_fingerprints, counters = n.counters
  from risk_private.fold_levels(
    refresh_account_levels.account_id, null, null, null, at) as n
  where l.account_id = n.account_id;
end
$$;
comment on function risk_private.refresh_account_levels(integer, timestamptz) is
  'Rebuilds the account_levels of an account where a temporary limit has begun or ended.';

create function risk_private.levels_of(
  compiled risk_private.account_levels, sector_id integer, underlying_id integer,
  instrument_id integer, at timestamptz)
returns risk_private.account_levels
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if at >= compiled.valid_from and at < compiled.valid_until and not exists (
    select from risk_private.scopes as leaf
    cross join (
      values (1, levels_of.sector_id), (2, levels_of.underlying_id), (3, levels_of.instrument_id)
    ) as d (dimension, key_id)
    join risk_private.warning_levels as w
      on w.scope_id = any (leaf.chain) and w.dimension = d.dimension and w.key_id = d.key_id
    where leaf.scope_id = compiled.account_id
  ) then
    return compiled;
  end if;
  return risk_private.fold_levels(compiled.account_id, sector_id, underlying_id, instrument_id, at);
end
$$;
comment on function risk_private.levels_of(
  risk_private.account_levels, integer, integer, integer, timestamptz) is
  'The levels for one instrument where the compiled row may not tell: it is narrowed, or it is '
  'out of date.';

create function risk_private.kept_levels(
  compiled risk_private.account_levels, sector_id integer, underlying_id integer,
  instrument_id integer, at timestamptz)
returns risk_private.account_levels
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_levels risk_private.account_levels;
begin
  select (k.levels).* into v_levels
  from risk_private.instrument_levels as k
  where k.account_id = compiled.account_id and k.instrument_id = kept_levels.instrument_id
    and k.version = compiled.version;
  if v_levels.valid_from <= at and at < v_levels.valid_until then
    return v_levels;
  end if;
  v_levels := risk_private.levels_of(compiled, sector_id, underlying_id, instrument_id, at);
  insert into risk_private.instrument_levels as k (account_id, instrument_id, version, levels)
  values (compiled.account_id, kept_levels.instrument_id, compiled.version, v_levels)
  on conflict on constraint instrument_levels_pkey
    do update set version = excluded.version, levels = excluded.levels;
  return v_levels;
end
$$;
comment on function risk_private.kept_levels(
  risk_private.account_levels, integer, integer, integer, timestamptz) is
  'levels_of, remembered for the next order. The caller holds the account, and has read the '
  'compiled row in an earlier statement than this: what is kept is never older than its version.';

-- 39_protocol.sql
-- What every change of the book goes through, and what both ways of deciding check alike.

create function risk_private.begin_change() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    perform risk_private.fail('25001',
      'risk calls need transaction isolation read committed, not '
      || current_setting('transaction_isolation'),
      hint => 'set default_transaction_isolation to ''read committed''.');
  end if;
  perform set_config('synchronous_commit', 'off', true);
end
$$;
comment on function risk_private.begin_change() is
  'First step of every change of the book. The commit that ends it does not wait for the disk, so '
  'locks are short; the commit after flush() waits. Other isolation levels would read limits and '
  'halts as of the past: refused.';

create function risk_private.flush() returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  -- From PostgreSQL 17 on, WAL can be flushed here and now: nothing that is not durable is told,
  -- even to a caller who sits in a transaction. Only the commit waits for a synchronous standby.
  if current_setting('server_version_num')::integer >= 170000
    and current_setting('synchronous_standby_names') = '' then
    perform set_config('synchronous_commit', 'off', true);
    perform pg_logical_emit_message(false, 'pgrisk', '', true);
    return;
  end if;
  if current_setting('synchronous_commit') not in ('on', 'remote_apply') then
    perform set_config('synchronous_commit', 'on', true);
  end if;
  perform pg_logical_emit_message(true, 'pgrisk', '');
end
$$;
comment on function risk_private.flush() is
  'Makes the coming commit wait until everything committed so far is durable: WAL is ordered. It '
  'holds no lock meanwhile.';

create function risk_private.may_trade(chain integer[]) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return risk_private.is_owner() or exists (
    select from risk_private.trading_grants as g
    where g.scope_id = any (chain)
      and pg_has_role(risk_private.caller(), g.role_id, 'member'));
end
$$;
comment on function risk_private.may_trade(integer[]) is
  'Whether the caller may trade the account of that chain.';

create function risk_private.is_quantity(value numeric) returns boolean
language sql immutable
return coalesce(value > 0 and value <= 1e12 and pg_catalog.min_scale(value) <= 8, false);
comment on function risk_private.is_quantity(numeric) is
  'True for a finite quantity above 0, at most 1e12, with at most 8 decimals.';

create function risk_private.is_price(value numeric, tick numeric, may_be_negative boolean)
returns boolean
language sql immutable
return coalesce(
  value between -1e12 and 1e12 and pg_catalog.min_scale(value) <= 8
  and (value > 0 or may_be_negative) and (tick is null or value % tick = 0), false);
comment on function risk_private.is_price(numeric, numeric, boolean) is
  'True for a finite price within 1e12, with at most 8 decimals, on its tick, and above 0 unless '
  'it may be negative.';

-- Stable, as the arithmetic of timestamptz is: else it could not be inlined.
create function risk_private.is_fresh(
  as_of timestamptz, max_age double precision, at timestamptz) returns boolean
language sql stable
return coalesce(
  max_age = 0 or (
    as_of <= at + interval '1 second'
    and as_of >= at - pg_catalog.make_interval(secs => max_age)), false);
comment on function risk_private.is_fresh(timestamptz, double precision, timestamptz) is
  'Whether data is at most max_age seconds old and not from the future (a second of clock skew is '
  'tolerated); 0: any age.';

create function risk_private.fingerprint(
  instrument_ids integer[], ratios integer[], quantity numeric, price numeric)
returns uuid
language sql stable
return pg_catalog.md5(pg_catalog.concat_ws('|',
  instrument_ids::text, ratios::text, pg_catalog.trim_scale(quantity)::text,
  pg_catalog.trim_scale(price)::text))::uuid;
comment on function risk_private.fingerprint(integer[], integer[], numeric, numeric) is
  'What makes two orders of an account duplicates: legs with their sides, quantity and price.';

-- 40_exposure.sql
-- How orders and fills move positions and counters. One place computes the increments (changes),
-- one place adds them (move_positions, move_counters); deciding, filling, releasing and the roll of
-- the day all go through them. Only 41_accept.sql has forms of its own, for speed.
--
-- Lock order, everywhere: the counter row (leaf, 0, 0) of each account, ascending; then any row of
-- those accounts; then counters of parents, ascending. What depends on parents is read in a
-- statement begun after the accounts are locked.

create type risk_private.movement as (
  account_id integer,
  instrument_id integer,
  quantity numeric,
  open_buy numeric,
  open_sell numeric,
  traded_notional numeric,
  open_orders integer,
  accepted_orders integer,
  unit_notional numeric,
  revaluation numeric
);
comment on type risk_private.movement is
  'What happens to one account''s instrument: increments, the unit notional at which a flat '
  'position is picked up, and the change of the carried one. Arrays of it hold each (account, '
  'instrument) once.';

create type risk_private.change as (
  counter_id bigint,
  scope_id integer,
  dimension integer,
  key_id integer,
  quantity numeric,
  open_buy numeric,
  open_sell numeric,
  gross_position numeric,
  gross_notional numeric,
  traded_notional numeric,
  open_orders integer,
  open_positions integer,
  accepted_orders integer,
  keeps_rate boolean,
  keeps_fingerprints boolean,
  level risk_private.counter_level
);
comment on type risk_private.change is
  'Increments to one counter row, whether acceptances there are to be remembered, and (only where'
  ' an order is accepted without explanation) the warning levels that must not be reached.';

create function risk_private.movement(
  account_id integer, instrument_id integer, quantity numeric default 0, open_buy numeric default 0,
  open_sell numeric default 0, traded_notional numeric default 0, open_orders integer default 0,
  accepted_orders integer default 0, unit_notional numeric default 0, revaluation numeric default 0)
returns risk_private.movement
language sql immutable
return row(account_id, instrument_id, quantity, open_buy, open_sell, traded_notional, open_orders,
           accepted_orders, unit_notional, revaluation)::risk_private.movement;
comment on function risk_private.movement(
  integer, integer, numeric, numeric, numeric, numeric, integer, integer, numeric, numeric) is
  'A movement; what is not given is 0.';

create function risk_private.worst_case(quantity numeric, open_buy numeric, open_sell numeric)
returns numeric
language sql immutable
return greatest(quantity + open_buy, open_sell - quantity);
comment on function risk_private.worst_case(numeric, numeric, numeric) is
  'max(abs(q + OB), abs(q - OS)): open buys and sells never net. As q + OB >= q - OS, the larger '
  'of the two sides.';

create function risk_private.changes(
  movements risk_private.movement[], one_order boolean, at timestamptz)
returns setof risk_private.change
language sql stable
begin atomic
  select
    risk_private.counter_id(b.scope_id, d.dimension, d.key_id), b.scope_id, d.dimension, d.key_id,
    sum(b.quantity), sum(b.open_buy), sum(b.open_sell), sum(b.after - b.before),
    sum(b.gross_notional), sum(b.traded_notional),
    case when one_order then max(b.open_orders) else sum(b.open_orders) end::integer,
    sum(b.opened)::integer,
    case when one_order then max(b.accepted_orders) else sum(b.accepted_orders) end::integer,
    bool_or(b.accepted_orders > 0 and coalesce(w.keeps_rate, false)),
    bool_or(b.keeps_fingerprints), null::risk_private.counter_level
  from (
    select
      m.*, s.scope_id, s.tracks_sector, s.tracks_underlying, s.tracks_instrument,
      case when m.before = 0 then m.after * m.unit_notional
           else (m.after - m.before) * m.carried_at + m.after * m.revaluation end as gross_notional,
      (m.after <> 0)::integer - (m.before <> 0)::integer as opened,
      m.accepted_orders > 0 and exists (
        select from (
          values (0, 0), (1, m.sector_id), (2, m.underlying_id), (3, m.instrument_id)
        ) as k (dimension, key_id)
        join risk_private.warning_levels as f
          on f.scope_id = s.scope_id and f.dimension = k.dimension and f.key_id = k.key_id
          and f.valid_from <= at and at < f.valid_until
        where f.keeps_fingerprints) as keeps_fingerprints
    from (
      -- offset 0 keeps the planner from repeating these expressions wherever they are used
      select
        m.*, leaf.chain, i.sector_id, i.underlying_id, p.unit_notional as carried_at,
        coalesce(risk_private.worst_case(p.quantity, p.open_buy, p.open_sell), 0) as before,
        risk_private.worst_case(
          coalesce(p.quantity, 0) + m.quantity, coalesce(p.open_buy, 0) + m.open_buy,
          coalesce(p.open_sell, 0) + m.open_sell) as after
      from unnest(movements) as m
      join risk_private.scopes as leaf on leaf.scope_id = m.account_id
      join risk_private.instruments as i on i.instrument_id = m.instrument_id
      left join risk_private.positions as p
        on p.account_id = m.account_id and p.instrument_id = m.instrument_id
      offset 0
    ) as m
    join risk_private.scopes as s on s.scope_id = any (m.chain)
    offset 0
  ) as b
  cross join lateral (
    values (0, 0, true), (1, b.sector_id, b.tracks_sector and b.sector_id is not null),
      (2, b.underlying_id, b.tracks_underlying), (3, b.instrument_id, b.tracks_instrument)
  ) as d (dimension, key_id, is_tracked)
  left join risk_private.warning_levels as w
    on w.scope_id = b.scope_id and w.dimension = d.dimension and w.key_id = d.key_id
    and w.valid_from <= at and at < w.valid_until
  where d.is_tracked
  group by b.scope_id, d.dimension, d.key_id;
end;
comment on function risk_private.changes(risk_private.movement[], boolean, timestamptz) is
  'What the movements add to each counter row of their chains. one_order: all movements are legs '
  'of one order, which counts once.';

create function risk_private.move_positions(movements risk_private.movement[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.positions as p (
    account_id, instrument_id, quantity, open_buy, open_sell, unit_notional)
  select m.account_id, m.instrument_id, m.quantity, m.open_buy, m.open_sell, m.unit_notional
  from unnest(movements) as m
  on conflict (account_id, instrument_id) do update set
    quantity = p.quantity + excluded.quantity,
    open_buy = p.open_buy + excluded.open_buy,
    open_sell = p.open_sell + excluded.open_sell,
    unit_notional = case
      when risk_private.worst_case(p.quantity, p.open_buy, p.open_sell) = 0
        then excluded.unit_notional
      else p.unit_notional
    end;
end
$$;
comment on function risk_private.move_positions(risk_private.movement[]) is
  'Adds movements to positions. The caller has locked the accounts.';

create function risk_private.move_counters(changes risk_private.change[]) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_moved integer;
begin
  update risk_private.counters as c set
    quantity = c.quantity + x.quantity,
    open_buy = c.open_buy + x.open_buy,
    open_sell = c.open_sell + x.open_sell,
    gross_position = c.gross_position + x.gross_position,
    gross_notional = c.gross_notional + x.gross_notional,
    traded_notional = c.traded_notional + x.traded_notional,
    open_orders = c.open_orders + x.open_orders,
    open_positions = c.open_positions + x.open_positions,
    accepted_orders = c.accepted_orders + x.accepted_orders
  from unnest(changes) as x
  where c.counter_id = x.counter_id;
  get diagnostics v_moved = row_count;
  return v_moved = cardinality(changes);
end
$$;
comment on function risk_private.move_counters(risk_private.change[]) is
  'Adds changes to counters, which the caller has locked. Returns false where a row is missing.';

create function risk_private.lock_account(account_id integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from risk_private.counters as c
  where c.counter_id = risk_private.counter_id(account_id) for no key update;
end
$$;
comment on function risk_private.lock_account(integer) is
  'Takes the lock under which everything of an account changes.';

-- Rows that others may be making at this moment are waited for, ascending, before any other parent
-- is locked.
create function risk_private.ensure_counters(changes risk_private.change[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.counters (counter_id, scope_id, dimension, key_id)
  select x.counter_id, x.scope_id, x.dimension, x.key_id
  from pg_catalog.unnest(changes) as x
  where not exists (select from risk_private.counters as c where c.counter_id = x.counter_id)
  order by x.counter_id
  on conflict (counter_id) do nothing;
end
$$;
comment on function risk_private.ensure_counters(risk_private.change[]) is
  'Adds the counters that a first trade in an instrument needs. Zero is their value: while a scope '
  'tracks a dimension, every key that anybody below has traded has its row.';

-- Lock order: the caller holds the accounts; then parents ascending.
create function risk_private.move(movements risk_private.movement[], one_order boolean) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_changes risk_private.change[] := array(
    select x from risk_private.changes(movements, one_order, risk_private.clock()) as x
    order by x.counter_id);
begin
  perform risk_private.lock_counters(v_changes);
  perform risk_private.move_positions(movements);
  if not risk_private.move_counters(v_changes) then
    perform risk_private.fail('RK500', 'a counter is missing', v_changes::text,
      'Run risk.verify_counters().');
  end if;
end
$$;
comment on function risk_private.move(risk_private.movement[], boolean) is
  'Applies movements that are facts (fills, releases, revaluations), whatever the limits say.';

-- 41_accept.sql
-- The lean path of a decision: accept what is comfortably inside every limit, or leave it. Whatever
-- is not plain (a warning, a halt, a reduction, stale data, a refusal, bad input) is left to
-- 45_decide.sql.

create function risk_private.is_below(
  c risk_private.counters, l risk_private.counter_level, open_buy numeric, open_sell numeric,
  gross_position numeric, gross_notional numeric, traded_notional numeric, open_orders integer,
  open_positions integer)
returns boolean
language sql immutable
return
  c.gross_position + gross_position < l.gross_position
  and c.gross_notional + gross_notional < l.gross_notional
  and c.traded_notional + traded_notional < l.traded_notional
  and c.open_orders + open_orders < l.open_orders
  and c.open_positions + open_positions < l.open_positions
  and (l.dimension <> 3 or (
    greatest(c.quantity + c.open_buy + open_buy, c.open_sell + open_sell - c.quantity)
      < l.net_position
    and c.quantity + c.open_buy + open_buy < l.long_position
    and c.open_sell + open_sell - c.quantity < l.short_position
    and (not l.self_cross or (
      (open_buy = 0 or c.open_sell + open_sell = 0)
      and (open_sell = 0 or c.open_buy + open_buy = 0)))));
comment on function risk_private.is_below(
  risk_private.counters, risk_private.counter_level, numeric, numeric, numeric, numeric, numeric,
  integer, integer) is
  'Whether every measure of a counter, so increased, stays below its warning level: then no limit'
  ' on it can fail. Orders of an account on one side only cannot cross each other.';

create function risk_private.number_acceptances(changes risk_private.change[], at timestamptz)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.rate_events (counter_id, number, accepted_at)
  select x.counter_id, n, at
  from unnest(changes) as x
  join risk_private.counters as c on c.counter_id = x.counter_id
  cross join generate_series(c.accepted_orders - x.accepted_orders + 1, c.accepted_orders) as n
  where x.keeps_rate;
  delete from risk_private.rate_events as e
  using unnest(changes) as x
  join risk_private.counters as c on c.counter_id = x.counter_id
  where x.keeps_rate and c.accepted_orders / 256 > (c.accepted_orders - x.accepted_orders) / 256
    and e.counter_id = x.counter_id
    and e.number <= c.accepted_orders
      - risk_private.accepted_since(x.counter_id, at - interval '60 seconds');
end
$$;
comment on function risk_private.number_acceptances(risk_private.change[], timestamptz) is
  'Records when the orders just counted were accepted, where a rate limit looks back on it, and '
  'now and then forgets what no limit looks back on any more.';

create function risk_private.keep_track(
  changes risk_private.change[], fingerprints risk_private.recent_orders[],
  duplicate_window numeric, at timestamptz)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_kept integer;
begin
  if exists (
    select from unnest(changes) as x
    join risk_private.counters as c on c.counter_id = x.counter_id
    cross join lateral (
      values ((x.level).order_rate, interval '1 second'),
        ((x.level).order_rate_minute, interval '60 seconds')
    ) as r (level, span)
    where r.level < 'Infinity' and (
      ceil(r.level) <= x.accepted_orders
      or exists (
        select from risk_private.rate_events as e
        where e.counter_id = x.counter_id
          and e.number = c.accepted_orders - ceil(r.level)::bigint + 1
          and e.accepted_at > at - r.span))
  ) then
    return false;
  end if;
  perform risk_private.number_acceptances(changes, at);
  insert into risk_private.recent_orders as r (account_id, fingerprint, accepted_at)
  select distinct f.account_id, f.fingerprint, f.accepted_at from unnest(fingerprints) as f
  on conflict (account_id, fingerprint) do update set accepted_at = excluded.accepted_at
    where r.accepted_at
      <= excluded.accepted_at - make_interval(secs => duplicate_window::double precision);
  get diagnostics v_kept = row_count;
  return v_kept = cardinality(fingerprints);
end
$$;
comment on function risk_private.keep_track(
  risk_private.change[], risk_private.recent_orders[], numeric, timestamptz) is
  'Records what rate and duplicate limits look back on, once the counters have moved. Returns '
  'false, to be rolled back, where a rate reaches its warning level or an order repeats.';

-- One long function and no branch that is not needed, because this is what every order waits for:
-- each operator, plan node and call costs. What most orders do not need is done by others.
-- Lock order: the account, then the counters of its chain, ascending.
create function risk_private.accept_order(
  account text, client_order_id text, symbol text, side text, quantity numeric, price numeric,
  agent text, time_in_force text)
returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_bitmapscan = off
as $$
declare
  v_is_buy boolean := side = 'buy';
  v_account_id integer;
  v_chain integer[];
  v_mark_age double precision;
  v_heartbeat_age double precision;
  v_required_types bit(32);
  v_at timestamptz;
  v_levels risk_private.account_levels;
  v_instrument_id integer;
  v_sector_id integer;
  v_underlying_id integer;
  v_factor numeric;
  v_buy numeric;
  v_sell numeric;
  v_unit_notional numeric;
  v_unit_price numeric;
  v_reference numeric;
  v_traded numeric;
  v_long numeric;
  v_short numeric;
  v_is_crossed boolean;
  v_carried_at numeric;
  v_after numeric;
  v_growth numeric;
  v_notional numeric;
  v_opened integer;
  v_gross_position numeric;
  v_gross_notional numeric;
  v_traded_notional numeric;
  v_open_orders integer;
  v_open_positions integer;
  v_moved integer;
begin
  select s.scope_id, s.chain, s.max_mark_age, s.max_heartbeat_age, s.required_types,
    c.gross_position, c.gross_notional, c.traded_notional, c.open_orders, c.open_positions,
    set_config('synchronous_commit', 'off', true)
  into v_account_id, v_chain, v_mark_age, v_heartbeat_age, v_required_types, v_gross_position,
    v_gross_notional, v_traded_notional, v_open_orders, v_open_positions
  from risk_private.scopes as s
  join risk_private.counters as c on c.counter_id = risk_private.counter_id(s.scope_id)
  where s.code = account
  for no key update of c;

  select l.* into v_levels
  from risk_private.account_levels as l where l.account_id = v_account_id;

  select i.instrument_id, i.sector_id, i.underlying_id, i.multiplier * f.rate,
    case when v_is_buy then accept_order.quantity else 0 end,
    case when v_is_buy then 0 else accept_order.quantity end, risk_private.clock()
  into v_instrument_id, v_sector_id, v_underlying_id, v_factor, v_buy, v_sell, v_at
  from risk_private.instruments as i
  join risk_private.fx_rates as f on f.currency = i.currency
  where i.symbol = accept_order.symbol and i.status = 'ACTIVE'
    and accept_order.quantity % i.lot = 0
    and (accept_order.price is null
      or (i.tick is null or accept_order.price % i.tick = 0)
      and (accept_order.price > 0 or i.allow_negative_price))
    and (i.expiry is null or i.expiry >= risk_private.trading_date());

  if v_instrument_id is not null and (v_levels.is_narrowed
    or v_at < v_levels.valid_from or v_at >= v_levels.valid_until) then
    if v_at < v_levels.valid_from or v_at >= v_levels.valid_until then
      perform risk_private.refresh_account_levels(v_account_id, v_at);
    end if;
    v_levels := risk_private.kept_levels(
      v_levels, v_sector_id, v_underlying_id, v_instrument_id, v_at);
  end if;

  select abs(m.price) * v_factor,
    abs(case when v_is_buy then coalesce(accept_order.price, m.ask, m.price)
             else greatest(accept_order.price, coalesce(m.bid, m.price)) end) * v_factor,
    case when v_is_buy then coalesce(m.ask, m.price) else coalesce(m.bid, m.price) end
  into v_unit_notional, v_unit_price, v_reference
  from risk_private.marks as m
  where m.instrument_id = v_instrument_id and risk_private.is_fresh(m.as_of, v_mark_age, v_at)
    and not exists (
      select from risk_private.trading_states as t
      where t.scope_id = any (v_chain) and t.underlying_id in (0, v_underlying_id)
        and t.state <> 'ACTIVE');
  v_traded := quantity * v_unit_price;

  if (quantity > 0 and quantity <= 1e12 and min_scale(quantity) <= 8
      and (price is null or abs(price) <= 1e12 and min_scale(price) <= 8)
      and quantity < v_levels.order_quantity and v_traded < v_levels.order_notional
      and v_levels.types & v_required_types = v_required_types
      and client_order_id ~ '^[!-~]+$' and length(client_order_id) <= 64
      and (agent is null or agent ~ '^[!-~]+$' and length(agent) <= 64)
      and side in ('buy', 'sell') and time_in_force in ('DAY', 'GTC')
      and current_setting('transaction_isolation') = 'read committed'
      and risk_private.may_trade(v_chain)) is not true then
    return false;
  end if;
  if v_levels.price_collar_pct < 'Infinity' or v_heartbeat_age <> 0
    or v_underlying_id <> v_instrument_id then
    if (price is null
        or case when v_is_buy then price - v_reference else v_reference - price end * 100
          <= v_levels.price_collar_pct * abs(v_reference)) is not true
      or v_heartbeat_age <> 0 and not exists (
        select from risk_private.heartbeat as h
        where risk_private.is_fresh(h.beat_at, v_heartbeat_age, v_at)
          and risk_private.is_fresh(h.inputs_as_of, v_heartbeat_age, v_at))
      or v_mark_age <> 0 and v_underlying_id <> v_instrument_id and not exists (
        select from risk_private.marks as m
        where m.instrument_id = v_underlying_id
          and risk_private.is_fresh(m.as_of, v_mark_age, v_at)) then
      return false;
    end if;
  end if;

  insert into risk_private.orders (
    account_id, client_order_id, agent, instrument_ids, ratios, quantity, price, is_combo,
    time_in_force, unit_prices, filled, decision, allowed_quantity, state, decided_at)
  values (
    v_account_id, accept_order.client_order_id, accept_order.agent, array[v_instrument_id],
    array[case when v_is_buy then 1 else -1 end], accept_order.quantity, accept_order.price, false,
    accept_order.time_in_force, array[v_unit_price], array[0::numeric], 'ACCEPTED',
    accept_order.quantity, 'ACCEPTED', v_at)
  on conflict on constraint orders_pkey do nothing;
  if not found then
    return false;
  end if;

  update risk_private.positions as p set
    open_buy = p.open_buy + v_buy,
    open_sell = p.open_sell + v_sell,
    unit_notional = case
      when p.quantity = 0 and p.open_buy = 0 and p.open_sell = 0 then v_unit_notional
      else p.unit_notional end
  where p.account_id = v_account_id and p.instrument_id = v_instrument_id
  returning p.quantity + p.open_buy, p.open_sell - p.quantity, p.unit_notional,
    case when v_is_buy then p.open_sell else p.open_buy end <> 0
  into v_long, v_short, v_carried_at, v_is_crossed;
  if not found then
    insert into risk_private.positions (
      account_id, instrument_id, open_buy, open_sell, unit_notional)
    values (v_account_id, v_instrument_id, v_buy, v_sell, v_unit_notional);
    v_long := v_buy;
    v_short := v_sell;
    v_carried_at := v_unit_notional;
    v_is_crossed := false;
  end if;
  -- What the account itself has no room for shall not lock its parents.
  v_after := greatest(v_long, v_short);
  v_growth := v_after - greatest(v_long - v_buy, v_short - v_sell);
  v_notional := v_growth * v_carried_at;
  v_opened := case when v_growth = v_after then 1 else 0 end;
  if (v_after < v_levels.net_position and v_long < v_levels.long_position
      and v_short < v_levels.short_position
      and not (v_levels.self_cross and v_is_crossed)
      and v_gross_position + v_growth < v_levels.gross_position
      and v_gross_notional + v_notional < v_levels.gross_notional
      and v_traded_notional + v_traded < v_levels.traded_notional
      and v_open_orders < v_levels.open_orders
      and v_open_positions + v_opened < v_levels.open_positions) is not true then
    return true;
  end if;

  -- The firm's row comes last and is held for as short as can be.
  update risk_private.counters as c set
    open_buy = c.open_buy + v_buy,
    open_sell = c.open_sell + v_sell,
    gross_position = c.gross_position + v_growth,
    gross_notional = c.gross_notional + v_notional,
    traded_notional = c.traded_notional + v_traded,
    open_orders = c.open_orders + 1,
    open_positions = c.open_positions + v_opened,
    accepted_orders = c.accepted_orders + 1
  from unnest(v_levels.counters) as l
  where c.counter_id = l.counter_id | case l.dimension
      when 0 then 0 when 1 then v_sector_id when 2 then v_underlying_id else v_instrument_id end
    and risk_private.is_below(
      c, l, v_buy, v_sell, v_growth, v_notional, v_traded, 1, v_opened);
  get diagnostics v_moved = row_count;
  if v_moved < cardinality(v_levels.counters) then
    if v_sector_id is not null or v_moved < (
      select count(*) from unnest(v_levels.counters) as l where l.dimension <> 1) then
      return true;
    end if;
  end if;
  if not v_levels.keeps_track then
    return false;
  end if;
  return not risk_private.keep_track(
    array(
      select row(
        l.counter_id | case l.dimension when 0 then 0 when 1 then v_sector_id
          when 2 then v_underlying_id else v_instrument_id end,
        null, null, null, null, null, null, null, null, null, null, null, 1, l.keeps_rate, null,
        l)::risk_private.change
      from unnest(v_levels.counters) as l
      where l.dimension <> 1 or v_sector_id is not null),
    case when v_levels.keeps_fingerprints then array[row(
      v_account_id,
      risk_private.fingerprint(
        array[v_instrument_id], array[case when v_is_buy then 1 else -1 end], quantity, price),
      v_at)::risk_private.recent_orders] else '{}' end,
    v_levels.duplicate_window, v_at);
end
$$;
comment on function risk_private.accept_order(
  text, text, text, text, numeric, numeric, text, text) is
  'Accepts an order where that is plain. Returns true where there is no room and the transaction '
  'must be rolled back; false says nothing about the order.';

create function risk_private.accepted(account text, client_order_id text, decided_xid xid8)
returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
begin
  perform risk_private.flush()
  from risk_private.scopes as s
  join risk_private.orders as o on o.account_id = s.scope_id
    and o.client_order_id = accepted.client_order_id
  where s.code = account and o.decided_xid = accepted.decided_xid
    and o.decided_xid is distinct from pg_current_xact_id_if_assigned()
    and o.decided_by = session_user
    and o.decision = 'ACCEPTED';
  return found;
end
$$;
comment on function risk_private.accepted(text, text, xid8) is
  'Whether the caller''s transaction of that number, committed since, accepted the order without '
  'explanation; durable once the transaction that calls this commits.';

-- 41_accept_batch.sql
-- The lean path of a batch: accept all of its orders at once, or leave them. If the sum of them
-- stays below every warning level, so does each in turn.

create type risk_private.request as (
  item integer,
  account text,
  client_order_id text,
  symbol text,
  side text,
  quantity numeric,
  price numeric,
  agent text,
  time_in_force text
);
comment on type risk_private.request is 'A single-leg order as it was asked for.';

create type risk_private.entry as (
  account_id integer,
  client_order_id text,
  instrument_id integer,
  sector_id integer,
  underlying_id integer,
  sign integer,
  quantity numeric,
  price numeric,
  agent text,
  time_in_force text,
  unit_price numeric,
  unit_notional numeric
);
comment on type risk_private.entry is 'A single-leg order, resolved and priced.';

create function risk_private.entries(requests risk_private.request[], at timestamptz)
returns table (entry risk_private.entry, is_plain boolean)
language sql stable
begin atomic
  select
    row(
      s.scope_id, r.client_order_id, i.instrument_id, i.sector_id, i.underlying_id, g.sign,
      r.quantity, r.price, r.agent, r.time_in_force, n.unit_price,
      abs(m.price) * i.multiplier * f.rate)::risk_private.entry,
    coalesce(
      i.status = 'ACTIVE' and s.may_trade and s.is_alive
      and risk_private.is_code(r.client_order_id)
      and (r.agent is null or risk_private.is_code(r.agent))
      and risk_private.is_quantity(r.quantity) and r.quantity % i.lot = 0
      and (r.price is null or risk_private.is_price(r.price, i.tick, i.allow_negative_price))
      and r.side in ('buy', 'sell') and r.time_in_force in ('DAY', 'GTC')
      and (i.expiry is null or i.expiry >= risk_private.trading_date())
      and risk_private.is_fresh(m.as_of, s.max_mark_age, at)
      and (s.max_mark_age = 0 or u.instrument_id = i.instrument_id
        or risk_private.is_fresh(u.as_of, s.max_mark_age, at))
      and not exists (
        select from risk_private.trading_states as t
        where t.scope_id = any (s.chain) and t.underlying_id in (0, i.underlying_id)
          and t.state <> 'ACTIVE')
      and (l.levels).types & s.required_types = s.required_types
      and r.quantity < (l.levels).order_quantity
      and r.quantity * n.unit_price < (l.levels).order_notional
      and ((l.levels).price_collar_pct = 'Infinity' or r.price is null
        or (r.price - g.reference) * g.sign * 100
          <= (l.levels).price_collar_pct * abs(g.reference)),
      false)
  from unnest(requests) as r
  join (
    select
      s.*, risk_private.may_trade(s.chain) as may_trade,
      s.max_heartbeat_age = 0 or (
        risk_private.is_fresh(h.beat_at, s.max_heartbeat_age, at)
        and risk_private.is_fresh(h.inputs_as_of, s.max_heartbeat_age, at)) as is_alive
    from risk_private.scopes as s
    cross join risk_private.heartbeat as h
    where s.code = any (array(select distinct a.account from unnest(requests) as a))
    offset 0
  ) as s on s.code = r.account
  join risk_private.account_levels as a on a.account_id = s.scope_id
  join risk_private.instruments as i on i.symbol = r.symbol
  join risk_private.marks as m on m.instrument_id = i.instrument_id
  join risk_private.fx_rates as f on f.currency = i.currency
  left join risk_private.marks as u on u.instrument_id = i.underlying_id
  cross join lateral (
    select
      case r.side when 'buy' then 1 else -1 end as sign,
      coalesce(case r.side when 'buy' then m.ask else m.bid end, m.price) as reference
  ) as g
  cross join lateral (
    select abs(case when r.price is not null and (r.side = 'buy' or r.price > g.reference)
                 then r.price else g.reference end) * i.multiplier * f.rate as unit_price
  ) as n
  cross join lateral (
    select case when a.is_narrowed
      then risk_private.levels_of(a, i.sector_id, i.underlying_id, i.instrument_id, at)
      else a end as levels
    offset 0
  ) as l
  order by r.item;
end;
comment on function risk_private.entries(risk_private.request[], timestamptz) is
  'Resolves single-leg orders: one row for each whose account, symbol and prices are known. '
  'is_plain: well formed, allowed, fresh, active, not halted, and by itself below every level of '
  'one order.';

create type risk_private.reservation as (
  changes risk_private.change[],
  is_plain boolean,
  keeps_track boolean,
  keeps_fingerprints boolean,
  duplicate_window numeric
);
comment on type risk_private.reservation is
  'What orders change in each counter, ascending; whether the accounts'' own position limits are '
  'far enough; and what is to be remembered of them.';

create function risk_private.reserve(entries risk_private.entry[], at timestamptz)
returns risk_private.reservation
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_reservation risk_private.reservation;
begin
  with movements as (
    select
      e.account_id, e.instrument_id, e.sector_id, e.underlying_id,
      coalesce(sum(e.quantity) filter (where e.sign = 1), 0) as open_buy,
      coalesce(sum(e.quantity) filter (where e.sign = -1), 0) as open_sell,
      sum(e.quantity * e.unit_price) as traded_notional, count(*)::integer as orders,
      max(e.unit_notional) as unit_notional
    from unnest(entries) as e
    group by e.account_id, e.instrument_id, e.sector_id, e.underlying_id
  ), moved as (
    insert into risk_private.positions as p (
      account_id, instrument_id, open_buy, open_sell, unit_notional)
    select m.account_id, m.instrument_id, m.open_buy, m.open_sell, m.unit_notional
    from movements as m
    on conflict (account_id, instrument_id) do update set
      open_buy = p.open_buy + excluded.open_buy,
      open_sell = p.open_sell + excluded.open_sell,
      unit_notional = case
        when risk_private.worst_case(p.quantity, p.open_buy, p.open_sell) = 0
          then excluded.unit_notional
        else p.unit_notional
      end
  ), judged as (
    -- Positions as they were: all of one statement reads the same snapshot.
    select
      m.sector_id, m.underlying_id, m.instrument_id, m.open_buy, m.open_sell, m.traded_notional,
      m.orders, h.after - h.before as gross_position,
      (h.after - h.before) * case when h.before = 0 then m.unit_notional else p.unit_notional end
        as gross_notional,
      (h.before = 0)::integer as opened,
      (h.after < l.net_position and h.long + m.open_buy < l.long_position
        and h.short + m.open_sell < l.short_position
        and (not l.self_cross or (
          (m.open_buy = 0 or m.open_sell + coalesce(p.open_sell, 0) = 0)
          and (m.open_sell = 0 or m.open_buy + coalesce(p.open_buy, 0) = 0)))) is true as is_plain,
      l.keeps_track, l.keeps_fingerprints, l.duplicate_window, l.counters
    from movements as m
    left join risk_private.positions as p
      on p.account_id = m.account_id and p.instrument_id = m.instrument_id
    join risk_private.account_levels as a on a.account_id = m.account_id
    cross join lateral (
      select a.* where not a.is_narrowed
      union all
      select n.* from risk_private.levels_of(
        a, m.sector_id, m.underlying_id, m.instrument_id, at) as n
      where a.is_narrowed
    ) as l
    cross join lateral (
      select w.long, w.short, greatest(w.long, w.short) as before,
        greatest(w.long + m.open_buy, w.short + m.open_sell) as after
      from (
        select coalesce(p.quantity + p.open_buy, 0) as long,
          coalesce(p.open_sell - p.quantity, 0) as short
        offset 0
      ) as w
      offset 0
    ) as h
  ), increments as (
    -- Narrow rows, for they are sorted.
    select
      l.counter_id | case l.dimension when 0 then 0 when 1 then j.sector_id
        when 2 then j.underlying_id else j.instrument_id end as counter_id,
      j.open_buy, j.open_sell, j.gross_position, j.gross_notional, j.traded_notional, j.orders,
      j.opened, j.is_plain, j.keeps_track, j.keeps_fingerprints, j.duplicate_window, l as level
    from judged as j
    cross join lateral unnest(j.counters) as l
    where l.dimension <> 1 or j.sector_id is not null
    offset 0
  ), summed as (
    select
      i.counter_id, sum(i.open_buy) as open_buy, sum(i.open_sell) as open_sell,
      sum(i.gross_position) as gross_position, sum(i.gross_notional) as gross_notional,
      sum(i.traded_notional) as traded_notional, sum(i.orders)::integer as orders,
      sum(i.opened)::integer as opened, bool_and(i.is_plain) as is_plain,
      bool_or(i.keeps_track) as keeps_track, bool_or(i.keeps_fingerprints) as keeps_fingerprints,
      max(i.duplicate_window) as duplicate_window, any_value(i.level) as level
    from increments as i
    group by i.counter_id
  )
  select
    array_agg(row(
      s.counter_id, null, null, null, 0, s.open_buy, s.open_sell, s.gross_position,
      s.gross_notional, s.traded_notional, s.orders, s.opened, s.orders, (s.level).keeps_rate,
      null, s.level)::risk_private.change order by s.counter_id),
    bool_and(s.is_plain), bool_or(s.keeps_track), bool_or(s.keeps_fingerprints),
    max(s.duplicate_window)
  into v_reservation
  from summed as s;
  return v_reservation;
end
$$;
comment on function risk_private.reserve(risk_private.entry[], timestamptz) is
  'Moves the positions of all entries and tells what follows from it.';

-- Lock order: accounts ascending, then counters ascending.
create function risk_private.accept(accounts text[], requests risk_private.request[])
returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_mergejoin = off
set enable_bitmapscan = off
as $$
declare
  v_at timestamptz;
  v_entries risk_private.entry[];
  v_is_plain boolean;
  v_reservation risk_private.reservation;
  v_moved integer;
begin
  perform risk_private.begin_change();
  perform from risk_private.scopes as s
  join risk_private.counters as c on c.counter_id = risk_private.counter_id(s.scope_id)
  where s.code = any (accounts)
  order by c.counter_id
  for no key update of c;
  v_at := risk_private.clock();
  perform risk_private.refresh_account_levels(a.account_id, v_at)
  from risk_private.scopes as s
  join risk_private.account_levels as a on a.account_id = s.scope_id
  where s.code = any (accounts) and not (v_at >= a.valid_from and v_at < a.valid_until);
  select array_agg(e.entry), bool_and(e.is_plain) into v_entries, v_is_plain
  from risk_private.entries(requests, v_at) as e;
  if (v_is_plain and cardinality(v_entries) = cardinality(requests)) is not true then
    return false;
  end if;
  if exists (
    select from unnest(v_entries) as e
    join risk_private.orders as o
      on o.account_id = e.account_id and o.client_order_id = e.client_order_id) then
    return false;
  end if;
  insert into risk_private.orders (
    account_id, client_order_id, agent, instrument_ids, ratios, quantity, price, is_combo,
    time_in_force, unit_prices, filled, decision, allowed_quantity, state, decided_at)
  select e.account_id, e.client_order_id, e.agent, array[e.instrument_id], array[e.sign],
    e.quantity, e.price, false, e.time_in_force, array[e.unit_price], array[0::numeric],
    'ACCEPTED', e.quantity, 'ACCEPTED', v_at
  from unnest(v_entries) as e;
  v_reservation := risk_private.reserve(v_entries, v_at);
  if v_reservation.is_plain is not true then
    return true;
  end if;
  update risk_private.counters as c set
    open_buy = c.open_buy + x.open_buy,
    open_sell = c.open_sell + x.open_sell,
    gross_position = c.gross_position + x.gross_position,
    gross_notional = c.gross_notional + x.gross_notional,
    traded_notional = c.traded_notional + x.traded_notional,
    open_orders = c.open_orders + x.open_orders,
    open_positions = c.open_positions + x.open_positions,
    accepted_orders = c.accepted_orders + x.accepted_orders
  from unnest(v_reservation.changes) as x
  where c.counter_id = x.counter_id and risk_private.is_below(
    c, x.level, x.open_buy, x.open_sell, x.gross_position, x.gross_notional, x.traded_notional,
    x.open_orders, x.open_positions);
  get diagnostics v_moved = row_count;
  if v_moved < cardinality(v_reservation.changes) then
    return true;
  end if;
  return v_reservation.keeps_track and not risk_private.keep_track(
    v_reservation.changes,
    array(
      select row(
        e.account_id,
        risk_private.fingerprint(array[e.instrument_id], array[e.sign], e.quantity, e.price),
        v_at)::risk_private.recent_orders
      from unnest(v_entries) as e where v_reservation.keeps_fingerprints),
    v_reservation.duplicate_window, v_at);
end
$$;
comment on function risk_private.accept(text[], risk_private.request[]) is
  'Accepts all of the single-leg orders where that is plain. Returns true where the transaction '
  'must be rolled back: an id was used, or there is no room; false says nothing about the orders.';

-- 42_checks.sql
-- Every rule, spelled out: what an order is checked against, and how much of it would pass.
-- Previews show these rows; decisions that are not plain are made by them. Nothing here locks or
-- writes.

create type risk_private.proposal as (
  account_id integer,
  client_order_id text,
  agent text,
  time_in_force text,
  instrument_ids integer[],
  ratios integer[],
  quantity numeric,
  price numeric,
  is_combo boolean,
  replaces text,
  harmless_quantity numeric,
  bases numeric[],
  filled numeric[],
  old_notionals numeric[]
);
comment on type risk_private.proposal is
  'An order to be judged, resolved; legs ascending by instrument, ratios signed. For a replace, '
  'quantity is the new total and, per leg, bases is what the old order holds (the larger of its '
  'total and its fills), old_notionals the money it has reserved; else zeros. harmless_quantity: '
  'up to this total a replace asks for no more at no worse a price, and only a halt refuses it.';

create type risk_private.leg as (
  instrument_id integer,
  symbol text,
  kind text,
  underlying_id integer,
  sector_id integer,
  expiry date,
  status text,
  sign integer,
  ratio numeric,
  lot numeric,
  base numeric,
  filled numeric,
  old_notional numeric,
  quantity numeric,
  open_buy numeric,
  open_sell numeric,
  unit_notional numeric,
  reference numeric,
  unit_price numeric,
  is_fresh boolean,
  floor numeric
);
comment on type risk_private.leg is
  'A leg with what the account holds in its instrument, and its prices: reference (NULL where '
  'there is none), unit_notional at which it is carried, unit_price at which its order is reserved '
  'in traded notional; floor of the price collar.';

create type risk_private.applicable_limit as (
  leg integer,
  scope_id integer,
  scope text,
  limit_type text,
  dimension integer,
  key_id integer,
  amount numeric,
  warn_pct numeric,
  judged text,
  reason text,
  warns boolean,
  dimension_name text
);
comment on type risk_private.applicable_limit is
  'A limit in force that binds a leg, at one scope of the chain.';

create type risk_private.risk_check as (
  check_name text,
  scope text,
  dimension text,
  limit_type text,
  limit_value numeric,
  current_value numeric,
  projected_value numeric,
  headroom numeric,
  allowed_quantity numeric,
  status text,
  reason text
);
comment on type risk_private.risk_check is 'One check of an order, as risk.preview_order shows it.';

create function risk_private.legs(p risk_private.proposal, at timestamptz)
  returns risk_private.leg[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select pg_catalog.array_agg(row(
      i.instrument_id, i.symbol, i.kind, i.underlying_id, i.sector_id, i.expiry, i.status,
      pg_catalog.sign(l.ratio),
      abs(l.ratio), i.lot, l.base, l.filled, l.old_notional, h.quantity, h.open_buy, h.open_sell,
      case when risk_private.worst_case(h.quantity, h.open_buy, h.open_sell) > 0
        then h.unit_notional
           else abs(m.price) * i.multiplier * f.rate end,
      r.reference,
      abs(case when p.is_combo or p.price is null then coalesce(r.reference, 0)
               when l.ratio > 0 or r.reference is null or p.price > r.reference then p.price
               else r.reference end) * i.multiplier * coalesce(f.rate, 0),
      f.rate is not null and m.price is not null and r.is_fresh
      and (s.max_mark_age = 0 or risk_private.is_fresh(u.as_of, s.max_mark_age, at)),
      case when i.kind = 'option' then abs(l.ratio) * s.collar_floor else 0 end)::risk_private.leg
        order by l.position)
    from unnest(p.instrument_ids, p.ratios, p.bases, p.filled, p.old_notionals) with ordinality
      as l (instrument_id, ratio, base, filled, old_notional, position)
    join risk_private.instruments as i on i.instrument_id = l.instrument_id
    join risk_private.scopes as s on s.scope_id = p.account_id
    left join risk_private.fx_rates as f on f.currency = i.currency
    left join risk_private.marks as m on m.instrument_id = i.instrument_id
    left join risk_private.marks as u on u.instrument_id = i.underlying_id
    left join risk_private.positions as o on o.account_id = p.account_id
      and o.instrument_id = i.instrument_id
    cross join lateral (
      select coalesce(o.quantity, 0) as quantity, coalesce(o.open_buy, 0) as open_buy,
        coalesce(o.open_sell, 0) as open_sell, o.unit_notional
    ) as h
    cross join lateral (
      select
        q.is_fresh,
        case when q.is_fresh and l.ratio > 0 then coalesce(m.ask, m.price)
             when q.is_fresh then coalesce(m.bid, m.price)
             else m.price end as reference
      from (select risk_private.is_fresh(m.as_of, s.max_mark_age, at) as is_fresh) as q
    ) as r);
end
$$;
comment on function risk_private.legs(risk_private.proposal, timestamptz) is
  'The legs of a proposal with what is known of them.';

create function risk_private.step(legs risk_private.leg[]) returns numeric
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_step numeric := 0;
  v_leg risk_private.leg;
  v_scaled numeric;
  v_unit numeric;
begin
  foreach v_leg in array legs loop
    v_scaled := v_leg.lot * 10 ^ pg_catalog.min_scale(v_leg.lot);
    v_unit := v_scaled / pg_catalog.gcd(v_scaled,
      v_leg.ratio) / 10 ^ pg_catalog.min_scale(v_leg.lot);
    v_step := case when v_step = 0 then v_unit else pg_catalog.lcm(v_step, v_unit) end;
  end loop;
  return pg_catalog.trim_scale(v_step);
end
$$;
comment on function risk_private.step(risk_private.leg[]) is
  'The smallest quantity of an order, with no more decimals than the lots, at which every leg is '
  'on its lot.';

create function risk_private.largest_quantity(
  headroom numeric, units numeric[], offsets numeric[], step numeric, quantity numeric)
returns numeric
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_low numeric := 0;
  v_high numeric := pg_catalog.div(quantity, step);
  v_middle numeric;
begin
  while v_low < v_high loop
    v_middle := pg_catalog.div(v_low + v_high + 1, 2);
    if (select sum(case when t.unit * v_middle * step > t.offset_
      then t.unit * v_middle * step - t.offset_ else 0 end)
        from unnest(units, offsets) as t (unit, offset_)) <= headroom then
      v_low := v_middle;
    else
      v_high := v_middle - 1;
    end if;
  end loop;
  return v_low * step;
end
$$;
comment on function risk_private.largest_quantity(numeric, numeric[], numeric[], numeric,
  numeric) is
  'The largest multiple Q of the step, up to quantity, for which the sum of max(0, unit x Q - '
  'offset) stays within headroom: how every measure grows with an order. Bisection, so that no '
  'division rounds in the order''s favour.';

create function risk_private.uncovered(
  account_id integer, underlying_ids integer[], legs risk_private.leg[], quantity numeric)
returns table (underlying_id integer, calls numeric, puts numeric)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_today date := risk_private.trading_date();
begin
  return query
  with book as (
    select i.underlying_id, i.kind, i.option_right, i.expiry,
      (b.q + coalesce(l.sign * d.filling, 0)) * i.multiplier as q,
      (b.open_buy - case when l.sign > 0 then d.own else 0 end) * i.multiplier as ob,
      (b.open_sell - case when l.sign < 0 then d.own else 0 end) * i.multiplier as os
    from risk_private.instruments as i
    left join risk_private.positions as p
      on p.account_id = uncovered.account_id and p.instrument_id = i.instrument_id
    left join pg_catalog.unnest(legs) as l on l.instrument_id = i.instrument_id
    cross join lateral (
      select coalesce(p.quantity, 0) as q, coalesce(p.open_buy, 0) as open_buy,
        coalesce(p.open_sell, 0) as open_sell
    ) as b
    cross join lateral (
      select
        case when uncovered.quantity is null then 0
          else greatest(l.base, l.ratio * uncovered.quantity) - l.filled end
          as filling,
        case when uncovered.quantity is null then 0 else l.base - l.filled end as own
    ) as d
    where i.underlying_id = any (underlying_ids) and i.kind <> 'future'
      and (i.expiry is null or i.expiry >= v_today)
      and (p.account_id is not null or l.instrument_id is not null)
  ), stock as (
    select k.underlying_id, sum(greatest(0, k.q - k.os)) as long,
      sum(greatest(0, -(k.q + k.ob))) as short
    from book as k where k.kind <> 'option' group by k.underlying_id
  ), at_expiry as (
    select k.underlying_id, k.option_right,
      sum(sum(greatest(0, k.os - k.q) - greatest(0, k.q - k.os)))
        over (partition by k.underlying_id, k.option_right order by k.expiry desc) as short
    from book as k where k.kind = 'option' group by k.underlying_id, k.option_right, k.expiry
  )
  select u.id,
    greatest(0, coalesce(max(e.short) filter (where e.option_right = 'call'),
      0) - coalesce(max(s.long), 0)),
    greatest(0, coalesce(max(e.short) filter (where e.option_right = 'put'),
      0) - coalesce(max(s.short), 0))
  from pg_catalog.unnest(underlying_ids) as u (id)
  left join at_expiry as e on e.underlying_id = u.id
  left join stock as s on s.underlying_id = u.id
  group by u.id;
end
$$;
comment on function risk_private.uncovered(integer, integer[], risk_private.leg[], numeric) is
  'Worst-case uncovered short calls and puts of an account, in shares: as it stands (quantity '
  'NULL) or as if the order of that quantity had filled. A long option covers shorts that expire '
  'no later; long stock covers calls, short stock covers puts.';

create function risk_private.is_reducing(account_id integer, legs risk_private.leg[],
  quantity numeric) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_underlying_ids integer[];
begin
  if exists (
    select from pg_catalog.unnest(legs) as l
    cross join lateral (select greatest(0, l.ratio * is_reducing.quantity - l.base) as added) as a
    where (
      case when l.sign > 0 then l.open_buy + a.added <= -l.quantity
        else l.open_sell + a.added <= l.quantity end
    ) is not true
  ) then
    return false;
  end if;
  v_underlying_ids := array(select distinct l.underlying_id from pg_catalog.unnest(legs) as l);
  return not exists (
    select from risk_private.uncovered(account_id, v_underlying_ids, legs, null) as before
    join risk_private.uncovered(account_id, v_underlying_ids, legs, is_reducing.quantity) as after
      on after.underlying_id = before.underlying_id
    where (after.calls <= before.calls and after.puts <= before.puts) is not true);
end
$$;
comment on function risk_private.is_reducing(integer, risk_private.leg[], numeric) is
  'Whether an order of that quantity only reduces: every leg shrinks its position without crossing '
  'zero, and no short option is uncovered by it.';

create function risk_private.closable_quantity(
  account_id integer, legs risk_private.leg[], step numeric, quantity numeric) returns numeric
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_low numeric := 0;
  v_high numeric := pg_catalog.div(quantity, step);
  v_middle numeric := v_high;
begin
  while v_low < v_high loop
    if risk_private.is_reducing(account_id, legs, v_middle * step) then
      v_low := v_middle;
    else
      v_high := v_middle - 1;
    end if;
    v_middle := pg_catalog.div(v_low + v_high + 1, 2);
  end loop;
  return v_low * step;
end
$$;
comment on function risk_private.closable_quantity(integer, risk_private.leg[], numeric, numeric) is
  'The largest quantity, up to the given one, that only reduces. Reducing is convex in the '
  'quantity, so bisection finds it.';

create function risk_private.applicable_limits(account_id integer, legs risk_private.leg[],
  at timestamptz)
returns risk_private.applicable_limit[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
  return array(
    select row(a.leg, a.scope_id, a.scope, a.limit_type, a.dimension, a.key_id, a.amount,
      a.warn_pct, a.judged,
               a.reason, a.warns, a.dimension_name)::risk_private.applicable_limit
    from (
      select l.leg::integer, s.scope_id, s.code as scope, k.limit_type, k.dimension::integer,
        k.key_id, k.amount,
        k.warn_pct, t.judged, t.reason, t.warns,
        case k.dimension when 0 then 'all'
          else risk_private.dimension_name(k.dimension, k.key_id) end as dimension_name,
        pg_catalog.rank() over (partition by l.leg, s.scope_id, k.limit_type
          order by k.dimension desc) as rank
      from risk_private.scopes as leaf
      join risk_private.scopes as s on s.scope_id = any (leaf.chain)
      cross join lateral (
        select u.leg, u.sector_id, u.underlying_id, u.instrument_id
        from (select x.*, pg_catalog.row_number() over () as leg
          from pg_catalog.unnest(legs) as x) as u
      ) as l
      cross join lateral (
        values (0, 0), (1, l.sector_id), (2, l.underlying_id), (3, l.instrument_id)
      ) as d (dimension, key_id)
      join risk_private.limit_periods as k
        on k.scope_id = s.scope_id and k.dimension = d.dimension and k.key_id = d.key_id
        and k.valid_from <= at and at < k.valid_until
      join risk_private.limit_types as t on t.limit_type = k.limit_type
      where leaf.scope_id = applicable_limits.account_id
    ) as a
    where a.judged not in ('order', 'instrument') or a.rank = 1
    order by a.scope_id, a.limit_type, a.dimension, a.leg);
end
$$;
comment on function risk_private.applicable_limits(integer, risk_private.leg[], timestamptz) is
  'The limits in force that bind each leg: per order and per instrument the most specific of each '
  'scope, else every one.';

-- 43_gate_checks.sql
-- Checks that are no limits: states, statuses, expiry, configuration, freshness, reference prices.

create function risk_private.gate(
  check_name text, scope text, dimension text, limit_type text, passes boolean, reason text,
  allowed_quantity numeric,
  quantity numeric)
returns risk_private.risk_check
language sql immutable
return row(
  check_name, scope, dimension, limit_type, null, null, null, null,
  case when passes is true then quantity else allowed_quantity end,
  case when passes is true then 'PASS' else 'FAIL' end,
  case when passes is true then null else reason end)::risk_private.risk_check;
comment on function risk_private.gate(text, text, text, text, boolean, text, numeric, numeric) is
  'The row of a check that either passes or not.';

create function risk_private.gate_checks(
  p risk_private.proposal, legs risk_private.leg[], limits risk_private.applicable_limit[],
  closable numeric,
  step numeric, at timestamptz)
returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_checks risk_private.risk_check[] := '{}';
  v_leaf risk_private.scopes;
  v_is_reducing boolean := closable = p.quantity;
  v_today date := risk_private.trading_date();
begin
  select s.* into v_leaf from risk_private.scopes as s where s.scope_id = p.account_id;
  v_checks := v_checks || array(
  select risk_private.gate('trading_state', s.code, risk_private.dimension_name(
      case when t.underlying_id = 0 then 0 else 2 end, t.underlying_id), null,
    case t.state when 'HALTED' then false else v_is_reducing end,
    case t.state when 'HALTED' then 'TRADING_HALTED' else 'REDUCE_ONLY' end,
    case t.state when 'HALTED' then 0 else closable end, p.quantity)
  from (
    select q.*, pg_catalog.bool_or(q.state = 'HALTED') over () as is_halted
    from risk_private.trading_states as q
    where q.scope_id = any (v_leaf.chain) and q.state <> 'ACTIVE'
      and (q.underlying_id = 0 or q.underlying_id in (select l.underlying_id
        from pg_catalog.unnest(legs) as l))
  ) as t
  join risk_private.scopes as s on s.scope_id = t.scope_id
  where t.state = 'HALTED' or not t.is_halted);

  v_checks := v_checks || array(
  select risk_private.gate('instrument_status', null, 'instrument:' || l.symbol, null,
    case l.status
      when 'RESTRICTED' then v_is_reducing
      when 'NO_NEW_SHORTS' then l.sign > 0 or a.added = 0 or l.open_sell + a.added <= l.quantity
      else l.status = 'ACTIVE'
    end,
    'RESTRICTED_INSTRUMENT',
    case l.status
      when 'RESTRICTED' then closable
      when 'NO_NEW_SHORTS' then risk_private.largest_quantity(
        greatest(0, l.quantity - l.open_sell), array[l.ratio], array[l.base], step, p.quantity)
      else 0
    end, p.quantity)
  from pg_catalog.unnest(legs) as l
  cross join lateral (select greatest(0, l.ratio * p.quantity - l.base) as added) as a);

  v_checks := v_checks || array(
  select risk_private.gate('expiry', null, 'instrument:' || l.symbol, null, l.expiry is null
    or l.expiry >= v_today,
    'INSTRUMENT_EXPIRED', 0, p.quantity)
  from pg_catalog.unnest(legs) as l);

  v_checks := v_checks || array(
  select risk_private.gate('configuration', v_leaf.code, 'instrument:' || l.symbol, t.limit_type,
    exists (select from pg_catalog.unnest(limits) as k where k.leg = l.leg
      and k.limit_type = t.limit_type),
    'CONFIG_NOT_FOUND', 0, p.quantity)
  from pg_catalog.unnest(legs) with ordinality as l (
    instrument_id, symbol, kind, underlying_id, sector_id, expiry, status, sign, ratio, lot, base,
    filled, old_notional,
    quantity, open_buy, open_sell, unit_notional, reference, unit_price, is_fresh, floor, leg)
  cross join risk_private.limit_types as t
  where pg_catalog.get_bit(v_leaf.required_types, t.bit) = 1);

  v_checks := v_checks || array(
  select risk_private.gate('freshness', null, 'instrument:' || i.symbol, null,
    v_is_reducing or (
      m.price is not null and f.rate is not null
        and risk_private.is_fresh(m.as_of, v_leaf.max_mark_age, at)),
    'STALE_DATA', closable, p.quantity)
  from (
    select l.instrument_id from pg_catalog.unnest(legs) as l
    union
    select l.underlying_id from pg_catalog.unnest(legs) as l where v_leaf.max_mark_age > 0
  ) as n
  join risk_private.instruments as i on i.instrument_id = n.instrument_id
  left join risk_private.marks as m on m.instrument_id = i.instrument_id
  left join risk_private.fx_rates as f on f.currency = i.currency);

  v_checks := v_checks || array(
  select risk_private.gate('heartbeat', null, 'all', null,
    v_is_reducing or v_leaf.max_heartbeat_age = 0 or (
      risk_private.is_fresh(h.beat_at, v_leaf.max_heartbeat_age, at)
      and risk_private.is_fresh(h.inputs_as_of, v_leaf.max_heartbeat_age, at)),
    'STALE_DATA', closable, p.quantity)
  from risk_private.heartbeat as h);

  v_checks := v_checks || array(
  select risk_private.gate('reference_price', null, 'instrument:' || l.symbol, null,
    l.reference is not null,
    'REFERENCE_PRICE_UNAVAILABLE', 0, p.quantity)
  from pg_catalog.unnest(legs) as l
  where p.price is null
    or exists (select from pg_catalog.unnest(limits) as k where k.limit_type = 'price_collar_pct')
    or ((p.is_combo or l.sign < 0) and exists (
      select from pg_catalog.unnest(limits) as k
        where k.limit_type in ('order_notional', 'traded_notional'))));
  return v_checks;
end
$$;
comment on function risk_private.gate_checks(
  risk_private.proposal, risk_private.leg[], risk_private.applicable_limit[], numeric, numeric,
  timestamptz) is
  'Whether an order may be judged at all: states, statuses, expiry, required limits, freshness, '
  'reference prices.';

-- 44_limit_checks.sql
-- Checks against limits. A limit is inclusive. Position, exposure and activity are judged by
-- change: a check fails only where the projected value is above the limit and above the current
-- one, so that nothing blocks a reduction.

create function risk_private.limit_check(
  l risk_private.applicable_limit, current_value numeric, projected_value numeric, binds boolean,
  allowed_quantity numeric, quantity numeric)
returns risk_private.risk_check
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fits boolean := coalesce(projected_value <= l.amount or projected_value <= current_value, false)
    or not binds;
  v_warns boolean := v_fits and projected_value > 0
    and projected_value * 100 >= l.warn_pct * l.amount
    and l.warns;
begin
  return row(
    l.limit_type, l.scope, l.dimension_name, l.limit_type, l.amount, current_value,
    projected_value, l.amount - current_value,
    case when v_fits then quantity else allowed_quantity end,
    case when not v_fits then 'FAIL' when v_warns then 'WARN' else 'PASS' end,
    case when not v_fits then l.reason end)::risk_private.risk_check;
end
$$;
comment on function risk_private.limit_check(risk_private.applicable_limit, numeric, numeric,
  boolean, numeric, numeric) is
  'The row of one limit: how it is compared, whatever it measures. NULL fails.';

create function risk_private.order_checks(
  p risk_private.proposal, legs risk_private.leg[], limits risk_private.applicable_limit[],
  step numeric)
returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_checks risk_private.risk_check[] := '{}';
  v_unit_price numeric := (select sum(l.ratio * l.unit_price) from pg_catalog.unnest(legs) as l);
  v_reference numeric := (
    select case when count(*) = count(l.reference)
      then sum(case when p.is_combo then l.sign else 1 end * l.ratio * l.reference) end
    from pg_catalog.unnest(legs) as l);
  v_floor numeric := (select sum(l.floor) from pg_catalog.unnest(legs) as l);
  v_beyond numeric := case when p.is_combo or (legs[1]).sign > 0 then p.price - v_reference
    else v_reference - p.price end;
begin
  v_checks := v_checks || array(
  select risk_private.limit_check(k, -1, g.ratio * p.quantity, true,
    case when g.ratio * p.quantity <= k.amount then p.quantity
         else risk_private.largest_quantity(k.amount, array[g.ratio], array[0::numeric], step,
           p.quantity) end, p.quantity)
  from pg_catalog.unnest(limits) as k
  cross join lateral (select legs[k.leg] as leg) as x
  cross join lateral (select (x.leg).ratio as ratio) as g
  where k.limit_type = 'order_quantity');

  v_checks := v_checks || array(
  select risk_private.limit_check(k.l, -1, v_unit_price * p.quantity, true,
    case when v_unit_price * p.quantity <= (k.l).amount then p.quantity
         else risk_private.largest_quantity((k.l).amount, array[v_unit_price], array[0::numeric],
           step, p.quantity) end,
    p.quantity)
  from (
    select distinct on (u.scope_id, u.dimension, u.key_id) u as l
    from pg_catalog.unnest(limits) as u where u.limit_type = 'order_notional'
  ) as k);

  v_checks := v_checks || array(
  select row(
    'price_collar_pct', (k.l).scope, (k.l).dimension_name, 'price_collar_pct',
    (k.l).amount, null, b.pct, (k.l).amount - b.pct,
    case when b.fits then p.quantity else 0 end, case when b.fits then 'PASS' else 'FAIL' end,
    case when b.fits then null else 'PRICE_OUT_OF_BAND' end)::risk_private.risk_check
  from (
    select distinct on (u.scope_id) u as l
    from pg_catalog.unnest(limits) as u where u.limit_type = 'price_collar_pct'
    order by u.scope_id, u.amount
  ) as k
  cross join lateral (
    select
      coalesce(v_beyond * 100 <= (k.l).amount * abs(v_reference) or v_beyond <= v_floor,
        false) as fits,
      pg_catalog.round(v_beyond * 100 / nullif(abs(v_reference), 0), 6) as pct
  ) as b
  where p.price is not null and v_reference is not null);
  return v_checks;
end
$$;
comment on function risk_private.order_checks(
  risk_private.proposal, risk_private.leg[], risk_private.applicable_limit[], numeric) is
  'Limits on the order itself: quantity of each leg, notional of the whole, distance of the price '
  'from the reference.';

create function risk_private.position_checks(
  p risk_private.proposal, legs risk_private.leg[], limits risk_private.applicable_limit[],
  step numeric)
returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_checks risk_private.risk_check[] := '{}';
begin
  v_checks := v_checks || array(
  select risk_private.limit_check(k, v.current_value, v.projected_value, v.binds,
    case when not v.binds then p.quantity
         else risk_private.largest_quantity(greatest(0, k.amount - case when x.sign > 0 then h.long
           else h.short end),
                                            array[x.ratio], array[x.base], step, p.quantity) end,
                                              p.quantity)
  from pg_catalog.unnest(limits) as k
  cross join lateral (
    select l.*, greatest(0, l.ratio * p.quantity - l.base) as added
      from (select (legs[k.leg]).*) as l
  ) as x
  left join risk_private.counters as c
    on c.counter_id = risk_private.counter_id(k.scope_id, 3, x.instrument_id)
      and k.scope_id <> p.account_id
  cross join lateral (
    select
      case when k.scope_id = p.account_id then x.quantity + x.open_buy
        else coalesce(c.quantity + c.open_buy, 0) end
        as long,
      case when k.scope_id = p.account_id then x.open_sell - x.quantity
        else coalesce(c.open_sell - c.quantity, 0) end
        as short
  ) as h
  cross join lateral (
    select h.long + case when x.sign > 0 then x.added else 0 end as long,
      h.short + case when x.sign < 0 then x.added else 0 end as short
  ) as a
  cross join lateral (
    select
      case k.limit_type when 'long_position' then true when 'short_position' then false
        else a.long >= a.short end
        as is_long,
      case when x.sign > 0 then a.long > k.amount and x.added > 0 else a.short > k.amount
        and x.added > 0 end as is_over
  ) as b
  cross join lateral (
    -- the side that the order enlarges decides; the larger one is shown where neither fails
    select
      case k.limit_type
        when 'long_position' then x.sign > 0 when 'short_position' then x.sign < 0 else true end
          and b.is_over as binds,
      case when b.is_over and k.limit_type = 'net_position' then x.sign > 0
        else b.is_long end as shows_long
  ) as s
  cross join lateral (
    select s.binds,
      case when s.shows_long then h.long else h.short end as current_value,
      case when s.shows_long then a.long else a.short end as projected_value
  ) as v
  where k.judged = 'instrument');
  return v_checks;
end
$$;
comment on function risk_private.position_checks(
  risk_private.proposal, risk_private.leg[], risk_private.applicable_limit[], numeric) is
  'net_position (larger of both sides), long_position (q + OB) and short_position (OS - q) of each '
  'leg''s instrument, netted across the accounts below each scope.';

-- How much each leg adds to a measure: max(0, unit x quantity - offset). A new kind of summed limit
-- is one line here.
create function risk_private.measure_of_leg(
  limit_type text, l risk_private.leg, out unit numeric, out offset_ numeric)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_slack numeric := risk_private.worst_case(l.quantity, l.open_buy, l.open_sell)
    - case when l.sign > 0 then l.quantity + l.open_buy else l.open_sell - l.quantity end + l.base;
begin
  case limit_type
    when 'gross_position' then unit := l.ratio; offset_ := v_slack;
    when 'gross_notional'
      then unit := l.ratio * l.unit_notional; offset_ := v_slack * l.unit_notional;
    when 'traded_notional' then unit := l.ratio * l.unit_price; offset_ := l.filled * l.unit_price
      + l.old_notional;
    else null;
  end case;
end
$$;
comment on function risk_private.measure_of_leg(text, risk_private.leg) is
  'The unit and offset of a leg in gross_position, gross_notional or traded_notional.';

create function risk_private.sum_checks(
  p risk_private.proposal, legs risk_private.leg[], limits risk_private.applicable_limit[],
  closable numeric,
  step numeric)
returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_checks risk_private.risk_check[] := '{}';
begin
  v_checks := v_checks || array(
  select risk_private.limit_check(g.l, c.current_value, c.current_value + m.delta,
    not (closable = p.quantity
      and (g.l).limit_type in ('traded_notional', 'open_orders', 'open_positions')),
    greatest(
      case when (g.l).limit_type in ('open_orders', 'open_positions') then 0
           when c.current_value + m.delta <= (g.l).amount then p.quantity
           else risk_private.largest_quantity(greatest(0, (g.l).amount - c.current_value), m.units,
             m.offsets, step,
                                              p.quantity) end,
      case when (g.l).limit_type in ('traded_notional', 'open_orders', 'open_positions')
        then closable else 0 end),
    p.quantity)
  from (
    select (pg_catalog.array_agg(k))[1] as l, pg_catalog.array_agg(k.leg) as numbers
    from pg_catalog.unnest(limits) as k
    where k.judged = 'sum'
    group by k.scope_id, k.limit_type, k.dimension, k.key_id
  ) as g
  left join risk_private.counters as r
    on r.counter_id = risk_private.counter_id((g.l).scope_id, (g.l).dimension, (g.l).key_id)
  cross join lateral (
    select coalesce(case (g.l).limit_type
      when 'gross_position' then r.gross_position
      when 'gross_notional' then r.gross_notional
      when 'traded_notional' then r.traded_notional
      when 'open_orders' then r.open_orders
      when 'open_positions' then r.open_positions
    end, 0) as current_value
  ) as c
  cross join lateral (
    select
      case (g.l).limit_type
        when 'open_orders' then case when p.replaces is null then 1 else 0 end
        when 'open_positions' then count(*) filter (
          where x.quantity = 0 and x.open_buy = 0 and x.open_sell = 0
            and x.ratio * p.quantity > x.base)
        else case when count(u.unit) = count(*)
          then sum(greatest(0, u.unit * p.quantity - u.offset_)) end
      end as delta,
      pg_catalog.array_agg(u.unit) as units, pg_catalog.array_agg(u.offset_) as offsets
    from pg_catalog.unnest(g.numbers) as n (leg)
    cross join lateral (select (legs[n.leg]).*) as x
    left join lateral risk_private.measure_of_leg((g.l).limit_type, legs[n.leg]) as u
      on (g.l).limit_type not in ('open_orders', 'open_positions')
  ) as m
  where m.delta is not null);
  return v_checks;
end
$$;
comment on function risk_private.sum_checks(
  risk_private.proposal, risk_private.leg[], risk_private.applicable_limit[], numeric, numeric) is
  'Limits on sums over a scope and dimension. What cannot be valued for want of a mark is refused '
  'as STALE_DATA instead.';

create function risk_private.activity_checks(
  p risk_private.proposal, legs risk_private.leg[], limits risk_private.applicable_limit[],
  at timestamptz)
returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_checks risk_private.risk_check[] := '{}';
  v_last timestamptz := (
    select r.accepted_at from risk_private.recent_orders as r
    where r.account_id = p.account_id
      and r.fingerprint = risk_private.fingerprint(p.instrument_ids, p.ratios, p.quantity,
        p.price));
begin
  v_checks := v_checks || array(
  select risk_private.limit_check(k.l, e.seen, e.seen + 1, true, 0, p.quantity)
  from (
    select distinct on (u.scope_id, u.limit_type, u.dimension, u.key_id) u as l
    from pg_catalog.unnest(limits) as u where u.judged = 'window'
  ) as k
  cross join lateral (
    select risk_private.accepted_since(
      risk_private.counter_id((k.l).scope_id, (k.l).dimension, (k.l).key_id),
      at - case (k.l).limit_type when 'order_rate' then interval '1 second'
                                 else interval '60 seconds' end) as seen
  ) as e);

  v_checks := v_checks || array(
  select risk_private.limit_check(k.l, null,
    case when s.is_repeated then (k.l).amount + 1 else 0 end, true, 0, p.quantity)
  from (
    select distinct on (u.scope_id, u.limit_type, u.dimension, u.key_id) u as l
    from pg_catalog.unnest(limits) as u where u.judged = 'switch'
  ) as k
  cross join lateral (
    select case (k.l).limit_type
      when 'duplicate_window' then p.replaces is null
        and coalesce(v_last > at - pg_catalog.make_interval(secs => (k.l).amount::double precision),
          false)
      else (k.l).amount = 1 and risk_private.crosses(p, (k.l).scope_id)
    end as is_repeated
  ) as s);
  return v_checks;
end
$$;
comment on function risk_private.activity_checks(
  risk_private.proposal, risk_private.leg[], risk_private.applicable_limit[], timestamptz) is
  'Order rates in (t - 1 s, t] and (t - 60 s, t], duplicates, and orders that could trade against '
  'another agent''s.';

create function risk_private.crosses(p risk_private.proposal, scope_id integer) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select
    from unnest(p.instrument_ids, p.ratios) as l (instrument_id, ratio)
    join risk_private.positions as h
      on h.instrument_id = l.instrument_id and case when l.ratio > 0 then h.open_sell
        else h.open_buy end > 0
    join risk_private.scopes as a on a.scope_id = h.account_id and crosses.scope_id = any (a.chain)
    join risk_private.working_legs as w
      on w.account_id = h.account_id and w.instrument_id = l.instrument_id and w.ratio * l.ratio < 0
      and w.open_quantity > 0
    join risk_private.orders as o
      on o.account_id = w.account_id and o.closed_at is null
      and (o.client_order_id = w.client_order_id
        or (o.replace_pending and o.replaces = w.client_order_id))
    where o.agent is distinct from p.agent
      and (p.is_combo or o.is_combo or p.price is null or o.price is null
        or case when l.ratio > 0 then p.price >= o.price else p.price <= o.price end));
end
$$;
comment on function risk_private.crosses(risk_private.proposal, integer) is
  'Whether an order could trade against an open opposite order of another agent below the scope. A '
  'leg of a combo may trade at any price.';

create function risk_private.checks(p risk_private.proposal, at timestamptz)
  returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_legs risk_private.leg[] := risk_private.legs(p, at);
  v_step numeric := risk_private.step(v_legs);
  v_limits risk_private.applicable_limit[] := risk_private.applicable_limits(p.account_id, v_legs,
    at);
  v_closable numeric := risk_private.closable_quantity(p.account_id, v_legs, v_step, p.quantity);
  v_gates risk_private.risk_check[] := risk_private.gate_checks(p, v_legs, v_limits, v_closable,
    v_step, at);
begin
  if p.quantity <= p.harmless_quantity then
    return array(
      select g from pg_catalog.unnest(v_gates) as g
      where g.check_name = 'trading_state' and g.reason = 'TRADING_HALTED');
  end if;
  return v_gates
    || risk_private.order_checks(p, v_legs, v_limits, v_step)
    || risk_private.position_checks(p, v_legs, v_limits, v_step)
    || risk_private.sum_checks(p, v_legs, v_limits, v_closable, v_step)
    || risk_private.activity_checks(p, v_legs, v_limits, at);
end
$$;
comment on function risk_private.checks(risk_private.proposal, timestamptz) is
  'Every check of an order against the book as it stands. It is accepted exactly when no row '
  'fails.';

-- 45_decide.sql
-- Deciding an order with everything spelled out, and answering.

create type risk_private.decision as (
  order_id uuid,
  decision text,
  reason text,
  allowed_quantity numeric,
  detail jsonb
);
comment on type risk_private.decision is 'The stored answer to an order.';

create type risk_private.combo_legs as (
  symbols text[],
  sides text[],
  ratios numeric[]
);
comment on type risk_private.combo_legs is 'The legs of a combo, side by side.';

create function risk_private.combo_legs(legs jsonb) returns risk_private.combo_legs
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_legs risk_private.combo_legs;
  v_problem text;
begin
  if pg_catalog.jsonb_typeof(legs) is distinct from 'array'
    or pg_catalog.jsonb_array_length(legs) not between 1 and 8 then
    perform risk_private.fail('RK400', 'legs must be a JSON array of 1 to 8 objects',
      'argument: legs');
  end if;
  select pg_catalog.min(case
    when pg_catalog.jsonb_typeof(e.value) <> 'object' then 'each leg must be an object'
    when e.value - array['symbol', 'side', 'ratio'] <> '{}'
      then 'a leg has symbol, side and ratio, nothing else'
    when pg_catalog.jsonb_typeof(e.value -> 'symbol') is distinct from 'string'
      or pg_catalog.jsonb_typeof(e.value -> 'side') is distinct
        from 'string' then 'a leg needs symbol and side as text'
    when e.value ? 'ratio' and (e.value ->> 'ratio' ~ '^[1-9][0-9]{0,2}$') is not true
      then 'ratio must be a whole number of 1 to 999'
  end) into v_problem
  from pg_catalog.jsonb_array_elements(legs) as e;
  if v_problem is not null then
    perform risk_private.fail('RK400', v_problem,
      'argument: legs, value: ' || pg_catalog."left"(legs::text, 500));
  end if;
  select pg_catalog.array_agg(e.value ->> 'symbol' order by e.position),
    pg_catalog.array_agg(e.value ->> 'side' order by e.position),
    pg_catalog.array_agg(coalesce((e.value ->> 'ratio')::numeric, 1) order by e.position)
  into v_legs.symbols, v_legs.sides, v_legs.ratios
  from pg_catalog.jsonb_array_elements(legs) with ordinality as e (value, position);
  if (select count(distinct s)
    from pg_catalog.unnest(v_legs.symbols) as s) < pg_catalog.cardinality(v_legs.symbols) then
    perform risk_private.fail('RK400', 'a symbol may stand in one leg only', 'argument: legs');
  end if;
  return v_legs;
end
$$;
comment on function risk_private.combo_legs(jsonb) is
  'Reads the legs of a combo; RK400 where they make no sense.';

create function risk_private.account_of(account text, only_to_look boolean default false)
returns risk_private.scopes
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_leaf risk_private.scopes;
begin
  select s.* into v_leaf from risk_private.scopes as s where s.code = account;
  if v_leaf.scope_id is null then
    perform risk_private.fail('RK404', pg_catalog.format('unknown account %L', account),
      'argument: account');
  end if;
  if not risk_private.may_trade(v_leaf.chain)
    and not (only_to_look and v_leaf.scope_id = any (risk_private.visible_accounts())) then
    perform risk_private.fail('RK403',
      pg_catalog.format('%I may not trade %L', risk_private.caller(), account),
      'argument: account', 'Ask an administrator for risk.grant_trading.');
  end if;
  if not v_leaf.is_leaf then
    perform risk_private.fail('RK400',
      pg_catalog.format('%L has scopes below it: orders belong to those', account),
      'argument: account');
  end if;
  return v_leaf;
end
$$;
comment on function risk_private.account_of(text, boolean) is
  'The leaf scope of that code, if the caller may trade it or, only to look, may see it. Errors: '
  'RK400 not a leaf, RK403, RK404.';

create function risk_private.validate_order(
  client_order_id text, legs risk_private.leg[], quantity numeric, price numeric, agent text,
  time_in_force text,
  is_combo boolean)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tick numeric;
  v_may_be_negative boolean;
begin
  if not risk_private.is_code(client_order_id) then
    perform risk_private.fail('RK400', 'client_order_id must be 1 to 64 printable characters',
      'argument: client_order_id');
  end if;
  if agent is not null and not risk_private.is_code(agent) then
    perform risk_private.fail('RK400', 'agent must be 1 to 64 printable characters',
      'argument: agent');
  end if;
  if (time_in_force in ('DAY', 'GTC')) is not true then
    perform risk_private.fail('RK400',
      pg_catalog.format('time_in_force must be DAY or GTC, got %L', time_in_force),
      'argument: time_in_force');
  end if;
  if not risk_private.is_quantity(quantity) then
    perform risk_private.fail('RK400',
      'quantity must be a finite number above 0 and at most 1e12, with at most 8 decimals',
      'argument: quantity, value: ' || coalesce(pg_catalog."left"(quantity::text, 40), 'NULL'));
  end if;
  if quantity % risk_private.step(legs) <> 0 then
    perform risk_private.fail('RK400',
      pg_catalog.format('quantity %s is not a multiple of the lot %s', quantity,
      risk_private.step(legs)), 'argument: quantity');
  end if;
  if exists (select from pg_catalog.unnest(legs) as l
    where l.ratio * validate_order.quantity > 1e12) then
    perform risk_private.fail('RK400', 'quantity times ratio must be at most 1e12',
      'argument: quantity');
  end if;
  select min(i.tick), pg_catalog.bool_or(i.allow_negative_price) into v_tick, v_may_be_negative
  from pg_catalog.unnest(legs) as l
  join risk_private.instruments as i on i.instrument_id = l.instrument_id;
  if price is not null and not risk_private.is_price(price, null, is_combo
    or v_may_be_negative) then
    perform risk_private.fail('RK400',
      'price must be a finite number, above 0 (unless it may be negative), within 1e12, with at '
      'most 8 decimals',
      'argument: price, value: ' || pg_catalog."left"(price::text, 40),
      'Leave it out for a market order.');
  end if;
  if price % v_tick <> 0 then
    perform risk_private.fail('RK400',
      pg_catalog.format('price %s is not a multiple of the tick %s', price, v_tick),
      'argument: price');
  end if;
end
$$;
comment on function risk_private.validate_order(
  text, risk_private.leg[], numeric, numeric, text, text, boolean) is
  'Raises RK400 for an order that makes no sense, naming the argument and the rule.';

create function risk_private.propose(
  leaf risk_private.scopes, client_order_id text, symbols text[], sides text[], ratios numeric[],
  quantity numeric, price numeric,
  agent text, time_in_force text, is_combo boolean)
returns risk_private.proposal
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_side text;
  v_symbol text;
  v_ratio numeric;
  p risk_private.proposal;
begin
  foreach v_side in array sides loop
    if (v_side in ('buy', 'sell')) is not true then
      perform risk_private.fail('RK400',
        pg_catalog.format('side must be buy or sell, got %L', v_side), 'argument: side');
    end if;
  end loop;
  foreach v_ratio in array ratios loop
    if (v_ratio between 1 and 1000 and v_ratio % 1 = 0) is not true then
      perform risk_private.fail('RK400', 'ratio must be a whole number of 1 to 1000',
        'argument: legs');
    end if;
  end loop;
  foreach v_symbol in array symbols loop
    perform risk_private.instrument_id(v_symbol);
  end loop;
  select pg_catalog.array_agg(i.instrument_id order by i.instrument_id),
    pg_catalog.array_agg(case t.side when 'buy' then t.ratio else -t.ratio end::integer
      order by i.instrument_id),
    pg_catalog.array_agg(0::numeric), pg_catalog.array_agg(0::numeric),
    pg_catalog.array_agg(0::numeric)
  into p.instrument_ids, p.ratios, p.bases, p.filled, p.old_notionals
  from unnest(symbols, sides, ratios) as t (symbol, side, ratio)
  join risk_private.instruments as i on i.symbol = t.symbol;
  p.account_id := leaf.scope_id;
  p.client_order_id := client_order_id;
  p.agent := agent;
  p.time_in_force := time_in_force;
  p.quantity := quantity;
  p.price := price;
  p.is_combo := is_combo;
  perform risk_private.validate_order(
    client_order_id, risk_private.legs(p, risk_private.clock()), quantity, price, agent,
    time_in_force, is_combo);
  return p;
end
$$;
comment on function risk_private.propose(
  risk_private.scopes, text, text[], text[], numeric[], numeric, numeric, text, text, boolean) is
  'Resolves and validates an order. Errors: RK400, RK403, RK404.';

create function risk_private.gravity(reason text) returns integer
language sql immutable
return pg_catalog.array_position(
  array['TRADING_HALTED', 'CIRCUIT_BREAKER_TRIPPED', 'RESTRICTED_INSTRUMENT', 'INSTRUMENT_EXPIRED',
    'CONFIG_NOT_FOUND',
        'STALE_DATA', 'REFERENCE_PRICE_UNAVAILABLE', 'PRICE_OUT_OF_BAND', 'DUPLICATE_ORDER',
        'SELF_CROSS',
        'RATE_LIMIT_EXCEEDED', 'REDUCE_ONLY', 'RISK_LIMIT_EXCEEDED'], reason);
comment on function risk_private.gravity(text) is 'Rank of a reason: 1 is the gravest.';

create function risk_private.explain(checks risk_private.risk_check[]) returns jsonb
language sql immutable
set search_path = pg_catalog, pg_temp
begin atomic
  select pg_catalog.jsonb_build_object(
    'violations', coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'reason', c.reason, 'limit_type', c.limit_type, 'scope', c.scope, 'dimension', c.dimension,
      'limit', c.limit_value::text, 'current', c.current_value::text, 'projected',
      c.projected_value::text,
      'allowed_quantity', c.allowed_quantity::text)
      order by risk_private.gravity(c.reason), c.scope, c.limit_type,
        c.dimension) filter (where c.status = 'FAIL'), '[]'),
    'warnings', coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'limit_type', c.limit_type, 'scope', c.scope, 'dimension', c.dimension, 'limit',
      c.limit_value::text,
      'current', c.current_value::text, 'projected', c.projected_value::text)
      order by c.scope, c.limit_type, c.dimension) filter (where c.status = 'WARN'), '[]'))
  from unnest(checks) as c;
end;
comment on function risk_private.explain(risk_private.risk_check[]) is
  'What a decision tells of its checks; amounts are strings, for drivers turn JSON numbers into '
  'floats.';

create function risk_private.opening_of(p risk_private.proposal, legs risk_private.leg[])
returns risk_private.movement[]
language sql stable
set search_path = pg_catalog, pg_temp
begin atomic
  select pg_catalog.array_agg(risk_private.movement(
    p.account_id, l.instrument_id,
    open_buy => case when l.sign > 0 then a.added else 0 end,
    open_sell => case when l.sign < 0 then a.added else 0 end,
    traded_notional => greatest(0,
      (l.ratio * p.quantity - l.filled) * l.unit_price - l.old_notional),
    open_orders => case when p.replaces is null then 1 else 0 end,
    accepted_orders => 1,
    unit_notional => coalesce(l.unit_notional, l.unit_price)))
  from unnest(legs) as l
  cross join lateral (select greatest(0, l.ratio * p.quantity - l.base) as added) as a;
end;
comment on function risk_private.opening_of(risk_private.proposal, risk_private.leg[]) is
  'The movements of accepting a proposal.';

create function risk_private.insert_order(
  p risk_private.proposal, legs risk_private.leg[], checks risk_private.risk_check[],
  at timestamptz) returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_reason text;
  v_allowed numeric;
begin
  select (pg_catalog.array_agg(c.reason
    order by risk_private.gravity(c.reason)) filter (where c.status = 'FAIL'))[1],
    min(c.allowed_quantity)
  into v_reason, v_allowed
  from pg_catalog.unnest(checks) as c;
  if v_reason <> 'TRADING_HALTED' then
    v_allowed := greatest(v_allowed, p.harmless_quantity);
  end if;
  if exists (select from pg_catalog.unnest(legs) as l where l.ratio * v_allowed <= l.filled) then
    v_allowed := 0;
  end if;
  insert into risk_private.orders (
    account_id, client_order_id, agent, instrument_ids, ratios, quantity, price, is_combo,
    time_in_force, unit_prices,
    filled, decision, reason, allowed_quantity, detail, state, decided_at, closed_at, replaces,
    replace_pending)
  values (
    p.account_id, p.client_order_id, p.agent, p.instrument_ids, p.ratios, p.quantity, p.price,
    p.is_combo,
    p.time_in_force, array(select l.unit_price from pg_catalog.unnest(legs) as l), p.filled,
    case when v_reason is null then 'ACCEPTED' else 'REJECTED' end, v_reason,
    case when v_reason is null then p.quantity else coalesce(v_allowed, 0) end,
    risk_private.explain(checks), case when v_reason is null then 'ACCEPTED' else 'REJECTED' end,
    at,
    case when v_reason is null then null else at end, p.replaces, p.replaces is not null
      and v_reason is null);
  return v_reason;
end
$$;
comment on function risk_private.insert_order(
  risk_private.proposal, risk_private.leg[], risk_private.risk_check[], timestamptz) is
  'Stores the decision that the checks make, and returns the reason of a rejection, NULL of an '
  'acceptance.';

create function risk_private.lock_counters(changes risk_private.change[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.ensure_counters(changes);
  perform from risk_private.counters as c
  where c.counter_id = any (array(select x.counter_id from pg_catalog.unnest(changes) as x))
  order by c.counter_id
  for no key update;
end
$$;
comment on function risk_private.lock_counters(risk_private.change[]) is
  'Locks counters, ascending, making those that are missing.';

-- The caller has locked the account and the counters of the whole chain.
create function risk_private.decide_locked(p risk_private.proposal) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := risk_private.clock();
  v_legs risk_private.leg[] := risk_private.legs(p, v_at);
  v_movements risk_private.movement[] := risk_private.opening_of(p, v_legs);
  v_changes risk_private.change[];
begin
  if risk_private.insert_order(
    p, v_legs, risk_private.checks(p, v_at), v_at) is not null then
    return;
  end if;
  v_changes := array(select x from risk_private.changes(v_movements, true, v_at) as x);
  perform risk_private.move_positions(v_movements);
  if not risk_private.move_counters(v_changes) then
    perform risk_private.fail('RK500', 'a counter is missing', v_changes::text,
      'Run risk.verify_counters().');
  end if;
  perform risk_private.number_acceptances(v_changes, v_at);
  if exists (select from pg_catalog.unnest(v_changes) as x where x.keeps_fingerprints) then
    insert into risk_private.recent_orders as r (account_id, fingerprint, accepted_at)
    values (p.account_id, risk_private.fingerprint(p.instrument_ids, p.ratios, p.quantity, p.price),
      v_at)
    on conflict (account_id, fingerprint) do update set accepted_at = excluded.accepted_at;
  end if;
end
$$;
comment on function risk_private.decide_locked(risk_private.proposal) is
  'Judges a proposal and stores the decision.';

create function risk_private.is_known(p risk_private.proposal) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select from risk_private.orders as o
    where o.account_id = p.account_id and o.client_order_id = p.client_order_id);
end
$$;
comment on function risk_private.is_known(risk_private.proposal) is
  'Whether the id was decided before.';

-- Lock order: accounts ascending, then the counters of all chains ascending. A rejection is found
-- before parents are locked.
create function risk_private.decide(proposals risk_private.proposal[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_changes risk_private.change[] := '{}';
  v_at timestamptz;
  v_legs risk_private.leg[];
  v_checks risk_private.risk_check[];
  p risk_private.proposal;
begin
  if pg_catalog.cardinality(proposals) = 1 then
    p := proposals[1];
    v_at := risk_private.clock();
    v_legs := risk_private.legs(p, v_at);
    v_checks := risk_private.checks(p, v_at);
    if exists (select from pg_catalog.unnest(v_checks) as c where c.status = 'FAIL') then
      perform risk_private.insert_order(p, v_legs, v_checks, v_at);
      return;
    end if;
  end if;
  foreach p in array proposals loop
    v_at := risk_private.clock();
    v_changes := v_changes || array(
      select x from risk_private.changes(risk_private.opening_of(p, risk_private.legs(p, v_at)),
        true, v_at) as x);
  end loop;
  perform risk_private.lock_counters(v_changes);
  foreach p in array proposals loop
    if not risk_private.is_known(p) then
      perform risk_private.decide_locked(p);
    end if;
  end loop;
end
$$;
comment on function risk_private.decide(risk_private.proposal[]) is
  'Decides proposals whose accounts are locked, in their order, each on its own.';

create function risk_private.is_same_order(
  o risk_private.orders, symbols text[], sides text[], ratios numeric[], quantity numeric,
  price numeric, agent text,
  time_in_force text, is_combo boolean)
returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return o.replaces is null and o.quantity = is_same_order.quantity and o.price is not distinct
    from is_same_order.price
    and o.agent is not distinct from is_same_order.agent
      and o.time_in_force = is_same_order.time_in_force
    and o.is_combo = is_same_order.is_combo
      and pg_catalog.cardinality(o.ratios) = pg_catalog.cardinality(symbols)
    and not exists (
      select from unnest(symbols, sides, ratios) as t (symbol, side, ratio)
      where not exists (
        select from risk_private.instruments as i
        where i.symbol = t.symbol
          and o.ratios[pg_catalog.array_position(o.instrument_ids, i.instrument_id)]
          = case t.side when 'buy' then t.ratio when 'sell' then -t.ratio end));
end
$$;
comment on function risk_private.is_same_order(
  risk_private.orders, text[], text[], numeric[], numeric, numeric, text, text, boolean) is
  'Whether a stored order has this content; the order of legs does not matter.';

create function risk_private.stored_order(account text, client_order_id text)
  returns risk_private.orders
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  v_order risk_private.orders;
begin
  select o.* into v_order
  from risk_private.scopes as s
  join risk_private.orders as o on o.account_id = s.scope_id
    and o.client_order_id = stored_order.client_order_id
  where s.code = account and o.decided_xid <> pg_catalog.pg_current_xact_id()
    and risk_private.may_trade(s.chain);
  return v_order;
end
$$;
comment on function risk_private.stored_order(text, text) is
  'The order of that id, if it was decided in a transaction other than this one and the caller may '
  'trade its account.';

create function risk_private.answer_of(account text, o risk_private.orders)
  returns risk_private.decision
language sql immutable
return row(
  risk_private.order_id(account, o.client_order_id), o.decision, o.reason, o.allowed_quantity,
  coalesce(o.detail, '{"violations": [], "warnings": []}'::jsonb))::risk_private.decision;
comment on function risk_private.answer_of(text, risk_private.orders) is
  'The answer that a stored order gives.';

create function risk_private.refuse_other_content(client_order_id text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.fail('RK409',
    pg_catalog.format('client_order_id %L was used for another order', client_order_id),
    'argument: client_order_id', 'Ask again with the same content, or use a new id.');
end
$$;
comment on function risk_private.refuse_other_content(text) is
  'Raises RK409: an id names one order for ever.';

create function risk_private.answer(
  account text, client_order_id text, symbols text[], sides text[], ratios numeric[],
  quantity numeric, price numeric,
  agent text, time_in_force text, is_combo boolean)
returns risk_private.decision
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_order risk_private.orders := risk_private.stored_order(account, client_order_id);
begin
  if v_order.decision is null then
    return null;
  end if;
  if risk_private.is_same_order(
    v_order, symbols, sides, ratios, quantity, price, agent, time_in_force,
    is_combo) is not true then
    perform risk_private.refuse_other_content(client_order_id);
  end if;
  perform risk_private.flush();
  return risk_private.answer_of(account, v_order);
end
$$;
comment on function risk_private.answer(
  text, text, text[], text[], numeric[], numeric, numeric, text, text, boolean) is
  'The stored decision, durable once the transaction that calls this commits; NULL where none was '
  'committed before this transaction or the caller may not trade the account. Errors: RK409 same '
  'id with other content.';

-- Lock order: the account, then its chain's counters ascending.
create function risk_private.decide_order(
  account text, client_order_id text, symbols text[], sides text[], ratios numeric[],
  quantity numeric, price numeric,
  agent text, time_in_force text, is_combo boolean)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  p risk_private.proposal;
begin
  perform risk_private.begin_change();
  p := risk_private.propose(
    risk_private.account_of(account), client_order_id, symbols, sides, ratios, quantity, price,
    agent, time_in_force,
    is_combo);
  perform risk_private.lock_account(p.account_id);
  if not risk_private.is_known(p) then
    perform risk_private.decide(array[p]);
  end if;
end
$$;
comment on function risk_private.decide_order(
  text, text, text[], text[], numeric[], numeric, numeric, text, text, boolean) is
  'Decides one order and stores the decision, saying nothing: answer() tells it once it is '
  'committed.';

create procedure risk.check_order(
  account text, client_order_id text, symbol text, side text, quantity numeric,
  price numeric default null,
  agent text default null, time_in_force text default 'DAY',
  inout order_id uuid default null, inout decision text default null,
  inout reason text default null,
  inout allowed_quantity numeric default null, inout detail jsonb default null)
language plpgsql
as $$
declare
  v_xid xid8;
  v_answer risk_private.decision;
begin
  if risk_private.accept_order(
    account, client_order_id, symbol, side, quantity, price, agent, time_in_force) then
    rollback;
  else
    v_xid := pg_catalog.pg_current_xact_id_if_assigned();
    commit;
  end if;
  if risk_private.accepted(account, client_order_id, v_xid) then
    commit;
    order_id := risk_private.order_id(account, client_order_id);
    decision := 'ACCEPTED';
    reason := null;
    allowed_quantity := quantity;
    detail := '{"violations": [], "warnings": []}';
    return;
  end if;
  v_answer := risk_private.answer(account, client_order_id, array[symbol], array[side],
    array[1::numeric], quantity, price,
                                  agent, time_in_force, false);
  if v_answer.decision is null then
    perform risk_private.decide_order(account, client_order_id, array[symbol], array[side],
      array[1::numeric], quantity,
                                      price, agent, time_in_force, false);
    commit;
    v_answer := risk_private.answer(account, client_order_id, array[symbol], array[side],
      array[1::numeric], quantity,
                                    price, agent, time_in_force, false);
  end if;
  commit;
  order_id := v_answer.order_id;
  decision := v_answer.decision;
  reason := v_answer.reason;
  allowed_quantity := v_answer.allowed_quantity;
  detail := v_answer.detail;
end
$$;
comment on procedure risk.check_order(
  text, text, text, text, numeric, numeric, text, text, uuid, text, text, numeric, jsonb) is
  'Decides an order, reserves what it may use, and records it, in one durable step. side: buy or '
  'sell; price NULL: a market order; time_in_force: DAY or GTC. Answers ACCEPTED or REJECTED with '
  'the gravest reason, the largest quantity that would pass now, and every violation and warning. '
  'Asked again with the same client_order_id it gives the first answer. An error or time-out means '
  'unknown: ask again. Errors: RK400, RK403, RK404, RK409; 2D000 inside a transaction block.';

create procedure risk.check_combo(
  account text, client_order_id text, legs jsonb, quantity numeric, price numeric default null,
  agent text default null,
  time_in_force text default 'DAY',
  inout order_id uuid default null, inout decision text default null,
  inout reason text default null,
  inout allowed_quantity numeric default null, inout detail jsonb default null)
language plpgsql
as $$
declare
  v_answer risk_private.decision;
  v_legs risk_private.combo_legs := risk_private.combo_legs(legs);
begin
  perform risk_private.decide_order(account, client_order_id, v_legs.symbols, v_legs.sides,
    v_legs.ratios, quantity, price,
                                    agent, time_in_force, true);
  commit;
  v_answer := risk_private.answer(account, client_order_id, v_legs.symbols, v_legs.sides,
    v_legs.ratios, quantity, price,
                                  agent, time_in_force, true);
  commit;
  order_id := v_answer.order_id;
  decision := v_answer.decision;
  reason := v_answer.reason;
  allowed_quantity := v_answer.allowed_quantity;
  detail := v_answer.detail;
end
$$;
comment on procedure risk.check_combo(
  text, text, jsonb, numeric, numeric, text, text, uuid, text, text, numeric, jsonb) is
  'Decides a combo as one order: all legs or none. legs: [{"symbol", "side", "ratio" (default 1)}, '
  '...]; price is net per combo, positive a debit paid, negative a credit received. Else like '
  'risk.check_order.';

-- 46_batch.sql
-- Many orders in one call.

create type risk_private.batch_item as (
  account text,
  client_order_id text,
  symbol text,
  side text,
  quantity numeric,
  price numeric,
  agent text,
  time_in_force text,
  legs jsonb
);
comment on type risk_private.batch_item is 'One order of a batch, as it was asked for.';

create function risk_private.batch_items(orders jsonb) returns risk_private.batch_item[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_texts constant text[] := array[
    'account', 'client_order_id', 'symbol', 'side', 'agent', 'time_in_force'];
  v_keys constant text[] := v_texts || array['quantity', 'price', 'legs'];
  v_items risk_private.batch_item[];
  v_problem text;
begin
  if pg_catalog.jsonb_typeof(orders) is distinct from 'array'
    or pg_catalog.jsonb_array_length(orders) not between 1 and 10000 then
    perform risk_private.fail('RK400', 'orders must be a JSON array of 1 to 10000 objects',
      'argument: orders');
  end if;
  select pg_catalog.format('item %s: %s', e.position, case
      when pg_catalog.jsonb_typeof(e.value) <> 'object' then 'each order must be an object'
      when e.value ? 'legs' and (e.value ? 'symbol' or e.value ? 'side')
        then 'an order has either legs or symbol and side'
      when e.value - v_keys <> '{}' then 'unknown key'
      else 'account, client_order_id, symbol, side, agent and time_in_force must be text' end)
  into v_problem
  from pg_catalog.jsonb_array_elements(orders) with ordinality as e (value, position)
  where pg_catalog.jsonb_typeof(e.value) <> 'object'
    or e.value - v_keys <> '{}'
    or (e.value ? 'legs' and (e.value ? 'symbol' or e.value ? 'side'))
    or exists (
      select from pg_catalog.unnest(v_texts) as k
      where pg_catalog.jsonb_typeof(e.value -> k) not in ('string', 'null'))
  limit 1;
  if v_problem is not null then
    perform risk_private.fail('RK400', v_problem, 'argument: orders');
  end if;
  begin
    select pg_catalog.array_agg(i) into v_items
    from pg_catalog.jsonb_populate_recordset(
      row(null, null, null, null, null, null, null, 'DAY', null)::risk_private.batch_item,
        orders) as i;
  exception when data_exception then
    perform risk_private.fail('RK400', 'an order holds a value of the wrong kind: ' || sqlerrm,
      'argument: orders');
  end;
  if (select count(distinct (i.account, i.client_order_id)) from pg_catalog.unnest(v_items) as i)
    < pg_catalog.cardinality(v_items) then
    perform risk_private.fail('RK400', 'a client_order_id stands twice in the batch',
      'argument: orders');
  end if;
  return v_items;
end
$$;
comment on function risk_private.batch_items(jsonb) is
  'Reads a batch; RK400 where it makes no sense.';

create function risk_private.accept_batch(items risk_private.batch_item[]) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
  if exists (select from pg_catalog.unnest(items) as i where i.legs is not null) then
    return false;
  end if;
  return risk_private.accept(
    array(select distinct i.account from pg_catalog.unnest(items) as i),
    array(
      select row(i.item, i.account, i.client_order_id, i.symbol, i.side, i.quantity, i.price,
        i.agent,
                 i.time_in_force)::risk_private.request
      from pg_catalog.unnest(items) with ordinality as i (
        account, client_order_id, symbol, side, quantity, price, agent, time_in_force, legs,
        item)));
end
$$;
comment on function risk_private.accept_batch(risk_private.batch_item[]) is
  'Accepts a whole batch of single orders where all are plain; answers as risk_private.accept '
  'does.';

-- Lock order: all accounts ascending, then (in decide) the counters of all chains ascending.
create function risk_private.decide_batch(items risk_private.batch_item[]) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_proposals risk_private.proposal[] := '{}';
  v_item risk_private.batch_item;
  v_legs risk_private.combo_legs;
  v_known risk_private.orders;
  p risk_private.proposal;
begin
  perform risk_private.begin_change();
  foreach v_item in array items loop
    v_legs := case
      when v_item.legs is not null then risk_private.combo_legs(v_item.legs)
      else row(array[v_item.symbol], array[v_item.side], array[1::numeric])::risk_private.combo_legs
    end;
    p := risk_private.propose(
      risk_private.account_of(v_item.account), v_item.client_order_id, v_legs.symbols, v_legs.sides,
      v_legs.ratios,
      v_item.quantity, v_item.price,
      v_item.agent, v_item.time_in_force, v_item.legs is not null);
    v_proposals := v_proposals || p;
  end loop;
  perform from risk_private.counters as c
  where c.counter_id = any (array(
    select risk_private.counter_id(u.account_id) from pg_catalog.unnest(v_proposals) as u))
  order by c.counter_id
  for no key update;
  for i in 1 .. pg_catalog.cardinality(items) loop
    select o.* into v_known from risk_private.orders as o
    where o.account_id = (v_proposals[i]).account_id
      and o.client_order_id = (v_proposals[i]).client_order_id;
    if found and not risk_private.is_item(v_known, items[i]) then
      perform risk_private.refuse_other_content(v_known.client_order_id);
    end if;
  end loop;
  perform risk_private.decide(v_proposals);
end
$$;
comment on function risk_private.decide_batch(risk_private.batch_item[]) is
  'Decides the orders of a batch in their order, each on its own, saying nothing. An item that '
  'makes no sense fails all.';

create function risk_private.is_item(o risk_private.orders, item risk_private.batch_item)
  returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_legs risk_private.combo_legs;
begin
  if item.legs is not null then
    v_legs := risk_private.combo_legs(item.legs);
    return risk_private.is_same_order(
      o, v_legs.symbols, v_legs.sides, v_legs.ratios, item.quantity, item.price, item.agent,
      item.time_in_force, true);
  end if;
  return risk_private.is_same_order(
    o, array[item.symbol], array[item.side], array[1::numeric], item.quantity, item.price,
    item.agent, item.time_in_force,
    false);
end
$$;
comment on function risk_private.is_item(risk_private.orders, risk_private.batch_item) is
  'Whether a stored order has the content of a batch item.';

create function risk_private.answers(items risk_private.batch_item[]) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  v_answers jsonb;
  v_found integer;
  v_other text;
begin
  select
    count(*), min(o.client_order_id) filter (where risk_private.is_item(o,
      items[i.item]) is not true),
    pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'account', i.account, 'client_order_id', o.client_order_id,
      'order_id', risk_private.order_id(i.account, o.client_order_id), 'decision', o.decision,
      'reason', o.reason,
      'allowed_quantity', o.allowed_quantity::text,
      'detail', coalesce(o.detail, '{"violations": [], "warnings": []}')) order by i.item)
  into v_found, v_other, v_answers
  from pg_catalog.unnest(items) with ordinality as i (
    account, client_order_id, symbol, side, quantity, price, agent, time_in_force, legs, item)
  join risk_private.scopes as s on s.code = i.account
  join risk_private.orders as o on o.account_id = s.scope_id
    and o.client_order_id = i.client_order_id
  where o.decided_xid <> pg_catalog.pg_current_xact_id() and risk_private.may_trade(s.chain);
  if v_found < pg_catalog.cardinality(items) then
    return null;
  end if;
  if v_other is not null then
    perform risk_private.refuse_other_content(v_other);
  end if;
  perform risk_private.flush();
  return v_answers;
end
$$;
comment on function risk_private.answers(risk_private.batch_item[]) is
  'The stored decisions of a batch, in its order; NULL unless all were committed before this '
  'transaction.';

create function risk_private.accepted_batch(items risk_private.batch_item[], decided_xid xid8)
returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
  v_found integer;
  v_answers jsonb;
begin
  select count(*), jsonb_agg(jsonb_build_object(
    'account', i.account, 'client_order_id', i.client_order_id,
    'order_id', risk_private.order_id(i.account, i.client_order_id), 'decision', 'ACCEPTED',
    'reason', null, 'allowed_quantity', o.allowed_quantity::text,
    'detail', '{"violations": [], "warnings": []}'::jsonb) order by i.item)
  into v_found, v_answers
  from unnest(items) with ordinality as i (
    account, client_order_id, symbol, side, quantity, price, agent, time_in_force, legs, item)
  join risk_private.scopes as s on s.code = i.account
  join risk_private.orders as o on o.account_id = s.scope_id
    and o.client_order_id = i.client_order_id
  where o.decided_xid = accepted_batch.decided_xid
    and o.decided_xid is distinct from pg_current_xact_id_if_assigned()
    and o.decided_by = session_user and o.decision = 'ACCEPTED' and o.detail is null;
  if v_found < cardinality(items) then
    return null;
  end if;
  perform risk_private.flush();
  return v_answers;
end
$$;
comment on function risk_private.accepted_batch(risk_private.batch_item[], xid8) is
  'The answers to a batch that the caller''s transaction of that number, committed since, accepted '
  'without explanation, in its order; else NULL. Durable once the transaction that calls this '
  'commits.';

create procedure risk.check_orders(orders jsonb, inout decisions jsonb default null)
language plpgsql
as $$
declare
  v_items risk_private.batch_item[] := risk_private.batch_items(orders);
  v_xid xid8;
begin
  if risk_private.accept_batch(v_items) then
    rollback;
  else
    v_xid := pg_catalog.pg_current_xact_id_if_assigned();
    commit;
  end if;
  decisions := risk_private.accepted_batch(v_items, v_xid);
  if decisions is not null then
    commit;
    return;
  end if;
  decisions := risk_private.answers(v_items);
  if decisions is null then
    perform risk_private.decide_batch(v_items);
    commit;
    decisions := risk_private.answers(v_items);
  end if;
  commit;
end
$$;
comment on procedure risk.check_orders(jsonb, jsonb) is
  'Decides up to 10,000 orders in one call: a JSON array of objects with the arguments of '
  'risk.check_order or (with legs) risk.check_combo. Answers in the same order, each decided on '
  'its own; one that makes no sense fails the whole batch, which then leaves nothing behind. '
  'Quantities are strings in the answer. Errors: RK400, RK403, RK404, RK409.';

-- 47_preview.sql
-- What if: every check of an order, without locks or writes.

create function risk_private.preview(
  account text, symbols text[], sides text[], ratios numeric[], quantity numeric, price numeric,
  agent text,
  is_combo boolean)
returns setof risk_private.risk_check
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_checks risk_private.risk_check[];
begin
  perform risk_private.is_settled();
  v_checks := risk_private.checks(
    risk_private.propose(
      risk_private.account_of(account, true), 'preview', symbols, sides, ratios, quantity, price,
      agent, 'DAY', is_combo),
    risk_private.clock());
  return query
  select c.*
  from pg_catalog.unnest(v_checks) as c
  order by case c.status when 'FAIL' then 0 when 'WARN' then 1 else 2 end,
    risk_private.gravity(c.reason), c.check_name, c.scope, c.dimension;
end
$$;
comment on function risk_private.preview(text, text[], text[], numeric[], numeric, numeric, text,
  boolean) is
  'What the previews show.';

create function risk.preview_order(
  account text, symbol text, side text, quantity numeric, price numeric default null,
  agent text default null)
returns table (check_name text, scope text, dimension text, limit_type text, limit_value numeric,
  current_value numeric,
               projected_value numeric, headroom numeric, allowed_quantity numeric, status text,
               reason text)
language sql stable
begin atomic
  select p.check_name, p.scope, p.dimension, p.limit_type, p.limit_value, p.current_value,
    p.projected_value, p.headroom,
    p.allowed_quantity, p.status, p.reason
  from risk_private.preview(account, array[symbol], array[side], array[1::numeric], quantity, price,
    agent, false) as p;
end;
comment on function risk.preview_order(text, text, text, numeric, numeric, text) is
  'What risk.check_order would say now: one row per check, failures first (PASS, WARN, FAIL). '
  'Takes no locks, writes nothing, reserves nothing. The order would be accepted if no row says '
  'FAIL; of what is allowed, the smallest binds. Errors: RK400, RK403, RK404.';

create function risk.preview_combo(
  account text, legs jsonb, quantity numeric, price numeric default null, agent text default null)
returns table (check_name text, scope text, dimension text, limit_type text, limit_value numeric,
  current_value numeric,
               projected_value numeric, headroom numeric, allowed_quantity numeric, status text,
               reason text)
language sql stable
begin atomic
  select p.check_name, p.scope, p.dimension, p.limit_type, p.limit_value, p.current_value,
    p.projected_value, p.headroom,
    p.allowed_quantity, p.status, p.reason
  from (select (risk_private.combo_legs(preview_combo.legs)).*) as l
  cross join lateral risk_private.preview(account, l.symbols, l.sides, l.ratios, quantity, price,
    agent, true) as p;
end;
comment on function risk.preview_combo(text, jsonb, numeric, numeric, text) is
  'What risk.check_combo would say now; see risk.preview_order.';

-- 48_replace.sql
-- Replacing a live order: the larger of old and new stays reserved until the broker has answered.

create function risk_private.order_of(account_id integer, client_order_id text)
  returns risk_private.orders
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_order risk_private.orders;
begin
  select o.* into v_order from risk_private.orders as o
  where o.account_id = order_of.account_id and o.client_order_id = order_of.client_order_id;
  if v_order.account_id is null then
    perform risk_private.fail('RK404', pg_catalog.format('unknown order %L', client_order_id),
      'argument: client_order_id');
  end if;
  return v_order;
end
$$;
comment on function risk_private.order_of(integer, text) is
  'The order of that id; RK404 where there is none.';

create function risk_private.propose_replace(
  old risk_private.orders, new_client_order_id text, quantity numeric, price numeric)
returns risk_private.proposal
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  p risk_private.proposal;
begin
  if old.closed_at is not null or old.replace_pending then
    perform risk_private.fail('RK409',
      pg_catalog.format('order %L cannot be replaced: it %s', old.client_order_id,
      case when old.closed_at is null then 'is in a pending replace' else 'is ' || old.state end),
      'argument: client_order_id');
  end if;
  p.account_id := old.account_id;
  p.client_order_id := new_client_order_id;
  p.agent := old.agent;
  p.time_in_force := old.time_in_force;
  p.instrument_ids := old.instrument_ids;
  p.ratios := old.ratios;
  p.quantity := quantity;
  p.price := price;
  p.is_combo := old.is_combo;
  p.replaces := old.client_order_id;
  p.filled := old.filled;
  select
    pg_catalog.array_agg(greatest(old.quantity * abs(l.ratio), l.filled) order by l.leg),
    pg_catalog.array_agg(greatest(0, old.quantity * abs(l.ratio) - l.filled) * l.unit_price
      order by l.leg)
  into p.bases, p.old_notionals
  from unnest(old.ratios, old.filled, old.unit_prices) with ordinality as l (ratio, filled,
    unit_price, leg);
  perform risk_private.validate_order(
    new_client_order_id, risk_private.legs(p, risk_private.clock()), quantity, price, p.agent,
    p.time_in_force, p.is_combo);
  if exists (
    select from unnest(old.ratios, old.filled) as l (ratio, filled)
      where quantity * abs(l.ratio) <= l.filled) then
    perform risk_private.fail('RK400',
      'the new quantity is the total and must exceed what is filled already',
      'argument: quantity');
  end if;
  p.harmless_quantity := case
    when case
      when price is null or old.price is null then price is null and old.price is null
      when old.is_combo or old.ratios[1] > 0 then price <= old.price
      else price >= old.price
    end then old.quantity
    else 0
  end;
  return p;
end
$$;
comment on function risk_private.propose_replace(risk_private.orders, text, numeric, numeric) is
  'Resolves and validates a replace. Errors: RK400, RK409 not live, or another replace is pending.';

-- Lock order: the account, then its chain's counters ascending.
create function risk_private.decide_replace(
  account text, client_order_id text, new_client_order_id text, quantity numeric, price numeric)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_leaf risk_private.scopes;
  v_old risk_private.orders;
begin
  perform risk_private.begin_change();
  v_leaf := risk_private.account_of(account);
  perform risk_private.lock_account(v_leaf.scope_id);
  v_old := risk_private.order_of(v_leaf.scope_id, client_order_id);
  if exists (
    select from risk_private.orders as o
    where o.account_id = v_leaf.scope_id and o.client_order_id = new_client_order_id) then
    return;
  end if;
  perform risk_private.decide(
    array[risk_private.propose_replace(v_old, new_client_order_id, quantity, price)]);
  update risk_private.orders as o set replace_pending = true, replaced_by = new_client_order_id
  from risk_private.orders as n
  where o.account_id = v_old.account_id and o.client_order_id = v_old.client_order_id
    and n.account_id = v_old.account_id and n.client_order_id = new_client_order_id
      and n.decision = 'ACCEPTED';
end
$$;
comment on function risk_private.decide_replace(text, text, text, numeric, numeric) is
  'Decides a replace and stores the decision, saying nothing.';

create function risk_private.answer_replace(
  account text, client_order_id text, new_client_order_id text, quantity numeric, price numeric)
returns risk_private.decision
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_order risk_private.orders := risk_private.stored_order(account, new_client_order_id);
begin
  if v_order.decision is null then
    return null;
  end if;
  if (v_order.replaces = client_order_id and v_order.quantity = answer_replace.quantity
      and v_order.price is not distinct from answer_replace.price) is not true then
    perform risk_private.refuse_other_content(new_client_order_id);
  end if;
  perform risk_private.flush();
  return risk_private.answer_of(account, v_order);
end
$$;
comment on function risk_private.answer_replace(text, text, text, numeric, numeric) is
  'The stored decision on a replace; see risk_private.answer.';

create procedure risk.replace_order(
  account text, client_order_id text, new_client_order_id text, quantity numeric,
  price numeric default null,
  inout order_id uuid default null, inout decision text default null,
  inout reason text default null,
  inout allowed_quantity numeric default null, inout detail jsonb default null)
language plpgsql
as $$
declare
  v_answer risk_private.decision;
begin
  perform risk_private.decide_replace(account, client_order_id, new_client_order_id, quantity,
    price);
  commit;
  v_answer := risk_private.answer_replace(account, client_order_id, new_client_order_id, quantity,
    price);
  commit;
  order_id := v_answer.order_id;
  decision := v_answer.decision;
  reason := v_answer.reason;
  allowed_quantity := v_answer.allowed_quantity;
  detail := v_answer.detail;
end
$$;
comment on procedure risk.replace_order(
  text, text, text, numeric, numeric, uuid, text, text, numeric, jsonb) is
  'Decides a new total quantity and price for a live order. The larger of old and new stays '
  'reserved until risk.confirm_replace or risk.reject_replace; a refusal leaves the old order as '
  'it was. For no more at no worse a price it passes unless halted. Errors: RK400, RK403, RK404, '
  'RK409 not live, another replace pending, or the id used otherwise.';

-- Lock order: the account, then its chain's counters ascending (within settle).
create function risk_private.end_replace(account text, new_client_order_id text,
  is_confirmed boolean) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_leaf risk_private.scopes := risk_private.scope(account);
  v_at timestamptz;
  v_new risk_private.orders;
  v_before risk_private.working_legs[];
begin
  perform risk_private.begin_change();
  perform risk_private.lock_account(v_leaf.scope_id);
  v_at := risk_private.clock();
  v_new := risk_private.order_of(v_leaf.scope_id, new_client_order_id);
  if v_new.replaces is null or v_new.decision <> 'ACCEPTED' then
    perform risk_private.fail('RK409',
      pg_catalog.format('order %L is no replacement', new_client_order_id),
      'argument: new_client_order_id');
  end if;
  if not v_new.replace_pending or v_new.closed_at is not null then
    return;
  end if;
  v_before := risk_private.reserved(v_leaf.scope_id, array[v_new.client_order_id, v_new.replaces]);
  if is_confirmed then
    update risk_private.orders as o set state = 'CANCELLED', closed_at = v_at,
    close_reason = 'replaced'
    where o.account_id = v_new.account_id and o.client_order_id = v_new.replaces
      and o.closed_at is null;
    update risk_private.orders as o set replace_pending = false
    where o.account_id = v_new.account_id
      and o.client_order_id in (v_new.replaces, v_new.client_order_id);
    update risk_private.orders as o set
      state = case when o.state in ('ACCEPTED', 'SENT') then 'ACKNOWLEDGED' else o.state end,
      acknowledged_at = coalesce(o.acknowledged_at, v_at)
    where o.account_id = v_new.account_id and o.client_order_id = v_new.client_order_id;
  else
    update risk_private.orders as o set state = 'BROKER_REJECTED', closed_at = v_at,
    close_reason = 'broker_rejected',
      replace_pending = false
    where o.account_id = v_new.account_id and o.client_order_id = v_new.client_order_id;
    update risk_private.orders as o set replace_pending = false, replaced_by = null
    where o.account_id = v_new.account_id and o.client_order_id = v_new.replaces;
  end if;
  perform risk_private.note_fills(v_leaf.scope_id, array[v_new.client_order_id, v_new.replaces],
    v_at);
  perform risk_private.settle(
    v_leaf.scope_id, v_before,
    risk_private.reserved(v_leaf.scope_id, array[v_new.client_order_id, v_new.replaces]),
    '{}');
end
$$;
comment on function risk_private.end_replace(text, text, boolean) is
  'What risk.confirm_replace and risk.reject_replace do. Repeating it changes nothing.';

create procedure risk.confirm_replace(account text, new_client_order_id text)
language plpgsql
as $$
begin
  perform risk_private.end_replace(account, new_client_order_id, true);
  commit;
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.confirm_replace(text, text) is
  'The broker has replaced the order: the old id is CANCELLED (replaced), the new one lives on as '
  'ACKNOWLEDGED. '
  'Errors: RK404, RK409.';

create procedure risk.reject_replace(account text, new_client_order_id text)
language plpgsql
as $$
begin
  perform risk_private.end_replace(account, new_client_order_id, false);
  commit;
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.reject_replace(text, text) is
  'The broker has refused the replace: the new id is BROKER_REJECTED, the old order lives on. '
  'Errors: RK404, RK409.';

-- 49_marks.sql
-- Marks, and what moves with them: the values at which positions are carried.

create function risk_private.mark_problem(
  price numeric, bid numeric, ask numeric, may_be_negative boolean, greeks double precision[])
    returns text
language sql immutable
return case
  when may_be_negative is null then 'unknown symbol'
  when not risk_private.is_finite(price) then 'price must be a finite number'
  when bid is not null and not risk_private.is_finite(bid) then 'bid must be a finite number'
  when ask is not null and not risk_private.is_finite(ask) then 'ask must be a finite number'
  when not may_be_negative and (price <= 0 or bid <= 0 or ask <= 0) then 'prices must be above 0'
  when abs(price) > 1e12 or abs(bid) > 1e12 or abs(ask) > 1e12 then 'prices must be within 1e12'
  when bid > ask then 'the bid is above the ask'
  when 'NaN' = any (greeks) or 'Infinity' = any (greeks) or '-Infinity' = any (greeks)
    then 'volatility and Greeks must be finite numbers'
  when greeks[1] < 0 then 'volatility must not be negative'
end;
comment on function risk_private.mark_problem(numeric, numeric, numeric, boolean,
  double precision[]) is
  'What is wrong with a mark; NULL where nothing is.';

create function risk_private.set_marks(
  symbols text[], prices numeric[], bids numeric[], asks numeric[], ivs double precision[],
  deltas double precision[],
  gammas double precision[], vegas double precision[], thetas double precision[],
  rhos double precision[],
  as_of timestamptz)
returns integer[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := coalesce(as_of, risk_private.clock());
  v_size integer := pg_catalog.cardinality(symbols);
  v_problems text;
  v_instrument_ids integer[];
begin
  if coalesce(v_size, 0) = 0 or pg_catalog.array_ndims(symbols) <> 1 then
    perform risk_private.fail('RK400', 'symbols must be a list of at least one symbol',
      'argument: symbols');
  end if;
  if pg_catalog.cardinality(prices) is distinct from v_size
    or exists (
      select from (values (pg_catalog.cardinality(bids)), (pg_catalog.cardinality(asks)),
        (pg_catalog.cardinality(ivs)),
        (pg_catalog.cardinality(deltas)), (pg_catalog.cardinality(gammas)),
        (pg_catalog.cardinality(vegas)),
        (pg_catalog.cardinality(thetas)), (pg_catalog.cardinality(rhos))) as a (size)
      where a.size <> v_size) then
    perform risk_private.fail('RK400', 'every array must have one element per symbol',
      'argument: prices, bids, asks, …');
  end if;
  if as_of in ('infinity', '-infinity') then
    perform risk_private.fail('RK400', 'as_of must be a moment', 'argument: as_of');
  end if;
  select pg_catalog.string_agg(pg_catalog.format('row %s (%s): %s', r.row_number, r.symbol,
    r.problem), '; '
                               order by r.row_number) into v_problems
  from (
    select t.row_number, t.symbol,
      case when count(*) over (partition by t.symbol) > 1 then 'the symbol stands twice'
           else risk_private.mark_problem(t.price, t.bid, t.ask, i.allow_negative_price,
                                          array[t.iv, t.delta, t.gamma, t.vega, t.theta, t.rho]) end
                                            as problem
    from unnest(symbols, prices, bids, asks, ivs, deltas, gammas, vegas, thetas,
      rhos) with ordinality
      as t (symbol, price, bid, ask, iv, delta, gamma, vega, theta, rho, row_number)
    left join risk_private.instruments as i on i.symbol = t.symbol
  ) as r
  where r.problem is not null;
  if v_problems is not null then
    perform risk_private.fail('RK400', 'marks refused: ' || pg_catalog."left"(v_problems, 500),
      v_problems,
      'Nothing of the batch was applied.');
  end if;
  with applied as (
    insert into risk_private.marks as m (
      instrument_id, price, bid, ask, implied_volatility, delta, gamma, vega, theta, rho, as_of)
    select i.instrument_id, t.price, t.bid, t.ask, t.iv, t.delta, t.gamma, t.vega, t.theta, t.rho,
      v_at
    from unnest(symbols, prices, bids, asks, ivs, deltas, gammas, vegas, thetas, rhos)
      as t (symbol, price, bid, ask, iv, delta, gamma, vega, theta, rho)
    join risk_private.instruments as i on i.symbol = t.symbol
    order by i.instrument_id
    on conflict (instrument_id) do update set
      price = excluded.price, bid = excluded.bid, ask = excluded.ask,
      implied_volatility = excluded.implied_volatility, delta = excluded.delta,
      gamma = excluded.gamma,
      vega = excluded.vega, theta = excluded.theta, rho = excluded.rho, as_of = excluded.as_of
      where m.as_of <= excluded.as_of
    returning m.instrument_id
  )
  select coalesce(pg_catalog.array_agg(a.instrument_id), '{}') into v_instrument_ids
    from applied as a;
  return v_instrument_ids;
end
$$;
comment on function risk_private.set_marks(
  text[], numeric[], numeric[], numeric[], double precision[], double precision[],
  double precision[], double precision[],
  double precision[], double precision[], timestamptz) is
  'Stores marks and returns the instruments that moved. A mark older than the stored one is passed '
  'over.';

-- An order in flight may have read the mark before this one without being visible yet: whoever
-- holds an account's lock at this moment is waited for by revalue(). Skipping locked rows, it waits
-- for nobody itself; its caller commits at once.
create function risk_private.accounts_to_revalue(instrument_ids integer[]) returns integer[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_idle integer[];
begin
  perform risk_private.begin_change();
  v_idle := array(
    select c.scope_id
    from risk_private.scopes as s
    join risk_private.counters as c on c.counter_id = risk_private.counter_id(s.scope_id)
    where s.is_leaf
    order by c.counter_id
    for no key update of c skip locked);
  return array(
    select p.account_id
    from risk_private.positions as p
    join risk_private.unit_notionals as u on u.instrument_id = p.instrument_id
    where p.instrument_id = any (instrument_ids) and p.unit_notional <> u.unit_notional
      and (p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0)
    union
    select s.scope_id from risk_private.scopes as s
    where s.is_leaf and s.scope_id <> all (v_idle)
    order by 1);
end
$$;
comment on function risk_private.accounts_to_revalue(integer[]) is
  'Accounts that carry one of the instruments at another value than its mark, or may come to.';

create view risk_private.unit_notionals as
select i.instrument_id, abs(m.price) * i.multiplier * f.rate as unit_notional
from risk_private.instruments as i
join risk_private.marks as m on m.instrument_id = i.instrument_id
join risk_private.fx_rates as f on f.currency = i.currency;
comment on view risk_private.unit_notionals is
  '|mark| x multiplier x rate of every marked instrument, in base currency.';

-- Lock order: the account, then parents ascending (within move_counters).
create function risk_private.revalue(account_id integer, instrument_ids integer[]) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_movements risk_private.movement[];
begin
  perform risk_private.begin_change();
  perform risk_private.lock_account(account_id);
  v_movements := array(
    select risk_private.movement(p.account_id, p.instrument_id,
      revaluation => u.unit_notional - p.unit_notional)
    from risk_private.positions as p
    join risk_private.unit_notionals as u on u.instrument_id = p.instrument_id
    where p.account_id = revalue.account_id and p.instrument_id = any (instrument_ids)
      and p.unit_notional <> u.unit_notional
        and (p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0));
  if pg_catalog.cardinality(v_movements) > 0 then
    perform risk_private.move(v_movements, false);
    update risk_private.positions as p set unit_notional = p.unit_notional + m.revaluation
    from pg_catalog.unnest(v_movements) as m
    where p.account_id = m.account_id and p.instrument_id = m.instrument_id;
  end if;
end
$$;
comment on function risk_private.revalue(integer, integer[]) is
  'Carries an account''s positions in the instruments at their present marks, moving its counters '
  'by the difference.';

create procedure risk.set_marks(
  symbols text[], prices numeric[], bids numeric[] default null, asks numeric[] default null,
  ivs double precision[] default null, deltas double precision[] default null,
  gammas double precision[] default null,
  vegas double precision[] default null, thetas double precision[] default null,
  rhos double precision[] default null,
  as_of timestamptz default null)
language plpgsql
as $$
declare
  v_instrument_ids integer[];
  v_account_ids integer[];
  v_account_id integer;
begin
  v_instrument_ids := risk_private.set_marks(
    symbols, prices, bids, asks, ivs, deltas, gammas, vegas, thetas, rhos, as_of);
  commit;
  v_account_ids := risk_private.accounts_to_revalue(v_instrument_ids);
  commit;
  foreach v_account_id in array v_account_ids loop
    perform risk_private.revalue(v_account_id, v_instrument_ids);
    commit;
  end loop;
end
$$;
comment on procedure risk.set_marks(
  text[], numeric[], numeric[], numeric[], double precision[], double precision[],
  double precision[], double precision[],
  double precision[], double precision[], timestamptz) is
  'Sets prices, and optionally bids, asks, implied volatilities and Greeks, of many instruments as '
  'of one moment (default now), then carries every position in them at the new marks, account by '
  'account. A bid or ask left out is cleared. A mark older than the stored one is passed over. '
  'Errors: RK400 names the row and the rule; then nothing was applied.';

-- 50_fills.sql
-- Fills: never refused, never counted twice. The broker's truth wins over what was reserved.

create function risk_private.reserved(account_id integer, client_order_ids text[])
  returns risk_private.working_legs[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select w from risk_private.working_legs as w
    where w.account_id = reserved.account_id and w.client_order_id = any (client_order_ids));
end
$$;
comment on function risk_private.reserved(integer, text[]) is
  'What live orders reserve at this moment, an order and its pending replacement as one.';

-- Lock order: the caller holds the account; then its chain's counters ascending (within move).
create function risk_private.settle(
  account_id integer, before risk_private.working_legs[], after risk_private.working_legs[],
  fills risk_private.fills[])
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_movements risk_private.movement[];
  v_opened integer := (
    select count(distinct a.client_order_id) from pg_catalog.unnest(after) as a)
    - (select count(distinct b.client_order_id) from pg_catalog.unnest(before) as b);
begin
  v_movements := array(
    select risk_private.movement(
      settle.account_id, c.instrument_id, sum(c.quantity), sum(c.open_buy), sum(c.open_sell),
      sum(c.notional), v_opened,
      0, coalesce(max(u.unit_notional), max(c.unit_price)))
    from (
      select a.instrument_id, 0::numeric as quantity, case when a.ratio > 0 then a.open_quantity
        else 0 end as open_buy,
        case when a.ratio < 0 then a.open_quantity else 0 end as open_sell,
        a.open_notional as notional,
        0::numeric as unit_price
      from pg_catalog.unnest(after) as a
      union all
      select b.instrument_id, 0, case when b.ratio > 0 then -b.open_quantity else 0 end,
        case when b.ratio < 0 then -b.open_quantity else 0 end, -b.open_notional, 0
      from pg_catalog.unnest(before) as b
      union all
      select f.instrument_id, f.signed_quantity, 0, 0, abs(f.signed_quantity) * f.unit_price,
        f.unit_price
      from pg_catalog.unnest(fills) as f
    ) as c
    left join risk_private.unit_notionals as u on u.instrument_id = c.instrument_id
    group by c.instrument_id);
  if pg_catalog.cardinality(v_movements) > 0 then
    perform risk_private.move(v_movements, true);
  end if;
end
$$;
comment on function risk_private.settle(
  integer, risk_private.working_legs[], risk_private.working_legs[], risk_private.fills[]) is
  'Moves positions and counters by the difference between what was and is reserved, and by fills.';

create function risk_private.note_fills(account_id integer, client_order_ids text[], at timestamptz)
  returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update risk_private.orders as o set
    state = case when f.is_done then 'FILLED' else 'PARTIALLY_FILLED' end,
    closed_at = case when f.is_done then at end
  from (
    select q.account_id, q.client_order_id,
      pg_catalog.bool_and(l.filled >= q.quantity * abs(l.ratio)) as is_done
    from risk_private.orders as q
    cross join lateral unnest(q.ratios, q.filled) as l (ratio, filled)
    where q.account_id = note_fills.account_id and q.client_order_id = any (client_order_ids)
      and q.closed_at is null
      and not (q.replace_pending and q.replaces is not null and exists (
        select from risk_private.orders as old
        where old.account_id = q.account_id and old.client_order_id = q.replaces
          and old.closed_at is null))
    group by q.account_id, q.client_order_id
    having pg_catalog.bool_or(l.filled > 0)
  ) as f
  where o.account_id = f.account_id and o.client_order_id = f.client_order_id;
end
$$;
comment on function risk_private.note_fills(integer, text[], timestamptz) is
  'Marks live orders PARTIALLY_FILLED or FILLED. A pending replacement keeps its state while the '
  'old order lives.';

create function risk_private.validate_execution(
  exec_id text, quantity numeric, price numeric, fee numeric, executed_at timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not risk_private.is_code(exec_id) then
    perform risk_private.fail('RK400', 'exec_id must be 1 to 64 printable characters',
      'argument: exec_id');
  end if;
  if not risk_private.is_quantity(quantity) then
    perform risk_private.fail('RK400',
      'quantity must be a finite number above 0 and at most 1e12, with at most 8 decimals',
      'argument: quantity, value: ' || coalesce(pg_catalog."left"(quantity::text, 40), 'NULL'));
  end if;
  if not risk_private.is_price(price, null, true) then
    perform risk_private.fail('RK400',
      'price must be a finite number within 1e12, with at most 8 decimals',
      'argument: price, value: ' || coalesce(pg_catalog."left"(price::text, 40), 'NULL'));
  end if;
  if not risk_private.is_price(fee, null, true) and fee is distinct from 0 then
    perform risk_private.fail('RK400',
      'fee must be a finite number within 1e12, with at most 8 decimals', 'argument: fee');
  end if;
  if executed_at in ('infinity', '-infinity') then
    perform risk_private.fail('RK400', 'executed_at must be a moment', 'argument: executed_at');
  end if;
end
$$;
comment on function risk_private.validate_execution(
  text, numeric, numeric, numeric, timestamptz) is
  'Raises RK400 for an execution that cannot be: what a broker may report is not limited '
  'otherwise.';

create function risk_private.is_recorded(execution risk_private.fills) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_known risk_private.fills;
begin
  select f.* into v_known from risk_private.fills as f
  where f.account_id = execution.account_id and f.exec_id = execution.exec_id;
  if v_known.exec_id is null then
    return false;
  end if;
  if row(v_known.client_order_id, v_known.instrument_id, v_known.signed_quantity, v_known.price,
    v_known.fee, v_known.kind)
    is distinct from row(execution.client_order_id, execution.instrument_id,
      execution.signed_quantity, execution.price,
                         execution.fee, execution.kind) then
    perform risk_private.fail('RK409',
      pg_catalog.format('exec_id %L was recorded with other content', execution.exec_id),
      'argument: exec_id');
  end if;
  return true;
end
$$;
comment on function risk_private.is_recorded(risk_private.fills) is
  'Whether this very execution is booked already; RK409 where its id stands for another.';

create function risk_private.book(execution risk_private.fills) returns risk_private.fills
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fill risk_private.fills := execution;
begin
  select abs(execution.price) * i.multiplier * coalesce(f.rate, 1), s.trading_day,
    risk_private.clock()
  into v_fill.unit_price, v_fill.trading_day, v_fill.recorded_at
  from risk_private.instruments as i
  cross join risk_private.scopes as s
  left join risk_private.fx_rates as f on f.currency = i.currency
  where i.instrument_id = execution.instrument_id and s.scope_id = execution.account_id;
  v_fill.executed_at := coalesce(execution.executed_at, v_fill.recorded_at);
  insert into risk_private.fills (
    account_id, exec_id, client_order_id, instrument_id, signed_quantity, price, fee, unit_price,
    kind, flag, trading_day,
    executed_at, recorded_at)
  values (
    v_fill.account_id, v_fill.exec_id, v_fill.client_order_id, v_fill.instrument_id,
    v_fill.signed_quantity, v_fill.price,
    v_fill.fee, v_fill.unit_price, v_fill.kind, v_fill.flag, v_fill.trading_day, v_fill.executed_at,
    v_fill.recorded_at);
  return v_fill;
end
$$;
comment on function risk_private.book(risk_private.fills) is
  'Stores an execution, valued in base currency.';

-- Average cost: what enlarges a position moves its average price, what reduces it realizes profit
-- or loss.
create function risk_private.cost(fill risk_private.fills) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update risk_private.positions as p set
    average_price = case
      when p.quantity = 0 then 0
      when b.q = 0 or b.q * p.quantity < 0 then fill.price
      when b.q * fill.signed_quantity > 0
        then (p.average_price * abs(b.q) + fill.price * abs(fill.signed_quantity)) / abs(p.quantity)
      else p.average_price
    end,
    realized_pnl_today = p.realized_pnl_today + coalesce(f.rate, 1) * (case
      when b.q * fill.signed_quantity < 0
        then (fill.price - p.average_price) * pg_catalog.sign(b.q) * i.multiplier
          * case when abs(fill.signed_quantity) < abs(b.q) then abs(fill.signed_quantity)
            else abs(b.q) end
      else 0
    end - fill.fee)
  from risk_private.instruments as i
  left join risk_private.fx_rates as f on f.currency = i.currency
  cross join lateral (
    select h.quantity - fill.signed_quantity as q
    from risk_private.positions as h
    where h.account_id = fill.account_id and h.instrument_id = fill.instrument_id
  ) as b
  where p.account_id = fill.account_id and p.instrument_id = fill.instrument_id
    and i.instrument_id = p.instrument_id;
end
$$;
comment on function risk_private.cost(risk_private.fills) is
  'Moves the average price and realized P&L of a position that has just taken a fill. Fees count '
  'against the P&L.';

create function risk_private.successor(o risk_private.orders) returns risk_private.orders
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_order risk_private.orders := o;
begin
  if v_order.replace_pending and v_order.replaces is not null and v_order.closed_at is null then
    select old.* into v_order from risk_private.orders as old
    where old.account_id = o.account_id and old.client_order_id = o.replaces
      and old.closed_at is null;
    return case when found then v_order else o end;
  end if;
  while v_order.replaced_by is not null and not v_order.replace_pending loop
    select n.* into v_order from risk_private.orders as n
    where n.account_id = o.account_id and n.client_order_id = v_order.replaced_by;
  end loop;
  return v_order;
end
$$;
comment on function risk_private.successor(risk_private.orders) is
  'The order that a fill under this id belongs to: the live half of a pending replace, the end of '
  'a chain of confirmed ones.';

-- Lock order: the account, then its chain's counters ascending (within settle).
create function risk_private.record_fill(
  account text, client_order_id text, exec_id text, quantity numeric, price numeric, symbol text,
  fee numeric,
  executed_at timestamptz)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_leaf risk_private.scopes := risk_private.scope(account);
  v_asked risk_private.orders;
  v_order risk_private.orders;
  v_leg integer;
  v_before risk_private.working_legs[];
  v_ids text[];
  v_fill risk_private.fills;
begin
  perform risk_private.begin_change();
  perform risk_private.validate_execution(exec_id, quantity, price, fee, executed_at);
  perform risk_private.lock_account(v_leaf.scope_id);
  v_asked := risk_private.order_of(v_leaf.scope_id, client_order_id);
  v_leg := case
    when symbol is not null
      then pg_catalog.array_position(v_asked.instrument_ids, risk_private.instrument_id(symbol))
    when pg_catalog.cardinality(v_asked.ratios) = 1 then 1
  end;
  if v_leg is null then
    perform risk_private.fail('RK400', case
      when symbol is null then 'a fill of a combo needs the symbol of its leg'
      else pg_catalog.format('order %L has no leg in %L', client_order_id, symbol) end,
      'argument: symbol');
  end if;
  v_fill.account_id := v_leaf.scope_id;
  v_fill.exec_id := exec_id;
  v_fill.client_order_id := client_order_id;
  v_fill.instrument_id := v_asked.instrument_ids[v_leg];
  v_fill.signed_quantity := quantity * pg_catalog.sign(v_asked.ratios[v_leg]);
  v_fill.price := price;
  v_fill.fee := fee;
  v_fill.kind := 'fill';
  v_fill.executed_at := executed_at;
  if risk_private.is_recorded(v_fill) then
    return;
  end if;
  v_order := risk_private.successor(v_asked);
  v_ids := array[v_order.client_order_id, v_order.replaced_by];
  v_before := risk_private.reserved(v_leaf.scope_id, v_ids);
  v_fill.flag := case
    when v_order.decision = 'REJECTED' then 'fill_on_rejected_order'
    when v_order.closed_at is not null then 'fill_on_closed_order'
    when quantity > (select w.open_quantity from pg_catalog.unnest(v_before) as w
      where w.leg = v_leg) then 'over_fill'
  end;
  v_fill := risk_private.book(v_fill);
  update risk_private.orders as o set filled[v_leg] = o.filled[v_leg] + record_fill.quantity
  where o.account_id = v_leaf.scope_id and (
    o.client_order_id = v_order.client_order_id
    or (o.client_order_id = v_order.replaced_by and v_order.replace_pending));
  perform risk_private.note_fills(v_leaf.scope_id, v_ids, v_fill.recorded_at);
  perform risk_private.settle(v_leaf.scope_id, v_before,
    risk_private.reserved(v_leaf.scope_id, v_ids), array[v_fill]);
  perform risk_private.cost(v_fill);
  if v_fill.flag is not null then
    perform risk_private.alert(v_fill.flag, pg_catalog.jsonb_build_object(
      'account', account, 'client_order_id', client_order_id, 'exec_id', exec_id, 'quantity',
      quantity::text,
      'price', price::text,
      'severity', case v_fill.flag when 'fill_on_rejected_order' then 'critical'
        else 'warning' end));
  end if;
end
$$;
comment on function risk_private.record_fill(text, text, text, numeric, numeric, text, numeric,
  timestamptz) is
  'What risk.record_fill does.';

create function risk_private.fill_detail(account text, exec_id text) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.flush();
  return (
    select pg_catalog.jsonb_build_object(
      'exec_id', f.exec_id, 'flag', f.flag, 'position', p.quantity::text, 'order_state', o.state,
      'remaining_quantity', (
        select sum(w.open_quantity)::text from risk_private.working_legs as w
        where w.account_id = f.account_id and w.client_order_id = f.client_order_id))
    from risk_private.scopes as s
    join risk_private.fills as f on f.account_id = s.scope_id and f.exec_id = fill_detail.exec_id
    join risk_private.positions as p on p.account_id = f.account_id
      and p.instrument_id = f.instrument_id
    left join risk_private.orders as o on o.account_id = f.account_id
      and o.client_order_id = f.client_order_id
    where s.code = account and f.recorded_xid <> pg_catalog.pg_current_xact_id());
end
$$;
comment on function risk_private.fill_detail(text, text) is
  'What a booked execution led to, durable once the calling transaction commits.';

create procedure risk.record_fill(
  account text, client_order_id text, exec_id text, quantity numeric, price numeric,
  symbol text default null,
  fee numeric default 0, executed_at timestamptz default null, inout detail jsonb default null)
language plpgsql
as $$
begin
  perform risk_private.record_fill(account, client_order_id, exec_id, quantity, price, symbol, fee,
    executed_at);
  commit;
  detail := risk_private.fill_detail(account, exec_id);
  commit;
end
$$;
comment on procedure risk.record_fill(text, text, text, numeric, numeric, text, numeric,
  timestamptz, jsonb) is
  'Books a fill; symbol names the leg of a combo. Never refused for risk, and booked once per '
  'exec_id. An over-fill, a fill of a closed or of a rejected order is booked in full, flagged in '
  'detail and alerted. Errors: RK400, RK404 unknown order, RK409 same exec_id with other content.';

-- Lock order: the account, then its chain's counters ascending (within settle).
create function risk_private.record_trade(
  account text, symbol text, side text, quantity numeric, price numeric, exec_id text, kind text,
  fee numeric,
  executed_at timestamptz)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_leaf risk_private.scopes := risk_private.scope(account);
  v_fill risk_private.fills;
begin
  perform risk_private.begin_change();
  perform risk_private.validate_execution(exec_id, quantity, price, fee, executed_at);
  if (side in ('buy', 'sell')) is not true then
    perform risk_private.fail('RK400', pg_catalog.format('side must be buy or sell, got %L', side),
      'argument: side');
  end if;
  if (kind in ('opening', 'assignment', 'exercise', 'expiry', 'transfer',
    'unexplained')) is not true then
    perform risk_private.fail('RK400', pg_catalog.format('unknown kind %L', kind), 'argument: kind',
      'One of opening, assignment, exercise, expiry, transfer, unexplained.');
  end if;
  if not v_leaf.is_leaf then
    perform risk_private.fail('RK400',
      pg_catalog.format('%L has scopes below it: positions belong to those', account),
      'argument: account');
  end if;
  perform risk_private.lock_account(v_leaf.scope_id);
  v_fill.account_id := v_leaf.scope_id;
  v_fill.exec_id := exec_id;
  v_fill.instrument_id := risk_private.instrument_id(symbol);
  v_fill.signed_quantity := case side when 'buy' then quantity else -quantity end;
  v_fill.price := price;
  v_fill.fee := fee;
  v_fill.kind := kind;
  v_fill.flag := case kind when 'unexplained' then 'unexplained_trade' end;
  v_fill.executed_at := executed_at;
  if risk_private.is_recorded(v_fill) then
    return;
  end if;
  v_fill := risk_private.book(v_fill);
  perform risk_private.settle(v_leaf.scope_id, '{}', '{}', array[v_fill]);
  perform risk_private.cost(v_fill);
  if v_fill.flag is not null then
    perform risk_private.alert(v_fill.flag, pg_catalog.jsonb_build_object(
      'account', account, 'symbol', symbol, 'exec_id', exec_id, 'side', side, 'quantity',
      quantity::text,
      'price', price::text, 'severity', 'critical'));
  end if;
end
$$;
comment on function risk_private.record_trade(
  text, text, text, numeric, numeric, text, text, numeric,
  timestamptz) is 'What risk.record_trade does.';

create procedure risk.record_trade(
  account text, symbol text, side text, quantity numeric, price numeric, exec_id text,
  kind text default 'unexplained',
  fee numeric default 0, executed_at timestamptz default null, inout detail jsonb default null)
language plpgsql
as $$
begin
  perform risk_private.record_trade(account, symbol, side, quantity, price, exec_id, kind, fee,
    executed_at);
  commit;
  detail := risk_private.fill_detail(account, exec_id);
  commit;
end
$$;
comment on procedure risk.record_trade(
  text, text, text, numeric, numeric, text, text, numeric, timestamptz, jsonb) is
  'Books a trade that no order of ours explains: kind opening, assignment, exercise, expiry, '
  'transfer, or unexplained (alerted). Booked once per exec_id. Errors: RK400, RK404, RK409 same '
  'exec_id with other content.';

-- 51_lifecycle.sql
-- What else happens to an order: sent, acknowledged, released; and the roll of the trading day.

-- Lock order: the account.
create function risk_private.ack_order(account text, client_order_id text, broker_order_id text)
  returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_leaf risk_private.scopes := risk_private.scope(account);
  v_order risk_private.orders;
begin
  perform risk_private.begin_change();
  if broker_order_id is not null and not risk_private.is_code(broker_order_id) then
    perform risk_private.fail('RK400', 'broker_order_id must be 1 to 64 printable characters',
      'argument: broker_order_id');
  end if;
  perform risk_private.lock_account(v_leaf.scope_id);
  v_order := risk_private.order_of(v_leaf.scope_id, client_order_id);
  if v_order.broker_order_id <> ack_order.broker_order_id then
    perform risk_private.fail('RK409',
      pg_catalog.format('order %L was acknowledged as %L', client_order_id,
      v_order.broker_order_id), 'argument: broker_order_id');
  end if;
  update risk_private.orders as o set
    state = case when o.state in ('ACCEPTED', 'SENT') then 'ACKNOWLEDGED' else o.state end,
    acknowledged_at = coalesce(o.acknowledged_at, risk_private.clock()),
    broker_order_id = coalesce(o.broker_order_id, ack_order.broker_order_id)
  where o.account_id = v_order.account_id and o.client_order_id = v_order.client_order_id;
end
$$;
comment on function risk_private.ack_order(text, text, text) is 'What risk.ack_order does.';

create procedure risk.ack_order(account text, client_order_id text,
  broker_order_id text default null)
language plpgsql
as $$
begin
  perform risk_private.ack_order(account, client_order_id, broker_order_id);
  commit;
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.ack_order(text, text, text) is
  'The broker has acknowledged an order. Repeating it changes nothing. Errors: RK404, RK409 '
  'another broker_order_id.';

-- Lock order: the caller holds the account; then its chain's counters ascending (within settle).
create function risk_private.close_order(o risk_private.orders, new_state text, reason text)
  returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids text[] := array[o.client_order_id, o.replaced_by, o.replaces];
  v_before risk_private.working_legs[];
  v_at timestamptz := risk_private.clock();
begin
  if o.closed_at is not null then
    return;
  end if;
  v_before := risk_private.reserved(o.account_id, v_ids);
  update risk_private.orders as c set state = new_state, closed_at = v_at,
  close_reason = close_order.reason
  where c.account_id = o.account_id and c.client_order_id = o.client_order_id;
  update risk_private.orders as c set replace_pending = false, replaced_by = null
  where o.replace_pending and o.replaces is not null and c.account_id = o.account_id
    and c.client_order_id = o.replaces;
  perform risk_private.note_fills(o.account_id, v_ids, v_at);
  perform risk_private.settle(o.account_id, v_before, risk_private.reserved(o.account_id, v_ids),
    '{}');
end
$$;
comment on function risk_private.close_order(risk_private.orders, text, text) is
  'Ends a live order and gives back what is not filled. The other half of a pending replace lives '
  'on.';

create function risk_private.release_order(account text, client_order_id text, reason text)
  returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_leaf risk_private.scopes := risk_private.scope(account);
begin
  perform risk_private.begin_change();
  if (reason in ('cancelled', 'expired', 'broker_rejected')) is not true then
    perform risk_private.fail('RK400', pg_catalog.format('unknown reason %L', reason),
      'argument: reason',
      'One of cancelled, expired, broker_rejected.');
  end if;
  perform risk_private.lock_account(v_leaf.scope_id);
  perform risk_private.close_order(
    risk_private.order_of(v_leaf.scope_id, client_order_id), pg_catalog.upper(reason), reason);
end
$$;
comment on function risk_private.release_order(text, text, text) is 'What risk.release_order does.';

create procedure risk.release_order(account text, client_order_id text, reason text)
language plpgsql
as $$
begin
  perform risk_private.release_order(account, client_order_id, reason);
  commit;
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.release_order(text, text, text) is
  'The broker has ended an order: cancelled, expired or broker_rejected. Only what is not filled '
  'is released; repeating it changes nothing. Errors: RK400, RK404.';

create function risk_private.is_reducing_order(o risk_private.orders) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  p risk_private.proposal;
begin
  p.account_id := o.account_id;
  p.instrument_ids := o.instrument_ids;
  p.ratios := o.ratios;
  p.quantity := o.quantity;
  p.price := o.price;
  p.is_combo := o.is_combo;
  p.filled := o.filled;
  p.bases := array(
    select greatest(o.quantity * abs(l.ratio), l.filled)
    from unnest(o.ratios, o.filled) with ordinality as l (ratio, filled, leg) order by l.leg);
  p.old_notionals := pg_catalog.array_fill(0::numeric, array[pg_catalog.cardinality(o.ratios)]);
  return risk_private.is_reducing(o.account_id, risk_private.legs(p, risk_private.clock()),
    o.quantity);
end
$$;
comment on function risk_private.is_reducing_order(risk_private.orders) is
  'Whether what is left of a live order only reduces the position that its account has now.';

-- Lock order: the account, then its chain's counters ascending (within close_order).
create function risk_private.dispatch_order(account text, client_order_id text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_leaf risk_private.scopes := risk_private.scope(account);
  v_order risk_private.orders;
  v_is_halted boolean;
begin
  perform risk_private.begin_change();
  perform risk_private.lock_account(v_leaf.scope_id);
  v_order := risk_private.order_of(v_leaf.scope_id, client_order_id);
  if v_order.state <> 'ACCEPTED' then
    return;
  end if;
  select pg_catalog.bool_or(t.state = 'HALTED') into v_is_halted
  from risk_private.trading_states as t
  where t.scope_id = any (v_leaf.chain) and t.state <> 'ACTIVE'
    and (t.underlying_id = 0 or t.underlying_id in (
    select i.underlying_id from risk_private.instruments as i
      where i.instrument_id = any (v_order.instrument_ids)));
  if v_is_halted then
    perform risk_private.close_order(v_order, 'CANCELLED', 'TRADING_HALTED');
  elsif not v_is_halted and not risk_private.is_reducing_order(v_order) then
    perform risk_private.close_order(v_order, 'CANCELLED', 'REDUCE_ONLY');
  else
    update risk_private.orders as o set state = 'SENT', sent_at = risk_private.clock()
    where o.account_id = v_order.account_id and o.client_order_id = v_order.client_order_id;
  end if;
end
$$;
comment on function risk_private.dispatch_order(text, text) is
  'What risk.dispatch_order does, saying nothing.';

create function risk_private.dispatch_answer(account text, client_order_id text) returns text[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.flush();
  return (
    select case when o.closed_at is null then array['ACCEPTED', null]
                else array['REJECTED', coalesce(o.close_reason, o.reason, o.state)] end
    from risk_private.scopes as s
    join risk_private.orders as o on o.account_id = s.scope_id
      and o.client_order_id = dispatch_answer.client_order_id
    where s.code = account and o.decided_xid <> pg_catalog.pg_current_xact_id());
end
$$;
comment on function risk_private.dispatch_answer(text, text) is
  'Whether an order may go to the broker, and why not; durable once the calling transaction '
  'commits.';

create procedure risk.dispatch_order(
  account text, client_order_id text, inout decision text default null,
  inout reason text default null)
language plpgsql
as $$
declare
  v_answer text[];
begin
  perform risk_private.dispatch_order(account, client_order_id);
  commit;
  v_answer := risk_private.dispatch_answer(account, client_order_id);
  commit;
  decision := v_answer[1];
  reason := v_answer[2];
end
$$;
comment on procedure risk.dispatch_order(text, text, text, text) is
  'The last look just before sending: marks an accepted order SENT, or, where a halt or '
  'REDUCE_ONLY forbids it by now, releases it and answers REJECTED with the reason. After a crash, '
  'orders still ACCEPTED were not sent; SENT ones may have been. Errors: RK404.';

-- Lock order: the account, then its chain's counters ascending (within close_order and move).
create function risk_private.roll_account(account_id integer, day date) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_order risk_private.orders;
  v_movements risk_private.movement[];
begin
  perform risk_private.begin_change();
  perform risk_private.lock_account(account_id);
  -- Somebody else may have rolled it since the list of accounts was made.
  if exists (
    select from risk_private.scopes as s
    where s.scope_id = roll_account.account_id and s.trading_day >= day) then
    return;
  end if;
  for v_order in
    select o.* from risk_private.orders as o
    where o.account_id = roll_account.account_id and o.closed_at is null and o.time_in_force = 'DAY'
    order by o.decided_at desc, o.client_order_id
  loop
    perform risk_private.close_order(v_order, 'EXPIRED', 'expired');
  end loop;
  v_movements := array(
    select risk_private.movement(
      f.account_id, f.instrument_id, traded_notional => -sum(abs(f.signed_quantity) * f.unit_price))
    from risk_private.fills as f
    join risk_private.scopes as s on s.scope_id = f.account_id
    where f.account_id = roll_account.account_id and f.trading_day is not distinct
      from s.trading_day
    group by f.account_id, f.instrument_id);
  if pg_catalog.cardinality(v_movements) > 0 then
    perform risk_private.move(v_movements, false);
  end if;
  update risk_private.positions as p set realized_pnl_today = 0
  where p.account_id = roll_account.account_id and p.realized_pnl_today <> 0;
  update risk_private.scopes as s set trading_day = day where s.scope_id = roll_account.account_id;
end
$$;
comment on function risk_private.roll_account(integer, date) is
  'Takes an account into a new trading day: day orders expire, traded notional is what stays open, '
  'today''s P&L starts at 0.';

create function risk_private.set_trading_date(day date, equities jsonb) returns integer[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_today date;
begin
  if day is null or day in ('infinity', '-infinity') then
    perform risk_private.fail('RK400', 'day must be a date', 'argument: day');
  end if;
  select c.trading_date into v_today from risk_private.trading_calendar as c for update;
  if day < v_today then
    perform risk_private.fail('RK400',
      pg_catalog.format('the trading date is %s already: it moves forward only', v_today),
      'argument: day');
  end if;
  perform risk_private.set_start_equities(day, equities);
  update risk_private.trading_calendar as c set
    trading_date = day, opened_at = risk_private.clock(), opened_by = session_user;
  return array(
    select s.scope_id from risk_private.scopes as s
    where s.is_leaf and s.trading_day is distinct from day order by s.scope_id);
end
$$;
comment on function risk_private.set_trading_date(date, jsonb) is
  'Moves the trading date and returns the accounts that have to follow.';

create function risk_private.set_start_equities(day date, equities jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if equities is null then
    return;
  end if;
  if pg_catalog.jsonb_typeof(equities) <> 'object' or exists (
    select from pg_catalog.jsonb_each_text(equities) as e
    where (e.value ~ '^-?[0-9]{1,15}(\.[0-9]{1,8})?$') is not true) then
    perform risk_private.fail('RK400', 'equities must be a JSON object of account to amount',
      'argument: equities');
  end if;
  perform risk_private.scope(k) from pg_catalog.jsonb_object_keys(equities) as k;
  insert into risk_private.start_equities as q (account_id, day, equity)
  select s.scope_id, set_start_equities.day, e.value::numeric
  from pg_catalog.jsonb_each_text(equities) as e
  join risk_private.scopes as s on s.code = e.key
  on conflict on constraint start_equities_pkey do update set equity = excluded.equity;
end
$$;
comment on function risk_private.set_start_equities(date, jsonb) is
  'Stores the equity that accounts start the day with.';

create procedure risk.open_day(day date, equities jsonb default null)
language plpgsql
as $$
declare
  v_account_id integer;
begin
  foreach v_account_id in array risk_private.set_trading_date(day, equities) loop
    commit;
    perform risk_private.roll_account(v_account_id, day);
  end loop;
  commit;
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.open_day(date, jsonb) is
  'Rolls the trading day, forward only: day orders expire, traded notional and today''s P&L start '
  'again, account by account. equities: start-of-day equity per account, {"A1": "250000"}. '
  'Repeating a day resumes a roll that was interrupted. Errors: RK400, RK404 unknown account.';

-- 60_states.sql
-- Stopping: trading states, instrument statuses and cancel requests. A halt is in force when its
-- own short transaction has committed; only then are cancels requested, so that it never waits for
-- a lock that a trader holds.

create function risk_private.require_reason(reason text) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if (reason ~ '\S' and pg_catalog.length(reason) <= 1000) is not true then
    perform risk_private.fail('RK400', 'a reason of 1 to 1000 characters is required',
      'argument: reason', 'Say why: it is kept and shown to whoever is affected.');
  end if;
end
$$;
comment on function risk_private.require_reason(text) is
  'Raises RK400 for a reason that says nothing.';

create function risk_private.underlying_id(underlying text) returns integer
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id integer;
begin
  if underlying is null then
    return 0;
  end if;
  v_id := risk_private.instrument_id(underlying);
  if not exists (select from risk_private.instruments as i where i.underlying_id = v_id) then
    perform risk_private.fail('RK400', pg_catalog.format('%L is not an underlying', underlying),
      'argument: underlying',
      pg_catalog.format('Its own underlying is %L.', (
        select u.symbol from risk_private.instruments as i
        join risk_private.instruments as u on u.instrument_id = i.underlying_id
        where i.instrument_id = v_id)));
  end if;
  return v_id;
end
$$;
comment on function risk_private.underlying_id(text) is
  'The instrument of that symbol, 0 for NULL (all). RK404 where there is none, RK400 where '
  'nothing has it as its underlying: a state set on it would stop nothing.';

create function risk_private.set_trading_state(
  scope text, state text, reason text, underlying text, cancel_open boolean)
returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.begin_change();
  if (state in ('ACTIVE', 'REDUCE_ONLY', 'HALTED')) is not true then
    perform risk_private.fail('RK400', pg_catalog.format('unknown trading state %L', state),
      'argument: state',
      'One of ACTIVE, REDUCE_ONLY, HALTED.');
  end if;
  if cancel_open is null then
    perform risk_private.fail('RK400', 'cancel_open must be true or false',
      'argument: cancel_open');
  end if;
  perform risk_private.require_reason(reason);
  insert into risk_private.trading_states as t (
    scope_id, underlying_id, state, reason, changed_by, since)
  values (
    (risk_private.scope(set_trading_state.scope)).scope_id, risk_private.underlying_id(underlying),
    set_trading_state.state, set_trading_state.reason, session_user, risk_private.clock())
  on conflict (scope_id, underlying_id) do update set
    state = excluded.state, reason = excluded.reason, changed_by = excluded.changed_by,
    since = excluded.since;
  return state = 'HALTED' and cancel_open;
end
$$;
comment on function risk_private.set_trading_state(text, text, text, text, boolean) is
  'Sets the state of a scope. Returns whether its open orders are to be cancelled.';

create procedure risk.set_trading_state(
  scope text, state text, reason text, underlying text default null,
  cancel_open boolean default true)
language plpgsql
as $$
declare
  v_cancels boolean;
begin
  v_cancels := risk_private.set_trading_state(scope, state, reason, underlying, cancel_open);
  commit;
  if v_cancels then
    call risk_private.cancel_orders(scope, reason, underlying, null, false);
  end if;
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.set_trading_state(text, text, text, text, boolean) is
  'Sets the trading state of a scope and everything below it, for one underlying or (NULL) for '
  'all: ACTIVE, REDUCE_ONLY (only reducing orders pass) or HALTED (no new order or replace '
  'passes). In force for every decision that begins after its first commit, whoever holds which '
  'lock. HALTED also requests the cancel of every open order there that has not been asked for '
  'yet, unless cancel_open is false; orders that were being accepted while the halt came into '
  'force are among them. ACTIVE clears what was set on this scope, not what is set above it. '
  'After an error or time-out call it again. Errors: RK400, RK404.';

create function risk_private.may_cancel(chain integer[]) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return risk_private.may_trade(chain)
    or pg_catalog.pg_has_role(risk_private.caller(), 'risk_admin', 'member');
end
$$;
comment on function risk_private.may_cancel(integer[]) is
  'Whether the caller may cancel orders of the scope of that chain.';

-- Every account, not only those with open orders at this moment: an order that is being accepted
-- holds its account's lock from before it read the trading state, so whoever has had that lock
-- since knows all that slipped through.
create function risk_private.accounts_to_cancel(
  scope text, reason text, underlying text, agent text)
returns integer[]
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_scope risk_private.scopes := risk_private.scope(scope);
begin
  perform risk_private.require_reason(reason);
  perform risk_private.underlying_id(underlying);
  if agent is not null and not risk_private.is_code(agent) then
    perform risk_private.fail('RK400', 'agent must be 1 to 64 printable characters',
      'argument: agent');
  end if;
  if risk_private.may_cancel(v_scope.chain) is not true then
    perform risk_private.fail('RK403',
      pg_catalog.format('%s may not cancel orders of %L', risk_private.caller(), scope),
      'argument: scope', 'A trading grant on the scope, or membership in risk_admin, allows it.');
  end if;
  return array(
    select s.scope_id from risk_private.scopes as s
    where s.is_leaf and s.chain @> array[v_scope.scope_id]
    order by s.scope_id);
end
$$;
comment on function risk_private.accounts_to_cancel(text, text, text, text) is
  'The accounts of a scope, ascending, having checked the arguments of a cancel. Errors: RK400, '
  'RK403, RK404.';

create function risk_private.lock_account_within(account_id integer, wait text) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_catalog.set_config('lock_timeout', wait, true);
  perform risk_private.lock_account(account_id);
  return true;
exception when lock_not_available then
  return false;
end
$$;
comment on function risk_private.lock_account_within(integer, text) is
  'Takes an account''s lock; false where somebody else keeps it for longer than that.';

-- Lock order: the account, then its orders.
create function risk_private.request_cancels(
  account_id integer, reason text, underlying text, agent text, again boolean, patiently boolean)
returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_account risk_private.scopes;
  v_underlying_id integer := risk_private.underlying_id(underlying);
  v_at timestamptz;
  v_payloads jsonb[];
begin
  perform risk_private.begin_change();
  perform risk_private.require_reason(reason);
  select s.* into v_account from risk_private.scopes as s
  where s.scope_id = request_cancels.account_id;
  if risk_private.may_cancel(v_account.chain) is not true then
    perform risk_private.fail('RK403',
      pg_catalog.format('%s may not cancel orders here', risk_private.caller()),
      'argument: account_id');
  end if;
  if patiently then
    perform risk_private.lock_account(account_id);
  elsif not risk_private.lock_account_within(account_id, '100ms') then
    return false;
  end if;
  v_at := risk_private.clock();
  with asked as (
    update risk_private.orders as o set cancel_requested_at = coalesce(o.cancel_requested_at, v_at)
    where o.account_id = request_cancels.account_id and o.closed_at is null
      and (request_cancels.again or o.cancel_requested_at is null)
      and (request_cancels.agent is null or o.agent = request_cancels.agent)
      and (v_underlying_id = 0 or exists (
        select from risk_private.instruments as i
        where i.instrument_id = any (o.instrument_ids) and i.underlying_id = v_underlying_id))
    returning o.client_order_id, o.decided_at
  )
  select pg_catalog.array_agg(
    pg_catalog.jsonb_build_object(
      'account', v_account.code, 'client_order_id', a.client_order_id,
      'order_id', risk_private.order_id(v_account.code, a.client_order_id),
      'reason', request_cancels.reason)
    order by a.decided_at, a.client_order_id) into v_payloads
  from asked as a;
  perform risk_private.alerts('cancel_request', v_payloads);
  return true;
end
$$;
comment on function risk_private.request_cancels(integer, text, text, text, boolean, boolean) is
  'Requests the cancel of an account''s open orders: those not asked for yet or, again, all. '
  'Impatiently it gives up after a moment and returns false where somebody holds the account''s '
  'lock.';

-- A session that sits on one account's lock must not keep all other accounts from being asked: it
-- is waited for last.
create procedure risk_private.cancel_orders(
  scope text, reason text, underlying text, agent text, again boolean)
language plpgsql
as $$
declare
  v_account_id integer;
  v_busy integer[];
begin
  foreach v_account_id in array risk_private.accounts_to_cancel(scope, reason, underlying, agent) loop
    if not risk_private.request_cancels(v_account_id, reason, underlying, agent, again, false) then
      v_busy := pg_catalog.array_append(v_busy, v_account_id);
    end if;
    commit;
  end loop;
  foreach v_account_id in array coalesce(v_busy, array[]::integer[]) loop
    perform risk_private.request_cancels(v_account_id, reason, underlying, agent, again, true);
    commit;
  end loop;
end
$$;
comment on procedure risk_private.cancel_orders(text, text, text, text, boolean) is
  'Requests cancels account by account, each in its own short transaction.';

create procedure risk.cancel_orders(
  scope text, reason text, underlying text default null, agent text default null)
language plpgsql
as $$
begin
  call risk_private.cancel_orders(scope, reason, underlying, agent, true);
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.cancel_orders(text, text, text, text) is
  'Requests the cancel of every open order of a scope and everything below it, of one underlying '
  '(in any leg) or all, of one agent or all: one message on risk_alerts per order, {"kind": '
  '"cancel_request", "account", "client_order_id", "order_id", "reason"}, and for both ids while '
  'a replace is pending, as only the broker knows which of them works. A request is not a cancel: '
  'the order counts until it is released. Called again it asks again for what is still open, in '
  'case a message was lost; cancel_requested_at stays that of the first request. For whoever may '
  'trade the scope, and admins. Errors: RK400, RK403, RK404.';

create function risk_private.set_instrument_status(symbol text, status text, reason text)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if (status in ('ACTIVE', 'RESTRICTED', 'NO_NEW_SHORTS', 'BLOCKED')) is not true then
    perform risk_private.fail('RK400', pg_catalog.format('unknown instrument status %L', status),
      'argument: status',
      'One of ACTIVE, RESTRICTED, NO_NEW_SHORTS, BLOCKED.');
  end if;
  perform risk_private.require_reason(reason);
  update risk_private.instruments as i
  set status = set_instrument_status.status, status_reason = set_instrument_status.reason
  where i.instrument_id = risk_private.instrument_id(set_instrument_status.symbol);
  perform risk_private.flush();
end
$$;
comment on function risk_private.set_instrument_status(text, text, text) is
  'What risk.set_instrument_status does.';

create procedure risk.set_instrument_status(symbol text, status text, reason text)
language plpgsql
as $$
begin
  perform risk_private.set_instrument_status(symbol, status, reason);
  commit;
end
$$;
comment on procedure risk.set_instrument_status(text, text, text) is
  'Sets what may be done in an instrument: ACTIVE, RESTRICTED (only reducing orders), '
  'NO_NEW_SHORTS (no sell that makes or enlarges a short) or BLOCKED (no order). Open orders '
  'stay. Errors: RK400, RK404.';

-- 61_visibility.sql
-- Who may look into which accounts, and when.

create function risk_private.visible_accounts() returns integer[]
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select
    from pg_catalog.unnest(array['risk_owner', 'risk_execution', 'risk_admin', 'risk_worker',
                                 'risk_analyst', 'risk_auditor']) as r (role)
    where pg_catalog.pg_has_role(risk_private.caller(), r.role, 'member')) then
    return array(select s.scope_id from risk_private.scopes as s where s.is_leaf);
  end if;
  return array(
    select s.scope_id from risk_private.scopes as s
    where s.is_leaf and risk_private.may_trade(s.chain));
end
$$;
comment on function risk_private.visible_accounts() is
  'The accounts that the caller may look into.';

-- Counters and positions do not tell who moved them last. So whoever could have made this
-- transaction accept an order is shown none of them in a transaction that has written anything,
-- whatever role he has set since.
create function risk_private.is_settled() returns boolean
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_catalog.pg_current_xact_id_if_assigned() is not null
    and (pg_catalog.pg_has_role(session_user, 'risk_trader', 'member')
      or pg_catalog.pg_has_role(risk_private.caller(), 'risk_trader', 'member'))
    and not pg_catalog.pg_has_role(session_user, 'risk_owner', 'member') then
    perform risk_private.fail('25001',
      'a trader cannot read this in a transaction that has written',
      'It would show what may still be rolled back.', 'Commit first.');
  end if;
  return true;
end
$$;
comment on function risk_private.is_settled() is
  'True; or error 25001 for a trader in a transaction that has written, and so may have accepted '
  'an order itself.';

create function risk_private.present_trading_date() returns date
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return risk_private.trading_date();
end
$$;
comment on function risk_private.present_trading_date() is
  'risk_private.trading_date() for readers of views.';

-- 70_reference_views.sql
-- Views of what is set up: scopes, instruments, marks, settings, grants and trading states. No view
-- locks anything.

create view risk.scopes as
select
  s.code as scope, s.kind, p.code as parent, s.is_leaf as is_account,
  array(
    select c.code from unnest(s.chain) with ordinality as k (scope_id, position)
    join risk_private.scopes as c on c.scope_id = k.scope_id
    order by k.position desc) as path,
  s.max_mark_age, s.max_heartbeat_age, s.collar_floor,
  array(
    select t.limit_type from risk_private.limit_types as t
    where pg_catalog.get_bit(s.required_types, t.bit) = 1
    order by t.bit) as required_limit_types,
  s.created_at
from risk_private.scopes as s
left join risk_private.scopes as p on p.scope_id = s.parent_id;
comment on view risk.scopes is
  'The hierarchy firm > desk > account > strategy, with the settings that hold for each scope.';
comment on column risk.scopes.scope is 'Code of the scope.';
comment on column risk.scopes.kind is 'firm, desk, account or strategy.';
comment on column risk.scopes.parent is 'The scope directly above; NULL for a firm.';
comment on column risk.scopes.is_account is
  'Whether nothing stands below it: then it may hold positions and orders.';
comment on column risk.scopes.path is 'The chain from the firm down to the scope itself.';
comment on column risk.scopes.max_mark_age is
  'Seconds a mark may be old for a decision here; 0: any age.';
comment on column risk.scopes.max_heartbeat_age is
  'Seconds the last evaluation of the circuit breakers may be old for a decision here; 0: any age.';
comment on column risk.scopes.collar_floor is
  'Least width of the price collar of an option, in money per share.';
comment on column risk.scopes.required_limit_types is
  'Limit types without which an order here is refused.';
comment on column risk.scopes.created_at is 'When the scope was created.';

create view risk.instruments as
select
  i.symbol, i.kind, u.symbol as underlying, s.name as sector, i.expiry, i.strike, i.option_right,
  i.multiplier, i.lot, i.tick, i.currency, i.allow_negative_price, i.status, i.status_reason
from risk_private.instruments as i
join risk_private.instruments as u on u.instrument_id = i.underlying_id
left join risk_private.sectors as s on s.sector_id = i.sector_id;
comment on view risk.instruments is 'What can be traded, and its terms.';
comment on column risk.instruments.symbol is 'Symbol of the instrument.';
comment on column risk.instruments.kind is 'stock, etf, index, option or future.';
comment on column risk.instruments.underlying is 'Symbol of the underlying; a stock''s is its own.';
comment on column risk.instruments.sector is
  'Sector, by default the underlying''s; NULL where there is none.';
comment on column risk.instruments.expiry is 'Last day of trading; NULL for what does not expire.';
comment on column risk.instruments.strike is 'Strike of an option, per share.';
comment on column risk.instruments.option_right is 'call or put.';
comment on column risk.instruments.multiplier is 'Units of the underlying per contract.';
comment on column risk.instruments.lot is 'Quantities are multiples of it.';
comment on column risk.instruments.tick is 'Prices are multiples of it; NULL: any price.';
comment on column risk.instruments.currency is 'Currency of its prices.';
comment on column risk.instruments.allow_negative_price is 'Whether a price may be 0 or below.';
comment on column risk.instruments.status is
  'ACTIVE; RESTRICTED: reducing orders only; NO_NEW_SHORTS: no order that makes or enlarges a '
  'short; BLOCKED: no order.';
comment on column risk.instruments.status_reason is 'Why the status was last set.';

create view risk.marks as
select
  i.symbol, m.price, m.bid, m.ask, m.implied_volatility, m.delta, m.gamma, m.vega, m.theta, m.rho,
  m.as_of
from risk_private.marks as m
join risk_private.instruments as i on i.instrument_id = m.instrument_id;
comment on view risk.marks is 'The latest mark, quote and Greeks of each instrument, per unit.';
comment on column risk.marks.symbol is 'Symbol of the instrument.';
comment on column risk.marks.price is 'Mark price.';
comment on column risk.marks.bid is 'Best bid; NULL where the feed sent none.';
comment on column risk.marks.ask is 'Best ask; NULL where the feed sent none.';
comment on column risk.marks.implied_volatility is 'Annual implied volatility, 0.2 for 20 %.';
comment on column risk.marks.delta is 'Price change per 1.00 of the underlying.';
comment on column risk.marks.gamma is 'Change of delta per 1.00 of the underlying.';
comment on column risk.marks.vega is 'Price change per volatility point (0.01).';
comment on column risk.marks.theta is 'Price change per calendar day.';
comment on column risk.marks.rho is 'Price change per 1 % of interest rate.';
comment on column risk.marks.as_of is 'Data time of the mark.';

create view risk.settings as
select g.name, s.code as scope, g.value, g.set_by, g.set_at
from risk_private.settings as g
left join risk_private.scopes as s on s.scope_id = g.scope_id;
comment on view risk.settings is
  'Settings that were made; risk.scopes shows what holds where. What is not set has its default.';
comment on column risk.settings.name is 'Name of the setting.';
comment on column risk.settings.scope is
  'The scope it was made for, and everything below; NULL: everywhere.';
comment on column risk.settings.value is 'Its value, as text.';
comment on column risk.settings.set_by is 'The login that made it.';
comment on column risk.settings.set_at is 'When it was made.';

create view risk.trading_grants as
select pg_catalog.pg_get_userbyid(g.role_id) as role, s.code as scope, g.granted_by, g.granted_at
from risk_private.trading_grants as g
join risk_private.scopes as s on s.scope_id = g.scope_id;
comment on view risk.trading_grants is
  'Who may trade what. Superusers and members of risk_owner may trade everywhere.';
comment on column risk.trading_grants.role is 'The role; its members have the grant too.';
comment on column risk.trading_grants.scope is 'The scope it may trade, and everything below.';
comment on column risk.trading_grants.granted_by is 'The login that granted it.';
comment on column risk.trading_grants.granted_at is 'When it was granted.';

create view risk.trading_states as
select
  s.code as scope, u.symbol as underlying, coalesce(o.state, 'ACTIVE') as own_state,
  coalesce(e.state, 'ACTIVE') as effective_state, e.since, e.changed_by, e.reason
from risk_private.scopes as s
cross join lateral (
  select 0 as underlying_id
  union
  select t.underlying_id from risk_private.trading_states as t where t.scope_id = any (s.chain)
) as k
left join risk_private.instruments as u on u.instrument_id = k.underlying_id
left join risk_private.trading_states as o on o.scope_id = s.scope_id
  and o.underlying_id = k.underlying_id
left join lateral (
  select t.* from risk_private.trading_states as t
  where t.scope_id = any (s.chain) and t.underlying_id in (0, k.underlying_id)
  order by pg_catalog.array_position(array['HALTED', 'REDUCE_ONLY', 'ACTIVE'], t.state),
    pg_catalog.array_position(s.chain, t.scope_id), t.underlying_id desc
  limit 1
) as e on true;
comment on view risk.trading_states is
  'Trading states: one row per scope, and one per scope and underlying where a state was set for '
  'that underlying on the scope or above it.';
comment on column risk.trading_states.scope is 'Code of the scope.';
comment on column risk.trading_states.underlying is
  'The underlying it is about; NULL: all of them.';
comment on column risk.trading_states.own_state is
  'What was set on this very scope: ACTIVE, REDUCE_ONLY or HALTED.';
comment on column risk.trading_states.effective_state is
  'What decisions go by: the most severe on the scope and above it.';
comment on column risk.trading_states.since is
  'When the effective state was set; NULL where none ever was. Likewise the next two.';
comment on column risk.trading_states.changed_by is 'The login that set it.';
comment on column risk.trading_states.reason is 'Why it was set.';

-- 71_order_views.sql
-- Views of accounts: orders, decisions, fills, positions. A trader sees the accounts that he may
-- trade, everybody else who may read them sees all. None shows what the reading transaction itself
-- has done: that could still be rolled back.

create view risk.orders with (security_barrier) as
select
  risk_private.order_id(a.code, o.client_order_id) as order_id, a.code as account,
  o.client_order_id, o.agent, i.symbol,
  case when l.ratio > 0 then 'buy' else 'sell' end as side, o.quantity * abs(l.ratio) as quantity,
  o.price,
  l.filled as filled_quantity,
  case when o.closed_at is null and not (o.replace_pending and o.replaces is not null and exists (
         select from risk_private.orders as old
         where old.account_id = o.account_id and old.client_order_id = o.replaces
           and old.closed_at is null))
       then greatest(0, o.quantity * abs(l.ratio) - l.filled) else 0 end as remaining_quantity,
  o.state, o.decision, o.reason, o.decided_at, o.time_in_force, o.replaces, o.replaced_by,
  o.closed_at, o.close_reason
from risk_private.scopes as a
join risk_private.orders as o on o.account_id = a.scope_id
cross join lateral unnest(o.instrument_ids, o.ratios, o.filled) as l (instrument_id, ratio, filled)
join risk_private.instruments as i on i.instrument_id = l.instrument_id
where a.scope_id = any ((select risk_private.visible_accounts())::integer[])
  and o.decided_xid is distinct from pg_catalog.pg_current_xact_id_if_assigned()
  and (select risk_private.is_settled());
comment on view risk.orders is 'Every order ever decided, one row per leg.';
comment on column risk.orders.order_id is 'Id of the order, made of account and client_order_id.';
comment on column risk.orders.account is 'The account.';
comment on column risk.orders.client_order_id is 'The caller''s id of the order.';
comment on column risk.orders.agent is 'The strategy or algorithm that sent it.';
comment on column risk.orders.symbol is 'Instrument of the leg.';
comment on column risk.orders.side is 'buy or sell, of the leg.';
comment on column risk.orders.quantity is
  'Quantity of the leg: the order''s times the leg''s ratio.';
comment on column risk.orders.price is
  'Limit price of the order, for a combo net per combo; NULL: a market order.';
comment on column risk.orders.filled_quantity is
  'Filled quantity of the leg; of a replacement, with what the replaced order had filled.';
comment on column risk.orders.remaining_quantity is
  'Unfilled quantity of the leg; 0 once the order is closed, and for a replacement while the old '
  'order lives.';
comment on column risk.orders.state is
  'ACCEPTED, SENT, ACKNOWLEDGED, PARTIALLY_FILLED, FILLED, CANCELLED, EXPIRED, BROKER_REJECTED or '
  'REJECTED.';
comment on column risk.orders.decision is 'ACCEPTED or REJECTED.';
comment on column risk.orders.reason is 'The gravest reason of a rejection.';
comment on column risk.orders.decided_at is 'When it was decided.';
comment on column risk.orders.time_in_force is
  'DAY: until the next open_day; GTC: until cancelled.';
comment on column risk.orders.replaces is
  'The client_order_id that this order replaces or was to replace.';
comment on column risk.orders.replaced_by is
  'The client_order_id of its replacement, pending or confirmed.';
comment on column risk.orders.closed_at is 'When it ceased to be live; NULL while it is.';
comment on column risk.orders.close_reason is 'Why it was closed before it was filled.';

create view risk.open_orders with (security_barrier) as
select
  risk_private.order_id(a.code, o.client_order_id) as order_id, a.code as account,
  o.client_order_id, o.agent, i.symbol,
  case when l.ratio > 0 then 'buy' else 'sell' end as side, o.quantity * abs(l.ratio) as quantity,
  o.price,
  l.filled as filled_quantity,
  case when w.account_id is null then 0
    else greatest(0, o.quantity * abs(l.ratio) - l.filled) end as remaining_quantity,
  coalesce(w.open_quantity, 0) as reserved_quantity, o.state, o.decided_at, o.time_in_force,
  o.is_combo, o.sent_at, o.acknowledged_at, o.broker_order_id, o.cancel_requested_at,
  o.replace_pending, o.replaces, o.replaced_by
from risk_private.scopes as a
join risk_private.orders as o on o.account_id = a.scope_id and o.closed_at is null
cross join lateral unnest(o.instrument_ids, o.ratios, o.filled) with ordinality
  as l (instrument_id, ratio, filled, leg)
join risk_private.instruments as i on i.instrument_id = l.instrument_id
left join risk_private.working_legs as w
  on w.account_id = o.account_id and w.client_order_id = o.client_order_id and w.leg = l.leg
where a.scope_id = any ((select risk_private.visible_accounts())::integer[])
  and o.decided_xid is distinct from pg_catalog.pg_current_xact_id_if_assigned()
  and (select risk_private.is_settled());
comment on view risk.open_orders is
  'Orders that are live, one row per leg. After a crash of the gateway state tells them apart: '
  'ACCEPTED was not marked sent, SENT not acknowledged.';
comment on column risk.open_orders.order_id is
  'Id of the order, made of account and client_order_id.';
comment on column risk.open_orders.account is 'The account.';
comment on column risk.open_orders.client_order_id is 'The caller''s id of the order.';
comment on column risk.open_orders.agent is 'The strategy or algorithm that sent it.';
comment on column risk.open_orders.symbol is 'Instrument of the leg.';
comment on column risk.open_orders.side is 'buy or sell, of the leg.';
comment on column risk.open_orders.quantity is
  'Quantity of the leg: the order''s times the leg''s ratio.';
comment on column risk.open_orders.price is
  'Limit price of the order, for a combo net per combo; NULL: a market order.';
comment on column risk.open_orders.filled_quantity is 'Filled quantity of the leg.';
comment on column risk.open_orders.remaining_quantity is
  'Unfilled quantity of the leg; 0 for a replacement while the old order lives.';
comment on column risk.open_orders.reserved_quantity is
  'What the leg counts in limits: while a replace is pending the larger of both, shown on the old '
  'order.';
comment on column risk.open_orders.state is 'ACCEPTED, SENT, ACKNOWLEDGED or PARTIALLY_FILLED.';
comment on column risk.open_orders.decided_at is 'When it was accepted.';
comment on column risk.open_orders.time_in_force is
  'DAY: until the next open_day; GTC: until cancelled.';
comment on column risk.open_orders.is_combo is 'Whether it was sent as a combo.';
comment on column risk.open_orders.sent_at is 'When the gateway dispatched it.';
comment on column risk.open_orders.acknowledged_at is 'When the broker acknowledged it.';
comment on column risk.open_orders.broker_order_id is 'The broker''s id.';
comment on column risk.open_orders.cancel_requested_at is 'When its cancel was first requested.';
comment on column risk.open_orders.replace_pending is
  'Whether it is one of the two orders of a pending replace.';
comment on column risk.open_orders.replaces is
  'The client_order_id that it replaces or is to replace.';
comment on column risk.open_orders.replaced_by is 'The client_order_id of its pending replacement.';

create view risk.decisions with (security_barrier) as
select
  risk_private.order_id(a.code, o.client_order_id) as order_id, a.code as account,
  o.client_order_id, o.agent,
  (
    select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'symbol', (
        select i.symbol from risk_private.instruments as i
        where i.instrument_id = l.instrument_id),
      'side', case when l.ratio > 0 then 'buy' else 'sell' end,
      'ratio', abs(l.ratio)) order by l.leg)
    from unnest(o.instrument_ids, o.ratios) with ordinality as l (instrument_id, ratio, leg)
  ) as legs,
  o.quantity, o.price, o.time_in_force, o.replaces, o.decision, o.reason, o.allowed_quantity,
  coalesce(o.detail, '{"violations": [], "warnings": []}') as detail, o.decided_at, o.decided_by
from risk_private.scopes as a
join risk_private.orders as o on o.account_id = a.scope_id
where a.scope_id = any ((select risk_private.visible_accounts())::integer[])
  and o.decided_xid is distinct from pg_catalog.pg_current_xact_id_if_assigned();
comment on view risk.decisions is 'Every decision, as it was answered: one row per order.';
comment on column risk.decisions.order_id is
  'Id of the order, made of account and client_order_id.';
comment on column risk.decisions.account is 'The account.';
comment on column risk.decisions.client_order_id is 'The caller''s id of the order.';
comment on column risk.decisions.agent is 'The strategy or algorithm that sent it.';
comment on column risk.decisions.legs is
  'What was to be traded: [{"symbol", "side", "ratio"}, ...].';
comment on column risk.decisions.quantity is
  'Quantity of the order; of a replacement, the new total.';
comment on column risk.decisions.price is
  'Limit price, for a combo net per combo; NULL: a market order.';
comment on column risk.decisions.time_in_force is 'DAY or GTC.';
comment on column risk.decisions.replaces is
  'The client_order_id that it was to replace; NULL for a new order.';
comment on column risk.decisions.decision is 'ACCEPTED or REJECTED.';
comment on column risk.decisions.reason is 'The gravest reason of a rejection.';
comment on column risk.decisions.allowed_quantity is 'The largest quantity that would have passed.';
comment on column risk.decisions.detail is
  '{"violations": [...], "warnings": [...]}: every one of them.';
comment on column risk.decisions.decided_at is 'When it was decided.';
comment on column risk.decisions.decided_by is 'The login that asked.';

create view risk.violations with (security_barrier) as
select
  risk_private.order_id(a.code, o.client_order_id) as order_id, a.code as account,
  o.client_order_id, o.agent,
  v.value ->> 'reason' as reason, v.value ->> 'limit_type' as limit_type,
  v.value ->> 'scope' as scope,
  v.value ->> 'dimension' as dimension, (v.value ->> 'limit')::numeric as limit_value,
  (v.value ->> 'current')::numeric as current_value,
  (v.value ->> 'projected')::numeric as projected_value,
  (v.value ->> 'allowed_quantity')::numeric as allowed_quantity, o.decided_at
from risk_private.scopes as a
join risk_private.orders as o on o.account_id = a.scope_id and o.decision = 'REJECTED'
cross join lateral pg_catalog.jsonb_array_elements(o.detail -> 'violations') as v
where a.scope_id = any ((select risk_private.visible_accounts())::integer[])
  and o.decided_xid is distinct from pg_catalog.pg_current_xact_id_if_assigned();
comment on view risk.violations is 'Why orders were rejected: one row for every check that failed.';
comment on column risk.violations.order_id is
  'Id of the order, made of account and client_order_id.';
comment on column risk.violations.account is 'The account.';
comment on column risk.violations.client_order_id is 'The caller''s id of the order.';
comment on column risk.violations.agent is 'The strategy or algorithm that sent it.';
comment on column risk.violations.reason is 'Reason of this failure, such as RISK_LIMIT_EXCEEDED.';
comment on column risk.violations.limit_type is
  'The type of limit that failed; NULL for other checks.';
comment on column risk.violations.scope is 'The scope whose limit, state or setting it was.';
comment on column risk.violations.dimension is
  'all, sector:Tech, underlying:AAPL or instrument:AAPL.';
comment on column risk.violations.limit_value is 'The limit.';
comment on column risk.violations.current_value is 'What was used before, open orders included.';
comment on column risk.violations.projected_value is 'What would have been used with the order.';
comment on column risk.violations.allowed_quantity is
  'The largest quantity that this check would have passed.';
comment on column risk.violations.decided_at is 'When it was decided.';

create view risk.fills with (security_barrier) as
select
  a.code as account, f.exec_id, risk_private.order_id(a.code, f.client_order_id) as order_id,
  f.client_order_id, i.symbol,
  case when f.signed_quantity > 0 then 'buy' else 'sell' end as side,
  abs(f.signed_quantity) as quantity, f.price, f.fee,
  f.kind, f.flag, f.trading_day, f.executed_at, f.recorded_at, f.recorded_by
from risk_private.scopes as a
join risk_private.fills as f on f.account_id = a.scope_id
join risk_private.instruments as i on i.instrument_id = f.instrument_id
where a.scope_id = any ((select risk_private.visible_accounts())::integer[])
  and f.recorded_xid is distinct from pg_catalog.pg_current_xact_id_if_assigned();
comment on view risk.fills is 'Executions: fills of orders, and trades that no order explains.';
comment on column risk.fills.account is 'The account.';
comment on column risk.fills.exec_id is
  'The broker''s id of the execution, unique within the account.';
comment on column risk.fills.order_id is 'Id of the order; NULL where no order explains it.';
comment on column risk.fills.client_order_id is 'The order under which it was reported.';
comment on column risk.fills.symbol is 'The instrument.';
comment on column risk.fills.side is 'buy or sell.';
comment on column risk.fills.quantity is 'Executed quantity.';
comment on column risk.fills.price is 'Price of the execution.';
comment on column risk.fills.fee is 'Fee paid.';
comment on column risk.fills.kind is
  'fill; or, with no order: opening, assignment, exercise, expiry, transfer, unexplained.';
comment on column risk.fills.flag is
  'What was wrong with it: over_fill, fill_on_closed_order, fill_on_rejected_order, '
  'unexplained_trade; NULL: nothing.';
comment on column risk.fills.trading_day is 'The trading day to whose traded notional it counts.';
comment on column risk.fills.executed_at is 'When the broker executed it.';
comment on column risk.fills.recorded_at is 'When it was booked.';
comment on column risk.fills.recorded_by is 'The login that reported it.';

create view risk.positions with (security_barrier) as
select
  a.code as account, i.symbol, u.symbol as underlying, p.quantity, p.open_buy, p.open_sell,
  p.average_price,
  m.price as mark, p.quantity * m.price * i.multiplier * f.rate as market_value,
  p.quantity * (m.price - p.average_price) * i.multiplier * f.rate as unrealized_pnl,
  p.realized_pnl_today,
  g.units * m.delta as delta, g.units * m.gamma as gamma, g.units * m.vega as vega,
  g.units * m.theta as theta,
  g.units * m.rho as rho, m.as_of
from risk_private.scopes as a
join risk_private.positions as p on p.account_id = a.scope_id
join risk_private.instruments as i on i.instrument_id = p.instrument_id
join risk_private.instruments as u on u.instrument_id = i.underlying_id
left join risk_private.fx_rates as f on f.currency = i.currency
left join risk_private.marks as m on m.instrument_id = p.instrument_id
cross join lateral (
  select case when i.expiry < (select risk_private.present_trading_date()) then 0
              else (p.quantity * i.multiplier)::double precision end as units
) as g
where a.scope_id = any ((select risk_private.visible_accounts())::integer[])
  and (select risk_private.is_settled())
  and (p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0 or p.realized_pnl_today <> 0);
comment on view risk.positions is
  'What each account holds and has in open orders, at the latest marks. Money is in the base '
  'currency.';
comment on column risk.positions.account is 'The account.';
comment on column risk.positions.symbol is 'The instrument.';
comment on column risk.positions.underlying is 'Its underlying.';
comment on column risk.positions.quantity is 'Filled position: above 0 long, below 0 short.';
comment on column risk.positions.open_buy is 'Unfilled quantity of open buys.';
comment on column risk.positions.open_sell is 'Unfilled quantity of open sells.';
comment on column risk.positions.average_price is 'Average cost per unit of the position.';
comment on column risk.positions.mark is
  'Latest mark; NULL where there is none, and so are the values made of it.';
comment on column risk.positions.market_value is 'quantity x mark x multiplier x rate.';
comment on column risk.positions.unrealized_pnl is 'Market value less cost.';
comment on column risk.positions.realized_pnl_today is
  'Realized since the trading day was opened, less fees.';
comment on column risk.positions.delta is
  'Delta in share equivalents: that of the mark x quantity x multiplier. NULL where the mark has '
  'none; 0 once expired. Likewise the other Greeks.';
comment on column risk.positions.gamma is
  'Change of the position''s delta per 1.00 of the underlying.';
comment on column risk.positions.vega is 'Money per volatility point (0.01).';
comment on column risk.positions.theta is 'Money per calendar day.';
comment on column risk.positions.rho is 'Money per 1 % of interest rate.';
comment on column risk.positions.as_of is 'Data time of the mark.';

-- 72_limit_views.sql
-- Views of limits, of what is used of them, and of the exposure that they limit.

create view risk_private.limits_in_force as
select
  p.scope_id, s.code as scope, s.is_leaf, p.dimension, p.key_id, p.limit_type, t.judged, t.warns,
  p.limit_id, p.amount, p.warn_pct, p.version, p.valid_from, p.valid_until, n.at
from (select risk_private.clock() as at) as n
join risk_private.limit_periods as p on p.valid_from <= n.at and n.at < p.valid_until
join risk_private.scopes as s on s.scope_id = p.scope_id
join risk_private.limit_types as t on t.limit_type = p.limit_type;
comment on view risk_private.limits_in_force is 'The limits in force at this moment.';

create view risk_private.used_by_instruments as
select distinct on (g.limit_id) g.limit_id, g.instrument_id, g.used, g.worst_case
from (
  select distinct on (n.scope_id, n.instrument_id, l.limit_type) l.limit_id, n.instrument_id,
    case l.limit_type
      when 'net_position' then abs(n.quantity)
      when 'long_position' then greatest(0, n.quantity)
      else greatest(0, -n.quantity)
    end as used,
    case l.limit_type
      when 'net_position' then risk_private.worst_case(n.quantity, n.open_buy, n.open_sell)
      when 'long_position' then greatest(0, n.quantity + n.open_buy)
      else greatest(0, n.open_sell - n.quantity)
    end as worst_case
  from (
    select p.account_id as scope_id, p.instrument_id, p.quantity, p.open_buy, p.open_sell
    from risk_private.positions as p
    union all
    select c.scope_id, c.key_id, c.quantity, c.open_buy, c.open_sell
    from risk_private.counters as c
    where c.dimension = 3
  ) as n
  join risk_private.instruments as i on i.instrument_id = n.instrument_id
  cross join lateral (
    values (0, 0), (1, i.sector_id), (2, i.underlying_id), (3, i.instrument_id)
  ) as d (dimension, key_id)
  join risk_private.limits_in_force as l
    on l.scope_id = n.scope_id and l.dimension = d.dimension and l.key_id = d.key_id
      and l.judged = 'instrument'
  order by n.scope_id, n.instrument_id, l.limit_type, l.dimension desc
) as g
order by g.limit_id, g.worst_case desc, g.used desc, g.instrument_id;
comment on view risk_private.used_by_instruments is
  'Use of limits per instrument. Within a scope the most specific limit governs an instrument; a '
  'wider one shows the worst of those that it governs.';

create view risk_private.used_by_sums as
with keys as materialized (
  select distinct l.scope_id, l.dimension, l.key_id
  from risk_private.limits_in_force as l
  where l.judged = 'sum'
), filled_by_account as materialized (
  select p.account_id, d.dimension, d.key_id, sum(abs(p.quantity)) as gross_position,
    sum(abs(p.quantity) * p.unit_notional) as gross_notional, count(*) as open_positions
  from risk_private.positions as p
  join risk_private.instruments as i on i.instrument_id = p.instrument_id
  cross join lateral (
    values (0, 0), (1, i.sector_id), (2, i.underlying_id), (3, i.instrument_id)
  ) as d (dimension, key_id)
  where p.quantity <> 0 and d.dimension in (select k.dimension from keys as k)
  group by p.account_id, d.dimension, d.key_id
), working_by_account as materialized (
  select w.account_id, d.dimension, d.key_id, sum(w.open_notional) as open_notional
  from risk_private.working_legs as w
  join risk_private.instruments as i on i.instrument_id = w.instrument_id
  cross join lateral (
    values (0, 0), (1, i.sector_id), (2, i.underlying_id), (3, i.instrument_id)
  ) as d (dimension, key_id)
  where d.dimension in (
    select l.dimension from risk_private.limits_in_force as l
    where l.limit_type = 'traded_notional')
  group by w.account_id, d.dimension, d.key_id
), filled as materialized (
  select k.scope_id, k.dimension, k.key_id, sum(f.gross_position) as gross_position,
    sum(f.gross_notional) as gross_notional, sum(f.open_positions) as open_positions
  from filled_by_account as f
  join risk_private.scopes as a on a.scope_id = f.account_id
  join keys as k on k.scope_id = any (a.chain) and k.dimension = f.dimension and k.key_id = f.key_id
  group by k.scope_id, k.dimension, k.key_id
), working as materialized (
  select k.scope_id, k.dimension, k.key_id, sum(w.open_notional) as open_notional
  from working_by_account as w
  join risk_private.scopes as a on a.scope_id = w.account_id
  join keys as k on k.scope_id = any (a.chain) and k.dimension = w.dimension and k.key_id = w.key_id
  group by k.scope_id, k.dimension, k.key_id
)
select c.scope_id, c.dimension, c.key_id, m.limit_type, m.used, m.worst_case
from keys as k
join risk_private.counters as c
  on c.counter_id = risk_private.counter_id(k.scope_id, k.dimension, k.key_id)
left join filled as f
  on f.scope_id = k.scope_id and f.dimension = k.dimension and f.key_id = k.key_id
left join working as w
  on w.scope_id = k.scope_id and w.dimension = k.dimension and w.key_id = k.key_id
cross join lateral (
  values
    ('gross_position', coalesce(f.gross_position, 0), c.gross_position),
    ('gross_notional', coalesce(f.gross_notional, 0), c.gross_notional),
    ('traded_notional', c.traded_notional - coalesce(w.open_notional, 0), c.traded_notional),
    ('open_orders', c.open_orders, c.open_orders),
    ('open_positions', coalesce(f.open_positions, 0), c.open_positions)
) as m (limit_type, used, worst_case);
comment on view risk_private.used_by_sums is
  'Use of limits on sums: worst_case is the counter that decisions go by, used the part of it '
  'that is filled.';

create view risk.limits as
select
  l.scope, l.limit_type, case when l.dimension = 3 then k.symbol end as symbol,
  case when l.dimension = 2 then k.symbol end as underlying, e.name as sector,
  l.amount as limit_value, l.warn_pct, l.version, v.valid_from,
  nullif(v.valid_until, 'infinity') as valid_until, v.reason, v.set_by, v.set_at
from risk_private.limits_in_force as l
join risk_private.limits as v on v.limit_id = l.limit_id
left join risk_private.instruments as k on l.dimension in (2, 3) and k.instrument_id = l.key_id
left join risk_private.sectors as e on l.dimension = 1 and e.sector_id = l.key_id;
comment on view risk.limits is
  'The limits in force now. Every one on the chain of an account holds; within one scope the most '
  'specific holds for limits per order and per instrument, and each for its own sum otherwise.';
comment on column risk.limits.scope is 'The scope that is limited, with everything below it.';
comment on column risk.limits.limit_type is 'What is limited, such as net_position.';
comment on column risk.limits.symbol is
  'The one instrument it is for. Without symbol, underlying and sector it is for all.';
comment on column risk.limits.underlying is 'The one underlying it is for.';
comment on column risk.limits.sector is 'The one sector it is for.';
comment on column risk.limits.limit_value is 'The limit; a use equal to it passes.';
comment on column risk.limits.warn_pct is
  'From this percentage of the limit on, decisions carry a warning.';
comment on column risk.limits.version is 'Version of the limit, counted from 1.';
comment on column risk.limits.valid_from is 'From when on this version holds.';
comment on column risk.limits.valid_until is
  'Until when; the version before it returns then. NULL: for good.';
comment on column risk.limits.reason is 'Why it was set.';
comment on column risk.limits.set_by is 'The login that set it.';
comment on column risk.limits.set_at is 'When it was set.';

create view risk.limit_history as
select
  s.code as scope, l.limit_type, case when l.dimension = 3 then k.symbol end as symbol,
  case when l.dimension = 2 then k.symbol end as underlying, e.name as sector, l.version,
  l.amount as limit_value, l.warn_pct, l.valid_from,
  nullif(l.valid_until, 'infinity') as valid_until, l.reason, l.set_by, l.set_at,
  l.limit_id as request_id
from risk_private.limits as l
join risk_private.scopes as s on s.scope_id = l.scope_id
left join risk_private.instruments as k on l.dimension in (2, 3) and k.instrument_id = l.key_id
left join risk_private.sectors as e on l.dimension = 1 and e.sector_id = l.key_id;
comment on view risk.limit_history is
  'Every version of every limit, as it was set. In force at a moment is the highest version whose '
  'time holds that moment.';
comment on column risk.limit_history.scope is 'The scope that is limited.';
comment on column risk.limit_history.limit_type is 'What is limited.';
comment on column risk.limit_history.symbol is 'The one instrument it is for.';
comment on column risk.limit_history.underlying is 'The one underlying it is for.';
comment on column risk.limit_history.sector is 'The one sector it is for.';
comment on column risk.limit_history.version is 'Version of the limit, counted from 1.';
comment on column risk.limit_history.limit_value is 'The limit; NULL: this version removed it.';
comment on column risk.limit_history.warn_pct is
  'From this percentage of the limit on, decisions carry a warning.';
comment on column risk.limit_history.valid_from is 'From when on this version holds.';
comment on column risk.limit_history.valid_until is 'Until when; NULL: for good.';
comment on column risk.limit_history.reason is 'Why it was set.';
comment on column risk.limit_history.set_by is 'The login that set it.';
comment on column risk.limit_history.set_at is 'When it was set.';
comment on column risk.limit_history.request_id is 'What risk.set_limit returned.';

create view risk.limit_utilization as
select
  l.scope, l.limit_type, case when l.dimension = 3 then k.symbol end as symbol,
  case when l.dimension = 2 then k.symbol end as underlying, e.name as sector,
  l.amount as limit_value, m.used, m.worst_case, p.utilization_pct, p.status, l.version,
  l.at as as_of, i.symbol as instrument
from risk_private.limits_in_force as l
left join risk_private.instruments as k on l.dimension in (2, 3) and k.instrument_id = l.key_id
left join risk_private.sectors as e on l.dimension = 1 and e.sector_id = l.key_id
left join risk_private.used_by_instruments as u on u.limit_id = l.limit_id
left join risk_private.instruments as i on i.instrument_id = u.instrument_id
left join risk_private.used_by_sums as t
  on t.scope_id = l.scope_id and t.dimension = l.dimension and t.key_id = l.key_id
    and t.limit_type = l.limit_type
cross join lateral (
  select case when l.judged = 'window' then risk_private.accepted_since(
    risk_private.counter_id(l.scope_id, l.dimension, l.key_id),
    l.at - case l.limit_type when 'order_rate' then interval '1 second'
                             else interval '60 seconds' end)
  end as accepted
) as w
cross join lateral (
  select
    case when l.judged in ('instrument', 'sum', 'window')
         then coalesce(u.used, t.used, w.accepted, 0) end as used,
    case when l.judged in ('instrument', 'sum', 'window')
         then coalesce(u.worst_case, t.worst_case, w.accepted, 0) end as worst_case
) as m
cross join lateral (
  select
    case when m.worst_case = 0 then 0
         else pg_catalog.round(m.worst_case * 100 / nullif(l.amount, 0), 2) end as utilization_pct,
    case when m.worst_case > l.amount then 'BREACH'
         when l.warns and m.worst_case > 0 and m.worst_case * 100 >= l.warn_pct * l.amount
         then 'WARN'
         else 'OK' end as status
) as p
where (select risk_private.is_settled())
order by
  pg_catalog.array_position(array['BREACH', 'WARN', 'OK'], p.status),
  case when p.status = 'BREACH' then coalesce(p.utilization_pct, 'Infinity')
       else coalesce(p.utilization_pct, -1) end desc,
  l.scope, l.limit_type, l.dimension, e.name, k.symbol;
comment on view risk.limit_utilization is
  'What is used of every limit in force, worst first. Limits per order, duplicate_window and '
  'self_cross have nothing that is used up: their use is NULL.';
comment on column risk.limit_utilization.scope is 'The scope that is limited.';
comment on column risk.limit_utilization.limit_type is 'What is limited.';
comment on column risk.limit_utilization.symbol is
  'The one instrument it is for. Without symbol, underlying and sector: all.';
comment on column risk.limit_utilization.underlying is 'The one underlying it is for.';
comment on column risk.limit_utilization.sector is 'The one sector it is for.';
comment on column risk.limit_utilization.limit_value is 'The limit.';
comment on column risk.limit_utilization.used is
  'What is filled or done: positions, notional traded, orders open, orders accepted in the window '
  'that ends now.';
comment on column risk.limit_utilization.worst_case is
  'The same if every open order were filled on its worse side: what decisions compare with the '
  'limit.';
comment on column risk.limit_utilization.utilization_pct is
  'worst_case in percent of the limit; NULL where a limit of 0 is exceeded, or nothing is used up.';
comment on column risk.limit_utilization.status is
  'BREACH: worst_case is above the limit (it was lowered, marks moved, or a fill came that no '
  'order explains); WARN: at or above its warn_pct; OK.';
comment on column risk.limit_utilization.version is 'Version of the limit.';
comment on column risk.limit_utilization.as_of is 'The moment of reading.';
comment on column risk.limit_utilization.instrument is
  'For limits per instrument: the instrument that is measured, for a default the one with the '
  'worst use.';

create view risk.exposure as
select
  s.code as scope, case when c.dimension = 3 then k.symbol end as symbol,
  case when c.dimension = 2 then k.symbol end as underlying, e.name as sector,
  case when c.dimension = 3 then c.quantity end as quantity,
  case when c.dimension = 3 then c.open_buy end as open_buy,
  case when c.dimension = 3 then c.open_sell end as open_sell,
  c.gross_position, c.gross_notional, c.traded_notional, c.open_orders, c.open_positions,
  (
    select min(m.as_of)
    from risk_private.scopes as a
    join risk_private.positions as p on p.account_id = a.scope_id
    join risk_private.instruments as i on i.instrument_id = p.instrument_id
    join risk_private.marks as m on m.instrument_id = p.instrument_id
    where a.chain @> array[c.scope_id] and (p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0)
      and c.key_id = case c.dimension when 0 then 0 when 1 then i.sector_id
                       when 2 then i.underlying_id else i.instrument_id end
  ) as as_of
from risk_private.counters as c
join risk_private.scopes as s on s.scope_id = c.scope_id
left join risk_private.instruments as k on c.dimension in (2, 3) and k.instrument_id = c.key_id
left join risk_private.sectors as e on c.dimension = 1 and e.sector_id = c.key_id
where (select risk_private.is_settled());
comment on view risk.exposure is
  'What decisions go by: one row per scope, and one per scope and sector, underlying or '
  'instrument where a limit needs it. Positions net within an instrument and nowhere else; open '
  'orders never net. Money is in the base currency.';
comment on column risk.exposure.scope is 'The scope, with all accounts below it.';
comment on column risk.exposure.symbol is
  'The instrument. Without symbol, underlying and sector: everything.';
comment on column risk.exposure.underlying is 'The underlying.';
comment on column risk.exposure.sector is 'The sector.';
comment on column risk.exposure.quantity is
  'Net position over the accounts; of an instrument only, like the next two.';
comment on column risk.exposure.open_buy is 'Unfilled quantity of open buys.';
comment on column risk.exposure.open_sell is 'Unfilled quantity of open sells.';
comment on column risk.exposure.gross_position is
  'Sum of worst-case quantities per account and instrument.';
comment on column risk.exposure.gross_notional is
  'Sum of worst-case quantities x |mark| x multiplier x rate.';
comment on column risk.exposure.traded_notional is
  'Notional filled since the day opened, and what open orders reserve.';
comment on column risk.exposure.open_orders is
  'Live orders: a combo is one, a pending replace is one.';
comment on column risk.exposure.open_positions is
  'Pairs of account and instrument held or in open orders.';
comment on column risk.exposure.as_of is
  'Data time of the oldest mark in it; NULL where nothing is held.';

-- 73_health_views.sql
-- Views for operators: queues, and what would make decisions fail.

create view risk.queue_status as
select
  q.queue, q.length, q.visible, q.oldest_at, q.most_reads,
  pg_catalog.date_part('epoch', n.at - q.oldest_at) as oldest_age, n.at as as_of
from (select risk_private.clock() as at) as n
cross join lateral (
  select 'risk_events' as queue, count(*) as length,
    count(*) filter (where m.vt <= n.at) as visible,
    min(m.enqueued_at) as oldest_at, max(m.read_ct) as most_reads
  from pgmq.q_risk_events as m
  union all
  select 'risk_alerts', count(*), count(*) filter (where m.vt <= n.at), min(m.enqueued_at),
    max(m.read_ct)
  from pgmq.q_risk_alerts as m
  union all
  select 'risk_dead', count(*), count(*) filter (where m.vt <= n.at), min(m.enqueued_at),
    max(m.read_ct)
  from pgmq.q_risk_dead as m
) as q;
comment on view risk.queue_status is 'The queues and what waits in them.';
comment on column risk.queue_status.queue is
  'risk_events: for the worker; risk_alerts: for the orchestrator and the dashboard; risk_dead: '
  'messages nobody could handle.';
comment on column risk.queue_status.length is 'Messages in the queue.';
comment on column risk.queue_status.visible is 'Those of them that no consumer holds.';
comment on column risk.queue_status.oldest_at is
  'When the oldest was sent; NULL where there is none.';
comment on column risk.queue_status.most_reads is 'How often the most often read message was read.';
comment on column risk.queue_status.oldest_age is 'Age of the oldest, in seconds.';
comment on column risk.queue_status.as_of is 'The moment of reading.';

create view risk.health as
with ages as (
  select n.at, min(nullif(s.max_mark_age, 0)) as max_mark_age,
    min(nullif(s.max_heartbeat_age, 0)) as max_heartbeat_age
  from (select risk_private.clock() as at) as n
  left join risk_private.scopes as s on s.is_leaf
  group by n.at
), held as (
  select distinct i.underlying_id, i.instrument_id
  from risk_private.positions as p
  join risk_private.instruments as i on i.instrument_id = p.instrument_id
  where p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0
), marked as (
  select min(m.as_of) as oldest, count(*) filter (where m.instrument_id is null) as missing
  from (select h.instrument_id from held as h union select h.underlying_id from held as h) as i
  left join risk_private.marks as m on m.instrument_id = i.instrument_id
), live as (
  select count(*) as open, count(*) filter (where o.state = 'ACCEPTED') as unsent,
    count(*) filter (where o.cancel_requested_at is not null) as cancelling
  from risk_private.orders as o
  where o.closed_at is null
)
select
  m.measure, m.value, m.unit, m.limit_value,
  case when m.limit_value is null then null
       when m.is_required and m.value is null then 'FAIL'
       when m.value > m.limit_value then m.severity
       else 'OK' end as status,
  m.description, a.at as as_of
from ages as a
cross join marked as k
cross join live as l
cross join risk_private.heartbeat as h
cross join lateral (
  values
    (1, 'heartbeat_age', pg_catalog.date_part('epoch', a.at - h.beat_at), 'seconds',
     a.max_heartbeat_age, 'FAIL', true, 'Since the circuit breakers were last evaluated.'),
    (2, 'heartbeat_inputs_age', pg_catalog.date_part('epoch', a.at - h.inputs_as_of), 'seconds',
     a.max_heartbeat_age, 'FAIL', true, 'Of the oldest input they saw then.'),
    (3, 'oldest_mark_age', pg_catalog.date_part('epoch', a.at - k.oldest), 'seconds',
     a.max_mark_age, 'FAIL', false,
     'Of the oldest mark of what is held or in open orders, and of its underlyings.'),
    (4, 'missing_marks', k.missing, 'instruments',
     0, 'FAIL', false, 'Held or in open orders, or an underlying of those, without any mark.'),
    (5, 'halted_scopes',
     (select count(*) from risk_private.trading_states as t where t.state = 'HALTED'), 'states',
     0, 'WARN', false, 'Trading states HALTED.'),
    (6, 'dead_messages', (select count(*) from pgmq.q_risk_dead), 'messages',
     0, 'WARN', false, 'Messages that nobody could handle.'),
    (7, 'open_orders', l.open, 'orders', null, null, false, 'Live orders.'),
    (8, 'unsent_orders', l.unsent, 'orders',
     null, null, false, 'Accepted and neither dispatched nor acknowledged.'),
    (9, 'cancel_requests', l.cancelling, 'orders',
     null, null, false, 'Live orders whose cancel was requested.'),
    (10, 'queued_events', (select count(*) from pgmq.q_risk_events), 'messages',
     null, null, false, 'Messages waiting for the worker.'),
    (11, 'queued_alerts', (select count(*) from pgmq.q_risk_alerts), 'messages',
     null, null, false, 'Messages waiting for the orchestrator.')
) as m (position, measure, value, unit, limit_value, severity, is_required, description)
where (select risk_private.is_settled())
order by m.position;
comment on view risk.health is
  'Whether decisions have what they need, and what waits. FAIL: orders that do not reduce are '
  'being refused somewhere.';
comment on column risk.health.measure is 'What is measured.';
comment on column risk.health.value is 'Its value; NULL where there is nothing to measure.';
comment on column risk.health.unit is 'Unit of the value.';
comment on column risk.health.limit_value is
  'From above this value on it is not healthy: the strictest age on any account, or 0. NULL: for '
  'information, or switched off.';
comment on column risk.health.status is 'OK, WARN or FAIL; NULL where limit_value is.';
comment on column risk.health.description is 'What the value means.';
comment on column risk.health.as_of is 'The moment of reading.';

-- 80_verify.sql
-- Proof: counters and positions recomputed from what they summarise, orders and fills.

create function risk_private.recount_positions(scope_id integer default null)
returns table (account_id integer, instrument_id integer, quantity numeric, open_buy numeric,
               open_sell numeric, traded_notional numeric)
language sql stable
begin atomic
  with accounts as not materialized (
    select s.scope_id as account_id, s.trading_day
    from risk_private.scopes as s
    where s.is_leaf
      and (recount_positions.scope_id is null or s.chain @> array[recount_positions.scope_id])
  )
  select u.account_id, u.instrument_id, sum(u.quantity), sum(u.open_buy), sum(u.open_sell),
    sum(u.traded_notional)
  from (
    select a.account_id, w.instrument_id, 0::numeric as quantity,
      case when w.ratio > 0 then w.open_quantity else 0 end as open_buy,
      case when w.ratio < 0 then w.open_quantity else 0 end as open_sell,
      w.open_notional as traded_notional
    from accounts as a
    join risk_private.working_legs as w on w.account_id = a.account_id
    union all
    select a.account_id, f.instrument_id, f.signed_quantity, 0, 0,
      case when f.trading_day is not distinct from a.trading_day
           then abs(f.signed_quantity) * f.unit_price else 0 end
    from accounts as a
    join risk_private.fills as f on f.account_id = a.account_id
  ) as u
  group by u.account_id, u.instrument_id;
end;
comment on function risk_private.recount_positions(integer) is
  'Positions as orders and fills say: of the accounts of one scope, or of all.';

create function risk_private.recount(scope_id integer default null)
returns setof risk_private.counters
language sql stable
begin atomic
  with kept as (
    select a.scope_id as account_id, s.scope_id, d.dimension
    from risk_private.scopes as a
    cross join unnest(a.chain) as c (scope_id)
    join risk_private.scopes as s on s.scope_id = c.scope_id
    cross join lateral (
      values (0, true), (1, s.tracks_sector), (2, s.tracks_underlying), (3, s.tracks_instrument)
    ) as d (dimension, is_tracked)
    where a.is_leaf
      and case when recount.scope_id is null then d.is_tracked
               else s.scope_id = recount.scope_id end
  ), held as (
    select r.*, i.sector_id, i.underlying_id, p.unit_notional,
      risk_private.worst_case(r.quantity, r.open_buy, r.open_sell) as worst_case,
      (r.quantity <> 0 or r.open_buy <> 0 or r.open_sell <> 0)::integer as is_open
    from risk_private.recount_positions(recount.scope_id) as r
    join risk_private.instruments as i on i.instrument_id = r.instrument_id
    left join risk_private.positions as p
      on p.account_id = r.account_id and p.instrument_id = r.instrument_id
  ), working as (
    select w.account_id, w.client_order_id, w.instrument_id, w.legs, i.sector_id, i.underlying_id
    from risk_private.scopes as a
    join risk_private.working_legs as w on w.account_id = a.scope_id
    join risk_private.instruments as i on i.instrument_id = w.instrument_id
    where recount.scope_id is null or a.chain @> array[recount.scope_id]
  ), combos as (
    select distinct w.account_id, w.client_order_id, d.dimension, d.key_id
    from working as w
    cross join lateral (
      values (0, 0), (1, w.sector_id), (2, w.underlying_id), (3, w.instrument_id)
    ) as d (dimension, key_id)
    where w.legs > 1
  )
  select
    risk_private.counter_id(m.scope_id, m.dimension, m.key_id), m.scope_id, m.dimension::smallint,
    m.key_id, sum(m.quantity), sum(m.open_buy), sum(m.open_sell), sum(m.gross_position),
    sum(m.gross_notional), sum(m.traded_notional), sum(m.open_orders)::integer,
    sum(m.open_positions)::integer, 0::bigint
  from (
    select k.scope_id, k.dimension, h.quantity, h.open_buy, h.open_sell,
      case k.dimension when 0 then 0 when 1 then h.sector_id when 2 then h.underlying_id
        else h.instrument_id end as key_id,
      h.worst_case as gross_position, h.worst_case * h.unit_notional as gross_notional,
      h.traded_notional, 0 as open_orders, h.is_open as open_positions
    from kept as k
    join held as h on h.account_id = k.account_id
    union all
    select k.scope_id, k.dimension, 0, 0, 0,
      case k.dimension when 0 then 0 when 1 then w.sector_id when 2 then w.underlying_id
        else w.instrument_id end,
      0, 0, 0, 1, 0
    from kept as k
    join working as w on w.account_id = k.account_id and w.legs = 1
    union all
    select k.scope_id, k.dimension, 0, 0, 0, c.key_id, 0, 0, 0, 1, 0
    from kept as k
    join combos as c on c.account_id = k.account_id and c.dimension = k.dimension
  ) as m
  where m.key_id is not null
  group by m.scope_id, m.dimension, m.key_id;
end;
comment on function risk_private.recount(integer) is
  'Counters as orders, fills and carried values say: of one scope in every dimension, or of all '
  'in those they track.';

create function risk_private.dimension_name(dimension integer, key_id integer) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return case dimension
    when 0 then 'all'
    when 1 then 'sector:' || (
      select s.name from risk_private.sectors as s where s.sector_id = key_id)
    when 2 then 'underlying:' || (
      select i.symbol from risk_private.instruments as i where i.instrument_id = key_id)
    when 3 then 'instrument:' || (
      select i.symbol from risk_private.instruments as i where i.instrument_id = key_id)
  end;
end
$$;
comment on function risk_private.dimension_name(integer, integer) is
  'How a dimension is written: all, sector:Energy, underlying:AAPL, instrument:AAPL.';

create function risk.verify_counters()
returns table (scope text, dimension text, measure text, stored numeric, expected numeric)
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select s.code, 'position:' || i.symbol, m.measure, m.stored, m.expected
  from risk_private.positions as p
  full join risk_private.recount_positions() as r
    on r.account_id = p.account_id and r.instrument_id = p.instrument_id
  join risk_private.scopes as s on s.scope_id = coalesce(p.account_id, r.account_id)
  join risk_private.instruments as i on i.instrument_id = coalesce(p.instrument_id, r.instrument_id)
  cross join lateral (
    values ('quantity', p.quantity, r.quantity), ('open_buy', p.open_buy, r.open_buy),
      ('open_sell', p.open_sell, r.open_sell)
  ) as m (measure, stored, expected)
  where coalesce(m.stored, 0) <> coalesce(m.expected, 0)
  union all
  select s.code,
    risk_private.dimension_name(coalesce(c.dimension, r.dimension), coalesce(c.key_id, r.key_id)),
    m.measure,
    m.stored, m.expected
  from risk_private.counters as c
  full join risk_private.recount() as r on r.counter_id = c.counter_id
  join risk_private.scopes as s on s.scope_id = coalesce(c.scope_id, r.scope_id)
  cross join lateral (
    values
      ('quantity', c.quantity, r.quantity, 3), ('open_buy', c.open_buy, r.open_buy, 3),
      ('open_sell', c.open_sell, r.open_sell, 3),
      ('gross_position', c.gross_position, r.gross_position, 0),
      ('gross_notional', c.gross_notional, r.gross_notional, 0),
      ('traded_notional', c.traded_notional, r.traded_notional, 0),
      ('open_orders', c.open_orders, r.open_orders, 0),
      ('open_positions', c.open_positions, r.open_positions, 0)
  ) as m (measure, stored, expected, least_dimension)
  where coalesce(c.dimension, r.dimension) >= m.least_dimension
    and coalesce(m.stored, 0) <> coalesce(m.expected, 0);
end;
comment on function risk.verify_counters() is
  'Recomputes every position and counter from orders, fills and carried values: one row per '
  'difference, none when sound.';

-- 90_grants.sql
-- Who may do what: the only grants there are. Nobody but the owner reaches a table. What a
-- procedure calls in risk_private is granted to whoever may call the procedure, because only a
-- procedure that runs as its caller can commit; those functions check their caller and tell nothing
-- that is not committed.

revoke all on all tables in schema risk, risk_private from public;
revoke all on all sequences in schema risk, risk_private from public;
revoke all on all routines in schema risk, risk_private from public;

grant usage on schema risk, risk_private
to risk_trader, risk_execution, risk_feed, risk_admin, risk_worker, risk_analyst, risk_auditor;

-- Deciding
grant execute on procedure risk.check_order, risk.check_combo, risk.check_orders, risk.replace_order
to risk_trader;
grant execute on function
  risk_private.accept_order, risk_private.accepted, risk_private.answer,
  risk_private.decide_order, risk_private.batch_items,
  risk_private.accept_batch, risk_private.accepted_batch, risk_private.decide_batch,
  risk_private.answers,
  risk_private.decide_replace, risk_private.answer_replace
to risk_trader;

grant execute on function
  risk.preview_order, risk.preview_combo, risk_private.preview, risk_private.combo_legs,
  risk_private.fail
to risk_trader, risk_admin, risk_analyst;

-- What happened to orders
grant execute on procedure
  risk.record_fill, risk.record_trade, risk.ack_order, risk.release_order, risk.dispatch_order,
  risk.confirm_replace, risk.reject_replace
to risk_execution;
grant execute on function
  risk_private.record_fill, risk_private.record_trade, risk_private.fill_detail,
  risk_private.ack_order, risk_private.release_order, risk_private.dispatch_order,
  risk_private.dispatch_answer, risk_private.end_replace
to risk_execution;

-- Market data
grant execute on procedure risk.set_marks to risk_feed;
grant execute on function
  risk_private.set_marks, risk_private.accounts_to_revalue, risk_private.revalue
to risk_feed;

-- Stopping
grant execute on procedure risk.cancel_orders, risk_private.cancel_orders
to risk_trader, risk_admin;
grant execute on function risk_private.accounts_to_cancel, risk_private.request_cancels
to risk_trader, risk_admin;
grant execute on function risk_private.flush to risk_trader, risk_execution, risk_admin;

-- Administration
grant execute on procedure
  risk.create_scope, risk.upsert_instruments, risk.grant_trading, risk.revoke_trading,
  risk.set_limit, risk.set_limits, risk.remove_limit, risk.set_setting, risk.set_trading_state,
  risk.set_instrument_status, risk.open_day
to risk_admin;
grant execute on function
  risk_private.create_scope, risk_private.upsert_instruments, risk_private.grant_trading,
  risk_private.revoke_trading, risk_private.set_limit, risk_private.set_limits,
  risk_private.remove_limit, risk_private.set_setting, risk_private.set_trading_state,
  risk_private.set_instrument_status, risk_private.set_trading_date, risk_private.roll_account
to risk_admin;
grant execute on function risk.verify_counters
to risk_admin, risk_worker, risk_analyst, risk_auditor;

-- Reading. The functions are those that views call: they run as the reader.
grant select on
  risk.orders, risk.open_orders, risk.decisions, risk.violations, risk.fills, risk.positions
to risk_trader, risk_execution, risk_admin, risk_worker, risk_analyst, risk_auditor;
grant select on risk.instruments, risk.marks
to risk_trader, risk_execution, risk_feed, risk_admin, risk_worker, risk_analyst, risk_auditor;
grant select on risk.scopes, risk.trading_states, risk.queue_status, risk.health
to risk_execution, risk_admin, risk_worker, risk_analyst, risk_auditor;
grant select on
  risk.settings, risk.trading_grants, risk.limits, risk.limit_history, risk.limit_utilization,
  risk.exposure
to risk_admin, risk_worker, risk_analyst, risk_auditor;
grant execute on function
  risk_private.order_id, risk_private.visible_accounts, risk_private.is_settled,
  risk_private.present_trading_date
to risk_trader, risk_execution, risk_admin, risk_worker, risk_analyst, risk_auditor;
grant execute on function risk_private.clock
to risk_execution, risk_admin, risk_worker, risk_analyst, risk_auditor;
grant execute on function
  risk_private.counter_id, risk_private.worst_case, risk_private.accepted_since
to risk_admin, risk_worker, risk_analyst, risk_auditor;

reset role;

-- Queues are read with pgmq's own functions: alerts by the gateway, which cancels, all of them by
-- the worker.
grant usage on schema pgmq to risk_execution, risk_worker;
grant select, update, delete on pgmq.q_risk_alerts to risk_execution;
grant select, insert on pgmq.a_risk_alerts to risk_execution;
grant select, insert, update, delete on pgmq.q_risk_events, pgmq.q_risk_alerts, pgmq.q_risk_dead
to risk_worker;
grant select, insert on pgmq.a_risk_events, pgmq.a_risk_alerts, pgmq.a_risk_dead to risk_worker;
