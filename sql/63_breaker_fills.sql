-- Conditions on what was executed and what became of it.

create function risk_private.repeated_since(w risk_private.watch) returns timestamptz
language sql immutable
return greatest(w.since, w.tripped_at);
comment on function risk_private.repeated_since(risk_private.watch) is
  'From when on repetitions count: a trip uses up what led to it, so that a person can reset it.';

create function risk_private.fill_flow(watches risk_private.watch[], at timestamptz)
returns table (breaker_id integer, fills bigint, most_fills bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with filled as materialized (
    select s.chain, f.account_id, o.agent, f.instrument_id, sign(f.signed_quantity) as sign,
      f.recorded_at
    from risk_private.fills as f
    join risk_private.scopes as s on s.scope_id = f.account_id
    join risk_private.orders as o
      on o.account_id = f.account_id and o.client_order_id = f.client_order_id
    where f.signed_quantity <> 0 and f.recorded_at > (
      select min(least(at, risk_private.judged_from(w)) - risk_private.window_of(w))
      from unnest(watches) as w)
  ), runs as (
    select w.breaker_id,
      count(*) filter (where f.recorded_at > at - risk_private.window_of(w)) as now,
      count(*) as most
    from unnest(watches) as w
    join filled as f
      on w.scope_id = any (f.chain) and f.recorded_at > risk_private.repeated_since(w)
      and risk_private.is_about(w, array[f.instrument_id])
    group by w.breaker_id, f.account_id, f.agent, f.instrument_id, f.sign
  )
  select w.breaker_id, coalesce(max(r.now), 0), coalesce(max(r.most), 0)
  from unnest(watches) as w
  left join runs as r on r.breaker_id = w.breaker_id
  group by w.breaker_id;
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
  select w.breaker_id, f.fills::numeric, at, greatest(f.fills, k.value)::numeric,
    case when k.value > f.fills then k.as_of else at end, null::text
  from unnest(watches) as w
  join risk_private.fill_flow(watches, at) as f on f.breaker_id = w.breaker_id
  left join lateral risk_private.worst_fill_flow(w) as k on f.most_fills >= w.threshold;
end
$$;
comment on function risk_private.observe_repeated_fills(risk_private.watch[], timestamptz) is
  'Most fills of one account, agent, symbol and side within the window.';

create function risk_private.observe_limit_breach(watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with breached as materialized (
    select s.chain, coalesce(u.underlying_id, k.underlying_id) as underlying_id
    from risk.limit_utilization as l
    join risk_private.scopes as s on s.code = l.scope
    left join risk_private.instruments as u on u.symbol = l.underlying
    left join risk_private.instruments as k on k.symbol = l.instrument
    where l.used > l.limit_value
  ), counted as (
    select w.breaker_id, count(b.chain)::numeric as value
    from unnest(watches) as w
    left join breached as b
      on w.scope_id = any (b.chain) and w.underlying_id in (0, b.underlying_id)
    group by w.breaker_id
  )
  select c.breaker_id, c.value, at, c.value, at, null::text from counted as c;
end
$$;
comment on function risk_private.observe_limit_breach(risk_private.watch[], timestamptz) is
  'How many limits of the scope and below are exceeded by what is filled.';

create function risk_private.observe_escalation(watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with tripped as (
    select w.breaker_id, count(distinct e.name)::numeric as value
    from unnest(watches) as w
    left join (
      risk_private.breaker_events as e join risk_private.scopes as s on s.scope_id = e.scope_id
    ) on e.event = 'TRIPPED' and e.action <> 'NOTIFY' and w.scope_id = any (s.chain)
      and e.scope_id <> w.scope_id
      and e.at > greatest(w.since, observe_escalation.at - risk_private.window_of(w))
    group by w.breaker_id
  )
  select t.breaker_id, t.value, observe_escalation.at, t.value, observe_escalation.at, null::text
  from tripped as t;
end
$$;
comment on function risk_private.observe_escalation(risk_private.watch[], timestamptz) is
  'How many breakers of the scopes below tripped within the window.';
