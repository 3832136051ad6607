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
