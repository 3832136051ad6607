-- Conditions on what was executed and what became of it.

create function risk_private.repeated_since(w risk_private.watch) returns timestamptz
language sql immutable
return greatest(w.since, w.tripped_at);
comment on function risk_private.repeated_since(risk_private.watch) is
  'From when on repetitions count: a trip uses up what led to it, so that a person can reset it.';

create function risk_private.first_new_fill(watches risk_private.watch[]) returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select min(f.recorded_at) from risk_private.fills as f
    where f.recorded_at > (select min(risk_private.judged_from(w)) from unnest(watches) as w)
      and f.recorded_xid >= (select min(w.seen_xid) from unnest(watches) as w));
end
$$;
comment on function risk_private.first_new_fill(risk_private.watch[]) is
  'When the first fill was recorded that is still to be judged; NULL where there is none.';

create function risk_private.fill_flow(watches risk_private.watch[], at timestamptz)
returns table (breaker_id integer, fills bigint, most_fills bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_from timestamptz := least(at, risk_private.first_new_fill(watches));
  v_period record;
begin
  for v_period in
    select p.look_back, p.since, array_agg(p.w) as watches
    from (
      select w, risk_private.window_of(w) as look_back, greatest(
        risk_private.repeated_since(w), v_from - risk_private.window_of(w)) as since
      from unnest(watches) as w
    ) as p
    group by p.look_back, p.since
  loop
    return query
    with filled as materialized (
      select f.account_id, f.client_order_id, f.instrument_id, sign(f.signed_quantity) as sign,
        count(*) filter (where f.recorded_at > at - v_period.look_back) as now,
        count(*) as most
      from risk_private.fills as f
      where f.signed_quantity <> 0 and f.recorded_at > v_period.since
        and f.client_order_id is not null
      group by 1, 2, 3, 4
    ), runs as (
      select f.account_id, i.underlying_id, sum(f.now) as now, sum(f.most) as most
      from filled as f
      join risk_private.orders as o
        on o.account_id = f.account_id and o.client_order_id = f.client_order_id
      join risk_private.instruments as i on i.instrument_id = f.instrument_id
      group by f.account_id, o.agent, f.instrument_id, f.sign, i.underlying_id
    ), flow as (
      select c.scope_id, u.underlying_id, max(r.now) as now, max(r.most) as most
      from runs as r
      join risk_private.scopes as s on s.scope_id = r.account_id
      cross join unnest(s.chain) as c (scope_id)
      cross join unnest(array[0, r.underlying_id]) as u (underlying_id)
      group by 1, 2
    )
    select w.breaker_id, coalesce(f.now, 0)::bigint, coalesce(f.most, 0)::bigint
    from unnest(v_period.watches) as w
    left join flow as f on f.scope_id = w.scope_id and f.underlying_id = w.underlying_id;
  end loop;
end
$$;
comment on function risk_private.fill_flow(risk_private.watch[], timestamptz) is
  'Most fills of one account, agent, symbol and side in each breaker''s window as it is now; and '
  'as many as there can have been in any window that is still to be judged.';

create function risk_private.worst_fill_flow(
  w risk_private.watch, out value bigint, out as_of timestamptz)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  execute pg_catalog.format($query$
    with filled as (
      select f.recorded_at, f.recorded_xid, count(*) over (
        partition by f.account_id, o.agent, f.instrument_id, sign(f.signed_quantity)
        order by f.recorded_at
        range between (%1$L::interval - interval '1 microsecond') preceding and current row)
        as fills
      from risk_private.scopes as s
      join risk_private.fills as f on f.account_id = s.scope_id
      join risk_private.orders as o
        on o.account_id = f.account_id and o.client_order_id = f.client_order_id
      where s.is_leaf and $1.scope_id = any (s.chain) and f.signed_quantity <> 0
        and f.recorded_at > greatest(
          risk_private.repeated_since($1), risk_private.judged_from($1) - %1$L::interval)
        and risk_private.is_about($1, array[f.instrument_id])
    )
    select f.fills, f.recorded_at from filled as f
    where f.recorded_at > risk_private.judged_from($1) and f.recorded_xid >= $1.seen_xid
    order by f.fills desc, f.recorded_at
    limit 1$query$, risk_private.window_of(w))
  into value, as_of using w;
end
$$;
comment on function risk_private.worst_fill_flow(risk_private.watch) is
  'Most fills of one account, agent, symbol and side in a window that ends with one still to be '
  'judged.';

create function risk_private.observe_repeated_fills(watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with flow as materialized (
    select w, f.fills as value, f.most_fills >= w.threshold as is_near
    from unnest(watches) as w
    join risk_private.fill_flow(watches, at) as f on f.breaker_id = w.breaker_id
  ), near as materialized (
    select (f.w).breaker_id, k.value, k.as_of
    from flow as f cross join lateral risk_private.worst_fill_flow(f.w) as k
    where f.is_near
  )
  select (f.w).breaker_id, f.value::numeric, at, greatest(f.value, k.value)::numeric,
    case when k.value > f.value then k.as_of else at end, null::text
  from flow as f
  left join near as k on k.breaker_id = (f.w).breaker_id;
end
$$;
comment on function risk_private.observe_repeated_fills(risk_private.watch[], timestamptz) is
  'Most fills of one account, agent, symbol and side within the window.';

create function risk_private.observe_escalation(watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with tripped as (
    select c.scope_id, e.name, e.at
    from risk_private.breaker_events as e
    join risk_private.scopes as s on s.scope_id = e.scope_id
    cross join unnest(s.chain) as c (scope_id)
    where e.event = 'TRIPPED' and e.action <> 'NOTIFY' and e.condition <> 'escalation'
      and e.at > observe_escalation.at
        - (select max(risk_private.window_of(w)) from unnest(watches) as w)
  ), counted as (
    select w.breaker_id, count(distinct t.name)::numeric as value
    from unnest(watches) as w
    left join tripped as t on t.scope_id = w.scope_id
      and t.at > greatest(w.since, observe_escalation.at - risk_private.window_of(w))
    group by w.breaker_id
  )
  select t.breaker_id, t.value, observe_escalation.at, t.value, observe_escalation.at, null::text
  from counted as t;
end
$$;
comment on function risk_private.observe_escalation(risk_private.watch[], timestamptz) is
  'How many breakers of the scope and below tripped within the window.';
