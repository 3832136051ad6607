-- Limits on concentration: the dollar delta of an underlying, or of a sector, in percent of the
-- scope's equity. An order does not move the equity, so they are compared in money, without a
-- division: exposure x 100 <= limit x equity.

create function risk_private.concentration_pct(exposure numeric, equity numeric) returns numeric
language sql immutable
return case
  when equity > 0 then pg_catalog.round(exposure * 100 / equity, 6)
  when equity <= 0 then case when exposure > 0 then 'Infinity'::numeric else 0 end
end;
comment on function risk_private.concentration_pct(numeric, numeric) is
  'An exposure in % of the equity: of one of 0 or less, anything is infinite. NULL where either is '
  'unknown.';

create function risk_private.known_equity(
  scope_id integer, max_age double precision, at timestamptz)
returns numeric
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select e.equity from risk_private.equities as e
    where e.scope_id = known_equity.scope_id
      and not risk_private.has_stale_rate(known_equity.scope_id, max_age, at));
end
$$;
comment on function risk_private.known_equity(integer, double precision, timestamptz) is
  'The equity of a scope; NULL where a rate that it needs is missing or too old.';

create function risk_private.concentration_measures(
  legs risk_private.leg[], limits risk_private.applicable_limit[])
returns risk_private.exposure_measure[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select row(
      g.l, coalesce(x.dollar_delta_up, 0), coalesce(x.dollar_delta_down, 0),
      coalesce(x.unknown, 0) = 0 and n.is_known, n.units, n.bases, n.filled,
      null)::risk_private.exposure_measure
    from (
      select (array_agg(k))[1] as l, k.scope_id, d.dimension, d.key_id,
        array_agg(k.leg) as numbers
      from unnest(limits) as k
      cross join lateral (
        select case k.dimension when 1 then 1 else 2 end as dimension,
          case k.dimension when 1 then k.key_id else (legs[k.leg]).underlying_id end as key_id
      ) as d
      where k.judged = 'concentration'
      group by k.scope_id, d.dimension, d.key_id
    ) as g
    left join risk_private.exposures as x
      on x.counter_id = risk_private.counter_id(g.scope_id, g.dimension, g.key_id)
    cross join lateral (
      select bool_and(coalesce(((legs[m]).units).has_greeks, false)) as is_known,
        array_agg((legs[m]).ratio * u.unit order by m) as units,
        array_agg((legs[m]).base * u.unit order by m) as bases,
        array_agg((legs[m]).filled * u.unit order by m) as filled
      from unnest(g.numbers) as m
      cross join lateral (
        select (legs[m]).sign * coalesce(((legs[m]).units).unit_dollar_delta, 0) as unit
      ) as u
    ) as n);
end
$$;
comment on function risk_private.concentration_measures(
  risk_private.leg[], risk_private.applicable_limit[]) is
  'What each concentration_pct limit compares, in money: the dollar delta of a sector, or of each '
  'underlying.';

create function risk_private.concentration_check(
  m risk_private.exposure_measure, equity numeric, closable numeric, step numeric,
  quantity numeric)
returns risk_private.risk_check
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_pct numeric := (m.l).amount;
  v_check risk_private.risk_check;
begin
  if equity is null or not m.is_known then
    return risk_private.gate(
      (m.l).limit_type, (m.l).scope, (m.l).dimension_name, (m.l).limit_type,
      closable = quantity, 'STALE_DATA', closable, quantity);
  end if;
  if equity <= 0 then
    v_check := risk_private.limit_check(
      m.l, 0, 'Infinity', closable < quantity, closable, quantity);
    v_check.current_value := risk_private.concentration_pct(greatest(m.up, -m.down), equity);
  else
    m.l.amount := v_pct * equity * 0.01;
    v_check := risk_private.exposure_check(m, step, quantity);
    v_check.current_value := risk_private.concentration_pct(v_check.current_value, equity);
    v_check.projected_value := risk_private.concentration_pct(v_check.projected_value, equity);
    v_check.limit_value := v_pct;
  end if;
  v_check.headroom := v_pct - v_check.current_value;
  return v_check;
end
$$;
comment on function risk_private.concentration_check(
  risk_private.exposure_measure, numeric, numeric, numeric, numeric) is
  'The row of a concentration_pct limit, in percent: of the side that fails, else the larger one. '
  'Of an equity of 0 or less any exposure is infinite, and only reducing orders pass; likewise, as '
  'STALE_DATA, while the equity (NULL) or a Greek that counts is unknown.';

create function risk_private.concentration_checks(
  p risk_private.proposal, legs risk_private.leg[], limits risk_private.applicable_limit[],
  closable numeric, step numeric, at timestamptz)
returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_max_age double precision := (
    select s.max_mark_age from risk_private.scopes as s where s.scope_id = p.account_id);
  v_checks risk_private.risk_check[] := '{}';
  m risk_private.exposure_measure;
begin
  foreach m in array risk_private.concentration_measures(legs, limits) loop
    v_checks := v_checks || risk_private.concentration_check(
      m, risk_private.known_equity((m.l).scope_id, v_max_age, at), closable, step, p.quantity);
  end loop;
  return v_checks;
end
$$;
comment on function risk_private.concentration_checks(
  risk_private.proposal, risk_private.leg[], risk_private.applicable_limit[], numeric, numeric,
  timestamptz) is
  'concentration_pct of every underlying of the order and of every sector that limits it, netted '
  'over the order''s legs and over the accounts below each scope.';
