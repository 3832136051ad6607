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
