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
