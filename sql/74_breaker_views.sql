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
