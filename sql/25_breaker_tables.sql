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
