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
