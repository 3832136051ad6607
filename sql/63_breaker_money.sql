-- Conditions on money: what a scope has lost, and what its closing orders made.

create function risk_private.loss(amount numeric, base numeric, unit text) returns numeric
language sql immutable
return case
  when unit = 'amount' then amount
  when base <= 0 then 'Infinity'
  else pg_catalog.trim_scale(pg_catalog.round(amount / base * 100, 12)) end;
comment on function risk_private.loss(numeric, numeric, text) is
  'A loss in money or in percent of what there was; infinite where that was nothing.';

create function risk_private.observe_daily_loss(watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select w.breaker_id, o.value, e.as_of, o.value, e.as_of, null::text
  from unnest(watches) as w
  left join risk_private.equities as e on e.scope_id = w.scope_id
  cross join lateral (
    select case when e.start_equity <= 0 then 'Infinity' else risk_private.loss(
      e.start_equity + e.flows - e.equity, e.start_equity, w.parameters ->> 'unit') end as value
  ) as o;
end
$$;
comment on function risk_private.observe_daily_loss(risk_private.watch[], timestamptz) is
  'Loss since the trading day was opened, as equities stand; NULL while they are not known.';

create function risk_private.observe_drawdown(watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select w.breaker_id, o.value, e.as_of, o.value, e.as_of, null::text
  from unnest(watches) as w
  left join risk_private.equities as e on e.scope_id = w.scope_id
  cross join lateral (
    select case
      when w.parameters ->> 'unit' = 'pct' and (e.peak <= 0 or e.equity <= 0) then 100
      else risk_private.loss(e.peak - e.equity, e.peak, w.parameters ->> 'unit') end as value
  ) as o;
end
$$;
comment on function risk_private.observe_drawdown(risk_private.watch[], timestamptz) is
  'Loss since the peak, as equities stand; NULL while they are not known.';

-- The caller holds the counters of the chain.
create function risk_private.rebase_peak(scope_id integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update risk_private.equities as e set peak = e.known_equity
  where e.scope_id = rebase_peak.scope_id;
end
$$;
comment on function risk_private.rebase_peak(integer) is
  'Makes the present equity of a scope its peak.';

create function risk_private.loss_runs(w risk_private.watch)
returns table (recorded_at timestamptz, is_new boolean, losses bigint, is_last boolean)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with closing as (
    select max(f.recorded_at) as closed_at, max(f.booking) as booking,
      bool_or(f.recorded_xid >= w.seen_xid) as is_new,
      sum((f.realized - f.fee) * f.rate) < 0 as is_loss
    from risk_private.scopes as s
    join risk_private.fills as f on f.account_id = s.scope_id
    where s.is_leaf and w.scope_id = any (s.chain) and f.booked_on is not null
      and f.recorded_at > risk_private.repeated_since(w)
      and f.signed_quantity <> 0 and risk_private.is_about(w, array[f.instrument_id])
    group by f.account_id, f.booked_on
    having bool_or(f.closed > 0)
  ), runs as (
    select c.*, count(*) filter (where not c.is_loss) over (order by c.booking) as run
    from closing as c
  )
  select r.closed_at, r.is_new,
    count(*) filter (where r.is_loss) over (partition by r.run order by r.booking),
    r.booking = max(r.booking) over ()
  from runs as r;
end
$$;
comment on function risk_private.loss_runs(risk_private.watch) is
  'For each closing order since the breaker was last armed or tripped: how many in a row up to it '
  'lost money, net of fees.';

-- Nothing is counted anew in scopes where no fill can have come since the last evaluation.
create function risk_private.observe_consecutive_losses(
  watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_busy_ids integer[] := array(
    select distinct c.scope_id
    from (
      select distinct f.account_id from risk_private.fills as f
      where f.recorded_at > (select min(risk_private.judged_from(w)) from unnest(watches) as w)
    ) as a
    join risk_private.scopes as s on s.scope_id = a.account_id
    cross join unnest(s.chain) as c (scope_id));
begin
  return query
  with known as materialized (
    select w, case
      when w.scope_id <> all (v_busy_ids) and risk_private.repeated_since(w) < w.seen_at
      then r.value end as value
    from unnest(watches) as w
    join risk_private.breaker_readings as r on r.breaker_id = w.breaker_id
  ), counted as materialized (
    select (k.w).breaker_id, n.*
    from known as k
    cross join lateral (
      select coalesce(max(r.losses) filter (where r.is_last), 0)::numeric as value,
        max(r.losses) filter (where r.is_new)::numeric as worst,
        max(r.recorded_at) filter (where r.is_new) as worst_at
      from risk_private.loss_runs(k.w) as r
    ) as n
    where k.value is null
  )
  select (k.w).breaker_id, o.value, at, greatest(o.value, c.worst),
    case when c.worst > o.value then c.worst_at else at end, null::text
  from known as k
  left join counted as c on c.breaker_id = (k.w).breaker_id
  cross join lateral (select coalesce(c.value, k.value) as value) as o;
end
$$;
comment on function risk_private.observe_consecutive_losses(
  risk_private.watch[], timestamptz) is 'Closing orders in a row that lost money.';
