-- How many limits are exceeded. Where there are many, to find out takes longer than an evaluation
-- may: then a job of the worker counts them, and evaluations go by what it found last.

create table risk_private.breach_counts (
  scope_id integer not null,
  underlying_id integer not null,
  breaches bigint not null,
  counted_at timestamptz not null,
  primary key (scope_id, underlying_id)
);
comment on table risk_private.breach_counts is
  'How many limits of a scope and below are exceeded by what is filled, per underlying (0: limits '
  'that are for none) and, under scope 0, when that was counted. Kept where there are many limits.';

create function risk_private.has_many_limits() returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select count(*) > 100 from (select from risk_private.limits_in_force as l limit 101) as f);
end
$$;
comment on function risk_private.has_many_limits() is
  'Whether there are too many limits for each evaluation to look at.';

create function risk_private.breached_limits()
returns table (scope_id integer, underlying_id integer, breaches bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select c.scope_id, coalesce(u.underlying_id, k.underlying_id, 0), count(*)
  from risk.limit_utilization as l
  join risk_private.scopes as s on s.code = l.scope
  cross join unnest(s.chain) as c (scope_id)
  left join risk_private.instruments as u on u.symbol = l.underlying
  left join risk_private.instruments as k on k.symbol = l.instrument
  where l.used > l.limit_value
  group by 1, 2;
end
$$;
comment on function risk_private.breached_limits() is
  'How many limits of each scope and below are exceeded, per underlying; 0: those for none.';

-- Lock order: the lease, once everything is counted.
create function risk_private.count_breaches(epoch bigint) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := risk_private.clock();
  v_is_needed boolean := risk_private.has_many_limits() and exists (
    select from risk_private.breakers as b where b.condition = 'limit_breach');
  v_counts risk_private.breach_counts[] := '{}';
begin
  if v_is_needed then
    v_counts := array(
      select row(l.scope_id, l.underlying_id, l.breaches, v_at)::risk_private.breach_counts
      from risk_private.breached_limits() as l);
  end if;
  perform risk_private.require_epoch(epoch);
  if v_is_needed then
    delete from risk_private.breach_counts;
    insert into risk_private.breach_counts values (0, 0, 0, v_at);
    insert into risk_private.breach_counts select c.* from pg_catalog.unnest(v_counts) as c;
  end if;
  return v_is_needed;
end
$$;
comment on function risk_private.count_breaches(bigint) is
  'Counts exceeded limits for the breakers that watch them, where there are many limits. Returns '
  'whether that was so. Raises RK409 when the epoch is over.';

create function risk_private.observe_limit_breach(watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := at;
  v_counts risk_private.breach_counts[];
begin
  if risk_private.has_many_limits() then
    v_counts := array(select c from risk_private.breach_counts as c);
    v_at := (
      select c.counted_at from unnest(v_counts) as c
      where c.scope_id = 0 and c.counted_at > at - interval '1 minute');
  else
    v_counts := array(
      select row(l.scope_id, l.underlying_id, l.breaches, at)::risk_private.breach_counts
      from risk_private.breached_limits() as l);
  end if;
  return query
  select w.breaker_id, c.value, v_at, c.value, v_at, null::text
  from unnest(watches) as w
  cross join lateral (
    select case when v_at is not null then coalesce(sum(k.breaches), 0) end as value
    from unnest(v_counts) as k
    where k.scope_id = w.scope_id and w.underlying_id in (0, k.underlying_id)
  ) as c;
end
$$;
comment on function risk_private.observe_limit_breach(risk_private.watch[], timestamptz) is
  'How many limits of the scope and below are exceeded by what is filled; NULL where that was not '
  'counted for a minute.';
