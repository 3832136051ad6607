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
