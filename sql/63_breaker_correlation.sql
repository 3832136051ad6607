-- How the underlyings that a scope holds move together.

create index closes_recorded_idx on risk_private.closes (recorded_at);

create function risk_private.mean_correlation(instrument_ids integer[], days integer)
returns numeric
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    with recent as (
      select distinct c.day from risk_private.closes as c order by c.day desc limit days + 1
    ), returns as materialized (
      select r.instrument_id, r.day, r.previous_day, r.log_return
      from risk_private.daily_returns as r
      where r.previous_day >= (select min(t.day) from recent as t)
        and r.instrument_id = any (instrument_ids)
    ), pairs as (
      select corr(a.log_return, b.log_return) as rho
      from returns as a
      join returns as b
        on b.day = a.day and b.previous_day = a.previous_day and b.instrument_id > a.instrument_id
      group by a.instrument_id, b.instrument_id
      having count(*) >= 20 and var_pop(a.log_return) > 1e-18 and var_pop(b.log_return) > 1e-18
    )
    select round(avg(p.rho)::numeric, 12) from pairs as p);
end
$$;
comment on function risk_private.mean_correlation(integer[], integer) is
  'Mean Pearson correlation of the daily log returns of all pairs of these underlyings over the '
  'last days that were closed. A pair needs 20 common days and variance; NULL where none has.';

create function risk_private.holdings(watches risk_private.watch[])
returns table (breaker_id integer, instrument_ids integer[], days integer, inputs uuid)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with held as (
    select p.account_id, p.underlying_id from risk_private.positions as p
    where p.quantity <> 0
    group by p.account_id, p.underlying_id
  ), below as (
    select c.scope_id, array_agg(distinct h.underlying_id order by h.underlying_id) as ids
    from held as h
    join risk_private.scopes as s on s.scope_id = h.account_id
    cross join unnest(s.chain) as c (scope_id)
    group by c.scope_id
  ), listed as (
    select w.breaker_id, (w.parameters ->> 'days')::integer as days,
      coalesce(b.ids, '{}') as instrument_ids
    from unnest(watches) as w
    left join below as b on b.scope_id = w.scope_id
  ), closed as (
    select max(c.recorded_at)::text as closes from risk_private.closes as c
  )
  select l.breaker_id, l.instrument_ids, l.days,
    md5(concat_ws('|', l.days, c.closes, l.instrument_ids::text))::uuid
  from listed as l cross join closed as c;
end
$$;
comment on function risk_private.holdings(risk_private.watch[]) is
  'What each breaker''s scope holds, by underlying, and a fingerprint of all that its correlation '
  'depends on.';

create function risk_private.observe_correlation(watches risk_private.watch[], at timestamptz)
returns setof risk_private.observation
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.correlation_readings as r (breaker_id, inputs, value)
  select h.breaker_id, h.inputs, risk_private.mean_correlation(h.instrument_ids, h.days)
  from risk_private.holdings(watches) as h
  where not exists (
    select from risk_private.correlation_readings as k
    where k.breaker_id = h.breaker_id and k.inputs = h.inputs)
  on conflict on constraint correlation_readings_pkey do update set
    inputs = excluded.inputs, value = excluded.value;
  return query
  select r.breaker_id, r.value, at, r.value, at, null::text
  from unnest(watches) as w
  join risk_private.correlation_readings as r on r.breaker_id = w.breaker_id;
end
$$;
comment on function risk_private.observe_correlation(risk_private.watch[], timestamptz) is
  'Mean correlation of what the scope holds, reckoned again when holdings or closes have changed.';
