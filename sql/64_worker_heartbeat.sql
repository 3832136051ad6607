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
