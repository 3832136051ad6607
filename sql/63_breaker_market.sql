-- Conditions on market data: indicators, prices, how old they are, how they move together. Each
-- measures many breakers at once. What was not visible to the last evaluation is judged value by
-- value, so that nothing is missed between two of them.

create function risk_private.observe_volatility_level(
  watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select w.breaker_id, i.value, i.as_of, t.value, t.as_of, null::text
  from unnest(watches) as w
  left join risk_private.indicators as i on i.indicator_id = w.indicator_id
  left join lateral (
    select k.value, k.as_of from risk_private.indicator_ticks as k
    where k.indicator_id = w.indicator_id and k.recorded_xid >= w.seen_xid and k.as_of > w.since
    order by k.value desc, k.as_of
    limit 1
  ) as t on true;
end
$$;
comment on function risk_private.observe_volatility_level(
  risk_private.watch[], timestamptz) is 'The value of the indicator.';

create function risk_private.spike(
  indicator_id integer, value numeric, as_of timestamptz, look_back interval) returns numeric
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_lowest numeric;
begin
  select min(k.value) into v_lowest
  from (
    select t.value from risk_private.indicator_ticks as t
    where t.indicator_id = spike.indicator_id and t.as_of > spike.as_of - look_back
      and t.as_of <= spike.as_of
    union all
    (select t.value from risk_private.indicator_ticks as t
     where t.indicator_id = spike.indicator_id and t.as_of <= spike.as_of - look_back
     order by t.as_of desc
     limit 1)
  ) as k;
  return case
    when v_lowest > 0 then trim_scale(round((value - v_lowest) / v_lowest * 100, 12))
    when value > v_lowest then 'Infinity'
    else 0 end;
end
$$;
comment on function risk_private.spike(integer, numeric, timestamptz, interval) is
  'How far a value lies above the lowest of the window that ends with it, in percent; the value '
  'that stood when the window began counts.';

create function risk_private.observe_volatility_spike(
  watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select w.breaker_id, risk_private.spike(i.indicator_id, i.value, i.as_of, n.look_back), i.as_of,
    t.value, t.as_of, null::text
  from unnest(watches) as w
  cross join lateral (
    select make_interval(secs => (w.parameters ->> 'window')::double precision) as look_back
  ) as n
  left join risk_private.indicators as i
    on i.indicator_id = w.indicator_id and i.value is not null
  left join lateral (
    select s.value, k.as_of
    from risk_private.indicator_ticks as k
    cross join lateral risk_private.spike(k.indicator_id, k.value, k.as_of, n.look_back)
      as s (value)
    where k.indicator_id = w.indicator_id and k.recorded_xid >= w.seen_xid and k.as_of > w.since
    order by s.value desc, k.as_of
    limit 1
  ) as t on true;
end
$$;
comment on function risk_private.observe_volatility_spike(
  risk_private.watch[], timestamptz) is 'How far the indicator rose within the window, in percent.';

create view risk_private.ticks as
select t.instrument_id, null::integer as indicator_id, t.as_of, t.price, t.recorded_xid
from risk_private.price_ticks as t
union all
select null, t.indicator_id, t.as_of, t.value, t.recorded_xid
from risk_private.indicator_ticks as t;
comment on view risk_private.ticks is 'Values of watched instruments and of indicators.';

create function risk_private.reference_price(
  instrument_id integer, indicator_id integer, as_of timestamptz, reference text)
returns numeric
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if reference = 'prior_close' then
    return (
      select c.close
      from (
        select d.close, d.day from risk_private.closes as d
        where d.instrument_id = reference_price.instrument_id
        union all
        select d.close, d.day from risk_private.indicator_closes as d
        where d.indicator_id = reference_price.indicator_id
      ) as c
      where c.day < risk_private.trading_date()
      order by c.day desc
      limit 1);
  end if;
  return coalesce(
    (select avg(t.price) from risk_private.ticks as t
     where (t.instrument_id = reference_price.instrument_id
         or t.indicator_id = reference_price.indicator_id)
       and t.as_of >= reference_price.as_of - interval '5 minutes'
       and t.as_of < reference_price.as_of),
    (select t.price from risk_private.ticks as t
     where (t.instrument_id = reference_price.instrument_id
         or t.indicator_id = reference_price.indicator_id)
       and t.as_of < reference_price.as_of
     order by t.as_of desc
     limit 1));
end
$$;
comment on function risk_private.reference_price(integer, integer, timestamptz, text) is
  'What a price of that moment is compared with: prior_close, the last before today; mean_5m, the '
  'mean of the 5 minutes before, or where nothing came in them the last price. NULL: none.';

create function risk_private.moved(
  w risk_private.watch, price numeric, as_of timestamptz) returns numeric
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_reference numeric := risk_private.reference_price(
    w.instrument_id, w.indicator_id, as_of, w.parameters ->> 'reference');
  v_move numeric := trim_scale(
    round((price - v_reference) / nullif(abs(v_reference), 0) * 100, 12));
begin
  return case w.parameters ->> 'direction'
    when 'up' then v_move when 'down' then -v_move else abs(v_move) end;
end
$$;
comment on function risk_private.moved(risk_private.watch, numeric, timestamptz) is
  'How far a price lies from its reference in the direction that counts, in percent.';

create function risk_private.observe_price_move(
  watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select w.breaker_id, risk_private.moved(w, p.price, p.as_of), p.as_of, t.value, t.as_of,
    null::text
  from unnest(watches) as w
  left join lateral (
    select m.price, m.as_of from risk_private.marks as m where m.instrument_id = w.instrument_id
    union all
    select i.value, i.as_of from risk_private.indicators as i
    where i.indicator_id = w.indicator_id and i.value is not null
  ) as p on true
  left join lateral (
    select s.value, k.as_of
    from (
      select q.price, q.as_of from risk_private.price_ticks as q
      where q.instrument_id = w.instrument_id and q.recorded_xid >= w.seen_xid
        and q.as_of > w.since
      union all
      select q.value, q.as_of from risk_private.indicator_ticks as q
      where q.indicator_id = w.indicator_id and q.recorded_xid >= w.seen_xid and q.as_of > w.since
    ) as k
    cross join lateral risk_private.moved(w, k.price, k.as_of) as s (value)
    where s.value is not null
    order by s.value desc, k.as_of
    limit 1
  ) as t on true;
end
$$;
comment on function risk_private.observe_price_move(risk_private.watch[], timestamptz) is
  'How far the price lies from its reference, in percent.';

create function risk_private.age(as_of timestamptz, at timestamptz) returns numeric
language sql stable
return case when as_of is null or as_of = '-infinity' then 'Infinity'
  else greatest(0, extract(epoch from at - as_of)) end;
comment on function risk_private.age(timestamptz, timestamptz) is
  'How old data are, in seconds; what is missing is infinitely old.';

create function risk_private.observe_stale_data(
  watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with held as (
    select p.account_id, i.underlying_id, min(coalesce(m.as_of, '-infinity')) as as_of
    from risk_private.positions as p
    join risk_private.instruments as i on i.instrument_id = p.instrument_id
    cross join lateral (values (i.instrument_id), (i.underlying_id)) as n (needed_id)
    left join risk_private.marks as m on m.instrument_id = n.needed_id
    where p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0
    group by p.account_id, i.underlying_id
  ), watched as (
    select b.scope_id, b.underlying_id, coalesce(k.as_of, m.as_of, '-infinity') as as_of
    from risk_private.breakers as b
    left join risk_private.indicators as k on k.indicator_id = b.indicator_id
    left join risk_private.marks as m on m.instrument_id = b.instrument_id
    where b.indicator_id is not null or b.instrument_id is not null
  ), needed as (
    select w.breaker_id, n.as_of
    from (table held union all table watched) as n (scope_id, underlying_id, as_of)
    join risk_private.scopes as s on s.scope_id = n.scope_id
    cross join unnest(s.chain) as c (scope_id)
    join unnest(watches) as w
      on w.scope_id = c.scope_id
        and (w.underlying_id in (0, n.underlying_id) or n.underlying_id = 0)
  )
  select w.breaker_id, o.value, at, o.value, at, null::text
  from unnest(watches) as w
  left join (
    select n.breaker_id, min(n.as_of) as as_of from needed as n group by n.breaker_id
  ) as k on k.breaker_id = w.breaker_id
  cross join lateral (
    select case when k.breaker_id is null then 0 else risk_private.age(k.as_of, at) end
      as value
  ) as o;
end
$$;
comment on function risk_private.observe_stale_data(risk_private.watch[], timestamptz) is
  'Age in seconds of the oldest mark or indicator that the scope and all below need; 0 where they '
  'need none.';

create function risk_private.observe_queue_backlog(
  watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select w.breaker_id, o.value, at, o.value, at, null::text
  from unnest(watches) as w
  left join (
    (select 'risk_events' as queue, m.enqueued_at as oldest
     from pgmq.q_risk_events as m order by m.msg_id limit 1)
    union all
    (select 'risk_alerts', m.enqueued_at from pgmq.q_risk_alerts as m order by m.msg_id limit 1)
  ) as q on q.queue = w.parameters ->> 'queue'
  cross join lateral (
    select case when q.oldest is null then 0 else risk_private.age(q.oldest, at) end as value
  ) as o;
end
$$;
comment on function risk_private.observe_queue_backlog(risk_private.watch[], timestamptz) is
  'Age of the oldest message in seconds; 0 for an empty queue.';
