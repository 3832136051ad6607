-- The heartbeat: proof that the circuit breakers were evaluated a moment ago, on inputs that were
-- not too old. Without it decisions refuse whatever does not reduce.

create function risk_private.inputs_as_of(at timestamptz) returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_max_age double precision := (
    select min(nullif(s.max_mark_age, 0)) from risk_private.scopes as s where s.is_leaf);
  v_suspects integer[];
  v_oldest timestamptz;
begin
  if v_max_age is null then
    return at;
  end if;
  v_suspects := array(
    select i.instrument_id
    from risk_private.instruments as i
    left join risk_private.marks as m on m.instrument_id = i.instrument_id
    where not risk_private.is_fresh(m.as_of, v_max_age, at));
  if v_suspects = '{}' then
    return at;
  end if;
  select min(coalesce(m.as_of, '-infinity')) into v_oldest
  from risk_private.instruments as i
  cross join lateral (
    values (i.instrument_id), (i.underlying_id)
  ) as n (needed_id)
  join risk_private.positions as p on p.instrument_id = i.instrument_id
  join risk_private.scopes as s on s.scope_id = p.account_id
  left join risk_private.marks as m on m.instrument_id = n.needed_id
  where n.needed_id = any (v_suspects)
    and (p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0)
    and not risk_private.is_fresh(m.as_of, s.max_mark_age, at);
  return coalesce(v_oldest, at);
end
$$;
comment on function risk_private.inputs_as_of(timestamptz) is
  'How old the data are that an evaluation at that moment goes by: that moment itself where every '
  'mark of what is held or in open orders, and of its underlyings, is as fresh as its account '
  'demands; else the data time of the oldest, -infinity for one that is missing.';

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
  where (h.beat_at >= evaluated_at and h.beat_at <= v_now) is not true;
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
  v_tripped := risk_private.sweep(epoch);
  perform risk_private.beat(epoch, v_at, risk_private.inputs_as_of(v_at));
  return v_tripped;
end
$$;
comment on function risk_private.evaluate(bigint) is
  'Evaluates every circuit breaker and gives the heartbeat, in one transaction: no heartbeat '
  'without an evaluation. Returns how many breakers tripped. Raises RK409 when the epoch is over.';
