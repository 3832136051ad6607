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
return coalesce(
  pg_catalog.length(value) between 1 and 64 and value !~ '[[:cntrl:]]|^\s|\s$', false);
comment on function risk_private.is_code(text) is
  'True for 1 to 64 printable characters without surrounding blanks: what codes, symbols and order '
  'ids must be.';

create function risk_private.is_amount(value numeric) returns boolean
language sql immutable
return coalesce(value >= 0 and value <= 1e15 and pg_catalog.min_scale(value) <= 12, false);
comment on function risk_private.is_amount(numeric) is
  'True for a finite amount of 0 to 1e15 with at most 12 decimals: what limits, multipliers and '
  'rates must be.';

create function risk_private.base_currency() returns text
language sql immutable
return 'USD';
comment on function risk_private.base_currency() is
  'The currency of every sum over instruments; its rate is 1.';

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
  counter_id bigint not null generated always as (risk_private.counter_id(scope_id)) stored,
  code text not null unique check (risk_private.is_code(code)),
  kind text not null check (kind in ('firm', 'desk', 'account', 'strategy')),
  parent_id integer references risk_private.scopes,
  chain integer[] not null,
  is_leaf boolean not null default true,
  tracks_sector boolean not null default false,
  tracks_underlying boolean not null default false,
  tracks_instrument boolean not null default false,
  obligation_dimensions integer[] not null default '{}',
  exposure_dimensions integer[] not null default '{}',
  max_mark_age double precision not null default 60,
  max_heartbeat_age double precision not null default 3,
  collar_floor numeric not null default 0.10,
  required_types bit(32) not null default b'0'::bit(32),
  trading_day date,
  day_began_at timestamptz,
  created_at timestamptz not null default pg_catalog.clock_timestamp(),
  constraint scopes_parent_after_child check (parent_id > scope_id)
);
create index scopes_parent_idx on risk_private.scopes (parent_id);
create index scopes_chain_idx on risk_private.scopes using gin (chain);
comment on table risk_private.scopes is
  'The hierarchy firm > desk > account > strategy, any depth. A leaf (no scopes below) holds '
  'positions and orders.';
comment on column risk_private.scopes.counter_id is
  'The counter of the whole scope: a leaf''s is the account''s lock.';
comment on column risk_private.scopes.chain is
  'The scope itself and all its ancestors, ascending: itself first, the firm last.';
comment on column risk_private.scopes.tracks_sector is
  'Whether counters exist per sector at this scope; likewise the next two.';
comment on column risk_private.scopes.exposure_dimensions is
  'In which dimensions exposures are kept at this scope, 3 being instruments.';
comment on column risk_private.scopes.obligation_dimensions is
  'In which dimensions obligations are kept at this scope: 0 all, 1 sector, 2 underlying.';
comment on column risk_private.scopes.max_mark_age is
  'Seconds, resolved along the chain: the strictest non-zero setting; 0 = off.';
comment on column risk_private.scopes.required_types is
  'Limit types that must be found on the chain, by limit_types.bit.';
comment on column risk_private.scopes.trading_day is
  'Leaf: the trading day that its traded notional counts.';
comment on column risk_private.scopes.day_began_at is
  'Leaf: when it was taken into that day; NULL: it was made in it.';

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
  dividend_yield double precision check (dividend_yield between -10 and 10),
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
comment on column risk_private.instruments.dividend_yield is
  'Of an underlying, continuously compounded; NULL: the setting of that name.';
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
  volatility_as_of timestamptz,
  as_of timestamptz not null,
  -- NaN is above every number; what is NULL is passed over.
  constraint marks_are_numbers check (
    implied_volatility >= 0
    and greatest(abs(delta), abs(gamma), abs(vega), abs(theta), abs(rho), implied_volatility)
      < 'Infinity')
) with (fillfactor = 50);
comment on table risk_private.marks is 'The latest mark and quote of each instrument.';
comment on column risk_private.marks.volatility_as_of is
  'Data time of the implied volatility: re-marking from a tick of the underlying keeps it.';

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
  breaker_id integer not null default 0,
  state text not null check (state in ('ACTIVE', 'REDUCE_ONLY', 'HALTED')),
  cancels boolean not null default false,
  reason text not null,
  changed_by name not null default session_user,
  since timestamptz not null,
  primary key (scope_id, underlying_id, breaker_id)
);
comment on table risk_private.trading_states is
  'What holds a scope, for one underlying or (0) for all: the state that a person set (breaker 0; '
  'no row means ACTIVE), and one row per circuit breaker while its action holds. Decisions look '
  'only here.';
comment on column risk_private.trading_states.cancels is
  'HALTED: whether open orders are to be cancelled, also those that turn up later.';

-- 21_limit_tables.sql
-- Limits: every version ever set, and the compiled levels that the accepting path compares with.

create table risk_private.limit_types (
  limit_type text primary key,
  bit smallint not null unique check (bit between 0 and 31),
  judged text not null check (judged in ('order', 'instrument', 'underlying', 'sum', 'exposure',
    'obligation', 'window', 'switch', 'loss', 'concentration')),
  reason text not null,
  warns boolean not null,
  description text not null
);
comment on table risk_private.limit_types is
  'The kinds of limit. sql/README.md tells what else a new kind needs.';
comment on column risk_private.limit_types.judged is
  'order, instrument and underlying: a wider limit is the default for each instrument or '
  'underlying, and within a scope the most specific one wins; concentration likewise, but for '
  'sectors; else every matching limit applies to its own dimension.';
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
  '1: an order may not trade against another agent below the scope.'),
('delta', 15, 'underlying', 'RISK_LIMIT_EXCEEDED', true,
  'Delta of an underlying, up or down, in share equivalents.'),
('gamma', 16, 'underlying', 'RISK_LIMIT_EXCEEDED', true,
  'Gamma of an underlying, up or down, in share equivalents per 1.00 of it.'),
('dollar_gamma', 17, 'exposure', 'RISK_LIMIT_EXCEEDED', true,
  'Change of net exposure per 1 % of the underlyings, up or down, in base currency.'),
('vega', 18, 'exposure', 'RISK_LIMIT_EXCEEDED', true,
  'Vega, up or down, in base currency per volatility point.'),
('theta', 19, 'exposure', 'RISK_LIMIT_EXCEEDED', true,
  'Theta, up or down, in base currency per day.'),
('gross_exposure', 20, 'exposure', 'RISK_LIMIT_EXCEEDED', true,
  'Sum of worst-case quantities at their absolute dollar delta, in base currency.'),
('net_exposure', 21, 'exposure', 'RISK_LIMIT_EXCEEDED', true,
  'Net dollar delta, up or down, in base currency.'),
('daily_loss', 22, 'loss', 'RISK_LIMIT_EXCEEDED', true,
  'Start equity and flows since less equity: beyond it only reducing orders pass.'),
('drawdown_pct', 23, 'loss', 'RISK_LIMIT_EXCEEDED', true,
  'Equity below its peak, %: beyond it only reducing orders pass.'),
('concentration_pct', 24, 'concentration', 'RISK_LIMIT_EXCEEDED', true,
  'Dollar delta of an underlying, or sector, up or down, in % of the equity.'),
('same_side', 25, 'underlying', 'RISK_LIMIT_EXCEEDED', true,
  'Options on one side of the market, bullish or bearish, in units of 100 shares.'),
('max_loss', 26, 'obligation', 'RISK_LIMIT_EXCEEDED', true,
  'Sum of the worst losses at expiry of each account and underlying, in base currency.'),
('buying_power', 27, 'obligation', 'RISK_LIMIT_EXCEEDED', true,
  'How far open buys and short puts may take cash below zero, in base currency.');

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

create function risk_private.is_exposure_type(limit_type text) returns boolean
language sql immutable
return limit_type in (
  'delta', 'gamma', 'dollar_gamma', 'vega', 'theta', 'gross_exposure', 'net_exposure',
  'concentration_pct');
comment on function risk_private.is_exposure_type(text) is
  'Whether limits of this type are judged by exposures.';

create function risk_private.exposure_dimension(judged text, dimension integer) returns integer
language sql immutable
return case
  when judged = 'underlying' or judged = 'concentration' and dimension = 0 then 2
  else dimension
end;
comment on function risk_private.exposure_dimension(text, integer) is
  'The dimension of the exposures by which a limit set in that dimension is judged.';

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
  delta numeric check (risk_private.is_level(delta)),
  gamma numeric check (risk_private.is_level(gamma)),
  dollar_gamma numeric check (risk_private.is_level(dollar_gamma)),
  vega numeric check (risk_private.is_level(vega)),
  theta numeric check (risk_private.is_level(theta)),
  gross_exposure numeric check (risk_private.is_level(gross_exposure)),
  net_exposure numeric check (risk_private.is_level(net_exposure)),
  daily_loss numeric check (risk_private.is_level(daily_loss)),
  drawdown_pct numeric check (risk_private.is_level(drawdown_pct)),
  concentration_pct numeric check (risk_private.is_level(concentration_pct)),
  same_side numeric check (risk_private.is_level(same_side)),
  max_loss numeric check (risk_private.is_level(max_loss)),
  buying_power numeric check (risk_private.is_level(buying_power)),
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
  underlying_id integer not null,
  instrument_ids integer[] not null,
  ratios integer[] not null,
  quantity numeric not null,
  price numeric,
  is_combo boolean not null,
  time_in_force text not null,
  unit_prices numeric[] not null,
  costs numeric[],
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
create index orders_open_idx on risk_private.orders (account_id, underlying_id)
  where closed_at is null;
create index orders_decided_at_idx on risk_private.orders (decided_at);
comment on table risk_private.orders is 'Every decision, and the life of every accepted order.';
comment on column risk_private.orders.account_id is
  'The leaf scope. No foreign key: scopes are never removed, and every order would lock its row.';
comment on column risk_private.orders.underlying_id is
  'The underlying of every leg; 0 where they have several.';
comment on column risk_private.orders.ratios is
  'Signed quantity of each leg per unit of the order: + buys, - sells.';
comment on column risk_private.orders.unit_prices is
  'Per leg, the money one unit of quantity is reserved at in traded notional: |price| x multiplier '
  'x rate.';
comment on column risk_private.orders.costs is
  'Per leg, the price that counts as paid or received in what the order may lose; NULL: the '
  'order''s own.';
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
  booking bigint generated always as identity,
  booked_on text,
  status text not null default 'BOOKED' check (status in ('BOOKED', 'BUSTED', 'CORRECTED')),
  multiplier numeric not null default 1,
  unit_amount numeric generated always as (price * multiplier) stored,
  rate numeric not null default 0,
  realized numeric not null default 0,
  closed numeric not null default 0,
  adjustment_id bigint,
  primary key (account_id, exec_id)
);
create index fills_order_idx on risk_private.fills (account_id, client_order_id);
create index fills_instrument_idx on risk_private.fills (account_id, instrument_id, booking);
comment on table risk_private.fills is 'Executions, each once, as the broker reported them.';
comment on column risk_private.fills.unit_price is
  'Money per unit of quantity: |price| x multiplier x rate.';
comment on column risk_private.fills.flag is
  'over_fill, fill_on_closed_order, fill_on_rejected_order, unexplained_trade.';
comment on column risk_private.fills.signed_quantity is
  'As it stands: 0 once busted. What it was before stands in fill_corrections.';
comment on column risk_private.fills.booking is
  'The order in which executions were booked, by which average costs are reckoned.';
comment on column risk_private.fills.booked_on is
  'The order whose filled quantity it counts to: the one named, or what has replaced it.';
comment on column risk_private.fills.multiplier is
  'Multiplier of the instrument when it was booked. unit_amount: money per unit of quantity, in '
  'the currency of the instrument.';
comment on column risk_private.fills.rate is
  'Base currency per unit of that currency when it was booked; 0: unknown.';
comment on column risk_private.fills.closed is
  'How much of a position it closed when it was booked.';
comment on column risk_private.fills.realized is
  'Profit that it realized at average cost, before its fee, in the currency of the instrument.';
comment on column risk_private.fills.adjustment_id is
  'The split that changed the quantity; NULL for executions.';

create table risk_private.positions (
  account_id integer not null,
  instrument_id integer not null,
  underlying_id integer not null,
  quantity numeric not null default 0,
  open_buy numeric not null default 0,
  open_sell numeric not null default 0,
  unit_value numeric not null default 0,
  unit_notional numeric not null default 0,
  unit_delta numeric not null default 0,
  unit_gamma numeric not null default 0,
  unit_dollar_delta numeric not null default 0,
  unit_dollar_gamma numeric not null default 0,
  unit_vega numeric not null default 0,
  unit_theta numeric not null default 0,
  has_greeks boolean not null default false,
  cost numeric not null default 0,
  average_price numeric not null default 0,
  realized_pnl_today numeric not null default 0,
  fees_today numeric not null default 0
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);
create index positions_underlying_idx on risk_private.positions (account_id, underlying_id);
create index positions_instrument_idx on risk_private.positions (instrument_id);
-- Made last: of indexes that cost the same, as all do on an empty table, the youngest is taken.
alter table risk_private.positions add primary key (account_id, instrument_id);
comment on table risk_private.positions is
  'Per account and instrument: position, open orders, and the unit values carried.';
comment on column risk_private.positions.unit_value is
  'mark x multiplier x rate at which this position is carried, as risk_private.unit_values has '
  'it; likewise the next eight. Moved by revaluation; a flat position picks up the present values.';
comment on column risk_private.positions.cost is
  'What was paid for the position (below 0: received) at average cost, in the currency of the '
  'instrument; average_price is made of it.';
comment on column risk_private.positions.realized_pnl_today is
  'Realized since the trading day was opened, less fees_today, in base currency.';

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
  fingerprint bigint not null,
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

-- Other versions are looked for where a replace is pending, and for no other order: a join would go
-- through all orders once for each, wherever a plan outlives the empty table that it was made for.
create view risk_private.open_legs as
select
  o.*, l.leg, l.instrument_id, l.ratio, l.filled_quantity,
  greatest(0, r.old_open, r.new_open) as open_quantity,
  greatest(0, r.old_open * l.unit_price, r.new_open * l.new_unit_price) as open_notional,
  o.replace_pending and exists (
    select from risk_private.orders as old
    where old.account_id = o.account_id and old.client_order_id = o.replaces
      and old.closed_at is null) as is_replacement
from risk_private.orders as o
left join lateral (
  select p.quantity, p.unit_prices from risk_private.orders as p
  where o.replace_pending and p.account_id = o.account_id and p.client_order_id = o.replaced_by
  offset 0
) as n on true
cross join lateral unnest(o.instrument_ids, o.ratios, o.filled, o.unit_prices,
  n.unit_prices) with ordinality
  as l (instrument_id, ratio, filled_quantity, unit_price, new_unit_price, leg)
cross join lateral (
  select o.quantity * abs(l.ratio) - l.filled_quantity as old_open,
    n.quantity * abs(l.ratio) - l.filled_quantity as new_open
) as r
where o.closed_at is null;
comment on view risk_private.open_legs is
  'Legs of live orders, each with what its order and a pending replacement of it may still fill: '
  'the larger of the two. is_replacement: it is one itself, of an order that lives.';

create view risk_private.working_legs as
select
  o.account_id, o.client_order_id, o.leg, o.instrument_id, o.ratio, o.open_quantity,
  o.open_notional, pg_catalog.cardinality(o.instrument_ids) as legs
from risk_private.open_legs as o
where not o.is_replacement;
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

-- 25_breaker_tables.sql
-- Circuit breakers: what they watch, how they are defined, and what they did.

create table risk_private.indicators (
  indicator_id integer generated always as identity primary key,
  name text not null unique check (risk_private.is_code(name)),
  value numeric,
  as_of timestamptz,
  set_by name,
  received_at timestamptz
);
comment on table risk_private.indicators is
  'The latest value of each market indicator, by data time; NULL where only a breaker knows it.';

create table risk_private.indicator_ticks (
  indicator_id integer not null references risk_private.indicators,
  as_of timestamptz not null,
  value numeric not null,
  recorded_xid xid8 not null default pg_catalog.pg_current_xact_id()
);
create index indicator_ticks_as_of_idx
on risk_private.indicator_ticks (indicator_id, as_of) include (value);
create index indicator_ticks_xid_idx on risk_private.indicator_ticks (indicator_id, recorded_xid);
comment on table risk_private.indicator_ticks is
  'Every value of an indicator, for as long as a breaker looks back.';
comment on column risk_private.indicator_ticks.recorded_xid is
  'Who wrote it: what was not visible to the last evaluation is judged by the next, in whatever '
  'order transactions end and however late data come.';

create table risk_private.price_ticks (
  instrument_id integer not null references risk_private.instruments,
  as_of timestamptz not null,
  price numeric not null,
  recorded_xid xid8 not null default pg_catalog.pg_current_xact_id()
);
create index price_ticks_as_of_idx
on risk_private.price_ticks (instrument_id, as_of) include (price);
create index price_ticks_xid_idx on risk_private.price_ticks (instrument_id, recorded_xid);
comment on table risk_private.price_ticks is
  'Every mark of the instruments that a breaker watches, for as long as it looks back.';

create table risk_private.indicator_closes (
  indicator_id integer not null references risk_private.indicators,
  day date not null,
  close numeric not null,
  primary key (indicator_id, day)
);
comment on table risk_private.indicator_closes is
  'The value of each indicator when the next trading day was opened.';

create table risk_private.breaker_conditions (
  condition text primary key,
  position integer not null unique,
  function_name text not null,
  unit text not null,
  parameters jsonb not null,
  default_threshold numeric,
  reset_policies text[] not null default array['manual', 'timer', 'session'],
  may_be_empty boolean not null default false,
  description text not null,
  source text not null
);
comment on table risk_private.breaker_conditions is
  'What a circuit breaker may watch. The function takes watches and a moment, and returns '
  'observations: all breakers of a condition are measured by one call.';
comment on column risk_private.breaker_conditions.parameters is
  'Per parameter its type (indicator, symbol, seconds, days, choice, queue), default, and meaning.';
comment on column risk_private.breaker_conditions.may_be_empty is
  'Whether no value means that there is nothing to be measured, which is as good as a low value.';

create table risk_private.breakers (
  breaker_id integer generated always as identity primary key,
  name text not null unique check (risk_private.is_code(name)),
  scope_id integer not null references risk_private.scopes,
  underlying_id integer not null default 0,
  condition text not null references risk_private.breaker_conditions,
  parameters jsonb not null,
  indicator_id integer references risk_private.indicators,
  instrument_id integer references risk_private.instruments,
  look_back interval not null,
  threshold numeric not null check (threshold >= 0 and threshold < 'Infinity'),
  action text not null check (action in ('NOTIFY', 'REDUCE_ONLY', 'HALT', 'HALT_AND_CANCEL')),
  cooldown interval,
  reset_policy text not null check (reset_policy in ('manual', 'timer', 'session')),
  reason text,
  defined_by name not null default session_user,
  defined_at timestamptz not null,
  state text not null default 'ARMED' check (state in ('ARMED', 'TRIPPED', 'COOLDOWN')),
  armed_at timestamptz not null,
  tripped_at timestamptz,
  tripped_by name,
  is_manual boolean not null default false,
  tripped_value numeric,
  tripped_data_at timestamptz,
  tripped_day date,
  trip_reason text,
  cooling_since timestamptz
);
create index breakers_condition_idx on risk_private.breakers (condition);
create index breakers_instrument_idx on risk_private.breakers (instrument_id);
comment on table risk_private.breakers is
  'Circuit breakers: scope, condition, threshold, action, reset policy; and the state they are in.';
comment on column risk_private.breakers.indicator_id is
  'The indicator that the condition reads; instrument_id likewise.';
comment on column risk_private.breakers.look_back is
  'How much history of those the condition needs.';
comment on column risk_private.breakers.is_manual is
  'Tripped by a person: then only a person resets it.';
comment on column risk_private.breakers.tripped_day is
  'The last day that had been opened when it tripped.';

create index fills_recorded_at_idx on risk_private.fills using brin (recorded_at)
with (autosummarize);

create table risk_private.breaker_readings (
  breaker_id integer primary key references risk_private.breakers on delete cascade,
  value numeric
) with (fillfactor = 50);
comment on table risk_private.breaker_readings is 'What each breaker measured last.';

create table risk_private.breaker_sweeps (
  condition text primary key references risk_private.breaker_conditions,
  swept_at timestamptz not null,
  seen_xid xid8 not null
) with (fillfactor = 50);
comment on table risk_private.breaker_sweeps is
  'When the breakers of a condition were last evaluated.';
comment on column risk_private.breaker_sweeps.seen_xid is
  'Whatever transactions before this one wrote has been judged.';

create table risk_private.breaker_events (
  event_id bigint generated always as identity primary key,
  name text not null,
  scope_id integer not null,
  event text not null,
  state text,
  condition text not null,
  value numeric,
  threshold numeric not null,
  data_at timestamptz,
  action text not null,
  reason text,
  error text,
  made_by name not null default session_user,
  at timestamptz not null
);
create index breaker_events_name_idx on risk_private.breaker_events (name, event_id);
create index breaker_events_at_idx on risk_private.breaker_events (at);
comment on table risk_private.breaker_events is
  'What happened to circuit breakers: never updated, never deleted.';

create type risk_private.watch as (
  breaker_id integer,
  scope_id integer,
  underlying_id integer,
  threshold numeric,
  parameters jsonb,
  indicator_id integer,
  instrument_id integer,
  since timestamptz,
  tripped_at timestamptz,
  seen_xid xid8,
  seen_at timestamptz
);
comment on type risk_private.watch is
  'A breaker as its condition sees it. To be judged are values whose data time lies after since '
  'and that the last evaluation, at seen_at, could not see: of transactions from seen_xid on.';

create type risk_private.observation as (
  breaker_id integer,
  value numeric,
  as_of timestamptz,
  worst numeric,
  worst_at timestamptz,
  error text
);
comment on type risk_private.observation is
  'What a condition measured: the value that stands and its data time; the largest of the values '
  'to be judged, and its own (NULL: nothing new); the error where measuring failed.';

create table risk_private.correlation_readings (
  breaker_id integer primary key references risk_private.breakers on delete cascade,
  inputs uuid not null,
  value numeric
);
comment on table risk_private.correlation_readings is
  'The mean correlation of what a scope held, for as long as holdings and closes stay the same.';

-- 25_greek_tables.sql
-- What limits on Greeks are judged by.

create table risk_private.exposures (
  counter_id bigint primary key,
  scope_id integer not null,
  dimension smallint not null,
  key_id integer not null,
  delta numeric not null default 0,
  delta_up numeric not null default 0,
  delta_down numeric not null default 0,
  gamma numeric not null default 0,
  gamma_up numeric not null default 0,
  gamma_down numeric not null default 0,
  dollar_delta numeric not null default 0,
  dollar_delta_up numeric not null default 0,
  dollar_delta_down numeric not null default 0,
  dollar_gamma numeric not null default 0,
  dollar_gamma_up numeric not null default 0,
  dollar_gamma_down numeric not null default 0,
  vega numeric not null default 0,
  vega_up numeric not null default 0,
  vega_down numeric not null default 0,
  theta numeric not null default 0,
  theta_up numeric not null default 0,
  theta_down numeric not null default 0,
  gross_exposure numeric not null default 0,
  unknown integer not null default 0
) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
comment on table risk_private.exposures is
  'Greeks over the accounts below a scope, for all or for one sector, underlying or instrument, '
  'where a limit needs them; numbered as counters are, and touched only while the counters of the '
  'chain are locked. No row: nothing was ever traded there. Delta and gamma mean something per '
  'underlying only.';
comment on column risk_private.exposures.delta is 'Of what is filled. Likewise the other Greeks.';
comment on column risk_private.exposures.delta_up is
  'delta + the sum of max(0, e) over open orders, e being what an order, netted over its legs '
  'here, adds when its rest is filled. Likewise the other Greeks.';
comment on column risk_private.exposures.delta_down is 'delta + the sum of min(0, e).';
comment on column risk_private.exposures.gross_exposure is
  'Sum of worst-case quantities x |dollar delta| of a unit.';
comment on column risk_private.exposures.unknown is
  'Pairs of account and instrument held or in open orders whose Greeks are unknown; they are in '
  'none of the sums.';

-- 25_money_tables.sql
-- Money: cash per currency, the equity of every scope, and what was done to executions afterwards.

create table risk_private.cash_balances (
  account_id integer not null,
  currency text not null check (currency ~ '^[A-Z]{3}$'),
  amount numeric not null default 0,
  cost numeric not null default 0,
  rate numeric,
  made_known numeric not null default 0,
  made_known_on date,
  primary key (account_id, currency)
) with (fillfactor = 70);
create index cash_balances_currency_idx on risk_private.cash_balances (currency);
comment on table risk_private.cash_balances is
  'Cash of an account in each currency that it has ever traded or been paid in.';
comment on column risk_private.cash_balances.cost is
  'Sum of positions.cost in this currency: cash and cost are what a change of the rate moves.';
comment on column risk_private.cash_balances.rate is
  'Base currency per unit at which this cash stands in equities; NULL: no rate is known yet, and '
  'so the equity is not either.';

comment on column risk_private.cash_balances.made_known is
  'What cash and cost came to when the first rate made them known: a flow of that day.';

create table risk_private.cash_postings (
  posting_id bigint generated always as identity primary key,
  account_id integer not null references risk_private.scopes,
  currency text not null,
  amount numeric not null,
  reason text not null,
  reference text,
  rate numeric not null,
  trading_day date,
  posted_at timestamptz not null,
  posted_by name not null default session_user,
  unique (account_id, reference)
);
comment on table risk_private.cash_postings is
  'Every risk.post_cash. Deposits, withdrawals and transfers are flows; all else is income.';
comment on column risk_private.cash_postings.rate is
  'Base currency per unit at the time.';

create table risk_private.equities (
  scope_id integer primary key,
  known_equity numeric not null default 0,
  unknown integer not null default 0,
  equity numeric generated always as (case when unknown = 0 then known_equity end) stored,
  known_start numeric not null default 0,
  unstarted integer not null default 0,
  start_equity numeric generated always as (case when unstarted = 0 then known_start end) stored,
  cash numeric not null default 0,
  book numeric not null default 0,
  start_unrealized numeric not null default 0,
  flows numeric not null default 0,
  realized numeric not null default 0,
  fees numeric not null default 0,
  income numeric not null default 0,
  currency_pnl numeric not null default 0,
  peak numeric not null default 0,
  as_of timestamptz not null
) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
comment on table risk_private.equities is
  'Equity of every scope and what moved it since the trading day was opened, in base currency. '
  'Parents are the sums of the accounts below, but for the peak, which is their own. Touched only '
  'while the counters of the chain are locked.';
comment on column risk_private.equities.equity is
  'Cash + quantity x mark x multiplier x rate as carried; NULL while a currency below has no rate.';
comment on column risk_private.equities.known_equity is
  'The part of the equity that is known; unknown counts the (account, currency) pairs without '
  'rate.';
comment on column risk_private.equities.start_equity is
  'Equity at the start of the trading day; NULL while an account below has never been in a day.';
comment on column risk_private.equities.known_start is
  'The part of it that is known; unstarted counts the accounts without.';
comment on column risk_private.equities.book is
  'Cash and positions at cost: what the equity exceeds it by is unrealized.';
comment on column risk_private.equities.start_unrealized is
  'Unrealized profit when the day was opened.';
comment on column risk_private.equities.flows is
  'Since the day was opened: money and positions brought in less those taken out. Likewise the '
  'next four.';
comment on column risk_private.equities.realized is 'Profit of closing trades, before fees.';
comment on column risk_private.equities.income is
  'Cash posted that is no flow: dividends, interest, charges.';
comment on column risk_private.equities.currency_pnl is
  'What changes of rates made of cash and cost.';
comment on column risk_private.equities.peak is
  'Highest equity, sampled at each revaluation and fill, ever since; scaled by flows, so that they '
  'leave the drawdown in percent as it is.';

create table risk_private.moving_rates (
  number bigint generated always as identity primary key,
  currency text not null,
  since timestamptz not null default risk_private.clock()
);
comment on table risk_private.moving_rates is
  'Rates that accounts are being carried to, one after the other: a row per risk.set_fx under way. '
  'One that was interrupted counts for a minute.';

create table risk_private.fill_corrections (
  correction_id bigint generated always as identity primary key,
  account_id integer not null,
  exec_id text not null,
  kind text not null check (kind in ('bust', 'correction')),
  old_quantity numeric not null,
  old_price numeric not null,
  old_fee numeric not null,
  new_quantity numeric not null,
  new_price numeric not null,
  late_realized numeric not null,
  late_fees numeric not null,
  late_flows numeric not null,
  reason text not null,
  trading_day date,
  corrected_at timestamptz not null,
  corrected_xid xid8 not null default pg_catalog.pg_current_xact_id(),
  corrected_by name not null default session_user
);
create index fill_corrections_fill_idx on risk_private.fill_corrections (account_id, exec_id);
comment on table risk_private.fill_corrections is
  'What became of executions after they were booked. Quantities are signed.';
comment on column risk_private.fill_corrections.late_realized is
  'Change of the realized profit, (late_fees) fees and (late_flows) flows of earlier days, in base '
  'currency: it counts to the day of the correction.';

create table risk_private.adjustments (
  adjustment_id bigint generated always as identity primary key,
  reference text not null unique check (risk_private.is_code(reference)),
  instrument_id integer not null references risk_private.instruments,
  symbol text not null,
  new_shares numeric not null,
  old_shares numeric not null,
  strike_change numeric not null,
  new_symbols jsonb not null,
  reason text not null,
  trading_day date,
  adjusted_at timestamptz not null,
  adjusted_by name not null default session_user
);
comment on table risk_private.adjustments is
  'Splits, and other changes of the terms of what is held: see risk.adjust_instrument.';
comment on column risk_private.adjustments.symbol is
  'As it was called then; new_symbols: as it was given.';

create table risk_private.adjusted_instruments (
  adjustment_id bigint not null references risk_private.adjustments,
  instrument_id integer not null references risk_private.instruments,
  old_symbol text not null,
  new_symbol text not null,
  old_strike numeric,
  new_strike numeric,
  old_multiplier numeric not null,
  new_multiplier numeric not null,
  new_units numeric not null,
  old_units numeric not null,
  primary key (adjustment_id, instrument_id)
);
comment on table risk_private.adjusted_instruments is
  'What an adjustment made of the underlying and of everything on it.';
comment on column risk_private.adjusted_instruments.new_units is
  'Positions were multiplied by new_units / old_units: 4 / 1 for the stock of a 4-for-1 split.';

create table risk_private.closed_days (
  scope_id integer not null,
  day date not null,
  start_equity numeric,
  equity numeric,
  flows numeric not null,
  realized numeric not null,
  fees numeric not null,
  income numeric not null,
  currency_pnl numeric not null,
  unrealized numeric not null,
  start_unrealized numeric not null,
  peak numeric not null,
  decisions bigint not null,
  accepted bigint not null,
  executions bigint not null,
  traded_notional numeric not null,
  closed_at timestamptz not null,
  primary key (scope_id, day)
);
comment on table risk_private.closed_days is
  'What each trading day made of every scope, kept when the next one was opened.';

create type risk_private.money as (
  equity numeric,
  cash numeric,
  book numeric,
  realized numeric,
  fees numeric,
  income numeric,
  flows numeric,
  unknown integer
);
comment on type risk_private.money is
  'What something adds to the equities of a chain, in base currency. What book moves by beyond '
  'realized - fees + income + flows is the doing of exchange rates.';

-- 25_obligation_tables.sql
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

-- 26_payoffs.sql
-- What positions and orders in one underlying can lose at expiry: pure arithmetic.

create type risk_private.payoff_leg as (
  kind text,
  option_right text,
  strike numeric,
  expiry date,
  multiplier numeric,
  quantity numeric,
  cost numeric,
  order_id text,
  version integer
);
comment on type risk_private.payoff_leg is
  'A signed quantity, and what was or is to be paid for all of it (below 0: received), in base '
  'currency; multiplier is money per 1.00 of price. order_id NULL: a position, else the legs of '
  'one open order. Versions of an order are alternatives: only one of them will be filled.';

create function risk_private.loss_at(
  price numeric, horizon date, kind text, option_right text, strike numeric, expiry date,
  units numeric, cost numeric)
returns numeric
language sql immutable
return case
  when kind <> 'option' then cost - units * price
  when expiry < horizon then greatest(0, cost)
  when case option_right when 'call' then price > strike else price < strike end
    then cost - units * abs(price - strike)
  else cost
end;
comment on function risk_private.loss_at(
  numeric, date, text, text, numeric, date, numeric, numeric) is
  'What was paid for a leg less its payoff. units: quantity x multiplier. Of several expiries each '
  'is a horizon: legs that expire no earlier pay their intrinsic value, earlier ones have expired, '
  'long ones worth nothing, short ones with what they brought forgotten; so a long option covers '
  'only shorts that expire no later. Stocks, indexes and futures are held throughout.';

create function risk_private.slope_at(
  horizon date, kind text, option_right text, expiry date, units numeric)
returns numeric
language sql immutable
return case
  when kind <> 'option' or (option_right = 'call' and expiry >= horizon) then -units
  else 0
end;
comment on function risk_private.slope_at(date, text, text, date, numeric) is
  'How the loss of a leg grows with the price beyond all strikes.';

create function risk_private.put_loss_at(
  price numeric, horizon date, option_right text, strike numeric, expiry date, units numeric)
returns numeric
language sql immutable
return case
  when option_right = 'put' and expiry >= horizon and price < strike then -units * (strike - price)
  else 0
end;
comment on function risk_private.put_loss_at(numeric, date, text, numeric, date, numeric) is
  'What a put takes, its cost aside; 0 of anything else.';

-- Joint: legs or versions of one order, summed before the floor of zero. Most orders have none, and
-- to group by them is not free. A position has no floor: greatest() passes over NULL.
create function risk_private.payoff_of(legs risk_private.payoff_leg[])
returns risk_private.payoff
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    with legs as materialized (
      select l.kind, l.option_right, l.strike, l.expiry, l.cost, l.quantity * l.multiplier as units,
        l.order_id, l.version, case when l.order_id is not null then 0 end as floor,
        l.order_id is not null and count(*) over (partition by l.order_id) > 1 as is_joint
      from unnest(payoff_of.legs) as l
    ), points as materialized (
      select h.horizon, s.price
      from (
        select l.expiry as horizon from legs as l where l.kind = 'option'
        union
        select 'infinity' where not exists (select from legs as l where l.kind = 'option')
      ) as h
      cross join (
        select l.strike as price from legs as l where l.kind = 'option' union select 0
      ) as s
    ), parts as not materialized (
      select p.horizon, p.price, l.order_id, l.version, l.is_joint, l.floor,
        risk_private.loss_at(p.price, p.horizon, l.kind, l.option_right, l.strike, l.expiry,
          l.units, l.cost) as loss,
        risk_private.slope_at(p.horizon, l.kind, l.option_right, l.expiry, l.units) as slope,
        risk_private.put_loss_at(p.price, p.horizon, l.option_right, l.strike, l.expiry,
          l.units) as put_loss
      from points as p
      cross join legs as l
    ), sums as (
      select a.horizon, a.price, sum(a.loss) as loss, sum(a.slope) as slope,
        sum(a.put_loss) as put_loss
      from (
        select l.horizon, l.price, sum(greatest(l.floor, l.loss)) as loss,
          sum(greatest(l.floor, l.slope)) as slope, sum(greatest(l.floor, l.put_loss)) as put_loss
        from parts as l
        where not l.is_joint
        group by l.horizon, l.price
        union all
        select o.horizon, o.price, greatest(0, max(o.loss)), greatest(0, max(o.slope)),
          greatest(0, max(o.put_loss))
        from (
          select l.horizon, l.price, l.order_id, sum(l.loss) as loss, sum(l.slope) as slope,
            sum(l.put_loss) as put_loss
          from parts as l
          where l.is_joint
          group by l.horizon, l.price, l.order_id, l.version
        ) as o
        group by o.horizon, o.price, o.order_id
      ) as a
      group by a.horizon, a.price
    )
    select row(
      array_agg(s.horizon order by s.horizon, s.price),
      array_agg(s.price order by s.horizon, s.price),
      array_agg(s.loss order by s.horizon, s.price),
      array_agg(s.slope order by s.horizon, s.price),
      array_agg(s.put_loss order by s.horizon, s.price),
      (
        select coalesce(sum(greatest(0, o.cost)), 0)
        from (
          select max(v.cost) as cost
          from (
            select l.order_id, sum(l.cost) as cost
            from legs as l
            where l.order_id is not null and l.kind <> 'future'
            group by l.order_id, l.version
          ) as v
          group by v.order_id
        ) as o
      ))::risk_private.payoff
    from sums as s);
end
$$;
comment on function risk_private.payoff_of(risk_private.payoff_leg[]) is
  'The payoff of legs in one underlying. Its points are every expiry with every strike and 0: '
  'between two strikes a sum is convex in the price, for what a floor of zero adds at an order''s '
  'break-even is a bend upwards, so it is largest at one of them, or beyond all.';

create function risk_private.with_order(
  payoff risk_private.payoff, leg risk_private.payoff_leg)
returns risk_private.payoff
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_units numeric := leg.quantity * leg.multiplier;
begin
  return (
    select row(payoff.horizons, payoff.prices,
      array_agg(p.loss + greatest(0, risk_private.loss_at(p.price, p.horizon, leg.kind,
        leg.option_right, leg.strike, leg.expiry, v_units, leg.cost)) order by p.point),
      array_agg(p.slope + greatest(0, risk_private.slope_at(p.horizon, leg.kind, leg.option_right,
        leg.expiry, v_units)) order by p.point),
      array_agg(p.put_loss + greatest(0, risk_private.put_loss_at(p.price, p.horizon,
        leg.option_right, leg.strike, leg.expiry, v_units)) order by p.point),
      payoff.costs + case when leg.kind = 'future' then 0 else greatest(0, leg.cost) end
    )::risk_private.payoff
    from unnest(payoff.horizons, payoff.prices, payoff.losses, payoff.slopes, payoff.put_losses)
      with ordinality as p (horizon, price, loss, slope, put_loss, point));
end
$$;
comment on function risk_private.with_order(risk_private.payoff, risk_private.payoff_leg) is
  'The payoff with one more open order, of one leg, whose strike and expiry are among its points.';

create function risk_private.worst_loss(payoff risk_private.payoff) returns numeric
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select case when max(p.slope) > 0 then 'Infinity'
      else trim_scale(greatest(0, max(p.loss))) end
    from unnest(payoff.losses, payoff.slopes) as p (loss, slope));
end
$$;
comment on function risk_private.worst_loss(risk_private.payoff) is
  'The largest loss over all prices >= 0 of the underlying at expiry; at least 0, Infinity where '
  'it grows without bound. Of several horizons the worst counts.';

create function risk_private.worst_loss(legs risk_private.payoff_leg[]) returns numeric
language sql immutable
return risk_private.worst_loss(risk_private.payoff_of(legs));
comment on function risk_private.worst_loss(risk_private.payoff_leg[]) is
  'The largest loss of legs in one underlying at expiry.';

create function risk_private.cash_need(payoff risk_private.payoff) returns numeric
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return payoff.costs
    + trim_scale(greatest(0, (select max(p.loss) from unnest(payoff.put_losses) as p (loss))));
end
$$;
comment on function risk_private.cash_need(risk_private.payoff) is
  'Cash that may be called for: premium and cost of each open order, net of what its other legs '
  'bring in and never below 0; and what short puts could take, strike x multiplier, covered by '
  'long ones. A future is margined, not paid for.';

create function risk_private.side(
  option_right text, multiplier numeric, calls numeric, puts numeric)
returns numeric
language sql immutable
return greatest(0, case option_right when 'call' then calls else puts end) * multiplier * 0.01;
comment on function risk_private.side(text, numeric, numeric, numeric) is
  'What an option is on one side of the market, in units of 100 shares: long calls and short puts '
  'are bullish, short calls and long puts bearish (FINRA 2360, Cboe 8.30). calls, puts: how many '
  'of it count there if it is a call, or a put.';

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

-- Lock order: other changes of limits; the counters of the chain above, ascending; their equities.
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
    perform risk_private.lock_chain(v_parent.scope_id);
    if exists (select from risk_private.positions as p where p.account_id = v_parent.scope_id)
      or exists (select from risk_private.orders as o where o.account_id = v_parent.scope_id)
      or exists (
        select from risk_private.cash_balances as b where b.account_id = v_parent.scope_id) then
      perform risk_private.fail('RK409',
        pg_catalog.format('%L holds positions, orders or cash', parent),
        'argument: parent',
        'Only a scope that has never traded can get scopes below it.');
    end if;
    if v_parent.is_leaf then
      perform risk_private.end_as_leaf(v_parent);
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
  perform risk_private.begin_as_leaf(v_scope_id);
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
  allow_negative_price boolean,
  dividend_yield double precision
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
    when t.dividend_yield is not null and not t.dividend_yield between -10 and 10
      then 'dividend_yield must be a number from -10 to 10 (0.02 is 2 %)'
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
                                         'allow_negative_price', 'dividend_yield']) limit 1);
  if v_unknown is not null then
    perform risk_private.fail('RK400', pg_catalog.format('unknown key %L', v_unknown),
      'item: ' || item::text);
  end if;
  begin
    v_terms := pg_catalog.jsonb_populate_record(
      row(null, null, null, null, null, null, case when item ->> 'kind' = 'option' then 100
        else 1 end, 1, null,
          'USD', null, false, null)::risk_private.instrument_terms, item);
  exception when data_exception then
    perform risk_private.fail('RK400', sqlerrm, 'item: ' || item::text);
  end;
  perform risk_private.validate_instrument(v_terms);
  select i.* into v_old from risk_private.instruments as i
    where i.symbol = v_terms.symbol for no key update;
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
      allow_negative_price, dividend_yield)
    values (
      v_terms.symbol, v_terms.kind,
      coalesce(v_underlying.instrument_id,
               pg_catalog.currval(pg_catalog.pg_get_serial_sequence('risk_private.instruments',
                 'instrument_id'))),
      v_sector_id, v_terms.expiry, v_terms.strike, v_terms.option_right, v_terms.multiplier,
      v_terms.lot, v_terms.tick,
      v_terms.currency, coalesce(v_terms.allow_negative_price, false), v_terms.dividend_yield);
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
        'Add an instrument with the new terms; for a split there is risk.adjust_instrument.');
    end if;
  end if;
  update risk_private.instruments as i set
    kind = terms.kind, underlying_id = change_instrument.underlying_id,
    sector_id = change_instrument.sector_id,
    expiry = terms.expiry, strike = terms.strike, option_right = terms.option_right,
    multiplier = terms.multiplier,
    lot = terms.lot, tick = terms.tick, currency = terms.currency,
    allow_negative_price = coalesce(terms.allow_negative_price, false),
    dividend_yield = terms.dividend_yield
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
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.instruments'));
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
  'the underlying''s), allow_negative_price, dividend_yield (of an underlying: what its options '
  'are valued with; default the setting)}. An underlying comes before its options. Errors: RK400, '
  'RK404 unknown underlying, RK409 fixed terms of a traded instrument.';

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

-- 31_compiled_limits.sql
-- What follows from a limit that was set: the compiled tables tell decisions what is in force, and
-- what it is judged by is kept from then on.

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

create function risk_private.stops_orders(s risk_private.scopes, t risk_private.limit_types,
  dimension integer)
returns boolean
language sql immutable
return t.judged = 'window' or t.limit_type = 'duplicate_window'
  or (t.judged = 'sum'
      and not (array[true, s.tracks_sector, s.tracks_underlying,
        s.tracks_instrument])[dimension + 1])
  or (risk_private.is_exposure_type(t.limit_type)
      and risk_private.exposure_dimension(t.judged, dimension) <> all (s.exposure_dimensions))
  or (t.judged in ('underlying', 'obligation')
      and not risk_private.is_exposure_type(t.limit_type)
      and case t.judged when 'underlying' then 2 else dimension end
        <> all (s.obligation_dimensions))
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
  if request.symbol is not null and (request.limit_type = 'max_loss' or exists (
    select from risk_private.limit_types as t
    where t.limit_type = request.limit_type and t.judged in ('underlying', 'concentration'))) then
    perform risk_private.fail('RK400',
      request.limit_type || ' is measured per underlying, not per symbol', 'argument: symbol',
      'Name the underlying instead.');
  end if;
  if request.limit_type in ('daily_loss', 'drawdown_pct', 'buying_power')
    and pg_catalog.num_nonnulls(request.symbol, request.underlying, request.sector) > 0 then
    perform risk_private.fail('RK400',
      request.limit_type || ' is measured for a scope as a whole',
      'argument: symbol, underlying, sector', 'Leave them out.');
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
create function risk_private.store_limit(request risk_private.limit_request, reason text)
  returns risk_private.limits
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := risk_private.clock();
  v_scope risk_private.scopes := risk_private.scope(request.scope);
  v_type risk_private.limit_types;
  v_dimension integer;
  v_key_id integer;
  v_limit risk_private.limits;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.limits'));
  if request.amount is not null then
    perform risk_private.validate_limit(request, v_at);
  end if;
  if store_limit.reason is not null then
    perform risk_private.require_reason(store_limit.reason);
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
    store_limit.reason, v_at
  from risk_private.limits as l
  where l.scope_id = v_scope.scope_id and l.limit_type = v_type.limit_type
    and l.dimension = v_dimension
    and l.key_id = v_key_id
  returning limits.* into v_limit;
  if request.amount is not null then
    if v_type.judged in ('sum', 'window') then
      perform risk_private.track(v_scope.scope_id, v_dimension);
    elsif risk_private.is_exposure_type(v_type.limit_type) then
      perform risk_private.track_exposures(
        v_scope.scope_id, risk_private.exposure_dimension(v_type.judged, v_dimension));
    elsif v_type.judged in ('underlying', 'obligation') then
      perform risk_private.track_obligations(
        v_scope.scope_id, case v_type.judged when 'underlying' then 2 else v_dimension end);
    elsif not v_scope.is_leaf
      and (v_type.judged = 'instrument' or v_type.limit_type = 'self_cross') then
      perform risk_private.track(v_scope.scope_id, 3);
    end if;
    if v_type.judged = 'window' or v_type.limit_type = 'duplicate_window' then
      perform risk_private.remember_recent_orders(
        v_scope.scope_id, v_type.limit_type, v_dimension, v_key_id, request.amount, v_at);
    end if;
  end if;
  perform risk_private.event('limit', pg_catalog.jsonb_build_object('scope', v_scope.code));
  return v_limit;
end
$$;
comment on function risk_private.store_limit(risk_private.limit_request, text) is
  'Stores the next version of a limit, or its removal (amount NULL), and begins to track what it '
  'needs. It is in force once compile_limits() has run. Errors: RK400, RK404.';

create function risk_private.set_limit(request risk_private.limit_request, reason text)
  returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_limit risk_private.limits := risk_private.store_limit(request, reason);
begin
  perform risk_private.compile_limits(
    v_limit.scope_id, v_limit.dimension, v_limit.key_id, v_limit.set_at);
  return v_limit.limit_id;
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
  v_limits risk_private.limits[] := '{}';
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
    v_limits := v_limits || risk_private.store_limit(v_request, reason);
  end loop;
  perform risk_private.compile_limits(k.scope_id, k.dimension, k.key_id, risk_private.clock())
  from (
    select distinct l.scope_id, l.dimension, l.key_id from unnest(v_limits) as l
    order by l.scope_id, l.dimension, l.key_id
  ) as k;
  return array(select l.limit_id from unnest(v_limits) as l);
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
  elsif name in ('risk_free_rate', 'dividend_yield') then
    if (value ~ '^-?([0-9](\.[0-9]{1,12})?|10)$') is not true then
      perform risk_private.fail('RK400',
        pg_catalog.format('%s must be a number from -10 to 10, got %L', name, value),
        'argument: value',
        'It is continuously compounded, per year: 0.05 is 5 %.');
    end if;
  elsif name = 'four_eyes' then
    if (value in ('on', 'off')) is not true then
      perform risk_private.fail('RK400',
        pg_catalog.format('four_eyes must be on or off, got %L', value), 'argument: value');
    end if;
  elsif name = 'open_day_at' then
    if (value = 'off' or value ~ '^([01][0-9]|2[0-3]):[0-5][0-9]$') is not true then
      perform risk_private.fail('RK400',
        pg_catalog.format('open_day_at must be a time like 17:00, or off, got %L', value),
        'argument: value', 'It is the time of the exchange''s clock.');
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
      'required_limit_types, exchange_time_zone, open_day_at, risk_free_rate, dividend_yield.');
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
    if name in ('exchange_time_zone', 'open_day_at', 'risk_free_rate', 'dividend_yield') then
      perform risk_private.fail('RK400',
        pg_catalog.format('%s holds for all: it cannot be set for a scope', name),
        'argument: scope', 'Leave the scope out.');
    end if;
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
  'required_limit_types (comma-separated). For all only: exchange_time_zone (America/New_York); '
  'open_day_at (00:00), when a worker opens each weekday after the first, or off; risk_free_rate '
  'and dividend_yield (0; continuously compounded), with which options are valued where the feed '
  'sends no Greeks (risk.upsert_instruments sets the yield of one underlying). Errors: RK400, '
  'RK404.';

create function risk_private.exchange_date(at timestamptz) returns date
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (at at time zone coalesce(
    (select s.value from risk_private.settings as s
     where s.name = 'exchange_time_zone' and s.scope_id is null),
    'America/New_York'))::date;
end
$$;
comment on function risk_private.exchange_date(timestamptz) is
  'The date at the exchange at a moment, whatever the time zones of server and session are: '
  'setting exchange_time_zone, summer time included.';

create function risk_private.trading_date() returns date
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(c.trading_date, risk_private.exchange_date(risk_private.clock()))
    from risk_private.trading_calendar as c);
end
$$;
comment on function risk_private.trading_date() is
  'The last open_day, else today at the exchange.';

-- 33_position_limits.sql
-- Position limits by tier, as exchanges and clearing houses publish them, and setting them on a
-- scope.

create function risk_private.position_limit_entries(limits jsonb, part text)
returns table (name text, value text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_catalog.jsonb_typeof(limits) is distinct from 'object'
    or limits - array['tiers', 'underlyings'] <> '{}'
    or coalesce(pg_catalog.jsonb_typeof(limits -> part), 'object') <> 'object' then
    perform risk_private.fail('RK400',
      'limits must be a JSON object of two objects: tiers (name to amount) and underlyings (symbol '
      'to tier)', 'argument: limits');
  end if;
  return query
  select e.key, e.value from pg_catalog.jsonb_each_text(coalesce(limits -> part, '{}')) as e;
end
$$;
comment on function risk_private.position_limit_entries(jsonb, text) is
  'The entries of tiers or underlyings in a load of position limits; RK400 where they make no '
  'sense.';

create function risk_private.load_position_limits(limits jsonb) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tier text;
  v_symbol text;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.limits'));
  select e.name into v_tier from risk_private.position_limit_entries(limits, 'tiers') as e
  where (e.value ~ '^[0-9]{1,15}(\.[0-9]{1,8})?$') is not true or not risk_private.is_code(e.name);
  if v_tier is not null then
    perform risk_private.fail('RK400',
      pg_catalog.format('tier %L must have an amount of 0 to 1e15', v_tier), 'argument: limits');
  end if;
  insert into risk_private.position_limit_tiers as t (tier, amount)
  select e.name, e.value::numeric from risk_private.position_limit_entries(limits, 'tiers') as e
  on conflict (tier) do update set
    amount = excluded.amount, loaded_by = excluded.loaded_by, loaded_at = excluded.loaded_at;
  select e.name, e.value into v_symbol, v_tier
  from risk_private.position_limit_entries(limits, 'underlyings') as e
  where not exists (select from risk_private.position_limit_tiers as t where t.tier = e.value);
  if found then
    perform risk_private.fail('RK404',
      pg_catalog.format('unknown tier %L of underlying %L', v_tier, v_symbol), 'argument: limits',
      'Load the tier with it.');
  end if;
  insert into risk_private.underlying_tiers as u (underlying_id, tier)
  select risk_private.instrument_id(e.name), e.value
  from risk_private.position_limit_entries(limits, 'underlyings') as e
  on conflict (underlying_id) do update set tier = excluded.tier;
end
$$;
comment on function risk_private.load_position_limits(jsonb) is
  'What risk.load_position_limits does.';

create procedure risk.load_position_limits(limits jsonb)
language plpgsql
as $$
begin
  perform risk_private.load_position_limits(limits);
  commit;
end
$$;
comment on procedure risk.load_position_limits(jsonb) is
  'Loads position limits as published: {"tiers": {"250k": "250000", "SPY": "3600000"}, '
  '"underlyings": {"AAPL": "250k", "SPY": "SPY"}}, amounts in contracts of 100 shares on one side '
  'of the market. What is not named stays. Loading sets no limit: risk.apply_position_limits does. '
  'Errors: RK400, RK404 unknown underlying or tier.';

create function risk_private.apply_position_limits(scope text, reason text) returns bigint[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_scope_id integer := (risk_private.scope(scope)).scope_id;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.limits'));
  return risk_private.set_limits(coalesce((
    select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'scope', apply_position_limits.scope, 'limit_type', 'same_side', 'underlying', i.symbol,
      'amount', t.amount) order by i.symbol)
    from risk_private.underlying_tiers as u
    join risk_private.position_limit_tiers as t on t.tier = u.tier
    join risk_private.instruments as i on i.instrument_id = u.underlying_id
    where not exists (
      select from risk_private.limit_periods as p
      where p.scope_id = v_scope_id and p.dimension = 2 and p.key_id = u.underlying_id
        and p.limit_type = 'same_side' and p.amount = t.amount and p.valid_until = 'infinity'
        and p.valid_from <= risk_private.clock())), '[]'), reason);
end
$$;
comment on function risk_private.apply_position_limits(text, text) is
  'What risk.apply_position_limits does; the versions that it has set.';

create procedure risk.apply_position_limits(
  scope text, reason text default null, inout request_ids bigint[] default null)
language plpgsql
as $$
begin
  request_ids := risk_private.apply_position_limits(scope, reason);
  commit;
end
$$;
comment on procedure risk.apply_position_limits(text, text, bigint[]) is
  'Sets, on a scope, the same_side limit of every underlying that is in a tier to the amount of '
  'that tier, as risk.set_limit would; those that are right already are left alone, so it may be '
  'repeated after every load. An underlying in no tier falls under the scope''s same_side limit '
  'for all, if there is one. Errors: RK400, RK404 unknown scope.';

-- 34_account_levels.sql
-- What an account's orders are compared with, folded along its chain into one row, so that
-- accepting an order looks at one row instead of every scope. 31_compiled_limits.sql keeps it up
-- to date.

create type risk_private.counter_level as (
  counter_id bigint,
  dimension integer,
  long_position numeric,
  short_position numeric,
  self_cross boolean,
  gross_position numeric,
  gross_notional numeric,
  traded_notional numeric,
  open_orders integer,
  open_positions integer,
  order_rate integer,
  order_rate_minute integer,
  keeps_rate boolean
);
comment on type risk_private.counter_level is
  'A counter that orders of an account move, and the warning levels in force there (Infinity, or '
  'the largest integer: no limit). Its key is 0: an order adds the key of its sector, underlying '
  'or instrument. net_position, the larger of both sides, is part of long_position and '
  'short_position.';

create type risk_private.rate_change as (
  counter_id bigint,
  accepted_orders integer,
  order_rate integer,
  order_rate_minute integer
);
comment on type risk_private.rate_change is
  'How many more orders a counter has accepted, and the warning levels of the rates in force '
  'there; NULL where nothing is to be compared.';

create type risk_private.exposure_level as (
  counter_id bigint,
  scope_id integer,
  dimension integer,
  delta numeric,
  gamma numeric,
  net_exposure numeric,
  dollar_gamma numeric,
  vega numeric,
  theta numeric,
  gross_exposure numeric,
  concentration_pct numeric
);
comment on type risk_private.exposure_level is
  'A row of exposures that orders of an account move, and the warning levels in force there; else '
  'as counter_level.';

create type risk_private.obligation_level as (
  counter_id bigint,
  scope_id integer,
  dimension integer,
  same_side numeric,
  max_loss numeric,
  buying_power numeric
);
comment on type risk_private.obligation_level is
  'A row of obligations that orders of an account move, and the warning levels in force there; '
  'else as counter_level.';

create type risk_private.loss_level as (
  scope_id integer,
  daily_loss numeric,
  equity_ratio numeric
);
comment on type risk_private.loss_level is
  'The warning levels in force on the losses of a scope (NULL: no limit). equity_ratio: at what '
  'part of its peak the equity has fallen by that of drawdown_pct.';

-- Not compressed: decompressing it would cost every order more than the pages it takes.
create table risk_private.account_levels (
  account_id integer primary key,
  is_narrowed boolean not null,
  valid_from timestamptz not null,
  valid_until timestamptz not null,
  types bit(32) not null,
  order_quantity numeric not null,
  order_notional numeric not null,
  price_collar_pct numeric not null,
  long_position numeric not null,
  short_position numeric not null,
  self_cross boolean not null,
  gross_position numeric not null,
  gross_notional numeric not null,
  traded_notional numeric not null,
  open_orders integer not null,
  open_positions integer not null,
  duplicate_window numeric not null,
  keeps_fingerprints boolean not null,
  rates risk_private.rate_change[],
  counters risk_private.counter_level[] not null,
  exposures risk_private.exposure_level[],
  obligations risk_private.obligation_level[],
  losses risk_private.loss_level[],
  needs_rates boolean,
  are_own boolean,
  version bigint
) with (toast_tuple_target = 8160);
create sequence risk_private.level_versions;
comment on column risk_private.account_levels.version is
  'Changes with every limit that concerns the account.';
comment on table risk_private.account_levels is
  'Compiled from warning_levels: per leaf, the lowest level of each type on its whole chain, among '
  'those that hold for all instruments. Infinity: no limit.';
comment on column risk_private.account_levels.is_narrowed is
  'Whether some scope of the chain also has levels for a sector, underlying or instrument.';
comment on column risk_private.account_levels.long_position is
  'The account''s own, as counter_level has it: those of its parents stand with their counters. '
  'Likewise the next seven.';
comment on column risk_private.account_levels.keeps_fingerprints is
  'Whether a duplicate limit looks back on the account''s orders.';
comment on column risk_private.account_levels.rates is
  'The counters whose rates look back on them, as one more order moves them, keys included; NULL: '
  'none.';
comment on column risk_private.account_levels.exposures is
  'The same for exposures; NULL where none are kept. Likewise obligations and, where they are '
  'limited, losses.';
comment on column risk_private.account_levels.needs_rates is
  'Whether a limit on the chain goes by equity (daily_loss, drawdown_pct or concentration_pct), '
  'and there are foreign rates by which it may be stale.';
comment on column risk_private.account_levels.are_own is
  'Whether rates (of all its orders) and obligations are limited at the account alone, so that '
  'nobody else moves them; NULL: neither is limited.';
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
    min(p.long_position) filter (where r.is_own), min(p.short_position) filter (where r.is_own),
    bool_or(r.self_cross and r.is_own),
    min(k.gross_position) filter (where r.is_own and k.dimension = 0),
    min(k.gross_notional) filter (where r.is_own and k.dimension = 0),
    min(k.traded_notional) filter (where r.is_own and k.dimension = 0),
    min(k.open_orders) filter (where r.is_own and k.dimension = 0),
    min(k.open_positions) filter (where r.is_own and k.dimension = 0),
    max(r.duplicate_window), bool_or(r.keeps_fingerprints),
    array_agg(row(
      k.counter_id | case k.dimension when 0 then 0 when 1 then fold_levels.sector_id
        when 2 then fold_levels.underlying_id else fold_levels.instrument_id end,
      1, k.order_rate, k.order_rate_minute)::risk_private.rate_change
      order by k.counter_id) filter (where k.is_tracked and k.keeps_rate),
    array_agg(row(
      k.counter_id, k.dimension, p.long_position, p.short_position, r.self_cross,
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
      greatest(l0.valid_from, l1.valid_from, lu.valid_from, l2.valid_from, l3.valid_from)
        as valid_from,
      least(l0.valid_until, l1.valid_until, lu.valid_until, l2.valid_until, l3.valid_until)
        as valid_until,
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
    left join risk_private.instruments as u on u.instrument_id = fold_levels.underlying_id
    left join risk_private.warning_levels as l0
      on l0.scope_id = s.scope_id and l0.dimension = 0 and l0.key_id = 0
      and at < l0.valid_until and l0.valid_from <= at
    left join risk_private.warning_levels as l1
      on l1.scope_id = s.scope_id and l1.dimension = 1 and l1.key_id = fold_levels.sector_id
      and at < l1.valid_until and l1.valid_from <= at
    left join risk_private.warning_levels as lu
      on lu.scope_id = s.scope_id and lu.dimension = 1 and lu.key_id = u.sector_id
      and at < lu.valid_until and lu.valid_from <= at
    left join risk_private.warning_levels as l2
      on l2.scope_id = s.scope_id and l2.dimension = 2 and l2.key_id = fold_levels.underlying_id
      and at < l2.valid_until and l2.valid_from <= at
    left join risk_private.warning_levels as l3
      on l3.scope_id = s.scope_id and l3.dimension = 3 and l3.key_id = fold_levels.instrument_id
      and at < l3.valid_until and l3.valid_from <= at
    where leaf.scope_id = fold_levels.account_id
  ) as r
  cross join lateral (
    select least(r.net_position, r.long_position) as long_position,
      least(r.net_position, r.short_position) as short_position
  ) as p
  cross join lateral (
    select
      risk_private.counter_id(r.scope_id, d.dimension) as counter_id, d.dimension, d.is_tracked,
      coalesce((d.l).gross_position, 'Infinity') as gross_position,
      coalesce((d.l).gross_notional, 'Infinity') as gross_notional,
      coalesce((d.l).traded_notional, 'Infinity') as traded_notional,
      least(ceil((d.l).open_orders), 2147483647)::integer as open_orders,
      least(ceil((d.l).open_positions), 2147483647)::integer as open_positions,
      least(ceil((d.l).order_rate), 2147483647)::integer as order_rate,
      least(ceil((d.l).order_rate_minute), 2147483647)::integer as order_rate_minute,
      coalesce((d.l).keeps_rate, false) as keeps_rate
    from (
      values (0, true, r.l0), (1, r.tracks_sector, r.l1), (2, r.tracks_underlying, r.l2),
        (3, r.tracks_instrument, r.l3)
    ) as d (dimension, is_tracked, l)
  ) as k;
  v_levels.exposures := risk_private.exposure_levels(
    account_id, sector_id, underlying_id, instrument_id, at);
  v_levels.obligations := risk_private.obligation_levels(account_id, underlying_id, at);
  v_levels.losses := risk_private.loss_levels(account_id, at);
  v_levels.needs_rates := risk_private.has_foreign_rates() and (
    v_levels.losses is not null or exists (
      select from unnest(v_levels.exposures) as x where x.concentration_pct < 'Infinity'));
  -- A scope's counters are numbered below those of the scopes above it.
  v_levels.are_own := (
    select bool_and(x.is_own)
    from (
      select r.counter_id = risk_private.counter_id(account_id) as is_own
      from unnest(v_levels.rates) as r
      union all
      select o.counter_id < risk_private.counter_id(account_id + 1)
      from unnest(v_levels.obligations) as o
    ) as x);
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
    price_collar_pct = n.price_collar_pct, long_position = n.long_position,
    short_position = n.short_position, self_cross = n.self_cross,
    gross_position = n.gross_position, gross_notional = n.gross_notional,
    traded_notional = n.traded_notional, open_orders = n.open_orders,
    open_positions = n.open_positions,
    duplicate_window = n.duplicate_window, keeps_fingerprints = n.keeps_fingerprints,
    rates = n.rates, counters = n.counters,
    exposures = n.exposures, obligations = n.obligations, losses = n.losses,
    needs_rates = n.needs_rates, are_own = n.are_own
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
    left join risk_private.instruments as u on u.instrument_id = levels_of.underlying_id
    cross join lateral (
      values (1, levels_of.sector_id), (1, u.sector_id), (2, levels_of.underlying_id),
        (3, levels_of.instrument_id)
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

-- 35_option_values.sql
-- What European options are worth: Black-Scholes-Merton. Single statements without SET clauses, so
-- that the planner inlines them: thousands of options are valued by one query. Each OFFSET 0 keeps
-- the planner from computing a subexpression again wherever it is used.

create function risk_private.option_problem(
  kind text, spot double precision, strike double precision, years double precision,
  rate double precision, dividend double precision)
returns text
language sql immutable parallel safe
return case
  when (kind in ('call', 'put')) is not true then 'kind must be call or put'
  when (spot between 0 and 1e12) is not true then 'spot must be a number from 0 to 1e12'
  when (strike between 1e-12 and 1e15) is not true then
    'strike must be a number above 0, from 1e-12 to 1e15'
  when (years between 0 and 100) is not true then 'years must be a number from 0 to 100'
  when (rate between -10 and 10) is not true or abs(rate) > 0.5 and abs(rate) * years > 50 then
    'rate must be a number from -10 to 10 (0.05 is 5 %), and rate * years within 50'
  when (dividend between -10 and 10) is not true
    or abs(dividend) > 0.5 and abs(dividend) * years > 50 then
    'dividend must be a number from -10 to 10 (0.02 is 2 %), and dividend * years within 50'
end;
comment on function risk_private.option_problem(
  text, double precision, double precision, double precision, double precision,
  double precision) is
  'What is wrong with the terms of an option that is to be valued; NULL where nothing is.';

create function risk_private.require_option_terms(
  kind text, spot double precision, strike double precision, years double precision,
  rate double precision, dividend double precision, volatility double precision)
returns boolean
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_problem text := risk_private.option_problem(kind, spot, strike, years, rate, dividend);
begin
  if v_problem is null and (volatility >= 0 and volatility < 'Infinity') is not true then
    v_problem := 'volatility must be a finite number >= 0 (0.2 is 20 %)';
  end if;
  if v_problem is not null then
    perform risk_private.fail('RK400', v_problem, format(
      'kind %s, spot %s, strike %s, years %s, rate %s, dividend %s, volatility %s', kind, spot,
      strike, years, rate, dividend, volatility));
  end if;
  return true;
end
$$;
comment on function risk_private.require_option_terms(
  text, double precision, double precision, double precision, double precision, double precision,
  double precision) is
  'True; or RK400 for terms that no option can have.';

-- Tails further out than 35 standard deviations, and what is too small to matter, are 0: a product
-- of them would be the error "underflow".
create function risk.option_greeks(
  kind text, spot double precision, strike double precision, years double precision,
  rate double precision, dividend double precision, volatility double precision)
returns table (
  price double precision, delta double precision, gamma double precision, vega double precision,
  theta double precision, rho double precision)
language sql immutable parallel safe rows 1
begin atomic
  select
    greatest(0, c.sign * (b.spot_value * d.n1 - b.strike_value * d.n2)),
    c.sign * b.dividend_factor * d.n1,
    case when b.deviation >= 1e-15 and a.spot > 0
      then b.dividend_factor * d.density / (a.spot * b.deviation) else 0 end,
    b.spot_value * d.density * a.root_years / 100,
    (case when a.root_years > 0
       then -b.spot_value * d.density * a.volatility / (2 * a.root_years) else 0 end
     - c.sign * a.rate * b.strike_value * d.n2
     + c.sign * a.dividend * b.spot_value * d.n1) / 365,
    c.sign * b.strike_value * a.years * d.n2 / 100
  from (
    select
      case when option_greeks.spot < 1e-30 then 0 else option_greeks.spot end as spot,
      case when option_greeks.years < 1e-12 then 0 else option_greeks.years end as years,
      case when option_greeks.years < 1e-12 then 0
        else pg_catalog.sqrt(option_greeks.years) end as root_years,
      case when pg_catalog.abs(option_greeks.rate) < 1e-18 then 0
        else option_greeks.rate end as rate,
      case when pg_catalog.abs(option_greeks.dividend) < 1e-18 then 0
        else option_greeks.dividend end as dividend,
      case when option_greeks.volatility < 1e-18 then 0
        else least(option_greeks.volatility, 1e100) end as volatility
    where risk_private.require_option_terms(option_greeks.kind, option_greeks.spot,
      option_greeks.strike, option_greeks.years, option_greeks.rate, option_greeks.dividend,
      option_greeks.volatility)
    offset 0
  ) as a
  cross join lateral (
    select
      pg_catalog.exp(-a.dividend * a.years) as dividend_factor,
      a.spot * pg_catalog.exp(-a.dividend * a.years) as spot_value,
      option_greeks.strike * pg_catalog.exp(-a.rate * a.years) as strike_value,
      a.volatility * a.root_years as deviation,
      case when a.spot > 0 then pg_catalog.ln(a.spot / option_greeks.strike)
        + (a.rate - a.dividend) * a.years else -1000 end as moneyness
    offset 0
  ) as b
  cross join lateral (
    select
      case when option_greeks.kind = 'call' then 1::double precision else -1 end as sign,
      case when b.deviation >= 1e-15 and a.spot > 0
        then b.moneyness / b.deviation + b.deviation / 2
        else 100 * pg_catalog.sign(b.moneyness) end as d1,
      case when b.deviation >= 1e-15 and a.spot > 0
        then b.moneyness / b.deviation - b.deviation / 2
        else 100 * pg_catalog.sign(b.moneyness) end as d2
    offset 0
  ) as c
  cross join lateral (
    select
      case when c.sign * c.d1 > -35
        then pg_catalog.erfc(-c.sign * c.d1 * 0.70710678118654752) / 2 else 0 end as n1,
      case when c.sign * c.d2 > -35
        then pg_catalog.erfc(-c.sign * c.d2 * 0.70710678118654752) / 2 else 0 end as n2,
      case when pg_catalog.abs(c.d1) < 35
        then pg_catalog.exp(-c.d1 * c.d1 / 2) * 0.39894228040143268 else 0 end as density
    offset 0
  ) as d;
end;
comment on function risk.option_greeks(
  text, double precision, double precision, double precision, double precision, double precision,
  double precision) is
  'Price and Greeks of a European option by Black-Scholes-Merton (Merton 1973), per share of the '
  'underlying: delta; gamma per 1.00 of spot; vega per volatility point (0.01); theta per calendar '
  'day (1/365 year); rho per 1 % of rate. kind: call or put; years to expiry; rate and dividend '
  'yield continuously compounded, volatility per year, 0.05 being 5 %. Early exercise is not '
  'valued: an American option, above all a put or a call before a dividend, is worth at least as '
  'much. At expiry or without volatility: the intrinsic value of the forward and its limits, delta '
  'one half and gamma 0 at the money. An option on a future (Black 1976): dividend = rate. Never '
  'NULL or NaN. Errors: RK400 where an argument is NULL, not finite, or of no option: spot 0 to '
  '1e12, strike 1e-12 to 1e15, years 0 to 100, rate and dividend within 10 and times years within '
  '50, volatility >= 0.';

-- The price is brought to that of the out-of-the-money option of the same strike, by parity, in
-- units of the square root of both present values. It has its turning point where deviation^2 is 2
-- |moneyness|: below that, 1/ln(price) is nearly straight; above it the price bends one way only;
-- near the top the logarithm of what is missing does (Jaeckel 2006). Newton's steps that leave the
-- bracket are replaced by halving it.
create function risk_private.find_deviation(
  moneyness double precision, price double precision, missing double precision)
returns double precision
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_root_half constant double precision := sqrt(0.5::double precision);
  v_up constant double precision := exp(moneyness / 2);
  v_turn constant double precision := sqrt(-2 * moneyness);
  v_turn_price constant double precision :=
    v_up / 2 - erfc(v_turn * v_root_half) / v_up / 2;
  v_branch constant text := case
    when price < v_turn_price then 'low' when missing < v_up / 2 then 'high' else 'middle' end;
  v_low double precision := case when v_branch = 'low' then 0 else v_turn end;
  v_high double precision := case when v_branch = 'low' then v_turn end;
  v_s double precision := case
    when v_branch = 'low' then least(-moneyness / sqrt(-2 * ln(price)), v_turn)
    else v_turn + (price - v_turn_price) * 2.50662827463100050 end;
  v_next double precision;
  v_d1 double precision;
  v_d2 double precision;
  v_value double precision;
  v_is_above boolean;
  v_slope double precision;
  v_step double precision;
begin
  -- Next to nothing at the money: the first guess is exact, and its square would underflow.
  if v_branch = 'middle' and v_s < 1e-8 then
    return v_s;
  end if;
  for v_round in 1..200 loop
    v_d1 := moneyness / v_s + v_s / 2;
    v_d2 := moneyness / v_s - v_s / 2;
    v_slope := case when abs(v_d1) < 35
      then v_up * exp(-v_d1 * v_d1 / 2) * 0.39894228040143268 else 0 end;
    if v_branch = 'high' then
      v_value := v_up * erfc(least(v_d1, 50) * v_root_half) / 2
        + erfc(least(-v_d2, 50) * v_root_half) / v_up / 2;
      v_is_above := v_value < missing;
      v_step := case when v_slope > 0
        then ln(v_value / missing) * v_value / v_slope end;
    else
      v_value := v_up * erfc(least(-v_d1, 50) * v_root_half) / 2
        - erfc(least(-v_d2, 50) * v_root_half) / v_up / 2;
      v_is_above := v_value > price;
      v_step := case when v_slope = 0 or v_value <= 0 then null
        when v_branch = 'middle' then (price - v_value) / v_slope
        else (1 - ln(v_value) / ln(price)) * ln(v_value) * v_value / v_slope end;
    end if;
    if v_is_above then
      v_high := v_s;
    else
      v_low := v_s;
    end if;
    v_next := v_s + v_step;
    exit when abs(v_step) <= 1e-8 * v_s or v_high - v_low <= 1e-15 * v_high;
    if (v_next > v_low and (v_high is null or v_next < v_high)) is not true then
      v_next := case when v_high is null then 2 * v_s else (v_low + v_high) / 2 end;
    end if;
    v_s := v_next;
  end loop;
  return coalesce(v_next, v_s);
end
$$;
comment on function risk_private.find_deviation(
  double precision, double precision, double precision) is
  'The standard deviation to expiry (volatility x root of years) that gives an out-of-the-money '
  'option this normalised price: price / sqrt(S K), both discounted; moneyness = -|ln(S / K)|, '
  'missing = what the price lacks to its upper bound.';

create function risk_private.implied_volatility(
  kind text, price double precision, spot double precision, strike double precision,
  years double precision, rate double precision, dividend double precision)
returns double precision
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rate constant double precision := case when abs(rate) < 1e-18 then 0 else rate end;
  v_dividend constant double precision :=
    case when abs(dividend) < 1e-18 then 0 else dividend end;
  v_years constant double precision := case when years < 1e-12 then 0 else years end;
  v_spot_value double precision;
  v_strike_value double precision;
  v_least double precision;
  v_most double precision;
  v_unit double precision;
begin
  if risk_private.option_problem(kind, spot, strike, years, rate, dividend) is not null
    or (price >= 0 and price < 'Infinity') is not true then
    return null;
  end if;
  v_spot_value := case when spot < 1e-30 then 0 else spot end * exp(-v_dividend * v_years);
  v_strike_value := strike * exp(-v_rate * v_years);
  v_most := case when kind = 'call' then v_spot_value else v_strike_value end;
  v_least := greatest(0, v_most - case when kind = 'call' then v_strike_value
    else v_spot_value end);
  v_unit := sqrt(v_spot_value) * sqrt(v_strike_value);
  if price <= v_least or price - v_least < 1e-250 * v_unit then
    return 0;
  elsif price >= v_most or v_years = 0 then
    return null;
  end if;
  return risk_private.find_deviation(
    -abs(ln(spot / strike) + (v_rate - v_dividend) * v_years), (price - v_least) / v_unit,
    (v_most - price) / v_unit) / sqrt(v_years);
end
$$;
comment on function risk_private.implied_volatility(
  text, double precision, double precision, double precision, double precision, double precision,
  double precision) is
  'As risk.implied_volatility, but 0 for a price below the least value, and NULL where no '
  'volatility gives the price or an argument is impossible.';

create function risk.implied_volatility(
  kind text, price double precision, spot double precision, strike double precision,
  years double precision, rate double precision, dividend double precision)
returns double precision
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_volatility double precision :=
    risk_private.implied_volatility(kind, price, spot, strike, years, rate, dividend);
  v_least double precision;
begin
  if v_volatility > 0 then
    return v_volatility;
  end if;
  perform risk_private.require_option_terms(kind, spot, strike, years, rate, dividend, 0);
  select g.price into v_least
  from risk.option_greeks(kind, spot, strike, years, rate, dividend, 0) as g;
  -- The least value is a difference: rounding must not forbid it.
  if v_volatility is null or price < v_least - 1e-12 * (v_least + strike) then
    perform risk_private.fail('RK400', 'no volatility gives this price', format(
      'price %s: it must be at least %s and less than the discounted %s, and years above 0',
      price, v_least, case when kind = 'call' then 'spot' else 'strike' end),
      'Check that price, spot and strike are of one moment, per share and in one currency.');
  end if;
  return 0;
end
$$;
comment on function risk.implied_volatility(
  text, double precision, double precision, double precision, double precision, double precision,
  double precision) is
  'The volatility at which risk.option_greeks gives the price, 0.2 for 20 %; 0 where the price is '
  'the least that the option can be worth. What a price far in the money tells of volatility is '
  'lost in its rounding. Errors: RK400 where an argument is impossible, or no volatility gives the '
  'price: below the discounted intrinsic value, or not below the discounted spot (call) or strike '
  '(put).';

-- 36_closes.sql
-- Daily closes of underlyings: recorded when the trading day is rolled, or loaded.

create table risk_private.closes (
  instrument_id integer not null references risk_private.instruments,
  day date not null,
  close numeric not null check (close > 0 and risk_private.is_finite(close)),
  recorded_at timestamptz not null,
  primary key (instrument_id, day)
);
create index closes_day_idx on risk_private.closes (day);
comment on table risk_private.closes is
  'Closing prices of underlyings per trading day, adjusted for all later splits.';

create function risk_private.record_closes(day date, since timestamptz) returns void
language sql volatile
begin atomic
  insert into risk_private.closes as c (instrument_id, day, close, recorded_at)
  select m.instrument_id, record_closes.day, m.price, risk_private.clock()
  from risk_private.marks as m
  join risk_private.instruments as i on i.instrument_id = m.instrument_id
  where i.kind <> 'option' and m.price > 0 and m.as_of >= record_closes.since
  order by m.instrument_id
  on conflict on constraint closes_pkey do update set
    close = excluded.close, recorded_at = excluded.recorded_at;
end;
comment on function risk_private.record_closes(date, timestamptz) is
  'Keeps the present marks of underlyings as the closes of a day, where they are no older than the '
  'opening of that day: what was not marked all day has no close.';

create function risk_private.adjust_closes(instrument_id integer, ratio numeric) returns void
language sql volatile
begin atomic
  update risk_private.closes as c set close = c.close / adjust_closes.ratio
  where c.instrument_id = adjust_closes.instrument_id;
end;
comment on function risk_private.adjust_closes(integer, numeric) is
  'Brings stored closes to the level after a split: 4 for 4-for-1.';

create function risk_private.load_closes(symbols text[], days date[], closes numeric[])
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_size integer := cardinality(symbols);
  v_today date := risk_private.trading_date();
  v_problem record;
begin
  if coalesce(v_size, 0) = 0 or array_ndims(symbols) <> 1
    or cardinality(days) is distinct from v_size or cardinality(closes) is distinct from v_size then
    perform risk_private.fail('RK400', 'symbols, days and closes must be lists of the same length',
      'argument: symbols, days, closes');
  end if;
  select p.* into v_problem
  from (
    select t.row_number, t.symbol, t.day, t.close,
      case
        when i.instrument_id is null then 'unknown symbol'
        when i.kind = 'option' then 'an option is no underlying'
        when (t.day > '-infinity' and t.day <= v_today) is not true
          then format('day must be a date up to the trading date %s', v_today)
        when (t.close > 0 and t.close <= 1e12) is not true
          then 'close must be a number above 0, within 1e12'
        when count(*) over (partition by t.symbol, t.day) > 1 then 'the day stands twice'
      end as problem
    from unnest(symbols, days, closes) with ordinality as t (symbol, day, close, row_number)
    left join risk_private.instruments as i on i.symbol = t.symbol
  ) as p
  where p.problem is not null
  order by p.row_number
  limit 1;
  if found then
    perform risk_private.fail(
      case when v_problem.problem = 'unknown symbol' then 'RK404' else 'RK400' end,
      format('row %s (%s): %s', v_problem.row_number, v_problem.symbol, v_problem.problem),
      format('day %s, close %s; nothing was loaded', v_problem.day, v_problem.close));
  end if;
  insert into risk_private.closes as c (instrument_id, day, close, recorded_at)
  select i.instrument_id, t.day, t.close, risk_private.clock()
  from unnest(symbols, days, closes) as t (symbol, day, close)
  join risk_private.instruments as i on i.symbol = t.symbol
  order by i.instrument_id, t.day
  on conflict on constraint closes_pkey do update set
    close = excluded.close, recorded_at = excluded.recorded_at;
  return v_size;
end
$$;
comment on function risk_private.load_closes(text[], date[], numeric[]) is
  'What risk.load_closes does.';

create procedure risk.load_closes(
  symbols text[], days date[], closes numeric[], inout loaded integer default null)
language plpgsql
as $$
begin
  loaded := risk_private.load_closes(symbols, days, closes);
  commit;
end
$$;
comment on procedure risk.load_closes(text[], date[], numeric[], integer) is
  'Loads closing prices of underlyings, all or none: one symbol, day and close per row, adjusted '
  'for splits (and for dividends, if total returns are wanted). What is stored for that day is '
  'replaced. From then on risk.open_day adds the closes of the day that ends. loaded: how many '
  'rows. Errors: RK400, RK404 unknown symbol, naming the first bad row.';

-- 36_kept_payoffs.sql
-- What an account may come to owe in one underlying, and the payoff that is kept of it, so that an
-- order need not go through all that is held and open.

create function risk_private.payoff_legs(account_id integer, underlying_id integer)
returns risk_private.payoff_leg[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- offset 0: what is held and open is found once, and looked up leg by leg, whatever the
  -- statistics say.
  return array(
    select row(i.kind, i.option_right, i.strike, i.expiry, i.multiplier * r.rate, l.quantity,
      coalesce(l.cost, l.quantity * l.price * i.multiplier) * r.rate, l.order_id,
      l.version)::risk_private.payoff_leg
    from (
      select p.instrument_id, p.quantity, p.cost, null::numeric as price, null::text as order_id,
        0 as version
      from risk_private.positions as p
      where p.account_id = payoff_legs.account_id
        and p.underlying_id = payoff_legs.underlying_id and p.quantity <> 0
      union all
      -- A pending replacement and the order that it replaces are two versions of one order.
      select w.instrument_id,
        sign(w.ratio::numeric) * greatest(0, o.quantity * abs(w.ratio) - w.filled), null,
        coalesce(w.cost, o.price),
        case when o.replace_pending and o.replaced_by is null then o.replaces
          else o.client_order_id end,
        case when o.replace_pending and o.replaced_by is null then 2 else 1 end
      from risk_private.orders as o
      cross join lateral unnest(o.instrument_ids, o.ratios, o.filled, o.costs)
        as w (instrument_id, ratio, filled, cost)
      where o.account_id = payoff_legs.account_id
        and o.underlying_id = any (array[payoff_legs.underlying_id, 0]) and o.closed_at is null
      offset 0
    ) as l
    cross join lateral (
      select i.* from risk_private.instruments as i
      where i.instrument_id = l.instrument_id
      offset 0
    ) as i
    cross join lateral (
      select coalesce(
        (
          select b.rate from risk_private.cash_balances as b
          where b.account_id = payoff_legs.account_id and b.currency = i.currency
        ),
        (select f.rate from risk_private.fx_rates as f where f.currency = i.currency), 1) as rate
      offset 0
    ) as r
    where i.underlying_id = payoff_legs.underlying_id and l.quantity <> 0);
end
$$;
comment on function risk_private.payoff_legs(integer, integer) is
  'What an account holds in one underlying, at average cost, and what its open orders may still '
  'fill, at their prices, in base currency at the rate at which its book is carried.';

create function risk_private.open_obligations_of(
  account_id integer, underlying_id integer, payoff risk_private.payoff)
returns risk_private.obligation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_loss numeric := risk_private.worst_loss(payoff);
  v_obligation risk_private.obligation;
begin
  select
    coalesce(sum(risk_private.side(i.option_right, i.multiplier, w.long, w.short)), 0),
    coalesce(sum(risk_private.side(i.option_right, i.multiplier, w.short, w.long)), 0),
    case when v_loss = 'Infinity' then 0 else v_loss end, (v_loss = 'Infinity')::integer,
    risk_private.cash_need(payoff),
    coalesce(sum(risk_private.side(i.option_right, i.multiplier, w.held, -w.held)), 0),
    coalesce(sum(risk_private.side(i.option_right, i.multiplier, -w.held, w.held)), 0)
  into v_obligation
  from (
    select p.instrument_id, p.quantity as held, p.quantity + p.open_buy as long,
      p.open_sell - p.quantity as short
    from risk_private.positions as p
    where p.account_id = open_obligations_of.account_id
      and p.underlying_id = open_obligations_of.underlying_id
    offset 0
  ) as w
  join risk_private.instruments as i
    on i.instrument_id = w.instrument_id and i.kind = 'option';
  return v_obligation;
end
$$;
comment on function risk_private.open_obligations_of(integer, integer, risk_private.payoff) is
  'What an account may come to owe in one underlying with every open order, and its held sides; '
  'what positions alone may cost is left NULL.';

create function risk_private.with_held(
  obligation risk_private.obligation, legs risk_private.payoff_leg[])
returns risk_private.obligation
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_held risk_private.payoff_leg[] := array(
    select l from unnest(legs) as l where l.order_id is null);
  v_payoff risk_private.payoff;
  v_loss numeric;
begin
  if cardinality(v_held) = cardinality(legs) then
    obligation.held_loss := obligation.max_loss;
    obligation.held_unlimited := obligation.unlimited;
    obligation.held_need := obligation.cash_need;
  else
    v_payoff := risk_private.payoff_of(v_held);
    v_loss := risk_private.worst_loss(v_payoff);
    obligation.held_loss := case when v_loss = 'Infinity' then 0 else v_loss end;
    obligation.held_unlimited := (v_loss = 'Infinity')::integer;
    obligation.held_need := risk_private.cash_need(v_payoff);
  end if;
  return obligation;
end
$$;
comment on function risk_private.with_held(
  risk_private.obligation, risk_private.payoff_leg[]) is
  'Completes obligations by what the positions alone may cost.';

create function risk_private.obligations_of(account_id integer, underlying_id integer)
returns risk_private.obligation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_legs risk_private.payoff_leg[] := risk_private.payoff_legs(account_id, underlying_id);
begin
  return risk_private.with_held(
    risk_private.open_obligations_of(
      account_id, underlying_id, risk_private.payoff_of(v_legs)),
    v_legs);
end
$$;
comment on function risk_private.obligations_of(integer, integer) is
  'What an account may come to owe in one underlying, from its positions and open orders. Counted '
  'until settled, whatever has expired.';

create function risk_private.keep_payoff(
  account_id integer, underlying_id integer, payoff risk_private.payoff)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if payoff.horizons is null or payoff.horizons[1] = 'infinity' then
    delete from risk_private.payoffs as p
    where p.account_id = keep_payoff.account_id and p.underlying_id = keep_payoff.underlying_id;
  else
    insert into risk_private.payoffs (account_id, underlying_id, payoff)
    values (keep_payoff.account_id, keep_payoff.underlying_id, keep_payoff.payoff)
    on conflict on constraint payoffs_pkey do update set payoff = excluded.payoff;
  end if;
end
$$;
comment on function risk_private.keep_payoff(integer, integer, risk_private.payoff) is
  'Keeps the payoff of an account in one underlying where options are part of it. The caller '
  'holds the account.';

create function risk_private.obligation_change(
  account_id integer, underlying_id integer, has_held_changed boolean)
returns risk_private.obligation
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_legs risk_private.payoff_leg[] := risk_private.payoff_legs(account_id, underlying_id);
  v_payoff risk_private.payoff := risk_private.payoff_of(v_legs);
  a risk_private.obligation := risk_private.open_obligations_of(
    account_id, underlying_id, v_payoff);
  k risk_private.obligations;
begin
  if has_held_changed then
    a := risk_private.with_held(a, v_legs);
  end if;
  perform risk_private.keep_payoff(account_id, underlying_id, v_payoff);
  select o.* into k from risk_private.obligations as o
  where o.counter_id = risk_private.counter_id(
    obligation_change.account_id, 2, obligation_change.underlying_id);
  if found then
    a := row(a.bull - k.bull, a.bear - k.bear, a.max_loss - k.max_loss,
      a.unlimited - k.unlimited, a.cash_need - k.cash_need, a.held_bull - k.held_bull,
      a.held_bear - k.held_bear, a.held_loss - k.held_loss, a.held_unlimited - k.held_unlimited,
      a.held_need - k.held_need);
  end if;
  return a;
end
$$;
comment on function risk_private.obligation_change(integer, integer, boolean) is
  'By how much what is kept of an account''s obligations in one underlying differs from what its '
  'positions and open orders come to now, and keeps their payoff. Where only orders have changed '
  'it need not tell held_loss, held_unlimited and held_need (NULL). The caller holds the account.';

create function risk_private.order_change(
  held risk_private.positions, quantity numeric, amount numeric)
returns risk_private.obligation
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  i risk_private.instruments;
  v_payoff risk_private.payoff;
  v_loss numeric;
  v_long numeric := held.quantity + held.open_buy;
  v_short numeric := held.open_sell - held.quantity;
  v_bought numeric := greatest(0, order_change.quantity);
  v_sold numeric := greatest(0, -order_change.quantity);
  v_change risk_private.obligation;
begin
  select x.* into i from risk_private.instruments as x where x.instrument_id = held.instrument_id;
  update risk_private.payoffs as p
  set payoff = risk_private.with_order(p.payoff, row(i.kind, i.option_right, i.strike, i.expiry,
    i.multiplier, order_change.quantity, amount, '', 1)::risk_private.payoff_leg)
  where p.account_id = held.account_id and p.underlying_id = held.underlying_id
    and i.currency = risk_private.base_currency()
    and (i.kind <> 'option' or (i.strike = any ((p.payoff).prices)
      and i.expiry = any ((p.payoff).horizons)))
  returning (p.payoff).* into v_payoff;
  if not found then
    return risk_private.obligation_change(held.account_id, held.underlying_id, false);
  end if;
  v_loss := risk_private.worst_loss(v_payoff);
  select
    case when i.kind = 'option' then
      risk_private.side(i.option_right, i.multiplier, v_long, v_short)
      - risk_private.side(i.option_right, i.multiplier, v_long - v_bought, v_short - v_sold)
    else 0 end,
    case when i.kind = 'option' then
      risk_private.side(i.option_right, i.multiplier, v_short, v_long)
      - risk_private.side(i.option_right, i.multiplier, v_short - v_sold, v_long - v_bought)
    else 0 end,
    case when v_loss = 'Infinity' then 0 else v_loss end - o.max_loss,
    (v_loss = 'Infinity')::integer - o.unlimited, risk_private.cash_need(v_payoff) - o.cash_need
  into v_change
  from risk_private.obligations as o
  where o.counter_id = risk_private.counter_id(held.account_id, 2, held.underlying_id);
  return v_change;
end
$$;
comment on function risk_private.order_change(risk_private.positions, numeric, numeric) is
  'As obligation_change by a new order of one leg, which is stored and in its position; quantity '
  'and what it pays (amount) are signed. The caller holds the account.';

-- 36_obligations.sql
-- How what an account may come to owe moves the sums of its chain.

create function risk_private.obligation_keys(account_id integer, underlying_id integer)
returns table (scope_id integer, dimension integer, key_id integer)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select s.scope_id, d.dimension, d.key_id
  from risk_private.scopes as leaf
  join risk_private.scopes as s on s.scope_id = any (leaf.chain)
  join risk_private.instruments as i on i.instrument_id = obligation_keys.underlying_id
  cross join lateral (
    values (0, 0), (1, i.sector_id), (2, i.instrument_id)
  ) as d (dimension, key_id)
  where leaf.scope_id = obligation_keys.account_id and d.key_id is not null
    and (d.dimension = any (s.obligation_dimensions)
      or (d.dimension = 2 and s.scope_id = leaf.scope_id));
end
$$;
comment on function risk_private.obligation_keys(integer, integer) is
  'The rows of obligations that an account''s business in one underlying moves; its own is '
  'dimension 2. A sector is that of the underlying.';

create function risk_private.obligation_levels(
  account_id integer, underlying_id integer, at timestamptz)
returns risk_private.obligation_level[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select array_agg(row(
      risk_private.counter_id(s.scope_id, d.dimension), s.scope_id, d.dimension,
      case d.dimension
        when 2 then coalesce(l2.same_side, l1.same_side, l0.same_side, 'Infinity')
        else 'Infinity' end,
      coalesce((d.l).max_loss, 'Infinity'),
      coalesce((d.l).buying_power, 'Infinity'))::risk_private.obligation_level
      order by s.scope_id, d.dimension)
    from risk_private.scopes as leaf
    join risk_private.scopes as s on s.scope_id = any (leaf.chain)
    left join risk_private.instruments as u
      on u.instrument_id = obligation_levels.underlying_id
    left join risk_private.warning_levels as l0
      on l0.scope_id = s.scope_id and l0.dimension = 0 and l0.key_id = 0
      and at < l0.valid_until and l0.valid_from <= at
    left join risk_private.warning_levels as l1
      on l1.scope_id = s.scope_id and l1.dimension = 1 and l1.key_id = u.sector_id
      and at < l1.valid_until and l1.valid_from <= at
    left join risk_private.warning_levels as l2
      on l2.scope_id = s.scope_id and l2.dimension = 2 and l2.key_id = u.instrument_id
      and at < l2.valid_until and l2.valid_from <= at
    cross join lateral (values (0, l0), (1, l1), (2, l2)) as d (dimension, l)
    where leaf.scope_id = obligation_levels.account_id
      and (d.dimension = any (s.obligation_dimensions)
        or (d.dimension = 2 and s.scope_id = leaf.scope_id))
    having bool_or(s.obligation_dimensions <> '{}'));
end
$$;
comment on function risk_private.obligation_levels(integer, integer, timestamptz) is
  'The rows of obligations that an account''s orders in one underlying move, and the lowest values '
  'there from which a decision must be explained; underlying NULL: those that hold for all. NULL '
  'where no scope of the chain keeps any.';

-- Lock order: the caller holds the account; its chain's obligations only under the firm's counter.
create function risk_private.obligation_changes(account_id integer, underlying_ids integer[])
returns risk_private.obligations[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Rows are counted: where it is asked whether one exists, the plan may read the whole table.
  return array(
    select row(c.*)::risk_private.obligations
    from (
      select risk_private.counter_id(k.scope_id, k.dimension, k.key_id) as counter_id, k.scope_id,
        k.dimension::smallint, k.key_id, sum(a.bull) as bull, sum(a.bear) as bear,
        sum(a.max_loss) as max_loss, sum(a.unlimited)::integer as unlimited,
        sum(a.cash_need) as cash_need, sum(a.held_bull) as held_bull,
        sum(a.held_bear) as held_bear, sum(a.held_loss) as held_loss,
        sum(a.held_unlimited)::integer as held_unlimited, sum(a.held_need) as held_need
      from unnest(underlying_ids) as u (underlying_id)
      cross join lateral risk_private.obligation_change(
        obligation_changes.account_id, u.underlying_id, true) as a
      cross join lateral risk_private.obligation_keys(
        obligation_changes.account_id, u.underlying_id) as k
      group by k.scope_id, k.dimension, k.key_id
    ) as c
    where row(c.bull, c.bear, c.max_loss, c.unlimited, c.cash_need, c.held_bull, c.held_bear,
      c.held_loss, c.held_unlimited, c.held_need) <> row(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
      or 0 = (
        select count(*) from risk_private.obligations as o where o.counter_id = c.counter_id)
    order by 1);
end
$$;
comment on function risk_private.obligation_changes(integer, integer[]) is
  'What the rows of obligations that are kept on an account''s chain lack of what its positions '
  'and open orders in some underlyings come to now, whose payoffs it keeps.';

create function risk_private.move_obligations(changes risk_private.obligations[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.obligations as o
  select x.* from unnest(changes) as x
  on conflict (counter_id) do update set
    bull = o.bull + excluded.bull,
    bear = o.bear + excluded.bear,
    max_loss = o.max_loss + excluded.max_loss,
    unlimited = o.unlimited + excluded.unlimited,
    cash_need = o.cash_need + excluded.cash_need,
    held_bull = o.held_bull + excluded.held_bull,
    held_bear = o.held_bear + excluded.held_bear,
    held_loss = o.held_loss + excluded.held_loss,
    held_unlimited = o.held_unlimited + excluded.held_unlimited,
    held_need = o.held_need + excluded.held_need;
end
$$;
comment on function risk_private.move_obligations(risk_private.obligations[]) is
  'Adds changes to obligations. The caller holds the account and, above it, the firm''s counter.';

-- Lock order: the caller holds the account; then the firm's counter, and under it obligations.
create function risk_private.renew_obligations(account_id integer, underlying_ids integer[])
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_changes risk_private.obligations[];
begin
  if not exists (
    select from risk_private.account_levels as l
    where l.account_id = renew_obligations.account_id and l.obligations is not null) then
    return;
  end if;
  v_changes := risk_private.obligation_changes(account_id, underlying_ids);
  if cardinality(v_changes) > 0 then
    perform from risk_private.counters as c
    where c.counter_id = risk_private.counter_id((
      select s.chain[cardinality(s.chain)] from risk_private.scopes as s
      where s.scope_id = renew_obligations.account_id))
    for no key update;
    perform risk_private.move_obligations(v_changes);
  end if;
end
$$;
comment on function risk_private.renew_obligations(integer, integer[]) is
  'Brings what an account may come to owe in some underlyings up to date, for itself and its '
  'parents, after its positions, their cost or its orders have changed. Nothing is done where no '
  'limit needs it.';

create function risk_private.obligation_at(
  scope_id integer, dimension integer, key_id integer, measure text)
returns numeric
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select trim_scale(case measure
      when 'max_loss' then coalesce(case when o.unlimited > 0 then 'Infinity'
        else o.max_loss end, 0)
      when 'cash_need' then coalesce(o.cash_need, 0)
      when 'buying_power' then coalesce(o.cash_need, 0) - e.cash
    end)
    from (select) as one
    left join risk_private.obligations as o
      on o.counter_id = risk_private.counter_id(
        obligation_at.scope_id, obligation_at.dimension, obligation_at.key_id)
    left join risk_private.equities as e
      on e.scope_id = obligation_at.scope_id and e.unknown = 0);
end
$$;
comment on function risk_private.obligation_at(integer, integer, integer, text) is
  'What is kept of one measure at a scope: max_loss, Infinity where it is without bound; '
  'cash_need; buying_power, which is that less cash, NULL while a currency below has no rate.';

create function risk_private.recount_obligations(scope_id integer default null)
returns setof risk_private.obligations
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select risk_private.counter_id(k.scope_id, k.dimension, k.key_id), k.scope_id,
    k.dimension::smallint, k.key_id, sum(a.bull), sum(a.bear), sum(a.max_loss),
    sum(a.unlimited)::integer, sum(a.cash_need), sum(a.held_bull), sum(a.held_bear),
    sum(a.held_loss), sum(a.held_unlimited)::integer, sum(a.held_need)
  from (
    select distinct p.account_id, p.underlying_id
    from risk_private.positions as p
    join risk_private.scopes as leaf on leaf.scope_id = p.account_id
    where (p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0)
      and (recount_obligations.scope_id is null
        or leaf.chain @> array[recount_obligations.scope_id])
      and exists (
        select from risk_private.scopes as s
        where s.scope_id = any (leaf.chain) and s.obligation_dimensions <> '{}')
  ) as u
  cross join lateral risk_private.obligations_of(u.account_id, u.underlying_id) as a
  cross join lateral risk_private.obligation_keys(u.account_id, u.underlying_id) as k
  join risk_private.scopes as s on s.scope_id = k.scope_id
  where recount_obligations.scope_id is null or s.chain @> array[recount_obligations.scope_id]
  group by k.scope_id, k.dimension, k.key_id;
end
$$;
comment on function risk_private.recount_obligations(integer) is
  'Obligations as positions and open orders say: of one scope and all below it, or of all.';

-- Lock order: accounts below, ascending. The rows it makes are nobody's yet.
create function risk_private.track_obligations(scope_id integer, dimension integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select from risk_private.scopes as s
    where s.scope_id = track_obligations.scope_id
      and dimension = any (s.obligation_dimensions)
  ) then
    return;
  end if;
  perform risk_private.lock_accounts_below(array[scope_id]);
  update risk_private.scopes as s
  set obligation_dimensions = s.obligation_dimensions || dimension
  where s.scope_id = track_obligations.scope_id;
  insert into risk_private.obligations
  select r.* from risk_private.recount_obligations(scope_id) as r
  on conflict (counter_id) do nothing;
  perform risk_private.compile_account_levels(scope_id, risk_private.clock());
end
$$;
comment on function risk_private.track_obligations(integer, integer) is
  'Starts keeping obligations at a scope, for all (0), per sector (1) or per underlying (2), exact '
  'while orders flow.';

-- 37_unit_values.sql
-- What one unit of a position is worth, and moves by, at the present marks. Positions carry these
-- values, so that decisions and fills add and subtract the same; revaluation moves them.

-- offset 0: marks and rates are looked up by key, whatever the statistics say. The trading date is
-- not looked up for what never expires.
create view risk_private.unit_values as
select
  n.instrument_id, n.price * n.factor as unit_value, abs(n.price) * n.factor as unit_notional,
  g.delta * n.multiplier as unit_delta, g.gamma * n.multiplier as unit_gamma,
  g.delta * coalesce(s.price, 0) * n.factor as unit_dollar_delta,
  g.gamma * coalesce(s.price * s.price, 0) * 0.01 * n.factor
    as unit_dollar_gamma,
  g.vega * n.factor as unit_vega, g.theta * n.factor as unit_theta, k.has_greeks
from (
  select i.instrument_id, i.kind, i.underlying_id, i.expiry, i.multiplier,
    i.multiplier * f.rate as factor, m.price, m.delta, m.gamma, m.vega, m.theta
  from risk_private.instruments as i
  cross join lateral (
    select m.price, m.delta, m.gamma, m.vega, m.theta
    from risk_private.marks as m where m.instrument_id = i.instrument_id
    offset 0
  ) as m
  cross join lateral (
    select f.rate from risk_private.fx_rates as f where f.currency = i.currency
    offset 0
  ) as f
) as n
left join risk_private.marks as s on s.instrument_id = n.underlying_id
cross join lateral (
  select case when n.expiry is null then false
    else n.expiry < (select risk_private.trading_date()) end as is_expired
) as e
cross join lateral (
  select e.is_expired or s.price is not null and (n.kind <> 'option' or coalesce(
    greatest(abs(n.delta), abs(n.gamma), abs(n.vega), abs(n.theta)) < 'Infinity'
    and num_nulls(n.delta, n.gamma, n.vega, n.theta) = 0, false)) as has_greeks,
    e.is_expired
  offset 0
) as k
cross join lateral (
  select
    case when k.is_expired or not k.has_greeks then 0 when n.kind <> 'option' then 1
      else pg_catalog.round(n.delta::numeric, 12) end as delta,
    case when k.is_expired or not k.has_greeks or n.kind <> 'option' then 0
      else pg_catalog.round(n.gamma::numeric, 12) end as gamma,
    case when k.is_expired or not k.has_greeks or n.kind <> 'option' then 0
      else pg_catalog.round(n.vega::numeric, 12) end as vega,
    case when k.is_expired or not k.has_greeks or n.kind <> 'option' then 0
      else pg_catalog.round(n.theta::numeric, 12) end as theta
  offset 0
) as g;
comment on view risk_private.unit_values is
  'Per marked instrument whose currency has a rate, in base currency: value and |value| of one '
  'unit; delta and gamma in share equivalents; delta and gamma (per 1 %) in money at the '
  'underlying''s mark; vega per volatility point, theta per day. Stocks, ETFs, indexes and futures '
  'have a delta of 1; what has expired has none. has_greeks: false where they are unknown (an '
  'option without one of its Greeks, or no mark of the underlying); they are 0 then.';

create function risk_private.valued(
  units risk_private.unit_values, instrument_id integer, unit_value numeric)
returns risk_private.unit_values
language sql immutable
return case
  when (units).instrument_id is not null then units
  else row(instrument_id, unit_value, abs(unit_value), 0, 0, 0, 0, 0, 0,
    false)::risk_private.unit_values end;
comment on function risk_private.valued(risk_private.unit_values, integer, numeric) is
  'The unit values or, where there are none for want of a mark, that value and unknown Greeks.';

create function risk_private.carried(
  p risk_private.positions, present risk_private.unit_values)
returns risk_private.unit_values
language sql immutable
return case
  when p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0 then row(
    p.instrument_id, p.unit_value, p.unit_notional, p.unit_delta, p.unit_gamma,
    p.unit_dollar_delta, p.unit_dollar_gamma, p.unit_vega, p.unit_theta,
    p.has_greeks)::risk_private.unit_values
  else present end;
comment on function risk_private.carried(risk_private.positions, risk_private.unit_values) is
  'The values at which a position is carried: its own while anything is held or open, else the '
  'present ones.';

create function risk_private.is_flat(quantity numeric, open_buy numeric, open_sell numeric)
returns boolean
language sql immutable
return 0 = all (array[quantity, open_buy, open_sell]);
comment on function risk_private.is_flat(numeric, numeric, numeric) is
  'Whether a position has nothing held or open: then an order or fill picks up the present values.';

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

create function risk_private.flush_by_commit() returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('synchronous_commit') not in ('on', 'remote_apply') then
    perform set_config('synchronous_commit', 'on', true);
  end if;
  return pg_logical_emit_message(true, 'pgrisk', '') is not null;
end
$$;
comment on function risk_private.flush_by_commit() is
  'Makes the coming commit wait until everything committed so far is durable: WAL is ordered.';

-- From PostgreSQL 17 on, WAL can be flushed here and now: nothing that is not durable is told, even
-- to a caller who sits in a transaction. Only the commit waits for a synchronous standby.
-- One expression, so that it is inlined: every answer is flushed. A server brought up from 16 with
-- its databases goes on flushing by the commit.
do $$
begin
  execute 'create function risk_private.flush() returns boolean language sql volatile return '
    || case when current_setting('server_version_num')::integer < 170000
      then 'risk_private.flush_by_commit()'
      else $sql$case when pg_catalog.current_setting('synchronous_standby_names') = ''
        then pg_catalog.pg_logical_emit_message(false, 'pgrisk', '', true) is not null
        else risk_private.flush_by_commit() end$sql$ end;
end
$$;
comment on function risk_private.flush() is
  'Makes everything committed so far durable, at once or by the coming commit. It holds no lock '
  'meanwhile.';

create view risk_private.granted_scopes as
select g.scope_id
from risk_private.trading_grants as g
where pg_catalog.pg_has_role(risk_private.caller(), g.role_id, 'member');
comment on view risk_private.granted_scopes is
  'The scopes that the caller was granted to trade, with all below them.';

create function risk_private.may_trade(chain integer[]) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return risk_private.is_owner()
    or exists (select from risk_private.granted_scopes as g where g.scope_id = any (chain));
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
create function risk_private.are_fresh(
  oldest timestamptz, newest timestamptz, max_age double precision, at timestamptz)
returns boolean
language sql stable
return coalesce(
  max_age = 0 or (
    newest <= at + interval '1 second'
    and oldest >= at - pg_catalog.make_interval(secs => max_age)), false);
comment on function risk_private.are_fresh(
  timestamptz, timestamptz, double precision, timestamptz) is
  'Whether data is at most max_age seconds old and not from the future (a second of clock skew is '
  'tolerated); 0: any age.';

create function risk_private.is_fresh(
  as_of timestamptz, max_age double precision, at timestamptz) returns boolean
language sql stable
return risk_private.are_fresh(as_of, as_of, max_age, at);
comment on function risk_private.is_fresh(timestamptz, double precision, timestamptz) is
  'Likewise of one time.';

create function risk_private.fingerprint(
  instrument_ids integer[], ratios integer[], quantity numeric, price numeric)
returns bigint
language sql stable
return pg_catalog.hash_record_extended(row(instrument_ids, ratios, quantity, price), 0);
comment on function risk_private.fingerprint(integer[], integer[], numeric, numeric) is
  'What makes two orders of an account duplicates: legs with their sides, quantity and price. Of '
  '64 bits: two others have the same once in 10^19.';

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
  units risk_private.unit_values
);
comment on type risk_private.movement is
  'What happens to one account''s instrument: increments, and the unit values at which a flat '
  'position is picked up. Arrays of it hold each (account, instrument) once.';

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
  accepted_orders integer default 0, units risk_private.unit_values default null)
returns risk_private.movement
language sql immutable
return row(account_id, instrument_id, quantity, open_buy, open_sell, traded_notional, open_orders,
           accepted_orders,
           risk_private.valued(units, instrument_id, 0))::risk_private.movement;
comment on function risk_private.movement(
  integer, integer, numeric, numeric, numeric, numeric, integer, integer,
  risk_private.unit_values) is
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
      (m.after - m.before) * case when m.before = 0 then (m.units).unit_notional
        else m.carried_at end as gross_notional,
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

create function risk_private.rate_changes(changes risk_private.change[])
returns risk_private.rate_change[]
language sql immutable
set search_path = pg_catalog, pg_temp
begin atomic
  select pg_catalog.array_agg(row(
    x.counter_id, x.accepted_orders, (x.level).order_rate,
    (x.level).order_rate_minute)::risk_private.rate_change)
  from unnest(changes) as x where x.keeps_rate;
end;
comment on function risk_private.rate_changes(risk_private.change[]) is
  'Those changes that a rate looks back on; NULL: none.';

create function risk_private.move_positions(movements risk_private.movement[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.positions as p (
    account_id, instrument_id, underlying_id, quantity, open_buy, open_sell, unit_value,
    unit_notional, unit_delta, unit_gamma, unit_dollar_delta, unit_dollar_gamma, unit_vega,
    unit_theta, has_greeks)
  select m.account_id, m.instrument_id, i.underlying_id, m.quantity, m.open_buy, m.open_sell,
    u.unit_value, u.unit_notional, u.unit_delta, u.unit_gamma, u.unit_dollar_delta,
    u.unit_dollar_gamma, u.unit_vega, u.unit_theta, u.has_greeks
  from unnest(movements) as m
  join risk_private.instruments as i on i.instrument_id = m.instrument_id
  left join risk_private.positions as h
    on h.account_id = m.account_id and h.instrument_id = m.instrument_id
  cross join lateral risk_private.carried(h, m.units) as u
  on conflict (account_id, instrument_id) do update set
    quantity = p.quantity + excluded.quantity,
    open_buy = p.open_buy + excluded.open_buy,
    open_sell = p.open_sell + excluded.open_sell,
    unit_value = excluded.unit_value,
    unit_notional = excluded.unit_notional,
    unit_delta = excluded.unit_delta,
    unit_gamma = excluded.unit_gamma,
    unit_dollar_delta = excluded.unit_dollar_delta,
    unit_dollar_gamma = excluded.unit_dollar_gamma,
    unit_vega = excluded.unit_vega,
    unit_theta = excluded.unit_theta,
    has_greeks = excluded.has_greeks;
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

-- 40_greek_levels.sql
-- Where exposures are kept, and the warning levels that they are compared with.

create function risk_private.keeps_exposures(account_id integer) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select from risk_private.account_levels as l
    where l.account_id = keeps_exposures.account_id and l.exposures is not null);
end
$$;
comment on function risk_private.keeps_exposures(integer) is
  'Whether any scope of an account''s chain keeps exposures.';

-- Positions may carry no Greeks before: they are carried at the present ones first.
-- Lock order: accounts below, ascending; then, account by account, the counters of its chain.
create function risk_private.track_exposures(scope_id integer, dimension integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select from risk_private.scopes as s
    where s.scope_id = track_exposures.scope_id
      and track_exposures.dimension = any (s.exposure_dimensions)) then
    return;
  end if;
  perform risk_private.lock_accounts_below(array[scope_id]);
  perform risk_private.revalue(a.scope_id, array(
    select p.instrument_id from risk_private.positions as p where p.account_id = a.scope_id))
  from (
    select s.scope_id from risk_private.scopes as s
    where s.is_leaf and s.chain @> array[track_exposures.scope_id]
    order by s.scope_id
  ) as a;
  update risk_private.scopes as s set
    exposure_dimensions = s.exposure_dimensions || track_exposures.dimension
  where s.scope_id = track_exposures.scope_id;
  insert into risk_private.exposures
  select r.* from risk_private.recount_exposures(track_exposures.scope_id) as r
  where r.dimension = track_exposures.dimension;
  perform risk_private.compile_account_levels(scope_id, risk_private.clock());
end
$$;
comment on function risk_private.track_exposures(integer, integer) is
  'Starts keeping exposures in a dimension at a scope, exact while orders flow.';

create function risk_private.exposure_levels(
  account_id integer, sector_id integer, underlying_id integer, instrument_id integer,
  at timestamptz)
returns risk_private.exposure_level[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select array_agg(row(
      risk_private.counter_id(s.scope_id, d.dimension), s.scope_id, d.dimension,
      case d.dimension when 2 then coalesce(l2.delta, lu.delta, l0.delta, 'Infinity')
        else 'Infinity' end,
      case d.dimension when 2 then coalesce(l2.gamma, lu.gamma, l0.gamma, 'Infinity')
        else 'Infinity' end,
      coalesce((k.l).net_exposure, 'Infinity'), coalesce((k.l).dollar_gamma, 'Infinity'),
      coalesce((k.l).vega, 'Infinity'), coalesce((k.l).theta, 'Infinity'),
      coalesce((k.l).gross_exposure, 'Infinity'),
      coalesce(case d.dimension when 1 then l1.concentration_pct
        when 2 then coalesce(l2.concentration_pct, l0.concentration_pct) end,
        'Infinity'))::risk_private.exposure_level
      order by s.scope_id, d.dimension)
    from risk_private.scopes as leaf
    join risk_private.scopes as s on s.scope_id = any (leaf.chain)
    cross join unnest(s.exposure_dimensions) as d (dimension)
    left join risk_private.instruments as u on u.instrument_id = exposure_levels.underlying_id
    left join risk_private.warning_levels as l0
      on l0.scope_id = s.scope_id and l0.dimension = 0 and l0.key_id = 0
      and at < l0.valid_until and l0.valid_from <= at
    left join risk_private.warning_levels as l1
      on l1.scope_id = s.scope_id and l1.dimension = 1 and l1.key_id = exposure_levels.sector_id
      and at < l1.valid_until and l1.valid_from <= at
    left join risk_private.warning_levels as lu
      on lu.scope_id = s.scope_id and lu.dimension = 1 and lu.key_id = u.sector_id
      and at < lu.valid_until and lu.valid_from <= at
    left join risk_private.warning_levels as l2
      on l2.scope_id = s.scope_id and l2.dimension = 2
      and l2.key_id = exposure_levels.underlying_id
      and at < l2.valid_until and l2.valid_from <= at
    left join risk_private.warning_levels as l3
      on l3.scope_id = s.scope_id and l3.dimension = 3
      and l3.key_id = exposure_levels.instrument_id
      and at < l3.valid_until and l3.valid_from <= at
    cross join lateral (
      select case d.dimension when 0 then l0 when 1 then l1 when 2 then l2 else l3 end as l
    ) as k
    where leaf.scope_id = exposure_levels.account_id);
end
$$;
comment on function risk_private.exposure_levels(integer, integer, integer, integer, timestamptz)
is
  'The rows of exposures that an account''s orders in one instrument move, and the lowest values '
  'there from which a decision must be explained; keys NULL: those that hold for all. Limits per '
  'underlying go by the sector of the underlying. NULL where no scope of the chain keeps any.';

-- 40_greeks.sql
-- Exposures: how Greeks, netted over each order and summed over accounts, move with orders, fills
-- and marks. Whatever happens is a list of parts; sum_exposures makes of them what every row of
-- exposures gains. Only 41_accept_greeks.sql has forms of its own, for speed.
--
-- Lock order: the account, the counters of its chain up to the firm; only then exposures, which
-- nobody else can touch at that moment.

create type risk_private.exposure_part as (
  account_id integer,
  instrument_id integer,
  client_order_id text,
  sign integer,
  quantity numeric,
  gross_exposure numeric,
  unknown integer,
  unit_delta numeric,
  unit_gamma numeric,
  unit_dollar_delta numeric,
  unit_dollar_gamma numeric,
  unit_vega numeric,
  unit_theta numeric
);
comment on type risk_private.exposure_part is
  'Quantity of an instrument at unit Greeks: of a position (client_order_id NULL: what it gains), '
  'or the signed rest of a leg of an open order, which comes (sign 1) or goes (sign -1).';

create function risk_private.raised(effect numeric, is_held boolean, sign integer) returns numeric
language sql immutable
return case when is_held then effect else sign * greatest(0, effect) end;
comment on function risk_private.raised(numeric, boolean, integer) is
  'What the upper side of a measure gains by what is held, or by an order that comes (sign 1) or '
  'goes (sign -1).';

create function risk_private.lowered(effect numeric, is_held boolean, sign integer) returns numeric
language sql immutable
return case when is_held then effect else sign * least(0, effect) end;
comment on function risk_private.lowered(numeric, boolean, integer) is
  'The same of the lower side.';

create function risk_private.sum_exposures(parts risk_private.exposure_part[])
returns setof risk_private.exposures
language sql stable
begin atomic
  with chains as (
    select leaf.scope_id as account_id, s.scope_id, d.dimension
    from risk_private.scopes as leaf
    join risk_private.scopes as s on s.scope_id = any (leaf.chain)
    cross join unnest(s.exposure_dimensions) as d (dimension)
    where leaf.scope_id = any (array(select distinct a.account_id from unnest(parts) as a))
  ), effects as (
    select a.account_id, d.dimension, d.key_id, a.client_order_id is null as is_held, a.sign,
      sum(a.gross_exposure) as gross_exposure, sum(a.unknown) as unknown,
      sum(a.quantity * a.unit_delta) as delta,
      sum(a.quantity * a.unit_gamma) as gamma,
      sum(a.quantity * a.unit_dollar_delta) as dollar_delta,
      sum(a.quantity * a.unit_dollar_gamma) as dollar_gamma,
      sum(a.quantity * a.unit_vega) as vega,
      sum(a.quantity * a.unit_theta) as theta
    from unnest(parts) as a
    join risk_private.instruments as i on i.instrument_id = a.instrument_id
    cross join lateral (
      values (0, 0), (1, i.sector_id), (2, i.underlying_id), (3, i.instrument_id)
    ) as d (dimension, key_id)
    where d.key_id is not null and d.dimension = any (array(select c.dimension from chains as c))
    group by a.account_id, d.dimension, d.key_id, a.client_order_id, a.sign
  ), summed as (
    select e.account_id, e.dimension, e.key_id, sum(e.gross_exposure) as gross_exposure,
      sum(e.unknown) as unknown,
      coalesce(sum(e.delta) filter (where e.is_held), 0) as delta,
      sum(risk_private.raised(e.delta, e.is_held, e.sign)) as delta_up,
      sum(risk_private.lowered(e.delta, e.is_held, e.sign)) as delta_down,
      coalesce(sum(e.gamma) filter (where e.is_held), 0) as gamma,
      sum(risk_private.raised(e.gamma, e.is_held, e.sign)) as gamma_up,
      sum(risk_private.lowered(e.gamma, e.is_held, e.sign)) as gamma_down,
      coalesce(sum(e.dollar_delta) filter (where e.is_held), 0) as dollar_delta,
      sum(risk_private.raised(e.dollar_delta, e.is_held, e.sign)) as dollar_delta_up,
      sum(risk_private.lowered(e.dollar_delta, e.is_held, e.sign)) as dollar_delta_down,
      coalesce(sum(e.dollar_gamma) filter (where e.is_held), 0) as dollar_gamma,
      sum(risk_private.raised(e.dollar_gamma, e.is_held, e.sign)) as dollar_gamma_up,
      sum(risk_private.lowered(e.dollar_gamma, e.is_held, e.sign)) as dollar_gamma_down,
      coalesce(sum(e.vega) filter (where e.is_held), 0) as vega,
      sum(risk_private.raised(e.vega, e.is_held, e.sign)) as vega_up,
      sum(risk_private.lowered(e.vega, e.is_held, e.sign)) as vega_down,
      coalesce(sum(e.theta) filter (where e.is_held), 0) as theta,
      sum(risk_private.raised(e.theta, e.is_held, e.sign)) as theta_up,
      sum(risk_private.lowered(e.theta, e.is_held, e.sign)) as theta_down
    from effects as e
    group by e.account_id, e.dimension, e.key_id
  )
  select risk_private.counter_id(c.scope_id, s.dimension, s.key_id), c.scope_id,
    s.dimension::smallint, s.key_id,
    sum(s.delta), sum(s.delta_up), sum(s.delta_down), sum(s.gamma), sum(s.gamma_up),
    sum(s.gamma_down), sum(s.dollar_delta), sum(s.dollar_delta_up), sum(s.dollar_delta_down),
    sum(s.dollar_gamma), sum(s.dollar_gamma_up), sum(s.dollar_gamma_down), sum(s.vega),
    sum(s.vega_up), sum(s.vega_down), sum(s.theta), sum(s.theta_up), sum(s.theta_down),
    sum(s.gross_exposure), sum(s.unknown)::integer
  from summed as s
  join chains as c on c.account_id = s.account_id and c.dimension = s.dimension
  group by c.scope_id, s.dimension, s.key_id;
end;
comment on function risk_private.sum_exposures(risk_private.exposure_part[]) is
  'What parts add to each row of exposures of their chains.';

create function risk_private.order_parts(legs risk_private.working_legs[], sign integer)
returns setof risk_private.exposure_part
language sql stable
begin atomic
  select p.account_id, p.instrument_id, w.client_order_id, order_parts.sign,
    pg_catalog.sign(w.ratio::numeric) * w.open_quantity, 0, 0,
    p.unit_delta, p.unit_gamma, p.unit_dollar_delta, p.unit_dollar_gamma, p.unit_vega, p.unit_theta
  from unnest(legs) as w
  join risk_private.positions as p
    on p.account_id = w.account_id and p.instrument_id = w.instrument_id
  where w.open_quantity > 0;
end;
comment on function risk_private.order_parts(risk_private.working_legs[], integer) is
  'The parts of open orders, at the values that positions carry.';

create function risk_private.position_parts(movements risk_private.movement[])
returns setof risk_private.exposure_part
language sql stable
begin atomic
  select p.account_id, p.instrument_id, null::text, 1, m.quantity,
    (w.after - w.before) * abs(p.unit_dollar_delta),
    case when p.has_greeks then 0 else (w.after <> 0)::integer - (w.before <> 0)::integer end,
    p.unit_delta, p.unit_gamma, p.unit_dollar_delta, p.unit_dollar_gamma, p.unit_vega, p.unit_theta
  from unnest(movements) as m
  join risk_private.positions as p
    on p.account_id = m.account_id and p.instrument_id = m.instrument_id
  cross join lateral (
    select risk_private.worst_case(p.quantity, p.open_buy, p.open_sell) as after,
      risk_private.worst_case(p.quantity - m.quantity, p.open_buy - m.open_buy,
        p.open_sell - m.open_sell) as before
    offset 0
  ) as w;
end;
comment on function risk_private.position_parts(risk_private.movement[]) is
  'The parts of positions that have just moved.';

create function risk_private.add_exposures(parts risk_private.exposure_part[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_changes risk_private.exposures[] := array(
    select x from risk_private.sum_exposures(parts) as x order by x.counter_id);
begin
  insert into risk_private.exposures (counter_id, scope_id, dimension, key_id)
  select x.counter_id, x.scope_id, x.dimension, x.key_id from unnest(v_changes) as x
  where not exists (
    select from risk_private.exposures as e where e.counter_id = x.counter_id);
  update risk_private.exposures as e set
    delta = e.delta + x.delta,
    delta_up = e.delta_up + x.delta_up,
    delta_down = e.delta_down + x.delta_down,
    gamma = e.gamma + x.gamma,
    gamma_up = e.gamma_up + x.gamma_up,
    gamma_down = e.gamma_down + x.gamma_down,
    dollar_delta = e.dollar_delta + x.dollar_delta,
    dollar_delta_up = e.dollar_delta_up + x.dollar_delta_up,
    dollar_delta_down = e.dollar_delta_down + x.dollar_delta_down,
    dollar_gamma = e.dollar_gamma + x.dollar_gamma,
    dollar_gamma_up = e.dollar_gamma_up + x.dollar_gamma_up,
    dollar_gamma_down = e.dollar_gamma_down + x.dollar_gamma_down,
    vega = e.vega + x.vega,
    vega_up = e.vega_up + x.vega_up,
    vega_down = e.vega_down + x.vega_down,
    theta = e.theta + x.theta,
    theta_up = e.theta_up + x.theta_up,
    theta_down = e.theta_down + x.theta_down,
    gross_exposure = e.gross_exposure + x.gross_exposure,
    unknown = e.unknown + x.unknown
  from unnest(v_changes) as x
  where e.counter_id = x.counter_id;
end
$$;
comment on function risk_private.add_exposures(risk_private.exposure_part[]) is
  'Adds parts to exposures. The caller has locked the counters of the chain.';

create function risk_private.move_exposures(
  account_id integer, movements risk_private.movement[], before risk_private.working_legs[],
  after risk_private.working_legs[])
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if risk_private.keeps_exposures(account_id) then
    perform risk_private.add_exposures(array(
      select p from risk_private.position_parts(movements) as p
      union all
      select p from risk_private.order_parts(before, -1) as p
      union all
      select p from risk_private.order_parts(after, 1) as p));
  end if;
end
$$;
comment on function risk_private.move_exposures(
  integer, risk_private.movement[], risk_private.working_legs[], risk_private.working_legs[]) is
  'Lets exposures follow movements of an account that were just applied, and the orders that were '
  'and are open instead. The caller has locked the counters of the chain.';

create function risk_private.revaluation_parts(
  account_id integer, units risk_private.unit_values[])
returns setof risk_private.exposure_part
language sql stable
begin atomic
  select p.account_id, p.instrument_id, w.client_order_id, n.sign,
    pg_catalog.sign(w.ratio::numeric) * w.open_quantity, 0, 0,
    v.unit_delta, v.unit_gamma, v.unit_dollar_delta, v.unit_dollar_gamma, v.unit_vega, v.unit_theta
  from risk_private.working_legs as w
  join risk_private.positions as p
    on p.account_id = w.account_id and p.instrument_id = w.instrument_id
  left join unnest(units) as u on u.instrument_id = w.instrument_id
  cross join (values (1), (-1)) as n (sign)
  cross join lateral (
    select (k.units).* from (
      select case when n.sign = 1 and u.instrument_id is not null then u
        else risk_private.carried(p, null) end as units
      offset 0
    ) as k
  ) as v
  where w.account_id = revaluation_parts.account_id and w.open_quantity > 0
    and (w.legs > 1 or u.instrument_id is not null);
end;
comment on function risk_private.revaluation_parts(integer, risk_private.unit_values[]) is
  'The parts of an account''s open orders where its positions are carried at these values instead; '
  'of combos, whose legs net, all legs.';

create function risk_private.greek_sides(
  x risk_private.exposures, limit_type text, out net numeric, out up numeric, out down numeric)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  case limit_type
    when 'delta' then net := x.delta; up := x.delta_up; down := x.delta_down;
    when 'gamma' then net := x.gamma; up := x.gamma_up; down := x.gamma_down;
    when 'net_exposure' then
      net := x.dollar_delta; up := x.dollar_delta_up; down := x.dollar_delta_down;
    when 'dollar_gamma' then
      net := x.dollar_gamma; up := x.dollar_gamma_up; down := x.dollar_gamma_down;
    when 'vega' then net := x.vega; up := x.vega_up; down := x.vega_down;
    when 'theta' then net := x.theta; up := x.theta_up; down := x.theta_down;
    when 'gross_exposure' then up := x.gross_exposure; down := 0;
    else null;
  end case;
end
$$;
comment on function risk_private.greek_sides(risk_private.exposures, text) is
  'What a row of exposures says of a type of limit: filled, and both sides with open orders. '
  'gross_exposure has one side, and no figure of what is filled.';

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
    c.quantity + c.open_buy + open_buy < l.long_position
    and c.open_sell + open_sell - c.quantity < l.short_position
    and (not l.self_cross or least(c.open_buy + open_buy, c.open_sell + open_sell) = 0)));
comment on function risk_private.is_below(
  risk_private.counters, risk_private.counter_level, numeric, numeric, numeric, numeric, numeric,
  integer, integer) is
  'Whether every measure of a counter, so increased, stays below its warning level: then no limit'
  ' on it can fail. Orders of an account on one side only cannot cross each other.';

-- Asked where fewer moved than there are levels: to gather their dimensions is not free.
create function risk_private.are_all(moved integer, dimensions integer[], keys integer[])
returns boolean
language sql immutable
return moved = pg_catalog.cardinality(dimensions)
  - case when keys[1] is null
    then pg_catalog.cardinality(pg_catalog.array_positions(dimensions, 1)) else 0 end;
comment on function risk_private.are_all(integer, integer[], integer[]) is
  'Whether as many rows moved as there are levels of these dimensions: without a sector (the first '
  'key NULL) there is no row for it.';

-- One long function and no branch that is not needed, because this is what every order waits for:
-- each operator, plan node and call costs. What most orders do not need is done by others, and
-- asked for in an `if` of its own: what an expression names is set up even where it is not
-- evaluated.
-- Lock order: the account, then the counters of its chain, ascending.
create function risk_private.accept_order(
  account text, client_order_id text, symbol text, side text, quantity numeric, price numeric,
  agent text, time_in_force text, in_line boolean)
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_bitmapscan = off
as $$
declare
  v_is_buy boolean;
  v_is_admitted boolean;
  v_account_id integer;
  v_counter_id bigint;
  v_chain integer[];
  v_mark_age double precision;
  v_heartbeat_age double precision;
  v_required_types bit(32);
  v_at timestamptz;
  v_levels risk_private.account_levels;
  i record;
  v_units risk_private.unit_values;
  v_buy numeric;
  v_sell numeric;
  v_unit_price numeric;
  v_traded numeric;
  v_position record;
  v_long numeric;
  v_short numeric;
  v_after numeric;
  v_growth numeric;
  v_notional numeric;
  v_opened integer;
  v_gross_position numeric;
  v_gross_notional numeric;
  v_traded_notional numeric;
  v_open_orders integer;
  v_open_positions integer;
  v_accepted_orders bigint;
  v_moved integer;
  v_delta numeric;
  v_dollar_delta numeric;
  v_gross_exposure numeric;
  v_gamma numeric;
  v_dollar_gamma numeric;
  v_vega numeric;
  v_theta numeric;
  v_has_room boolean;
  v_obligation risk_private.obligation;
begin
  -- A few orders in hand keep the firm's row busy. More would wait for it and each other holding
  -- their accounts, so they wait in line holding nothing. No place in line waits for an account.
  if in_line then
    v_is_admitted := pg_advisory_xact_lock(
      hashtext('risk_private.accept_order'), pg_backend_pid() % 4) is not null;
  else
    perform from risk_private.scopes as s
    join risk_private.counters as c on c.counter_id = s.counter_id
    where s.code = account
    for no key update of c;
  end if;
  select s.scope_id, s.counter_id, s.chain, s.max_mark_age, s.max_heartbeat_age, s.required_types,
    side = 'buy', set_config('synchronous_commit', 'off', true)
  into v_account_id, v_counter_id, v_chain, v_mark_age, v_heartbeat_age, v_required_types, v_is_buy
  from risk_private.scopes as s
  where s.code = account;
  select c.gross_position, c.gross_notional, c.traded_notional, c.open_orders, c.open_positions,
    c.accepted_orders, risk_private.clock()
  into v_gross_position, v_gross_notional, v_traded_notional, v_open_orders, v_open_positions,
    v_accepted_orders, v_at
  from risk_private.counters as c
  where c.counter_id = v_counter_id
  for no key update skip locked;
  if in_line and v_at is null then
    return 0;
  end if;

  select l.* into v_levels
  from risk_private.account_levels as l where l.account_id = v_account_id;

  -- The subqueries have a place of their own: where a statement has them itself, all of it is gone
  -- through once more every time its plan is used. offset 0: the mark is looked up by key, whatever
  -- the statistics say.
  select p.instrument_id, p.sector_id, p.underlying_id, p.kind, p.currency, m.price,
    case when v_is_buy then coalesce(m.ask, m.price) else coalesce(m.bid, m.price) end as reference,
    array[p.sector_id, p.underlying_id, p.instrument_id] as keys, p.multiplier as factor, m.as_of,
    m.as_of as underlying_as_of, null::timestamptz as rate_as_of, s.is_granted
  into i
  from risk_private.instruments as p
  cross join lateral (
    select m.price, m.bid, m.ask, m.as_of
    from risk_private.marks as m where m.instrument_id = p.instrument_id
    offset 0
  ) as m
  cross join lateral (
    select
      exists (select from risk_private.granted_scopes as g where g.scope_id = any (v_chain))
        as is_granted,
      exists (
        select from risk_private.trading_states as t
        where t.scope_id = any (v_chain) and t.underlying_id in (0, p.underlying_id)
          and t.state <> 'ACTIVE'
      ) as is_halted
  ) as s
  where p.symbol = accept_order.symbol and p.status = 'ACTIVE'
    and (p.expiry is null or p.expiry >= risk_private.trading_date())
    and accept_order.quantity % p.lot = 0
    and (accept_order.price is null or p.tick is null or accept_order.price % p.tick = 0)
    and least(
      accept_order.quantity, case when not p.allow_negative_price then accept_order.price end) > 0
    and not s.is_halted;
  if i.is_granted is not true then
    if i.instrument_id is null or not risk_private.is_owner() then
      return v_account_id;
    end if;
  end if;

  if v_levels.is_narrowed or v_at < v_levels.valid_from or v_at >= v_levels.valid_until then
    if v_at < v_levels.valid_from or v_at >= v_levels.valid_until then
      perform risk_private.refresh_account_levels(v_account_id, v_at);
    end if;
    v_levels := risk_private.kept_levels(
      v_levels, i.sector_id, i.underlying_id, i.instrument_id, v_at);
  end if;

  -- What is its own underlying, in the base currency, which is at 1, needs neither.
  if i.underlying_id <> i.instrument_id then
    select u.as_of into i.underlying_as_of
    from risk_private.marks as u where u.instrument_id = i.underlying_id;
  end if;
  if i.currency <> risk_private.base_currency() then
    select i.factor * f.rate, f.as_of into i.factor, i.rate_as_of
    from risk_private.fx_rates as f where f.currency = i.currency;
  end if;

  v_unit_price := abs(case when v_is_buy then coalesce(price, i.reference)
    else greatest(price, i.reference) end) * i.factor;
  v_traded := quantity * v_unit_price;
  -- greatest() and least() pass over NULL: no price, agent or rate to look at.
  if (greatest(quantity, abs(price)) <= 1e12
      and greatest(min_scale(quantity), min_scale(price)) <= 8
      and quantity < v_levels.order_quantity and v_traded < v_levels.order_notional
      and v_levels.types & v_required_types = v_required_types
      and client_order_id ~ '^[!-~]+$' and (agent is null or agent ~ '^[!-~]+$')
      and greatest(length(client_order_id), length(agent)) <= 64
      and side in ('buy', 'sell') and time_in_force in ('DAY', 'GTC')
      and current_setting('transaction_isolation') = 'read committed'
      and risk_private.are_fresh(
        least(i.as_of, coalesce(i.underlying_as_of, '-infinity'), i.rate_as_of),
        greatest(i.as_of, i.underlying_as_of, i.rate_as_of), v_mark_age, v_at)) is not true then
    return v_account_id;
  end if;
  if v_levels.needs_rates then
    if not risk_private.has_fresh_rates(v_mark_age, v_at) then
      return v_account_id;
    end if;
  end if;
  if v_levels.losses is not null then
    if not risk_private.has_plain_losses(v_levels.losses) then
      return v_account_id;
    end if;
  end if;
  if v_levels.price_collar_pct < 'Infinity' then
    if (price is null
      or case when v_is_buy then price - i.reference else i.reference - price end * 100
        <= v_levels.price_collar_pct * abs(i.reference)) is not true then
      return v_account_id;
    end if;
  end if;
  if v_heartbeat_age <> 0 then
    if not exists (
      select from risk_private.heartbeat as h
      where h.beat_at is not null and h.inputs_as_of is not null
        and risk_private.are_fresh(least(h.beat_at, h.inputs_as_of),
          greatest(h.beat_at, h.inputs_as_of), v_heartbeat_age, v_at)) then
      return v_account_id;
    end if;
  end if;

  insert into risk_private.orders (
    account_id, client_order_id, agent, underlying_id, instrument_ids, ratios, quantity, price,
    is_combo, time_in_force, unit_prices, costs, filled, decision, allowed_quantity, state,
    decided_at)
  values (
    v_account_id, accept_order.client_order_id, accept_order.agent, i.underlying_id,
    array[i.instrument_id], array[case when v_is_buy then 1 else -1 end], accept_order.quantity,
    accept_order.price, false, accept_order.time_in_force, array[v_unit_price],
    case when accept_order.price is null then array[i.reference] end, array[0::numeric],
    'ACCEPTED', accept_order.quantity, 'ACCEPTED', v_at)
  on conflict on constraint orders_pkey do nothing;
  if not found then
    return v_account_id;
  end if;

  v_buy := case when v_is_buy then quantity else 0 end;
  v_sell := case when v_is_buy then 0 else quantity end;
  update risk_private.positions as p set
    open_buy = p.open_buy + v_buy,
    open_sell = p.open_sell + v_sell
  where p.account_id = v_account_id and p.instrument_id = i.instrument_id
    and not risk_private.is_flat(p.quantity, p.open_buy, p.open_sell)
  returning p.quantity, p.open_buy, p.open_sell, p.unit_notional, p as held into v_position;
  if not found then
    -- Greeks are carried where a limit needs them: tracking begins with a revaluation.
    if v_levels.exposures is null then
      v_units := risk_private.valued(null, i.instrument_id, i.price * i.factor);
    else
      select u.* into v_units
      from risk_private.unit_values as u where u.instrument_id = i.instrument_id;
    end if;
    insert into risk_private.positions as p (
      account_id, instrument_id, underlying_id, open_buy, open_sell, unit_value, unit_notional,
      unit_delta, unit_gamma, unit_dollar_delta, unit_dollar_gamma, unit_vega, unit_theta,
      has_greeks)
    values (
      v_account_id, i.instrument_id, i.underlying_id, v_buy, v_sell, v_units.unit_value,
      v_units.unit_notional, v_units.unit_delta, v_units.unit_gamma, v_units.unit_dollar_delta,
      v_units.unit_dollar_gamma, v_units.unit_vega, v_units.unit_theta, v_units.has_greeks)
    on conflict on constraint positions_pkey do update set
      open_buy = excluded.open_buy, open_sell = excluded.open_sell,
      unit_value = excluded.unit_value, unit_notional = excluded.unit_notional,
      unit_delta = excluded.unit_delta, unit_gamma = excluded.unit_gamma,
      unit_dollar_delta = excluded.unit_dollar_delta,
      unit_dollar_gamma = excluded.unit_dollar_gamma, unit_vega = excluded.unit_vega,
      unit_theta = excluded.unit_theta, has_greeks = excluded.has_greeks
    returning p.quantity, p.open_buy, p.open_sell, p.unit_notional, p as held into v_position;
  end if;
  v_long := v_position.quantity + v_position.open_buy;
  v_short := v_position.open_sell - v_position.quantity;
  v_after := greatest(v_long, v_short);
  v_growth := v_after - greatest(v_long - v_buy, v_short - v_sell);
  v_notional := v_growth * v_position.unit_notional;
  v_opened := case when v_growth = v_after then 1 else 0 end;
  -- What the account itself has no room for shall not lock its parents.
  if (v_long < v_levels.long_position
      and v_short < v_levels.short_position
      and not (v_levels.self_cross
        and case when v_is_buy then v_position.open_sell else v_position.open_buy end <> 0)
      and v_gross_position + v_growth < v_levels.gross_position
      and v_gross_notional + v_notional < v_levels.gross_notional
      and v_traded_notional + v_traded < v_levels.traded_notional
      and v_open_orders < v_levels.open_orders
      and v_open_positions + v_opened < v_levels.open_positions) is not true then
    return null;
  end if;

  if v_levels.keeps_fingerprints then
    if not risk_private.remember(
      v_account_id,
      risk_private.fingerprint(
        array[i.instrument_id], array[case when v_is_buy then 1 else -1 end], quantity, price),
      v_levels.duplicate_window, v_at) then
      return null;
    end if;
  end if;
  if v_levels.are_own then
    if v_levels.obligations is not null then
      if risk_private.reserve_obligations(
        v_position.held, i.kind, i.rate_as_of, v_buy - v_sell,
        (v_buy - v_sell) * coalesce(price, i.reference) * i.factor, i.keys,
        v_levels.obligations) is not true then
        return null;
      end if;
    end if;
    if v_levels.rates is not null then
      if risk_private.number_acceptance(
        v_levels.rates[1], v_accepted_orders + 1, v_at) is not true then
        return null;
      end if;
    end if;
  elsif v_levels.obligations is not null then
    -- Not while the firm's row is held: it takes long.
    if risk_private.owes_its_cost(
        i.kind, i.rate_as_of, (v_position.held).cost, v_position.quantity,
        v_position.open_sell) is not true
      or exists (select from risk_private.others_of(v_position.held)) then
      v_obligation := risk_private.order_change(v_position.held, v_buy - v_sell,
        (v_buy - v_sell) * coalesce(price, i.reference) * i.factor);
    end if;
  end if;

  -- The firm's row comes last and is held for as short as can be. Dimension 0 has no key.
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
  where c.counter_id = l.counter_id + coalesce(i.keys[l.dimension], 0)
    and risk_private.is_below(
      c, l, v_buy, v_sell, v_growth, v_notional, v_traded, 1, v_opened);
  get diagnostics v_moved = row_count;
  if v_moved < cardinality(v_levels.counters) then
    if not risk_private.are_all(
      v_moved, array(select l.dimension from unnest(v_levels.counters) as l), i.keys) then
      return null;
    end if;
  end if;
  if v_levels.exposures is not null then
    if not (v_position.held).has_greeks then
      return null;
    end if;
    v_delta := (v_buy - v_sell) * (v_position.held).unit_delta;
    v_dollar_delta := (v_buy - v_sell) * (v_position.held).unit_dollar_delta;
    v_gross_exposure := v_growth * abs((v_position.held).unit_dollar_delta);
    -- Either side plus the change, whatever its sign, is no less than what comes of it: where that
    -- is below the level, so is the side. What is no option moves delta alone, cheaper by a third.
    if i.kind <> 'option' then
      update risk_private.exposures as x set
        delta_up = x.delta_up + greatest(0, v_delta),
        delta_down = x.delta_down + least(0, v_delta),
        dollar_delta_up = x.dollar_delta_up + greatest(0, v_dollar_delta),
        dollar_delta_down = x.dollar_delta_down + least(0, v_dollar_delta),
        gross_exposure = x.gross_exposure + v_gross_exposure
      from unnest(v_levels.exposures) as l
      cross join lateral (
        select (
          select q.equity from risk_private.equities as q where q.scope_id = l.scope_id) as equity
      ) as e
      where x.counter_id = l.counter_id + coalesce(i.keys[l.dimension], 0)
        and risk_private.is_within(
          l, x.unknown,
          greatest(x.delta_up, -x.delta_down) + abs(v_delta),
          greatest(x.gamma_up, -x.gamma_down),
          greatest(x.dollar_delta_up, -x.dollar_delta_down) + abs(v_dollar_delta),
          greatest(x.dollar_gamma_up, -x.dollar_gamma_down),
          greatest(x.vega_up, -x.vega_down),
          greatest(x.theta_up, -x.theta_down),
          x.gross_exposure + v_gross_exposure, e.equity);
    else
      v_gamma := (v_buy - v_sell) * (v_position.held).unit_gamma;
      v_dollar_gamma := (v_buy - v_sell) * (v_position.held).unit_dollar_gamma;
      v_vega := (v_buy - v_sell) * (v_position.held).unit_vega;
      v_theta := (v_buy - v_sell) * (v_position.held).unit_theta;
      update risk_private.exposures as x set
        delta_up = x.delta_up + greatest(0, v_delta),
        delta_down = x.delta_down + least(0, v_delta),
        gamma_up = x.gamma_up + greatest(0, v_gamma),
        gamma_down = x.gamma_down + least(0, v_gamma),
        dollar_delta_up = x.dollar_delta_up + greatest(0, v_dollar_delta),
        dollar_delta_down = x.dollar_delta_down + least(0, v_dollar_delta),
        dollar_gamma_up = x.dollar_gamma_up + greatest(0, v_dollar_gamma),
        dollar_gamma_down = x.dollar_gamma_down + least(0, v_dollar_gamma),
        vega_up = x.vega_up + greatest(0, v_vega),
        vega_down = x.vega_down + least(0, v_vega),
        theta_up = x.theta_up + greatest(0, v_theta),
        theta_down = x.theta_down + least(0, v_theta),
        gross_exposure = x.gross_exposure + v_gross_exposure
      from unnest(v_levels.exposures) as l
      cross join lateral (
        select (
          select q.equity from risk_private.equities as q where q.scope_id = l.scope_id) as equity
      ) as e
      where x.counter_id = l.counter_id + coalesce(i.keys[l.dimension], 0)
        and risk_private.is_within(
          l, x.unknown,
          greatest(x.delta_up, -x.delta_down) + abs(v_delta),
          greatest(x.gamma_up, -x.gamma_down) + abs(v_gamma),
          greatest(x.dollar_delta_up, -x.dollar_delta_down) + abs(v_dollar_delta),
          greatest(x.dollar_gamma_up, -x.dollar_gamma_down) + abs(v_dollar_gamma),
          greatest(x.vega_up, -x.vega_down) + abs(v_vega),
          greatest(x.theta_up, -x.theta_down) + abs(v_theta),
          x.gross_exposure + v_gross_exposure, e.equity);
    end if;
    get diagnostics v_moved = row_count;
    if v_moved < cardinality(v_levels.exposures) then
      if not risk_private.are_all(
        v_moved, array(select l.dimension from unnest(v_levels.exposures) as l), i.keys) then
        return null;
      end if;
    end if;
  end if;
  if not v_levels.are_own then
    if v_levels.obligations is not null then
      if v_obligation.bull is null then
        v_has_room := risk_private.reserve_obligations(
          v_position.held, i.kind, i.rate_as_of, v_buy - v_sell,
          (v_buy - v_sell) * coalesce(price, i.reference) * i.factor, i.keys,
          v_levels.obligations);
      else
        v_has_room := risk_private.add_obligations(risk_private.obligation_moves(
          v_obligation, i.underlying_id, v_levels.obligations));
      end if;
      if v_has_room is not true then
        return null;
      end if;
    end if;
    if risk_private.number_acceptances(v_levels.rates, v_at) is not true then
      return null;
    end if;
  end if;
  return v_account_id;
end
$$;
comment on function risk_private.accept_order(
  text, text, text, text, numeric, numeric, text, text, boolean) is
  'Accepts an order where that is plain. in_line: waits for its turn, but not for its account. '
  'Returns the account''s number, which says nothing about the order; NULL where the transaction '
  'must be rolled back: there is no room, or no such account; 0 where it must be asked again, out '
  'of line: the account is locked now, or unknown.';

create function risk_private.accepted(
  account_id integer, client_order_id text, decided_xid xid8)
returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
begin
  perform risk_private.flush()
  from risk_private.orders as o
  where o.account_id = accepted.account_id and o.client_order_id = accepted.client_order_id
    and o.decided_xid = accepted.decided_xid
    and o.decided_xid is distinct from pg_current_xact_id_if_assigned()
    and o.decided_by = session_user
    and o.decision = 'ACCEPTED';
  return found;
end
$$;
comment on function risk_private.accepted(integer, text, xid8) is
  'Whether the caller''s transaction of that number, committed since, accepted the order without '
  'explanation; durable once the transaction that calls this commits.';

-- 41_accept_activity.sql
-- The lean path's part for accounts with limits on rates and duplicates.

create function risk_private.number_acceptance(
  rate risk_private.rate_change, number bigint, at timestamptz)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_second bigint := number - rate.order_rate + 1;
  v_minute bigint := number - rate.order_rate_minute + 1;
begin
  insert into risk_private.rate_events (counter_id, number, accepted_at)
  select rate.counter_id, number_acceptance.number, at
  where number_acceptance.number is not null
    and (least(rate.order_rate, rate.order_rate_minute) <= 1) is not true
    and not exists (
      select from risk_private.rate_events as e
      where e.counter_id = rate.counter_id and e.number in (v_second, v_minute)
        and e.accepted_at > at
          - case e.number when v_minute then interval '60 seconds' else interval '1 second' end);
  if not found then
    return false;
  end if;
  -- Now and then, so that it costs nothing.
  if number % 256 < rate.accepted_orders then
    perform risk_private.forget_acceptances(rate.counter_id, at);
  end if;
  return true;
end
$$;
comment on function risk_private.number_acceptance(
  risk_private.rate_change, bigint, timestamptz) is
  'Records when a counter''s order of that number was accepted, the last of those in rate, and now '
  'and then forgets what no limit looks back on any more. Returns false where the number is '
  'unknown or a rate reaches its warning level.';

create function risk_private.number_acceptances(
  rates risk_private.rate_change[], at timestamptz)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rate risk_private.rate_change;
  v_number bigint;
begin
  foreach v_rate in array coalesce(rates, '{}') loop
    select c.accepted_orders into v_number
    from risk_private.counters as c where c.counter_id = v_rate.counter_id;
    if v_rate.accepted_orders > 1 then
      insert into risk_private.rate_events (counter_id, number, accepted_at)
      select v_rate.counter_id, v_number - n, at
      from generate_series(1, v_rate.accepted_orders - 1) as n;
    end if;
    if risk_private.number_acceptance(v_rate, v_number, at) is not true then
      return false;
    end if;
  end loop;
  return true;
end
$$;
comment on function risk_private.number_acceptances(
  risk_private.rate_change[], timestamptz) is
  'Records when orders were accepted that the counters count already. Returns false where a '
  'counter is missing or a rate reaches its warning level.';

create function risk_private.forget_acceptances(counter_id bigint, at timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from risk_private.rate_events as e
  where e.counter_id = forget_acceptances.counter_id
    and e.number <= (
      select c.accepted_orders - risk_private.accepted_since(
        c.counter_id, at - interval '60 seconds')
      from risk_private.counters as c where c.counter_id = forget_acceptances.counter_id);
end
$$;
comment on function risk_private.forget_acceptances(bigint, timestamptz) is
  'Forgets the acceptances of a counter that no limit looks back on any more.';

create function risk_private.remember(
  account_id integer, fingerprint bigint, duplicate_window numeric, at timestamptz)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.recent_orders as r (account_id, fingerprint, accepted_at)
  values (remember.account_id, remember.fingerprint, at)
  on conflict on constraint recent_orders_pkey do update set accepted_at = excluded.accepted_at
    where r.accepted_at
      <= excluded.accepted_at - make_interval(secs => duplicate_window::double precision);
  return found;
end
$$;
comment on function risk_private.remember(integer, bigint, numeric, timestamptz) is
  'Records when an order of that content was accepted. Returns false where it repeats one that was '
  'accepted less than duplicate_window seconds ago.';

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
  reference numeric
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
      g.reference)::risk_private.entry,
    coalesce(
      i.status = 'ACTIVE' and s.may_trade and s.is_alive
      and risk_private.is_code(r.client_order_id)
      and (r.agent is null or risk_private.is_code(r.agent))
      and risk_private.is_quantity(r.quantity) and r.quantity % i.lot = 0
      and (r.price is null or risk_private.is_price(r.price, i.tick, i.allow_negative_price))
      and r.side in ('buy', 'sell') and r.time_in_force in ('DAY', 'GTC')
      and (i.expiry is null or i.expiry >= risk_private.trading_date())
      and risk_private.is_fresh(m.as_of, s.max_mark_age, at)
      and (i.currency = risk_private.base_currency()
        or risk_private.is_fresh(f.as_of, s.max_mark_age, at))
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
      s.*, risk_private.is_owner() or exists (
        select from risk_private.granted_scopes as g where g.scope_id = any (s.chain)) as may_trade,
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
      sum(e.quantity * e.unit_price) as traded_notional, count(*)::integer as orders
    from unnest(entries) as e
    group by e.account_id, e.instrument_id, e.sector_id, e.underlying_id
  ), carried as (
    -- Positions as they were. offset 0 keeps the planner from repeating what units are made of
    -- wherever one is used, and from joining positions otherwise than row by row.
    select m.*, (p.held).quantity, (p.held).open_buy as was_open_buy,
      (p.held).open_sell as was_open_sell,
      risk_private.carried(p.held, u.units) as units
    from movements as m
    left join lateral (
      select p as held from risk_private.positions as p
      where p.account_id = m.account_id and p.instrument_id = m.instrument_id
      offset 0
    ) as p on true
    left join lateral (
      select v as units from risk_private.unit_values as v
      where v.instrument_id = m.instrument_id
        and coalesce(risk_private.worst_case((p.held).quantity, (p.held).open_buy,
          (p.held).open_sell), 0) = 0
      offset 0
    ) as u on true
    offset 0
  ), moved as (
    insert into risk_private.positions as p (
      account_id, instrument_id, underlying_id, open_buy, open_sell, unit_value, unit_notional,
      unit_delta, unit_gamma, unit_dollar_delta, unit_dollar_gamma, unit_vega, unit_theta,
      has_greeks)
    select m.account_id, m.instrument_id, m.underlying_id, m.open_buy, m.open_sell, u.unit_value,
      u.unit_notional, u.unit_delta, u.unit_gamma, u.unit_dollar_delta, u.unit_dollar_gamma,
      u.unit_vega, u.unit_theta, u.has_greeks
    from carried as m
    cross join lateral (select (m.units).*) as u
    on conflict (account_id, instrument_id) do update set
      open_buy = p.open_buy + excluded.open_buy,
      open_sell = p.open_sell + excluded.open_sell,
      unit_value = excluded.unit_value, unit_notional = excluded.unit_notional,
      unit_delta = excluded.unit_delta, unit_gamma = excluded.unit_gamma,
      unit_dollar_delta = excluded.unit_dollar_delta,
      unit_dollar_gamma = excluded.unit_dollar_gamma, unit_vega = excluded.unit_vega,
      unit_theta = excluded.unit_theta, has_greeks = excluded.has_greeks
  ), judged as (
    select
      m.sector_id, m.underlying_id, m.instrument_id, m.open_buy, m.open_sell, m.traded_notional,
      m.orders, h.after - h.before as gross_position,
      (h.after - h.before) * (m.units).unit_notional as gross_notional,
      (h.before = 0)::integer as opened,
      (h.long + m.open_buy < l.long_position
        and h.short + m.open_sell < l.short_position
        and (not l.self_cross or (
          (m.open_buy = 0 or m.open_sell + coalesce(m.was_open_sell, 0) = 0)
          and (m.open_sell = 0 or m.open_buy + coalesce(m.was_open_buy, 0) = 0)))) is true
        as is_plain,
      l.keeps_fingerprints, l.duplicate_window, l.counters
    from carried as m
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
        select coalesce(m.quantity + m.was_open_buy, 0) as long,
          coalesce(m.was_open_sell - m.quantity, 0) as short
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
      j.opened, j.is_plain, j.keeps_fingerprints, j.duplicate_window, l as level
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
      bool_or(i.keeps_fingerprints) as keeps_fingerprints,
      max(i.duplicate_window) as duplicate_window,
      any_value(i.level) as level
    from increments as i
    group by i.counter_id
  )
  select
    array_agg(row(
      s.counter_id, null, null, null, 0, s.open_buy, s.open_sell, s.gross_position,
      s.gross_notional, s.traded_notional, s.orders, s.opened, s.orders, (s.level).keeps_rate,
      null, s.level)::risk_private.change order by s.counter_id),
    bool_and(s.is_plain), bool_or(s.keeps_fingerprints),
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
set enable_hashjoin = off
set enable_mergejoin = off
set enable_bitmapscan = off
as $$
declare
  v_at timestamptz;
  v_entries risk_private.entry[];
  v_is_doubtful boolean;
  v_keeps_exposures boolean;
  v_keeps_obligations boolean;
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
  select
    bool_or(a.needs_rates and not risk_private.has_fresh_rates(s.max_mark_age, v_at)
      or a.losses is not null and not risk_private.has_plain_losses(a.losses)),
    bool_or(a.exposures is not null), bool_or(a.obligations is not null)
  into v_is_doubtful, v_keeps_exposures, v_keeps_obligations
  from risk_private.scopes as s
  join risk_private.account_levels as a on a.account_id = s.scope_id
  where s.code = any (accounts);
  if v_is_doubtful is not false then
    return false;
  end if;
  select array_agg(e.entry), bool_and(e.is_plain) into v_entries, v_is_plain
  from risk_private.entries(requests, v_at) as e;
  if (v_is_plain and cardinality(v_entries) = cardinality(requests)) is not true then
    return false;
  end if;
  -- offset 0: ids are looked up one by one, whatever the statistics say.
  if exists (
    select from unnest(v_entries) as e
    cross join lateral (
      select from risk_private.orders as o
      where o.account_id = e.account_id and o.client_order_id = e.client_order_id
      offset 0
    ) as o) then
    return false;
  end if;
  insert into risk_private.orders (
    account_id, client_order_id, agent, underlying_id, instrument_ids, ratios, quantity, price,
    is_combo, time_in_force, unit_prices, costs, filled, decision, allowed_quantity, state,
    decided_at)
  select e.account_id, e.client_order_id, e.agent, e.underlying_id, array[e.instrument_id],
    array[e.sign], e.quantity, e.price, false, e.time_in_force, array[e.unit_price],
    case when e.price is null then array[e.reference] end, array[0::numeric],
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
  if v_keeps_exposures and not risk_private.reserve_exposures(v_entries, v_at) then
    return true;
  end if;
  if v_keeps_obligations and not risk_private.reserve_obligations(v_entries, v_at) then
    return true;
  end if;
  if not risk_private.number_acceptances(
    risk_private.rate_changes(v_reservation.changes), v_at) then
    return true;
  end if;
  return v_reservation.keeps_fingerprints and exists (
    select from unnest(v_entries) as e
    where not risk_private.remember(
      e.account_id,
      risk_private.fingerprint(array[e.instrument_id], array[e.sign], e.quantity, e.price),
      v_reservation.duplicate_window, v_at));
end
$$;
comment on function risk_private.accept(text[], risk_private.request[]) is
  'Accepts all of the single-leg orders where that is plain. Returns true where the transaction '
  'must be rolled back: an id was used, or there is no room; false says nothing about the orders.';

-- 41_accept_greeks.sql
-- The lean path for exposures: add orders where every measure stays below its warning level.

create function risk_private.is_within(
  l risk_private.exposure_level, unknown integer, delta numeric, gamma numeric,
  net_exposure numeric, dollar_gamma numeric, vega numeric, theta numeric,
  gross_exposure numeric, equity numeric)
returns boolean
language sql immutable
return
  unknown = 0 and delta < l.delta and gamma < l.gamma and net_exposure < l.net_exposure
  and dollar_gamma < l.dollar_gamma and vega < l.vega and theta < l.theta
  and gross_exposure < l.gross_exposure
  and (l.concentration_pct = 'Infinity'
    or net_exposure * 100 < l.concentration_pct * greatest(0, equity));
comment on function risk_private.is_within(
  risk_private.exposure_level, integer, numeric, numeric, numeric, numeric, numeric, numeric,
  numeric, numeric) is
  'Whether every measure of a row of exposures, the larger of its two sides with orders already in '
  'it, is known and below its warning level: then no limit on it can fail.';

create function risk_private.reserve_exposures(entries risk_private.entry[], at timestamptz)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rows integer;
  v_moved integer;
begin
  with orders as (
    select e.account_id, e.instrument_id, e.sector_id, e.underlying_id,
      coalesce(sum(e.quantity) filter (where e.sign = 1), 0) as bought,
      coalesce(sum(e.quantity) filter (where e.sign = -1), 0) as sold
    from unnest(entries) as e
    group by e.account_id, e.instrument_id, e.sector_id, e.underlying_id
  ), effects as (
    -- Of all buys and all sells, one kind raises a Greek and the other lowers it.
    select o.*, n.levels, p.has_greeks,
      greatest(o.bought * p.unit_delta, -o.sold * p.unit_delta) as delta_up,
      least(o.bought * p.unit_delta, -o.sold * p.unit_delta) as delta_down,
      greatest(o.bought * p.unit_gamma, -o.sold * p.unit_gamma) as gamma_up,
      least(o.bought * p.unit_gamma, -o.sold * p.unit_gamma) as gamma_down,
      greatest(o.bought * p.unit_dollar_delta, -o.sold * p.unit_dollar_delta) as dollar_delta_up,
      least(o.bought * p.unit_dollar_delta, -o.sold * p.unit_dollar_delta) as dollar_delta_down,
      greatest(o.bought * p.unit_dollar_gamma, -o.sold * p.unit_dollar_gamma) as dollar_gamma_up,
      least(o.bought * p.unit_dollar_gamma, -o.sold * p.unit_dollar_gamma) as dollar_gamma_down,
      greatest(o.bought * p.unit_vega, -o.sold * p.unit_vega) as vega_up,
      least(o.bought * p.unit_vega, -o.sold * p.unit_vega) as vega_down,
      greatest(o.bought * p.unit_theta, -o.sold * p.unit_theta) as theta_up,
      least(o.bought * p.unit_theta, -o.sold * p.unit_theta) as theta_down,
      (risk_private.worst_case(p.quantity, p.open_buy, p.open_sell) - risk_private.worst_case(
        p.quantity, p.open_buy - o.bought, p.open_sell - o.sold))
        * abs(p.unit_dollar_delta) as gross_exposure
    from orders as o
    join risk_private.positions as p
      on p.account_id = o.account_id and p.instrument_id = o.instrument_id
    join risk_private.account_levels as a on a.account_id = o.account_id
    cross join lateral (
      select case when a.is_narrowed
        then (risk_private.levels_of(
          a, o.sector_id, o.underlying_id, o.instrument_id, at)).exposures
        else a.exposures end as levels
      offset 0
    ) as n
    where n.levels is not null
    offset 0
  ), changes as (
    select k.counter_id, bool_and(e.has_greeks) as has_greeks, any_value(l) as level,
      sum(e.gross_exposure) as gross_exposure,
      sum(e.delta_up) as delta_up, sum(e.delta_down) as delta_down,
      sum(e.gamma_up) as gamma_up, sum(e.gamma_down) as gamma_down,
      sum(e.dollar_delta_up) as dollar_delta_up, sum(e.dollar_delta_down) as dollar_delta_down,
      sum(e.dollar_gamma_up) as dollar_gamma_up, sum(e.dollar_gamma_down) as dollar_gamma_down,
      sum(e.vega_up) as vega_up, sum(e.vega_down) as vega_down,
      sum(e.theta_up) as theta_up, sum(e.theta_down) as theta_down
    from effects as e
    cross join lateral unnest(e.levels) as l
    cross join lateral (
      select l.counter_id | case l.dimension when 0 then 0 when 1 then e.sector_id
        when 2 then e.underlying_id else e.instrument_id end as counter_id
    ) as k
    where l.dimension <> 1 or e.sector_id is not null
    group by k.counter_id
  ), moved as (
    update risk_private.exposures as x set
      delta_up = x.delta_up + c.delta_up,
      delta_down = x.delta_down + c.delta_down,
      gamma_up = x.gamma_up + c.gamma_up,
      gamma_down = x.gamma_down + c.gamma_down,
      dollar_delta_up = x.dollar_delta_up + c.dollar_delta_up,
      dollar_delta_down = x.dollar_delta_down + c.dollar_delta_down,
      dollar_gamma_up = x.dollar_gamma_up + c.dollar_gamma_up,
      dollar_gamma_down = x.dollar_gamma_down + c.dollar_gamma_down,
      vega_up = x.vega_up + c.vega_up,
      vega_down = x.vega_down + c.vega_down,
      theta_up = x.theta_up + c.theta_up,
      theta_down = x.theta_down + c.theta_down,
      gross_exposure = x.gross_exposure + c.gross_exposure
    from changes as c
    where x.counter_id = c.counter_id and c.has_greeks
    returning c.level, x.unknown,
      greatest(x.delta_up, -x.delta_down) as delta, greatest(x.gamma_up, -x.gamma_down) as gamma,
      greatest(x.dollar_delta_up, -x.dollar_delta_down) as net_exposure,
      greatest(x.dollar_gamma_up, -x.dollar_gamma_down) as dollar_gamma,
      greatest(x.vega_up, -x.vega_down) as vega, greatest(x.theta_up, -x.theta_down) as theta,
      x.gross_exposure
  )
  select (select count(*) from changes),
    (
      select count(*) from moved as m
      left join lateral (
        select q.equity from risk_private.equities as q where q.scope_id = (m.level).scope_id
        offset 0
      ) as e on true
      where risk_private.is_within(
        m.level, m.unknown, m.delta, m.gamma, m.net_exposure, m.dollar_gamma, m.vega, m.theta,
        m.gross_exposure, e.equity)
    )
  into v_rows, v_moved;
  return v_rows = v_moved;
end
$$;
comment on function risk_private.reserve_exposures(risk_private.entry[], timestamptz) is
  'Adds the orders of a batch, whose positions and counters have moved, to exposures. False, to be '
  'rolled back, where a row is missing, incomplete or reaches a warning level with all of them: '
  'what they do together is the worst that each of them could meet.';

-- 41_accept_obligations.sql
-- The lean path's part for accounts with limits on what they may come to owe. Subqueries stand in a
-- lateral of their own for the reason that accept_order gives.

create function risk_private.owes_its_cost(
  kind text, rate_as_of timestamptz, cost numeric, quantity numeric, open_sell numeric)
returns boolean
language sql immutable
return kind <> 'option' and rate_as_of is null and cost >= 0
  and quantity >= greatest(0, open_sell);
comment on function risk_private.owes_its_cost(text, timestamptz, numeric, numeric, numeric) is
  'Whether an order, already in the open quantities of its position, adds what it costs to the '
  'obligations of the underlying and nothing else, if the account has nothing else there: in base '
  'currency (rate_as_of NULL), no option, held long or flat, not oversold by open orders. It loses '
  'most at a price of 0.';

create function risk_private.others_of(held risk_private.positions)
returns setof risk_private.positions
language sql stable
begin atomic
  select p.* from risk_private.positions as p
  where p.account_id = held.account_id and p.underlying_id = held.underlying_id
    and p.instrument_id <> held.instrument_id
    and not risk_private.is_flat(p.quantity, p.open_buy, p.open_sell);
end;
comment on function risk_private.others_of(risk_private.positions) is
  'What else the account of a position holds or may come to hold in its underlying.';

create type risk_private.obligation_move as (
  counter_id bigint,
  change risk_private.obligation,
  level risk_private.obligation_level
);
comment on type risk_private.obligation_move is
  'What orders change in one row of obligations, and the warning levels in force there.';

create function risk_private.obligation_moves(
  change risk_private.obligation, underlying_id integer, levels risk_private.obligation_level[])
returns risk_private.obligation_move[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select row(l.counter_id + k.key_id, change, l)::risk_private.obligation_move
    from risk_private.instruments as u
    cross join unnest(levels) as l
    cross join lateral (
      select case l.dimension when 0 then 0 when 1 then u.sector_id else u.instrument_id end
        as key_id
    ) as k
    where u.instrument_id = obligation_moves.underlying_id and k.key_id is not null);
end
$$;
comment on function risk_private.obligation_moves(
  risk_private.obligation, integer, risk_private.obligation_level[]) is
  'The rows that a change in one underlying moves; without a sector there is none for it.';

create function risk_private.add_obligations(moves risk_private.obligation_move[])
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_moved integer;
begin
  update risk_private.obligations as o set
    bull = o.bull + m.bull,
    bear = o.bear + m.bear,
    max_loss = o.max_loss + m.max_loss,
    unlimited = o.unlimited + m.unlimited,
    cash_need = o.cash_need + m.cash_need
  from (
    select x.counter_id, (x.change).bull, (x.change).bear, (x.change).max_loss,
      (x.change).unlimited, (x.change).cash_need, x.level,
      (
        select q.cash from risk_private.equities as q
        where q.scope_id = (x.level).scope_id and q.unknown = 0
      ) as cash
    from unnest(moves) as x
    offset 0
  ) as m
  where o.counter_id = m.counter_id
    and greatest(o.bull + m.bull, o.bear + m.bear) < (m.level).same_side
    and o.max_loss + m.max_loss < (m.level).max_loss
    and (o.unlimited + m.unlimited = 0 or (m.level).max_loss = 'Infinity')
    and ((m.level).buying_power = 'Infinity'
      or o.cash_need + m.cash_need - m.cash < (m.level).buying_power);
  get diagnostics v_moved = row_count;
  return v_moved = cardinality(moves);
end
$$;
comment on function risk_private.add_obligations(risk_private.obligation_move[]) is
  'Adds changes to rows of obligations. False, to be rolled back, where one is missing or would '
  'reach a warning level. The caller holds the firm''s counter, or the rows are all of an account '
  'that it holds.';

-- What adds nothing but a cost, as most orders in shares do, has a statement of its own, because
-- the other costs it more. Whether it does is asked once for all rows: none of them moves where
-- the account has something else.
create function risk_private.reserve_obligations(
  held risk_private.positions, kind text, rate_as_of timestamptz, quantity numeric, amount numeric,
  keys integer[], levels risk_private.obligation_level[])
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_cost numeric := greatest(0, amount);
  v_cash_need numeric;
  v_moved integer;
begin
  if risk_private.owes_its_cost(kind, rate_as_of, held.cost, held.quantity, held.open_sell) then
    if held.underlying_id <> held.instrument_id then
      keys := (
        select array[u.sector_id, u.instrument_id]
        from risk_private.instruments as u where u.instrument_id = held.underlying_id);
    end if;
    v_cash_need := case when kind = 'future' then 0 else v_cost end;
    update risk_private.obligations as o set
      max_loss = o.max_loss + v_cost,
      cash_need = o.cash_need + v_cash_need
    from unnest(levels) as l
    cross join lateral (
      select (
          select q.cash from risk_private.equities as q
          where q.scope_id = l.scope_id and q.unknown = 0
        ) as cash,
        exists (select from risk_private.others_of(held)) as has_others
    ) as e
    where not e.has_others
      and o.counter_id = l.counter_id + coalesce(keys[l.dimension], 0)
      and greatest(o.bull, o.bear) < l.same_side
      and o.max_loss + v_cost < l.max_loss
      and (o.unlimited = 0 or l.max_loss = 'Infinity')
      and (l.buying_power = 'Infinity' or o.cash_need + v_cash_need - e.cash < l.buying_power);
    get diagnostics v_moved = row_count;
    if v_moved = cardinality(levels) then
      return true;
    end if;
    if v_moved > 0 or not exists (select from risk_private.others_of(held)) then
      return risk_private.are_all(
        v_moved, array(select l.dimension from unnest(levels) as l), keys);
    end if;
  end if;
  return risk_private.add_obligations(risk_private.obligation_moves(
    risk_private.order_change(held, quantity, amount), held.underlying_id, levels));
end
$$;
comment on function risk_private.reserve_obligations(
  risk_private.positions, text, timestamptz, numeric, numeric, integer[],
  risk_private.obligation_level[]) is
  'Adds an order, which is stored and in its position, to obligations; quantity and what it pays '
  '(amount) are signed; keys: its sector, underlying and instrument. Else as add_obligations.';

create function risk_private.obligation_moves(entries risk_private.entry[], at timestamptz)
returns risk_private.obligation_move[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    with groups as (
      select e.account_id, e.underlying_id, min(e.instrument_id) as instrument_id,
        min(e.instrument_id) = max(e.instrument_id) as is_single,
        sum(greatest(0, e.sign * e.quantity * coalesce(e.price, e.reference) * i.multiplier))
          as cost
      from unnest(entries) as e
      join risk_private.instruments as i on i.instrument_id = e.instrument_id
      group by e.account_id, e.underlying_id
    ), changes as (
      select u.sector_id, u.instrument_id as underlying_id,
        case when a.is_narrowed
          then risk_private.obligation_levels(g.account_id, g.underlying_id, at)
          else a.obligations end as levels,
        case
          when g.is_single and i.currency = risk_private.base_currency()
            and risk_private.owes_its_cost(i.kind, null, p.cost, p.quantity, p.open_sell)
            and not exists (select from risk_private.others_of(p))
            then row(0, 0, g.cost, 0, case when i.kind = 'future' then 0 else g.cost end,
              null, null, null, null, null)::risk_private.obligation
          else risk_private.obligation_change(g.account_id, g.underlying_id, false)
        end as change
      from groups as g
      join risk_private.account_levels as a
        on a.account_id = g.account_id and a.obligations is not null
      join risk_private.instruments as u on u.instrument_id = g.underlying_id
      join risk_private.instruments as i on i.instrument_id = g.instrument_id
      join risk_private.positions as p
        on p.account_id = g.account_id and p.instrument_id = g.instrument_id
      offset 0
    )
    select row(
      m.counter_id,
      row(sum((m.change).bull), sum((m.change).bear), sum((m.change).max_loss),
        sum((m.change).unlimited), sum((m.change).cash_need), null, null, null, null,
        null)::risk_private.obligation,
      any_value(m.level))::risk_private.obligation_move
    from changes as c
    cross join lateral unnest(risk_private.obligation_moves(
      c.change, c.underlying_id, c.levels)) as m
    group by m.counter_id);
end
$$;
comment on function risk_private.obligation_moves(risk_private.entry[], timestamptz) is
  'The rows that the orders of a batch move, which are stored and in their positions, each row '
  'once: each open order only adds to what may be owed.';

create function risk_private.reserve_obligations(entries risk_private.entry[], at timestamptz)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return risk_private.add_obligations(risk_private.obligation_moves(entries, at));
end
$$;
comment on function risk_private.reserve_obligations(risk_private.entry[], timestamptz) is
  'Adds the orders of a batch, which are stored and in their positions, to obligations, as '
  'add_obligations does. The caller holds the firm''s counter.';

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
  units risk_private.unit_values,
  reference numeric,
  unit_price numeric,
  is_fresh boolean,
  floor numeric
);
comment on type risk_private.leg is
  'A leg with what the account holds in its instrument, and its prices: reference (NULL where '
  'there is none), unit_notional and all units at which it is carried, unit_price at which its '
  'order is reserved in traded notional; floor of the price collar.';

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
      (h.units).unit_notional, h.units, r.reference,
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
    left join risk_private.unit_values as v on v.instrument_id = i.instrument_id
    cross join lateral (
      select coalesce(o.quantity, 0) as quantity, coalesce(o.open_buy, 0) as open_buy,
        coalesce(o.open_sell, 0) as open_sell, risk_private.carried(o, v) as units
      offset 0
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
        pg_catalog.rank() over (
          partition by l.leg, s.scope_id, k.limit_type,
            t.judged = 'concentration' and k.dimension = 1
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
    where a.judged not in ('order', 'instrument', 'underlying', 'concentration') or a.rank = 1
    order by a.scope_id, a.limit_type, a.dimension, a.leg);
end
$$;
comment on function risk_private.applicable_limits(integer, risk_private.leg[], timestamptz) is
  'The limits in force that bind each leg: per order and per instrument the most specific of each '
  'scope, else every one.';

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

create function risk_private.is_halted(p risk_private.proposal) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select from risk_private.trading_states as t
    join risk_private.scopes as s on t.scope_id = any (s.chain)
    where s.scope_id = p.account_id and t.state = 'HALTED'
      and (t.underlying_id = 0 or t.underlying_id in (
        select i.underlying_id from risk_private.instruments as i
        where i.instrument_id = any (p.instrument_ids))));
end
$$;
comment on function risk_private.is_halted(risk_private.proposal) is
  'Whether a state or a circuit breaker on the chain halts an order, for all or for the underlying '
  'of a leg.';

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
  select risk_private.gate(
    case when t.breaker_id = 0 then 'trading_state'
      else 'circuit_breaker ' || (
        select b.name from risk_private.breakers as b where b.breaker_id = t.breaker_id) end,
    s.code, risk_private.dimension_name(
      case when t.underlying_id = 0 then 0 else 2 end, t.underlying_id), null,
    case t.state when 'HALTED' then false else v_is_reducing end,
    case when t.breaker_id <> 0 then 'CIRCUIT_BREAKER_TRIPPED'
      when t.state = 'HALTED' then 'TRADING_HALTED' else 'REDUCE_ONLY' end,
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
    filled, old_notional, quantity, open_buy, open_sell, unit_notional, units, reference,
    unit_price, is_fresh, floor, leg)
  cross join risk_private.limit_types as t
  where pg_catalog.get_bit(v_leaf.required_types, t.bit) = 1);

  v_checks := v_checks || array(
  select risk_private.gate('freshness', null, 'instrument:' || i.symbol, null,
    v_is_reducing or (
      m.price is not null and f.rate is not null
        and (i.currency = risk_private.base_currency()
          or risk_private.is_fresh(f.as_of, v_leaf.max_mark_age, at))
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

-- 44_greek_checks.sql
-- Limits on Greeks. An order, netted over its legs, moves one side of a measure: up or down. Each
-- side is judged by its own change, so that a hedge passes while the other side is breached.

create type risk_private.exposure_measure as (
  l risk_private.applicable_limit,
  up numeric,
  down numeric,
  is_known boolean,
  units numeric[],
  bases numeric[],
  filled numeric[],
  slack numeric[]
);
comment on type risk_private.exposure_measure is
  'What a limit on Greeks compares: both sides as they are, and per leg of the order in it the '
  'signed unit x ratio, what a replace finds held and filled of it at that unit, and by how much '
  'its worst case exceeds the side that it enlarges. is_known: whether every Greek that counts is.';

create function risk_private.exposure_measures(
  legs risk_private.leg[], limits risk_private.applicable_limit[],
  by_underlying risk_private.applicable_limit[])
returns risk_private.exposure_measure[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select row(
      g.l, coalesce(s.up, 0), coalesce(s.down, 0), coalesce(x.unknown, 0) = 0 and n.is_known,
      n.units, n.bases, n.filled, n.slack)::risk_private.exposure_measure
    from (
      select (array_agg(k))[1] as l, k.scope_id, k.limit_type, k.dimension, k.key_id,
        array_agg(k.leg) as numbers
      from unnest(limits) as k
      where k.judged = 'exposure'
      group by k.scope_id, k.limit_type, k.dimension, k.key_id
      union all
      select k, k.scope_id, k.limit_type, 2, (legs[k.leg]).underlying_id,
        array(
          select n from generate_subscripts(legs, 1) as n
          where (legs[n]).underlying_id = (legs[k.leg]).underlying_id)
      from unnest(by_underlying) as k
      where risk_private.is_exposure_type(k.limit_type)
    ) as g
    left join risk_private.exposures as x
      on x.counter_id = risk_private.counter_id(g.scope_id, g.dimension, g.key_id)
    cross join lateral risk_private.greek_sides(x, g.limit_type) as s
    cross join lateral (
      select bool_and(coalesce(((legs[m]).units).has_greeks, false)) as is_known,
        array_agg((legs[m]).ratio * u.unit order by m) as units,
        array_agg((legs[m]).base * u.unit order by m) as bases,
        array_agg((legs[m]).filled * u.unit order by m) as filled,
        array_agg(risk_private.slack(legs[m]) * abs(u.unit) order by m) as slack
      from unnest(g.numbers) as m
      cross join lateral (
        select (legs[m]).sign * coalesce(case g.limit_type
          when 'delta' then ((legs[m]).units).unit_delta
          when 'gamma' then ((legs[m]).units).unit_gamma
          when 'dollar_gamma' then ((legs[m]).units).unit_dollar_gamma
          when 'vega' then ((legs[m]).units).unit_vega
          when 'theta' then ((legs[m]).units).unit_theta
          else ((legs[m]).units).unit_dollar_delta end, 0) as unit
      ) as u
    ) as n);
end
$$;
comment on function risk_private.exposure_measures(
  risk_private.leg[], risk_private.applicable_limit[], risk_private.applicable_limit[]) is
  'What each limit on Greeks that binds an order compares: those on sums, then delta and gamma per '
  'underlying.';

create function risk_private.effect(m risk_private.exposure_measure, quantity numeric)
returns numeric
language sql immutable
begin atomic
  select sum(case when abs(t.unit) * quantity > abs(t.base) then t.unit * quantity else t.base end
    - t.filled)
  from unnest(m.units, m.bases, m.filled) as t (unit, base, filled);
end;
comment on function risk_private.effect(risk_private.exposure_measure, numeric) is
  'What an order of that total adds to a measure if the rest of it fills, netted over its legs; 0: '
  'what the order adds that it replaces.';

-- What either side would be, beyond what is there and beyond the limit: above 0 it fails.
create function risk_private.excess(
  m risk_private.exposure_measure, quantity numeric, out up numeric, out down numeric)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_before numeric := risk_private.effect(m, 0);
  v_after numeric := risk_private.effect(m, quantity);
begin
  up := m.up - greatest(0, v_before) + greatest(0, v_after) - greatest((m.l).amount, m.up);
  down := -m.down - greatest(0, -v_before) + greatest(0, -v_after)
    - greatest((m.l).amount, -m.down);
end
$$;
comment on function risk_private.excess(risk_private.exposure_measure, numeric) is
  'By how much an order of that total would take either side of a measure beyond both its limit '
  'and what it is now; above 0 it fails.';

create function risk_private.allowed_exposure(
  m risk_private.exposure_measure, step numeric, quantity numeric)
returns numeric
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_low numeric := 0;
  v_high numeric := div(quantity, step);
  v_middle numeric := v_high;
  v_excess record;
begin
  while v_low < v_high loop
    v_excess := risk_private.excess(m, v_middle * step);
    if v_excess.up <= 0 and v_excess.down <= 0 then
      v_low := v_middle;
    else
      v_high := v_middle - 1;
    end if;
    v_middle := div(v_low + v_high + 1, 2);
  end loop;
  return v_low * step;
end
$$;
comment on function risk_private.allowed_exposure(
  risk_private.exposure_measure, numeric, numeric) is
  'The largest multiple of the step, up to quantity, with which neither side fails: bisection.';

create function risk_private.exposure_check(
  m risk_private.exposure_measure, step numeric, quantity numeric)
returns risk_private.risk_check
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_excess record := risk_private.excess(m, quantity);
  v_up numeric := v_excess.up + greatest((m.l).amount, m.up);
  v_down numeric := v_excess.down + greatest((m.l).amount, -m.down);
  v_fits boolean := coalesce(v_excess.up <= 0 and v_excess.down <= 0, false);
  v_allowed numeric := quantity;
begin
  if not v_fits then
    v_allowed := risk_private.allowed_exposure(m, step, quantity);
  end if;
  if v_excess.up > 0 or v_fits and v_up >= v_down then
    return risk_private.limit_check(m.l, m.up, v_up, not v_fits, v_allowed, quantity);
  end if;
  return risk_private.limit_check(m.l, -m.down, v_down, not v_fits, v_allowed, quantity);
end
$$;
comment on function risk_private.exposure_check(
  risk_private.exposure_measure, numeric, numeric) is
  'The row of a limit on Greeks. It shows the side that fails, else the larger one.';

create function risk_private.gross_check(
  m risk_private.exposure_measure, step numeric, quantity numeric)
returns risk_private.risk_check
language sql immutable
set search_path = pg_catalog, pg_temp
begin atomic
  select risk_private.limit_check(m.l, m.up, m.up + g.growth, true,
    case when m.up + g.growth <= (m.l).amount then quantity
      else risk_private.largest_quantity(greatest(0, (m.l).amount - m.up), g.units, m.slack, step,
        quantity) end, quantity)
  from (
    select array_agg(abs(t.unit)) as units,
      sum(greatest(0, abs(t.unit) * quantity - t.slack)) as growth
    from unnest(m.units, m.slack) as t (unit, slack)
  ) as g;
end;
comment on function risk_private.gross_check(risk_private.exposure_measure, numeric, numeric) is
  'The row of a gross_exposure limit.';

create function risk_private.exposure_checks(
  p risk_private.proposal, legs risk_private.leg[], limits risk_private.applicable_limit[],
  closable numeric, step numeric, at timestamptz)
returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_checks risk_private.risk_check[] := '{}';
  m risk_private.exposure_measure;
begin
  if not risk_private.keeps_exposures(p.account_id) then
    return v_checks;
  end if;
  foreach m in array risk_private.exposure_measures(
    legs, limits, risk_private.limits_by_underlying(p.account_id, legs, at)) loop
    v_checks := v_checks || case
      when not m.is_known then risk_private.gate(
        (m.l).limit_type, (m.l).scope, (m.l).dimension_name, (m.l).limit_type,
        closable = p.quantity, 'STALE_DATA', closable, p.quantity)
      when (m.l).limit_type = 'gross_exposure'
        then risk_private.gross_check(m, step, p.quantity)
      else risk_private.exposure_check(m, step, p.quantity) end;
  end loop;
  return v_checks;
end
$$;
comment on function risk_private.exposure_checks(
  risk_private.proposal, risk_private.leg[], risk_private.applicable_limit[], numeric, numeric,
  timestamptz) is
  'Limits on Greeks and exposure. Where a Greek that counts is unknown, of the order or of what is '
  'held or open there, only reducing orders pass: STALE_DATA.';

-- 44_greek_concentration_checks.sql
-- Limits on concentration: the dollar delta of an underlying, or of a sector, in percent of the
-- scope's equity. An order does not move the equity, so they are compared in money, without a
-- division: exposure x 100 <= limit x equity.

create function risk_private.concentration_pct(exposure numeric, equity numeric) returns numeric
language sql immutable
return case
  when equity > 0 then pg_catalog.round(exposure * 100 / equity, 6)
  when equity <= 0 then case when exposure > 0 then 'Infinity'::numeric else 0 end
end;
comment on function risk_private.concentration_pct(numeric, numeric) is
  'An exposure in % of the equity: of one of 0 or less, anything is infinite. NULL where either is '
  'unknown.';

create function risk_private.known_equity(
  scope_id integer, max_age double precision, at timestamptz)
returns numeric
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select e.equity from risk_private.equities as e
    where e.scope_id = known_equity.scope_id
      and not risk_private.has_stale_rate(known_equity.scope_id, max_age, at));
end
$$;
comment on function risk_private.known_equity(integer, double precision, timestamptz) is
  'The equity of a scope; NULL where a rate that it needs is missing or too old.';

create function risk_private.concentration_measures(
  legs risk_private.leg[], limits risk_private.applicable_limit[])
returns risk_private.exposure_measure[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select row(
      g.l, coalesce(x.dollar_delta_up, 0), coalesce(x.dollar_delta_down, 0),
      coalesce(x.unknown, 0) = 0 and n.is_known, n.units, n.bases, n.filled,
      null)::risk_private.exposure_measure
    from (
      select (array_agg(k))[1] as l, k.scope_id, d.dimension, d.key_id,
        array_agg(k.leg) as numbers
      from unnest(limits) as k
      cross join lateral (
        select case k.dimension when 1 then 1 else 2 end as dimension,
          case k.dimension when 1 then k.key_id else (legs[k.leg]).underlying_id end as key_id
      ) as d
      where k.judged = 'concentration'
      group by k.scope_id, d.dimension, d.key_id
    ) as g
    left join risk_private.exposures as x
      on x.counter_id = risk_private.counter_id(g.scope_id, g.dimension, g.key_id)
    cross join lateral (
      select bool_and(coalesce(((legs[m]).units).has_greeks, false)) as is_known,
        array_agg((legs[m]).ratio * u.unit order by m) as units,
        array_agg((legs[m]).base * u.unit order by m) as bases,
        array_agg((legs[m]).filled * u.unit order by m) as filled
      from unnest(g.numbers) as m
      cross join lateral (
        select (legs[m]).sign * coalesce(((legs[m]).units).unit_dollar_delta, 0) as unit
      ) as u
    ) as n);
end
$$;
comment on function risk_private.concentration_measures(
  risk_private.leg[], risk_private.applicable_limit[]) is
  'What each concentration_pct limit compares, in money: the dollar delta of a sector, or of each '
  'underlying.';

create function risk_private.concentration_check(
  m risk_private.exposure_measure, equity numeric, closable numeric, step numeric,
  quantity numeric)
returns risk_private.risk_check
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_pct numeric := (m.l).amount;
  v_check risk_private.risk_check;
begin
  if equity is null or not m.is_known then
    return risk_private.gate(
      (m.l).limit_type, (m.l).scope, (m.l).dimension_name, (m.l).limit_type,
      closable = quantity, 'STALE_DATA', closable, quantity);
  end if;
  if equity <= 0 then
    v_check := risk_private.limit_check(
      m.l, 0, 'Infinity', closable < quantity, closable, quantity);
    v_check.current_value := risk_private.concentration_pct(greatest(m.up, -m.down), equity);
  else
    m.l.amount := v_pct * equity * 0.01;
    v_check := risk_private.exposure_check(m, step, quantity);
    v_check.current_value := risk_private.concentration_pct(v_check.current_value, equity);
    v_check.projected_value := risk_private.concentration_pct(v_check.projected_value, equity);
    v_check.limit_value := v_pct;
  end if;
  v_check.headroom := v_pct - v_check.current_value;
  return v_check;
end
$$;
comment on function risk_private.concentration_check(
  risk_private.exposure_measure, numeric, numeric, numeric, numeric) is
  'The row of a concentration_pct limit, in percent: of the side that fails, else the larger one. '
  'Of an equity of 0 or less any exposure is infinite, and only reducing orders pass; likewise, as '
  'STALE_DATA, while the equity (NULL) or a Greek that counts is unknown.';

create function risk_private.concentration_checks(
  p risk_private.proposal, legs risk_private.leg[], limits risk_private.applicable_limit[],
  closable numeric, step numeric, at timestamptz)
returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_max_age double precision := (
    select s.max_mark_age from risk_private.scopes as s where s.scope_id = p.account_id);
  v_checks risk_private.risk_check[] := '{}';
  m risk_private.exposure_measure;
begin
  foreach m in array risk_private.concentration_measures(legs, limits) loop
    v_checks := v_checks || risk_private.concentration_check(
      m, risk_private.known_equity((m.l).scope_id, v_max_age, at), closable, step, p.quantity);
  end loop;
  return v_checks;
end
$$;
comment on function risk_private.concentration_checks(
  risk_private.proposal, risk_private.leg[], risk_private.applicable_limit[], numeric, numeric,
  timestamptz) is
  'concentration_pct of every underlying of the order and of every sector that limits it, netted '
  'over the order''s legs and over the accounts below each scope.';

-- 44_limit_checks.sql
-- Checks against limits. A limit is inclusive. Position, exposure and activity are judged by
-- change: a check fails only where the projected value is above the limit and above the current
-- one, so that nothing blocks a reduction.

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

create function risk_private.slack(l risk_private.leg) returns numeric
language sql immutable
return risk_private.worst_case((l).quantity, (l).open_buy, (l).open_sell)
  - case when (l).sign > 0 then (l).quantity + (l).open_buy else (l).open_sell - (l).quantity end
  + (l).base;
comment on function risk_private.slack(risk_private.leg) is
  'Up to what total quantity of a leg the worst case of its instrument stays what it is.';

-- How much each leg adds to a measure: max(0, unit x quantity - offset). A new kind of summed limit
-- is one line here.
create function risk_private.measure_of_leg(
  limit_type text, l risk_private.leg, out unit numeric, out offset_ numeric)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_slack numeric := risk_private.slack(l);
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
      where g.reason in ('TRADING_HALTED', 'CIRCUIT_BREAKER_TRIPPED')
        and risk_private.is_halted(p));
  end if;
  return v_gates
    || risk_private.order_checks(p, v_legs, v_limits, v_step)
    || risk_private.position_checks(p, v_legs, v_limits, v_step)
    || risk_private.sum_checks(p, v_legs, v_limits, v_closable, v_step)
    || risk_private.exposure_checks(p, v_legs, v_limits, v_closable, v_step, at)
    || risk_private.concentration_checks(p, v_legs, v_limits, v_closable, v_step, at)
    || risk_private.obligation_checks(p, v_legs, v_closable, v_step, at)
    || risk_private.loss_checks(p, v_limits, v_closable, at)
    || risk_private.activity_checks(p, v_legs, v_limits, at);
end
$$;
comment on function risk_private.checks(risk_private.proposal, timestamptz) is
  'Every check of an order against the book as it stands. It is accepted exactly when no row '
  'fails.';

-- 44_loss_checks.sql
-- Limits on losses. An order does not move P&L, so while a loss exceeds its limit only reducing
-- orders pass; likewise while it is not known.

create function risk_private.has_stale_rate(scope_id integer, max_age double precision,
  at timestamptz) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return max_age <> 0 and exists (
    select from risk_private.fx_rates as f
    join risk_private.cash_balances as b on b.currency = f.currency
    join risk_private.scopes as s on s.scope_id = b.account_id
    where f.currency <> risk_private.base_currency()
      and not risk_private.is_fresh(f.as_of, max_age, at)
      and (b.amount <> 0 or b.cost <> 0) and s.chain @> array[has_stale_rate.scope_id]);
end
$$;
comment on function risk_private.has_stale_rate(integer, double precision, timestamptz) is
  'Whether an account at or below a scope has money in a currency whose rate is too old.';

create function risk_private.daily_loss(e risk_private.equities) returns numeric
language sql immutable
return e.start_equity + e.flows - e.equity;
comment on function risk_private.daily_loss(risk_private.equities) is
  'Loss since the trading day was opened; below 0 a profit; NULL while it is not known.';

create function risk_private.drawdown_pct(peak numeric, equity numeric) returns numeric
language sql immutable
return case
  when peak <= 0 or equity <= 0 then 100
  else pg_catalog.round(greatest(0, peak - equity) * 100 / peak, 6)
end;
comment on function risk_private.drawdown_pct(numeric, numeric) is
  'How far the equity is below its peak, %; 100 where either is 0 or less; NULL where unknown.';

create function risk_private.is_drawn_down(e risk_private.equities, pct numeric) returns boolean
language sql immutable
return case
  when e.peak <= 0 or e.equity <= 0 then pct < 100
  else (e.peak - e.equity) * 100 > pct * e.peak
end;
comment on function risk_private.is_drawn_down(risk_private.equities, numeric) is
  'Whether the equity is more than that percentage below its peak; NULL while it is not known.';

create function risk_private.loss_levels(account_id integer, at timestamptz)
returns risk_private.loss_level[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select array_agg(
      row(w.scope_id, w.daily_loss, 1 - w.drawdown_pct * 0.01)::risk_private.loss_level
      order by w.scope_id)
    from risk_private.scopes as s
    join risk_private.warning_levels as w
      on w.scope_id = any (s.chain) and w.dimension = 0 and w.key_id = 0
      and w.valid_from <= at and at < w.valid_until
    where s.scope_id = loss_levels.account_id
      and (w.daily_loss is not null or w.drawdown_pct is not null));
end
$$;
comment on function risk_private.loss_levels(integer, timestamptz) is
  'The warning levels on losses of every scope of an account''s chain that has any; NULL: none.';

create function risk_private.has_foreign_rates() returns boolean
language sql stable
return exists (
  select from risk_private.fx_rates as f where f.currency <> risk_private.base_currency());
comment on function risk_private.has_foreign_rates() is
  'Whether any currency but the base has ever had a rate.';

create function risk_private.has_fresh_rates(max_age double precision, at timestamptz)
returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return not exists (
    select from risk_private.fx_rates as f
    where f.currency <> risk_private.base_currency()
      and not risk_private.is_fresh(f.as_of, max_age, at)
      and exists (select from risk_private.cash_balances as b where b.currency = f.currency));
end
$$;
comment on function risk_private.has_fresh_rates(double precision, timestamptz) is
  'Whether no money at all is in a currency whose rate is too old.';

create function risk_private.has_plain_losses(levels risk_private.loss_level[]) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_level risk_private.loss_level;
begin
  foreach v_level in array levels loop
    perform from risk_private.equities as e
    where e.scope_id = v_level.scope_id
      and (v_level.daily_loss is null or risk_private.daily_loss(e) < v_level.daily_loss)
      and (v_level.equity_ratio is null
        or least(e.peak, e.equity) > 0 and e.equity > e.peak * v_level.equity_ratio);
    if not found then
      return false;
    end if;
  end loop;
  return true;
end
$$;
comment on function risk_private.has_plain_losses(risk_private.loss_level[]) is
  'Whether every loss that is limited is known and below its warning level.';

create function risk_private.loss_checks(
  p risk_private.proposal, limits risk_private.applicable_limit[], closable numeric,
  at timestamptz)
returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_max_age double precision := (
    select s.max_mark_age from risk_private.scopes as s where s.scope_id = p.account_id);
begin
  return array(
    select row(
      (k.l).limit_type, (k.l).scope, (k.l).dimension_name, (k.l).limit_type, (k.l).amount,
      v.value, v.value, (k.l).amount - v.value,
      case when b.fits or closable = p.quantity then p.quantity else closable end,
      case when not b.fits and closable < p.quantity then 'FAIL'
        when v.value > 0 and v.value * 100 >= (k.l).warn_pct * (k.l).amount then 'WARN'
        else 'PASS' end,
      case when b.fits or closable = p.quantity then null
        when v.value is null then 'STALE_DATA' else (k.l).reason end)::risk_private.risk_check
    from (
      select distinct on (u.scope_id, u.limit_type) u as l
      from unnest(limits) as u where u.judged = 'loss'
    ) as k
    join risk_private.equities as e on e.scope_id = (k.l).scope_id
    cross join lateral (
      select case
        when risk_private.has_stale_rate((k.l).scope_id, v_max_age, at) then null
        when (k.l).limit_type = 'daily_loss' then risk_private.daily_loss(e)
        else risk_private.drawdown_pct(e.peak, e.equity) end as value
    ) as v
    cross join lateral (
      select coalesce(v.value is not null and case (k.l).limit_type
        when 'daily_loss' then v.value <= (k.l).amount
        else not risk_private.is_drawn_down(e, (k.l).amount) end, false) as fits
    ) as b);
end
$$;
comment on function risk_private.loss_checks(
  risk_private.proposal, risk_private.applicable_limit[], numeric, timestamptz) is
  'daily_loss and drawdown_pct of each scope that limits them.';

-- 44_obligation_checks.sql
-- Checks against what accounts may come to owe: the worst loss at expiry, sides of the market, and
-- the cash that may be called for.

create function risk_private.costs(p risk_private.proposal, legs risk_private.leg[])
returns numeric[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_difference numeric;
begin
  if p.price is not null and not p.is_combo then
    return null;
  end if;
  v_difference := coalesce(p.price - (
    select sum(l.sign * l.ratio * coalesce(l.reference, 0)) from unnest(legs) as l), 0);
  -- With several multipliers it is not said to which leg the difference belongs: the worst one.
  return (
    select array_agg(
      coalesce(c.reference, 0)
        + case when c.rank = 1 then trim_scale(v_difference / (c.sign * c.ratio)) else 0 end
      order by c.leg)
    from (
      select l.reference, l.sign, l.ratio, n.leg,
        row_number() over (
          order by i.multiplier * sign(v_difference) desc, l.ratio, i.symbol collate "C") as rank
      from generate_subscripts(legs, 1) as n (leg)
      cross join lateral (select (legs[n.leg]).*) as l
      join risk_private.instruments as i on i.instrument_id = l.instrument_id
    ) as c);
end
$$;
comment on function risk_private.costs(risk_private.proposal, risk_private.leg[]) is
  'Per leg, the price that counts as paid or received; NULL where it is the order''s own. A market '
  'order''s legs are at their references. So are a combo''s, but one of them takes the difference '
  'to its net price: the one with the smallest ratio, or, where multipliers differ, the one where '
  'it costs most; of equal ones the first by symbol.';

create function risk_private.proposed_legs(
  p risk_private.proposal, legs risk_private.leg[], underlying_id integer, quantity numeric)
returns risk_private.payoff_leg[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_costs numeric[] := risk_private.costs(p, legs);
begin
  -- No order is named ''.
  return array(
    select row(i.kind, i.option_right, i.strike, i.expiry, i.multiplier * r.rate, r.quantity,
      r.quantity * coalesce(v_costs[n.leg], p.price) * i.multiplier * r.rate,
      coalesce(p.replaces, ''), 2)::risk_private.payoff_leg
    from generate_subscripts(legs, 1) as n (leg)
    cross join lateral (select (legs[n.leg]).*) as l
    join risk_private.instruments as i on i.instrument_id = l.instrument_id
    left join risk_private.cash_balances as b
      on b.account_id = p.account_id and b.currency = i.currency
    left join risk_private.fx_rates as f on f.currency = i.currency
    cross join lateral (
      select coalesce(b.rate, f.rate, 1) as rate,
        l.sign * greatest(0, l.ratio * proposed_legs.quantity - l.filled) as quantity
    ) as r
    where l.underlying_id = proposed_legs.underlying_id);
end
$$;
comment on function risk_private.proposed_legs(
  risk_private.proposal, risk_private.leg[], integer, numeric) is
  'The legs of a proposal in one underlying, as if it were open with that quantity.';

create function risk_private.limits_by_underlying(
  account_id integer, legs risk_private.leg[], at timestamptz)
returns risk_private.applicable_limit[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select row(a.leg, a.scope_id, a.scope, a.limit_type, a.dimension, a.key_id, a.amount,
      a.warn_pct, a.judged, a.reason, a.warns,
      case a.dimension when 0 then 'all'
        else risk_private.dimension_name(a.dimension, a.key_id) end)::risk_private.applicable_limit
    from (
      select u.leg, s.scope_id, s.code as scope, k.limit_type, k.dimension::integer, k.key_id,
        k.amount, k.warn_pct, t.judged, t.reason, t.warns,
        case t.judged
          when 'underlying' then row_number() over (
            partition by s.scope_id, k.limit_type, u.underlying_id order by k.dimension desc)
          else row_number() over (
            partition by s.scope_id, k.limit_type, k.dimension, k.key_id order by u.leg)
        end as rank
      from risk_private.scopes as leaf
      join risk_private.scopes as s on s.scope_id = any (leaf.chain)
      cross join lateral (
        select min(n.leg) as leg, i.instrument_id as underlying_id, i.sector_id
        from generate_subscripts(legs, 1) as n (leg)
        join risk_private.instruments as i on i.instrument_id = (legs[n.leg]).underlying_id
        group by i.instrument_id
      ) as u
      cross join lateral (
        values (0, 0), (1, u.sector_id), (2, u.underlying_id)
      ) as d (dimension, key_id)
      join risk_private.limit_periods as k
        on k.scope_id = s.scope_id and k.dimension = d.dimension and k.key_id = d.key_id
        and k.valid_from <= at and at < k.valid_until
      join risk_private.limit_types as t on t.limit_type = k.limit_type
      where leaf.scope_id = limits_by_underlying.account_id
        and t.judged in ('underlying', 'obligation')
    ) as a
    where a.rank = 1
    order by a.scope_id, a.limit_type, a.dimension, a.leg);
end
$$;
comment on function risk_private.limits_by_underlying(
  integer, risk_private.leg[], timestamptz) is
  'The limits in force that are measured underlying by underlying: delta, gamma and same_side once '
  'for each underlying of the legs, the most specific; those on what the account may come to owe '
  'every one. A sector is that of the underlying.';

create function risk_private.obligation_check(
  l risk_private.applicable_limit, current_value numeric, projected_value numeric,
  allowed_quantity numeric, closable numeric, quantity numeric)
returns risk_private.risk_check
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_free boolean := coalesce(current_value > l.amount, true) and closable = quantity;
  v_limit risk_private.applicable_limit := l;
begin
  if current_value is null then
    v_limit.reason := 'STALE_DATA';
  end if;
  return risk_private.limit_check(
    v_limit, nullif(current_value, 'Infinity'), projected_value, not v_is_free,
    case when current_value <= l.amount then allowed_quantity
      else greatest(allowed_quantity, closable) end, quantity);
end
$$;
comment on function risk_private.obligation_check(
  risk_private.applicable_limit, numeric, numeric, numeric, numeric, numeric) is
  'The row of a limit on losses or cash: above it, an order that only reduces passes whatever it '
  'costs; while the loss is infinite, or cash cannot be told for want of a rate, nothing else '
  'does.';

-- How far a proposal of some quantity takes one limit.
create function risk_private.projected_obligation(
  l risk_private.applicable_limit, p risk_private.proposal, legs risk_private.leg[],
  quantity numeric)
returns numeric
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_value numeric := risk_private.obligation_at(l.scope_id, l.dimension, l.key_id, l.limit_type);
  v_underlying_id integer;
  v_legs risk_private.payoff_leg[];
begin
  for v_underlying_id in
    select distinct i.instrument_id
    from pg_catalog.unnest(legs) as g
    join risk_private.instruments as i on i.instrument_id = g.underlying_id
    where l.key_id = (array[0, i.sector_id, i.instrument_id])[l.dimension + 1]
  loop
    exit when v_value = 'Infinity';
    v_legs := risk_private.payoff_legs(p.account_id, v_underlying_id)
      || risk_private.proposed_legs(p, legs, v_underlying_id, projected_obligation.quantity);
    v_value := v_value + case l.limit_type
        when 'max_loss' then risk_private.worst_loss(v_legs)
        else risk_private.cash_need(risk_private.payoff_of(v_legs)) end
      - risk_private.obligation_at(p.account_id, 2, v_underlying_id, case l.limit_type
        when 'max_loss' then 'max_loss' else 'cash_need' end);
  end loop;
  return v_value;
end
$$;
comment on function risk_private.projected_obligation(
  risk_private.applicable_limit, risk_private.proposal, risk_private.leg[], numeric) is
  'What max_loss or buying_power come to at the scope of a limit if a proposal were open with that '
  'quantity; it never falls as the quantity grows.';

create function risk_private.loss_checks(
  p risk_private.proposal, legs risk_private.leg[], limits risk_private.applicable_limit[],
  closable numeric, step numeric)
returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_checks risk_private.risk_check[] := '{}';
  l risk_private.applicable_limit;
  v_current numeric;
  v_projected numeric;
  v_low numeric;
  v_high numeric;
  v_middle numeric;
begin
  foreach l in array limits loop
    continue when l.judged <> 'obligation';
    v_current := risk_private.obligation_at(l.scope_id, l.dimension, l.key_id, l.limit_type);
    v_projected := risk_private.projected_obligation(l, p, legs, p.quantity);
    v_low := 0;
    v_high := case
      when v_current = 'Infinity' or v_current is null
        or v_projected <= greatest(l.amount, v_current) then 0
      else pg_catalog.div(p.quantity, step) - 1 end;
    while v_low < v_high loop
      v_middle := pg_catalog.div(v_low + v_high + 1, 2);
      if risk_private.projected_obligation(l, p, legs, v_middle * step)
        <= greatest(l.amount, v_current) then
        v_low := v_middle;
      else
        v_high := v_middle - 1;
      end if;
    end loop;
    v_checks := v_checks || risk_private.obligation_check(
      l, v_current, v_projected, v_low * step, closable, p.quantity);
  end loop;
  return v_checks;
end
$$;
comment on function risk_private.loss_checks(
  risk_private.proposal, risk_private.leg[], risk_private.applicable_limit[], numeric, numeric) is
  'max_loss and buying_power, with every open order and this one counted where it costs; found by '
  'bisection, how much of it would pass.';

create function risk_private.side_checks(
  p risk_private.proposal, legs risk_private.leg[], limits risk_private.applicable_limit[],
  step numeric)
returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select risk_private.limit_check(
      w.l, w.current_value, w.projected_value, w.is_over, w.allowed, p.quantity)
    from (
      -- the side that fails is shown, else the larger one; what both allow is allowed
      select distinct on (k) k as l, o.current_value, v.projected_value, b.is_over,
        min(case when b.is_over then risk_private.largest_quantity(
            greatest(0, k.amount - o.current_value), g.units, g.offsets, step, p.quantity)
          else p.quantity end) over (partition by k) as allowed
      from pg_catalog.unnest(limits) as k
      left join risk_private.obligations as r
        on r.counter_id = risk_private.counter_id(
          k.scope_id, 2, (legs[k.leg]).underlying_id)
      cross join lateral (
        values ('bull', coalesce(trim_scale(r.bull), 0)),
          ('bear', coalesce(trim_scale(r.bear), 0))
      ) as o (side, current_value)
      cross join lateral (
        select array_agg(x.ratio * i.multiplier * 0.01) as units,
          array_agg((x.base + greatest(0, case when x.sign > 0 then -(x.quantity + x.open_buy)
            else x.quantity - x.open_sell end)) * i.multiplier * 0.01) as offsets
        from pg_catalog.unnest(legs) as x
        join risk_private.instruments as i on i.instrument_id = x.instrument_id
        where x.underlying_id = (legs[k.leg]).underlying_id and i.kind = 'option'
          and o.side = case when (x.sign > 0) = (i.option_right = 'call') then 'bull'
            else 'bear' end
      ) as g
      cross join lateral (
        select trim_scale(o.current_value
          + coalesce(sum(greatest(0, t.unit * p.quantity - t.offset_)), 0)) as projected_value
        from unnest(g.units, g.offsets) as t (unit, offset_)
      ) as v
      cross join lateral (
        select v.projected_value > k.amount and v.projected_value > o.current_value as is_over
      ) as b
      where k.limit_type = 'same_side'
      order by k, b.is_over desc, v.projected_value desc, o.side
    ) as w);
end
$$;
comment on function risk_private.side_checks(
  risk_private.proposal, risk_private.leg[], risk_private.applicable_limit[], numeric) is
  'same_side: bull (long calls + short puts) and bear (short calls + long puts) of each '
  'underlying, in units of 100 shares, summed over the accounts below each scope.';

create function risk_private.obligation_checks(
  p risk_private.proposal, legs risk_private.leg[], closable numeric, step numeric,
  at timestamptz)
returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_limits risk_private.applicable_limit[];
begin
  if not exists (
    select from risk_private.account_levels as a
    where a.account_id = p.account_id and a.obligations is not null) then
    return '{}';
  end if;
  v_limits := risk_private.limits_by_underlying(p.account_id, legs, at);
  return risk_private.side_checks(p, legs, v_limits, step)
    || risk_private.loss_checks(p, legs, v_limits, closable, step);
end
$$;
comment on function risk_private.obligation_checks(
  risk_private.proposal, risk_private.leg[], numeric, numeric, timestamptz) is
  'Every limit on what the account may come to owe.';

-- 45_answers.sql
-- Answers: what a stored decision says to whoever asks with the same content.

create type risk_private.decision as (
  order_id uuid,
  decision text,
  reason text,
  allowed_quantity numeric,
  detail jsonb
);
comment on type risk_private.decision is 'The stored answer to an order.';

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
  where s.code = account
    and o.decided_xid is distinct from pg_catalog.pg_current_xact_id_if_assigned()
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

-- 45_decide.sql
-- Deciding proposals with everything spelled out: accounts are locked, nothing is answered yet.

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
      || case when c.check_name like 'circuit_breaker %'
        then pg_catalog.jsonb_build_object('breaker', pg_catalog.substr(c.check_name, 17))
        else '{}' end
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
    units => risk_private.valued(l.units, l.instrument_id, l.unit_price)))
  from unnest(legs) as l
  cross join lateral (select greatest(0, l.ratio * p.quantity - l.base) as added) as a;
end;
comment on function risk_private.opening_of(risk_private.proposal, risk_private.leg[]) is
  'The movements of accepting a proposal.';

create function risk_private.working_legs_of(
  p risk_private.proposal, legs risk_private.leg[])
returns risk_private.working_legs[]
language sql stable
set search_path = pg_catalog, pg_temp
begin atomic
  select pg_catalog.array_agg(row(
    p.account_id, coalesce(p.replaces, p.client_order_id), l.leg, l.instrument_id,
    l.sign * l.ratio, greatest(l.base, l.ratio * p.quantity) - l.filled, null,
    pg_catalog.cardinality(legs))::risk_private.working_legs)
  from (
    select pg_catalog.row_number() over () as leg, u.instrument_id, u.sign, u.ratio, u.base,
      u.filled
    from unnest(legs) as u
  ) as l;
end;
comment on function risk_private.working_legs_of(risk_private.proposal, risk_private.leg[]) is
  'What a proposal and the order that it replaces reserve once it is accepted.';

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
  if p.harmless_quantity > 0 and not risk_private.is_halted(p) then
    v_allowed := greatest(v_allowed, p.harmless_quantity);
  end if;
  if exists (select from pg_catalog.unnest(legs) as l where l.ratio * v_allowed <= l.filled) then
    v_allowed := 0;
  end if;
  insert into risk_private.orders (
    account_id, client_order_id, agent, underlying_id, instrument_ids, ratios, quantity, price,
    is_combo, time_in_force, unit_prices, costs, filled, decision, reason, allowed_quantity,
    detail, state, decided_at, closed_at, replaces, replace_pending)
  values (
    p.account_id, p.client_order_id, p.agent,
    case when (legs[1]).underlying_id = all (array(
        select l.underlying_id from pg_catalog.unnest(legs) as l))
      then (legs[1]).underlying_id else 0 end,
    p.instrument_ids, p.ratios, p.quantity, p.price, p.is_combo, p.time_in_force,
    array(select l.unit_price from pg_catalog.unnest(legs) as l), risk_private.costs(p, legs),
    p.filled,
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
  v_before risk_private.working_legs[] := risk_private.reserved(p.account_id, array[p.replaces]);
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
  perform risk_private.move_exposures(p.account_id, v_movements, v_before,
    risk_private.working_legs_of(p, v_legs));
  perform risk_private.renew_obligations(p.account_id, array(
    select distinct l.underlying_id from pg_catalog.unnest(v_legs) as l));
  perform risk_private.number_acceptances(
    risk_private.rate_changes(v_changes), v_at);
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

-- 45_proposals.sql
-- What an order asks for, resolved and validated: the proposal that is decided.

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
  where o.decided_xid is distinct from pg_catalog.pg_current_xact_id_if_assigned()
    and risk_private.may_trade(s.chain);
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

-- 46_check_order.sql
-- One order in one call, or one combo: accepted where that is plain, else decided with everything
-- spelled out, and answered once that is durable.

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
  v_account_id integer;
  v_xid xid8;
  v_answer risk_private.decision;
begin
  v_account_id := risk_private.accept_order(
    account, client_order_id, symbol, side, quantity, price, agent, time_in_force, true);
  if pg_catalog.int4eq(v_account_id, 0) then
    rollback;
    v_account_id := risk_private.accept_order(
      account, client_order_id, symbol, side, quantity, price, agent, time_in_force, false);
  end if;
  if v_account_id is null then
    rollback;
  else
    v_xid := pg_catalog.pg_current_xact_id_if_assigned();
    commit;
  end if;
  if risk_private.accepted(v_account_id, client_order_id, v_xid) then
    -- From PostgreSQL 17 on it is durable by now, and there is nothing to commit.
    if pg_catalog.pg_current_xact_id_if_assigned() is not null then
      commit;
    end if;
    order_id := risk_private.order_id(account, client_order_id);
    decision := 'ACCEPTED';
    reason := null;
    allowed_quantity := quantity;
    detail := pg_catalog.jsonb '{"violations": [], "warnings": []}';
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

-- 49_carrying.sql
-- Carrying positions at other unit values: what that adds to counters and exposures.

create type risk_private.revaluation_gain as (
  dimension integer,
  key_id integer,
  equity numeric,
  gross_notional numeric,
  gross_exposure numeric,
  unknown integer,
  delta numeric,
  gamma numeric,
  dollar_delta numeric,
  dollar_gamma numeric,
  vega numeric,
  theta numeric
);
comment on type risk_private.revaluation_gain is
  'What other unit values of positions add in one dimension and key: the same to the account and '
  'to every scope above.';

-- Summed per sector and underlying, where the chain needs these, before it is summed any wider;
-- offset 0 keeps expressions from being repeated wherever they are used.
create function risk_private.revaluation_gains(
  account_id integer, units risk_private.unit_values[])
returns setof risk_private.revaluation_gain
language sql stable
begin atomic
  with needed as materialized (
    select bool_or(s.tracks_sector or 1 = any (s.exposure_dimensions)) as sectors,
      bool_or(s.tracks_underlying or 2 = any (s.exposure_dimensions)) as underlyings,
      bool_or(s.tracks_instrument or 3 = any (s.exposure_dimensions)) as instruments
    from risk_private.scopes as leaf
    join risk_private.scopes as s on s.scope_id = any (leaf.chain)
    where leaf.scope_id = revaluation_gains.account_id
  ), held as materialized (
    select i.instrument_id, case when n.sectors then i.sector_id end as sector_id,
      case when n.underlyings then i.underlying_id end as underlying_id,
      p.quantity * (u.unit_value - p.unit_value) as equity,
      w.worst_case * (u.unit_notional - p.unit_notional) as gross_notional,
      w.worst_case * (abs(u.unit_dollar_delta) - abs(p.unit_dollar_delta)) as gross_exposure,
      (not u.has_greeks)::integer - (not p.has_greeks)::integer as unknown,
      p.quantity * (u.unit_delta - p.unit_delta) as delta,
      p.quantity * (u.unit_gamma - p.unit_gamma) as gamma,
      p.quantity * (u.unit_dollar_delta - p.unit_dollar_delta) as dollar_delta,
      p.quantity * (u.unit_dollar_gamma - p.unit_dollar_gamma) as dollar_gamma,
      p.quantity * (u.unit_vega - p.unit_vega) as vega,
      p.quantity * (u.unit_theta - p.unit_theta) as theta
    from unnest(units) as u
    join risk_private.positions as p
      on p.account_id = revaluation_gains.account_id and p.instrument_id = u.instrument_id
    join risk_private.instruments as i on i.instrument_id = u.instrument_id
    cross join needed as n
    cross join lateral (
      select risk_private.worst_case(p.quantity, p.open_buy, p.open_sell) as worst_case offset 0
    ) as w
  )
  select d.dimension, d.key_id, sum(s.equity), sum(s.gross_notional), sum(s.gross_exposure),
    sum(s.unknown)::integer, sum(s.delta), sum(s.gamma), sum(s.dollar_delta), sum(s.dollar_gamma),
    sum(s.vega), sum(s.theta)
  from (
    select h.sector_id, h.underlying_id, sum(h.equity) as equity,
      sum(h.gross_notional) as gross_notional, sum(h.gross_exposure) as gross_exposure,
      sum(h.unknown) as unknown, sum(h.delta) as delta, sum(h.gamma) as gamma,
      sum(h.dollar_delta) as dollar_delta, sum(h.dollar_gamma) as dollar_gamma,
      sum(h.vega) as vega, sum(h.theta) as theta
    from held as h
    group by h.sector_id, h.underlying_id
  ) as s
  cross join lateral (
    values (0, 0), (1, s.sector_id), (2, s.underlying_id)
  ) as d (dimension, key_id)
  where d.key_id is not null
  group by d.dimension, d.key_id
  union all
  select 3, h.instrument_id, h.equity, h.gross_notional, h.gross_exposure, h.unknown, h.delta,
    h.gamma, h.dollar_delta, h.dollar_gamma, h.vega, h.theta
  from held as h
  where (select n.instruments from needed as n);
end;
comment on function risk_private.revaluation_gains(integer, risk_private.unit_values[]) is
  'What carrying an account''s positions at those values adds in each dimension and key that a '
  'scope of its chain needs, open orders apart.';

-- Lock order: the scope's counter; then its others, in the order of the gains, which is ascending:
-- an order that is about to be rolled back may hold some of them and not the scope's own. Exposures
-- are moved by nobody without it. What is held has its rows already.
create function risk_private.add_gains(
  scope risk_private.scopes, gains risk_private.revaluation_gain[])
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from risk_private.counters as c where c.counter_id = scope.counter_id for no key update;
  update risk_private.counters as c set gross_notional = c.gross_notional + g.gross_notional
  from unnest(gains) as g
  where g.gross_notional <> 0
    and (array[true, scope.tracks_sector, scope.tracks_underlying, scope.tracks_instrument])
      [g.dimension + 1]
    and c.counter_id = risk_private.counter_id(scope.scope_id, g.dimension, g.key_id);
  if cardinality(scope.exposure_dimensions) > 0 then
    update risk_private.exposures as e set
      delta = e.delta + g.delta,
      delta_up = e.delta_up + g.delta,
      delta_down = e.delta_down + g.delta,
      gamma = e.gamma + g.gamma,
      gamma_up = e.gamma_up + g.gamma,
      gamma_down = e.gamma_down + g.gamma,
      dollar_delta = e.dollar_delta + g.dollar_delta,
      dollar_delta_up = e.dollar_delta_up + g.dollar_delta,
      dollar_delta_down = e.dollar_delta_down + g.dollar_delta,
      dollar_gamma = e.dollar_gamma + g.dollar_gamma,
      dollar_gamma_up = e.dollar_gamma_up + g.dollar_gamma,
      dollar_gamma_down = e.dollar_gamma_down + g.dollar_gamma,
      vega = e.vega + g.vega,
      vega_up = e.vega_up + g.vega,
      vega_down = e.vega_down + g.vega,
      theta = e.theta + g.theta,
      theta_up = e.theta_up + g.theta,
      theta_down = e.theta_down + g.theta,
      gross_exposure = e.gross_exposure + g.gross_exposure,
      unknown = e.unknown + g.unknown
    from unnest(gains) as g
    where g.dimension = any (scope.exposure_dimensions)
      and e.counter_id = risk_private.counter_id(scope.scope_id, g.dimension, g.key_id);
  end if;
end
$$;
comment on function risk_private.add_gains(
  risk_private.scopes, risk_private.revaluation_gain[]) is
  'Adds what a revaluation gained to the counters of a scope and to its exposures: to what is '
  'held, and so to both sides.';

-- Lock order: the caller holds the account; then its chain's counters, ascending: the firm's comes
-- last, as late as can be: whoever waits for an order that is about to be rolled back must not hold
-- a scope above. Only nested loops keep the order of the gains.
create function risk_private.carry_at(account_id integer, units risk_private.unit_values[])
returns numeric
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_gains risk_private.revaluation_gain[] := array(
    select g from risk_private.revaluation_gains(account_id, units) as g
    order by g.dimension, g.key_id);
  v_parts risk_private.exposure_part[] := '{}';
  v_scope risk_private.scopes;
begin
  if risk_private.keeps_exposures(account_id) then
    v_parts := array(select x from risk_private.revaluation_parts(account_id, units) as x);
  end if;
  update risk_private.positions as p set
    unit_value = u.unit_value, unit_notional = u.unit_notional, unit_delta = u.unit_delta,
    unit_gamma = u.unit_gamma, unit_dollar_delta = u.unit_dollar_delta,
    unit_dollar_gamma = u.unit_dollar_gamma, unit_vega = u.unit_vega,
    unit_theta = u.unit_theta, has_greeks = u.has_greeks
  from unnest(units) as u
  where p.account_id = carry_at.account_id and p.instrument_id = u.instrument_id;
  for v_scope in
    select s.* from risk_private.scopes as leaf
    join risk_private.scopes as s on s.scope_id = any (leaf.chain)
    where leaf.scope_id = carry_at.account_id
    order by s.scope_id
  loop
    perform risk_private.add_gains(v_scope, v_gains);
  end loop;
  if v_parts <> '{}' then
    perform risk_private.add_exposures(v_parts);
  end if;
  return (select g.equity from unnest(v_gains) as g where g.dimension = 0);
end
$$;
comment on function risk_private.carry_at(integer, risk_private.unit_values[]) is
  'Carries an account''s positions at those values, moving its counters and exposures by the '
  'difference. Returns what its equity must follow.';

-- 49_marks.sql
-- Marks: what instruments are worth now, and options where the feed sends no Greeks.

create function risk_private.mark_problem(
  price numeric, bid numeric, ask numeric, may_be_negative boolean, iv double precision,
  delta double precision, gamma double precision, vega double precision, theta double precision,
  rho double precision)
returns text
language sql immutable
return case
  when may_be_negative is null then 'unknown symbol'
  when price is null then 'price is missing'
  when greatest(abs(price), abs(bid), abs(ask)) > 1e12
    then 'prices must be finite numbers within 1e12'
  when not may_be_negative and least(price, bid, ask) <= 0 then 'prices must be above 0'
  when bid > ask then 'crossed quote: the bid is above the ask'
  when greatest(abs(iv), abs(delta), abs(gamma), abs(vega), abs(theta), abs(rho)) > 1e12
    then 'volatility and Greeks must be finite numbers within 1e12'
  when iv < 0 then 'volatility must not be negative'
end;
comment on function risk_private.mark_problem(
  numeric, numeric, numeric, boolean, double precision, double precision, double precision,
  double precision, double precision, double precision) is
  'What is wrong with a mark; NULL where nothing is. NaN is above every number.';

create function risk_private.mark_time(as_of timestamptz) returns timestamptz
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := risk_private.clock();
begin
  if as_of = '-infinity' or as_of > v_now + interval '1 minute' then
    perform risk_private.fail('RK400', 'as_of must be a moment, and not in the future',
      format('argument: as_of %s, now %s', as_of, v_now),
      'A mark from the future would keep out all that come before it.');
  end if;
  return coalesce(as_of, v_now);
end
$$;
comment on function risk_private.mark_time(timestamptz) is
  'The data time of marks, by default now; RK400 where it is more than a minute ahead.';

create function risk_private.session_left(at timestamptz) returns double precision
language sql stable
begin atomic
  select case when l.at::date = l.today
    then greatest(0, pg_catalog.date_part('epoch', time '16:00' - l.at::time) / 86400) else 0 end
  from (
    select risk_private.trading_date() as today, session_left.at at time zone coalesce(
      (select s.value from risk_private.settings as s
       where s.name = 'exchange_time_zone' and s.scope_id is null), 'America/New_York') as at
  ) as l;
end;
comment on function risk_private.session_left(timestamptz) is
  'Days from a moment of the trading date to its close, 16:00 in the exchange''s time zone; 0 on '
  'any other date.';

-- The scalar subselects are evaluated once a query, not once a row.
create view risk_private.option_terms as
select
  i.instrument_id, i.underlying_id, i.option_right as kind, i.strike::double precision as strike,
  (i.expiry - (select risk_private.trading_date()))::double precision as days,
  r.rate,
  case when u.kind = 'future' then r.rate else coalesce(u.dividend_yield, r.dividend) end
    as dividend
from risk_private.instruments as i
join risk_private.instruments as u on u.instrument_id = i.underlying_id
cross join (
  select
    coalesce(max(s.value) filter (where s.name = 'risk_free_rate'), '0')::double precision
      as rate,
    coalesce(max(s.value) filter (where s.name = 'dividend_yield'), '0')::double precision
      as dividend
  from risk_private.settings as s
  where s.scope_id is null
) as r
where i.kind = 'option';
comment on view risk_private.option_terms is
  'With what every option is valued. days: whole calendar days from the trading date to expiry, '
  'below 0 once it has expired. An option on a future carries no cost: its dividend is the rate.';

-- Whoever calls it holds the marks, so the order in which they are updated does not matter.
create function risk_private.complete_marks(instrument_ids integer[], at timestamptz)
returns void
language sql volatile
begin atomic
  with given as materialized (
    select
      o.instrument_id, o.kind, o.days, s.price::double precision as spot, o.strike,
      greatest(0, o.days + (select risk_private.session_left(complete_marks.at))) / 365 as years,
      o.rate, o.dividend, m.price::double precision as price, m.implied_volatility
    from risk_private.marks as m
    join risk_private.option_terms as o on o.instrument_id = m.instrument_id
    join risk_private.marks as s on s.instrument_id = o.underlying_id
    where m.instrument_id = any (complete_marks.instrument_ids) and m.as_of = complete_marks.at
  ), known as materialized (
    select g.*, coalesce(g.implied_volatility, risk_private.implied_volatility(
      g.kind, g.price, g.spot, g.strike, g.years, g.rate, g.dividend)) as volatility
    from given as g
    where risk_private.option_problem(g.kind, g.spot, g.strike, g.years, g.rate, g.dividend)
      is null
  )
  update risk_private.marks as m set
    implied_volatility = k.volatility, volatility_as_of = m.as_of,
    delta = coalesce(m.delta, v.delta), gamma = coalesce(m.gamma, v.gamma),
    vega = coalesce(m.vega, v.vega), theta = coalesce(m.theta, v.theta),
    rho = coalesce(m.rho, v.rho)
  from known as k
  cross join lateral (
    select g.delta, g.gamma, g.vega, g.theta, g.rho
    from risk.option_greeks(k.kind, k.spot, k.strike, k.years, k.rate, k.dividend,
      k.volatility) as g
    where k.days >= 0
    union all
    select 0, 0, 0, 0, 0 where k.days < 0
  ) as v
  where m.instrument_id = k.instrument_id and k.volatility is not null;
end;
comment on function risk_private.complete_marks(integer[], timestamptz) is
  'Computes what the feed left out of the marks of options: the volatility out of the price, the '
  'Greeks by risk.option_greeks at the underlying''s mark. Where there is no such mark, or no '
  'volatility gives the price, they stay unknown.';

create type risk_private.marked as (instrument_ids integer[], report jsonb);
comment on type risk_private.marked is
  'The instruments whose marks moved, and what was refused: [{row, symbol, problem}] or NULL.';

create function risk_private.set_marks(
  symbols text[], prices numeric[], bids numeric[], asks numeric[], ivs double precision[],
  deltas double precision[], gammas double precision[], vegas double precision[],
  thetas double precision[], rhos double precision[], as_of timestamptz)
returns risk_private.marked
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_at timestamptz := risk_private.mark_time(as_of);
  v_size integer := cardinality(symbols);
  v_marked risk_private.marked;
  v_good_ids integer[];
  v_incomplete_ids integer[];
begin
  if coalesce(v_size, 0) = 0 or array_ndims(symbols) <> 1 then
    perform risk_private.fail('RK400', 'symbols must be a list of at least one symbol',
      'argument: symbols');
  end if;
  if cardinality(prices) is distinct from v_size
    or exists (
      select from (values (cardinality(bids)), (cardinality(asks)), (cardinality(ivs)),
        (cardinality(deltas)), (cardinality(gammas)), (cardinality(vegas)),
        (cardinality(thetas)), (cardinality(rhos))) as a (size)
      where a.size <> v_size) then
    perform risk_private.fail('RK400', 'every array must have one element per symbol',
      'argument: prices, bids, asks, …');
  end if;
  perform risk_private.begin_change();
  -- Marks are locked in the order of their instruments, by whoever sets them.
  with given as materialized (
    select
      t.*, i.instrument_id,
      i.option_right is not null and (t.iv is null or t.delta is null or t.gamma is null
        or t.vega is null or t.theta is null or t.rho is null) as is_incomplete,
      case when lag(i.instrument_id) over w = i.instrument_id
          or lead(i.instrument_id) over w = i.instrument_id
        then 'the symbol stands twice in the batch'
        else risk_private.mark_problem(t.price, t.bid, t.ask, i.allow_negative_price, t.iv,
          t.delta, t.gamma, t.vega, t.theta, t.rho) end as problem
    from unnest(symbols, prices, bids, asks, ivs, deltas, gammas, vegas, thetas, rhos)
      with ordinality
      as t (symbol, price, bid, ask, iv, delta, gamma, vega, theta, rho, row_number)
    left join risk_private.instruments as i on i.symbol = t.symbol
    window w as (order by i.instrument_id)
  ), applied as (
    insert into risk_private.marks as m (
      instrument_id, price, bid, ask, implied_volatility, delta, gamma, vega, theta, rho,
      volatility_as_of, as_of)
    select g.instrument_id, g.price, g.bid, g.ask, g.iv, g.delta, g.gamma, g.vega, g.theta,
      g.rho, case when g.iv is not null then v_at end, v_at
    from given as g
    where g.problem is null
    order by g.instrument_id
    on conflict (instrument_id) do update set
      price = excluded.price, bid = excluded.bid, ask = excluded.ask,
      implied_volatility = excluded.implied_volatility, delta = excluded.delta,
      gamma = excluded.gamma, vega = excluded.vega, theta = excluded.theta, rho = excluded.rho,
      volatility_as_of = excluded.volatility_as_of, as_of = excluded.as_of
      where m.as_of <= excluded.as_of
    returning m.instrument_id
  )
  select
    (select array_agg(a.instrument_id) from applied as a),
    jsonb_agg(
      jsonb_build_object('row', g.row_number, 'symbol', g.symbol, 'problem', g.problem)
      order by g.row_number) filter (where g.problem is not null),
    array_agg(g.instrument_id) filter (where g.problem is null),
    array_agg(g.instrument_id) filter (where g.problem is null and g.is_incomplete)
    into v_marked.instrument_ids, v_marked.report, v_good_ids, v_incomplete_ids
  from given as g;
  if cardinality(v_good_ids) is distinct from cardinality(v_marked.instrument_ids) then
    v_marked.report := (
      select jsonb_agg(r.refused order by (r.refused ->> 'row')::integer)
      from (
        select jsonb_array_elements(v_marked.report) as refused
        union all
        select jsonb_build_object('row', t.row_number, 'symbol', t.symbol, 'problem',
          'older than the stored mark')
        from unnest(symbols) with ordinality as t (symbol, row_number)
        join risk_private.instruments as i on i.symbol = t.symbol
        where i.instrument_id = any (v_good_ids)
          and i.instrument_id <> all (coalesce(v_marked.instrument_ids, '{}'))) as r);
  end if;
  if v_marked.instrument_ids is null then
    perform risk_private.fail('RK400', format('no mark could be set: row %s (%s): %s',
      v_marked.report -> 0 ->> 'row', v_marked.report -> 0 ->> 'symbol',
      v_marked.report -> 0 ->> 'problem'), v_marked.report::text);
  end if;
  if v_incomplete_ids is not null then
    perform risk_private.complete_marks(v_incomplete_ids, v_at);
  end if;
  perform risk_private.note_moved(v_marked.instrument_ids);
  perform risk_private.keep_ticks(v_marked.instrument_ids);
  return v_marked;
end
$$;
comment on function risk_private.set_marks(
  text[], numeric[], numeric[], numeric[], double precision[], double precision[],
  double precision[], double precision[], double precision[], double precision[],
  timestamptz) is
  'Stores marks, and tells which instruments moved and which rows were refused.';

create function risk_private.remark_underlying(
  symbol text, price numeric, bid numeric, ask numeric, as_of timestamptz)
returns integer[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := risk_private.mark_time(as_of);
  v_id integer := risk_private.instrument_id(symbol);
  v_problem text;
  v_instrument_ids integer[];
begin
  select case when i.kind = 'option' then 'an option is no underlying'
      when exists (select from risk_private.marks as m
        where m.instrument_id = v_id and m.as_of > v_at) then 'older than the stored mark'
      else risk_private.mark_problem(price, bid, ask, i.allow_negative_price, null, null, null,
        null, null, null) end
    into v_problem
  from risk_private.instruments as i
  where i.instrument_id = v_id;
  if v_problem is not null then
    perform risk_private.fail('RK400', v_problem, format(
      'symbol %s, price %s, bid %s, ask %s, as_of %s', symbol, price, bid, ask, v_at));
  end if;
  perform risk_private.begin_change();
  with given as materialized (
    select
      o.instrument_id, o.kind, o.strike, o.rate, o.dividend,
      remark_underlying.price::double precision as spot,
      greatest(0, o.days + (select risk_private.session_left(v_at))) / 365 as years,
      m.implied_volatility, m.volatility_as_of
    from risk_private.option_terms as o
    join risk_private.marks as m on m.instrument_id = o.instrument_id
    where o.underlying_id = v_id and o.days >= 0 and m.implied_volatility is not null
      and m.as_of <= v_at
  ), applied as (
    insert into risk_private.marks as m (
      instrument_id, price, bid, ask, implied_volatility, delta, gamma, vega, theta, rho,
      volatility_as_of, as_of)
    select r.*, v_at
    from (
      select v_id as instrument_id, remark_underlying.price, remark_underlying.bid,
        remark_underlying.ask, null::double precision, null::double precision,
        null::double precision, null::double precision, null::double precision,
        null::double precision, null::timestamptz
      union all
      select g.instrument_id, greatest(round(v.price::numeric, 8), 0.00000001), null, null,
        g.implied_volatility, v.delta, v.gamma, v.vega, v.theta, v.rho, g.volatility_as_of
      from given as g
      cross join lateral risk.option_greeks(
        g.kind, g.spot, g.strike, g.years, g.rate, g.dividend, g.implied_volatility) as v
      where risk_private.option_problem(g.kind, g.spot, g.strike, g.years, g.rate, g.dividend)
        is null
      order by instrument_id
    ) as r
    on conflict (instrument_id) do update set
      price = excluded.price, bid = excluded.bid, ask = excluded.ask, delta = excluded.delta,
      gamma = excluded.gamma, vega = excluded.vega, theta = excluded.theta, rho = excluded.rho,
      as_of = excluded.as_of
      where m.as_of <= excluded.as_of
    returning m.instrument_id
  )
  select array_agg(a.instrument_id) into v_instrument_ids from applied as a;
  perform risk_private.note_moved(v_instrument_ids);
  perform risk_private.keep_ticks(v_instrument_ids);
  return coalesce(v_instrument_ids, '{}');
end
$$;
comment on function risk_private.remark_underlying(text, numeric, numeric, numeric, timestamptz)
is 'Stores the mark of an underlying and values its options; tells which instruments moved.';

create procedure risk.set_marks(
  symbols text[], prices numeric[], bids numeric[] default null, asks numeric[] default null,
  ivs double precision[] default null, deltas double precision[] default null,
  gammas double precision[] default null, vegas double precision[] default null,
  thetas double precision[] default null, rhos double precision[] default null,
  as_of timestamptz default null, inout report jsonb default null)
language plpgsql
as $$
declare
  v_marked risk_private.marked;
begin
  v_marked := risk_private.set_marks(
    symbols, prices, bids, asks, ivs, deltas, gammas, vegas, thetas, rhos, as_of);
  commit;
  call risk_private.follow();
  report := v_marked.report;
end
$$;
comment on procedure risk.set_marks(
  text[], numeric[], numeric[], numeric[], double precision[], double precision[],
  double precision[], double precision[], double precision[], double precision[], timestamptz,
  jsonb) is
  'Sets prices, and optionally bids, asks, implied volatilities and Greeks, of many instruments as '
  'of one moment (default now), after which every position in them is carried at the new marks, '
  'account by account: by the worker or, where none runs, before the call returns. A bid or ask '
  'left out is cleared. What an option lacks is computed by '
  'risk.option_greeks: its volatility out of its price, its Greeks from its volatility, at the '
  'mark of its underlying (of the same batch, or the stored one), the settings risk_free_rate and '
  'dividend_yield or the underlying''s own yield, and the time to 16:00 exchange time on its '
  'expiry in calendar days / 365, counted from as_of, or from the close of the trading date where '
  'as_of is on another date. Without a mark of the underlying, or where no volatility gives the '
  'price, they are unknown (NULL); after expiry they are 0. report: the rows that were refused, '
  '[{row, symbol, problem}], NULL where none was: unknown symbol, a symbol that stands twice, not '
  'finite, not above 0 (unless the instrument allows it), crossed quote, negative volatility, '
  'older than the stored mark. The others are applied. Errors: RK400 where no row was good, arrays '
  'differ in length, or as_of is more than a minute ahead.';

create procedure risk.remark_underlying(
  symbol text, price numeric, bid numeric default null, ask numeric default null,
  as_of timestamptz default null, inout instruments_marked integer default null)
language plpgsql
as $$
declare
  v_instrument_ids integer[];
begin
  v_instrument_ids := risk_private.remark_underlying(symbol, price, bid, ask, as_of);
  commit;
  call risk_private.follow();
  instruments_marked := pg_catalog.cardinality(v_instrument_ids);
end
$$;
comment on procedure risk.remark_underlying(text, numeric, numeric, numeric, timestamptz, integer)
is
  'Sets the mark of an underlying from one tick and values all its options that have an implied '
  'volatility anew, as risk.set_marks would with that volatility. Such an option gets a price '
  '(rounded to 8 decimals, at least 0.00000001), Greeks and the tick''s as_of; its bid and ask, '
  'made at another spot, are cleared; its volatility and volatility_as_of stay. Options whose own '
  'mark is newer than the tick, that have no volatility or have expired keep their marks. Then '
  'every position in what moved is carried at the new marks. instruments_marked counts what moved, '
  'the underlying included. Errors: RK404 unknown symbol; RK400 an option, a bad price or quote, a '
  'tick older than the stored mark, as_of more than a minute ahead.';

-- 49_revaluation.sql
-- Revaluation: positions follow the marks. Setting marks only notes what moved; risk.revalue()
-- carries it over, account by account, in short transactions, and skips what does not differ.

create table risk_private.moved_marks (
  batch bigint generated always as identity primary key,
  instrument_ids integer[] not null,
  noted_at timestamptz not null default risk_private.clock(),
  settles_at xid8,
  followed_by integer[] not null default '{}'
);
comment on table risk_private.moved_marks is
  'Instruments whose values moved, and which positions have yet to follow: a row per batch.';
comment on column risk_private.moved_marks.settles_at is
  'NULL: no pass has followed it. Else an order in flight during the last pass may have read '
  'the values before the batch: once all transactions below this one have ended, one more pass '
  'sees it.';
comment on column risk_private.moved_marks.followed_by is
  'Accounts that the first pass locked, and so waited for: whoever locks one later reads the '
  'values of the batch. The last pass passes over them.';

create table risk_private.followed_expiries (
  singleton boolean primary key default true check (singleton),
  trading_date date
);
insert into risk_private.followed_expiries default values;
comment on table risk_private.followed_expiries is
  'The trading date up to which the Greeks of expired instruments were noted as moved.';

create function risk_private.note_moved(instrument_ids integer[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.moved_marks (instrument_ids)
  select note_moved.instrument_ids where cardinality(note_moved.instrument_ids) > 0;
end
$$;
comment on function risk_private.note_moved(integer[]) is
  'Lets positions in these instruments, and in those on them, follow at the next revaluation.';

create function risk_private.note_expiries() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_today date := risk_private.trading_date();
  v_before date;
begin
  select f.trading_date into v_before from risk_private.followed_expiries as f;
  if v_before is not distinct from v_today then
    return;
  end if;
  update risk_private.followed_expiries as f set trading_date = v_today;
  perform risk_private.note_moved(array(
    select i.instrument_id from risk_private.instruments as i
    where i.expiry < v_today and (v_before is null or i.expiry >= v_before)));
end
$$;
comment on function risk_private.note_expiries() is
  'Notes, once a trading date, what has expired since the last: it has no Greeks any more.';

create type risk_private.revaluation_pass as (
  batches bigint[],
  instrument_ids integer[],
  account_ids integer[],
  settled_below xid8,
  settles_at xid8,
  is_waiting boolean
);
comment on type risk_private.revaluation_pass is
  'What one pass follows: batches, their instruments and those on them, the accounts that carry '
  'any and have not followed yet. As it began, all transactions below settled_below had ended, and '
  'none above settles_at had begun; is_waiting: some between them were under way.';

create function risk_private.next_pass() returns risk_private.revaluation_pass
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_pass risk_private.revaluation_pass;
begin
  perform risk_private.begin_change();
  perform risk_private.note_expiries();
  v_pass.settled_below := pg_snapshot_xmin(pg_current_snapshot());
  select array_agg(b.batch) filter (where b.is_due), bool_or(not b.is_due)
  into v_pass.batches, v_pass.is_waiting
  from (
    select m.batch,
      m.settles_at is null or m.settles_at <= v_pass.settled_below as is_due
    from risk_private.moved_marks as m
  ) as b;
  if v_pass.batches is null then
    return v_pass;
  end if;
  -- Later than the batches were read: an order that read the values before them had begun.
  v_pass.settles_at := pg_snapshot_xmax(pg_current_snapshot());
  v_pass.is_waiting := v_pass.settled_below < v_pass.settles_at;
  v_pass.instrument_ids := array(
    with moved as (
      select distinct u.id
      from risk_private.moved_marks as m
      cross join unnest(m.instrument_ids) as u (id)
      where m.batch = any (v_pass.batches)
    )
    select d.id from moved as d
    union
    select i.instrument_id from moved as d
    join risk_private.instruments as i on i.underlying_id = d.id);
  v_pass.account_ids := array(
    select a.account_id
    from (
      select distinct p.account_id from risk_private.positions as p
      where p.instrument_id = any (v_pass.instrument_ids)
        and (p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0)
    ) as a
    where exists (
      select from risk_private.moved_marks as m
      where m.batch = any (v_pass.batches) and a.account_id <> all (m.followed_by))
    order by a.account_id);
  return v_pass;
end
$$;
comment on function risk_private.next_pass() is
  'What there is to follow now; batches NULL: nothing.';

-- Lock order: batches that moved; counters of parents, ascending; their equities.
create function risk_private.end_pass(pass risk_private.revaluation_pass) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.begin_change();
  delete from risk_private.moved_marks as m
  where m.batch = any (pass.batches)
    and (m.settles_at <= pass.settled_below or not pass.is_waiting);
  update risk_private.moved_marks as m set
    settles_at = pass.settles_at, followed_by = pass.account_ids
  where m.batch = any (pass.batches);
  perform risk_private.sample_peaks();
end
$$;
comment on function risk_private.end_pass(risk_private.revaluation_pass) is
  'Strikes out what was followed, and samples peaks. What an order in flight may have missed stays '
  'for one more pass.';

create function risk_private.unfollowed(account_id integer, instrument_ids integer[])
returns risk_private.unit_values[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Column by column, since mostly the first one differs.
  return array(
    select row(n.*)::risk_private.unit_values
    from risk_private.positions as p
    cross join lateral (
      select v.* from risk_private.unit_values as v
      where v.instrument_id = p.instrument_id offset 0
    ) as n
    where p.account_id = unfollowed.account_id and p.instrument_id = any (instrument_ids)
      and (p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0)
      and (p.unit_value, p.unit_notional, p.unit_delta, p.unit_gamma, p.unit_dollar_delta,
          p.unit_dollar_gamma, p.unit_vega, p.unit_theta, p.has_greeks)
        is distinct from (n.unit_value, n.unit_notional, n.unit_delta, n.unit_gamma,
          n.unit_dollar_delta, n.unit_dollar_gamma, n.unit_vega, n.unit_theta, n.has_greeks));
end
$$;
comment on function risk_private.unfollowed(integer, integer[]) is
  'Present unit values of those instruments which an account carries at other values.';

-- Lock order: the account, its chain's counters ascending, then their equities ascending.
create function risk_private.revalue(account_id integer, instrument_ids integer[]) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_units risk_private.unit_values[];
begin
  perform risk_private.begin_change();
  perform risk_private.lock_account(account_id);
  v_units := risk_private.unfollowed(account_id, instrument_ids);
  if cardinality(v_units) > 0 then
    perform risk_private.follow_marks(account_id, risk_private.carry_at(account_id, v_units));
  end if;
end
$$;
comment on function risk_private.revalue(integer, integer[]) is
  'Carries an account''s positions in the instruments at their present values, moving its counters '
  'by the difference.';

create function risk_private.rested(
  share double precision, owed double precision, began_at timestamptz)
returns double precision
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  owed := owed + (1 / share - 1) * extract(epoch from clock_timestamp() - began_at);
  if owed > 0.305 then
    perform pg_sleep(owed - 0.3);
    owed := 0.3;
  end if;
  return owed;
end
$$;
comment on function risk_private.rested(double precision, double precision, timestamptz) is
  'Seconds of rest that are owed after what began then and shall take that share of the time: 0.3 '
  'at most, for it rests for what is more.';

-- An order in flight keeps a batch waiting. That is a matter of milliseconds; where it takes
-- longer, the next call sees to it. What takes long rests between accounts, not afterwards: at full
-- speed it would make orders queue up for seconds. Orders come all the time, so it would go on from
-- pass to pass: who owes rest is let go after one.
create procedure risk_private.revalue_sparingly(share double precision, inout owed double precision)
language plpgsql
as $$
declare
  v_pass risk_private.revaluation_pass;
  v_account_id integer;
  v_began_at timestamptz;
begin
  owed := 0;
  for v_turn in 1 .. 20 loop
    v_pass := risk_private.next_pass();
    commit;
    if v_pass.batches is not null then
      foreach v_account_id in array v_pass.account_ids loop
        v_began_at := pg_catalog.clock_timestamp();
        perform risk_private.revalue(v_account_id, v_pass.instrument_ids);
        commit;
        owed := risk_private.rested(share, owed, v_began_at);
      end loop;
      perform risk_private.end_pass(v_pass);
      commit;
    end if;
    exit when v_pass.is_waiting is not true or pg_catalog.float8ge(owed, 0.3);
    perform pg_catalog.pg_sleep(0.005);
  end loop;
end
$$;
comment on procedure risk_private.revalue_sparingly(double precision, double precision) is
  'risk.revalue() that takes at most that share of the time, above 0 and at most 1. It rests when '
  'it owes more than 0.3 s, and tells how many seconds it still owes: above 0 it did something, and '
  'there may be more to do.';

create procedure risk.revalue()
language plpgsql
as $$
declare
  v_owed double precision;
begin
  call risk_private.revalue_sparingly(1, v_owed);
end
$$;
comment on procedure risk.revalue() is
  'Carries every position in instruments that moved since the last call at their present marks, '
  'account by account, and lets counters and exposures follow. A worker calls it all the time; '
  'where none runs, whatever sets marks, rates or the day does.';

create function risk_private.worker_follows() returns boolean
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select from risk_private.heartbeat as h
    where risk_private.is_fresh(h.beat_at, 3, risk_private.clock()));
end
$$;
comment on function risk_private.worker_follows() is
  'Whether a worker gave its heartbeat in the last 3 seconds: then it is its part to revalue.';

create procedure risk_private.follow()
language plpgsql
as $$
begin
  if not risk_private.worker_follows() then
    call risk.revalue();
  end if;
end
$$;
comment on procedure risk_private.follow() is
  'risk.revalue(), unless a worker is there to do it.';

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
  -- A leg of a combo that is filled and closed again, and has no mark, stands in no value.
  v_movements := array(
    select risk_private.movement(
      settle.account_id, c.instrument_id, sum(c.quantity), sum(c.open_buy), sum(c.open_sell),
      sum(c.notional), v_opened,
      0, risk_private.valued(
        pg_catalog.any_value(u), c.instrument_id, coalesce(max(c.unit_value), 0)))
    from (
      select a.instrument_id, 0::numeric as quantity, case when a.ratio > 0 then a.open_quantity
        else 0 end as open_buy,
        case when a.ratio < 0 then a.open_quantity else 0 end as open_sell,
        a.open_notional as notional,
        null::numeric as unit_value
      from pg_catalog.unnest(after) as a
      union all
      select b.instrument_id, 0, case when b.ratio > 0 then -b.open_quantity else 0 end,
        case when b.ratio < 0 then -b.open_quantity else 0 end, -b.open_notional, null
      from pg_catalog.unnest(before) as b
      union all
      select f.instrument_id, f.signed_quantity, 0, 0, abs(f.signed_quantity) * f.unit_price,
        f.unit_price * pg_catalog.sign(f.price)
      from pg_catalog.unnest(fills) as f
    ) as c
    left join risk_private.unit_values as u on u.instrument_id = c.instrument_id
    group by c.instrument_id);
  if pg_catalog.cardinality(v_movements) > 0 then
    perform risk_private.move(v_movements, true);
    perform risk_private.move_exposures(settle.account_id, v_movements, before, after);
    perform risk_private.renew_obligations(settle.account_id, array(
      select distinct i.underlying_id
      from pg_catalog.unnest(v_movements) as m
      join risk_private.instruments as i on i.instrument_id = m.instrument_id));
  end if;
end
$$;
comment on function risk_private.settle(
  integer, risk_private.working_legs[], risk_private.working_legs[], risk_private.fills[]) is
  'Moves positions and counters by the difference between what was and is reserved, and by fills, '
  'whose cost is booked already; then what the account may come to owe.';

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
  -- Told again as it first was, it is the same execution, whatever has become of it.
  if v_known.status <> 'BOOKED' and exists (
    select from (
      select c.* from risk_private.fill_corrections as c
      where c.account_id = execution.account_id and c.exec_id = execution.exec_id
      order by c.correction_id limit 1
    ) as c
    where c.old_quantity = execution.signed_quantity and c.old_price = execution.price
      and c.old_fee = execution.fee) then
    v_known.signed_quantity := execution.signed_quantity;
    v_known.price := execution.price;
    v_known.fee := execution.fee;
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

-- Lock order: the account; its chain's counters ascending (within settle); their equities.
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
  v_money risk_private.money;
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
  v_fill.booked_on := v_order.client_order_id;
  v_fill := risk_private.book(v_fill);
  v_money := risk_private.account_for(v_fill);
  update risk_private.orders as o set filled[v_leg] = o.filled[v_leg] + record_fill.quantity
  where o.account_id = v_leaf.scope_id and (
    o.client_order_id = v_order.client_order_id
    or (o.client_order_id = v_order.replaced_by and v_order.replace_pending));
  perform risk_private.note_fills(v_leaf.scope_id, v_ids, v_fill.recorded_at);
  perform risk_private.settle(v_leaf.scope_id, v_before,
    risk_private.reserved(v_leaf.scope_id, v_ids), array[v_fill]);
  perform risk_private.follow_fill(v_leaf.scope_id, v_fill.instrument_id, v_fill.signed_quantity,
    v_money);
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
    where s.code = account
      and f.recorded_xid is distinct from pg_catalog.pg_current_xact_id_if_assigned());
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

-- Lock order: the account; its chain's counters ascending (within settle); their equities.
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
  v_money risk_private.money;
begin
  perform risk_private.begin_change();
  perform risk_private.validate_execution(exec_id, quantity, price, fee, executed_at);
  if (side in ('buy', 'sell')) is not true then
    perform risk_private.fail('RK400', pg_catalog.format('side must be buy or sell, got %L', side),
      'argument: side');
  end if;
  if (kind in ('opening', 'assignment', 'exercise', 'expiry', 'transfer', 'cash_in_lieu',
    'unexplained')) is not true then
    perform risk_private.fail('RK400', pg_catalog.format('unknown kind %L', kind), 'argument: kind',
      'One of opening, assignment, exercise, expiry, transfer, cash_in_lieu, unexplained.');
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
  v_money := risk_private.account_for(v_fill);
  perform risk_private.settle(v_leaf.scope_id, '{}', '{}', array[v_fill]);
  perform risk_private.follow_fill(v_leaf.scope_id, v_fill.instrument_id, v_fill.signed_quantity,
    v_money);
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
  'Books a trade that no order of ours explains: kind opening or transfer (a position brought in '
  'or taken out: a flow, no cash), assignment, exercise, expiry (of an option at price 0, or at '
  'what it is settled for in cash; shares that change hands are a trade of their own at the '
  'strike), cash_in_lieu (a fraction that a split left), or unexplained (alerted). Booked once per '
  'exec_id. Errors: RK400, RK404, RK409 same exec_id with other content.';

-- 51_lifecycle.sql
-- What else happens to an order: sent, acknowledged, released.

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
  where c.replace_pending and c.account_id = o.account_id and c.client_order_id = o.replaces;
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
  v_reason text;
begin
  perform risk_private.begin_change();
  perform risk_private.lock_account(v_leaf.scope_id);
  v_order := risk_private.order_of(v_leaf.scope_id, client_order_id);
  if v_order.state <> 'ACCEPTED' then
    return;
  end if;
  select pg_catalog.bool_or(t.state = 'HALTED'), case
    when pg_catalog.bool_or(t.state = 'HALTED' and t.breaker_id = 0) then 'TRADING_HALTED'
    when pg_catalog.bool_or(t.breaker_id <> 0) then 'CIRCUIT_BREAKER_TRIPPED'
    else 'REDUCE_ONLY' end
  into v_is_halted, v_reason
  from risk_private.trading_states as t
  where t.scope_id = any (v_leaf.chain) and t.state <> 'ACTIVE'
    and (t.underlying_id = 0 or t.underlying_id in (
    select i.underlying_id from risk_private.instruments as i
      where i.instrument_id = any (v_order.instrument_ids)));
  if v_is_halted is not null and (
    v_is_halted or not risk_private.is_reducing_order(v_order)) then
    perform risk_private.close_order(v_order, 'CANCELLED', v_reason);
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
    where s.code = account
      and o.decided_xid is distinct from pg_catalog.pg_current_xact_id_if_assigned());
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
  'The last look just before sending: marks an accepted order SENT, or, where a halt, REDUCE_ONLY '
  'or a circuit breaker forbids it by now, releases it and answers REJECTED with the reason. After '
  'a crash, orders still ACCEPTED were not sent; SENT ones may have been. Errors: RK404.';

-- 52_cash.sql
-- Cash and equity. Cash is kept per currency at the rate that it is carried at; equities sum it
-- with the carried value of positions, for the account and every scope above.

-- The caller holds the account.
create function risk_private.move_cash(account_id integer, currency text, amount numeric,
  cost numeric)
returns risk_private.money
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rate numeric;
  v_unknown integer := 0;
begin
  update risk_private.cash_balances as b set
    amount = b.amount + move_cash.amount, cost = b.cost + move_cash.cost
  where b.account_id = move_cash.account_id and b.currency = move_cash.currency
  returning b.rate into v_rate;
  if not found then
    insert into risk_private.cash_balances as b (account_id, currency, amount, cost, rate)
    values (
      move_cash.account_id, move_cash.currency, move_cash.amount, move_cash.cost,
      (select f.rate from risk_private.fx_rates as f where f.currency = move_cash.currency))
    returning b.rate into v_rate;
    v_unknown := (v_rate is null)::integer;
  end if;
  v_rate := coalesce(v_rate, 0);
  return row(amount * v_rate, amount * v_rate, (amount + cost) * v_rate, 0, 0, 0, 0,
    v_unknown)::risk_private.money;
end
$$;
comment on function risk_private.move_cash(integer, text, numeric, numeric) is
  'Adds to the cash of an account, and to the cost of its positions, in one currency. Returns what '
  'that adds to equities.';

create function risk_private.cash_rate(account_id integer, currency text) returns numeric
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(
    (select b.rate from risk_private.cash_balances as b
     where b.account_id = cash_rate.account_id and b.currency = cash_rate.currency),
    (select f.rate from risk_private.fx_rates as f where f.currency = cash_rate.currency), 0);
end
$$;
comment on function risk_private.cash_rate(integer, text) is
  'Base currency per unit at which an account''s cash in a currency is carried; 0: unknown.';

-- Lock order: the caller holds the account; then the counters of its chain, ascending.
create function risk_private.lock_chain(account_id integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from risk_private.counters as c
  where c.counter_id = any (array(
    select risk_private.counter_id(k.scope_id)
    from risk_private.scopes as s cross join unnest(s.chain) as k (scope_id)
    where s.scope_id = lock_chain.account_id))
  order by c.counter_id
  for no key update;
end
$$;
comment on function risk_private.lock_chain(integer) is
  'Locks an account and all scopes above it, for what moves their equities and no counter.';

create function risk_private.rebased_peak(peak numeric, equity numeric, flows numeric)
returns numeric
language sql immutable
return case
  when flows = 0 then peak
  when equity > 0 and equity + flows > 0
    then pg_catalog.round(peak * (equity + flows) / equity, 12)
  else peak + flows
end;
comment on function risk_private.rebased_peak(numeric, numeric, numeric) is
  'The peak after a flow: (peak - equity) / peak stays what it was. From an equity of 0 or less, '
  'or to one, that cannot be, and the peak moves by the flow.';

create function risk_private.rates_are_moving() returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select from risk_private.moving_rates as r
    where r.since > risk_private.clock() - interval '1 minute');
end
$$;
comment on function risk_private.rates_are_moving() is
  'Whether some cash may still be carried at an old rate: then no scope above accounts can be at a '
  'peak.';

create function risk_private.is_between_rates(account_id integer) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select from risk_private.cash_balances as b
    join risk_private.fx_rates as f on f.currency = b.currency
    where b.account_id = is_between_rates.account_id and b.rate is distinct from f.rate);
end
$$;
comment on function risk_private.is_between_rates(integer) is
  'Whether cash of an account has yet to follow a rate that its positions may stand at: then it '
  'cannot be at a peak. recarry() samples it once both have.';

create function risk_private.marks_are_moving() returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (select from risk_private.moved_marks as m where m.settles_at is null);
end
$$;
comment on function risk_private.marks_are_moving() is
  'Whether some accounts may have followed marks that others have yet to follow: then no scope '
  'above them can be at a peak. The pass that ends it samples all.';

-- Lock order: the caller holds the counters of the chain; then its equities, ascending.
create function risk_private.move_equities(account_id integer, m risk_private.money) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
  v_is_whole boolean := not risk_private.is_between_rates(account_id);
  v_are_whole boolean := not (
    risk_private.marks_are_moving() or risk_private.rates_are_moving());
begin
  update risk_private.equities as e set
    known_equity = e.known_equity + m.equity,
    unknown = e.unknown + m.unknown,
    cash = e.cash + m.cash,
    book = e.book + m.book,
    flows = e.flows + m.flows,
    realized = e.realized + m.realized,
    fees = e.fees + m.fees,
    income = e.income + m.income,
    currency_pnl = e.currency_pnl + m.book - (m.realized - m.fees + m.income + m.flows),
    peak = greatest(
      risk_private.rebased_peak(e.peak, e.known_equity, m.flows),
      case when e.scope_id = move_equities.account_id and v_is_whole
          or e.scope_id <> move_equities.account_id and v_are_whole
        then e.known_equity + m.equity end),
    as_of = risk_private.clock()
  where e.scope_id = any (
    (select s.chain from risk_private.scopes as s where s.scope_id = move_equities.account_id)
      ::integer[]);
end
$$;
comment on function risk_private.move_equities(integer, risk_private.money) is
  'Adds to the equities of an account and of every scope above it, and samples their peaks, but '
  'not half-way through a change of marks or rates.';

create function risk_private.is_flow(reason text) returns boolean
language sql immutable
return reason in ('deposit', 'withdrawal', 'transfer');
comment on function risk_private.is_flow(text) is
  'Whether cash of that reason is brought in or taken out; all else is profit or loss.';

create function risk_private.validate_posting(amount numeric, reason text, currency text,
  reference text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not (risk_private.is_amount(abs(amount)) and amount <> 0) then
    perform risk_private.fail('RK400',
      'amount must be a finite number other than 0, within 1e15, with at most 12 decimals',
      'argument: amount, value: ' || coalesce(pg_catalog."left"(amount::text, 40), 'NULL'));
  end if;
  if not risk_private.is_code(reason) then
    perform risk_private.fail('RK400', 'reason must be 1 to 64 printable characters',
      'argument: reason',
      'deposit, withdrawal and transfer are flows; all else (dividend, interest, fee) is P&L.');
  end if;
  if reason = 'deposit' and amount < 0 or reason = 'withdrawal' and amount > 0 then
    perform risk_private.fail('RK400',
      pg_catalog.format('a %s of %s: what leaves the account is below 0', reason, amount),
      'argument: amount');
  end if;
  if reference is not null and not risk_private.is_code(reference) then
    perform risk_private.fail('RK400', 'reference must be 1 to 64 printable characters',
      'argument: reference');
  end if;
  if not exists (
    select from risk_private.fx_rates as f where f.currency = validate_posting.currency)
  then
    perform risk_private.fail('RK404', pg_catalog.format('no rate for currency %L', currency),
      'argument: currency', 'Set one with risk.set_fx.');
  end if;
end
$$;
comment on function risk_private.validate_posting(numeric, text, text, text) is
  'Raises RK400 or RK404 for cash that cannot be posted.';

create function risk_private.is_posted(posting risk_private.cash_postings) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_known risk_private.cash_postings;
begin
  select p.* into v_known from risk_private.cash_postings as p
  where p.account_id = posting.account_id and p.reference = posting.reference;
  if v_known.posting_id is null then
    return false;
  end if;
  if row(v_known.currency, v_known.amount, v_known.reason)
    is distinct from row(posting.currency, posting.amount, posting.reason) then
    perform risk_private.fail('RK409',
      pg_catalog.format('reference %L was posted with other content', posting.reference),
      'argument: reference');
  end if;
  return true;
end
$$;
comment on function risk_private.is_posted(risk_private.cash_postings) is
  'Whether this very posting was made already; RK409 where its reference stands for another.';

-- Lock order: the account; the counters of its chain ascending; their equities ascending.
create function risk_private.post_cash(account text, amount numeric, reason text, currency text,
  reference text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_leaf risk_private.scopes := risk_private.scope(account);
  v_posting risk_private.cash_postings;
  v_money risk_private.money;
  v_value numeric;
begin
  perform risk_private.begin_change();
  v_posting.account_id := v_leaf.scope_id;
  v_posting.currency := coalesce(currency, risk_private.base_currency());
  v_posting.amount := amount;
  v_posting.reason := pg_catalog.lower(reason);
  v_posting.reference := reference;
  perform risk_private.validate_posting(amount, v_posting.reason, v_posting.currency, reference);
  perform risk_private.lock_chain(v_leaf.scope_id);
  if not (select s.is_leaf from risk_private.scopes as s where s.scope_id = v_leaf.scope_id) then
    perform risk_private.fail('RK400',
      pg_catalog.format('%L has scopes below it: cash belongs to those', account),
      'argument: account');
  end if;
  if risk_private.is_posted(v_posting) then
    return;
  end if;
  v_money := risk_private.move_cash(v_leaf.scope_id, v_posting.currency, amount, 0);
  v_value := v_money.cash;
  v_money.flows := case when risk_private.is_flow(v_posting.reason) then v_value else 0 end;
  v_money.income := v_value - v_money.flows;
  perform risk_private.move_equities(v_leaf.scope_id, v_money);
  insert into risk_private.cash_postings (
    account_id, currency, amount, reason, reference, rate, trading_day, posted_at)
  select v_leaf.scope_id, v_posting.currency, amount, v_posting.reason, post_cash.reference,
    risk_private.cash_rate(v_leaf.scope_id, v_posting.currency), s.trading_day,
    risk_private.clock()
  from risk_private.scopes as s where s.scope_id = v_leaf.scope_id;
end
$$;
comment on function risk_private.post_cash(text, numeric, text, text, text) is
  'What risk.post_cash does.';

create procedure risk.post_cash(account text, amount numeric, reason text,
  currency text default null, reference text default null)
language plpgsql
as $$
begin
  perform risk_private.post_cash(account, amount, reason, currency, reference);
  commit;
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.post_cash(text, numeric, text, text, text) is
  'Adds cash to an account, below 0 takes it out; currency by default the base currency. reason '
  'deposit, withdrawal or transfer is a flow: no profit, and the drawdown in percent stays as it '
  'is. Any other (dividend, interest, fee) is profit or loss. With a reference it is posted once, '
  'however often it is called. Errors: RK400, RK404 unknown account or currency without rate, '
  'RK409 same reference with other content.';

-- The caller holds the counters of the chain.
create function risk_private.begin_as_leaf(scope_id integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_unstarted integer;
begin
  select (s.trading_day is null)::integer into v_unstarted
  from risk_private.scopes as s where s.scope_id = begin_as_leaf.scope_id;
  insert into risk_private.equities (scope_id, as_of)
  values (begin_as_leaf.scope_id, risk_private.clock());
  perform risk_private.move_start(scope_id, 0, v_unstarted);
end
$$;
comment on function risk_private.begin_as_leaf(integer) is
  'Gives a new scope its equity of 0: known, and its start too once a trading day is open.';

-- The caller holds the counters of the chain.
create function risk_private.end_as_leaf(leaf risk_private.scopes) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.move_start(e.scope_id, -e.known_start, -e.unstarted)
  from risk_private.equities as e where e.scope_id = leaf.scope_id;
end
$$;
comment on function risk_private.end_as_leaf(risk_private.scopes) is
  'Takes away the start of day of an account that becomes a parent: from now on it is the sum of '
  'what is below.';

create function risk_private.move_start(account_id integer, known_start numeric, unstarted integer)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update risk_private.equities as e set
    known_start = e.known_start + move_start.known_start,
    unstarted = e.unstarted + move_start.unstarted
  from risk_private.scopes as s
  where s.scope_id = move_start.account_id and e.scope_id = any (s.chain);
end
$$;
comment on function risk_private.move_start(integer, numeric, integer) is
  'Adds to the start of day of an account and every scope above it. The caller holds the counters '
  'of the chain.';

-- 53_pnl.sql
-- Profit and loss at average cost: what enlarges a position adds to its cost, what reduces it takes
-- a proportionate part of the cost out and realizes the rest. Cost and realized profit are kept in
-- the currency of the instrument, and what rounding does to one it undoes in the other, so cash and
-- P&L agree to the last digit.

create function risk_private.is_in_kind(kind text) returns boolean
language sql immutable
return kind in ('opening', 'transfer');
comment on function risk_private.is_in_kind(text) is
  'Whether a trade of that kind moves no cash: the position itself is brought in or taken out, at '
  'the price given, which is a flow.';

create function risk_private.average_cost(
  quantity numeric, cost numeric, traded numeric, unit_amount numeric,
  out new_cost numeric, out realized numeric, out closed numeric)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_removed numeric;
begin
  closed := case when quantity * traded < 0 then least(abs(quantity), abs(traded)) else 0 end;
  v_removed := case
    when closed = abs(quantity) then cost
    else pg_catalog.round(cost * closed / abs(quantity), 12) end;
  realized := closed * unit_amount * pg_catalog.sign(quantity) - v_removed;
  new_cost := cost - v_removed
    + (traded + closed * pg_catalog.sign(quantity)) * unit_amount;
end
$$;
comment on function risk_private.average_cost(numeric, numeric, numeric, numeric) is
  'Cost of a position after a trade of that signed quantity, the profit that it realizes, and how '
  'much it closes. A '
  'trade through zero closes at the average cost and opens the rest at its own price.';

create function risk_private.average_price(cost numeric, quantity numeric, multiplier numeric)
returns numeric
language sql immutable
return case
  when quantity = 0 then 0
  else pg_catalog.trim_scale(pg_catalog.round(cost / (quantity * multiplier), 12))
end;
comment on function risk_private.average_price(numeric, numeric, numeric) is
  'Average cost per unit, as prices are quoted.';

-- The caller holds the account.
create function risk_private.book(execution risk_private.fills) returns risk_private.fills
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fill risk_private.fills := execution;
begin
  select abs(execution.price) * i.multiplier * coalesce(f.rate, 1),
    i.multiplier, execution.price * i.multiplier,
    risk_private.cash_rate(execution.account_id, i.currency),
    s.trading_day, risk_private.clock(), c.realized, c.closed
  into v_fill.unit_price, v_fill.multiplier, v_fill.unit_amount, v_fill.rate,
    v_fill.trading_day, v_fill.recorded_at, v_fill.realized, v_fill.closed
  from risk_private.instruments as i
  cross join risk_private.scopes as s
  left join risk_private.fx_rates as f on f.currency = i.currency
  left join risk_private.positions as p
    on p.account_id = execution.account_id and p.instrument_id = execution.instrument_id
  cross join lateral risk_private.average_cost(coalesce(p.quantity, 0), coalesce(p.cost, 0),
    execution.signed_quantity, execution.price * i.multiplier) as c
  where i.instrument_id = execution.instrument_id and s.scope_id = execution.account_id;
  v_fill.executed_at := coalesce(execution.executed_at, v_fill.recorded_at);
  insert into risk_private.fills (
    account_id, exec_id, client_order_id, instrument_id, signed_quantity, price, fee, unit_price,
    kind, flag, trading_day, executed_at, recorded_at, booked_on, multiplier, rate,
    realized, closed)
  values (
    v_fill.account_id, v_fill.exec_id, v_fill.client_order_id, v_fill.instrument_id,
    v_fill.signed_quantity, v_fill.price, v_fill.fee, v_fill.unit_price, v_fill.kind, v_fill.flag,
    v_fill.trading_day, v_fill.executed_at, v_fill.recorded_at, v_fill.booked_on,
    v_fill.multiplier, v_fill.rate, v_fill.realized, v_fill.closed);
  perform risk_private.event('fill', '{}', false);
  return v_fill;
end
$$;
comment on function risk_private.book(risk_private.fills) is
  'Stores an execution, valued in base currency, with the profit that it realizes.';

-- The caller holds the account.
create function risk_private.change_cost(
  account_id integer, instrument_id integer, quantity numeric, cost numeric, realized numeric,
  fees numeric)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.positions as p (
    account_id, instrument_id, underlying_id, cost, average_price, realized_pnl_today, fees_today)
  select change_cost.account_id, i.instrument_id, i.underlying_id, change_cost.cost,
    risk_private.average_price(change_cost.cost, change_cost.quantity, i.multiplier),
    change_cost.realized - change_cost.fees, change_cost.fees
  from risk_private.instruments as i where i.instrument_id = change_cost.instrument_id
  on conflict on constraint positions_pkey do update set
    cost = excluded.cost, average_price = excluded.average_price,
    realized_pnl_today = p.realized_pnl_today + excluded.realized_pnl_today,
    fees_today = p.fees_today + excluded.fees_today;
end
$$;
comment on function risk_private.change_cost(integer, integer, numeric, numeric, numeric,
  numeric) is
  'Sets the cost of a position that has, or is about to have, that quantity, and adds to what it '
  'realized today, in base currency.';

create function risk_private.account_for(fill risk_private.fills) returns risk_private.money
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_quantity numeric;
  v_cost numeric;
  v_new_cost numeric;
  v_amount numeric := fill.signed_quantity * fill.unit_amount;
  v_in_kind boolean := risk_private.is_in_kind(fill.kind);
  v_money risk_private.money;
begin
  select p.quantity, p.cost into v_quantity, v_cost from risk_private.positions as p
  where p.account_id = fill.account_id and p.instrument_id = fill.instrument_id;
  v_quantity := coalesce(v_quantity, 0);
  v_cost := coalesce(v_cost, 0);
  select c.new_cost into v_new_cost
  from risk_private.average_cost(v_quantity, v_cost, fill.signed_quantity, fill.unit_amount) as c;
  v_money := risk_private.move_cash(
    fill.account_id,
    (select i.currency from risk_private.instruments as i
     where i.instrument_id = fill.instrument_id),
    case when v_in_kind then 0 else -v_amount end - fill.fee, v_new_cost - v_cost);
  v_money.realized := fill.realized * fill.rate;
  v_money.fees := fill.fee * fill.rate;
  v_money.flows := case when v_in_kind then v_amount * fill.rate else 0 end;
  perform risk_private.change_cost(fill.account_id, fill.instrument_id,
    v_quantity + fill.signed_quantity, v_new_cost, v_money.realized, v_money.fees);
  return v_money;
end
$$;
comment on function risk_private.account_for(risk_private.fills) is
  'Moves the cash and cost of an account by a fill that is booked and not yet settled. Returns '
  'what equities must follow, but for the value of the position.';

-- Lock order: the caller holds the counters of the chain; then its equities, ascending.
create function risk_private.follow_fill(
  account_id integer, instrument_id integer, traded numeric, m risk_private.money)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_money risk_private.money := m;
begin
  v_money.equity := m.equity + traded * (
    select p.unit_value from risk_private.positions as p
    where p.account_id = follow_fill.account_id and p.instrument_id = follow_fill.instrument_id);
  perform risk_private.move_equities(account_id, v_money);
end
$$;
comment on function risk_private.follow_fill(integer, integer, numeric, risk_private.money) is
  'Moves equities by what account_for said and by the carried value of what was traded.';

-- Lock order: the caller holds the counters of the chain; then its equities, ascending.
create function risk_private.follow_marks(account_id integer, change numeric) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
  v_is_whole boolean := not risk_private.is_between_rates(account_id);
begin
  update risk_private.equities as e set
    known_equity = e.known_equity + change,
    peak = case when e.scope_id = follow_marks.account_id and v_is_whole
      then greatest(e.peak, e.known_equity + change) else e.peak end,
    as_of = risk_private.clock()
  where e.scope_id = any (
    (select s.chain from risk_private.scopes as s where s.scope_id = follow_marks.account_id)
      ::integer[]);
end
$$;
comment on function risk_private.follow_marks(integer, numeric) is
  'Moves equities by what a revaluation changed the value of positions. Of scopes above, '
  'sample_peaks samples the peak once all accounts have followed: half-way, the gain of one stands '
  'beside the old value of its hedge in another.';

-- Lock order: counters of parents, ascending; then their equities.
create function risk_private.sample_peaks() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_scope_ids integer[] := array(
    select e.scope_id from risk_private.equities as e
    join risk_private.scopes as s on s.scope_id = e.scope_id
    where not s.is_leaf and e.known_equity > e.peak);
begin
  if v_scope_ids <> '{}' and not risk_private.rates_are_moving() then
    perform from risk_private.counters as c
    where c.counter_id = any (array(
      select risk_private.counter_id(k) from unnest(v_scope_ids) as k))
    order by c.counter_id
    for no key update;
    update risk_private.equities as e set peak = greatest(e.peak, e.known_equity)
    where e.scope_id = any (v_scope_ids);
  end if;
end
$$;
comment on function risk_private.sample_peaks() is
  'Raises the peaks of all scopes above accounts to their present equity, once a change of marks '
  'or rates is complete.';

-- 54_trading_day.sql
-- The roll of the trading day, account by account.

create function risk_private.activity(
  account_id integer, out decisions bigint, out accepted bigint, out executions bigint,
  out traded_notional numeric)
language sql stable
begin atomic
  select o.decisions, o.accepted, f.executions, f.traded_notional
  from risk_private.scopes as s
  cross join lateral (
    select count(*) as decisions, count(*) filter (where q.decision = 'ACCEPTED') as accepted
    from risk_private.orders as q
    where q.account_id = s.scope_id and q.decided_at >= coalesce(s.day_began_at, s.created_at)
  ) as o
  cross join lateral (
    select count(*) as executions,
      coalesce(sum(abs(q.signed_quantity) * q.unit_price), 0) as traded_notional
    from risk_private.fills as q
    where q.account_id = s.scope_id and q.trading_day = s.trading_day
      and q.recorded_at >= coalesce(s.day_began_at, s.created_at)
      and q.signed_quantity <> 0 and q.adjustment_id is null
  ) as f
  where s.scope_id = activity.account_id;
end;
comment on function risk_private.activity(integer) is
  'What an account has decided and executed in its trading day so far. Busted executions do not '
  'count, nor does what a split added.';

-- The caller holds the counters of the chain.
create function risk_private.close_day(account_id integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.closed_days as d (
    scope_id, day, start_equity, equity, flows, realized, fees, income, currency_pnl, unrealized,
    start_unrealized, peak, decisions, accepted, executions, traded_notional, closed_at)
  select k.scope_id, s.trading_day, e.start_equity, e.equity, e.flows, e.realized, e.fees,
    e.income, e.currency_pnl, e.known_equity - e.book, e.start_unrealized, p.peak, a.decisions,
    a.accepted, a.executions, a.traded_notional, risk_private.clock()
  from risk_private.scopes as s
  join risk_private.equities as e on e.scope_id = s.scope_id
  cross join unnest(s.chain) as k (scope_id)
  join risk_private.equities as p on p.scope_id = k.scope_id
  cross join lateral risk_private.activity(s.scope_id) as a
  where s.scope_id = close_day.account_id and s.trading_day is not null
  on conflict on constraint closed_days_pkey do update set
    start_equity = d.start_equity + excluded.start_equity, equity = d.equity + excluded.equity,
    flows = d.flows + excluded.flows, realized = d.realized + excluded.realized,
    fees = d.fees + excluded.fees, income = d.income + excluded.income,
    currency_pnl = d.currency_pnl + excluded.currency_pnl,
    unrealized = d.unrealized + excluded.unrealized,
    start_unrealized = d.start_unrealized + excluded.start_unrealized, peak = excluded.peak,
    decisions = d.decisions + excluded.decisions, accepted = d.accepted + excluded.accepted,
    executions = d.executions + excluded.executions,
    traded_notional = d.traded_notional + excluded.traded_notional,
    closed_at = excluded.closed_at;
end
$$;
comment on function risk_private.close_day(integer) is
  'Keeps what the day that ends made of an account, and adds it to every scope above.';

-- The caller holds the counters of the chain.
create function risk_private.begin_day(account_id integer, day date) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old risk_private.equities;
  v_start numeric;
begin
  select e.* into v_old from risk_private.equities as e where e.scope_id = begin_day.account_id;
  v_start := coalesce(
    (select q.equity from risk_private.start_equities as q
     where q.account_id = begin_day.account_id and q.day = begin_day.day), v_old.equity);
  update risk_private.equities as e set
    known_start = e.known_start - v_old.known_start + coalesce(v_start, 0),
    unstarted = e.unstarted - v_old.unstarted + (v_start is null)::integer,
    start_unrealized = e.start_unrealized - v_old.start_unrealized
      + v_old.known_equity - v_old.book,
    flows = e.flows - v_old.flows, realized = e.realized - v_old.realized,
    fees = e.fees - v_old.fees, income = e.income - v_old.income,
    currency_pnl = e.currency_pnl - v_old.currency_pnl, as_of = risk_private.clock()
  from risk_private.scopes as s
  where s.scope_id = begin_day.account_id and e.scope_id = any (s.chain);
  update risk_private.positions as p set realized_pnl_today = 0, fees_today = 0
  where p.account_id = begin_day.account_id
    and (p.realized_pnl_today <> 0 or p.fees_today <> 0);
  update risk_private.scopes as s set trading_day = day, day_began_at = risk_private.clock()
  where s.scope_id = begin_day.account_id;
end
$$;
comment on function risk_private.begin_day(integer, date) is
  'Starts the P&L of an account again, from the equity that open_day was told, else its own at '
  'this moment. Scopes above are the sums.';

-- Lock order: the account; the counters of its chain, ascending; their equities.
create function risk_private.correct_start(account_id integer, day date) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.lock_chain(account_id);
  perform risk_private.move_start(e.scope_id, q.equity - e.known_start, -e.unstarted)
  from risk_private.equities as e
  join risk_private.start_equities as q on q.account_id = e.scope_id and q.day = correct_start.day
  where e.scope_id = correct_start.account_id and e.start_equity is distinct from q.equity;
end
$$;
comment on function risk_private.correct_start(integer, date) is
  'Puts the start of a day that is open already to what open_day was told.';

-- Lock order: the account; its chain's counters ascending (within close_order and move); their
-- equities.
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
    perform risk_private.correct_start(account_id, day);
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
  perform risk_private.lock_chain(account_id);
  perform risk_private.close_day(account_id);
  perform risk_private.begin_day(account_id, day);
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
  v_opened_at timestamptz;
begin
  if day is null or day in ('infinity', '-infinity') then
    perform risk_private.fail('RK400', 'day must be a date', 'argument: day');
  end if;
  select c.trading_date, c.opened_at into v_today, v_opened_at
  from risk_private.trading_calendar as c for update;
  if day < v_today then
    perform risk_private.fail('RK400',
      pg_catalog.format('the trading date is %s already: it moves forward only', v_today),
      'argument: day');
  end if;
  if day > v_today then
    perform risk_private.record_closes(v_today, v_opened_at);
    perform risk_private.keep_indicators(v_today);
  end if;
  perform risk_private.set_start_equities(day, equities);
  update risk_private.trading_calendar as c set
    trading_date = day, opened_by = session_user,
    opened_at = case when day = v_today then v_opened_at else risk_private.clock() end;
  return array(
    select s.scope_id from risk_private.scopes as s
    left join risk_private.equities as e on e.scope_id = s.scope_id
    left join risk_private.start_equities as q
      on q.account_id = s.scope_id and q.day = set_trading_date.day
    where s.is_leaf and (s.trading_day is distinct from set_trading_date.day
      or q.equity <> e.start_equity or (q.equity is not null and e.start_equity is null))
    order by s.scope_id);
end
$$;
comment on function risk_private.set_trading_date(date, jsonb) is
  'Moves the trading date and returns the accounts that have to follow.';

create function risk_private.set_start_equities(day date, equities jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_parent text;
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
  select k into v_parent from pg_catalog.jsonb_object_keys(equities) as k
  where not (risk_private.scope(k)).is_leaf limit 1;
  if v_parent is not null then
    perform risk_private.fail('RK400',
      pg_catalog.format('%L has scopes below it: its equity is the sum of theirs', v_parent),
      'argument: equities');
  end if;
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
  call risk_private.follow();
  perform risk_private.refresh_materialized('daily_summary');
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.open_day(date, jsonb) is
  'Rolls the trading day, forward only: day orders expire, traded notional and today''s P&L start '
  'again, account by account; the marks of underlyings are kept as closes of the day that ends, '
  'and what it made of every scope in risk.daily_summary. '
  'equities: start-of-day equity per account, {"A1": "250000"}; where '
  'none is given, the engine''s own at this moment. Daily losses count from it, so cash must have '
  'been posted before. Repeating a day resumes a roll that was interrupted, and corrects the '
  'equities. Errors: RK400, RK404 unknown account.';

-- 55_rates.sql
-- Exchange rates, and what moves with them: cash, and the values at which positions are carried.

-- Lock order: for the first foreign rate, changes of limits: accounts learn that rates matter now.
create function risk_private.set_fx(currency text, rate numeric, as_of timestamptz)
returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_number bigint;
  v_is_first boolean := false;
begin
  perform risk_private.begin_change();
  if (currency ~ '^[A-Z]{3}$') is not true then
    perform risk_private.fail('RK400', 'currency must be three capital letters',
      'argument: currency, value: ' || coalesce(pg_catalog."left"(currency, 40), 'NULL'));
  end if;
  if currency = risk_private.base_currency() then
    perform risk_private.fail('RK400',
      pg_catalog.format('%s is the base currency: its rate is 1', currency), 'argument: currency');
  end if;
  if not (risk_private.is_amount(rate) and rate > 0) then
    perform risk_private.fail('RK400',
      'rate must be a finite number above 0, at most 1e15, with at most 12 decimals',
      'argument: rate, value: ' || coalesce(pg_catalog."left"(rate::text, 40), 'NULL'));
  end if;
  if as_of in ('infinity', '-infinity') then
    perform risk_private.fail('RK400', 'as_of must be a moment', 'argument: as_of');
  end if;
  if not risk_private.has_foreign_rates() then
    perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.limits'));
    v_is_first := true;
  end if;
  insert into risk_private.fx_rates as f (currency, rate, as_of)
  values (set_fx.currency, set_fx.rate, coalesce(set_fx.as_of, risk_private.clock()))
  on conflict on constraint fx_rates_pkey do update set rate = excluded.rate, as_of = excluded.as_of
    where f.as_of <= excluded.as_of;
  if found then
    delete from risk_private.moving_rates as r
    where r.since <= risk_private.clock() - interval '1 minute';
    insert into risk_private.moving_rates (currency) values (set_fx.currency)
    returning number into v_number;
    perform risk_private.note_moved(array(
      select i.instrument_id from risk_private.instruments as i
      where i.currency = set_fx.currency));
  end if;
  if v_is_first then
    perform risk_private.compile_account_levels(s.scope_id, risk_private.clock())
    from risk_private.scopes as s where s.parent_id is null;
  end if;
  return v_number;
end
$$;
comment on function risk_private.set_fx(text, numeric, timestamptz) is
  'Stores a rate; returns the number under which accounts are now carried to it, NULL where the '
  'stored one is newer.';

create function risk_private.instruments_in(currency text) returns integer[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select i.instrument_id from risk_private.instruments as i
    where i.currency = instruments_in.currency
      and exists (
        select from risk_private.positions as p where p.instrument_id = i.instrument_id));
end
$$;
comment on function risk_private.instruments_in(text) is
  'The instruments of a currency that somebody has traded.';

-- A fill in flight may have read the rate before this one without being visible yet: whoever holds
-- an account's lock at this moment is waited for by recarry(). Skipping locked rows, it waits for
-- nobody itself; its caller commits at once.
create function risk_private.accounts_in(currency text) returns integer[]
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
    select p.account_id from risk_private.positions as p
    where p.instrument_id = any (risk_private.instruments_in(currency))
      and (p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0)
    union
    select s.scope_id from risk_private.scopes as s
    where s.is_leaf and s.scope_id <> all (v_idle)
    union
    select b.account_id from risk_private.cash_balances as b where b.currency = accounts_in.currency
    order by 1);
end
$$;
comment on function risk_private.accounts_in(text) is
  'Accounts that carry cash or positions of a currency, or may come to.';

create function risk_private.unmarked(
  account_id integer, currency text, old_rate numeric, new_rate numeric)
returns risk_private.unit_values[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select risk_private.valued(
      null, p.instrument_id, trim_scale(round(p.unit_value * new_rate / old_rate, 12)))
    from risk_private.positions as p
    join risk_private.instruments as i on i.instrument_id = p.instrument_id
    where p.account_id = unmarked.account_id and i.currency = unmarked.currency
      and not risk_private.is_flat(p.quantity, p.open_buy, p.open_sell)
      and not exists (
        select from risk_private.marks as m where m.instrument_id = p.instrument_id));
end
$$;
comment on function risk_private.unmarked(integer, text, numeric, numeric) is
  'Values at a new rate of positions in a currency that have no mark, and so are carried at the '
  'price at which they were taken up.';

-- Lock order: the account; the counters of its chain, ascending; their equities.
create function risk_private.recarry(account_id integer, currency text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_cash risk_private.cash_balances;
  v_rate numeric;
  v_nothing constant risk_private.money := row(0, 0, 0, 0, 0, 0, 0, 0);
  v_money risk_private.money := v_nothing;
  v_units risk_private.unit_values[];
begin
  perform risk_private.begin_change();
  perform risk_private.lock_account(account_id);
  select b.* into v_cash from risk_private.cash_balances as b
  where b.account_id = recarry.account_id and b.currency = recarry.currency;
  select f.rate into v_rate from risk_private.fx_rates as f where f.currency = recarry.currency;
  if v_cash.account_id is not null and v_rate is distinct from v_cash.rate then
    update risk_private.cash_balances as b set
      rate = v_rate,
      made_known = case when b.rate is null then (b.amount + b.cost) * v_rate else b.made_known end,
      made_known_on = case when b.rate is null then s.trading_day else b.made_known_on end
    from risk_private.scopes as s
    where b.account_id = recarry.account_id and b.currency = recarry.currency
      and s.scope_id = b.account_id;
    v_units := risk_private.unmarked(account_id, currency, coalesce(v_cash.rate, 1), v_rate);
    v_money := row(v_cash.amount, v_cash.amount, v_cash.amount + v_cash.cost, 0, 0, 0, 0, 0);
    v_rate := v_rate - coalesce(v_cash.rate, 0);
    v_money.equity := v_money.equity * v_rate;
    v_money.cash := v_money.cash * v_rate;
    v_money.book := v_money.book * v_rate;
    if v_cash.rate is null then
      v_money.flows := v_money.book;
      v_money.unknown := -1;
    end if;
  end if;
  v_units := v_units || risk_private.unfollowed(account_id, risk_private.instruments_in(currency));
  if cardinality(v_units) > 0 then
    v_money.equity := v_money.equity + risk_private.carry_at(account_id, v_units);
  end if;
  if v_money <> v_nothing then
    perform risk_private.lock_chain(account_id);
    perform risk_private.move_equities(account_id, v_money);
  end if;
  update risk_private.equities as e set peak = e.known_equity
  where e.scope_id = recarry.account_id and e.known_equity > e.peak
    and not risk_private.is_between_rates(recarry.account_id);
  perform risk_private.renew_obligations(recarry.account_id, array(
    select distinct p.underlying_id
    from risk_private.positions as p
    join risk_private.instruments as i on i.instrument_id = p.instrument_id
    where p.account_id = recarry.account_id and i.currency = recarry.currency
      and (p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0)));
end
$$;
comment on function risk_private.recarry(integer, text) is
  'Carries an account''s cash and positions of a currency at its present rate, both at once: what '
  'was borrowed moves against what it bought. What a rate makes of cash and cost is currency P&L; '
  'the first rate of all makes no profit, it only makes known.';

-- Lock order: the rate that moved; counters of parents, ascending; their equities.
create function risk_private.end_rate(number bigint) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.begin_change();
  delete from risk_private.moving_rates as r where r.number = end_rate.number;
  if not risk_private.marks_are_moving() then
    perform risk_private.sample_peaks();
  end if;
end
$$;
comment on function risk_private.end_rate(bigint) is
  'Notes that all accounts are carried at a rate, and samples peaks.';

create procedure risk.set_fx(currency text, rate numeric, as_of timestamptz default null)
language plpgsql
as $$
declare
  v_number bigint := risk_private.set_fx(currency, rate, as_of);
  v_account_ids integer[];
  v_account_id integer;
begin
  if v_number is not null then
    commit;
    v_account_ids := risk_private.accounts_in(currency);
    commit;
    foreach v_account_id in array v_account_ids loop
      perform risk_private.recarry(v_account_id, currency);
      commit;
    end loop;
    call risk_private.follow();
    perform risk_private.end_rate(v_number);
  end if;
  commit;
end
$$;
comment on procedure risk.set_fx(text, numeric, timestamptz) is
  'Sets the rate of a currency, in base currency (USD) per unit, as of a moment (default now), '
  'then carries all cash and positions of that currency at it, account by account. A rate older '
  'than the stored one is passed over. Without a rate, or with one older than max_mark_age, only '
  'reducing orders pass in that currency. Errors: RK400, also for the base currency, whose rate '
  'is 1.';

-- 56_corrections.sql
-- Busts and corrections: an execution that was wrong is taken back or put right, and what it led to
-- is reckoned anew from the executions that remain, in the order in which they were booked.

create type risk_private.replayed as (
  signed_quantity numeric,
  realized numeric,
  quantity numeric,
  cost numeric
);
comment on type risk_private.replayed is
  'What an execution should have traded and realized, and the position after it.';

create function risk_private.adjusted_quantity(quantity numeric, new_units numeric,
  old_units numeric)
returns numeric
language sql immutable
return pg_catalog.round(quantity * new_units / old_units, 8);
comment on function risk_private.adjusted_quantity(numeric, numeric, numeric) is
  'A position after an adjustment, fractions included: those are the broker''s to pay.';

create function risk_private.replay_next(
  before risk_private.replayed, signed_quantity numeric, unit_amount numeric, new_units numeric,
  old_units numeric)
returns risk_private.replayed
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_quantity numeric := coalesce(before.quantity, 0);
  v_after risk_private.replayed;
begin
  if new_units is null then
    v_after.signed_quantity := signed_quantity;
    select c.new_cost, c.realized into v_after.cost, v_after.realized
    from risk_private.average_cost(v_quantity, coalesce(before.cost, 0), signed_quantity,
      unit_amount) as c;
  else
    v_after.signed_quantity :=
      risk_private.adjusted_quantity(v_quantity, new_units, old_units) - v_quantity;
    v_after.cost := coalesce(before.cost, 0);
    v_after.realized := 0;
  end if;
  v_after.quantity := v_quantity + v_after.signed_quantity;
  return v_after;
end
$$;
comment on function risk_private.replay_next(
  risk_private.replayed, numeric, numeric, numeric, numeric) is
  'One more execution or, where units are given, a split, which leaves the cost as it is and makes '
  'another quantity of the position.';

create aggregate risk_private.replay(numeric, numeric, numeric, numeric) (
  sfunc = risk_private.replay_next, stype = risk_private.replayed);
comment on aggregate risk_private.replay(numeric, numeric, numeric, numeric) is
  'Signed quantities, unit amounts and units of executions, in the order of their booking.';

create view risk_private.replayed_fills as
select
  f.account_id, f.instrument_id, f.exec_id, f.booking, f.trading_day, f.rate, f.fee,
  risk_private.replay(f.signed_quantity, f.unit_amount, a.new_units, a.old_units) over w
    as replayed,
  lead(f.booking) over w is null as is_last
from risk_private.fills as f
left join risk_private.adjusted_instruments as a
  on a.adjustment_id = f.adjustment_id and a.instrument_id = f.instrument_id
window w as (partition by f.account_id, f.instrument_id order by f.booking);
comment on view risk_private.replayed_fills is
  'Every execution, with the cost and profit at average cost that follow from all up to it.';

create function risk_private.heirs(account_id integer, client_order_id text) returns text[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    with recursive chain as (
      select o.account_id, o.client_order_id, o.replaced_by from risk_private.orders as o
      where o.account_id = heirs.account_id and o.client_order_id = heirs.client_order_id
      union all
      select o.account_id, o.client_order_id, o.replaced_by from chain as c
      join risk_private.orders as o
        on o.account_id = c.account_id and o.client_order_id = c.replaced_by
    )
    select pg_catalog.array_agg(c.client_order_id) from chain as c);
end
$$;
comment on function risk_private.heirs(integer, text) is
  'An order and all that have replaced it or may yet: what it had filled counts in each.';

-- The caller holds the account.
create function risk_private.refill_orders(fill risk_private.fills, client_order_ids text[],
  added numeric)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_leg integer := (
    select pg_catalog.array_position(o.instrument_ids, fill.instrument_id)
    from risk_private.orders as o
    where o.account_id = fill.account_id and o.client_order_id = fill.booked_on);
begin
  update risk_private.orders as o set filled[v_leg] = o.filled[v_leg] + added
  where o.account_id = fill.account_id and o.client_order_id = any (client_order_ids);
  update risk_private.orders as o set
    state = case
      when o.closed_at is not null and d.is_done then 'FILLED'
      when o.closed_at is not null then 'CANCELLED'
      when o.acknowledged_at is not null then 'ACKNOWLEDGED'
      when o.sent_at is not null then 'SENT'
      else 'ACCEPTED'
    end,
    close_reason = case
      when o.closed_at is not null and not d.is_done then 'fill_corrected' end
  from (
    select q.client_order_id,
      pg_catalog.bool_and(l.filled >= q.quantity * abs(l.ratio)) as is_done
    from risk_private.orders as q
    cross join lateral unnest(q.ratios, q.filled) as l (ratio, filled)
    where q.account_id = fill.account_id and q.client_order_id = any (client_order_ids)
    group by q.client_order_id
    having pg_catalog.bool_and(l.filled = 0) or bool_or(q.closed_at is not null)
  ) as d
  where o.account_id = fill.account_id and o.client_order_id = d.client_order_id
    and (o.state in ('FILLED', 'PARTIALLY_FILLED') or o.close_reason = 'fill_corrected');
  perform risk_private.note_fills(fill.account_id, client_order_ids, risk_private.clock());
end
$$;
comment on function risk_private.refill_orders(risk_private.fills, text[], numeric) is
  'Adds to what an execution filled of its order, and of its heirs. A live order has '
  'so much more or less to fill. One that had been filled stays closed: exchanges do not put '
  'orders back into the book.';

-- The caller holds the account, and has changed the execution.
create function risk_private.reprice(
  fill risk_private.fills, out today numeric, out late numeric, out quantity numeric,
  out cost numeric)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_day date := (select s.trading_day from risk_private.scopes as s
    where s.scope_id = fill.account_id);
  v_row record;
  v_old risk_private.fills;
begin
  today := 0;
  late := 0;
  for v_row in
    select r.exec_id, (r.replayed).*
    from risk_private.replayed_fills as r
    where r.account_id = fill.account_id and r.instrument_id = fill.instrument_id
    order by r.booking
  loop
    select f.* into v_old from risk_private.fills as f
    where f.account_id = fill.account_id and f.exec_id = v_row.exec_id;
    if v_row.realized <> v_old.realized or v_row.signed_quantity <> v_old.signed_quantity then
      update risk_private.fills as f set
        realized = v_row.realized, signed_quantity = v_row.signed_quantity
      where f.account_id = fill.account_id and f.exec_id = v_row.exec_id;
      if v_old.trading_day is not distinct from v_day then
        today := today + (v_row.realized - v_old.realized) * v_old.rate;
      else
        late := late + (v_row.realized - v_old.realized) * v_old.rate;
      end if;
    end if;
    quantity := v_row.quantity;
    cost := v_row.cost;
  end loop;
end
$$;
comment on function risk_private.reprice(risk_private.fills) is
  'Reckons all executions of an account in an instrument anew. Returns the position and its cost, '
  'and by what the profit of today and that of earlier days changed, in base currency.';

-- The caller holds the account; then its chain's counters ascending (within settle), then their
-- equities.
create function risk_private.replace_fill(old risk_private.fills, new risk_private.fills,
  reason text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_day date := (select s.trading_day from risk_private.scopes as s
    where s.scope_id = old.account_id);
  v_is_late boolean := old.trading_day is distinct from v_day;
  v_position risk_private.positions;
  v_result record;
  v_ids text[] := '{}';
  v_before risk_private.working_legs[] := '{}';
  v_money risk_private.money;
  v_amount numeric := new.signed_quantity * new.unit_amount - old.signed_quantity * old.unit_amount;
  v_fees numeric := (new.fee - old.fee) * old.rate;
  v_flows numeric :=
    case when risk_private.is_in_kind(old.kind) then v_amount * old.rate else 0 end;
  v_split numeric;
begin
  select p.* into v_position from risk_private.positions as p
  where p.account_id = old.account_id and p.instrument_id = old.instrument_id;
  update risk_private.fills as f set
    signed_quantity = new.signed_quantity, price = new.price, fee = new.fee,
    unit_price = case when v_is_late then old.unit_price else new.unit_price end,
    status = new.status
  where f.account_id = old.account_id and f.exec_id = old.exec_id;
  select r.* into v_result from risk_private.reprice(new) as r;
  if old.booked_on is not null then
    v_ids := risk_private.heirs(old.account_id, old.booked_on);
    v_before := risk_private.reserved(old.account_id, v_ids);
    perform risk_private.refill_orders(
      old, v_ids, abs(new.signed_quantity) - abs(old.signed_quantity));
  end if;
  v_money := risk_private.move_cash(
    old.account_id,
    (select i.currency from risk_private.instruments as i
     where i.instrument_id = old.instrument_id),
    case when risk_private.is_in_kind(old.kind) then 0 else -v_amount end - (new.fee - old.fee),
    v_result.cost - v_position.cost);
  v_money.realized := v_result.today + v_result.late;
  v_money.fees := v_fees;
  v_money.flows := v_flows;
  perform risk_private.change_cost(old.account_id, old.instrument_id, v_result.quantity,
    v_result.cost, v_money.realized, v_fees);
  v_split := v_result.quantity - v_position.quantity - new.signed_quantity + old.signed_quantity;
  perform risk_private.settle(
    old.account_id, v_before, risk_private.reserved(old.account_id, v_ids),
    risk_private.amends(old, new, v_split, v_is_late));
  perform risk_private.follow_fill(
    old.account_id, old.instrument_id, v_result.quantity - v_position.quantity, v_money);
  insert into risk_private.fill_corrections (
    account_id, exec_id, kind, old_quantity, old_price, old_fee, new_quantity, new_price,
    late_realized, late_fees, late_flows, reason, trading_day, corrected_at)
  values (
    old.account_id, old.exec_id, case new.status when 'BUSTED' then 'bust' else 'correction' end,
    old.signed_quantity, old.price, old.fee, new.signed_quantity, new.price, v_result.late,
    case when v_is_late then v_fees else 0 end, case when v_is_late then v_flows else 0 end,
    replace_fill.reason, v_day, risk_private.clock());
end
$$;
comment on function risk_private.replace_fill(risk_private.fills, risk_private.fills, text) is
  'Puts an execution in place of another of the same id: order, position, counters, cash, cost, '
  'profit and equity follow. What it changes of earlier days counts to today.';

create function risk_private.amends(
  old risk_private.fills, new risk_private.fills, split numeric, is_late boolean)
returns risk_private.fills[]
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_back risk_private.fills := old;
  v_forth risk_private.fills := new;
  v_split risk_private.fills := new;
begin
  v_back.signed_quantity := -old.signed_quantity;
  v_back.unit_price := case when is_late then 0 else -old.unit_price end;
  v_forth.unit_price := case when is_late then 0 else new.unit_price end;
  v_split.signed_quantity := split;
  v_split.unit_price := case when split = 0 then old.unit_price else 0 end;
  return array[v_back, v_forth, v_split];
end
$$;
comment on function risk_private.amends(
  risk_private.fills, risk_private.fills, numeric, boolean) is
  'What to settle where one execution takes the place of another: the old one back, the new one, '
  'and what later splits made of the difference. Only one of today counts in traded notional.';

-- 57_busts.sql
-- What brokers take back or put right.

create function risk_private.fill_to_amend(account_id integer, exec_id text)
returns risk_private.fills
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fill risk_private.fills;
begin
  select f.* into v_fill from risk_private.fills as f
  where f.account_id = fill_to_amend.account_id and f.exec_id = fill_to_amend.exec_id;
  if v_fill.exec_id is null then
    perform risk_private.fail('RK404', pg_catalog.format('unknown execution %L', exec_id),
      'argument: exec_id');
  end if;
  if v_fill.adjustment_id is not null then
    perform risk_private.fail('RK409',
      pg_catalog.format('%L is the adjustment of a split, no execution', exec_id),
      'argument: exec_id', 'Correct the executions before it: the split then follows.');
  end if;
  return v_fill;
end
$$;
comment on function risk_private.fill_to_amend(integer, text) is
  'The execution of that id. Errors: RK404, RK409 no execution.';

create function risk_private.alert_amended(account text, fill risk_private.fills, reason text)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.alert(
    case fill.status when 'BUSTED' then 'fill_busted' else 'fill_corrected' end,
    pg_catalog.jsonb_build_object(
      'account', account, 'exec_id', fill.exec_id, 'client_order_id', fill.client_order_id,
      'quantity', abs(fill.signed_quantity)::text, 'price', fill.price::text, 'reason', reason,
      'severity', 'warning'));
end
$$;
comment on function risk_private.alert_amended(text, risk_private.fills, text) is
  'Tells agents and the gateway that an execution is not what it was.';

-- Lock order: the account; its chain's counters ascending; their equities.
create function risk_private.bust_fill(account text, exec_id text, reason text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_leaf risk_private.scopes := risk_private.scope(account);
  v_old risk_private.fills;
  v_new risk_private.fills;
begin
  perform risk_private.begin_change();
  perform risk_private.require_reason(reason);
  perform risk_private.lock_account(v_leaf.scope_id);
  v_old := risk_private.fill_to_amend(v_leaf.scope_id, exec_id);
  if v_old.status = 'BUSTED' then
    return;
  end if;
  v_new := v_old;
  v_new.signed_quantity := 0;
  v_new.fee := 0;
  v_new.status := 'BUSTED';
  perform risk_private.replace_fill(v_old, v_new, reason);
  perform risk_private.alert_amended(account, v_new, reason);
end
$$;
comment on function risk_private.bust_fill(text, text, text) is 'What risk.bust_fill does.';

create procedure risk.bust_fill(account text, exec_id text, reason text)
language plpgsql
as $$
begin
  perform risk_private.bust_fill(account, exec_id, reason);
  commit;
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.bust_fill(text, text, text) is
  'The broker has cancelled an execution: position, cash, fee, average cost, profit, counters and '
  'the filled quantity of its order are put as if it had never been; what it had led to is '
  'reckoned anew. A live order has the quantity to fill again; one that it had filled stays '
  'closed, CANCELLED. It stays in risk.fills with quantity 0; risk.fill_corrections keeps what it '
  'was. Alerted; repeating it changes nothing. Errors: RK400, RK404, RK409 no execution.';

-- Lock order: the account; its chain's counters ascending; their equities.
create function risk_private.correct_fill(
  account text, exec_id text, quantity numeric, price numeric, reason text)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_leaf risk_private.scopes := risk_private.scope(account);
  v_old risk_private.fills;
  v_new risk_private.fills;
begin
  perform risk_private.begin_change();
  perform risk_private.validate_execution(exec_id, quantity, price, 0, null);
  perform risk_private.require_reason(reason);
  perform risk_private.lock_account(v_leaf.scope_id);
  v_old := risk_private.fill_to_amend(v_leaf.scope_id, exec_id);
  if v_old.status = 'BUSTED' then
    perform risk_private.fail('RK409', pg_catalog.format('execution %L was busted', exec_id),
      'argument: exec_id', 'Book what replaces it under an id of its own.');
  end if;
  v_new := v_old;
  v_new.signed_quantity := pg_catalog.sign(v_old.signed_quantity) * quantity;
  v_new.price := price;
  v_new.unit_amount := price * v_old.multiplier;
  v_new.unit_price := abs(v_new.unit_amount) * case when v_old.rate = 0 then 1 else v_old.rate end;
  v_new.status := 'CORRECTED';
  if v_new.signed_quantity = v_old.signed_quantity and v_new.price = v_old.price then
    return;
  end if;
  perform risk_private.replace_fill(v_old, v_new, reason);
  perform risk_private.alert_amended(account, v_new, reason);
end
$$;
comment on function risk_private.correct_fill(text, text, numeric, numeric, text) is
  'What risk.correct_fill does.';

create procedure risk.correct_fill(account text, exec_id text, quantity numeric, price numeric,
  reason text)
language plpgsql
as $$
begin
  perform risk_private.correct_fill(account, exec_id, quantity, price, reason);
  commit;
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.correct_fill(text, text, numeric, numeric, text) is
  'The broker has corrected an execution to another quantity or price; its fee stays. Everything '
  'follows as in risk.bust_fill, and what it was is kept in risk.fill_corrections. Alerted; '
  'repeating it changes nothing. Errors: RK400, RK404, RK409 busted, or no execution.';

-- 58_adjusted_terms.sql
-- Splits and adjusted options: new terms for what is held. All of it is one transaction under the
-- locks of all accounts, so nobody decides between old terms and new ones.
--
-- Options follow the rule of the Options Clearing Corporation (By-Laws, Article VI, section 11A;
-- Characteristics and Risks of Standardized Options, chapter III). A split that gives whole shares
-- for each one multiplies contracts and divides the strike, to the cent. Any other ratio leaves
-- contracts as they are and changes what one delivers. Since 2007 (SR-OCC-2006-01) the strike then
-- stays nominally, each point of it counting as 100 shares; an instrument has one multiplier here,
-- for price and delivery alike, and so has a strike per share delivered, as before that change:
-- strike x multiplier is the same. A special cash dividend lowers strikes by its amount.

create function risk_private.validate_adjustment(a risk_private.adjustments) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not risk_private.is_code(a.reference) then
    perform risk_private.fail('RK400', 'reference must be 1 to 64 printable characters',
      'argument: reference',
      'The id of the corporate action: it is done once, however often told.');
  end if;
  perform risk_private.require_reason(a.reason);
  if (least(a.new_shares, a.old_shares) >= 1 and greatest(a.new_shares, a.old_shares) <= 1000000
    and a.new_shares % 1 = 0 and a.old_shares % 1 = 0) is not true then
    perform risk_private.fail('RK400',
      'new_shares and old_shares must be whole numbers of 1 to 1000000',
      pg_catalog.format('arguments: new_shares %s, old_shares %s', a.new_shares, a.old_shares),
      '4 and 1 for a split 4-for-1, 3 and 2 for 3-for-2, 1 and 10 for a reverse split.');
  end if;
  if not risk_private.is_amount(abs(a.strike_change)) then
    perform risk_private.fail('RK400',
      'strike_change must be a finite number within 1e15, with at most 12 decimals',
      'argument: strike_change', 'Below 0 lowers strikes, as a special dividend does.');
  end if;
  if pg_catalog.jsonb_typeof(a.new_symbols) <> 'object' or exists (
    select from pg_catalog.jsonb_each(a.new_symbols) as e
    where pg_catalog.jsonb_typeof(e.value) <> 'string'
      or not risk_private.is_code(e.value #>> '{}')) then
    perform risk_private.fail('RK400',
      'new_symbols must be a JSON object of old symbol to new symbol', 'argument: new_symbols');
  end if;
  if a.new_shares = a.old_shares and a.strike_change = 0 and a.new_symbols = '{}' then
    perform risk_private.fail('RK400', 'nothing is to be adjusted',
      'arguments: new_shares, old_shares, strike_change, new_symbols');
  end if;
end
$$;
comment on function risk_private.validate_adjustment(risk_private.adjustments) is
  'Raises RK400 for an adjustment that makes no sense.';

create function risk_private.is_adjusted(a risk_private.adjustments) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_known risk_private.adjustments;
begin
  select k.* into v_known from risk_private.adjustments as k where k.reference = a.reference;
  if v_known.adjustment_id is null then
    return false;
  end if;
  if row(v_known.symbol, v_known.new_shares, v_known.old_shares, v_known.strike_change,
      v_known.new_symbols)
    is distinct from row(a.symbol, a.new_shares, a.old_shares, a.strike_change, a.new_symbols) then
    perform risk_private.fail('RK409',
      pg_catalog.format('adjustment %L was made with other content', a.reference),
      'argument: reference');
  end if;
  return true;
end
$$;
comment on function risk_private.is_adjusted(risk_private.adjustments) is
  'Whether this very adjustment was made already; RK409 where its reference stands for another.';

create function risk_private.adjusted_terms(a risk_private.adjustments)
returns setof risk_private.adjusted_instruments
language sql stable
begin atomic
  select a.adjustment_id, i.instrument_id, i.symbol, coalesce(a.new_symbols ->> i.symbol, i.symbol),
    i.strike,
    case when a.new_shares = a.old_shares then i.strike
      else pg_catalog.round(i.strike * a.old_shares / a.new_shares, case when k.is_whole then 2
        else 8 end)
    end + a.strike_change,
    i.multiplier,
    case when i.instrument_id = a.instrument_id or k.is_whole then i.multiplier
      else pg_catalog.round(i.multiplier * a.new_shares / a.old_shares, 12) end,
    case when i.instrument_id = a.instrument_id or k.is_whole then a.new_shares else 1 end,
    case when i.instrument_id = a.instrument_id or k.is_whole then a.old_shares else 1 end
  from risk_private.instruments as i
  cross join (select a.new_shares > a.old_shares and a.new_shares % a.old_shares = 0 as is_whole)
    as k
  where i.underlying_id = a.instrument_id
    and (i.expiry < risk_private.trading_date()) is not true;
end;
comment on function risk_private.adjusted_terms(risk_private.adjustments) is
  'The old and new terms of the underlying and of everything on it that has not expired.';

create function risk_private.require_adjustable(
  a risk_private.adjustments, terms risk_private.adjusted_instruments[])
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_named text;
  v_count bigint;
begin
  select t.old_symbol into v_named from pg_catalog.unnest(terms) as t
  where (t.new_strike > 0) is not true and t.old_strike is not null or t.new_multiplier <= 0
  order by t.old_symbol limit 1;
  if found then
    perform risk_private.fail('RK400',
      pg_catalog.format('the strike of %s would not be above 0', v_named),
      'arguments: new_shares, old_shares, strike_change');
  end if;
  select k into v_named from pg_catalog.jsonb_object_keys(a.new_symbols) as k
  where k <> all (array(select t.old_symbol from pg_catalog.unnest(terms) as t)) limit 1;
  if found then
    perform risk_private.fail('RK404',
      pg_catalog.format('%s is neither %s nor on it', v_named, a.symbol), 'argument: new_symbols');
  end if;
  select t.new_symbol into v_named from pg_catalog.unnest(terms) as t
  where t.new_symbol <> t.old_symbol and exists (
      select from risk_private.instruments as i where i.symbol = t.new_symbol
        and i.symbol <> all (
          array(select o.old_symbol from pg_catalog.unnest(terms) as o
            where o.new_symbol <> o.old_symbol)))
    or (select count(*) from pg_catalog.unnest(terms) as o where o.new_symbol = t.new_symbol) > 1
  limit 1;
  if found then
    perform risk_private.fail('RK409', pg_catalog.format('symbol %L is taken', v_named),
      'argument: new_symbols');
  end if;
  select count(*), pg_catalog.string_agg(distinct s.code, ', ') into v_count, v_named
  from risk_private.orders as o
  join risk_private.scopes as s on s.scope_id = o.account_id
  where o.closed_at is null
    and o.instrument_ids && array(select t.instrument_id from pg_catalog.unnest(terms) as t);
  if v_count > 0 then
    perform risk_private.fail('RK409',
      pg_catalog.format('%s open orders in %s or on it, entered on the old terms', v_count,
        a.symbol),
      'accounts: ' || v_named,
      'Cancel them with risk.cancel_orders, release what the broker confirms, and ask again.');
  end if;
  select count(*), pg_catalog.string_agg(distinct i.symbol, ', ') into v_count, v_named
  from risk_private.instruments as i
  join risk_private.positions as p on p.instrument_id = i.instrument_id and p.quantity <> 0
  where i.underlying_id = a.instrument_id and i.expiry < risk_private.trading_date();
  if v_count > 0 then
    perform risk_private.fail('RK409',
      pg_catalog.format('%s positions on %s have expired and are not settled', v_count, a.symbol),
      'symbols: ' || v_named,
      'Settle them on the old terms with risk.record_trade, and ask again.');
  end if;
end
$$;
comment on function risk_private.require_adjustable(
  risk_private.adjustments, risk_private.adjusted_instruments[]) is
  'Raises RK400, RK404 or RK409 where an adjustment cannot be made: impossible strikes, symbols '
  'unknown or taken, orders open, positions that wait for their settlement.';

-- Lock order: the caller holds all accounts; marks ascending, which feeds lock before they look at
-- instruments; then instruments ascending; breakers.
create function risk_private.change_terms(a risk_private.adjustments, ids integer[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from risk_private.marks as m where m.instrument_id = any (ids)
  order by m.instrument_id for no key update;
  perform from risk_private.instruments as i where i.instrument_id = any (ids)
  order by i.instrument_id for update;
  -- One option often takes the symbol that another one gives up.
  update risk_private.instruments as i
  set symbol = pg_catalog.format('adjusted %s', i.instrument_id)
  from risk_private.adjusted_instruments as t
  where t.adjustment_id = a.adjustment_id and i.instrument_id = t.instrument_id
    and t.new_symbol <> t.old_symbol;
  update risk_private.instruments as i
  set symbol = t.new_symbol, strike = t.new_strike, multiplier = t.new_multiplier
  from risk_private.adjusted_instruments as t
  where t.adjustment_id = a.adjustment_id and i.instrument_id = t.instrument_id
    and row(i.symbol, i.strike, i.multiplier)
      is distinct from row(t.new_symbol, t.new_strike, t.new_multiplier);
  update risk_private.breakers as b
  set parameters = b.parameters || pg_catalog.jsonb_build_object('symbol', t.new_symbol)
  from risk_private.adjusted_instruments as t
  where t.adjustment_id = a.adjustment_id and b.instrument_id = t.instrument_id
    and b.parameters ->> 'symbol' <> t.new_symbol;
  if a.new_shares = a.old_shares then
    return;
  end if;
  update risk_private.marks as m set
    price = m.price * a.old_shares / a.new_shares,
    bid = m.bid * a.old_shares / a.new_shares,
    ask = m.ask * a.old_shares / a.new_shares,
    gamma = m.gamma * a.new_shares::double precision / a.old_shares::double precision,
    vega = m.vega * a.old_shares::double precision / a.new_shares::double precision,
    theta = m.theta * a.old_shares::double precision / a.new_shares::double precision,
    rho = m.rho * a.old_shares::double precision / a.new_shares::double precision
  where m.instrument_id = any (ids);
  update risk_private.price_ticks as t set price = t.price * a.old_shares / a.new_shares
  where t.instrument_id = any (ids);
  perform risk_private.adjust_closes(a.instrument_id, a.new_shares / a.old_shares);
end
$$;
comment on function risk_private.change_terms(risk_private.adjustments, integer[]) is
  'Puts instruments to their new terms and symbols; and what was told of them per share, their '
  'marks, the prices that breakers look back on and the closes, to the level after the split. '
  'Delta and volatility are the same at either.';

-- 59_adjustments.sql
-- Splits and adjusted options: positions follow the terms.

create function risk_private.at_new_terms(
  p risk_private.positions, t risk_private.adjusted_instruments, a risk_private.adjustments)
returns risk_private.unit_values
language sql immutable
return row(
  p.instrument_id, p.unit_value * t.old_units / t.new_units,
  p.unit_notional * t.old_units / t.new_units,
  p.unit_delta * (a.new_shares * t.old_units) / (a.old_shares * t.new_units),
  p.unit_gamma * (a.new_shares * a.new_shares * t.old_units)
    / (a.old_shares * a.old_shares * t.new_units),
  p.unit_dollar_delta * t.old_units / t.new_units,
  p.unit_dollar_gamma * t.old_units / t.new_units,
  p.unit_vega * t.old_units / t.new_units, p.unit_theta * t.old_units / t.new_units,
  p.has_greeks)::risk_private.unit_values;
comment on function risk_private.at_new_terms(
  risk_private.positions, risk_private.adjusted_instruments, risk_private.adjustments) is
  'The values that a position carries, per unit on the new terms: as money it stays what it was; '
  'deltas count more shares, gammas those per smaller moves.';

create function risk_private.book_adjustment(account_id integer, adjustment_id bigint) returns void
language sql volatile
begin atomic
  insert into risk_private.fills (
    account_id, exec_id, instrument_id, signed_quantity, price, fee, unit_price, kind, trading_day,
    executed_at, recorded_at, multiplier, rate, adjustment_id)
  select p.account_id, pg_catalog.format('adjustment %s %s', t.adjustment_id, t.new_symbol),
    p.instrument_id,
    risk_private.adjusted_quantity(p.quantity, t.new_units, t.old_units) - p.quantity,
    0, 0, 0, 'adjustment', s.trading_day, n.at, n.at, t.new_multiplier,
    risk_private.cash_rate(p.account_id, i.currency), t.adjustment_id
  from risk_private.adjusted_instruments as t
  join risk_private.positions as p
    on p.account_id = book_adjustment.account_id and p.instrument_id = t.instrument_id
  join risk_private.instruments as i on i.instrument_id = t.instrument_id
  join risk_private.scopes as s on s.scope_id = p.account_id
  cross join (select risk_private.clock() as at) as n
  where t.adjustment_id = book_adjustment.adjustment_id and t.new_units <> t.old_units
    and exists (
      select from risk_private.fills as f
      where f.account_id = p.account_id and f.instrument_id = p.instrument_id)
  order by p.instrument_id;
end;
comment on function risk_private.book_adjustment(integer, bigint) is
  'Stands between the executions before and after a split, also where nothing was held: what is '
  'busted or corrected later may have been.';

-- Lock order: the caller holds all counters; then the equities of the chain, ascending.
create function risk_private.adjust_account(account_id integer, a risk_private.adjustments)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_units risk_private.unit_values[];
  v_movements risk_private.movement[];
  v_gained numeric;
begin
  perform risk_private.book_adjustment(account_id, a.adjustment_id);
  select
    pg_catalog.array_agg(risk_private.at_new_terms(p, t, a)),
    pg_catalog.array_agg(risk_private.movement(p.account_id, p.instrument_id, q.change)),
    sum(q.change * p.unit_value)
  into v_units, v_movements, v_gained
  from risk_private.positions as p
  join risk_private.adjusted_instruments as t
    on t.adjustment_id = a.adjustment_id and t.instrument_id = p.instrument_id
  cross join lateral (
    select risk_private.adjusted_quantity(p.quantity, t.new_units, t.old_units) - p.quantity
      as change
  ) as q
  where p.account_id = adjust_account.account_id and p.quantity <> 0;
  if v_units is null then
    return;
  end if;
  perform risk_private.move(v_movements, false);
  perform risk_private.move_exposures(account_id, v_movements, '{}', '{}');
  v_gained := v_gained + risk_private.carry_at(account_id, v_units);
  perform risk_private.follow_marks(account_id, v_gained);
  perform risk_private.change_cost(p.account_id, p.instrument_id, p.quantity, p.cost, 0, 0)
  from risk_private.positions as p
  join pg_catalog.unnest(v_units) as u on u.instrument_id = p.instrument_id
  where p.account_id = adjust_account.account_id;
  perform risk_private.renew_obligations(account_id, array[a.instrument_id]);
end
$$;
comment on function risk_private.adjust_account(integer, risk_private.adjustments) is
  'Takes the positions of an account to new terms. What they cost and are worth stays.';

-- Lock order: changes of limits and of instruments; the instruments; all accounts, then all scopes
-- above, ascending; their equities. Nothing of a counter that is kept can change meanwhile.
create function risk_private.adjust_instrument(
  symbol text, reference text, reason text, new_shares numeric, old_shares numeric,
  strike_change numeric, new_symbols jsonb)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_one risk_private.adjustments;
  v_terms risk_private.adjusted_instruments[];
  v_ids integer[];
begin
  perform risk_private.begin_change();
  v_one.reference := reference;
  v_one.symbol := symbol;
  v_one.reason := reason;
  v_one.new_shares := new_shares;
  v_one.old_shares := old_shares;
  v_one.strike_change := strike_change;
  v_one.new_symbols := coalesce(new_symbols, '{}');
  perform risk_private.validate_adjustment(v_one);
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.limits'));
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.instruments'));
  if risk_private.is_adjusted(v_one) then
    return;
  end if;
  v_one.instrument_id := risk_private.instrument_id(symbol);
  if not (select i.kind <> 'option' and i.underlying_id = i.instrument_id
    from risk_private.instruments as i where i.instrument_id = v_one.instrument_id) then
    perform risk_private.fail('RK400',
      pg_catalog.format('%s follows its underlying: adjust that', symbol), 'argument: symbol');
  end if;
  perform risk_private.lock_accounts_below(array(
    select s.scope_id from risk_private.scopes as s where s.parent_id is null));
  perform from risk_private.scopes as s
  join risk_private.counters as c on c.counter_id = risk_private.counter_id(s.scope_id)
  where not s.is_leaf order by c.counter_id for no key update of c;
  v_terms := array(select t from risk_private.adjusted_terms(v_one) as t);
  perform risk_private.require_adjustable(v_one, v_terms);
  v_ids := array(select t.instrument_id from pg_catalog.unnest(v_terms) as t);
  insert into risk_private.adjustments as k (
    reference, instrument_id, symbol, new_shares, old_shares, strike_change, new_symbols, reason,
    trading_day, adjusted_at)
  values (
    v_one.reference, v_one.instrument_id, v_one.symbol, v_one.new_shares, v_one.old_shares,
    v_one.strike_change, v_one.new_symbols, v_one.reason, risk_private.trading_date(),
    risk_private.clock())
  returning k.* into v_one;
  insert into risk_private.adjusted_instruments
  select v_one.adjustment_id, t.instrument_id, t.old_symbol, t.new_symbol, t.old_strike,
    t.new_strike, t.old_multiplier, t.new_multiplier, t.new_units, t.old_units
  from pg_catalog.unnest(v_terms) as t;
  perform risk_private.change_terms(v_one, v_ids);
  perform risk_private.adjust_account(x.account_id, v_one)
  from (
    select distinct p.account_id from risk_private.positions as p
    where p.instrument_id = any (v_ids) order by p.account_id
  ) as x;
  perform risk_private.note_moved(v_ids);
  perform risk_private.alert('instrument_adjusted', pg_catalog.jsonb_build_object(
    'symbol', symbol, 'reference', reference, 'new_shares', new_shares::text,
    'old_shares', old_shares::text, 'strike_change', strike_change::text,
    'new_symbols', v_one.new_symbols, 'reason', reason, 'severity', 'warning'));
end
$$;
comment on function risk_private.adjust_instrument(
  text, text, text, numeric, numeric, numeric, jsonb) is 'What risk.adjust_instrument does.';

create procedure risk.adjust_instrument(
  symbol text, reference text, reason text, new_shares numeric default 1,
  old_shares numeric default 1, strike_change numeric default 0, new_symbols jsonb default null)
language plpgsql
as $$
begin
  perform risk_private.adjust_instrument(
    symbol, reference, reason, new_shares, old_shares, strike_change, new_symbols);
  commit;
  call risk_private.follow();
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.adjust_instrument(text, text, text, numeric, numeric, numeric, jsonb) is
  'Adjusts a stock, ETF or index, and everything on it that has not expired, for a corporate '
  'action: all accounts at one moment. new_shares for old_shares is a split: 4 and 1, 3 and 2, or '
  '1 and 10 for a reverse one. Positions in the stock are multiplied by that ratio; a fraction '
  'stays until the broker pays it (risk.record_trade, kind cash_in_lieu). Options follow the rule '
  'of the OCC: where each share becomes whole shares, contracts are multiplied and strikes '
  'divided, to the cent; with any other ratio the multiplier changes instead, and the strike so '
  'that strike x multiplier stays (to 8 decimals): marks are then quoted per share delivered. '
  'strike_change is added to every strike: a special dividend of 12 is -12. new_symbols renames, '
  '{"X C100": "X C25", …}, the stock itself too. Cost, value, P&L, equity and drawdown stay; '
  'average prices, marks, quotes, Greeks, closes and the prices that breakers look back on are '
  'put to the new level. Limits stay as they are, those in shares and contracts too. Executions '
  'keep the terms of their time: one that is busted or corrected later counts as the split made '
  'it. Call it before the first mark on the new terms. A reference is adjusted once, however '
  'often it is called. Alerted as instrument_adjusted; risk.adjustments tells what changed. '
  'Errors: RK400; RK404 unknown symbol; RK409 a reference with other content, a symbol that is '
  'taken, open orders in any of the instruments (cancel them first), positions that have expired '
  'and are not settled.';

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
    scope_id, underlying_id, state, cancels, reason, changed_by, since)
  values (
    (risk_private.scope(set_trading_state.scope)).scope_id, risk_private.underlying_id(underlying),
    set_trading_state.state, state = 'HALTED' and cancel_open, set_trading_state.reason,
    session_user, risk_private.clock())
  on conflict on constraint trading_states_pkey do update set
    state = excluded.state, cancels = excluded.cancels, reason = excluded.reason,
    changed_by = excluded.changed_by, since = excluded.since;
  perform risk_private.event('state', pg_catalog.jsonb_build_object('scope', scope));
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
  'force are among them. ACTIVE clears what was set on this scope, not what is set above it, and '
  'never a circuit breaker. '
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

-- The caller holds the account's lock.
create function risk_private.ask_cancels(
  account_id integer, reason text, underlying_id integer, agent text, again boolean)
returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_account text := (
    select s.code from risk_private.scopes as s where s.scope_id = ask_cancels.account_id);
  v_at timestamptz := risk_private.clock();
  v_payloads jsonb[];
begin
  with asked as (
    update risk_private.orders as o set cancel_requested_at = coalesce(o.cancel_requested_at, v_at)
    where o.account_id = ask_cancels.account_id and o.closed_at is null
      and (ask_cancels.again or o.cancel_requested_at is null)
      and (ask_cancels.agent is null or o.agent = ask_cancels.agent)
      and (ask_cancels.underlying_id = 0 or exists (
        select from risk_private.instruments as i
        where i.instrument_id = any (o.instrument_ids)
          and i.underlying_id = ask_cancels.underlying_id))
    returning o.client_order_id, o.decided_at
  )
  select pg_catalog.array_agg(
    pg_catalog.jsonb_build_object(
      'account', v_account, 'client_order_id', a.client_order_id,
      'order_id', risk_private.order_id(v_account, a.client_order_id),
      'reason', ask_cancels.reason)
    order by a.decided_at, a.client_order_id) into v_payloads
  from asked as a;
  perform risk_private.alerts('cancel_request', v_payloads);
  return coalesce(pg_catalog.cardinality(v_payloads), 0);
end
$$;
comment on function risk_private.ask_cancels(integer, text, integer, text, boolean) is
  'Requests the cancel of an account''s open orders, of one underlying or (0) all, of one agent or '
  'all: those not asked for yet or, again, all. Returns how many.';

-- Lock order: the account, then its orders.
create function risk_private.request_cancels(
  account_id integer, reason text, underlying text, agent text, again boolean, patiently boolean)
returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_underlying_id integer := risk_private.underlying_id(underlying);
begin
  perform risk_private.begin_change();
  perform risk_private.require_reason(reason);
  if risk_private.may_cancel((
    select s.chain from risk_private.scopes as s
    where s.scope_id = request_cancels.account_id)) is not true then
    perform risk_private.fail('RK403',
      pg_catalog.format('%s may not cancel orders here', risk_private.caller()),
      'argument: account_id');
  end if;
  if patiently then
    perform risk_private.lock_account(account_id);
  elsif not risk_private.lock_account_within(account_id, '100ms') then
    return false;
  end if;
  perform risk_private.ask_cancels(account_id, reason, v_underlying_id, agent, again);
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
  foreach v_account_id in array
    risk_private.accounts_to_cancel(scope, reason, underlying, agent) loop
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

-- 62_breaker_conditions.sql
-- What a circuit breaker may watch, with parameters, defaults and source; and what of it a
-- definition may say.

insert into risk_private.breaker_conditions (
  condition, position, function_name, unit, parameters, default_threshold, description, source)
values
  ('volatility_level', 1, 'observe_volatility_level', 'points',
   '{"indicator": {"type": "indicator", "default": "VIX", "meaning": "which volatility index"}}',
   null, 'The value of the indicator.',
   'desk practice: VIX at 30, 40, 50'),
  ('volatility_spike', 2, 'observe_volatility_spike', '%',
   '{"indicator": {"type": "indicator", "default": "VIX", "meaning": "which volatility index"},
     "window": {"type": "seconds", "default": 86400, "meaning": "how far to look back"}}',
   null,
   '(v - lowest) / lowest x 100 over the window, in which the value that stood when it began, such '
   'as the prior close, counts.',
   'desk practice: 30 % within a day'),
  ('daily_loss', 3, 'observe_daily_loss', '% or money',
   '{"unit": {"type": "choice", "choices": ["pct", "amount"], "default": "pct",
              "meaning": "of the start equity, or in base currency"}}',
   null,
   'Start equity + flows since - equity; as a percentage of the start equity, which trips when it '
   'is 0 or less.',
   'desk practice: 2-3 % a day; LEAN, freqtrade'),
  ('drawdown', 4, 'observe_drawdown', '% or money',
   '{"unit": {"type": "choice", "choices": ["pct", "amount"], "default": "pct",
              "meaning": "of the peak, or in base currency"}}',
   null,
   'Peak equity - equity; as a percentage of the peak, 100 where peak or equity is 0 or less. A '
   'reset by a person rebases the peak.',
   'LEAN 5 %, freqtrade 20 %'),
  ('correlation', 5, 'observe_correlation', '-1 to 1',
   '{"days": {"type": "days", "default": 60, "meaning": "daily returns to look back on"}}',
   null,
   'Mean Pearson correlation of the daily log returns of all pairs of underlyings held, neither '
   'weighted by size nor signed by side. A pair counts from 20 common days on, with variance.',
   'desk practice: 0.3 and up over 60 days'),
  ('price_move', 6, 'observe_price_move', '%',
   '{"symbol": {"type": "symbol", "default": null,
                "meaning": "whose mark; by default the breaker''s underlying"},
     "indicator": {"type": "indicator", "default": null, "meaning": "instead of a symbol"},
     "reference": {"type": "choice", "choices": ["mean_5m", "prior_close"], "default": "mean_5m",
                   "meaning": "mean of the marks of the 5 minutes before, or the last close"},
     "direction": {"type": "choice", "choices": ["both", "up", "down"], "default": "both",
                   "meaning": "which moves count"}}',
   null, 'Distance of a mark from its reference, in percent of the reference.',
   'LULD 5/10/20 % of the 5-minute mean; market-wide 7/13/20 % down from the prior close'),
  ('limit_breach', 7, 'observe_limit_breach', 'limits', '{}', 1,
   'Number of limits of the scope and below whose filled use exceeds the limit.',
   'MiFID II RTS 6 art. 17: post-trade controls'),
  ('stale_data', 8, 'observe_stale_data', 'seconds', '{}', null,
   'Age of the oldest input of the scope and all below: marks of what is held or in open orders '
   'and of its underlyings, indicators and marks that circuit breakers watch.',
   'RTS 7 art. 12: 5 seconds'),
  ('reject_rate', 9, 'observe_reject_rate', '%',
   '{"window": {"type": "seconds", "default": 60, "meaning": "how far to look back"}}',
   null,
   'Rejected / (accepted + rejected) x 100 in the window, from 20 orders on, without refusals by '
   'a halt, a breaker, REDUCE_ONLY or stale data.',
   'RTS 6 art. 15, exchanges'' reject counters'),
  ('order_rate', 10, 'observe_order_rate', 'orders',
   '{"window": {"type": "seconds", "default": 1, "meaning": "how far to look back"}}',
   null, 'Orders and replaces decided in the window, accepted or rejected.',
   'RTS 6 art. 15(1)(d); Nautilus 100 a second'),
  ('repeated_fills', 11, 'observe_repeated_fills', 'fills',
   '{"window": {"type": "seconds", "default": 60, "meaning": "how far to look back"}}',
   null,
   'Most fills of one account, agent, symbol and side in the window, since it was last armed or '
   'tripped.',
   'RTS 6 art. 15(3): until designated staff re-enable'),
  ('consecutive_losses', 12, 'observe_consecutive_losses', 'orders', '{}', null,
   'Closing orders in a row whose realized P&L net of fees is below 0, since it was last armed or '
   'tripped.',
   'freqtrade StoplossGuard'),
  ('queue_backlog', 13, 'observe_queue_backlog', 'seconds',
   '{"queue": {"type": "choice", "choices": ["risk_events", "risk_alerts"],
               "default": "risk_events", "meaning": "which queue"}}',
   null, 'Age of the oldest message in the queue.',
   'RTS 7 art. 12: 5 seconds'),
  ('escalation', 14, 'observe_escalation', 'breakers',
   '{"window": {"type": "seconds", "default": 300, "meaning": "how far to look back"}}',
   null,
   'Circuit breakers of the scope and below that tripped in the window, other than escalations and '
   'those that only notify.',
   'NYSE Arca trigger counter; ISE market-wide risk protection');

update risk_private.breaker_conditions as c set reset_policies = array['manual']
where c.condition = 'repeated_fills';
update risk_private.breaker_conditions as c set may_be_empty = true
where c.condition in ('correlation', 'price_move');

create function risk_private.breaker_condition(condition text)
returns risk_private.breaker_conditions
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_condition risk_private.breaker_conditions;
begin
  select c.* into v_condition from risk_private.breaker_conditions as c
  where c.condition = breaker_condition.condition;
  if v_condition.condition is null then
    perform risk_private.fail('RK400', pg_catalog.format('unknown condition %L', condition),
      'argument: condition', 'One of ' || (
        select pg_catalog.string_agg(c.condition, ', ' order by c.position)
        from risk_private.breaker_conditions as c) || '.');
  end if;
  return v_condition;
end
$$;
comment on function risk_private.breaker_condition(text) is
  'The condition of that name; RK400 where there is none.';

create function risk_private.parameter_seconds(value jsonb) returns numeric
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_catalog.jsonb_typeof(value) = 'number' then
    return value::numeric;
  end if;
  return extract(epoch from (value #>> '{}')::interval);
exception when data_exception then
  return null;
end
$$;
comment on function risk_private.parameter_seconds(jsonb) is
  'A number of seconds, or an interval such as "5 minutes", in seconds; NULL for neither.';

create function risk_private.breaker_parameter(name text, spec jsonb, value jsonb) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_text text := value #>> '{}';
  v_problem text;
begin
  if spec ->> 'type' = 'seconds' then
    value := pg_catalog.to_jsonb(risk_private.parameter_seconds(value));
    v_problem := case when (value::numeric > 0 and value::numeric <= 2678400) is not true
      then 'a number of seconds or an interval above 0, at most 31 days' end;
  elsif spec ->> 'type' = 'days' then
    v_problem := case when (pg_catalog.jsonb_typeof(value) = 'number'
      and v_text ~ '^[0-9]{1,3}$' and v_text::integer between 20 and 250) is not true
      then 'a whole number from 20 to 250' end;
  elsif spec ->> 'type' = 'choice' then
    v_problem := case when (spec -> 'choices' ? v_text) is not true
      then 'one of ' || (spec ->> 'choices') end;
  elsif spec ->> 'type' = 'symbol' then
    perform risk_private.instrument_id(v_text);
  elsif not risk_private.is_code(v_text) or pg_catalog.jsonb_typeof(value) <> 'string' then
    v_problem := 'a name of 1 to 64 printable characters';
  end if;
  if v_problem is not null then
    perform risk_private.fail('RK400',
      pg_catalog.format('parameter %s must be %s', name, v_problem),
      pg_catalog.format('argument: parameters, value: %s', coalesce(v_text, 'null')));
  end if;
  return value;
end
$$;
comment on function risk_private.breaker_parameter(text, jsonb, jsonb) is
  'A parameter in the form in which it is kept. Errors: RK400, RK404 unknown symbol.';

create function risk_private.breaker_parameters(
  condition risk_private.breaker_conditions, given jsonb, underlying text) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_unknown text;
  v_parameters jsonb;
begin
  if pg_catalog.jsonb_typeof(given) is distinct from 'object' then
    perform risk_private.fail('RK400', 'parameters must be a JSON object', 'argument: parameters');
  end if;
  select k into v_unknown from pg_catalog.jsonb_object_keys(given) as k
  where not condition.parameters ? k limit 1;
  if v_unknown is not null then
    perform risk_private.fail('RK400',
      pg_catalog.format('%s has no parameter %L', condition.condition, v_unknown),
      'argument: parameters', coalesce('Known: ' || (
        select pg_catalog.string_agg(k, ', ' order by k)
        from pg_catalog.jsonb_object_keys(condition.parameters) as k) || '.', 'It has none.'));
  end if;
  select coalesce(pg_catalog.jsonb_object_agg(p.key, case
    when given ? p.key then risk_private.breaker_parameter(p.key, p.value, given -> p.key)
    else p.value -> 'default' end), '{}') into v_parameters
  from pg_catalog.jsonb_each(condition.parameters) as p;
  if condition.condition <> 'price_move' then
    return v_parameters;
  end if;
  if given ?& array['symbol', 'indicator'] then
    perform risk_private.fail('RK400', 'price_move watches a symbol or an indicator, not both',
      'argument: parameters');
  elsif not given ?| array['symbol', 'indicator'] then
    if underlying is null then
      perform risk_private.fail('RK400', 'price_move needs a symbol or an indicator to watch',
        'argument: parameters', 'Such as {"symbol": "AAPL"}, or give the breaker an underlying.');
    end if;
    v_parameters := v_parameters || pg_catalog.jsonb_build_object('symbol', underlying);
  end if;
  return v_parameters;
end
$$;
comment on function risk_private.breaker_parameters(
  risk_private.breaker_conditions, jsonb, text) is
  'The parameters of a definition with defaults filled in. Errors: RK400 unknown or malformed, '
  'RK404 unknown symbol.';

-- 62_breaker_definitions.sql
-- Defining circuit breakers.

create function risk_private.validate_breaker(
  condition risk_private.breaker_conditions, name text, threshold numeric, action text,
  cooldown interval, reset_policy text, reason text)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_policies text := pg_catalog.array_to_string(condition.reset_policies, ', ');
  v_problem text[] := case
    when not risk_private.is_code(name)
      then array['name', 'name must be 1 to 64 printable characters']
    when not risk_private.is_amount(threshold)
      then array['threshold', 'threshold must be a finite number from 0 to 1e15', threshold::text]
    when (action in ('NOTIFY', 'REDUCE_ONLY', 'HALT', 'HALT_AND_CANCEL')) is not true
      then array['action', pg_catalog.format(
        'unknown action %L: one of NOTIFY, REDUCE_ONLY, HALT, HALT_AND_CANCEL', action)]
    when (reset_policy in ('manual', 'timer', 'session')) is not true
      then array['reset_policy', pg_catalog.format(
        'unknown reset policy %L: one of manual, timer, session', reset_policy)]
    when reset_policy <> all (condition.reset_policies)
      then array['reset_policy', pg_catalog.format(
        'the reset policy of %s must be %s', condition.condition, v_policies)]
    when reset_policy = 'timer' and cooldown is null
      then array['cooldown', 'the reset policy timer needs a cooldown']
    when cooldown is not null
      and (cooldown > interval '0' and cooldown <= interval '366 days') is not true
      then array['cooldown', 'cooldown must be above 0 and at most 366 days', cooldown::text]
    when reason is not null and (reason ~ '\S' and pg_catalog.length(reason) <= 1000) is not true
      then array['reason', 'a reason has 1 to 1000 characters']
  end;
begin
  if v_problem is not null then
    perform risk_private.fail('RK400', v_problem[2],
      pg_catalog.concat_ws(', value: ', 'argument: ' || v_problem[1], v_problem[3]));
  end if;
end
$$;
comment on function risk_private.validate_breaker(
  risk_private.breaker_conditions, text, numeric, text, interval, text, text) is
  'Raises RK400 for a definition that makes no sense.';

create function risk_private.look_back(condition text, parameters jsonb) returns interval
language sql immutable
return case
  when condition = 'volatility_spike'
    then pg_catalog.make_interval(secs => (parameters ->> 'window')::double precision)
  when condition = 'price_move' and parameters ->> 'reference' = 'mean_5m' then interval '5 minutes'
  else interval '0' end;
comment on function risk_private.look_back(text, jsonb) is
  'How much history of its indicator or instrument a condition needs.';

create function risk_private.note_breaker(
  b risk_private.breakers, event text, value numeric, data_at timestamptz, reason text,
  error text, at timestamptz)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.breaker_events (
    name, scope_id, event, state, condition, value, threshold, data_at, action, reason, error, at)
  values (
    b.name, b.scope_id, note_breaker.event, b.state, b.condition, note_breaker.value, b.threshold,
    note_breaker.data_at, b.action, note_breaker.reason, note_breaker.error, note_breaker.at);
  if event in ('DEFINED', 'REDEFINED', 'REMOVED') then
    return;
  end if;
  perform risk_private.alert('breaker_' || pg_catalog.lower(event),
    pg_catalog.jsonb_build_object(
      'breaker', b.name,
      'scope', (select s.code from risk_private.scopes as s where s.scope_id = b.scope_id),
      'underlying', (select i.symbol from risk_private.instruments as i
        where i.instrument_id = b.underlying_id),
      'condition', b.condition, 'threshold', b.threshold::text, 'value', value::text,
      'data_at', data_at, 'action', b.action, 'reason', reason, 'error', error, 'at', at,
      'severity', case when event <> 'TRIPPED' then 'info'
        when b.action in ('HALT', 'HALT_AND_CANCEL') then 'critical' else 'warning' end));
end
$$;
comment on function risk_private.note_breaker(
  risk_private.breakers, text, numeric, timestamptz, text, text, timestamptz) is
  'Records what happened to a breaker, and alerts what is no change of its definition.';

create function risk_private.redefine_breaker(old risk_private.breakers, new risk_private.breakers)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_measures_alike boolean :=
    row(old.scope_id, old.underlying_id, old.condition, old.parameters)
    = row(new.scope_id, new.underlying_id, new.condition, new.parameters);
begin
  if v_measures_alike
    and row(old.threshold, old.action, old.cooldown, old.reset_policy)
      is not distinct from row(new.threshold, new.action, new.cooldown, new.reset_policy) then
    return;
  end if;
  if old.state <> 'ARMED'
    and row(old.scope_id, old.underlying_id, old.condition, old.action)
      <> row(new.scope_id, new.underlying_id, new.condition, new.action) then
    perform risk_private.fail('RK409', pg_catalog.format('breaker %L is %s', old.name, old.state),
      'argument: name', 'Until it is reset, its scope, underlying, condition and action stay.');
  end if;
  update risk_private.breakers as b set
    scope_id = new.scope_id, underlying_id = new.underlying_id, condition = new.condition,
    parameters = new.parameters, indicator_id = new.indicator_id,
    instrument_id = new.instrument_id, look_back = new.look_back, threshold = new.threshold,
    action = new.action, cooldown = new.cooldown, reset_policy = new.reset_policy,
    reason = new.reason, defined_by = session_user, defined_at = new.defined_at,
    armed_at = case when v_measures_alike or old.state <> 'ARMED' then b.armed_at
      else new.defined_at end
  where b.breaker_id = old.breaker_id
  returning b.* into old;
  if not v_measures_alike then
    update risk_private.breaker_readings as r set value = null
    where r.breaker_id = old.breaker_id;
  end if;
  perform risk_private.note_breaker(
    old, 'REDEFINED', null, null, new.reason, null, new.defined_at);
end
$$;
comment on function risk_private.redefine_breaker(risk_private.breakers, risk_private.breakers) is
  'Gives a breaker another definition. What it has tripped for stays until it is reset. Errors: '
  'RK409.';

create function risk_private.define_breaker(
  name text, scope text, condition text, threshold numeric, action text, parameters jsonb,
  underlying text, cooldown interval, reset_policy text, reason text)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_condition risk_private.breaker_conditions := risk_private.breaker_condition(condition);
  v_now timestamptz := risk_private.clock();
  v_old risk_private.breakers;
  b risk_private.breakers;
begin
  b.name := name;
  b.threshold := coalesce(threshold, v_condition.default_threshold);
  perform risk_private.validate_breaker(
    v_condition, name, b.threshold, action, cooldown, reset_policy, reason);
  b.scope_id := (risk_private.scope(scope)).scope_id;
  b.underlying_id := risk_private.underlying_id(underlying);
  b.condition := condition;
  b.parameters := risk_private.breaker_parameters(v_condition, parameters, underlying);
  b.indicator_id := case when b.parameters ->> 'indicator' is not null
    then risk_private.indicator_id(b.parameters ->> 'indicator') end;
  b.instrument_id := case when b.parameters ->> 'symbol' is not null
    then risk_private.instrument_id(b.parameters ->> 'symbol') end;
  b.look_back := risk_private.look_back(condition, b.parameters);
  b.action := action;
  b.cooldown := cooldown;
  b.reset_policy := reset_policy;
  b.reason := reason;
  b.defined_at := v_now;
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.breakers'));
  select k.* into v_old from risk_private.breakers as k
  where k.name = define_breaker.name for no key update;
  if found then
    perform risk_private.redefine_breaker(v_old, b);
  else
    insert into risk_private.breakers (
      name, scope_id, underlying_id, condition, parameters, indicator_id, instrument_id, look_back,
      threshold, action, cooldown, reset_policy, reason, defined_at, armed_at)
    values (
      b.name, b.scope_id, b.underlying_id, b.condition, b.parameters, b.indicator_id,
      b.instrument_id, b.look_back, b.threshold, b.action, b.cooldown, b.reset_policy, b.reason,
      v_now, v_now)
    returning breakers.* into b;
    insert into risk_private.breaker_readings (breaker_id) values (b.breaker_id);
    perform risk_private.note_breaker(b, 'DEFINED', null, null, reason, null, v_now);
  end if;
  perform risk_private.keep_ticks(array[b.instrument_id])
  where b.instrument_id is not null and not exists (
    select from risk_private.price_ticks as t where t.instrument_id = b.instrument_id);
  perform risk_private.event('breaker', pg_catalog.jsonb_build_object('scope', scope));
end
$$;
comment on function risk_private.define_breaker(
  text, text, text, numeric, text, jsonb, text, interval, text, text) is
  'What risk.define_breaker does.';

create procedure risk.define_breaker(
  name text, scope text, condition text, threshold numeric, action text,
  parameters jsonb default '{}', underlying text default null, cooldown interval default null,
  reset_policy text default 'manual', reason text default null)
language plpgsql
as $$
begin
  perform risk_private.define_breaker(name, scope, condition, threshold, action, parameters,
    underlying, cooldown, reset_policy, reason);
  commit;
end
$$;
comment on procedure risk.define_breaker(
  text, text, text, numeric, text, jsonb, text, interval, text, text) is
  'Defines a circuit breaker, or gives the one of that name another definition: once the condition '
  '(risk.breaker_conditions) is measured at or above the threshold for data from now on, it trips, '
  'and its action holds for the scope and all below, for one underlying or (NULL) all: NOTIFY, '
  'REDUCE_ONLY, HALT, or HALT_AND_CANCEL, which also requests the cancel of every open order. '
  'reset_policy manual: a person resets it; timer: once the value has been below 0.9 x threshold '
  'for all of the cooldown; session: once the next day is opened and the value is below the '
  'threshold. With manual and session a cooldown, if given, follows the reset. A tripped breaker '
  'may get another threshold, parameters, cooldown or reset policy; it stays tripped. Errors: '
  'RK400, RK404 unknown scope, underlying or symbol, RK409 tripped.';

create function risk_private.breaker(name text) returns risk_private.breakers
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_breaker risk_private.breakers;
begin
  select b.* into v_breaker from risk_private.breakers as b
  where b.name = breaker.name for no key update;
  if v_breaker.breaker_id is null then
    perform risk_private.fail('RK404', pg_catalog.format('unknown breaker %L', name),
      'argument: name', 'risk.breakers lists them.');
  end if;
  return v_breaker;
end
$$;
comment on function risk_private.breaker(text) is
  'The breaker of that name, locked; RK404 where there is none.';

create function risk_private.remove_breaker(name text, reason text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  b risk_private.breakers;
begin
  perform risk_private.require_reason(reason);
  b := risk_private.breaker(name);
  if b.state <> 'ARMED' then
    perform risk_private.fail('RK409', pg_catalog.format('breaker %L is %s', name, b.state),
      'argument: name', 'Reset it first.');
  end if;
  delete from risk_private.breakers as k where k.breaker_id = b.breaker_id;
  perform risk_private.note_breaker(b, 'REMOVED', null, null, reason, null, risk_private.clock());
end
$$;
comment on function risk_private.remove_breaker(text, text) is 'What risk.remove_breaker does.';

create procedure risk.remove_breaker(name text, reason text)
language plpgsql
as $$
begin
  perform risk_private.remove_breaker(name, reason);
  commit;
end
$$;
comment on procedure risk.remove_breaker(text, text) is
  'Removes a circuit breaker that is armed; what happened to it stays in risk.breaker_events. '
  'Errors: RK400, RK404, RK409 tripped or cooling down.';

-- 62_indicators.sql
-- Market indicators, and the history that circuit breakers look back on.

create function risk_private.indicator_id(name text) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id integer;
begin
  if not risk_private.is_code(name) then
    perform risk_private.fail('RK400', 'the name of an indicator must be 1 to 64 printable '
      'characters', 'argument: name', 'Such as VIX or SPX.');
  end if;
  select i.indicator_id into v_id from risk_private.indicators as i
  where i.name = indicator_id.name;
  if v_id is null then
    insert into risk_private.indicators (name) values (indicator_id.name)
    on conflict on constraint indicators_name_key do nothing;
    select i.indicator_id into v_id from risk_private.indicators as i
    where i.name = indicator_id.name;
  end if;
  return v_id;
end
$$;
comment on function risk_private.indicator_id(text) is
  'The number of an indicator, known from now on. RK400 for a name that is none.';

create function risk_private.set_indicator(name text, value double precision, as_of timestamptz)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := risk_private.clock();
  v_at timestamptz := coalesce(as_of, v_now);
  v_id integer;
  v_value numeric;
begin
  if (value > '-Infinity' and value < 'Infinity') is not true then
    perform risk_private.fail('RK400', 'value must be a finite number',
      'argument: value, value: ' || coalesce(value::text, 'NULL'));
  end if;
  if v_at = '-infinity' or v_at > v_now + interval '1 second' then
    perform risk_private.fail('RK400', 'as_of must be a moment that has come',
      pg_catalog.format('argument: as_of %s, the clock: %s', v_at, v_now),
      'Send the time of the data; leave it out for now.');
  end if;
  v_id := risk_private.indicator_id(name);
  -- By way of its text: a cast to numeric keeps 15 digits, and a value just below a threshold
  -- would be rounded up to it.
  v_value := value::text::numeric;
  update risk_private.indicators as i set
    value = v_value, as_of = v_at, set_by = session_user, received_at = v_now
  where i.indicator_id = v_id and (i.as_of <= v_at or i.as_of is null);
  insert into risk_private.indicator_ticks (indicator_id, as_of, value)
  values (v_id, v_at, v_value);
  perform risk_private.event('indicator', pg_catalog.jsonb_build_object('name', name));
end
$$;
comment on function risk_private.set_indicator(text, double precision, timestamptz) is
  'What risk.set_indicator does.';

create procedure risk.set_indicator(
  name text, value double precision, as_of timestamptz default null)
language plpgsql
as $$
begin
  perform risk_private.set_indicator(name, value, as_of);
  commit;
end
$$;
comment on procedure risk.set_indicator(text, double precision, timestamptz) is
  'Tells the value of a market indicator such as VIX or SPX as of a moment (default now). Circuit '
  'breakers judge every value, one that comes late too; risk.indicators shows the latest by data '
  'time. Errors: RK400 for what is no finite number, or from the future.';

create function risk_private.keep_ticks(instrument_ids integer[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.price_ticks (instrument_id, as_of, price)
  select m.instrument_id, m.as_of, m.price
  from risk_private.marks as m
  where m.instrument_id = any (instrument_ids) and exists (
    select from risk_private.breakers as b where b.instrument_id = m.instrument_id);
  if instrument_ids <> '{}' then
    perform risk_private.event('marks', '{}', false);
  end if;
end
$$;
comment on function risk_private.keep_ticks(integer[]) is
  'Keeps the present marks of those instruments that a circuit breaker watches, and tells that '
  'marks have moved.';

create function risk_private.keep_indicators(day date) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.indicator_closes (indicator_id, day, close)
  select i.indicator_id, keep_indicators.day, i.value
  from risk_private.indicators as i
  where i.value is not null;
end
$$;
comment on function risk_private.keep_indicators(date) is
  'Keeps the values of indicators as the closes of a day that ends.';

-- By data time, for the clock of a replay is not ours. The last value before what must be kept
-- stays: it is the one that stood then.
create function risk_private.forget_ticks() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from risk_private.indicator_ticks as t
  using (
    select i.indicator_id, i.as_of - interval '7 days' - coalesce(max(b.look_back), '0') as since
    from risk_private.indicators as i
    left join risk_private.breakers as b on b.indicator_id = i.indicator_id
    group by i.indicator_id
  ) as k
  where t.indicator_id = k.indicator_id and t.as_of < (
    select max(n.as_of) from risk_private.indicator_ticks as n
    where n.indicator_id = k.indicator_id and n.as_of <= k.since);
  delete from risk_private.price_ticks as t
  using (
    select m.instrument_id, m.as_of - interval '10 minutes' - coalesce(max(b.look_back), '0')
      as since
    from risk_private.marks as m
    left join risk_private.breakers as b on b.instrument_id = m.instrument_id
    where m.instrument_id in (select p.instrument_id from risk_private.price_ticks as p)
    group by m.instrument_id
  ) as k
  where t.instrument_id = k.instrument_id and t.as_of < (
    select max(n.as_of) from risk_private.price_ticks as n
    where n.instrument_id = k.instrument_id and n.as_of <= k.since);
end
$$;
comment on function risk_private.forget_ticks() is
  'Deletes values that no circuit breaker looks back on: of an indicator what is more than 7 days '
  'older than its latest, of a watched price 10 minutes, and what a window needs besides.';

-- 63_breaker_correlation.sql
-- How the underlyings that a scope holds move together.

create index closes_recorded_idx on risk_private.closes (recorded_at);

create function risk_private.mean_correlation(instrument_ids integer[], days integer)
returns numeric
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    with recent as (
      select distinct c.day from risk_private.closes as c order by c.day desc limit days + 1
    ), returns as materialized (
      select r.instrument_id, r.day, r.previous_day, r.log_return
      from risk_private.daily_returns as r
      where r.previous_day >= (select min(t.day) from recent as t)
        and r.instrument_id = any (instrument_ids)
    ), pairs as (
      select corr(a.log_return, b.log_return) as rho
      from returns as a
      join returns as b
        on b.day = a.day and b.previous_day = a.previous_day and b.instrument_id > a.instrument_id
      group by a.instrument_id, b.instrument_id
      having count(*) >= 20 and var_pop(a.log_return) > 1e-18 and var_pop(b.log_return) > 1e-18
    )
    select round(avg(p.rho)::numeric, 12) from pairs as p);
end
$$;
comment on function risk_private.mean_correlation(integer[], integer) is
  'Mean Pearson correlation of the daily log returns of all pairs of these underlyings over the '
  'last days that were closed. A pair needs 20 common days and variance; NULL where none has.';

create function risk_private.holdings(watches risk_private.watch[])
returns table (breaker_id integer, instrument_ids integer[], days integer, inputs uuid)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with held as (
    select p.account_id, p.underlying_id from risk_private.positions as p
    where p.quantity <> 0
    group by p.account_id, p.underlying_id
  ), below as (
    select c.scope_id, array_agg(distinct h.underlying_id order by h.underlying_id) as ids
    from held as h
    join risk_private.scopes as s on s.scope_id = h.account_id
    cross join unnest(s.chain) as c (scope_id)
    group by c.scope_id
  ), listed as (
    select w.breaker_id, (w.parameters ->> 'days')::integer as days,
      coalesce(b.ids, '{}') as instrument_ids
    from unnest(watches) as w
    left join below as b on b.scope_id = w.scope_id
  ), closed as (
    select max(c.recorded_at)::text as closes from risk_private.closes as c
  )
  select l.breaker_id, l.instrument_ids, l.days,
    md5(concat_ws('|', l.days, c.closes, l.instrument_ids::text))::uuid
  from listed as l cross join closed as c;
end
$$;
comment on function risk_private.holdings(risk_private.watch[]) is
  'What each breaker''s scope holds, by underlying, and a fingerprint of all that its correlation '
  'depends on.';

create function risk_private.observe_correlation(watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.correlation_readings as r (breaker_id, inputs, value)
  select h.breaker_id, h.inputs, risk_private.mean_correlation(h.instrument_ids, h.days)
  from risk_private.holdings(watches) as h
  where not exists (
    select from risk_private.correlation_readings as k
    where k.breaker_id = h.breaker_id and k.inputs = h.inputs)
  on conflict on constraint correlation_readings_pkey do update set
    inputs = excluded.inputs, value = excluded.value;
  return query
  select r.breaker_id, r.value, at, r.value, at, null::text
  from unnest(watches) as w
  join risk_private.correlation_readings as r on r.breaker_id = w.breaker_id;
end
$$;
comment on function risk_private.observe_correlation(risk_private.watch[], timestamptz) is
  'Mean correlation of what the scope holds, reckoned again when holdings or closes have changed.';

-- 63_breaker_fills.sql
-- Conditions on what was executed and what became of it.

create function risk_private.repeated_since(w risk_private.watch) returns timestamptz
language sql immutable
return greatest(w.since, w.tripped_at);
comment on function risk_private.repeated_since(risk_private.watch) is
  'From when on repetitions count: a trip uses up what led to it, so that a person can reset it.';

create function risk_private.first_new_fill(watches risk_private.watch[]) returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select min(f.recorded_at) from risk_private.fills as f
    where f.recorded_at > (select min(risk_private.judged_from(w)) from unnest(watches) as w)
      and f.recorded_xid >= (select min(w.seen_xid) from unnest(watches) as w));
end
$$;
comment on function risk_private.first_new_fill(risk_private.watch[]) is
  'When the first fill was recorded that is still to be judged; NULL where there is none.';

create function risk_private.fill_flow(watches risk_private.watch[], at timestamptz)
returns table (breaker_id integer, fills bigint, most_fills bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_from timestamptz := least(at, risk_private.first_new_fill(watches));
  v_period record;
begin
  for v_period in
    select p.look_back, p.since, array_agg(p.w) as watches
    from (
      select w, risk_private.window_of(w) as look_back, greatest(
        risk_private.repeated_since(w), v_from - risk_private.window_of(w)) as since
      from unnest(watches) as w
    ) as p
    group by p.look_back, p.since
  loop
    return query
    with filled as materialized (
      select f.account_id, f.client_order_id, f.instrument_id, sign(f.signed_quantity) as sign,
        count(*) filter (where f.recorded_at > at - v_period.look_back) as now,
        count(*) as most
      from risk_private.fills as f
      where f.signed_quantity <> 0 and f.recorded_at > v_period.since
        and f.client_order_id is not null
      group by 1, 2, 3, 4
    ), runs as (
      select f.account_id, i.underlying_id, sum(f.now) as now, sum(f.most) as most
      from filled as f
      join risk_private.orders as o
        on o.account_id = f.account_id and o.client_order_id = f.client_order_id
      join risk_private.instruments as i on i.instrument_id = f.instrument_id
      group by f.account_id, o.agent, f.instrument_id, f.sign, i.underlying_id
    ), flow as (
      select c.scope_id, u.underlying_id, max(r.now) as now, max(r.most) as most
      from runs as r
      join risk_private.scopes as s on s.scope_id = r.account_id
      cross join unnest(s.chain) as c (scope_id)
      cross join unnest(array[0, r.underlying_id]) as u (underlying_id)
      group by 1, 2
    )
    select w.breaker_id, coalesce(f.now, 0)::bigint, coalesce(f.most, 0)::bigint
    from unnest(v_period.watches) as w
    left join flow as f on f.scope_id = w.scope_id and f.underlying_id = w.underlying_id;
  end loop;
end
$$;
comment on function risk_private.fill_flow(risk_private.watch[], timestamptz) is
  'Most fills of one account, agent, symbol and side in each breaker''s window as it is now; and '
  'as many as there can have been in any window that is still to be judged.';

create function risk_private.worst_fill_flow(
  w risk_private.watch, out value bigint, out as_of timestamptz)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  execute pg_catalog.format($query$
    with filled as (
      select f.recorded_at, f.recorded_xid, count(*) over (
        partition by f.account_id, o.agent, f.instrument_id, sign(f.signed_quantity)
        order by f.recorded_at
        range between (%1$L::interval - interval '1 microsecond') preceding and current row)
        as fills
      from risk_private.scopes as s
      join risk_private.fills as f on f.account_id = s.scope_id
      join risk_private.orders as o
        on o.account_id = f.account_id and o.client_order_id = f.client_order_id
      where s.is_leaf and $1.scope_id = any (s.chain) and f.signed_quantity <> 0
        and f.recorded_at > greatest(
          risk_private.repeated_since($1), risk_private.judged_from($1) - %1$L::interval)
        and risk_private.is_about($1, array[f.instrument_id])
    )
    select f.fills, f.recorded_at from filled as f
    where f.recorded_at > risk_private.judged_from($1) and f.recorded_xid >= $1.seen_xid
    order by f.fills desc, f.recorded_at
    limit 1$query$, risk_private.window_of(w))
  into value, as_of using w;
end
$$;
comment on function risk_private.worst_fill_flow(risk_private.watch) is
  'Most fills of one account, agent, symbol and side in a window that ends with one still to be '
  'judged.';

create function risk_private.observe_repeated_fills(watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with flow as materialized (
    select w, f.fills as value, f.most_fills >= w.threshold as is_near
    from unnest(watches) as w
    join risk_private.fill_flow(watches, at) as f on f.breaker_id = w.breaker_id
  ), near as materialized (
    select (f.w).breaker_id, k.value, k.as_of
    from flow as f cross join lateral risk_private.worst_fill_flow(f.w) as k
    where f.is_near
  )
  select (f.w).breaker_id, f.value::numeric, at, greatest(f.value, k.value)::numeric,
    case when k.value > f.value then k.as_of else at end, null::text
  from flow as f
  left join near as k on k.breaker_id = (f.w).breaker_id;
end
$$;
comment on function risk_private.observe_repeated_fills(risk_private.watch[], timestamptz) is
  'Most fills of one account, agent, symbol and side within the window.';

create function risk_private.observe_escalation(watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with tripped as (
    select c.scope_id, e.name, e.at
    from risk_private.breaker_events as e
    join risk_private.scopes as s on s.scope_id = e.scope_id
    cross join unnest(s.chain) as c (scope_id)
    where e.event = 'TRIPPED' and e.action <> 'NOTIFY' and e.condition <> 'escalation'
      and e.at > observe_escalation.at
        - (select max(risk_private.window_of(w)) from unnest(watches) as w)
  ), counted as (
    select w.breaker_id, count(distinct t.name)::numeric as value
    from unnest(watches) as w
    left join tripped as t on t.scope_id = w.scope_id
      and t.at > greatest(w.since, observe_escalation.at - risk_private.window_of(w))
    group by w.breaker_id
  )
  select t.breaker_id, t.value, observe_escalation.at, t.value, observe_escalation.at, null::text
  from counted as t;
end
$$;
comment on function risk_private.observe_escalation(risk_private.watch[], timestamptz) is
  'How many breakers of the scope and below tripped within the window.';

-- 63_breaker_limits.sql
-- How many limits are exceeded. Where there are many, to find out takes longer than an evaluation
-- may: then a job of the worker counts them, and evaluations go by what it found last.

create table risk_private.breach_counts (
  scope_id integer not null,
  underlying_id integer not null,
  breaches bigint not null,
  counted_at timestamptz not null,
  primary key (scope_id, underlying_id)
);
comment on table risk_private.breach_counts is
  'How many limits of a scope and below are exceeded by what is filled, per underlying (0: limits '
  'that are for none) and, under scope 0, when that was counted. Kept where there are many limits.';

create function risk_private.has_many_limits() returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select count(*) > 100 from (select from risk_private.limits_in_force as l limit 101) as f);
end
$$;
comment on function risk_private.has_many_limits() is
  'Whether there are too many limits for each evaluation to look at.';

create function risk_private.breached_limits()
returns table (scope_id integer, underlying_id integer, breaches bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select c.scope_id, coalesce(u.underlying_id, k.underlying_id, 0), count(*)
  from risk.limit_utilization as l
  join risk_private.scopes as s on s.code = l.scope
  cross join unnest(s.chain) as c (scope_id)
  left join risk_private.instruments as u on u.symbol = l.underlying
  left join risk_private.instruments as k on k.symbol = l.instrument
  where l.used > l.limit_value
  group by 1, 2;
end
$$;
comment on function risk_private.breached_limits() is
  'How many limits of each scope and below are exceeded, per underlying; 0: those for none.';

-- Lock order: the lease, once everything is counted.
create function risk_private.count_breaches(epoch bigint) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := risk_private.clock();
  v_is_needed boolean := risk_private.has_many_limits() and exists (
    select from risk_private.breakers as b where b.condition = 'limit_breach');
  v_counts risk_private.breach_counts[] := '{}';
begin
  if v_is_needed then
    v_counts := array(
      select row(l.scope_id, l.underlying_id, l.breaches, v_at)::risk_private.breach_counts
      from risk_private.breached_limits() as l);
  end if;
  perform risk_private.require_epoch(epoch);
  if v_is_needed then
    delete from risk_private.breach_counts;
    insert into risk_private.breach_counts values (0, 0, 0, v_at);
    insert into risk_private.breach_counts select c.* from pg_catalog.unnest(v_counts) as c;
  end if;
  return v_is_needed;
end
$$;
comment on function risk_private.count_breaches(bigint) is
  'Counts exceeded limits for the breakers that watch them, where there are many limits. Returns '
  'whether that was so. Raises RK409 when the epoch is over.';

create function risk_private.observe_limit_breach(watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := at;
  v_counts risk_private.breach_counts[];
begin
  if risk_private.has_many_limits() then
    v_counts := array(select c from risk_private.breach_counts as c);
    v_at := (
      select c.counted_at from unnest(v_counts) as c
      where c.scope_id = 0 and c.counted_at > at - interval '1 minute');
  else
    v_counts := array(
      select row(l.scope_id, l.underlying_id, l.breaches, at)::risk_private.breach_counts
      from risk_private.breached_limits() as l);
  end if;
  return query
  select w.breaker_id, c.value, v_at, c.value, v_at, null::text
  from unnest(watches) as w
  cross join lateral (
    select case when v_at is not null then coalesce(sum(k.breaches), 0) end as value
    from unnest(v_counts) as k
    where k.scope_id = w.scope_id and w.underlying_id in (0, k.underlying_id)
  ) as c;
end
$$;
comment on function risk_private.observe_limit_breach(risk_private.watch[], timestamptz) is
  'How many limits of the scope and below are exceeded by what is filled; NULL where that was not '
  'counted for a minute.';

-- 63_breaker_market.sql
-- Conditions on market data: indicators, prices, how old they are, how they move together. Each
-- measures many breakers at once. What was not visible to the last evaluation is judged value by
-- value, so that nothing is missed between two of them.

create function risk_private.observe_volatility_level(
  watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select w.breaker_id, i.value, i.as_of, t.value, t.as_of, null::text
  from unnest(watches) as w
  left join risk_private.indicators as i on i.indicator_id = w.indicator_id
  left join lateral (
    select k.value, k.as_of from risk_private.indicator_ticks as k
    where k.indicator_id = w.indicator_id and k.recorded_xid >= w.seen_xid and k.as_of > w.since
    order by k.value desc, k.as_of
    limit 1
  ) as t on true;
end
$$;
comment on function risk_private.observe_volatility_level(
  risk_private.watch[], timestamptz) is 'The value of the indicator.';

create function risk_private.spike(
  indicator_id integer, value numeric, as_of timestamptz, look_back interval) returns numeric
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_lowest numeric;
begin
  select min(k.value) into v_lowest
  from (
    select t.value from risk_private.indicator_ticks as t
    where t.indicator_id = spike.indicator_id and t.as_of > spike.as_of - look_back
      and t.as_of <= spike.as_of
    union all
    (select t.value from risk_private.indicator_ticks as t
     where t.indicator_id = spike.indicator_id and t.as_of <= spike.as_of - look_back
     order by t.as_of desc
     limit 1)
  ) as k;
  return case
    when v_lowest > 0 then trim_scale(round((value - v_lowest) / v_lowest * 100, 12))
    when value > v_lowest then 'Infinity'
    else 0 end;
end
$$;
comment on function risk_private.spike(integer, numeric, timestamptz, interval) is
  'How far a value lies above the lowest of the window that ends with it, in percent; the value '
  'that stood when the window began counts.';

create function risk_private.observe_volatility_spike(
  watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select w.breaker_id, risk_private.spike(i.indicator_id, i.value, i.as_of, n.look_back), i.as_of,
    t.value, t.as_of, null::text
  from unnest(watches) as w
  cross join lateral (
    select make_interval(secs => (w.parameters ->> 'window')::double precision) as look_back
  ) as n
  left join risk_private.indicators as i
    on i.indicator_id = w.indicator_id and i.value is not null
  left join lateral (
    select s.value, k.as_of
    from risk_private.indicator_ticks as k
    cross join lateral risk_private.spike(k.indicator_id, k.value, k.as_of, n.look_back)
      as s (value)
    where k.indicator_id = w.indicator_id and k.recorded_xid >= w.seen_xid and k.as_of > w.since
    order by s.value desc, k.as_of
    limit 1
  ) as t on true;
end
$$;
comment on function risk_private.observe_volatility_spike(
  risk_private.watch[], timestamptz) is 'How far the indicator rose within the window, in percent.';

create view risk_private.ticks as
select t.instrument_id, null::integer as indicator_id, t.as_of, t.price, t.recorded_xid
from risk_private.price_ticks as t
union all
select null, t.indicator_id, t.as_of, t.value, t.recorded_xid
from risk_private.indicator_ticks as t;
comment on view risk_private.ticks is 'Values of watched instruments and of indicators.';

create function risk_private.reference_price(
  instrument_id integer, indicator_id integer, as_of timestamptz, reference text)
returns numeric
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if reference = 'prior_close' then
    return (
      select c.close
      from (
        select d.close, d.day from risk_private.closes as d
        where d.instrument_id = reference_price.instrument_id
        union all
        select d.close, d.day from risk_private.indicator_closes as d
        where d.indicator_id = reference_price.indicator_id
      ) as c
      where c.day < risk_private.trading_date()
      order by c.day desc
      limit 1);
  end if;
  return coalesce(
    (select avg(t.price) from risk_private.ticks as t
     where (t.instrument_id = reference_price.instrument_id
         or t.indicator_id = reference_price.indicator_id)
       and t.as_of >= reference_price.as_of - interval '5 minutes'
       and t.as_of < reference_price.as_of),
    (select t.price from risk_private.ticks as t
     where (t.instrument_id = reference_price.instrument_id
         or t.indicator_id = reference_price.indicator_id)
       and t.as_of < reference_price.as_of
     order by t.as_of desc
     limit 1));
end
$$;
comment on function risk_private.reference_price(integer, integer, timestamptz, text) is
  'What a price of that moment is compared with: prior_close, the last before today; mean_5m, the '
  'mean of the 5 minutes before, or where nothing came in them the last price. NULL: none.';

create function risk_private.moved(
  w risk_private.watch, price numeric, as_of timestamptz) returns numeric
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_reference numeric := risk_private.reference_price(
    w.instrument_id, w.indicator_id, as_of, w.parameters ->> 'reference');
  v_move numeric := trim_scale(
    round((price - v_reference) / nullif(abs(v_reference), 0) * 100, 12));
begin
  return case w.parameters ->> 'direction'
    when 'up' then v_move when 'down' then -v_move else abs(v_move) end;
end
$$;
comment on function risk_private.moved(risk_private.watch, numeric, timestamptz) is
  'How far a price lies from its reference in the direction that counts, in percent.';

create function risk_private.observe_price_move(
  watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select w.breaker_id, risk_private.moved(w, p.price, p.as_of), p.as_of, t.value, t.as_of,
    null::text
  from unnest(watches) as w
  left join lateral (
    select m.price, m.as_of from risk_private.marks as m where m.instrument_id = w.instrument_id
    union all
    select i.value, i.as_of from risk_private.indicators as i
    where i.indicator_id = w.indicator_id and i.value is not null
  ) as p on true
  left join lateral (
    select s.value, k.as_of
    from (
      select q.price, q.as_of from risk_private.price_ticks as q
      where q.instrument_id = w.instrument_id and q.recorded_xid >= w.seen_xid
        and q.as_of > w.since
      union all
      select q.value, q.as_of from risk_private.indicator_ticks as q
      where q.indicator_id = w.indicator_id and q.recorded_xid >= w.seen_xid and q.as_of > w.since
    ) as k
    cross join lateral risk_private.moved(w, k.price, k.as_of) as s (value)
    where s.value is not null
    order by s.value desc, k.as_of
    limit 1
  ) as t on true;
end
$$;
comment on function risk_private.observe_price_move(risk_private.watch[], timestamptz) is
  'How far the price lies from its reference, in percent.';

create function risk_private.age(as_of timestamptz, at timestamptz) returns numeric
language sql stable
return case when as_of is null or as_of = '-infinity' then 'Infinity'
  else greatest(0, extract(epoch from at - as_of)) end;
comment on function risk_private.age(timestamptz, timestamptz) is
  'How old data are, in seconds; what is missing is infinitely old.';

create function risk_private.observe_stale_data(
  watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with held as (
    select p.account_id, i.underlying_id, min(coalesce(m.as_of, '-infinity')) as as_of
    from risk_private.positions as p
    join risk_private.instruments as i on i.instrument_id = p.instrument_id
    cross join lateral (values (i.instrument_id), (i.underlying_id)) as n (needed_id)
    left join risk_private.marks as m on m.instrument_id = n.needed_id
    where p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0
    group by p.account_id, i.underlying_id
  ), watched as (
    select b.scope_id, b.underlying_id, coalesce(k.as_of, m.as_of, '-infinity') as as_of
    from risk_private.breakers as b
    left join risk_private.indicators as k on k.indicator_id = b.indicator_id
    left join risk_private.marks as m on m.instrument_id = b.instrument_id
    where b.indicator_id is not null or b.instrument_id is not null
  ), needed as (
    select w.breaker_id, n.as_of
    from (table held union all table watched) as n (scope_id, underlying_id, as_of)
    join risk_private.scopes as s on s.scope_id = n.scope_id
    cross join unnest(s.chain) as c (scope_id)
    join unnest(watches) as w
      on w.scope_id = c.scope_id
        and (w.underlying_id in (0, n.underlying_id) or n.underlying_id = 0)
  )
  select w.breaker_id, o.value, at, o.value, at, null::text
  from unnest(watches) as w
  left join (
    select n.breaker_id, min(n.as_of) as as_of from needed as n group by n.breaker_id
  ) as k on k.breaker_id = w.breaker_id
  cross join lateral (
    select case when k.breaker_id is null then 0 else risk_private.age(k.as_of, at) end
      as value
  ) as o;
end
$$;
comment on function risk_private.observe_stale_data(risk_private.watch[], timestamptz) is
  'Age in seconds of the oldest mark or indicator that the scope and all below need; 0 where they '
  'need none.';

create function risk_private.observe_queue_backlog(
  watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select w.breaker_id, o.value, at, o.value, at, null::text
  from unnest(watches) as w
  left join (
    (select 'risk_events' as queue, m.enqueued_at as oldest
     from pgmq.q_risk_events as m order by m.msg_id limit 1)
    union all
    (select 'risk_alerts', m.enqueued_at from pgmq.q_risk_alerts as m order by m.msg_id limit 1)
  ) as q on q.queue = w.parameters ->> 'queue'
  cross join lateral (
    select case when q.oldest is null then 0 else risk_private.age(q.oldest, at) end as value
  ) as o;
end
$$;
comment on function risk_private.observe_queue_backlog(risk_private.watch[], timestamptz) is
  'Age of the oldest message in seconds; 0 for an empty queue.';

-- 63_breaker_money.sql
-- Conditions on money: what a scope has lost, and what its closing orders made.

create function risk_private.loss(amount numeric, base numeric, unit text) returns numeric
language sql immutable
return case
  when unit = 'amount' then amount
  when base <= 0 then 'Infinity'
  else pg_catalog.trim_scale(pg_catalog.round(amount / base * 100, 12)) end;
comment on function risk_private.loss(numeric, numeric, text) is
  'A loss in money or in percent of what there was; infinite where that was nothing.';

create function risk_private.observe_daily_loss(watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select w.breaker_id, o.value, e.as_of, o.value, e.as_of, null::text
  from unnest(watches) as w
  left join risk_private.equities as e on e.scope_id = w.scope_id
  cross join lateral (
    select case when e.start_equity <= 0 then 'Infinity' else risk_private.loss(
      e.start_equity + e.flows - e.equity, e.start_equity, w.parameters ->> 'unit') end as value
  ) as o;
end
$$;
comment on function risk_private.observe_daily_loss(risk_private.watch[], timestamptz) is
  'Loss since the trading day was opened, as equities stand; NULL while they are not known.';

create function risk_private.observe_drawdown(watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select w.breaker_id, o.value, e.as_of, o.value, e.as_of, null::text
  from unnest(watches) as w
  left join risk_private.equities as e on e.scope_id = w.scope_id
  cross join lateral (
    select case
      when w.parameters ->> 'unit' = 'pct' and (e.peak <= 0 or e.equity <= 0) then 100
      else risk_private.loss(e.peak - e.equity, e.peak, w.parameters ->> 'unit') end as value
  ) as o;
end
$$;
comment on function risk_private.observe_drawdown(risk_private.watch[], timestamptz) is
  'Loss since the peak, as equities stand; NULL while they are not known.';

-- The caller holds the counters of the chain.
create function risk_private.rebase_peak(scope_id integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update risk_private.equities as e set peak = e.known_equity
  where e.scope_id = rebase_peak.scope_id;
end
$$;
comment on function risk_private.rebase_peak(integer) is
  'Makes the present equity of a scope its peak.';

create function risk_private.loss_runs(w risk_private.watch)
returns table (recorded_at timestamptz, is_new boolean, losses bigint, is_last boolean)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with closing as (
    select max(f.recorded_at) as closed_at, max(f.booking) as booking,
      bool_or(f.recorded_xid >= w.seen_xid) as is_new,
      sum((f.realized - f.fee) * f.rate) < 0 as is_loss
    from risk_private.scopes as s
    join risk_private.fills as f on f.account_id = s.scope_id
    where s.is_leaf and w.scope_id = any (s.chain) and f.booked_on is not null
      and f.recorded_at > risk_private.repeated_since(w)
      and f.signed_quantity <> 0 and risk_private.is_about(w, array[f.instrument_id])
    group by f.account_id, f.booked_on
    having bool_or(f.closed > 0)
  ), runs as (
    select c.*, count(*) filter (where not c.is_loss) over (order by c.booking) as run
    from closing as c
  )
  select r.closed_at, r.is_new,
    count(*) filter (where r.is_loss) over (partition by r.run order by r.booking),
    r.booking = max(r.booking) over ()
  from runs as r;
end
$$;
comment on function risk_private.loss_runs(risk_private.watch) is
  'For each closing order since the breaker was last armed or tripped: how many in a row up to it '
  'lost money, net of fees.';

-- Nothing is counted anew in scopes where no fill can have come since the last evaluation.
create function risk_private.observe_consecutive_losses(
  watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_busy_ids integer[] := array(
    select distinct c.scope_id
    from (
      select distinct f.account_id from risk_private.fills as f
      where f.recorded_at > (select min(risk_private.judged_from(w)) from unnest(watches) as w)
    ) as a
    join risk_private.scopes as s on s.scope_id = a.account_id
    cross join unnest(s.chain) as c (scope_id));
begin
  return query
  with known as materialized (
    select w, case
      when w.scope_id <> all (v_busy_ids) and risk_private.repeated_since(w) < w.seen_at
      then r.value end as value
    from unnest(watches) as w
    join risk_private.breaker_readings as r on r.breaker_id = w.breaker_id
  ), counted as materialized (
    select (k.w).breaker_id, n.*
    from known as k
    cross join lateral (
      select coalesce(max(r.losses) filter (where r.is_last), 0)::numeric as value,
        max(r.losses) filter (where r.is_new)::numeric as worst,
        max(r.recorded_at) filter (where r.is_new) as worst_at
      from risk_private.loss_runs(k.w) as r
    ) as n
    where k.value is null
  )
  select (k.w).breaker_id, o.value, at, greatest(o.value, c.worst),
    case when c.worst > o.value then c.worst_at else at end, null::text
  from known as k
  left join counted as c on c.breaker_id = (k.w).breaker_id
  cross join lateral (select coalesce(c.value, k.value) as value) as o;
end
$$;
comment on function risk_private.observe_consecutive_losses(
  risk_private.watch[], timestamptz) is 'Closing orders in a row that lost money.';

-- 63_breaker_orders.sql
-- Conditions on what is ordered. A rate is judged at every order that the last evaluation could not
-- see, and now; the exact sliding count is made only where it could come near the threshold.

create function risk_private.is_counted(reason text) returns boolean
language sql immutable
return reason not in (
  'TRADING_HALTED', 'CIRCUIT_BREAKER_TRIPPED', 'REDUCE_ONLY', 'STALE_DATA');
comment on function risk_private.is_counted(text) is
  'Whether a refusal counts as a reject: not one that a halt, a breaker or stale data explains.';

create function risk_private.judged_from(w risk_private.watch) returns timestamptz
language sql immutable
return greatest(w.since, w.seen_at - interval '10 seconds');
comment on function risk_private.judged_from(risk_private.watch) is
  'From when on there may be orders or fills that the last evaluation could not see: those that '
  'were under way then.';

create function risk_private.window_of(w risk_private.watch) returns interval
language sql immutable
return pg_catalog.make_interval(secs => (w.parameters ->> 'window')::double precision);
comment on function risk_private.window_of(risk_private.watch) is 'The breaker''s window.';

create function risk_private.is_about(w risk_private.watch, instrument_ids integer[])
returns boolean
language sql stable
return w.underlying_id = 0 or exists (
  select from risk_private.instruments as i
  where i.instrument_id = any (instrument_ids) and i.underlying_id = w.underlying_id);
comment on function risk_private.is_about(risk_private.watch, integer[]) is
  'Whether one of the instruments is of the breaker''s underlying, if it has one.';

create function risk_private.first_new_order(watches risk_private.watch[]) returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select min(o.decided_at) from risk_private.orders as o
    where o.decided_at > (select min(risk_private.judged_from(w)) from unnest(watches) as w)
      and o.decided_xid >= (select min(w.seen_xid) from unnest(watches) as w));
end
$$;
comment on function risk_private.first_new_order(risk_private.watch[]) is
  'When the first order was decided that is still to be judged; NULL where there is none.';

create function risk_private.order_flow(watches risk_private.watch[], at timestamptz)
returns table (breaker_id integer, orders bigint, accepted bigint, rejects bigint,
  most_orders bigint, most_accepted bigint, most_rejects bigint, least_accepted bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_underlying_ids integer[] := array(
    select distinct w.underlying_id from unnest(watches) as w where w.underlying_id <> 0);
  v_from timestamptz := least(at, risk_private.first_new_order(watches));
  v_until timestamptz := greatest(at, (select max(o.decided_at) from risk_private.orders as o));
  v_window interval;
begin
  for v_window in
    select distinct risk_private.window_of(w) from unnest(watches) as w
  loop
    return query
    with decided as materialized (
      select o.account_id, case when v_underlying_ids <> '{}' then o.instrument_ids end
          as instrument_ids,
        o.decided_at > at - v_window as is_now,
        count(*) as orders, count(*) filter (where o.decision = 'ACCEPTED') as accepted,
        count(*) filter (where o.decision = 'REJECTED' and risk_private.is_counted(o.reason))
          as rejects,
        count(*) filter (where o.decision = 'ACCEPTED' and o.decided_at < v_from
          and o.decided_at > v_until - v_window) as least_accepted
      from risk_private.orders as o
      where o.decided_at > v_from - v_window
      group by 1, 2, 3
    ), placed as (
      select d.account_id, u.underlying_id, d.is_now, sum(d.orders) as orders,
        sum(d.accepted) as accepted, sum(d.rejects) as rejects,
        sum(d.least_accepted) as least_accepted
      from decided as d
      cross join lateral (
        select 0 as underlying_id
        union
        select i.underlying_id from risk_private.instruments as i
        where i.instrument_id = any (d.instrument_ids) and i.underlying_id = any (v_underlying_ids)
      ) as u
      group by 1, 2, 3
    ), flow as (
      select c.scope_id, p.underlying_id,
        sum(p.orders) filter (where p.is_now) as orders,
        sum(p.accepted) filter (where p.is_now) as accepted,
        sum(p.rejects) filter (where p.is_now) as rejects,
        sum(p.orders) as most_orders, sum(p.accepted) as most_accepted,
        sum(p.rejects) as most_rejects, sum(p.least_accepted) as least_accepted
      from placed as p
      join risk_private.scopes as s on s.scope_id = p.account_id
      cross join unnest(s.chain) as c (scope_id)
      group by 1, 2
    )
    select w.breaker_id, coalesce(f.orders, 0)::bigint, coalesce(f.accepted, 0)::bigint,
      coalesce(f.rejects, 0)::bigint, coalesce(f.most_orders, 0)::bigint,
      coalesce(f.most_accepted, 0)::bigint, coalesce(f.most_rejects, 0)::bigint,
      coalesce(f.least_accepted, 0)::bigint
    from unnest(watches) as w
    left join flow as f on f.scope_id = w.scope_id and f.underlying_id = w.underlying_id
    where risk_private.window_of(w) = v_window;
  end loop;
end
$$;
comment on function risk_private.order_flow(risk_private.watch[], timestamptz) is
  'Orders decided, accepted and counted as rejects in each breaker''s window as it is now; as '
  'many as there can have been in any window that is still to be judged; and how many were '
  'accepted in all of those.';

create function risk_private.worst_flow(
  w risk_private.watch, is_ratio boolean, out value numeric, out as_of timestamptz)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_window interval := risk_private.window_of(w);
  v_from timestamptz := risk_private.first_new_order(array[w]);
begin
  execute pg_catalog.format($query$
    with decided as (
      select o.decided_at, o.decided_xid,
        count(*) over past as orders,
        count(*) filter (where o.decision = 'ACCEPTED') over past as accepted,
        count(*) filter (where o.decision = 'REJECTED' and risk_private.is_counted(o.reason))
          over past as rejects
      from risk_private.scopes as s
      join risk_private.orders as o on o.account_id = s.scope_id
      where s.is_leaf and $1.scope_id = any (s.chain) and o.decided_at > $2 - %1$L::interval
        and ($1.underlying_id = 0 or risk_private.is_about($1, o.instrument_ids))
      window past as (order by o.decided_at
        range between (%1$L::interval - interval '1 microsecond') preceding and current row)
    )
    select m.value, d.decided_at
    from decided as d
    cross join lateral (
      select case when not $3 then d.orders::numeric
        when d.accepted + d.rejects < 20 then 0
        else trim_scale(round(d.rejects * 100::numeric / (d.accepted + d.rejects), 12)) end as value
    ) as m
    where d.decided_at >= $2 and d.decided_xid >= $1.seen_xid
    order by m.value desc, d.decided_at
    limit 1$query$, v_window)
  into value, as_of using w, v_from, is_ratio;
end
$$;
comment on function risk_private.worst_flow(risk_private.watch, boolean) is
  'The highest rate in a window that ends with an order still to be judged: orders, or rejects '
  'in percent.';

create function risk_private.observe_order_rate(watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with flow as materialized (
    select w, f.orders::numeric as value, f.most_orders >= 0.9 * w.threshold as is_near
    from unnest(watches) as w
    join risk_private.order_flow(watches, at) as f on f.breaker_id = w.breaker_id
  ), near as materialized (
    select (f.w).breaker_id, k.value, k.as_of
    from flow as f cross join lateral risk_private.worst_flow(f.w, false) as k
    where f.is_near
  )
  select (f.w).breaker_id, f.value, at,
    greatest(f.value, k.value), case when k.value > f.value then k.as_of else at end, null::text
  from flow as f
  left join near as k on k.breaker_id = (f.w).breaker_id;
end
$$;
comment on function risk_private.observe_order_rate(risk_private.watch[], timestamptz) is
  'Orders and replaces decided within the window.';

create function risk_private.observe_reject_rate(watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with flow as materialized (
    select w, case when f.accepted + f.rejects < 20 then 0
        else trim_scale(round(f.rejects * 100::numeric / (f.accepted + f.rejects), 12)) end
        as value,
      f.most_accepted + f.most_rejects >= 20 and f.most_rejects * 100
        >= 0.9 * w.threshold * greatest(20, f.most_rejects + f.least_accepted) as is_near
    from unnest(watches) as w
    join risk_private.order_flow(watches, at) as f on f.breaker_id = w.breaker_id
  ), near as materialized (
    select (f.w).breaker_id, k.value, k.as_of
    from flow as f cross join lateral risk_private.worst_flow(f.w, true) as k
    where f.is_near
  )
  select (f.w).breaker_id, f.value, at,
    greatest(f.value, k.value), case when k.value > f.value then k.as_of else at end, null::text
  from flow as f
  left join near as k on k.breaker_id = (f.w).breaker_id;
end
$$;
comment on function risk_private.observe_reject_rate(risk_private.watch[], timestamptz) is
  'Rejects in percent of the orders within the window.';

-- 63_breaker_states.sql
-- The life of a circuit breaker: ARMED, TRIPPED, COOLDOWN, ARMED. Its effect is a row among the
-- trading states, written in the same transaction; it waits for no lock that a trader holds.

create function risk_private.hold(b risk_private.breakers, at timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.trading_states (
    scope_id, underlying_id, breaker_id, state, cancels, reason, changed_by, since)
  select b.scope_id, b.underlying_id, b.breaker_id,
    case b.action when 'REDUCE_ONLY' then 'REDUCE_ONLY' else 'HALTED' end,
    b.action = 'HALT_AND_CANCEL', pg_catalog.format('breaker %s: %s', b.name, b.trip_reason),
    b.tripped_by, at
  where b.action <> 'NOTIFY'
  on conflict on constraint trading_states_pkey do update set
    reason = excluded.reason, changed_by = excluded.changed_by;
end
$$;
comment on function risk_private.hold(risk_private.breakers, timestamptz) is
  'Puts a breaker''s action into force.';

create function risk_private.trip(
  b risk_private.breakers, value numeric, data_at timestamptz, reason text, error text,
  is_manual boolean, at timestamptz)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update risk_private.breakers as k set
    state = 'TRIPPED', tripped_at = at, tripped_by = session_user, is_manual = trip.is_manual,
    tripped_value = trip.value, tripped_data_at = trip.data_at, trip_reason = trip.reason,
    cooling_since = null,
    tripped_day = (select c.trading_date from risk_private.trading_calendar as c)
  where k.breaker_id = b.breaker_id and (k.state <> 'TRIPPED' or trip.is_manual)
  returning k.* into b;
  if not found then
    return false;
  end if;
  -- A trip is durable once its transaction has committed, however the session goes about others.
  if pg_catalog.current_setting('synchronous_commit') <> 'remote_apply' then
    perform pg_catalog.set_config('synchronous_commit', 'on', true);
  end if;
  perform risk_private.hold(b, at);
  perform risk_private.note_breaker(b, 'TRIPPED', value, data_at, reason, error, at);
  perform risk_private.event('breaker', pg_catalog.jsonb_build_object('scope', s.code))
  from risk_private.scopes as s where s.scope_id = b.scope_id;
  return true;
end
$$;
comment on function risk_private.trip(
  risk_private.breakers, numeric, timestamptz, text, text, boolean, timestamptz) is
  'Trips a breaker unless it is tripped; a person''s trip takes over that of a condition. Returns '
  'whether it did.';

create function risk_private.arm(
  b risk_private.breakers, value numeric, reason text, at timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update risk_private.breakers as k set
    state = 'ARMED', armed_at = at, is_manual = false, cooling_since = null
  where k.breaker_id = b.breaker_id and k.tripped_at = b.tripped_at
  returning k.* into b;
  if not found then
    return;
  end if;
  delete from risk_private.trading_states as t
  where t.scope_id = b.scope_id and t.underlying_id = b.underlying_id
    and t.breaker_id = b.breaker_id;
  perform risk_private.note_breaker(b, 'RESET', value, null, reason, null, at);
  perform risk_private.event('breaker', pg_catalog.jsonb_build_object('scope', s.code))
  from risk_private.scopes as s where s.scope_id = b.scope_id;
end
$$;
comment on function risk_private.arm(risk_private.breakers, numeric, text, timestamptz) is
  'Arms a breaker again, unless somebody has tripped it meanwhile: its action ends, and what it '
  'judges from now on is newer data.';

create function risk_private.cool(
  b risk_private.breakers, value numeric, reason text, at timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if b.cooldown is null then
    perform risk_private.arm(b, value, reason, at);
    return;
  end if;
  update risk_private.breakers as k set
    state = 'COOLDOWN', cooling_since = at, is_manual = false
  where k.breaker_id = b.breaker_id and k.tripped_at = b.tripped_at
  returning k.* into b;
  if not found then
    return;
  end if;
  perform risk_private.note_breaker(b, 'COOLDOWN', value, null, reason, null, at);
end
$$;
comment on function risk_private.cool(risk_private.breakers, numeric, text, timestamptz) is
  'Begins the cool-down of a breaker, through which its action holds; without one, arms it.';

-- What the value must stay below while a breaker cools down.
create function risk_private.clear_level(b risk_private.breakers) returns numeric
language sql immutable
return case b.reset_policy when 'timer' then 0.9 * b.threshold else b.threshold end;
comment on function risk_private.clear_level(risk_private.breakers) is
  '0.9 x threshold for those that reset by the timer, so that a value which hovers at the '
  'threshold does not switch trading on and off; else the threshold.';

create function risk_private.describe_trip(
  b risk_private.breakers, o risk_private.observation) returns text
language sql immutable
return case
  when o.error is not null then pg_catalog."left"('the condition failed: ' || o.error, 1000)
  else pg_catalog.format('%s %s >= %s', b.condition,
    pg_catalog.trim_scale(pg_catalog.round(o.worst, 6)), pg_catalog.trim_scale(b.threshold)) end;
comment on function risk_private.describe_trip(
  risk_private.breakers, risk_private.observation) is 'Why a breaker tripped, in words.';

create function risk_private.follow_breaker(
  b risk_private.breakers, o risk_private.observation, day date, may_be_empty boolean,
  at timestamptz)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_level numeric := risk_private.clear_level(b);
  v_is_clear boolean := o.error is null and coalesce(o.value < v_level, may_be_empty)
    and coalesce(o.worst < v_level, true);
begin
  if b.state = 'ARMED' then
    return (o.error is not null or o.worst >= b.threshold) and risk_private.trip(
      b, o.worst, o.worst_at, risk_private.describe_trip(b, o), o.error, false, at);
  elsif b.state = 'COOLDOWN' then
    if not v_is_clear then
      return risk_private.trip(b, coalesce(o.worst, o.value), coalesce(o.worst_at, o.as_of),
        'not clear through the cool-down', o.error, false, at);
    elsif at >= b.cooling_since + b.cooldown then
      perform risk_private.arm(b, o.value, 'the cool-down is over', at);
    end if;
  elsif not b.is_manual and v_is_clear then
    if b.reset_policy = 'timer' then
      perform risk_private.cool(b, o.value, 'the value is clear', at);
    elsif b.reset_policy = 'session' and day is distinct from b.tripped_day then
      perform risk_private.cool(b, o.value, 'a new day is open and the value is clear', at);
    end if;
  end if;
  return false;
end
$$;
comment on function risk_private.follow_breaker(
  risk_private.breakers, risk_private.observation, date, boolean, timestamptz) is
  'Lets a breaker follow what was measured. Returns whether it tripped.';

create function risk_private.trip_breaker(name text, reason text) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  b risk_private.breakers;
begin
  perform risk_private.require_reason(reason);
  b := risk_private.breaker(name);
  if not b.is_manual then
    perform risk_private.trip(b, null, null, reason, null, true, risk_private.clock());
  end if;
  return b.action = 'HALT_AND_CANCEL';
end
$$;
comment on function risk_private.trip_breaker(text, text) is
  'Trips a breaker on behalf of a person. Returns whether open orders are to be cancelled.';

create function risk_private.breaker_place(name text, out scope text, out underlying text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  select s.code, i.symbol into scope, underlying
  from risk_private.breakers as b
  join risk_private.scopes as s on s.scope_id = b.scope_id
  left join risk_private.instruments as i on i.instrument_id = b.underlying_id
  where b.name = breaker_place.name;
end
$$;
comment on function risk_private.breaker_place(text) is
  'The scope and the underlying (NULL: all) that a breaker is about.';

create procedure risk.trip_breaker(name text, reason text)
language plpgsql
as $$
declare
  v_cancels boolean;
  v_place record;
begin
  v_cancels := risk_private.trip_breaker(name, reason);
  commit;
  if v_cancels then
    v_place := risk_private.breaker_place(name);
    call risk_private.cancel_orders(v_place.scope, reason, v_place.underlying, null, false);
  end if;
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.trip_breaker(text, text) is
  'Trips a circuit breaker by hand: its action is in force for every decision that begins after '
  'the first commit, and only a person resets it. HALT_AND_CANCEL also requests the cancel of '
  'every open order. Repeating it changes nothing. Errors: RK400, RK404.';

-- Lock order: for a drawdown the counters of the chain, as for everything that moves equities; then
-- breakers. So whoever evaluates never waits behind a trader.
create function risk_private.reset_breaker(name text, reason text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := risk_private.clock();
  b risk_private.breakers;
  o risk_private.observation;
begin
  perform risk_private.require_reason(reason);
  perform risk_private.lock_chain(k.scope_id) from risk_private.breakers as k
  where k.name = reset_breaker.name and k.condition = 'drawdown';
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.breakers'));
  b := risk_private.breaker(name);
  if b.state = 'ARMED' then
    perform risk_private.fail('RK409', pg_catalog.format('breaker %L is armed', name),
      'argument: name', 'There is nothing to reset.');
  end if;
  if b.condition = 'drawdown' then
    perform risk_private.rebase_peak(b.scope_id);
  else
    o := risk_private.measure(b, v_now);
    if o.error is not null or o.value >= b.threshold then
      perform risk_private.fail('RK409',
        pg_catalog.format('breaker %L cannot be reset: %s', name, coalesce(
          'its condition fails: ' || o.error, pg_catalog.format('%s is %s, the threshold %s',
            b.condition, pg_catalog.trim_scale(o.value), pg_catalog.trim_scale(b.threshold)))),
        'argument: name', 'Wait for a lower value, or give the breaker another threshold first.');
    end if;
  end if;
  perform risk_private.cool(b, o.value, reason, v_now);
end
$$;
comment on function risk_private.reset_breaker(text, text) is 'What risk.reset_breaker does.';

create procedure risk.reset_breaker(name text, reason text)
language plpgsql
as $$
begin
  perform risk_private.reset_breaker(name, reason);
  commit;
end
$$;
comment on procedure risk.reset_breaker(text, text) is
  'Resets a tripped circuit breaker: it is armed at once or, where it has a cooldown, after that; '
  'its action holds until then. Refused while the value still is at or above the threshold, but '
  'for a drawdown, whose peak becomes the present equity. Errors: RK400, RK404, RK409.';

-- 63_breaker_sweep.sql
-- Evaluating all circuit breakers: what the worker does every 250 ms and after each event. One call
-- measures all breakers of a condition; what fails is taken apart until only its own breaker trips.

create function risk_private.observe(
  function_name text, watches risk_private.watch[], at timestamptz)
returns risk_private.observation[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_seen risk_private.observation[];
  v_half integer := pg_catalog.cardinality(watches) / 2;
begin
  begin
    execute pg_catalog.format('select array(select o from risk_private.%I($1, $2) as o)',
      function_name) into v_seen using watches, at;
    if pg_catalog.cardinality(v_seen) <> pg_catalog.cardinality(watches) then
      perform risk_private.fail('RK500', 'a condition must measure each of its breakers once',
        'function: ' || function_name);
    end if;
    return v_seen;
  exception when others then
    if v_half = 0 then
      return array[row((watches[1]).breaker_id, null, null, null, null,
        sqlerrm)::risk_private.observation];
    end if;
  end;
  return risk_private.observe(function_name, watches[1:v_half], at)
    || risk_private.observe(function_name, watches[v_half + 1:], at);
end
$$;
comment on function risk_private.observe(text, risk_private.watch[], timestamptz) is
  'What a condition measures for each breaker; an error only for those that it fails for.';

create function risk_private.watch(
  b risk_private.breakers, seen_xid xid8, seen_at timestamptz)
returns risk_private.watch
language sql immutable
return row(b.breaker_id, b.scope_id, b.underlying_id, b.threshold, b.parameters, b.indicator_id,
  b.instrument_id,
  case when b.state = 'COOLDOWN' then b.cooling_since else b.armed_at end, b.tripped_at,
  seen_xid, seen_at)::risk_private.watch;
comment on function risk_private.watch(risk_private.breakers, xid8, timestamptz) is
  'A breaker as its condition sees it.';

create function risk_private.measure(b risk_private.breakers, at timestamptz)
returns risk_private.observation
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return (risk_private.observe(
    (risk_private.breaker_condition(b.condition)).function_name,
    array[risk_private.watch(
      b, pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()), at)],
    at))[1];
end
$$;
comment on function risk_private.measure(risk_private.breakers, timestamptz) is
  'What one breaker measures at this moment.';

create function risk_private.evaluate_condition(
  condition risk_private.breaker_conditions, at timestamptz) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_xid xid8 := pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot());
  v_last risk_private.breaker_sweeps;
  v_day date := (select c.trading_date from risk_private.trading_calendar as c);
  v_seen risk_private.observation[];
  v_change record;
  v_tripped integer := 0;
begin
  select w.* into v_last from risk_private.breaker_sweeps as w
  where w.condition = evaluate_condition.condition.condition;
  v_seen := risk_private.observe(condition.function_name, array(
    select risk_private.watch(b, coalesce(v_last.seen_xid, '0'), v_last.swept_at)
    from risk_private.breakers as b
    where b.condition = evaluate_condition.condition.condition order by b.breaker_id), at);
  update risk_private.breaker_readings as r set value = o.value
  from pg_catalog.unnest(v_seen) as o
  where r.breaker_id = o.breaker_id and r.value is distinct from o.value;
  for v_change in
    select b, o
    from pg_catalog.unnest(v_seen) as o
    join risk_private.breakers as b on b.breaker_id = o.breaker_id
    where case b.state
      when 'ARMED' then o.error is not null or o.worst >= b.threshold
      when 'TRIPPED' then b.reset_policy <> 'manual' and not b.is_manual
      else true end
    order by b.breaker_id
  loop
    v_tripped := v_tripped + risk_private.follow_breaker(
      v_change.b, v_change.o, v_day, condition.may_be_empty, at)::integer;
  end loop;
  insert into risk_private.breaker_sweeps as w (condition, swept_at, seen_xid)
  values (condition.condition, at, v_xid)
  on conflict on constraint breaker_sweeps_pkey do update set
    swept_at = excluded.swept_at, seen_xid = excluded.seen_xid;
  return v_tripped;
end
$$;
comment on function risk_private.evaluate_condition(
  risk_private.breaker_conditions, timestamptz) is
  'Measures all breakers of a condition and lets them follow. Returns how many tripped.';

-- Lock order: the breakers, their rows among the trading states. One evaluation at a time.
create function risk_private.evaluate_breakers() returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz;
  v_condition risk_private.breaker_conditions;
  v_tripped integer := 0;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.breakers'));
  v_at := risk_private.clock();
  for v_condition in
    select c.* from risk_private.breaker_conditions as c
    where exists (select from risk_private.breakers as b where b.condition = c.condition)
    order by c.position
  loop
    v_tripped := v_tripped + risk_private.evaluate_condition(v_condition, v_at);
  end loop;
  return v_tripped;
end
$$;
comment on function risk_private.evaluate_breakers() is
  'Evaluates every circuit breaker. Returns how many tripped; what happened is in '
  'breaker_events.';

-- Lock order: the lease, then what evaluate_breakers() locks.
create function risk_private.sweep(epoch bigint) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tripped integer;
  v_now timestamptz;
begin
  perform risk_private.require_epoch(epoch);
  v_tripped := risk_private.evaluate_breakers();
  v_now := risk_private.clock();
  if not exists (
    select from risk_private.worker_progress as p
    where p.job = 'forget_ticks' and p.done_until > v_now - interval '1 minute') then
    perform risk_private.forget_ticks();
    insert into risk_private.worker_progress as p (job, done_until)
    values ('forget_ticks', v_now)
    on conflict on constraint worker_progress_pkey do update set done_until = excluded.done_until;
  end if;
  return v_tripped;
end
$$;
comment on function risk_private.sweep(bigint) is
  'Evaluates every circuit breaker for the leading worker. Returns how many tripped. Raises RK409 '
  'when the epoch is over.';

create function risk_private.orders_to_cancel()
returns table (account_id integer, underlying_id integer, reason text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select distinct on (o.account_id, t.underlying_id) o.account_id, t.underlying_id, t.reason
  from risk_private.trading_states as t
  join risk_private.scopes as s on s.is_leaf and s.chain @> array[t.scope_id]
  join risk_private.orders as o on o.account_id = s.scope_id and o.closed_at is null
    and o.cancel_requested_at is null
  where t.cancels and (t.underlying_id = 0 or exists (
    select from risk_private.instruments as i
    where i.instrument_id = any (o.instrument_ids) and i.underlying_id = t.underlying_id))
  order by o.account_id, t.underlying_id;
end
$$;
comment on function risk_private.orders_to_cancel() is
  'Accounts with open orders that a halt cancels and nobody has asked to cancel yet.';

-- Lock order: the lease, then the account, then its orders.
create function risk_private.cancel_halted_orders(epoch bigint, account_id integer) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_asked integer := 0;
  v_place record;
begin
  perform risk_private.require_epoch(epoch);
  perform from risk_private.counters as c
  where c.counter_id = risk_private.counter_id(account_id) for no key update skip locked;
  if not found then
    return 0;
  end if;
  for v_place in
    select c.* from risk_private.orders_to_cancel() as c
    where c.account_id = cancel_halted_orders.account_id
  loop
    v_asked := v_asked + risk_private.ask_cancels(
      account_id, v_place.reason, v_place.underlying_id, null, false);
  end loop;
  return v_asked;
end
$$;
comment on function risk_private.cancel_halted_orders(bigint, integer) is
  'Requests the cancel of an account''s open orders that a halt cancels and nobody has asked for; '
  'returns how many, 0 while somebody else holds the account''s lock. Raises RK409 when the epoch '
  'is over.';

create function risk_private.accounts_halted(epoch bigint) returns integer[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.require_epoch(epoch);
  return array(select distinct c.account_id from risk_private.orders_to_cancel() as c order by 1);
end
$$;
comment on function risk_private.accounts_halted(bigint) is
  'Accounts with open orders that a halt cancels and nobody has asked for yet. Raises RK409 when '
  'the epoch is over.';

create procedure risk_private.cancel_halted(epoch bigint)
language plpgsql
as $$
declare
  v_account_id integer;
begin
  foreach v_account_id in array risk_private.accounts_halted(epoch) loop
    perform risk_private.cancel_halted_orders(epoch, v_account_id);
    commit;
  end loop;
end
$$;
comment on procedure risk_private.cancel_halted(bigint) is
  'What the leading worker calls after each sweep: requests the cancel of open orders in halted '
  'scopes that have no request yet, account by account. Accounts that somebody has locked are '
  'left to the next time. Raises RK409 when the epoch is over.';

-- 64_worker_heartbeat.sql
-- The heartbeat: proof that the circuit breakers were evaluated a moment ago, on inputs that were
-- not too old. Without it decisions refuse whatever does not reduce.

create function risk_private.max_indicator_age(chain integer[]) returns double precision
language sql stable
return coalesce((
  select coalesce(min(nullif(s.value::double precision, 0)), 0)
  from risk_private.settings as s
  where s.name = 'max_indicator_age' and (s.scope_id is null or s.scope_id = any (chain))
  having count(*) > 0), 60);
comment on function risk_private.max_indicator_age(integer[]) is
  'How many seconds an indicator may be old for the breakers of a chain''s first scope: the '
  'strictest setting but 0; 0: any age.';

create function risk_private.stale_watched(at timestamptz) returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_strictest double precision := coalesce((
    select min(s.value::double precision) from risk_private.settings as s
    where s.name = 'max_indicator_age' and s.value::double precision > 0), 60);
begin
  return (
    select min(coalesce(w.as_of, '-infinity'))
    from (
      select i.as_of
      from risk_private.indicators as i
      join risk_private.breakers as b on b.indicator_id = i.indicator_id
      join risk_private.scopes as s on s.scope_id = b.scope_id
      where b.action <> 'NOTIFY' and not risk_private.is_fresh(i.as_of, v_strictest, at)
        and not risk_private.is_fresh(i.as_of, risk_private.max_indicator_age(s.chain), at)
      union all
      select m.as_of
      from risk_private.breakers as b
      join risk_private.scopes as s on s.scope_id = b.scope_id
      left join risk_private.marks as m on m.instrument_id = b.instrument_id
      where b.action <> 'NOTIFY' and b.instrument_id is not null
        and not risk_private.is_fresh(m.as_of, s.max_mark_age, at)
    ) as w);
end
$$;
comment on function risk_private.stale_watched(timestamptz) is
  'Data time of the oldest indicator or mark that a breaker watches and that is older than it may '
  'be, -infinity for one that is missing; NULL where none is.';

create function risk_private.stale_held(at timestamptz) returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_strictest double precision := (
    select min(nullif(s.max_mark_age, 0)) from risk_private.scopes as s where s.is_leaf);
  v_suspects integer[];
begin
  if v_strictest is null or not exists (
    select from risk_private.breakers as b
    where b.condition in ('daily_loss', 'drawdown', 'limit_breach') and b.action <> 'NOTIFY') then
    return null;
  end if;
  v_suspects := array(
    select i.instrument_id
    from risk_private.instruments as i
    left join risk_private.marks as m on m.instrument_id = i.instrument_id
    where not risk_private.is_fresh(m.as_of, v_strictest, at));
  if v_suspects = '{}' then
    return null;
  end if;
  return (
    select min(coalesce(m.as_of, '-infinity'))
    from risk_private.instruments as i
    cross join lateral (values (i.instrument_id), (i.underlying_id)) as n (needed_id)
    join risk_private.positions as p on p.instrument_id = i.instrument_id
    join risk_private.scopes as s on s.scope_id = p.account_id
    left join risk_private.marks as m on m.instrument_id = n.needed_id
    where n.needed_id = any (v_suspects)
      and (p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0)
      and not risk_private.is_fresh(m.as_of, s.max_mark_age, at)
      and exists (
        select from risk_private.breakers as b
        where b.scope_id = any (s.chain) and b.underlying_id in (0, i.underlying_id)
          and b.condition in ('daily_loss', 'drawdown', 'limit_breach')
          and b.action <> 'NOTIFY'));
end
$$;
comment on function risk_private.stale_held(timestamptz) is
  'Data time of the oldest mark that a breaker needs to value what is held or in open orders, and '
  'that is older than the account''s max_mark_age, -infinity for one that is missing; NULL where '
  'none is.';

create function risk_private.stale_rates(at timestamptz) returns timestamptz
language sql stable
set search_path = pg_catalog, pg_temp
return (
  select min(f.as_of)
  from risk_private.fx_rates as f
  join risk_private.cash_balances as b on b.currency = f.currency
  join risk_private.scopes as s on s.scope_id = b.account_id
  where f.currency <> risk_private.base_currency() and (b.amount <> 0 or b.cost <> 0)
    and not risk_private.is_fresh(f.as_of, s.max_mark_age, at)
    and exists (
      select from risk_private.breakers as k
      where k.scope_id = any (s.chain) and k.condition in ('daily_loss', 'drawdown')
        and k.action <> 'NOTIFY'));
comment on function risk_private.stale_rates(timestamptz) is
  'Data time of the oldest exchange rate that a breaker needs to value money in its currency, and '
  'that is older than the account''s max_mark_age; NULL where none is.';

create function risk_private.unmeasured() returns timestamptz
language sql stable
set search_path = pg_catalog, pg_temp
return (
  select '-infinity'::timestamptz where exists (
    select from risk_private.breakers as b
    join risk_private.breaker_readings as r on r.breaker_id = b.breaker_id
    join risk_private.breaker_conditions as c on c.condition = b.condition
    where b.state = 'ARMED' and b.action <> 'NOTIFY' and r.value is null and not c.may_be_empty));
comment on function risk_private.unmeasured() is
  '-infinity where an armed breaker with an action had nothing to measure, such as an equity that '
  'is not known: it would not see a breach. NULL where each has.';

create function risk_private.stale_values(at timestamptz) returns timestamptz
language sql stable
return (
  select min(m.noted_at) from risk_private.moved_marks as m
  where m.settles_at is null and m.noted_at < at - interval '1 second');
comment on function risk_private.stale_values(timestamptz) is
  'When the oldest marks moved that positions should have followed, a second later; NULL where '
  'they have.';

create function risk_private.inputs_as_of(at timestamptz) returns timestamptz
language sql stable
return coalesce(least(
  risk_private.stale_watched(at), risk_private.stale_held(at), risk_private.stale_rates(at),
  risk_private.stale_values(at), risk_private.unmeasured()), at);
comment on function risk_private.inputs_as_of(timestamptz) is
  'How old the data are that an evaluation at that moment goes by: that moment itself where every '
  'input that a breaker with an action needs is there, as fresh as the settings demand, and '
  'positions have followed the marks, else the data time of the oldest.';

-- Lock order: the lease, then the heartbeat.
create function risk_private.beat(epoch bigint, evaluated_at timestamptz, inputs_as_of timestamptz)
returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := risk_private.clock();
begin
  perform risk_private.require_epoch(epoch);
  if (evaluated_at <= v_now) is not true then
    perform risk_private.fail('RK400', 'a heartbeat must not be from the future',
      pg_catalog.format('argument: evaluated_at %s, the clock: %s', evaluated_at, v_now));
  end if;
  update risk_private.heartbeat as h set
    beat_at = evaluated_at, inputs_as_of = beat.inputs_as_of
  where (h.beat_at > evaluated_at and h.beat_at <= v_now) is not true;
  return found;
end
$$;
comment on function risk_private.beat(bigint, timestamptz, timestamptz) is
  'Notes when an evaluation began that is now complete, and how old its inputs were. Never goes '
  'back, but for a beat that a clock running ahead left behind. Raises RK400 for one from the '
  'future, RK409 when the epoch is over.';

-- Lock order: the lease, then what the sweep locks, then the heartbeat.
create function risk_private.evaluate(epoch bigint) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := risk_private.clock();
  v_tripped integer;
begin
  perform risk_private.require_epoch(epoch);
  -- A trip waits for the disk: it turns this on again. A heartbeat need not.
  perform pg_catalog.set_config('synchronous_commit', 'off', true);
  v_tripped := risk_private.sweep(epoch);
  perform risk_private.beat(epoch, v_at, risk_private.inputs_as_of(v_at));
  return v_tripped;
end
$$;
comment on function risk_private.evaluate(bigint) is
  'Evaluates every circuit breaker and gives the heartbeat, in one transaction: no heartbeat '
  'without an evaluation. Returns how many breakers tripped. Raises RK409 when the epoch is over.';

-- 64_worker_jobs.sql
-- What the worker does beside evaluating breakers: rolls the day, tells of limits that lapse or
-- come near, recounts, refreshes materialized views. Every change checks the epoch.

create index limits_expiry_idx on risk_private.limits (valid_until) where valid_until < 'infinity';

create table risk_private.worker_progress (
  job text primary key,
  done_until timestamptz not null
);
comment on table risk_private.worker_progress is
  'Up to which moment a job of the worker has looked; kept from leader to leader.';

create table risk_private.limit_warnings (
  limit_key text primary key,
  warned_at timestamptz not null
);
comment on table risk_private.limit_warnings is
  'Limits whose warning was alerted and is not armed again yet.';

-- Lock order: the lease.
create function risk_private.has_unfollowed(epoch bigint) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.require_epoch(epoch);
  perform pg_catalog.set_config('synchronous_commit', 'off', true);
  return exists (select from risk_private.moved_marks);
end
$$;
comment on function risk_private.has_unfollowed(bigint) is
  'Whether positions have yet to follow marks that moved: then the leader calls risk.revalue. '
  'Raises RK409 when the epoch is over.';

create function risk_private.due_day() returns date
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at text := coalesce(
    (select s.value from risk_private.settings as s
     where s.name = 'open_day_at' and s.scope_id is null), '00:00');
  v_zone text := coalesce(
    (select s.value from risk_private.settings as s
     where s.name = 'exchange_time_zone' and s.scope_id is null), 'America/New_York');
  v_day date;
begin
  if v_at = 'off' then
    return null;
  end if;
  v_day := ((risk_private.clock() at time zone v_zone) - v_at::interval)::date;
  return (
    select v_day from risk_private.trading_calendar as c
    where c.trading_date < v_day and pg_catalog.date_part('isodow', v_day) < 6
      and c.opened_at < (v_day + v_at::time) at time zone v_zone);
end
$$;
comment on function risk_private.due_day() is
  'The day that is to be opened now: a weekday whose time open_day_at (of the exchange''s clock) '
  'has come since the last open_day. NULL: none, or nobody has opened a first day.';

-- Lock order: the lease, then the calendar.
create function risk_private.begin_due_day(epoch bigint, out day date, out account_ids integer[])
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.require_epoch(epoch);
  day := risk_private.due_day();
  if day is not null then
    account_ids := risk_private.set_trading_date(day, null);
    return;
  end if;
  select c.trading_date into day from risk_private.trading_calendar as c;
  account_ids := array(
    select s.scope_id from risk_private.scopes as s
    where s.is_leaf and s.trading_day < begin_due_day.day order by s.scope_id);
end
$$;
comment on function risk_private.begin_due_day(bigint) is
  'Moves the trading date when a day is due. Returns the day and the accounts that have yet to '
  'follow, those of a roll that was interrupted too. Raises RK409 when the epoch is over.';

-- Lock order: the lease, then the account, then its chain's counters ascending.
create function risk_private.roll_account_at(epoch bigint, account_id integer, day date)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.require_epoch(epoch);
  perform risk_private.roll_account(account_id, day);
end
$$;
comment on function risk_private.roll_account_at(bigint, integer, date) is
  'Takes an account into a trading day. Raises RK409 when the epoch is over.';

-- Lock order: the lease, then progress.
create function risk_private.tell_lapsed_limits(epoch bigint) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_until timestamptz := risk_private.clock();
  v_since timestamptz;
  v_payloads jsonb[];
begin
  perform risk_private.require_epoch(epoch);
  select p.done_until into v_since
  from risk_private.worker_progress as p where p.job = 'tell_lapsed_limits' for update;
  insert into risk_private.worker_progress as p (job, done_until)
  values ('tell_lapsed_limits', v_until)
  on conflict on constraint worker_progress_pkey do update set done_until = excluded.done_until;
  v_payloads := array(
    select pg_catalog.jsonb_build_object(
      'scope', s.code, 'limit_type', l.limit_type,
      'dimension', risk_private.dimension_name(l.dimension, l.key_id),
      'limit_value', l.amount::text, 'version', l.version, 'valid_until', l.valid_until,
      'limit_value_now', (
        select f.amount::text from risk_private.limits_in_force as f
        where f.scope_id = l.scope_id and f.limit_type = l.limit_type
          and f.dimension = l.dimension and f.key_id = l.key_id))
    from risk_private.limits as l
    join risk_private.scopes as s on s.scope_id = l.scope_id
    where l.valid_until > v_since and l.valid_until <= v_until and l.amount is not null
      and not exists (
        select from risk_private.limits as k
        where k.scope_id = l.scope_id and k.limit_type = l.limit_type
          and k.dimension = l.dimension and k.key_id = l.key_id and k.version > l.version
          and k.valid_from < l.valid_until and k.valid_until >= l.valid_until)
    order by l.valid_until, l.limit_id);
  perform risk_private.alerts('limit_lapsed', v_payloads);
  return pg_catalog.cardinality(v_payloads);
end
$$;
comment on function risk_private.tell_lapsed_limits(bigint) is
  'Alerts every temporary limit whose time ended since the last look while it was in force, with '
  'the amount that holds now (null: none). Returns how many. Raises RK409 when the epoch is over.';

-- Lock order: the lease, then warnings.
create function risk_private.tell_warnings(epoch bigint) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_payloads jsonb[];
begin
  perform risk_private.require_epoch(epoch);
  with levels as (
    select l.warn_pct, l.version, pg_catalog.concat_ws(pg_catalog.chr(31), l.scope, l.limit_type,
      's' || l.symbol, 'u' || l.underlying, 'k' || l.sector) as limit_key
    from risk.limits as l
  ), keyed as (
    select u.*, pg_catalog.concat_ws(pg_catalog.chr(31), u.scope, u.limit_type,
      's' || u.symbol, 'u' || u.underlying, 'k' || u.sector) as limit_key
    from risk.limit_utilization as u
  ), used as materialized (
    select k.*, l.warn_pct
    from keyed as k join levels as l on l.limit_key = k.limit_key and l.version = k.version
  ), armed as (
    delete from risk_private.limit_warnings as w
    where not exists (
      select from used as u
      where u.limit_key = w.limit_key
        and (u.utilization_pct < u.warn_pct - 5 and u.status = 'OK') is not true)
  ), crossed as (
    insert into risk_private.limit_warnings (limit_key, warned_at)
    select u.limit_key, u.as_of from used as u where u.status in ('WARN', 'BREACH')
    on conflict on constraint limit_warnings_pkey do nothing
    returning limit_warnings.limit_key
  )
  select coalesce(pg_catalog.array_agg(pg_catalog.jsonb_build_object(
    'scope', u.scope, 'limit_type', u.limit_type, 'symbol', u.symbol, 'underlying', u.underlying,
    'sector', u.sector, 'limit_value', u.limit_value::text, 'worst_case', u.worst_case::text,
    'utilization_pct', u.utilization_pct::text, 'warn_pct', u.warn_pct::text,
    'status', u.status, 'as_of', u.as_of) order by u.limit_key), '{}') into v_payloads
  from used as u join crossed as c on c.limit_key = u.limit_key;
  perform risk_private.alerts('limit_warning', v_payloads);
  return pg_catalog.cardinality(v_payloads);
end
$$;
comment on function risk_private.tell_warnings(bigint) is
  'Alerts every limit whose use has reached warn_pct, once; again only after the use has been '
  'below warn_pct - 5. Returns how many. Raises RK409 when the epoch is over.';

create type risk_private.recounted as enum (
  'positions', 'counters', 'obligations', 'payoffs', 'exposures', 'money');
comment on type risk_private.recounted is 'What is recounted, part by part.';

create function risk_private.parts_to_recount() returns text[]
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select pg_catalog.enum_range(null::risk_private.recounted)::text[];
end;
comment on function risk_private.parts_to_recount() is 'What reconcile() can recount.';

-- Part by part: as long as a snapshot is in use, the rows that orders update keep all versions.
-- Lock order: the lease, then trading states. The count is one statement on one snapshot.
create function risk_private.reconcile(epoch bigint, part risk_private.recounted)
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_drift record;
  v_count integer := 0;
begin
  for v_drift in
    select s.scope_id, count(*)::integer as differences,
      (pg_catalog.array_agg(pg_catalog.jsonb_build_object('scope', s.code,
        'dimension', d.dimension, 'measure', d.measure, 'stored', d.stored,
        'expected', d.expected)))[1:20] as details,
      pg_catalog.min(pg_catalog.format('%s of %s is %s, expected %s', d.measure, d.dimension,
        d.stored, d.expected)) as example
    from risk_private.differences(part) as d
    join risk_private.scopes as s on s.scope_id = d.scope_id
    group by s.scope_id
    order by s.scope_id
  loop
    perform risk_private.require_epoch(epoch);
    v_count := v_count + v_drift.differences;
    if risk_private.trip_scope(v_drift.scope_id, 'HALTED',
      'counters differ from orders and fills: ' || v_drift.example) then
      perform risk_private.alerts('drift', v_drift.details);
    end if;
  end loop;
  return v_count;
end
$$;
comment on function risk_private.reconcile(bigint, risk_private.recounted) is
  'Recounts one part of what is summed from what it summarises. Halts each scope with a difference '
  'and alerts up to 20 of its differences, when it was not halted already; repairs nothing. '
  'Returns the number of differences. Raises RK409 when the epoch is over.';

create function risk_private.views_to_refresh() returns text[]
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select array(
    select c.relname::text from pg_class as c
    where c.relnamespace = 'risk'::regnamespace and c.relkind = 'm' order by c.relname);
end;
comment on function risk_private.views_to_refresh() is 'The materialized views of risk.';

-- Lock order: the lease, then the view.
create function risk_private.refresh_view(epoch bigint, view_name text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.require_epoch(epoch);
  perform risk_private.refresh_materialized(view_name);
end
$$;
comment on function risk_private.refresh_view(bigint, text) is
  'Refreshes a materialized view; readers go on meanwhile. Raises RK404 for another name, RK409 '
  'when the epoch is over.';

-- 64_worker_lease.sql
-- Who leads among the workers: one row, taken over when it is not renewed in time. Its epoch is
-- the fencing token: every effect of a worker locks the row at its own epoch and fails when that
-- is over, so a worker that was stopped and goes on later can do nothing. An advisory lock would
-- not do: a stopped leader keeps it.

create table risk_private.worker_lease (
  epoch bigint primary key,
  holder text,
  backend_pids integer[] not null default '{}',
  expires_at timestamptz not null default '-infinity',
  dozes boolean not null default false,
  singleton boolean not null default true unique check (singleton)
);
insert into risk_private.worker_lease (epoch) values (0);
comment on table risk_private.worker_lease is
  'Which worker leads. The epoch is the key, so taking over waits for the effects that hold the '
  'row for key share, and renewing does not.';
comment on column risk_private.worker_lease.epoch is 'Counts the takeovers.';
comment on column risk_private.worker_lease.holder is 'Who leads; NULL: nobody.';
comment on column risk_private.worker_lease.backend_pids is
  'Its connections, which whoever takes over terminates.';
comment on column risk_private.worker_lease.expires_at is
  'From then on another worker may take over.';
comment on column risk_private.worker_lease.dozes is
  'Whether the leader has stopped asking for messages: then every message notifies it.';

create function risk_private.lease_time() returns interval
language sql immutable
return interval '1.5 seconds';
comment on function risk_private.lease_time() is 'How long a lease holds when it is not renewed.';

-- An expiry that no renewal could have set comes from a clock that jumped back since.
create function risk_private.lease_is_over(expires_at timestamptz, at timestamptz)
returns boolean
language sql stable
return expires_at <= at or expires_at > at + 2 * risk_private.lease_time();
comment on function risk_private.lease_is_over(timestamptz, timestamptz) is
  'Whether another worker may take the lease.';

create function risk_private.lease(
  out epoch bigint, out holder text, out backend_pids integer[], out is_over boolean)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  select l.epoch, l.holder, l.backend_pids,
    risk_private.lease_is_over(l.expires_at, risk_private.clock())
  into lease.epoch, lease.holder, lease.backend_pids, lease.is_over
  from risk_private.worker_lease as l;
end
$$;
comment on function risk_private.lease() is 'Who leads now, and whether the lease is over.';

create table risk_private.known_server (
  singleton boolean primary key default true check (singleton),
  identity text
);
insert into risk_private.known_server default values;
comment on table risk_private.known_server is
  'The database cluster and the timeline of its log that a worker led on last; NULL: none has yet.';

-- Lock order: the caller holds the lease; then the server, then trading states.
create function risk_private.halt_restored() returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_identity text := (
    select c.system_identifier || '/'
      || "left"(pg_walfile_name(pg_current_wal_lsn()), 8)
    from pg_control_system() as c);
  v_known text;
begin
  select k.identity into v_known from risk_private.known_server as k for no key update;
  if v_known = v_identity then
    return false;
  end if;
  update risk_private.known_server as k set identity = v_identity;
  if v_known is not null then
    perform risk_private.trip_scope(s.scope_id, 'HALTED', 'the server was restored or failed over: '
      'compare open orders, executions and positions with the broker, then set it ACTIVE')
    from risk_private.scopes as s where s.parent_id is null order by s.scope_id;
  end if;
  return v_known is not null;
end
$$;
comment on function risk_private.halt_restored() is
  'Halts every firm where this is another cluster or timeline than the last leader''s: the last '
  'decisions and fills may be missing. Returns whether it did.';

-- Lock order: the lease, then the server, then trading states. Effects of the old leader that are
-- under way end first.
create function risk_private.take_lease_at(old_epoch bigint, holder text, backend_pids integer[])
returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_epoch bigint;
begin
  perform pg_catalog.set_config('lock_timeout', '1s', true);
  update risk_private.worker_lease as l set
    epoch = l.epoch + 1, holder = take_lease_at.holder, backend_pids = take_lease_at.backend_pids,
    expires_at = risk_private.clock() + risk_private.lease_time(), dozes = false
  where l.epoch = old_epoch
    and risk_private.lease_is_over(l.expires_at, risk_private.clock())
  returning l.epoch into v_epoch;
  if found then
    perform risk_private.halt_restored();
  end if;
  return v_epoch;
end
$$;
comment on function risk_private.take_lease_at(bigint, text, integer[]) is
  'Takes the lease if it is still over and nobody else took it: the new epoch, else NULL. Halts '
  'every firm first where the server was restored or failed over.';

create function risk_private.terminate_worker(backend_pids integer[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_catalog.pg_terminate_backend(a.pid)
  from pg_catalog.pg_stat_activity as a
  where a.pid = any (backend_pids) and a.datname = pg_catalog.current_database()
    and a.application_name = 'pgrisk-worker' and a.pid <> pg_catalog.pg_backend_pid();
exception when insufficient_privilege then
  raise warning 'the old leader''s connections are of another login and stay: they can do nothing '
    'with its epoch, but what they have begun is waited for'
    using hint = 'grant pg_signal_backend to the login of this worker.';
end
$$;
comment on function risk_private.terminate_worker(integer[]) is
  'Ends the connections of a worker, with the rights of the caller. A process number that another '
  'program got since is left alone.';

create function risk_private.take_lease(holder text, backend_pids integer[]) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old record;
begin
  v_old := risk_private.lease();
  if v_old.is_over is not true then
    return null;
  end if;
  if v_old.holder is not null then
    perform risk_private.terminate_worker(v_old.backend_pids);
  end if;
  return risk_private.take_lease_at(v_old.epoch, holder, backend_pids);
end
$$;
comment on function risk_private.take_lease(text, integer[]) is
  'Takes over a lease that is over, terminating the old leader''s connections: the epoch to work '
  'with. NULL: another worker leads. Fails with 55P03 where one of those connections stays.';

-- Lock order: the lease; held for key share to the end of the transaction.
create function risk_private.require_epoch(epoch bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from risk_private.worker_lease as l where l.epoch = require_epoch.epoch for key share;
  if not found then
    perform risk_private.fail('RK409',
      pg_catalog.format('epoch %s is over: another worker leads', coalesce(epoch::text, 'null')),
      'argument: epoch', 'Take the lease again before doing anything.');
  end if;
end
$$;
comment on function risk_private.require_epoch(bigint) is
  'Raises RK409 unless that epoch is the present one; nobody can take over before the '
  'transaction ends.';

-- Lock order: the lease.
create function risk_private.keep_lease(
  epoch bigint, backend_pids integer[], dozes boolean default false) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := risk_private.clock();
  v_lease risk_private.worker_lease;
begin
  select l.* into v_lease
  from risk_private.worker_lease as l where l.epoch = keep_lease.epoch;
  if not found then
    perform risk_private.require_epoch(epoch);
  end if;
  if (v_lease.dozes = keep_lease.dozes and v_lease.expires_at
      between v_now + interval '1 second' and v_now + risk_private.lease_time()) is not true then
    perform pg_catalog.set_config('synchronous_commit', 'off', true);
    update risk_private.worker_lease as l set
      expires_at = v_now + risk_private.lease_time(), backend_pids = keep_lease.backend_pids,
      dozes = keep_lease.dozes
    where l.epoch = keep_lease.epoch;
  end if;
end
$$;
comment on function risk_private.keep_lease(bigint, integer[], boolean) is
  'Renews the lease when less than a second of it is left, or the leader begins or ends to doze. '
  'Raises RK409 when the epoch is over.';

create function risk_private.release_lease(epoch bigint) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update risk_private.worker_lease as l set
    holder = null, backend_pids = '{}', expires_at = '-infinity', dozes = false
  where l.epoch = release_lease.epoch;
end
$$;
comment on function risk_private.release_lease(bigint) is
  'Lets another worker lead at once; nothing where the epoch is over.';

-- 64_worker_queues.sql
-- What wakes the worker: the queue risk_events. A message says that something changed; what is
-- judged is always read from the tables, so a message that is lost, doubled or late does no harm:
-- the sweep looks at everything every 250 ms anyway. risk_dead keeps what nobody could handle.

create function risk_private.event(
  kind text, payload jsonb default '{}', wakes boolean default true)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_message jsonb := pg_catalog.jsonb_build_object('kind', kind) || payload;
  v_waiting integer;
begin
  if exists (
    select from pgmq.q_risk_events as q where q.message = v_message and q.read_ct = 0) then
    return;
  end if;
  select count(*) into v_waiting from (select from pgmq.q_risk_events limit 10000) as q;
  if v_waiting >= 10000 then
    return;
  end if;
  perform pgmq.send('risk_events', v_message);
  if wakes or (select l.dozes from risk_private.worker_lease as l) then
    perform pg_catalog.pg_notify('pgrisk_events', '');
  end if;
end
$$;
comment on function risk_private.event(text, jsonb, boolean) is
  'Tells the worker that something changed, in the transaction that changes it: kind, and the keys '
  'of the payload, such as scope. The same message is not sent again while it waits, and none '
  'beyond 10,000. wakes: whether to notify in any case, which costs a lock at commit: for rare '
  'events; others notify a leader that dozes.';

create function risk_private.waiting(
  out has_events boolean, out has_moves boolean, out has_cancels boolean)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  has_events := exists (
    select from pgmq.q_risk_events as q where q.vt <= pg_catalog.clock_timestamp());
  has_moves := exists (
    select from risk_private.moved_marks as m
    where m.settles_at is null
      or m.settles_at <= pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()));
  has_cancels := exists (select from risk_private.trading_states as t where t.cancels);
end
$$;
comment on function risk_private.waiting() is
  'What the leader asks all the time: whether messages wait on risk_events, whether marks have '
  'moved that positions can follow now, and whether a halt cancels open orders.';

-- Lock order: the lease, then messages.
create function risk_private.read_events(epoch bigint, quantity integer)
returns table (msg_id bigint, read_count integer, message jsonb)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.require_epoch(epoch);
  perform pg_catalog.set_config('synchronous_commit', 'off', true);
  return query
  select m.msg_id, m.read_ct::integer, m.message
  from pgmq.read('risk_events', 1, quantity) as m
  order by m.msg_id;
end
$$;
comment on function risk_private.read_events(bigint, integer) is
  'The next messages on risk_events, oldest first. They come again after a second unless they are '
  'handled. Raises RK409 when the epoch is over.';

create function risk_private.check_event(message jsonb) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_catalog.jsonb_typeof(message) is distinct from 'object'
    or pg_catalog.jsonb_typeof(message -> 'kind') is distinct from 'string' then
    perform risk_private.fail('RK400', 'an event must be a JSON object with a kind',
      'message: ' || coalesce(message::text, 'null'));
  end if;
  if message ->> 'kind' not in ('breaker', 'fill', 'indicator', 'limit', 'marks', 'state') then
    perform risk_private.fail('RK400',
      pg_catalog.format('unknown kind of event %L', message ->> 'kind'),
      'message: ' || message::text,
      'One of breaker, fill, indicator, limit, marks, state.');
  end if;
  if message ? 'scope' then
    perform risk_private.scope(message ->> 'scope');
  end if;
end
$$;
comment on function risk_private.check_event(jsonb) is
  'Raises RK400 for a malformed message or unknown kind, RK404 for an unknown scope.';

-- Lock order: the lease, then what the evaluation locks, then messages.
create function risk_private.handle_events(epoch bigint, msg_ids bigint[]) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tripped integer;
begin
  perform risk_private.require_epoch(epoch);
  perform risk_private.check_event(q.message)
  from pgmq.q_risk_events as q where q.msg_id = any (msg_ids);
  v_tripped := risk_private.evaluate(epoch);
  perform pgmq.delete('risk_events', msg_ids);
  return v_tripped;
end
$$;
comment on function risk_private.handle_events(bigint, bigint[]) is
  'Evaluates the circuit breakers and takes those messages off risk_events, in one transaction. '
  'Returns how many tripped. Raises RK400 or RK404 for a bad message, RK409 when the epoch is '
  'over.';

create function risk_private.event_scopes(message jsonb) returns integer[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select s.scope_id from risk_private.scopes as s
    where s.code = message ->> 'scope'
      or s.parent_id is null and not exists (
        select from risk_private.scopes as k where k.code = message ->> 'scope'));
end
$$;
comment on function risk_private.event_scopes(jsonb) is
  'The scope that a message names; every firm where it names none that exists.';

-- Lock order: the lease, then trading states, then messages.
create function risk_private.bury_event(epoch bigint, message_id bigint, error text, trips boolean)
returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_message record;
  v_scope_id integer;
begin
  perform risk_private.require_epoch(epoch);
  select q.message, q.read_ct, q.enqueued_at into v_message
  from pgmq.q_risk_events as q where q.msg_id = bury_event.message_id for update;
  if not found then
    return false;
  end if;
  perform pgmq.send('risk_dead', pg_catalog.jsonb_build_object(
    'queue', 'risk_events', 'msg_id', message_id, 'message', v_message.message,
    'error', pg_catalog."left"(error, 1000), 'reads', v_message.read_ct,
    'enqueued_at', v_message.enqueued_at, 'buried_at', risk_private.clock()));
  perform pgmq.delete('risk_events', message_id);
  if trips then
    foreach v_scope_id in array risk_private.event_scopes(v_message.message) loop
      perform risk_private.trip_scope(v_scope_id, 'REDUCE_ONLY',
        'an event could not be handled: ' || pg_catalog."left"(error, 500));
    end loop;
  end if;
  perform risk_private.alert('dead_letter', pg_catalog.jsonb_build_object(
    'msg_id', message_id, 'error', pg_catalog."left"(error, 1000), 'trips', trips));
  return true;
end
$$;
comment on function risk_private.bury_event(bigint, bigint, text, boolean) is
  'Moves a message from risk_events to risk_dead with the error, and where trips lets only '
  'reducing orders pass in its scope, or in every firm when it names none. False where the '
  'message is gone. Raises RK409 when the epoch is over.';

create function risk_private.trip_scope(scope_id integer, state text, reason text) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_new boolean;
begin
  insert into risk_private.trading_states as t (
    scope_id, underlying_id, state, reason, changed_by, since)
  values (trip_scope.scope_id, 0, trip_scope.state, pg_catalog."left"(trip_scope.reason, 1000),
    session_user, risk_private.clock())
  on conflict on constraint trading_states_pkey do update set
    state = excluded.state, reason = excluded.reason, changed_by = excluded.changed_by,
    since = excluded.since
    where t.state = 'ACTIVE' or t.state = 'REDUCE_ONLY' and excluded.state = 'HALTED';
  v_is_new := found;
  if v_is_new then
    perform risk_private.alert('scope_tripped', (
      select pg_catalog.jsonb_build_object('scope', s.code, 'state', trip_scope.state,
        'reason', trip_scope.reason)
      from risk_private.scopes as s where s.scope_id = trip_scope.scope_id));
  end if;
  return v_is_new;
end
$$;
comment on function risk_private.trip_scope(integer, text, text) is
  'Sets a scope to REDUCE_ONLY or HALTED because the engine cannot be sure of it, never to '
  'something milder; a person sets it ACTIVE again. Returns whether that changed anything.';

-- Lock order: the lease, then messages.
create function risk_private.bound_queues(epoch bigint, most integer default 100000)
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_queue text;
  v_excess bigint[];
  v_archived integer := 0;
begin
  perform risk_private.require_epoch(epoch);
  foreach v_queue in array array['risk_alerts', 'risk_dead'] loop
    execute pg_catalog.format(
      'select array(select q.msg_id from pgmq.%I as q order by q.msg_id desc offset $1)',
      'q_' || v_queue) into v_excess using most;
    perform pgmq.archive(v_queue, v_excess) where pg_catalog.cardinality(v_excess) > 0;
    v_archived := v_archived + pg_catalog.cardinality(v_excess);
  end loop;
  return v_archived;
end
$$;
comment on function risk_private.bound_queues(bigint, integer) is
  'Archives the oldest messages of risk_alerts and risk_dead beyond so many, which nobody came '
  'for; returns how many. Raises RK409 when the epoch is over.';

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
  i.multiplier, i.lot, i.tick, i.currency, i.allow_negative_price, i.status, i.status_reason,
  i.dividend_yield
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
comment on column risk.instruments.dividend_yield is
  'Of an underlying: the yield its options are valued with, 0.02 for 2 %; NULL: the setting''s.';

create view risk.adjustments as
select
  a.reference, t.old_symbol, t.new_symbol, a.new_shares, a.old_shares, a.strike_change,
  t.old_strike, t.new_strike, t.old_multiplier, t.new_multiplier,
  t.new_units / t.old_units as position_factor, a.reason, a.trading_day, a.adjusted_at,
  a.adjusted_by
from risk_private.adjustments as a
join risk_private.adjusted_instruments as t on t.adjustment_id = a.adjustment_id;
comment on view risk.adjustments is
  'Splits and other changes of terms by risk.adjust_instrument: one row per instrument.';
comment on column risk.adjustments.reference is 'The corporate action.';
comment on column risk.adjustments.old_symbol is 'Symbol of the instrument before.';
comment on column risk.adjustments.new_symbol is 'Its symbol since.';
comment on column risk.adjustments.new_shares is 'Shares given for old_shares; 1 and 1: no split.';
comment on column risk.adjustments.old_shares is 'Shares they were given for.';
comment on column risk.adjustments.strike_change is 'What was added to every strike.';
comment on column risk.adjustments.old_strike is 'Strike of an option before, per share.';
comment on column risk.adjustments.new_strike is 'Its strike since.';
comment on column risk.adjustments.old_multiplier is 'Multiplier before.';
comment on column risk.adjustments.new_multiplier is 'Multiplier since.';
comment on column risk.adjustments.position_factor is 'What positions were multiplied by.';
comment on column risk.adjustments.reason is 'Why.';
comment on column risk.adjustments.trading_day is 'The trading day in which it was done.';
comment on column risk.adjustments.adjusted_at is 'When.';
comment on column risk.adjustments.adjusted_by is 'The login that did it.';

create view risk.marks as
select
  i.symbol, m.price, m.bid, m.ask, m.implied_volatility, m.delta, m.gamma, m.vega, m.theta, m.rho,
  m.as_of, m.volatility_as_of
from risk_private.marks as m
join risk_private.instruments as i on i.instrument_id = m.instrument_id;
comment on view risk.marks is 'The latest mark, quote and Greeks of each instrument, per unit.';
comment on column risk.marks.symbol is 'Symbol of the instrument.';
comment on column risk.marks.price is 'Mark price.';
comment on column risk.marks.bid is 'Best bid; NULL where the feed sent none.';
comment on column risk.marks.ask is 'Best ask; NULL where the feed sent none.';
comment on column risk.marks.implied_volatility is
  'Annual implied volatility, 0.2 for 20 %: the feed''s, else the price''s.';
comment on column risk.marks.delta is 'Price change per 1.00 of the underlying.';
comment on column risk.marks.gamma is 'Change of delta per 1.00 of the underlying.';
comment on column risk.marks.vega is 'Price change per volatility point (0.01).';
comment on column risk.marks.theta is 'Price change per calendar day.';
comment on column risk.marks.rho is 'Price change per 1 % of interest rate.';
comment on column risk.marks.as_of is 'Data time of the mark.';
comment on column risk.marks.volatility_as_of is
  'Data time of the implied volatility: re-marking from a tick of the underlying keeps it.';

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
  and o.underlying_id = k.underlying_id and o.breaker_id = 0
left join lateral (
  select t.* from risk_private.trading_states as t
  where t.scope_id = any (s.chain) and t.underlying_id in (0, k.underlying_id)
  order by pg_catalog.array_position(array['HALTED', 'REDUCE_ONLY', 'ACTIVE'], t.state),
    pg_catalog.array_position(s.chain, t.scope_id), t.underlying_id desc, t.breaker_id
  limit 1
) as e on true;
comment on view risk.trading_states is
  'Trading states: one row per scope, and one per scope and underlying where a state was set, or a '
  'circuit breaker holds, for that underlying on the scope or above it.';
comment on column risk.trading_states.scope is 'Code of the scope.';
comment on column risk.trading_states.underlying is
  'The underlying it is about; NULL: all of them.';
comment on column risk.trading_states.own_state is
  'What a person set on this very scope: ACTIVE, REDUCE_ONLY or HALTED.';
comment on column risk.trading_states.effective_state is
  'What decisions go by: the most severe of the states and the circuit breakers that hold, on the '
  'scope and above it.';
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
  case when o.ratio > 0 then 'buy' else 'sell' end as side, o.quantity * abs(o.ratio) as quantity,
  o.price,
  o.filled_quantity,
  case when o.is_replacement then 0
    else greatest(0, o.quantity * abs(o.ratio) - o.filled_quantity) end as remaining_quantity,
  case when o.is_replacement then 0 else o.open_quantity end as reserved_quantity,
  o.state, o.decided_at, o.time_in_force,
  o.is_combo, o.sent_at, o.acknowledged_at, o.broker_order_id, o.cancel_requested_at,
  o.replace_pending, o.replaces, o.replaced_by
from risk_private.scopes as a
join risk_private.open_legs as o on o.account_id = a.scope_id
join risk_private.instruments as i on i.instrument_id = o.instrument_id
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
  case when coalesce(nullif(f.signed_quantity, 0), c.old_quantity) > 0 then 'buy'
    else 'sell' end as side,
  abs(f.signed_quantity) as quantity, f.price, f.fee,
  f.kind, f.flag, f.trading_day, f.executed_at, f.recorded_at, f.recorded_by, f.status,
  f.realized * f.rate as realized
from risk_private.scopes as a
join risk_private.fills as f on f.account_id = a.scope_id
join risk_private.instruments as i on i.instrument_id = f.instrument_id
left join lateral (
  select x.old_quantity from risk_private.fill_corrections as x
  where x.account_id = f.account_id and x.exec_id = f.exec_id and x.old_quantity <> 0
  order by x.correction_id limit 1
) as c on f.signed_quantity = 0
where a.scope_id = any ((select risk_private.visible_accounts())::integer[])
  and f.recorded_xid is distinct from pg_catalog.pg_current_xact_id_if_assigned()
  and (f.adjustment_id is null or f.signed_quantity <> 0);
comment on view risk.fills is
  'Executions as they stand: fills of orders, and trades that no order explains.';
comment on column risk.fills.account is 'The account.';
comment on column risk.fills.exec_id is
  'The broker''s id of the execution, unique within the account.';
comment on column risk.fills.order_id is 'Id of the order; NULL where no order explains it.';
comment on column risk.fills.client_order_id is 'The order under which it was reported.';
comment on column risk.fills.symbol is 'The instrument.';
comment on column risk.fills.side is 'buy or sell.';
comment on column risk.fills.quantity is 'Executed quantity; 0 once busted.';
comment on column risk.fills.price is 'Price of the execution.';
comment on column risk.fills.fee is 'Fee paid.';
comment on column risk.fills.kind is
  'fill; or, with no order: opening, assignment, exercise, expiry, transfer, cash_in_lieu, '
  'unexplained; adjustment: what a split added to the position.';
comment on column risk.fills.flag is
  'What was wrong with it: over_fill, fill_on_closed_order, fill_on_rejected_order, '
  'unexplained_trade; NULL: nothing.';
comment on column risk.fills.trading_day is 'The trading day to whose traded notional it counts.';
comment on column risk.fills.executed_at is 'When the broker executed it.';
comment on column risk.fills.recorded_at is 'When it was booked.';
comment on column risk.fills.recorded_by is 'The login that reported it.';
comment on column risk.fills.status is
  'BOOKED, BUSTED or CORRECTED; risk.fill_corrections tells what it was before.';
comment on column risk.fills.realized is
  'Profit that it realized at average cost, before its fee, in base currency.';

create view risk.fill_corrections with (security_barrier) as
select
  a.code as account, c.exec_id, c.kind, abs(c.old_quantity) as old_quantity, c.old_price,
  c.old_fee, abs(c.new_quantity) as new_quantity, c.new_price, c.reason, c.trading_day,
  c.late_realized, c.corrected_at, c.corrected_by
from risk_private.scopes as a
join risk_private.fill_corrections as c on c.account_id = a.scope_id
where a.scope_id = any ((select risk_private.visible_accounts())::integer[])
  and c.corrected_xid is distinct from pg_catalog.pg_current_xact_id_if_assigned();
comment on view risk.fill_corrections is 'What became of executions after they were booked.';
comment on column risk.fill_corrections.account is 'The account.';
comment on column risk.fill_corrections.exec_id is 'The execution.';
comment on column risk.fill_corrections.kind is 'bust or correction.';
comment on column risk.fill_corrections.old_quantity is 'Its quantity before.';
comment on column risk.fill_corrections.old_price is 'Its price before.';
comment on column risk.fill_corrections.old_fee is 'Its fee before; a bust gives it back.';
comment on column risk.fill_corrections.new_quantity is 'Its quantity since; 0 for a bust.';
comment on column risk.fill_corrections.new_price is 'Its price since.';
comment on column risk.fill_corrections.reason is 'Why.';
comment on column risk.fill_corrections.trading_day is 'The trading day in which it was done.';
comment on column risk.fill_corrections.late_realized is
  'What it changed of the profit realized on earlier days, in base currency: it counts to this '
  'one.';
comment on column risk.fill_corrections.corrected_at is 'When.';
comment on column risk.fill_corrections.corrected_by is 'The login that reported it.';

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

-- 72_concentration_views.sql
-- Dollar deltas and what they are of the equity, live from positions, open orders and marks, for
-- every scope, whether or not a limit needs them there.

create view risk_private.unit_dollar_deltas as
select
  i.instrument_id, i.sector_id, i.underlying_id, least(m.as_of, u.as_of) as as_of,
  case
    when e.is_expired and m.price is not null then 0
    when i.kind <> 'option' then d.per_delta
    when num_nulls(m.delta, m.gamma, m.vega, m.theta) = 0
    then round(m.delta::numeric, 12) * d.per_delta
  end as dollar_delta
from risk_private.instruments as i
left join risk_private.marks as m on m.instrument_id = i.instrument_id
left join risk_private.marks as u on u.instrument_id = i.underlying_id
left join risk_private.fx_rates as f on f.currency = i.currency
cross join lateral (
  select coalesce(i.expiry < (select risk_private.present_trading_date()), false) as is_expired
  offset 0
) as e
cross join lateral (
  select case when m.price is not null then u.price * i.multiplier * f.rate end as per_delta
  offset 0
) as d;
comment on view risk_private.unit_dollar_deltas is
  'Dollar delta of one unit of every instrument at the present marks, as unit_values has it; NULL '
  'where it is unknown.';

create view risk_private.dollar_deltas as
select s.scope_id, g.*
from risk_private.scopes as s
cross join lateral (
  select array(
    select a.scope_id from risk_private.scopes as a
    where a.is_leaf and a.chain @> array[s.scope_id]) as accounts
  offset 0
) as c
cross join lateral (
  select
    t.dimension, t.key_id,
    sum(t.effect) filter (where t.is_held) as net,
    sum(case when t.is_held then t.effect else greatest(0, t.effect) end) as up,
    sum(case when t.is_held then t.effect else least(0, t.effect) end) as down,
    sum(t.gross) filter (where t.is_held) as gross, sum(t.unknown)::integer as unknown,
    min(t.as_of) as as_of
  from (
    select
      d.dimension, d.key_id, b.client_order_id is null as is_held,
      sum(b.quantity * u.dollar_delta) as effect,
      sum(b.worst_case * abs(u.dollar_delta)) as gross,
      sum(case when u.dollar_delta is null then b.positions else 0 end) as unknown,
      min(u.as_of) as as_of
    from (
      select
        null::integer as account_id, null::text as client_order_id, p.instrument_id,
        sum(p.quantity) as quantity,
        sum(risk_private.worst_case(p.quantity, p.open_buy, p.open_sell)) as worst_case,
        count(*) as positions
      from risk_private.positions as p
      where p.account_id = any (c.accounts)
        and (p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0)
      group by p.instrument_id
      union all
      select
        w.account_id, w.client_order_id, w.instrument_id,
        sign(w.ratio::numeric) * w.open_quantity, 0, 0
      from risk_private.working_legs as w
      where w.open_quantity > 0 and w.account_id = any (c.accounts)
    ) as b
    join risk_private.unit_dollar_deltas as u on u.instrument_id = b.instrument_id
    cross join lateral (
      values (0, 0), (1, u.sector_id), (2, u.underlying_id), (3, u.instrument_id)
    ) as d (dimension, key_id)
    where d.key_id is not null
    group by d.dimension, d.key_id, b.account_id, b.client_order_id
  ) as t
  group by t.dimension, t.key_id
) as g;
comment on view risk_private.dollar_deltas is
  'Dollar deltas over the accounts below every scope, for all (dimension 0) and per sector, '
  'underlying and instrument: held (net), with every order open that raises it filled (up) or '
  'that lowers it (down), each netted over its legs; and of worst cases, none netted (gross). '
  'unknown: pairs of account and instrument that are in none of them.';

create view risk.concentration as
select
  s.code as scope, u.symbol as underlying, e.name as sector,
  c.net as net_exposure, c.up as net_exposure_up, c.down as net_exposure_down, q.equity,
  p.concentration_pct,
  rank() over (
    partition by s.code, c.dimension order by greatest(c.up, -c.down) desc nulls first) as rank,
  c.unknown, c.as_of
from risk_private.dollar_deltas as c
join risk_private.scopes as s on s.scope_id = c.scope_id
join risk_private.equities as q on q.scope_id = c.scope_id
left join risk_private.instruments as u on c.dimension = 2 and u.instrument_id = c.key_id
left join risk_private.sectors as e on c.dimension = 1 and e.sector_id = c.key_id
cross join lateral (
  select case when c.unknown = 0 then risk_private.concentration_pct(
    greatest(c.up, -c.down), q.equity) end as concentration_pct
) as p
where c.dimension in (1, 2) and (select risk_private.is_settled());
comment on view risk.concentration is
  'What every scope has at stake in each underlying, and in each sector, and what that is of its '
  'equity: as limits on concentration_pct compare it, whether or not there are any. Dollar deltas '
  'net over all accounts below, orders over their legs; open orders never net. In base currency.';
comment on column risk.concentration.scope is 'The scope, with all accounts below it.';
comment on column risk.concentration.underlying is 'The underlying; NULL in rows of a sector.';
comment on column risk.concentration.sector is
  'The sector, summed over its underlyings; NULL in rows of an underlying.';
comment on column risk.concentration.net_exposure is
  'Dollar delta of what is held: sum of quantity x multiplier x delta x mark of the underlying x '
  'rate.';
comment on column risk.concentration.net_exposure_up is
  'The same with every open order filled that raises it.';
comment on column risk.concentration.net_exposure_down is
  'The same with every open order filled that lowers it.';
comment on column risk.concentration.equity is 'Equity of the scope, as in risk.pnl.';
comment on column risk.concentration.concentration_pct is
  'The larger of |net_exposure_up| and |net_exposure_down| in % of the equity. Infinity: there is '
  'exposure, and the equity is 0 or less; NULL: the equity, or some dollar delta, is unknown.';
comment on column risk.concentration.rank is
  'Counted from 1 at the largest, among the underlyings (or the sectors) of the scope.';
comment on column risk.concentration.unknown is
  'Pairs of account and instrument, held or in open orders, that are in none of the sums, because '
  'a Greek, a mark or a rate is missing.';
comment on column risk.concentration.as_of is
  'Data time of the oldest mark in it; NULL where there is none.';

-- 72_exposure_views.sql
-- What decisions go by, as it stands.

create view risk.exposure as
select
  s.code as scope, case when d.dimension = 3 then k.symbol end as symbol,
  case when d.dimension = 2 then k.symbol end as underlying, e.name as sector,
  case when d.dimension = 3 then c.quantity end as quantity,
  case when d.dimension = 3 then c.open_buy end as open_buy,
  case when d.dimension = 3 then c.open_sell end as open_sell,
  c.gross_position, c.gross_notional, c.traded_notional, c.open_orders, c.open_positions,
  v.as_of,
  case when d.dimension = 2 then x.delta_up end as delta_up,
  case when d.dimension = 2 then x.delta_down end as delta_down,
  case when d.dimension = 2 then x.gamma_up end as gamma_up,
  case when d.dimension = 2 then x.gamma_down end as gamma_down,
  coalesce(v.gross, n.nothing) as gross_exposure, coalesce(v.net, n.nothing) as net_exposure,
  coalesce(v.up, n.nothing) as net_exposure_up, coalesce(v.down, n.nothing) as net_exposure_down,
  x.dollar_gamma_up, x.dollar_gamma_down, x.vega_up, x.vega_down, x.theta_up, x.theta_down,
  coalesce(v.unknown, 0) as unknown_greeks
from risk_private.counters as c
full join risk_private.exposures as x on x.counter_id = c.counter_id
cross join lateral (
  select coalesce(c.scope_id, x.scope_id) as scope_id,
    coalesce(c.dimension, x.dimension) as dimension, coalesce(c.key_id, x.key_id) as key_id
) as d
join risk_private.scopes as s on s.scope_id = d.scope_id
left join risk_private.instruments as k on d.dimension in (2, 3) and k.instrument_id = d.key_id
left join risk_private.sectors as e on d.dimension = 1 and e.sector_id = d.key_id
left join risk_private.dollar_deltas as v
  on v.scope_id = d.scope_id and v.dimension = d.dimension and v.key_id = d.key_id
cross join lateral (select case when v.scope_id is null then 0 end as nothing) as n
where (select risk_private.is_settled());
comment on view risk.exposure is
  'What decisions go by: one row per scope, and one per scope and sector, underlying or '
  'instrument where a limit needs it. Positions net within an instrument and nowhere else; open '
  'orders never net. Money is in the base currency. What no limit there needs is NULL, but '
  'for gross_exposure and net_exposure, which are live from positions, open orders and marks.';
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
comment on column risk.exposure.delta_up is
  'Delta, in shares, if every open order fills that raises it, a combo netted over its legs here; '
  'of an underlying only, like the next three.';
comment on column risk.exposure.delta_down is 'If every open order fills that lowers it.';
comment on column risk.exposure.gamma_up is
  'Gamma, in shares per 1.00 of the underlying, likewise.';
comment on column risk.exposure.gamma_down is 'Likewise.';
comment on column risk.exposure.gross_exposure is
  'Sum of worst-case quantities x |delta| x mark of the underlying x multiplier x rate. NULL, like '
  'the next three, where none of it is known.';
comment on column risk.exposure.net_exposure is
  'Dollar delta of what is held, netted over everything.';
comment on column risk.exposure.net_exposure_up is
  'The same if every open order fills that raises it.';
comment on column risk.exposure.net_exposure_down is 'If every open order fills that lowers it.';
comment on column risk.exposure.dollar_gamma_up is
  'Change of the dollar delta per 1 % of the underlyings, likewise.';
comment on column risk.exposure.dollar_gamma_down is 'Likewise.';
comment on column risk.exposure.vega_up is 'Money per volatility point, likewise.';
comment on column risk.exposure.vega_down is 'Likewise.';
comment on column risk.exposure.theta_up is 'Money per day, likewise.';
comment on column risk.exposure.theta_down is 'Likewise.';
comment on column risk.exposure.unknown_greeks is
  'Pairs of account and instrument held or in open orders whose Greeks are unknown: none of the '
  'Greeks has them in it, and limits on it let only reducing orders pass.';

-- 72_greek_views.sql
-- Greeks of portfolios, live from positions and marks. Quantities are added up per instrument
-- first, so a firm costs one pass over its positions and one look at each instrument.

create view risk.portfolio_greeks as
select
  s.code as scope, i.symbol as underlying, g.delta, g.gamma, g.vega, g.theta, g.rho,
  g.dollar_delta, g.dollar_gamma, g.unknown, g.as_of
from risk_private.scopes as s
cross join lateral (
  select
    v.underlying_id, sum(v.positions) as positions,
    case when grouping(v.underlying_id) = 0 then sum(v.shares * v.delta) end as delta,
    case when grouping(v.underlying_id) = 0 then sum(v.shares * v.gamma) end as gamma,
    sum(v.shares * v.vega * v.rate) as vega,
    sum(v.shares * v.theta * v.rate) as theta,
    sum(v.shares * v.rho * v.rate) as rho,
    sum(v.shares * v.delta * v.spot * v.rate) as dollar_delta,
    sum(v.shares * v.gamma * v.spot * v.spot * 0.01 * v.rate) as dollar_gamma,
    coalesce(sum(v.positions) filter (where v.delta is null or v.rate is null), 0)::integer
      as unknown,
    min(v.as_of) as as_of
  from (
    select
      h.underlying_id, h.positions, h.shares, f.rate::double precision as rate,
      u.price::double precision as spot, least(m.as_of, u.as_of) as as_of,
      case when k.known then case when h.is_linear then 1 when h.is_expired then 0
        else m.delta end end as delta,
      case when h.is_linear or h.is_expired then 0 when k.known then m.gamma end as gamma,
      case when h.is_linear or h.is_expired then 0 when k.known then m.vega end as vega,
      case when h.is_linear or h.is_expired then 0 when k.known then m.theta end as theta,
      case when h.is_linear or h.is_expired then 0 when k.known then m.rho end as rho
    from (
      select
        c.instrument_id, c.underlying_id, c.currency, q.positions,
        (q.quantity * c.multiplier)::double precision as shares,
        c.kind <> 'option' and not e.is_expired as is_linear, e.is_expired
      from (
        select p.instrument_id, sum(p.quantity) as quantity, count(*) as positions
        from risk_private.positions as p
        where p.quantity <> 0 and p.account_id in (
          select a.scope_id from risk_private.scopes as a
          where a.is_leaf and a.chain @> array[s.scope_id])
        group by p.instrument_id
      ) as q
      join risk_private.instruments as c on c.instrument_id = q.instrument_id
      cross join lateral (
        select coalesce(c.expiry < (select risk_private.present_trading_date()), false)
          as is_expired offset 0
      ) as e
    ) as h
    left join risk_private.marks as m on m.instrument_id = h.instrument_id
    left join risk_private.marks as u on u.instrument_id = h.underlying_id
    left join risk_private.fx_rates as f on f.currency = h.currency
    cross join lateral (
      select h.is_expired or u.price is not null and (
        h.is_linear or num_nulls(m.delta, m.gamma, m.vega, m.theta) = 0) as known
    ) as k
  ) as v
  group by grouping sets ((v.underlying_id), ())
) as g
left join risk_private.instruments as i on i.instrument_id = g.underlying_id
where g.positions > 0 and (select risk_private.is_settled());
comment on view risk.portfolio_greeks is
  'Greeks of what is held, live: one row per scope and underlying, and one total per scope. Each '
  'is the sum of quantity x multiplier x the mark''s Greek; stocks, ETFs, indexes and futures have '
  'a delta of 1, expired instruments have none. Positions net over all accounts below the scope. '
  'Open orders are not in it: risk.exposure has the worst case.';
comment on column risk.portfolio_greeks.scope is 'The scope, with all accounts below it.';
comment on column risk.portfolio_greeks.underlying is 'The underlying; NULL: the total.';
comment on column risk.portfolio_greeks.delta is
  'In shares of the underlying; NULL in totals, since shares of several do not add up.';
comment on column risk.portfolio_greeks.gamma is
  'Change of delta, in shares, per 1.00 of the underlying; NULL in totals.';
comment on column risk.portfolio_greeks.vega is
  'Money per volatility point (0.01), in base currency, like all that follow.';
comment on column risk.portfolio_greeks.theta is 'Money per calendar day.';
comment on column risk.portfolio_greeks.rho is
  'Money per 1 % of interest rate; marks without a rho count as 0.';
comment on column risk.portfolio_greeks.dollar_delta is
  'Net exposure: delta x mark of the underlying x rate.';
comment on column risk.portfolio_greeks.dollar_gamma is
  'Change of dollar_delta per 1 % of the underlying: gamma x mark^2 x 0.01 x rate.';
comment on column risk.portfolio_greeks.unknown is
  'Positions that are not in the sums, because their Greeks, the mark of their underlying or the '
  'rate of their currency are unknown.';
comment on column risk.portfolio_greeks.as_of is
  'Data time of the oldest mark in it; NULL where there is none.';

-- 72_limit_views.sql
-- Views of limits and of what is used of them.

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

create view risk_private.used_by_obligations as
select distinct on (g.limit_id) g.limit_id, g.underlying_id, g.used, g.worst_case
from (
  select distinct on (o.counter_id) l.limit_id, o.key_id as underlying_id,
    greatest(o.held_bull, o.held_bear) as used, greatest(o.bull, o.bear) as worst_case
  from risk_private.obligations as o
  join risk_private.instruments as i on i.instrument_id = o.key_id
  cross join lateral (
    values (0, 0), (1, i.sector_id), (2, i.instrument_id)
  ) as d (dimension, key_id)
  join risk_private.limits_in_force as l
    on l.scope_id = o.scope_id and l.dimension = d.dimension and l.key_id = d.key_id
    and l.limit_type = 'same_side'
  where o.dimension = 2
  order by o.counter_id, l.dimension desc
) as g
order by g.limit_id, g.worst_case desc, g.used desc, g.underlying_id;
comment on view risk_private.used_by_obligations is
  'Use of same_side limits: the larger side. The most specific limit governs an underlying; a '
  'wider one shows the worst of those that it governs.';

create view risk_private.used_by_losses as
select l.limit_id,
  case
    when l.limit_type = 'buying_power' then coalesce(o.held_need, 0) - e.cash
    when o.held_unlimited > 0 then 'Infinity'
    else coalesce(o.held_loss, 0)
  end as used,
  case
    when l.limit_type = 'buying_power' then coalesce(o.cash_need, 0) - e.cash
    when o.unlimited > 0 then 'Infinity'
    else coalesce(o.max_loss, 0)
  end as worst_case
from risk_private.limits_in_force as l
join risk_private.equities as e on e.scope_id = l.scope_id
left join risk_private.obligations as o
  on o.counter_id = risk_private.counter_id(l.scope_id, l.dimension, l.key_id)
where l.judged = 'obligation';
comment on view risk_private.used_by_losses is
  'Use of max_loss and buying_power limits, by positions alone and with open orders.';

create view risk_private.used_by_equities as
select l.limit_id,
  case when v.value < 0 then 0 else v.value end as used, v.value is null as is_unknown
from risk_private.limits_in_force as l
join risk_private.equities as e on e.scope_id = l.scope_id
cross join lateral (
  select case l.limit_type when 'daily_loss' then risk_private.daily_loss(e)
    else risk_private.drawdown_pct(e.peak, e.equity) end as value
) as v
where l.judged = 'loss';
comment on view risk_private.used_by_equities is
  'Use of limits on losses, as equities stand.';

create view risk_private.used_by_exposures as
with filled as materialized (
  select l.limit_id, sum(abs(p.quantity * p.unit_dollar_delta)) as gross_exposure
  from risk_private.limits_in_force as l
  join risk_private.scopes as a on a.is_leaf and a.chain @> array[l.scope_id]
  join risk_private.positions as p on p.account_id = a.scope_id and p.quantity <> 0
  join risk_private.instruments as i on i.instrument_id = p.instrument_id
  where l.limit_type = 'gross_exposure'
    and l.key_id = (array[0, i.sector_id, i.underlying_id, i.instrument_id])[l.dimension + 1]
  group by l.limit_id
), governed as (
  select l.limit_id, l.limit_type, null::integer as underlying_id, x
  from risk_private.limits_in_force as l
  left join risk_private.exposures as x
    on x.counter_id = risk_private.counter_id(l.scope_id, l.dimension, l.key_id)
  where l.judged = 'exposure'
  union all
  select d.* from (
    select distinct on (x.counter_id, l.limit_type) l.limit_id, l.limit_type, x.key_id, x
    from risk_private.exposures as x
    join risk_private.instruments as u on u.instrument_id = x.key_id
    cross join lateral (
      values (0, 0), (1, u.sector_id), (2, u.instrument_id)
    ) as d (dimension, key_id)
    join risk_private.limits_in_force as l
      on l.scope_id = x.scope_id and l.dimension = d.dimension and l.key_id = d.key_id
      and l.limit_type in ('delta', 'gamma')
    where x.dimension = 2
    order by x.counter_id, l.limit_type, l.dimension desc
  ) as d
)
select distinct on (g.limit_id) g.limit_id, g.underlying_id, v.used, v.worst_case,
  v.worst_case is null as is_unknown
from governed as g
left join filled as f on f.limit_id = g.limit_id
cross join lateral risk_private.greek_sides(g.x, g.limit_type) as s
cross join lateral (
  select
    case when (g.x).unknown > 0 then null
      else coalesce(f.gross_exposure, abs(s.net), 0) end as used,
    case when (g.x).unknown > 0 then null else greatest(0, s.up, -s.down) end as worst_case
) as v
order by g.limit_id, v.worst_case desc nulls first, v.used desc, g.underlying_id;
comment on view risk_private.used_by_exposures is
  'Use of limits on Greeks and exposure: the larger side, as positions are carried; NULL while '
  'Greeks of anything held or open are unknown. Of delta and gamma the most specific limit governs '
  'an underlying; a wider one shows the worst of those that it governs.';

create view risk_private.used_by_concentrations as
select distinct on (l.limit_id)
  l.limit_id, case when x.dimension = 2 then x.key_id end as underlying_id, v.used, v.worst_case,
  v.worst_case is null as is_unknown
from risk_private.limits_in_force as l
join risk_private.equities as e on e.scope_id = l.scope_id
left join risk_private.exposures as x
  on x.scope_id = l.scope_id and x.dimension = case l.dimension when 1 then 1 else 2 end
  and (l.dimension = 0 or x.key_id = l.key_id)
  and not exists (
    select from risk_private.limits_in_force as n
    where n.scope_id = l.scope_id and n.limit_type = l.limit_type and n.dimension = 2
      and l.dimension = 0 and n.key_id = x.key_id)
cross join lateral (
  select
    risk_private.concentration_pct(coalesce(abs(x.dollar_delta), 0), e.equity) as used,
    risk_private.concentration_pct(
      coalesce(greatest(x.dollar_delta_up, -x.dollar_delta_down), 0), e.equity) as worst_case
  where coalesce(x.unknown, 0) = 0
  union all
  select null, null where x.unknown > 0
) as v
where l.judged = 'concentration'
order by l.limit_id, v.worst_case desc nulls first, v.used desc, x.key_id;
comment on view risk_private.used_by_concentrations is
  'Use of concentration_pct limits. The limit of an underlying governs it; the one for all shows '
  'the worst of those that it governs. Unknown where the equity or a Greek that counts is.';

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
left join risk_private.used_by_obligations as o on o.limit_id = l.limit_id
left join risk_private.used_by_exposures as g on g.limit_id = l.limit_id
left join risk_private.used_by_losses as x on x.limit_id = l.limit_id
left join risk_private.used_by_concentrations as c on c.limit_id = l.limit_id
left join risk_private.instruments as i
  on i.instrument_id = coalesce(
    u.instrument_id, o.underlying_id, g.underlying_id, c.underlying_id)
left join risk_private.used_by_sums as t
  on t.scope_id = l.scope_id and t.dimension = l.dimension and t.key_id = l.key_id
    and t.limit_type = l.limit_type
left join risk_private.used_by_equities as q on q.limit_id = l.limit_id
cross join lateral (
  select case when l.judged = 'window' then risk_private.accepted_since(
    risk_private.counter_id(l.scope_id, l.dimension, l.key_id),
    l.at - case l.limit_type when 'order_rate' then interval '1 second'
                             else interval '60 seconds' end)
  end as accepted
) as w
cross join lateral (
  select
    case when l.judged = 'loss' then q.used when l.judged = 'concentration' then c.used
         when l.judged not in ('order', 'switch') and g.is_unknown is not true
         then coalesce(u.used, o.used, x.used, g.used, t.used, w.accepted, 0) end as used,
    case when l.judged = 'loss' then q.used when l.judged = 'concentration' then c.worst_case
         when l.judged not in ('order', 'switch') and g.is_unknown is not true
         then coalesce(u.worst_case, o.worst_case, x.worst_case, g.worst_case, t.worst_case,
           w.accepted, 0)
    end as worst_case
) as m
cross join lateral (
  select
    case when m.worst_case <= 0 then 0
         else pg_catalog.round(m.worst_case * 100 / nullif(l.amount, 0), 2) end as utilization_pct,
    case when m.worst_case > l.amount or q.is_unknown or g.is_unknown or c.is_unknown
         then 'BREACH'
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
  'What is filled or done: positions, Greeks, notional traded, orders open, orders accepted in the '
  'window that ends now, losses. NULL for a loss, Greeks or a concentration that is not known.';
comment on column risk.limit_utilization.worst_case is
  'The same if every open order were filled on its worse side: what decisions compare with the '
  'limit. Of buying_power below 0: cash that is free.';
comment on column risk.limit_utilization.utilization_pct is
  'worst_case in percent of the limit; NULL where a limit of 0 is exceeded, or nothing is used up.';
comment on column risk.limit_utilization.status is
  'BREACH: worst_case is above the limit (it was lowered, marks moved, or a fill came that no '
  'order explains), or the loss, a Greek or the equity that it is measured by is not known; WARN: '
  'at or above its warn_pct; OK.';
comment on column risk.limit_utilization.version is 'Version of the limit.';
comment on column risk.limit_utilization.as_of is 'The moment of reading.';
comment on column risk.limit_utilization.instrument is
  'For limits per instrument or underlying: the one that is measured, for a default the one with '
  'the worst use.';

-- 72_obligation_views.sql
-- Views of what accounts may come to owe.

create view risk.position_limits as
select i.symbol as underlying, u.tier, t.amount, t.loaded_by, t.loaded_at
from risk_private.underlying_tiers as u
join risk_private.position_limit_tiers as t on t.tier = u.tier
join risk_private.instruments as i on i.instrument_id = u.underlying_id;
comment on view risk.position_limits is
  'Position limits as loaded by risk.load_position_limits. They bind where '
  'risk.apply_position_limits has set them.';
comment on column risk.position_limits.underlying is 'The underlying.';
comment on column risk.position_limits.tier is 'The tier that it is in.';
comment on column risk.position_limits.amount is
  'Contracts of 100 shares on one side of the market.';
comment on column risk.position_limits.loaded_by is 'The login that loaded the tier''s amount.';
comment on column risk.position_limits.loaded_at is 'When it was loaded.';

create view risk.same_side_positions as
with sides as (
  select p.account_id, p.underlying_id,
    sum(risk_private.side(i.option_right, i.multiplier, w.long, w.short)) as bull,
    sum(risk_private.side(i.option_right, i.multiplier, w.short, w.long)) as bear,
    sum(risk_private.side(i.option_right, i.multiplier, p.quantity, -p.quantity)) as held_bull,
    sum(risk_private.side(i.option_right, i.multiplier, -p.quantity, p.quantity)) as held_bear
  from risk_private.positions as p
  join risk_private.instruments as i on i.instrument_id = p.instrument_id and i.kind = 'option'
  cross join lateral (
    select p.quantity + p.open_buy as long, p.open_sell - p.quantity as short
  ) as w
  where p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0
  group by p.account_id, p.underlying_id
), sums as (
  select c.scope_id, g.underlying_id, sum(g.bull) as bull, sum(g.bear) as bear,
    sum(g.held_bull) as held_bull, sum(g.held_bear) as held_bear
  from sides as g
  join risk_private.scopes as a on a.scope_id = g.account_id
  cross join unnest(a.chain) as c (scope_id)
  group by c.scope_id, g.underlying_id
)
select
  s.code as scope, u.symbol as underlying, m.bull, m.bear, m.held_bull, m.held_bear,
  k.amount as limit_value, t.tier,
  pg_catalog.round(greatest(m.bull, m.bear) * 100 / nullif(k.amount, 0), 2) as utilization_pct,
  case when greatest(m.bull, m.bear) > k.amount then 'BREACH'
    when greatest(m.bull, m.bear) * 100 >= k.warn_pct * k.amount and greatest(m.bull, m.bear) > 0
    then 'WARN'
    else 'OK' end as status,
  risk_private.clock() as as_of
from sums as m
join risk_private.scopes as s on s.scope_id = m.scope_id
join risk_private.instruments as u on u.instrument_id = m.underlying_id
left join risk_private.underlying_tiers as t on t.underlying_id = m.underlying_id
left join lateral (
  select l.amount, l.warn_pct
  from risk_private.limits_in_force as l
  where l.limit_type = 'same_side' and l.scope_id = m.scope_id
    and l.key_id = (array[0, u.sector_id, u.instrument_id])[l.dimension + 1]
  order by l.dimension desc
  limit 1
) as k on true
where (select risk_private.is_settled());
comment on view risk.same_side_positions is
  'Options on each side of the market, as FINRA 2360 and Cboe 8.30 count them: per scope and '
  'underlying, over every account below, all strikes and expiries, in units of 100 shares (ten '
  'minis are one, a jumbo is ten). Sides never net.';
comment on column risk.same_side_positions.scope is 'The scope, with all accounts below it.';
comment on column risk.same_side_positions.underlying is 'The underlying of the options.';
comment on column risk.same_side_positions.bull is
  'Long calls + short puts, per account and option at worst: every open order that enlarges the '
  'side filled.';
comment on column risk.same_side_positions.bear is 'Short calls + long puts, likewise.';
comment on column risk.same_side_positions.held_bull is 'bull of positions alone.';
comment on column risk.same_side_positions.held_bear is 'bear of positions alone.';
comment on column risk.same_side_positions.limit_value is
  'The same_side limit that holds at this very scope for the underlying, for each side; NULL where '
  'none does.';
comment on column risk.same_side_positions.tier is
  'The tier of the underlying; see risk.position_limits.';
comment on column risk.same_side_positions.utilization_pct is
  'The larger side in percent of the limit; NULL without one, or where it is 0.';
comment on column risk.same_side_positions.status is
  'BREACH: a side is above the limit; WARN: at or above its warn_pct; OK, also without a limit.';
comment on column risk.same_side_positions.as_of is 'The moment of reading.';

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
    -- Not by subtracting moments: before PostgreSQL 17 that fails for infinite ones.
    (1, 'heartbeat_age',
     pg_catalog.date_part('epoch', a.at) - pg_catalog.date_part('epoch', h.beat_at), 'seconds',
     a.max_heartbeat_age, 'FAIL', true, 'Since the circuit breakers were last evaluated.'),
    (2, 'heartbeat_inputs_age',
     pg_catalog.date_part('epoch', a.at) - pg_catalog.date_part('epoch', h.inputs_as_of), 'seconds',
     a.max_heartbeat_age, 'FAIL', true, 'Of the oldest input they saw then.'),
    (3, 'oldest_mark_age',
     pg_catalog.date_part('epoch', a.at) - pg_catalog.date_part('epoch', k.oldest), 'seconds',
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

-- 74_breaker_views.sql
-- Views of circuit breakers and of the indicators that they watch.

create view risk.indicators as
select i.name, i.value, i.as_of, i.set_by, i.received_at
from risk_private.indicators as i;
comment on view risk.indicators is 'The latest value of each market indicator.';
comment on column risk.indicators.name is 'Name of the indicator, such as VIX.';
comment on column risk.indicators.value is
  'Its value; NULL where a circuit breaker watches it and nobody has told it yet.';
comment on column risk.indicators.as_of is 'Data time of the value.';
comment on column risk.indicators.set_by is 'The login that told it.';
comment on column risk.indicators.received_at is 'When it came.';

create view risk.breaker_conditions as
select
  c.condition, c.unit, c.parameters, c.default_threshold, c.reset_policies, c.description, c.source
from risk_private.breaker_conditions as c
order by c.position;
comment on view risk.breaker_conditions is
  'What a circuit breaker may watch. Every condition trips at or above the threshold.';
comment on column risk.breaker_conditions.condition is 'Name of the condition.';
comment on column risk.breaker_conditions.unit is 'Unit of value and threshold.';
comment on column risk.breaker_conditions.parameters is
  'Its parameters: type, default, choices, meaning.';
comment on column risk.breaker_conditions.default_threshold is
  'What a NULL threshold stands for; NULL: it must be given.';
comment on column risk.breaker_conditions.reset_policies is 'How its breakers may be reset.';
comment on column risk.breaker_conditions.description is 'What is measured.';
comment on column risk.breaker_conditions.source is 'Where that is common practice.';

create view risk.breakers as
select
  b.name, s.code as scope, b.condition, b.threshold, b.action, b.state, r.value as last_value,
  case when w.swept_at >= b.defined_at then w.swept_at end as last_evaluated_at,
  case when b.state <> 'ARMED' then b.tripped_at end as tripped_at,
  case when b.state <> 'ARMED' then b.tripped_by end as tripped_by,
  case when b.state = 'COOLDOWN' then b.cooling_since + b.cooldown end as resets_at,
  u.symbol as underlying, b.parameters, b.cooldown, b.reset_policy,
  case when b.state <> 'ARMED' then b.is_manual end as is_manual,
  case when b.state <> 'ARMED' then b.tripped_value end as tripped_value,
  case when b.state <> 'ARMED' then b.tripped_data_at end as tripped_data_at,
  case when b.state <> 'ARMED' then b.trip_reason end as trip_reason,
  b.armed_at, b.reason, b.defined_by, b.defined_at
from risk_private.breakers as b
join risk_private.scopes as s on s.scope_id = b.scope_id
join risk_private.breaker_readings as r on r.breaker_id = b.breaker_id
left join risk_private.instruments as u on u.instrument_id = b.underlying_id
left join risk_private.breaker_sweeps as w on w.condition = b.condition;
comment on view risk.breakers is 'Circuit breakers and the state they are in.';
comment on column risk.breakers.name is 'Name of the breaker.';
comment on column risk.breakers.scope is 'The scope it watches and holds, with everything below.';
comment on column risk.breakers.condition is 'What it measures: see risk.breaker_conditions.';
comment on column risk.breakers.threshold is 'It trips at or above this value.';
comment on column risk.breakers.action is 'NOTIFY, REDUCE_ONLY, HALT or HALT_AND_CANCEL.';
comment on column risk.breakers.state is
  'ARMED; TRIPPED; COOLDOWN: waiting for its end. The action holds through the latter two.';
comment on column risk.breakers.last_value is
  'What was measured last; NULL where there was nothing to measure.';
comment on column risk.breakers.last_evaluated_at is
  'When it was evaluated last; NULL: not yet.';
comment on column risk.breakers.tripped_at is
  'When it tripped; NULL while it is armed, like the next.';
comment on column risk.breakers.tripped_by is
  'The login that tripped it: the worker''s where the condition did.';
comment on column risk.breakers.resets_at is
  'When the cool-down ends, if the value stays clear; NULL outside of one.';
comment on column risk.breakers.underlying is 'The one underlying that it holds; NULL: all.';
comment on column risk.breakers.parameters is 'Parameters of the condition, defaults filled in.';
comment on column risk.breakers.cooldown is 'How long it cools down.';
comment on column risk.breakers.reset_policy is
  'manual: by a person; timer: after the cool-down; session: when the next day is opened.';
comment on column risk.breakers.is_manual is
  'Whether a person tripped it, whom no timer or new day overrules; NULL while it is armed, like '
  'the next three.';
comment on column risk.breakers.tripped_value is 'The value for which it tripped.';
comment on column risk.breakers.tripped_data_at is 'Data time of that value.';
comment on column risk.breakers.trip_reason is 'Why it tripped, in words.';
comment on column risk.breakers.armed_at is
  'When it was last armed: what it judges is data from then on.';
comment on column risk.breakers.reason is 'Why it was defined so.';
comment on column risk.breakers.defined_by is 'The login that defined it last.';
comment on column risk.breakers.defined_at is 'When it was defined last.';

create view risk.breaker_events as
select
  e.event_id, e.at, e.name as breaker, s.code as scope, e.event, e.state, e.condition, e.value,
  e.threshold, e.data_at, e.action, e.reason, e.error, e.made_by
from risk_private.breaker_events as e
join risk_private.scopes as s on s.scope_id = e.scope_id;
comment on view risk.breaker_events is 'What happened to circuit breakers.';
comment on column risk.breaker_events.event_id is 'Number of the event, ascending.';
comment on column risk.breaker_events.at is 'When it happened.';
comment on column risk.breaker_events.breaker is 'Name of the breaker.';
comment on column risk.breaker_events.scope is 'The scope it was about then.';
comment on column risk.breaker_events.event is
  'DEFINED, REDEFINED, REMOVED, TRIPPED, COOLDOWN, RESET.';
comment on column risk.breaker_events.state is 'State of the breaker after it.';
comment on column risk.breaker_events.condition is 'Its condition then.';
comment on column risk.breaker_events.value is
  'The value that made it happen; NULL where a person did.';
comment on column risk.breaker_events.threshold is 'Its threshold then.';
comment on column risk.breaker_events.data_at is 'Data time of the value.';
comment on column risk.breaker_events.action is 'Its action then.';
comment on column risk.breaker_events.reason is 'Why.';
comment on column risk.breaker_events.error is
  'What the condition failed with: that trips its breaker too.';
comment on column risk.breaker_events.made_by is 'The login that did it.';

-- 74_hot_limits.sql
-- What a cache outside the database may keep of limits, and how it learns that they have changed.
-- Every commit that changes a limit, a state or a status takes the next version as its last act, so
-- versions are in the order of commits: whoever sees version n sees every change up to n.

create table risk_private.limit_version (
  singleton boolean primary key default true check (singleton),
  version bigint not null,
  secret uuid not null
);
insert into risk_private.limit_version (version, secret) values (1, pg_catalog.gen_random_uuid());
comment on table risk_private.limit_version is
  'The version of all limits, states and statuses together, and what signing keys derive from.';

create table risk_private.limit_changes (
  xid xid8 primary key
);
comment on table risk_private.limit_changes is
  'Transactions that are changing limits, states or statuses: one row each until just before '
  'their commit, so never a row that others see.';

create function risk_private.note_limit_change() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.limit_changes (xid) values (pg_current_xact_id())
  on conflict (xid) do nothing;
  return null;
end
$$;
comment on function risk_private.note_limit_change() is
  'Notes that this transaction changes what caches hold.';

-- Lock order: last of all. The row is taken in the commit itself, so no change waits here for one
-- that still waits for a trader's lock.
create function risk_private.publish_limit_change() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_version bigint;
begin
  update risk_private.limit_version as v set version = v.version + 1
  returning v.version into v_version;
  perform pg_notify('risk_limits', v_version::text);
  delete from risk_private.limit_changes as c where c.xid = new.xid;
  return null;
end
$$;
comment on function risk_private.publish_limit_change() is
  'Takes the next version and tells it on the channel risk_limits. Runs once in the commit of a '
  'transaction that has noted a change.';

create constraint trigger limit_changes_at_commit after insert on risk_private.limit_changes
deferrable initially deferred
for each row execute function risk_private.publish_limit_change();

create trigger limits_when_changed after insert on risk_private.limits
for each statement execute function risk_private.note_limit_change();
create trigger trading_states_when_changed
after insert or update or delete on risk_private.trading_states
for each statement execute function risk_private.note_limit_change();
create trigger trading_grants_when_changed
after insert or update or delete on risk_private.trading_grants
for each statement execute function risk_private.note_limit_change();
create trigger instruments_when_changed
after update of symbol, sector_id, underlying_id, status, status_reason
on risk_private.instruments
for each statement execute function risk_private.note_limit_change();

create function risk_private.may_see_limits(chain integer[]) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return risk_private.may_trade(chain) or exists (
    select from unnest(array['risk_admin', 'risk_worker', 'risk_analyst', 'risk_auditor'])
      as r (role)
    where pg_has_role(risk_private.caller(), r.role, 'member'));
end
$$;
comment on function risk_private.may_see_limits(integer[]) is
  'Whether the caller may see limits and states of the scope of that chain: whoever may trade it, '
  'and whoever may read risk.limits.';

-- What risk.limit_utilization shows as worst_case, for one limit and without reading the others.
create function risk_private.hot_use(
  k risk_private.applicable_limit, underlying_id integer, instrument_id integer, at timestamptz)
returns numeric
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  v_key bigint := risk_private.counter_id(k.scope_id, k.dimension, k.key_id);
begin
  if k.judged = 'sum' then
    return coalesce((
      select case k.limit_type
        when 'gross_position' then c.gross_position
        when 'gross_notional' then c.gross_notional
        when 'traded_notional' then c.traded_notional
        when 'open_orders' then c.open_orders
        when 'open_positions' then c.open_positions
      end
      from risk_private.counters as c where c.counter_id = v_key), 0);
  elsif k.judged = 'instrument' and instrument_id is not null then
    return (
      select case k.limit_type
        when 'net_position' then risk_private.worst_case(h.quantity, h.open_buy, h.open_sell)
        when 'long_position' then greatest(0, h.quantity + h.open_buy)
        when 'short_position' then greatest(0, h.open_sell - h.quantity)
      end
      from (values (k.scope_id)) as s (scope_id)
      left join risk_private.positions as p
        on p.account_id = s.scope_id and p.instrument_id = hot_use.instrument_id
      left join risk_private.counters as c
        on c.counter_id = risk_private.counter_id(s.scope_id, 3, hot_use.instrument_id)
      cross join lateral (
        select coalesce(p.quantity, c.quantity, 0) as quantity,
          coalesce(p.open_buy, c.open_buy, 0) as open_buy,
          coalesce(p.open_sell, c.open_sell, 0) as open_sell
      ) as h);
  elsif k.judged = 'window' then
    return risk_private.accepted_since(v_key, at - case k.limit_type
      when 'order_rate' then interval '1 second' else interval '60 seconds' end);
  elsif k.judged = 'concentration' and (k.dimension = 1 or underlying_id is not null) then
    return (
      select case when coalesce(x.unknown, 0) = 0 then risk_private.concentration_pct(
        coalesce(greatest(x.dollar_delta_up, -x.dollar_delta_down), 0), e.equity) end
      from risk_private.equities as e
      left join risk_private.exposures as x
        on x.counter_id = case k.dimension when 1 then v_key
          else risk_private.counter_id(k.scope_id, 2, hot_use.underlying_id) end
      where e.scope_id = k.scope_id);
  elsif k.limit_type = 'same_side' and underlying_id is not null then
    return coalesce((
      select greatest(o.bull, o.bear) from risk_private.obligations as o
      where o.counter_id = risk_private.counter_id(k.scope_id, 2, hot_use.underlying_id)), 0);
  elsif k.judged = 'exposure'
    or risk_private.is_exposure_type(k.limit_type) and underlying_id is not null then
    return (
      select case when x.unknown > 0 then null else greatest(0, s.up, -s.down) end
      from (
        select case k.judged when 'exposure' then v_key
          else risk_private.counter_id(k.scope_id, 2, hot_use.underlying_id) end as counter_id
      ) as c
      left join risk_private.exposures as x on x.counter_id = c.counter_id
      cross join lateral risk_private.greek_sides(x, k.limit_type) as s);
  elsif k.judged = 'loss' then
    return (
      select case when v.value < 0 then 0 else v.value end
      from risk_private.equities as e
      cross join lateral (
        select case k.limit_type when 'daily_loss' then risk_private.daily_loss(e)
          else risk_private.drawdown_pct(e.peak, e.equity) end as value
      ) as v
      where e.scope_id = k.scope_id);
  elsif k.judged = 'obligation' then
    return (
      select case
        when k.limit_type = 'buying_power' then coalesce(o.cash_need, 0) - e.cash
        when o.unlimited > 0 then 'Infinity'
        else coalesce(o.max_loss, 0)
      end
      from risk_private.equities as e
      left join risk_private.obligations as o on o.counter_id = v_key
      where e.scope_id = k.scope_id);
  end if;
  return null;
end
$$;
comment on function risk_private.hot_use(
  risk_private.applicable_limit, integer, integer, timestamptz) is
  'What decisions compare with a limit now. NULL where nothing is used up, as with limits on '
  'single orders, where the instrument or underlying that it would be measured for is NULL, and '
  'where a loss, a Greek or an equity is not known.';

create function risk_private.hot_uses(
  chain integer[], sector_id integer, underlying_id integer, instrument_id integer,
  at timestamptz)
returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  v_leg risk_private.leg;
begin
  v_leg.sector_id := hot_uses.sector_id;
  v_leg.underlying_id := hot_uses.underlying_id;
  v_leg.instrument_id := hot_uses.instrument_id;
  return coalesce((
    select jsonb_agg(jsonb_build_object(
      'scope', k.scope, 'limit_type', k.limit_type, 'dimension', k.dimension_name,
      'limit_value', k.amount::text, 'warn_pct', k.warn_pct::text,
      'worst_case', u.worst_case::text,
      'utilization_pct', case when u.worst_case <= 0 then '0'
        else trim_scale(round(u.worst_case * 100 / nullif(k.amount, 0), 2))::text end,
      'status', case when u.worst_case > k.amount
          or u.worst_case is null and (k.judged in ('exposure', 'loss')
            or k.judged = 'concentration' and k.dimension = 1
            or k.judged in ('underlying', 'concentration') and hot_uses.underlying_id is not null)
        then 'BREACH'
        when k.warns and u.worst_case > 0 and u.worst_case * 100 >= k.warn_pct * k.amount
        then 'WARN' else 'OK' end,
      'version', f.version)
      order by array_position(chain, k.scope_id), k.limit_type, k.dimension)
    from unnest(risk_private.applicable_limits(chain[1], array[v_leg], at)) as k
    join risk_private.limit_periods as f
      on f.scope_id = k.scope_id and f.dimension = k.dimension and f.key_id = k.key_id
      and f.limit_type = k.limit_type and f.valid_from <= at and at < f.valid_until
    cross join lateral (
      select risk_private.hot_use(k, hot_uses.underlying_id, hot_uses.instrument_id, at)
        as worst_case
    ) as u), '[]');
end
$$;
comment on function risk_private.hot_uses(integer[], integer, integer, integer, timestamptz) is
  'Every limit that binds orders of the first scope of the chain in one instrument, with what '
  'decisions compare with it. Keys NULL: those that hold for all instruments.';

create function risk_private.hot_limits(scope text, symbol text) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_at timestamptz := risk_private.clock();
  v_scope risk_private.scopes := risk_private.scope(scope);
  v_instrument risk_private.instruments;
  v_underlying text;
begin
  perform risk_private.is_settled();
  if risk_private.may_see_limits(v_scope.chain) is not true then
    perform risk_private.fail('RK403',
      format('%s may not see the limits of %L', risk_private.caller(), scope), 'argument: scope',
      'A trading grant on the scope, or a role that reads risk.limits, allows it.');
  end if;
  if symbol is not null then
    select i.* into v_instrument from risk_private.instruments as i
    where i.instrument_id = risk_private.instrument_id(hot_limits.symbol);
    select u.symbol into v_underlying from risk_private.instruments as u
    where u.instrument_id = v_instrument.underlying_id;
  end if;
  return (
    select jsonb_build_object(
      'version', v.version, 'scope', v_scope.code, 'symbol', v_instrument.symbol,
      'underlying', v_underlying, 'as_of', v_at, 'changes_at', (
        select min(e.moment)
        from (values (0, 0), (1, v_instrument.sector_id), (2, v_instrument.underlying_id),
                (3, v_instrument.instrument_id)) as d (dimension, key_id)
        join risk_private.limit_periods as p
          on p.scope_id = any (v_scope.chain) and p.dimension = d.dimension
          and p.key_id = d.key_id
        cross join lateral (values (p.valid_from), (p.valid_until)) as e (moment)
        where e.moment > v_at and e.moment < 'infinity'),
      'state', t.effective_state, 'state_since', t.since, 'state_reason', t.reason,
      'instrument_status', v_instrument.status,
      'limits', risk_private.hot_uses(v_scope.chain, v_instrument.sector_id,
        v_instrument.underlying_id, v_instrument.instrument_id, v_at))
    from risk_private.limit_version as v
    cross join lateral (
      select s.* from risk.trading_states as s
      where s.scope = v_scope.code and (s.underlying is null or s.underlying = v_underlying)
      order by s.underlying nulls last
      limit 1
    ) as t);
end
$$;
comment on function risk_private.hot_limits(text, text) is 'What risk.hot_limits tells.';

create function risk.hot_limits(scope text, symbol text default null) returns jsonb
language sql stable
begin atomic
  select risk_private.hot_limits(scope, symbol);
end;
comment on function risk.hot_limits(text, text) is
  'The limits that bind orders of a scope in an instrument (NULL: those for all instruments), as '
  'one document: version, as_of, changes_at (when a limit next begins or ends by itself), state '
  '(ACTIVE, REDUCE_ONLY, HALTED: the most severe on the chain, for the instrument''s underlying) '
  'with since and reason, instrument_status, and per limit on the whole chain: scope, limit_type, '
  'dimension, limit_value, warn_pct, worst_case (what decisions compare with the limit; NULL '
  'where nothing is used up), utilization_pct, status (OK, WARN, BREACH) and version. Amounts are '
  'strings. For pre-screens and displays: decisions never read it. For whoever may trade the '
  'scope, and who may read risk.limits. Errors: RK403, RK404.';

create function risk_private.limit_cache() returns table (version bigint, signing_key text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select v.version, encode(sha256(convert_to(concat_ws('|',
    v.secret, current_database(), risk_private.caller()), 'UTF8')), 'hex')
  from risk_private.limit_version as v;
end;
comment on function risk_private.limit_cache() is 'What risk.limit_cache tells.';

create function risk.limit_cache() returns table (version bigint, signing_key text)
language sql stable
begin atomic
  select c.version, c.signing_key from risk_private.limit_cache() as c;
end;
comment on function risk.limit_cache() is
  'What a cache of risk.hot_limits needs: the version of all limits, states and statuses '
  'together, which grows with every change and is told on the channel risk_limits; and a key '
  'with which to sign what is kept, different for every role and database.';

-- 74_money_views.sql
-- Views of money.

create view risk.pnl as
select
  s.code as scope,
  case when s.is_leaf and s.trading_day is not null then s.trading_day
    else risk_private.present_trading_date() end as day,
  e.start_equity, e.equity, e.realized,
  e.equity - e.book as unrealized, e.fees, e.equity - e.start_equity - e.flows as daily_pnl,
  e.peak as peak_equity, risk_private.drawdown_pct(e.peak, e.equity) as drawdown_pct, e.as_of,
  case when e.unknown = 0 then e.cash end as cash, e.flows, e.income, e.currency_pnl,
  e.start_unrealized
from risk_private.scopes as s
join risk_private.equities as e on e.scope_id = s.scope_id
where (select risk_private.is_settled());
comment on view risk.pnl is
  'Profit and loss of every scope in the trading day, in base currency, with everything below it. '
  'equity - start_equity = flows + realized - fees + income + currency_pnl + unrealized - '
  'start_unrealized, plus what the start that risk.open_day was told differed from the engine''s.';
comment on column risk.pnl.scope is 'The scope, with all accounts below it.';
comment on column risk.pnl.day is 'The trading day.';
comment on column risk.pnl.start_equity is
  'Equity at its start: what risk.open_day was told, else the engine''s own at the roll. NULL '
  'before the first open_day.';
comment on column risk.pnl.equity is
  'Cash and positions at their carried marks. NULL while a currency held has no rate.';
comment on column risk.pnl.realized is
  'Realized in the day at average cost, before fees; busts and corrections of earlier days too.';
comment on column risk.pnl.unrealized is
  'Value of the positions held now less their average cost, since they were opened.';
comment on column risk.pnl.fees is 'Fees of executions of the day.';
comment on column risk.pnl.daily_pnl is
  'equity - start_equity - flows. NULL where the equity or the start is unknown.';
comment on column risk.pnl.peak_equity is
  'Highest equity of this very scope, sampled at each revaluation and fill, across days. A flow '
  'scales it so that the drawdown stays what it is.';
comment on column risk.pnl.drawdown_pct is
  '(peak - equity) / peak, %; 100 where either is 0 or less.';
comment on column risk.pnl.as_of is 'When the equity last moved.';
comment on column risk.pnl.cash is 'Cash in all currencies, at their rates.';
comment on column risk.pnl.flows is
  'Deposits, withdrawals and transfers of the day, and positions brought in or taken out (trades '
  'of kind opening and transfer) at their price.';
comment on column risk.pnl.income is 'Other cash posted in the day: dividends, interest, charges.';
comment on column risk.pnl.currency_pnl is
  'What changes of exchange rates in the day made of cash and cost.';
comment on column risk.pnl.start_unrealized is 'Unrealized profit when the day was opened.';

create view risk.cash with (security_barrier) as
select a.code as account, b.currency, b.amount, b.rate, b.amount * b.rate as base_amount,
  nullif(f.as_of, '-infinity') as as_of
from risk_private.scopes as a
join risk_private.cash_balances as b on b.account_id = a.scope_id
left join risk_private.fx_rates as f on f.currency = b.currency
where a.scope_id = any ((select risk_private.visible_accounts())::integer[])
  and (select risk_private.is_settled());
comment on view risk.cash is 'Cash of every account, per currency.';
comment on column risk.cash.account is 'The account.';
comment on column risk.cash.currency is 'The currency.';
comment on column risk.cash.amount is
  'Cash: postings less what trades cost and their fees; below 0 it is owed.';
comment on column risk.cash.rate is 'Base currency per unit at which it is carried; NULL: unknown.';
comment on column risk.cash.base_amount is 'The amount in base currency.';
comment on column risk.cash.as_of is
  'Data time of the latest rate; NULL for the base currency, whose rate is always 1.';

-- 75_return_views.sql
-- Returns and correlations. Materialized, because they change once a day; no decision reads them.

create view risk_private.daily_returns as
select
  c.instrument_id, c.day,
  lag(c.day) over w as previous_day, c.close,
  (pg_catalog.ln(c.close) - pg_catalog.ln(lag(c.close) over w))::double precision as log_return,
  c.recorded_at
from risk_private.closes as c
window w as (partition by c.instrument_id order by c.day);
comment on view risk_private.daily_returns is
  'ln(close / previous close) of every stored close; NULL for the first of an instrument.';

-- A return counts for a pair where both span the same days: one that a missing close has made
-- longer is compared with none.
create view risk_private.correlations as
with recent as (
  select d.day
  from (select distinct c.day from risk_private.closes as c) as d
  order by d.day desc limit 61
), returns as (
  select r.instrument_id, r.day, r.previous_day, r.log_return, r.recorded_at
  from risk_private.daily_returns as r
  where r.previous_day >= (select min(t.day) from recent as t)
    and r.instrument_id in (
      select i.underlying_id
      from risk_private.positions as p
      join risk_private.instruments as i on i.instrument_id = p.instrument_id
      where p.quantity <> 0)
), pairs as (
  select
    a.instrument_id as one_id, b.instrument_id as other_id,
    greatest(-1, least(1, pg_catalog.corr(a.log_return, b.log_return))) as correlation,
    count(*)::integer as days, min(a.day) as first_day, max(a.day) as last_day,
    max(greatest(a.recorded_at, b.recorded_at)) as as_of
  from returns as a
  join returns as b
    on b.day = a.day and b.previous_day = a.previous_day and b.instrument_id > a.instrument_id
  group by a.instrument_id, b.instrument_id
  having count(*) >= 20 and pg_catalog.var_pop(a.log_return) > 1e-18
    and pg_catalog.var_pop(b.log_return) > 1e-18
)
select o.underlying_id, o.other_id, p.correlation, p.days, p.first_day, p.last_day, p.as_of
from pairs as p
cross join lateral (
  values (p.one_id, p.other_id), (p.other_id, p.one_id)
) as o (underlying_id, other_id);
comment on view risk_private.correlations is
  'Pearson correlation of the daily log returns of held underlyings over the last 60 trading days '
  '(61 closes), each pair in both orders. A pair needs 20 common days, and variance.';

create materialized view risk.return_history as
select i.symbol as underlying, r.day, r.previous_day, r.close, r.log_return, r.recorded_at as as_of
from risk_private.daily_returns as r
join risk_private.instruments as i on i.instrument_id = r.instrument_id
where r.day > (select max(c.day) - 366 from risk_private.closes as c);
-- squawk-ignore require-concurrent-index-creation
create unique index return_history_key on risk.return_history (underlying, day);
comment on materialized view risk.return_history is
  'Daily closes and log returns of underlyings over the last year, as of the last refresh '
  '(risk.refresh_views; the worker does it).';
comment on column risk.return_history.underlying is 'Symbol of the underlying.';
comment on column risk.return_history.day is 'Trading day of the close.';
comment on column risk.return_history.previous_day is
  'Day of the close before it: longer ago where closes are missing; NULL for the first.';
comment on column risk.return_history.close is
  'Closing price, adjusted for all later splits, in the instrument''s currency.';
comment on column risk.return_history.log_return is
  'ln(close / close of previous_day); NULL for the first.';
comment on column risk.return_history.as_of is 'When the close was recorded or loaded.';

create materialized view risk.correlation_matrix as
select
  i.symbol as underlying, o.symbol as other, c.correlation, c.days, c.first_day, c.last_day,
  c.as_of
from risk_private.correlations as c
join risk_private.instruments as i on i.instrument_id = c.underlying_id
join risk_private.instruments as o on o.instrument_id = c.other_id;
-- squawk-ignore require-concurrent-index-creation
create unique index correlation_matrix_key on risk.correlation_matrix (underlying, other);
comment on materialized view risk.correlation_matrix is
  'Correlations of the daily log returns of underlyings that some account holds (itself, or '
  'through options and futures), over the last 60 trading days, each pair in both orders; as of '
  'the last refresh (risk.refresh_views; the worker does it).';
comment on column risk.correlation_matrix.underlying is 'Symbol of the one underlying.';
comment on column risk.correlation_matrix.other is 'Symbol of the other.';
comment on column risk.correlation_matrix.correlation is
  'Pearson''s coefficient, -1 to 1. Pairs with fewer than 20 common days or without variance are '
  'left out.';
comment on column risk.correlation_matrix.days is 'How many daily returns both have.';
comment on column risk.correlation_matrix.first_day is 'The first of those days.';
comment on column risk.correlation_matrix.last_day is 'The last of them.';
comment on column risk.correlation_matrix.as_of is
  'When the newest of those closes was recorded or loaded.';

create function risk_private.refresh_materialized(view_name text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_populated boolean;
begin
  select m.ispopulated into v_is_populated
  from pg_matviews as m
  where m.schemaname = 'risk' and m.matviewname = view_name;
  if not found then
    perform risk_private.fail('RK404', format('no materialized view %L in risk', view_name),
      'argument: view_name');
  end if;
  execute format('refresh materialized view %s risk.%I',
    case when v_is_populated then 'concurrently' else '' end, view_name);
end
$$;
comment on function risk_private.refresh_materialized(text) is
  'Refreshes one materialized view of risk; readers go on meanwhile. Raises RK404 for another '
  'name.';

create procedure risk.refresh_views()
language plpgsql
as $$
declare
  v_name text;
begin
  foreach v_name in array risk_private.views_to_refresh() loop
    perform risk_private.refresh_materialized(v_name);
    commit;
  end loop;
end
$$;
comment on procedure risk.refresh_views() is
  'Refreshes the materialized views, one after the other, blocking neither readers nor decisions. '
  'A worker does the same by itself.';

-- 76_daily_summary.sql
-- What each trading day made of every scope: kept when the day ended, or as it stands today.

create view risk_private.today as
select
  k.scope_id, s.trading_day as day, sum(a.decisions)::bigint as decisions,
  sum(a.accepted)::bigint as accepted, sum(a.executions)::bigint as executions,
  sum(a.traded_notional) as traded_notional
from risk_private.scopes as s
cross join unnest(s.chain) as k (scope_id)
cross join lateral risk_private.activity(s.scope_id) as a
where s.is_leaf and s.trading_day = (select c.trading_date from risk_private.trading_calendar as c)
group by k.scope_id, s.trading_day;
comment on view risk_private.today is
  'What the accounts below each scope have decided and executed in the trading day that is open.';

create materialized view risk.daily_summary as
select
  s.code as scope, d.day, d.is_closed, d.start_equity, d.equity as end_equity,
  d.equity - d.start_equity - d.flows as daily_pnl, d.realized,
  case when d.equity is not null then d.unrealized end as unrealized, d.start_unrealized, d.fees,
  d.income, d.currency_pnl, d.flows, d.peak as peak_equity,
  risk_private.drawdown_pct(d.peak, d.equity) as drawdown_pct, d.decisions, d.accepted,
  d.decisions - d.accepted as rejected, d.executions as fills, d.traded_notional, d.as_of
from (
  select c.scope_id, c.day, true as is_closed, c.start_equity, c.equity, c.realized, c.unrealized,
    c.start_unrealized, c.fees, c.income, c.currency_pnl, c.flows, c.peak, c.decisions, c.accepted,
    c.executions, c.traded_notional, c.closed_at as as_of
  from risk_private.closed_days as c
  union all
  select t.scope_id, t.day, false, e.start_equity, e.equity, e.realized, e.known_equity - e.book,
    e.start_unrealized, e.fees, e.income, e.currency_pnl, e.flows, e.peak, t.decisions, t.accepted,
    t.executions, t.traded_notional, e.as_of
  from risk_private.today as t
  join risk_private.equities as e on e.scope_id = t.scope_id
) as d
join risk_private.scopes as s on s.scope_id = d.scope_id;
-- squawk-ignore require-concurrent-index-creation
create unique index daily_summary_key on risk.daily_summary (scope, day);
comment on materialized view risk.daily_summary is
  'Every scope and trading day, in base currency, with everything below it: a day that has ended '
  'as it was when the next one was opened, and the open day as of the last refresh '
  '(risk.refresh_views, risk.open_day; the worker does both). What is busted or corrected later '
  'counts to the day in which it was. end_equity - start_equity = flows + realized - fees + income '
  '+ currency_pnl + unrealized - start_unrealized, plus what the start that risk.open_day was told '
  'differed from the engine''s.';
comment on column risk.daily_summary.scope is 'The scope, with all accounts below it.';
comment on column risk.daily_summary.day is 'The trading day.';
comment on column risk.daily_summary.is_closed is 'Whether the day has ended.';
comment on column risk.daily_summary.start_equity is
  'Equity at its start: what risk.open_day was told, else the engine''s own at the roll. NULL '
  'where an account below had none.';
comment on column risk.daily_summary.end_equity is
  'Equity when it ended, or now. NULL where a currency held had no rate.';
comment on column risk.daily_summary.daily_pnl is
  'end_equity - start_equity - flows; NULL where either is.';
comment on column risk.daily_summary.realized is
  'Realized in the day at average cost, before fees; busts and corrections of earlier days too.';
comment on column risk.daily_summary.unrealized is
  'At its end: value of the positions held less their average cost, since they were opened.';
comment on column risk.daily_summary.start_unrealized is 'The same at its start.';
comment on column risk.daily_summary.fees is 'Fees of executions of the day.';
comment on column risk.daily_summary.income is
  'Cash posted that is no flow: dividends, interest, charges.';
comment on column risk.daily_summary.currency_pnl is
  'What changes of exchange rates in the day made of cash and cost.';
comment on column risk.daily_summary.flows is
  'Deposits, withdrawals, transfers, and positions brought in or taken out.';
comment on column risk.daily_summary.peak_equity is
  'Highest equity of this very scope up to the end of the day, across days, as risk.pnl has it.';
comment on column risk.daily_summary.drawdown_pct is
  '(peak_equity - end_equity) / peak_equity, %; 100 where either is 0 or less.';
comment on column risk.daily_summary.decisions is
  'Orders and replaces decided in the day; one asked again counts once.';
comment on column risk.daily_summary.accepted is 'How many of them were accepted.';
comment on column risk.daily_summary.rejected is 'How many were rejected.';
comment on column risk.daily_summary.fills is
  'Executions booked in the day, trades that no order explains too; busted ones not.';
comment on column risk.daily_summary.traded_notional is
  'Sum of quantity x |price| x multiplier x rate of those executions.';
comment on column risk.daily_summary.as_of is
  'When the day ended for the scope, or its equity last moved.';

-- 78_recount.sql
-- Positions and counters recomputed from what they summarise, orders and fills.

create function risk_private.recount_positions(scope_id integer default null)
returns table (account_id integer, instrument_id integer, quantity numeric, open_buy numeric,
               open_sell numeric, traded_notional numeric, open_orders bigint)
language sql stable
begin atomic
  with accounts as not materialized (
    select s.scope_id as account_id, s.trading_day
    from risk_private.scopes as s
    where s.is_leaf
      and (recount_positions.scope_id is null or s.chain @> array[recount_positions.scope_id])
  )
  select u.account_id, u.instrument_id, sum(u.quantity), sum(u.open_buy), sum(u.open_sell),
    sum(u.traded_notional), sum(u.open_orders)
  from (
    select a.account_id, w.instrument_id, 0::numeric as quantity,
      case when w.ratio > 0 then w.open_quantity else 0 end as open_buy,
      case when w.ratio < 0 then w.open_quantity else 0 end as open_sell,
      w.open_notional as traded_notional, (w.legs = 1)::integer as open_orders
    from accounts as a
    join risk_private.working_legs as w on w.account_id = a.account_id
    union all
    select a.account_id, f.instrument_id, f.signed_quantity, 0, 0,
      case when f.trading_day is not distinct from a.trading_day
           then abs(f.signed_quantity) * f.unit_price else 0 end, 0
    from accounts as a
    join risk_private.fills as f on f.account_id = a.account_id
  ) as u
  group by u.account_id, u.instrument_id;
end;
comment on function risk_private.recount_positions(integer) is
  'Positions as orders and fills say, and open orders of one leg: of the accounts of one scope, or '
  'of all.';

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
  ), summed as (
    select h.account_id, 0 as dimension, 0 as key_id, sum(h.quantity) as quantity,
      sum(h.open_buy) as open_buy, sum(h.open_sell) as open_sell,
      sum(h.worst_case) as gross_position, sum(h.worst_case * h.unit_notional) as gross_notional,
      sum(h.traded_notional) as traded_notional, sum(h.open_orders) as open_orders,
      sum(h.is_open) as open_positions
    from held as h
    group by h.account_id
    union all
    select h.account_id, d.dimension, d.key_id, h.quantity, h.open_buy, h.open_sell, h.worst_case,
      h.worst_case * h.unit_notional, h.traded_notional, h.open_orders, h.is_open
    from held as h
    cross join lateral (
      values (1, h.sector_id), (2, h.underlying_id), (3, h.instrument_id)
    ) as d (dimension, key_id)
    where d.key_id is not null
  ), combos as (
    select distinct w.account_id, w.client_order_id, d.dimension, d.key_id
    from risk_private.scopes as a
    join risk_private.working_legs as w on w.account_id = a.scope_id
    join risk_private.instruments as i on i.instrument_id = w.instrument_id
    cross join lateral (
      values (0, 0), (1, i.sector_id), (2, i.underlying_id), (3, i.instrument_id)
    ) as d (dimension, key_id)
    where w.legs > 1 and (recount.scope_id is null or a.chain @> array[recount.scope_id])
  )
  select
    risk_private.counter_id(m.scope_id, m.dimension, m.key_id), m.scope_id, m.dimension::smallint,
    m.key_id, sum(m.quantity), sum(m.open_buy), sum(m.open_sell), sum(m.gross_position),
    sum(m.gross_notional), sum(m.traded_notional), sum(m.open_orders)::integer,
    sum(m.open_positions)::integer, 0::bigint
  from (
    select k.scope_id, h.*
    from kept as k
    join summed as h on h.account_id = k.account_id and h.dimension = k.dimension
    union all
    select k.scope_id, c.account_id, c.dimension, c.key_id, 0, 0, 0, 0, 0, 0, 1, 0
    from kept as k
    join combos as c on c.account_id = k.account_id and c.dimension = k.dimension
  ) as m
  where m.key_id is not null
  group by m.scope_id, m.dimension, m.key_id;
end;
comment on function risk_private.recount(integer) is
  'Counters as orders, fills and carried values say: of one scope in every dimension, or of all '
  'in those they track.';

-- 79_recount_greeks.sql
-- Exposures recomputed from orders, fills and the values that positions carry.

create function risk_private.recount_parts(account_id integer)
returns setof risk_private.exposure_part
language sql stable
begin atomic
  select p.account_id, p.instrument_id, null::text, 1, r.quantity,
    w.worst_case * abs(p.unit_dollar_delta),
    case when p.has_greeks or w.worst_case = 0 then 0 else 1 end,
    p.unit_delta, p.unit_gamma, p.unit_dollar_delta, p.unit_dollar_gamma, p.unit_vega, p.unit_theta
  from risk_private.recount_positions(recount_parts.account_id) as r
  join risk_private.positions as p
    on p.account_id = r.account_id and p.instrument_id = r.instrument_id
  cross join lateral (
    select risk_private.worst_case(r.quantity, r.open_buy, r.open_sell) as worst_case
  ) as w
  union all
  select o.*
  from risk_private.order_parts(array(
    select w from risk_private.working_legs as w
    where w.account_id = recount_parts.account_id), 1) as o;
end;
comment on function risk_private.recount_parts(integer) is
  'The parts of all that orders and fills say of an account, at carried values.';

create function risk_private.recount_exposures(scope_id integer default null)
returns setof risk_private.exposures
language sql stable
begin atomic
  select x.counter_id, x.scope_id, x.dimension, x.key_id,
    sum(x.delta), sum(x.delta_up), sum(x.delta_down), sum(x.gamma), sum(x.gamma_up),
    sum(x.gamma_down), sum(x.dollar_delta), sum(x.dollar_delta_up), sum(x.dollar_delta_down),
    sum(x.dollar_gamma), sum(x.dollar_gamma_up), sum(x.dollar_gamma_down), sum(x.vega),
    sum(x.vega_up), sum(x.vega_down), sum(x.theta), sum(x.theta_up), sum(x.theta_down),
    sum(x.gross_exposure), sum(x.unknown)::integer
  from risk_private.scopes as a
  cross join lateral risk_private.sum_exposures(array(
    select p from risk_private.recount_parts(a.scope_id) as p)) as x
  where a.is_leaf
    and exists (
      select from risk_private.scopes as s
      where s.scope_id = any (a.chain) and pg_catalog.cardinality(s.exposure_dimensions) > 0)
    and (recount_exposures.scope_id is null or x.scope_id = recount_exposures.scope_id)
    and (recount_exposures.scope_id is null or a.chain @> array[recount_exposures.scope_id])
  group by x.counter_id, x.scope_id, x.dimension, x.key_id;
end;
comment on function risk_private.recount_exposures(integer) is
  'Exposures as orders, fills and carried values say: of one scope, or of all.';

-- 79_verify_money.sql
-- Proof of the money: cash, cost, P&L and equity recomputed from executions, postings and carried
-- values.

create function risk_private.recount_realized()
returns table (held risk_private.positions, symbol text, cost numeric, average_price numeric,
  realized numeric, fees numeric)
language sql stable
begin atomic
  with replayed as (
    select f.account_id, f.instrument_id, sum((f.replayed).cost) filter (where f.is_last) as cost,
      sum((f.replayed).realized * f.rate) filter (where d.is_today) as realized,
      sum(f.fee * f.rate) filter (where d.is_today) as fees
    from risk_private.replayed_fills as f
    join risk_private.scopes as s on s.scope_id = f.account_id
    cross join lateral (select f.trading_day is not distinct from s.trading_day as is_today) as d
    group by f.account_id, f.instrument_id
  ), late as (
    select f.account_id, f.instrument_id, sum(c.late_realized) as realized, sum(c.late_fees) as fees
    from risk_private.fill_corrections as c
    join risk_private.fills as f on f.account_id = c.account_id and f.exec_id = c.exec_id
    join risk_private.scopes as s
      on s.scope_id = c.account_id and s.trading_day is not distinct from c.trading_day
    group by f.account_id, f.instrument_id
  )
  select p, i.symbol, coalesce(r.cost, 0),
    risk_private.average_price(coalesce(r.cost, 0), p.quantity, i.multiplier),
    coalesce(r.realized, 0) + coalesce(l.realized, 0), coalesce(r.fees, 0) + coalesce(l.fees, 0)
  from risk_private.positions as p
  join risk_private.instruments as i on i.instrument_id = p.instrument_id
  left join replayed as r on r.account_id = p.account_id and r.instrument_id = p.instrument_id
  left join late as l on l.account_id = p.account_id and l.instrument_id = p.instrument_id;
end;
comment on function risk_private.recount_realized() is
  'Every position, with its cost, its average price, and what today realized and cost in fees, as '
  'replayed from its executions.';

create function risk_private.recount_cash()
returns table (account_id integer, currency text, amount numeric, cost numeric)
language sql stable
begin atomic
  select u.account_id, u.currency, sum(u.amount), sum(u.cost)
  from (
    select p.account_id, p.currency, p.amount, 0::numeric as cost
    from risk_private.cash_postings as p
    union all
    select f.account_id, i.currency,
      case when risk_private.is_in_kind(f.kind) then 0 else -f.signed_quantity * f.unit_amount end
        - f.fee, 0
    from risk_private.fills as f
    join risk_private.instruments as i on i.instrument_id = f.instrument_id
    where f.adjustment_id is null
    union all
    select p.account_id, i.currency, 0, p.cost
    from risk_private.positions as p
    join risk_private.instruments as i on i.instrument_id = p.instrument_id
    where p.cost <> 0
  ) as u
  group by u.account_id, u.currency;
end;
comment on function risk_private.recount_cash() is
  'Cash and cost per account and currency, as postings, executions and positions say.';

create function risk_private.recount_equities()
returns table (account_id integer, equity numeric, unknown bigint, cash numeric, book numeric,
  realized numeric, fees numeric, income numeric, flows numeric)
language sql stable
begin atomic
  select s.scope_id, c.cash + v.value, c.unknown, c.cash, c.book, v.realized, v.fees, p.income,
    p.flows + k.flows + c.flows
  from risk_private.scopes as s
  cross join lateral (
    select coalesce(sum(b.amount * b.rate), 0) as cash,
      coalesce(sum((b.amount + b.cost) * b.rate), 0) as book,
      count(*) filter (where b.rate is null) as unknown,
      coalesce(sum(b.made_known) filter (
        where b.made_known_on is not distinct from s.trading_day), 0) as flows
    from risk_private.cash_balances as b where b.account_id = s.scope_id
  ) as c
  cross join lateral (
    select coalesce(sum(q.quantity * q.unit_value), 0) as value,
      coalesce(sum(q.realized_pnl_today + q.fees_today), 0) as realized,
      coalesce(sum(q.fees_today), 0) as fees
    from risk_private.positions as q where q.account_id = s.scope_id
  ) as v
  cross join lateral (
    select coalesce(sum(g.amount * g.rate) filter (where risk_private.is_flow(g.reason)), 0)
        as flows,
      coalesce(sum(g.amount * g.rate) filter (where not risk_private.is_flow(g.reason)), 0)
        as income
    from risk_private.cash_postings as g
    where g.account_id = s.scope_id and g.trading_day is not distinct from s.trading_day
  ) as p
  cross join lateral (
    select coalesce(sum(f.signed_quantity * f.unit_amount * f.rate), 0) + (
      select coalesce(sum(x.late_flows), 0) from risk_private.fill_corrections as x
      where x.account_id = s.scope_id and x.trading_day is not distinct from s.trading_day
    ) as flows
    from risk_private.fills as f
    where f.account_id = s.scope_id and risk_private.is_in_kind(f.kind)
      and f.trading_day is not distinct from s.trading_day
  ) as k
  where s.is_leaf;
end;
comment on function risk_private.recount_equities() is
  'The equity of every account and what moved it today, as balances, positions, postings and '
  'executions say.';

create function risk_private.money_differences()
returns table (scope_id integer, dimension text, measure text, stored numeric, expected numeric)
language sql stable
begin atomic
  select (r.held).account_id, 'position:' || r.symbol, m.measure, m.stored, m.expected
  from risk_private.recount_realized() as r
  cross join lateral (
    values ('cost', (r.held).cost, r.cost),
      ('average_price', (r.held).average_price, r.average_price),
      ('realized_pnl_today', (r.held).realized_pnl_today, r.realized - r.fees),
      ('fees_today', (r.held).fees_today, r.fees)
  ) as m (measure, stored, expected)
  where m.stored <> m.expected
  union all
  select coalesce(b.account_id, r.account_id), 'cash:' || coalesce(b.currency, r.currency),
    m.measure, m.stored, m.expected
  from risk_private.cash_balances as b
  full join risk_private.recount_cash() as r
    on r.account_id = b.account_id and r.currency = b.currency
  cross join lateral (
    values ('amount', b.amount, r.amount), ('cost', b.cost, r.cost)
  ) as m (measure, stored, expected)
  where coalesce(m.stored, 0) <> coalesce(m.expected, 0)
  union all
  select r.account_id, 'all', m.measure, m.stored, m.expected
  from risk_private.recount_equities() as r
  left join risk_private.equities as e on e.scope_id = r.account_id
  cross join lateral (
    select e.known_equity > e.peak and (risk_private.is_between_rates(r.account_id)
      or exists (select from risk_private.moving_rates)) as is_between
  ) as k
  cross join lateral (
    values ('equity', e.known_equity, r.equity), ('unknown_equity', e.unknown, r.unknown),
      ('cash', e.cash, r.cash), ('book', e.book, r.book), ('realized', e.realized, r.realized),
      ('fees', e.fees, r.fees), ('income', e.income, r.income), ('flows', e.flows, r.flows),
      ('peak', case when k.is_between then e.known_equity else least(e.peak, e.known_equity) end,
        e.known_equity)
  ) as m (measure, stored, expected)
  where m.stored is distinct from m.expected
  union all
  select s.scope_id, 'all', m.measure, m.stored, m.expected
  from risk_private.scopes as s
  left join risk_private.equities as e on e.scope_id = s.scope_id
  cross join lateral (
    select sum(b.known_equity) as known_equity, sum(b.unknown) as unknown, sum(b.cash) as cash,
      sum(b.book) as book, sum(b.realized) as realized, sum(b.fees) as fees,
      sum(b.income) as income, sum(b.flows) as flows, sum(b.currency_pnl) as currency_pnl,
      sum(b.known_start) as known_start, sum(b.unstarted) as unstarted,
      sum(b.start_unrealized) as start_unrealized
    from risk_private.equities as b
    join risk_private.scopes as c on c.scope_id = b.scope_id
    where c.parent_id = s.scope_id
  ) as t
  cross join lateral (
    values ('equity', e.known_equity, t.known_equity), ('unknown_equity', e.unknown, t.unknown),
      ('cash', e.cash, t.cash), ('book', e.book, t.book), ('realized', e.realized, t.realized),
      ('fees', e.fees, t.fees), ('income', e.income, t.income), ('flows', e.flows, t.flows),
      ('currency_pnl', e.currency_pnl, t.currency_pnl),
      ('start_equity', e.known_start, t.known_start), ('unstarted', e.unstarted, t.unstarted),
      ('start_unrealized', e.start_unrealized, t.start_unrealized)
  ) as m (measure, stored, expected)
  where not s.is_leaf and m.stored is distinct from coalesce(m.expected, 0);
end;
comment on function risk_private.money_differences() is
  'Every difference between the money that is stored and what it is made of; none when sound.';

-- 79_verify_payoffs.sql
-- Proof of the payoffs that are kept.

create function risk_private.payoff_differences()
returns table (scope_id integer, underlying_id integer, measure text, stored numeric,
  expected numeric)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select p.account_id, p.underlying_id, m.measure, m.stored, m.expected
  from risk_private.payoffs as p
  cross join lateral risk_private.payoff_of(
    risk_private.payoff_legs(p.account_id, p.underlying_id)) as r
  cross join lateral (
    select pg_catalog.format('%s at %s on %s', v.measure, price, horizon) as measure, v.stored,
      v.expected
    from unnest((p.payoff).horizons, (p.payoff).prices, (p.payoff).losses, (p.payoff).slopes,
      (p.payoff).put_losses) as k (horizon, price, loss, slope, put_loss)
    full join unnest(r.horizons, r.prices, r.losses, r.slopes, r.put_losses)
      as n (horizon, price, loss, slope, put_loss) using (horizon, price)
    cross join lateral (
      values ('loss', k.loss, n.loss), ('slope', k.slope, n.slope),
        ('put loss', k.put_loss, n.put_loss)
    ) as v (measure, stored, expected)
    union all
    select 'costs', (p.payoff).costs, r.costs
  ) as m
  where m.stored is distinct from m.expected;
end
$$;
comment on function risk_private.payoff_differences() is
  'Where a payoff that is kept differs from that of the positions and open orders, point by point.';

-- 80_verify.sql
-- Proof: everything that is summed, beside what it summarises.

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

create function risk_private.position_differences()
returns table (scope_id integer, dimension text, measure text, stored numeric, expected numeric)
language sql stable
begin atomic
  select coalesce(p.account_id, r.account_id), 'position:' || i.symbol, m.measure, m.stored,
    m.expected
  from risk_private.positions as p
  full join risk_private.recount_positions() as r
    on r.account_id = p.account_id and r.instrument_id = p.instrument_id
  join risk_private.instruments as i on i.instrument_id = coalesce(p.instrument_id, r.instrument_id)
  cross join lateral (
    values ('quantity', p.quantity, r.quantity), ('open_buy', p.open_buy, r.open_buy),
      ('open_sell', p.open_sell, r.open_sell)
  ) as m (measure, stored, expected)
  where coalesce(m.stored, 0) <> coalesce(m.expected, 0);
end;
comment on function risk_private.position_differences() is
  'Positions that differ from what orders and fills say.';

create function risk_private.counter_differences()
returns table (scope_id integer, dimension text, measure text, stored numeric, expected numeric)
language sql stable
begin atomic
  select coalesce(c.scope_id, r.scope_id),
    risk_private.dimension_name(coalesce(c.dimension, r.dimension), coalesce(c.key_id, r.key_id)),
    m.measure,
    m.stored, m.expected
  from risk_private.counters as c
  full join risk_private.recount() as r on r.counter_id = c.counter_id
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
comment on function risk_private.counter_differences() is
  'Counters that differ from what orders, fills and carried values say.';

create function risk_private.obligation_differences()
returns table (scope_id integer, dimension text, measure text, stored numeric, expected numeric)
language sql stable
begin atomic
  select coalesce(o.scope_id, r.scope_id),
    risk_private.dimension_name(coalesce(o.dimension, r.dimension), coalesce(o.key_id, r.key_id)),
    m.measure, m.stored, m.expected
  from risk_private.obligations as o
  full join risk_private.recount_obligations() as r on r.counter_id = o.counter_id
  cross join lateral (
    values
      ('bull', o.bull, r.bull), ('bear', o.bear, r.bear), ('max_loss', o.max_loss, r.max_loss),
      ('unlimited', o.unlimited, r.unlimited), ('cash_need', o.cash_need, r.cash_need),
      ('held_bull', o.held_bull, r.held_bull), ('held_bear', o.held_bear, r.held_bear),
      ('held_loss', o.held_loss, r.held_loss),
      ('held_unlimited', o.held_unlimited, r.held_unlimited),
      ('held_need', o.held_need, r.held_need)
  ) as m (measure, stored, expected)
  where coalesce(m.stored, 0) <> coalesce(m.expected, 0);
end;
comment on function risk_private.obligation_differences() is
  'Obligations that differ from what positions and open orders say.';

create function risk_private.exposure_differences()
returns table (scope_id integer, dimension text, measure text, stored numeric, expected numeric)
language sql stable
begin atomic
  select coalesce(e.scope_id, r.scope_id),
    risk_private.dimension_name(coalesce(e.dimension, r.dimension), coalesce(e.key_id, r.key_id)),
    m.measure, m.stored, m.expected
  from risk_private.exposures as e
  full join risk_private.recount_exposures() as r on r.counter_id = e.counter_id
  cross join lateral (
    values
      ('delta', e.delta, r.delta), ('delta_up', e.delta_up, r.delta_up),
      ('delta_down', e.delta_down, r.delta_down), ('gamma', e.gamma, r.gamma),
      ('gamma_up', e.gamma_up, r.gamma_up), ('gamma_down', e.gamma_down, r.gamma_down),
      ('dollar_delta', e.dollar_delta, r.dollar_delta),
      ('dollar_delta_up', e.dollar_delta_up, r.dollar_delta_up),
      ('dollar_delta_down', e.dollar_delta_down, r.dollar_delta_down),
      ('dollar_gamma', e.dollar_gamma, r.dollar_gamma),
      ('dollar_gamma_up', e.dollar_gamma_up, r.dollar_gamma_up),
      ('dollar_gamma_down', e.dollar_gamma_down, r.dollar_gamma_down),
      ('vega', e.vega, r.vega), ('vega_up', e.vega_up, r.vega_up),
      ('vega_down', e.vega_down, r.vega_down), ('theta', e.theta, r.theta),
      ('theta_up', e.theta_up, r.theta_up), ('theta_down', e.theta_down, r.theta_down),
      ('gross_exposure', e.gross_exposure, r.gross_exposure), ('unknown', e.unknown, r.unknown)
  ) as m (measure, stored, expected)
  where coalesce(m.stored, 0) <> coalesce(m.expected, 0);
end;
comment on function risk_private.exposure_differences() is
  'Exposures that differ from what orders, fills and carried values say.';

create function risk_private.differences(part risk_private.recounted)
returns table (scope_id integer, dimension text, measure text, stored numeric, expected numeric)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  case part
    when 'positions' then return query select d.* from risk_private.position_differences() as d;
    when 'counters' then return query select d.* from risk_private.counter_differences() as d;
    when 'obligations' then return query select d.* from risk_private.obligation_differences() as d;
    when 'payoffs' then return query
      select d.scope_id, risk_private.dimension_name(2, d.underlying_id), d.measure, d.stored,
        d.expected
      from risk_private.payoff_differences() as d;
    when 'exposures' then return query select d.* from risk_private.exposure_differences() as d;
    when 'money' then return query select d.* from risk_private.money_differences() as d;
  end case;
end
$$;
comment on function risk_private.differences(risk_private.recounted) is
  'Where one part of what is summed differs from what it summarises.';

create function risk.verify_counters()
returns table (scope text, dimension text, measure text, stored numeric, expected numeric)
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select s.code, d.dimension, d.measure, d.stored, d.expected
  from unnest(pg_catalog.enum_range(null::risk_private.recounted)) as r (part)
  cross join lateral risk_private.differences(r.part) as d
  join risk_private.scopes as s on s.scope_id = d.scope_id;
end;
comment on function risk.verify_counters() is
  'Recomputes every position, counter, exposure, obligation, payoff, cash balance and equity from '
  'orders, fills, postings and carried values: one row per difference, none when sound.';

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
grant execute on procedure risk.bust_fill, risk.correct_fill to risk_execution;
grant execute on function risk_private.bust_fill, risk_private.correct_fill to risk_execution;
grant execute on procedure risk.adjust_instrument to risk_admin;
grant execute on function risk_private.adjust_instrument to risk_admin;
grant execute on procedure risk.post_cash to risk_execution, risk_admin;
grant execute on function risk_private.post_cash to risk_execution, risk_admin;
grant execute on procedure risk.set_fx to risk_feed;
grant execute on function
  risk_private.set_fx, risk_private.accounts_in, risk_private.recarry, risk_private.end_rate
to risk_feed;
grant execute on function
  risk_private.record_fill, risk_private.record_trade, risk_private.fill_detail,
  risk_private.ack_order, risk_private.release_order, risk_private.dispatch_order,
  risk_private.dispatch_answer, risk_private.end_replace
to risk_execution;

-- Market data
grant execute on procedure risk.set_marks, risk.remark_underlying to risk_feed;
grant execute on procedure risk.revalue to risk_feed, risk_admin, risk_worker;
grant execute on procedure risk_private.revalue_sparingly to risk_feed, risk_admin, risk_worker;
grant execute on procedure risk_private.follow to risk_feed, risk_admin;
grant execute on function risk_private.worker_follows to risk_feed, risk_admin;
grant execute on function
  risk_private.next_pass, risk_private.revalue, risk_private.rested, risk_private.end_pass
to risk_feed, risk_admin, risk_worker;
grant execute on function risk_private.set_marks, risk_private.remark_underlying to risk_feed;

-- History
grant execute on procedure risk.load_closes to risk_feed, risk_admin;
grant execute on function risk_private.load_closes to risk_feed, risk_admin;
grant select on
  risk.portfolio_greeks, risk.return_history, risk.correlation_matrix, risk.daily_summary
to risk_admin, risk_worker, risk_analyst, risk_auditor;
grant execute on procedure risk.refresh_views to risk_admin, risk_worker;
grant execute on function risk_private.views_to_refresh, risk_private.refresh_materialized
to risk_admin, risk_worker;

grant execute on procedure risk.set_indicator to risk_feed;
grant execute on function risk_private.set_indicator to risk_feed;

-- Circuit breakers
grant execute on procedure
  risk.define_breaker, risk.remove_breaker, risk.trip_breaker, risk.reset_breaker
to risk_admin;
grant execute on function
  risk_private.define_breaker, risk_private.remove_breaker, risk_private.trip_breaker,
  risk_private.reset_breaker, risk_private.breaker_place
to risk_admin;
grant execute on procedure risk_private.cancel_halted to risk_worker;
grant execute on function
  risk_private.sweep, risk_private.accounts_halted, risk_private.cancel_halted_orders
to risk_worker;

-- What options are worth: arithmetic that says nothing of anybody
grant execute on function
  risk.option_greeks, risk.implied_volatility, risk_private.option_problem,
  risk_private.require_option_terms, risk_private.implied_volatility, risk_private.find_deviation,
  risk_private.fail
to risk_trader, risk_execution, risk_feed, risk_admin, risk_worker, risk_analyst, risk_auditor;

-- Stopping
grant execute on procedure risk.cancel_orders, risk_private.cancel_orders
to risk_trader, risk_admin;
grant execute on function risk_private.accounts_to_cancel, risk_private.request_cancels
to risk_trader, risk_admin;
grant execute on function risk_private.flush, risk_private.flush_by_commit
to risk_trader, risk_execution, risk_admin;

-- Administration
grant execute on procedure
  risk.create_scope, risk.upsert_instruments, risk.grant_trading, risk.revoke_trading,
  risk.load_position_limits, risk.apply_position_limits,
  risk.set_limit, risk.set_limits, risk.remove_limit, risk.set_setting, risk.set_trading_state,
  risk.set_instrument_status, risk.open_day
to risk_admin;
grant execute on function
  risk_private.create_scope, risk_private.upsert_instruments, risk_private.grant_trading,
  risk_private.load_position_limits, risk_private.apply_position_limits,
  risk_private.revoke_trading, risk_private.set_limit, risk_private.set_limits,
  risk_private.remove_limit, risk_private.set_setting, risk_private.set_trading_state,
  risk_private.set_instrument_status, risk_private.set_trading_date, risk_private.roll_account
to risk_admin;
grant execute on function risk.verify_counters
to risk_admin, risk_worker, risk_analyst, risk_auditor;

-- The worker. Every function checks its epoch; those without one change nothing.
grant execute on function
  risk_private.lease, risk_private.take_lease, risk_private.take_lease_at,
  risk_private.terminate_worker, risk_private.keep_lease, risk_private.release_lease,
  risk_private.waiting, risk_private.read_events, risk_private.handle_events,
  risk_private.bury_event,
  risk_private.bound_queues, risk_private.evaluate, risk_private.has_unfollowed,
  risk_private.count_breaches,
  risk_private.begin_due_day,
  risk_private.roll_account_at, risk_private.tell_lapsed_limits, risk_private.tell_warnings,
  risk_private.parts_to_recount, risk_private.reconcile, risk_private.views_to_refresh,
  risk_private.refresh_view
to risk_worker;

-- Limits for caches; whose limits, the function checks.
grant execute on function
  risk.hot_limits, risk.limit_cache, risk_private.hot_limits, risk_private.limit_cache
to risk_trader, risk_admin, risk_worker, risk_analyst, risk_auditor;

-- Reading. The functions are those that views call: they run as the reader.
grant select on
  risk.orders, risk.open_orders, risk.decisions, risk.violations, risk.fills, risk.positions,
  risk.cash, risk.fill_corrections
to risk_trader, risk_execution, risk_admin, risk_worker, risk_analyst, risk_auditor;
grant select on risk.instruments, risk.marks, risk.indicators, risk.adjustments
to risk_trader, risk_execution, risk_feed, risk_admin, risk_worker, risk_analyst, risk_auditor;
grant select on
  risk.scopes, risk.trading_states, risk.breakers, risk.breaker_events, risk.breaker_conditions,
  risk.queue_status, risk.health
to risk_execution, risk_admin, risk_worker, risk_analyst, risk_auditor;
grant select on
  risk.settings, risk.trading_grants, risk.limits, risk.limit_history, risk.limit_utilization,
  risk.exposure, risk.concentration, risk.same_side_positions, risk.position_limits, risk.pnl
to risk_admin, risk_worker, risk_analyst, risk_auditor;
grant execute on function
  risk_private.order_id, risk_private.visible_accounts, risk_private.is_settled,
  risk_private.present_trading_date
to risk_trader, risk_execution, risk_admin, risk_worker, risk_analyst, risk_auditor;
grant execute on function risk_private.clock
to risk_execution, risk_admin, risk_worker, risk_analyst, risk_auditor;
grant execute on function
  risk_private.counter_id, risk_private.greek_sides, risk_private.worst_case,
  risk_private.accepted_since, risk_private.daily_loss, risk_private.drawdown_pct,
  risk_private.concentration_pct, risk_private.side
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
