-- Conditions on what is ordered. A rate is judged at every order that the last evaluation could not
-- see, and now; the exact sliding count is made only where it could come near the threshold.

create function risk_private.is_counted(reason text) returns boolean
language sql immutable
return reason not in (
  'TRADING_HALTED', 'CIRCUIT_BREAKER_TRIPPED', 'REDUCE_ONLY', 'STALE_DATA');
comment on function risk_private.is_counted(text) is
  'Whether a refusal counts as a reject: not one that a halt, a breaker or stale data explains.';

create function risk_private.judged_from(w risk_private.watch) returns timestamptz
language sql immutable
return greatest(w.since, w.seen_at - interval '10 seconds');
comment on function risk_private.judged_from(risk_private.watch) is
  'From when on there may be orders or fills that the last evaluation could not see: those that '
  'were under way then.';

create function risk_private.window_of(w risk_private.watch) returns interval
language sql immutable
return pg_catalog.make_interval(secs => (w.parameters ->> 'window')::double precision);
comment on function risk_private.window_of(risk_private.watch) is 'The breaker''s window.';

create function risk_private.is_about(w risk_private.watch, instrument_ids integer[])
returns boolean
language sql stable
return w.underlying_id = 0 or exists (
  select from risk_private.instruments as i
  where i.instrument_id = any (instrument_ids) and i.underlying_id = w.underlying_id);
comment on function risk_private.is_about(risk_private.watch, integer[]) is
  'Whether one of the instruments is of the breaker''s underlying, if it has one.';

create function risk_private.first_new_order(watches risk_private.watch[]) returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select min(o.decided_at) from risk_private.orders as o
    where o.decided_at > (select min(risk_private.judged_from(w)) from unnest(watches) as w)
      and o.decided_xid >= (select min(w.seen_xid) from unnest(watches) as w));
end
$$;
comment on function risk_private.first_new_order(risk_private.watch[]) is
  'When the first order was decided that is still to be judged; NULL where there is none.';

create function risk_private.order_flow(watches risk_private.watch[], at timestamptz)
returns table (breaker_id integer, orders bigint, accepted bigint, rejects bigint,
  most_orders bigint, most_accepted bigint, most_rejects bigint, least_accepted bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_underlying_ids integer[] := array(
    select distinct w.underlying_id from unnest(watches) as w where w.underlying_id <> 0);
  v_from timestamptz := least(at, risk_private.first_new_order(watches));
  v_until timestamptz := greatest(at, (select max(o.decided_at) from risk_private.orders as o));
  v_window interval;
begin
  for v_window in
    select distinct risk_private.window_of(w) from unnest(watches) as w
  loop
    return query
    with decided as materialized (
      select o.account_id, case when v_underlying_ids <> '{}' then o.instrument_ids end
          as instrument_ids,
        o.decided_at > at - v_window as is_now,
        count(*) as orders, count(*) filter (where o.decision = 'ACCEPTED') as accepted,
        count(*) filter (where o.decision = 'REJECTED' and risk_private.is_counted(o.reason))
          as rejects,
        count(*) filter (where o.decision = 'ACCEPTED' and o.decided_at < v_from
          and o.decided_at > v_until - v_window) as least_accepted
      from risk_private.orders as o
      where o.decided_at > v_from - v_window
      group by 1, 2, 3
    ), placed as (
      select d.account_id, u.underlying_id, d.is_now, sum(d.orders) as orders,
        sum(d.accepted) as accepted, sum(d.rejects) as rejects,
        sum(d.least_accepted) as least_accepted
      from decided as d
      cross join lateral (
        select 0 as underlying_id
        union
        select i.underlying_id from risk_private.instruments as i
        where i.instrument_id = any (d.instrument_ids) and i.underlying_id = any (v_underlying_ids)
      ) as u
      group by 1, 2, 3
    ), flow as (
      select c.scope_id, p.underlying_id,
        sum(p.orders) filter (where p.is_now) as orders,
        sum(p.accepted) filter (where p.is_now) as accepted,
        sum(p.rejects) filter (where p.is_now) as rejects,
        sum(p.orders) as most_orders, sum(p.accepted) as most_accepted,
        sum(p.rejects) as most_rejects, sum(p.least_accepted) as least_accepted
      from placed as p
      join risk_private.scopes as s on s.scope_id = p.account_id
      cross join unnest(s.chain) as c (scope_id)
      group by 1, 2
    )
    select w.breaker_id, coalesce(f.orders, 0)::bigint, coalesce(f.accepted, 0)::bigint,
      coalesce(f.rejects, 0)::bigint, coalesce(f.most_orders, 0)::bigint,
      coalesce(f.most_accepted, 0)::bigint, coalesce(f.most_rejects, 0)::bigint,
      coalesce(f.least_accepted, 0)::bigint
    from unnest(watches) as w
    left join flow as f on f.scope_id = w.scope_id and f.underlying_id = w.underlying_id
    where risk_private.window_of(w) = v_window;
  end loop;
end
$$;
comment on function risk_private.order_flow(risk_private.watch[], timestamptz) is
  'Orders decided, accepted and counted as rejects in each breaker''s window as it is now; as '
  'many as there can have been in any window that is still to be judged; and how many were '
  'accepted in all of those.';

create function risk_private.worst_flow(
  w risk_private.watch, is_ratio boolean, out value numeric, out as_of timestamptz)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_window interval := risk_private.window_of(w);
  v_from timestamptz := risk_private.first_new_order(array[w]);
begin
  execute pg_catalog.format($query$
    with decided as (
      select o.decided_at, o.decided_xid,
        count(*) over past as orders,
        count(*) filter (where o.decision = 'ACCEPTED') over past as accepted,
        count(*) filter (where o.decision = 'REJECTED' and risk_private.is_counted(o.reason))
          over past as rejects
      from risk_private.scopes as s
      join risk_private.orders as o on o.account_id = s.scope_id
      where s.is_leaf and $1.scope_id = any (s.chain) and o.decided_at > $2 - %1$L::interval
        and ($1.underlying_id = 0 or risk_private.is_about($1, o.instrument_ids))
      window past as (order by o.decided_at
        range between (%1$L::interval - interval '1 microsecond') preceding and current row)
    )
    select m.value, d.decided_at
    from decided as d
    cross join lateral (
      select case when not $3 then d.orders::numeric
        when d.accepted + d.rejects < 20 then 0
        else trim_scale(round(d.rejects * 100::numeric / (d.accepted + d.rejects), 12)) end as value
    ) as m
    where d.decided_at >= $2 and d.decided_xid >= $1.seen_xid
    order by m.value desc, d.decided_at
    limit 1$query$, v_window)
  into value, as_of using w, v_from, is_ratio;
end
$$;
comment on function risk_private.worst_flow(risk_private.watch, boolean) is
  'The highest rate in a window that ends with an order still to be judged: orders, or rejects '
  'in percent.';

create function risk_private.observe_order_rate(watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with flow as materialized (
    select w, f.orders::numeric as value, f.most_orders >= 0.9 * w.threshold as is_near
    from unnest(watches) as w
    join risk_private.order_flow(watches, at) as f on f.breaker_id = w.breaker_id
  ), near as materialized (
    select (f.w).breaker_id, k.value, k.as_of
    from flow as f cross join lateral risk_private.worst_flow(f.w, false) as k
    where f.is_near
  )
  select (f.w).breaker_id, f.value, at,
    greatest(f.value, k.value), case when k.value > f.value then k.as_of else at end, null::text
  from flow as f
  left join near as k on k.breaker_id = (f.w).breaker_id;
end
$$;
comment on function risk_private.observe_order_rate(risk_private.watch[], timestamptz) is
  'Orders and replaces decided within the window.';

create function risk_private.observe_reject_rate(watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with flow as materialized (
    select w, case when f.accepted + f.rejects < 20 then 0
        else trim_scale(round(f.rejects * 100::numeric / (f.accepted + f.rejects), 12)) end
        as value,
      f.most_accepted + f.most_rejects >= 20 and f.most_rejects * 100
        >= 0.9 * w.threshold * greatest(20, f.most_rejects + f.least_accepted) as is_near
    from unnest(watches) as w
    join risk_private.order_flow(watches, at) as f on f.breaker_id = w.breaker_id
  ), near as materialized (
    select (f.w).breaker_id, k.value, k.as_of
    from flow as f cross join lateral risk_private.worst_flow(f.w, true) as k
    where f.is_near
  )
  select (f.w).breaker_id, f.value, at,
    greatest(f.value, k.value), case when k.value > f.value then k.as_of else at end, null::text
  from flow as f
  left join near as k on k.breaker_id = (f.w).breaker_id;
end
$$;
comment on function risk_private.observe_reject_rate(risk_private.watch[], timestamptz) is
  'Rejects in percent of the orders within the window.';
