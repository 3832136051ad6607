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
