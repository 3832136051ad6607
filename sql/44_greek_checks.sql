-- Limits on Greeks. An order, netted over its legs, moves one side of a measure: up or down. Each
-- side is judged by its own change, so that a hedge passes while the other side is breached.

create type risk_private.exposure_measure as (
  l risk_private.applicable_limit,
  up numeric,
  down numeric,
  is_known boolean,
  units numeric[],
  bases numeric[],
  filled numeric[],
  slack numeric[]
);
comment on type risk_private.exposure_measure is
  'What a limit on Greeks compares: both sides as they are, and per leg of the order in it the '
  'signed unit x ratio, what a replace finds held and filled of it at that unit, and by how much '
  'its worst case exceeds the side that it enlarges. is_known: whether every Greek that counts is.';

create function risk_private.exposure_measures(
  legs risk_private.leg[], limits risk_private.applicable_limit[],
  by_underlying risk_private.applicable_limit[])
returns risk_private.exposure_measure[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select row(
      g.l, coalesce(s.up, 0), coalesce(s.down, 0), coalesce(x.unknown, 0) = 0 and n.is_known,
      n.units, n.bases, n.filled, n.slack)::risk_private.exposure_measure
    from (
      select (array_agg(k))[1] as l, k.scope_id, k.limit_type, k.dimension, k.key_id,
        array_agg(k.leg) as numbers
      from unnest(limits) as k
      where k.judged = 'exposure'
      group by k.scope_id, k.limit_type, k.dimension, k.key_id
      union all
      select k, k.scope_id, k.limit_type, 2, (legs[k.leg]).underlying_id,
        array(
          select n from generate_subscripts(legs, 1) as n
          where (legs[n]).underlying_id = (legs[k.leg]).underlying_id)
      from unnest(by_underlying) as k
      where risk_private.is_exposure_type(k.limit_type)
    ) as g
    left join risk_private.exposures as x
      on x.counter_id = risk_private.counter_id(g.scope_id, g.dimension, g.key_id)
    cross join lateral risk_private.greek_sides(x, g.limit_type) as s
    cross join lateral (
      select bool_and(coalesce(((legs[m]).units).has_greeks, false)) as is_known,
        array_agg((legs[m]).ratio * u.unit order by m) as units,
        array_agg((legs[m]).base * u.unit order by m) as bases,
        array_agg((legs[m]).filled * u.unit order by m) as filled,
        array_agg(risk_private.slack(legs[m]) * abs(u.unit) order by m) as slack
      from unnest(g.numbers) as m
      cross join lateral (
        select (legs[m]).sign * coalesce(case g.limit_type
          when 'delta' then ((legs[m]).units).unit_delta
          when 'gamma' then ((legs[m]).units).unit_gamma
          when 'dollar_gamma' then ((legs[m]).units).unit_dollar_gamma
          when 'vega' then ((legs[m]).units).unit_vega
          when 'theta' then ((legs[m]).units).unit_theta
          else ((legs[m]).units).unit_dollar_delta end, 0) as unit
      ) as u
    ) as n);
end
$$;
comment on function risk_private.exposure_measures(
  risk_private.leg[], risk_private.applicable_limit[], risk_private.applicable_limit[]) is
  'What each limit on Greeks that binds an order compares: those on sums, then delta and gamma per '
  'underlying.';

create function risk_private.effect(m risk_private.exposure_measure, quantity numeric)
returns numeric
language sql immutable
begin atomic
  select sum(case when abs(t.unit) * quantity > abs(t.base) then t.unit * quantity else t.base end
    - t.filled)
  from unnest(m.units, m.bases, m.filled) as t (unit, base, filled);
end;
comment on function risk_private.effect(risk_private.exposure_measure, numeric) is
  'What an order of that total adds to a measure if the rest of it fills, netted over its legs; 0: '
  'what the order adds that it replaces.';

-- What either side would be, beyond what is there and beyond the limit: above 0 it fails.
create function risk_private.excess(
  m risk_private.exposure_measure, quantity numeric, out up numeric, out down numeric)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_before numeric := risk_private.effect(m, 0);
  v_after numeric := risk_private.effect(m, quantity);
begin
  up := m.up - greatest(0, v_before) + greatest(0, v_after) - greatest((m.l).amount, m.up);
  down := -m.down - greatest(0, -v_before) + greatest(0, -v_after)
    - greatest((m.l).amount, -m.down);
end
$$;
comment on function risk_private.excess(risk_private.exposure_measure, numeric) is
  'By how much an order of that total would take either side of a measure beyond both its limit '
  'and what it is now; above 0 it fails.';

create function risk_private.allowed_exposure(
  m risk_private.exposure_measure, step numeric, quantity numeric)
returns numeric
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_low numeric := 0;
  v_high numeric := div(quantity, step);
  v_middle numeric := v_high;
  v_excess record;
begin
  while v_low < v_high loop
    v_excess := risk_private.excess(m, v_middle * step);
    if v_excess.up <= 0 and v_excess.down <= 0 then
      v_low := v_middle;
    else
      v_high := v_middle - 1;
    end if;
    v_middle := div(v_low + v_high + 1, 2);
  end loop;
  return v_low * step;
end
$$;
comment on function risk_private.allowed_exposure(
  risk_private.exposure_measure, numeric, numeric) is
  'The largest multiple of the step, up to quantity, with which neither side fails: bisection.';

create function risk_private.exposure_check(
  m risk_private.exposure_measure, step numeric, quantity numeric)
returns risk_private.risk_check
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_excess record := risk_private.excess(m, quantity);
  v_up numeric := v_excess.up + greatest((m.l).amount, m.up);
  v_down numeric := v_excess.down + greatest((m.l).amount, -m.down);
  v_fits boolean := coalesce(v_excess.up <= 0 and v_excess.down <= 0, false);
  v_allowed numeric := quantity;
begin
  if not v_fits then
    v_allowed := risk_private.allowed_exposure(m, step, quantity);
  end if;
  if v_excess.up > 0 or v_fits and v_up >= v_down then
    return risk_private.limit_check(m.l, m.up, v_up, not v_fits, v_allowed, quantity);
  end if;
  return risk_private.limit_check(m.l, -m.down, v_down, not v_fits, v_allowed, quantity);
end
$$;
comment on function risk_private.exposure_check(
  risk_private.exposure_measure, numeric, numeric) is
  'The row of a limit on Greeks. It shows the side that fails, else the larger one.';

create function risk_private.gross_check(
  m risk_private.exposure_measure, step numeric, quantity numeric)
returns risk_private.risk_check
language sql immutable
set search_path = pg_catalog, pg_temp
begin atomic
  select risk_private.limit_check(m.l, m.up, m.up + g.growth, true,
    case when m.up + g.growth <= (m.l).amount then quantity
      else risk_private.largest_quantity(greatest(0, (m.l).amount - m.up), g.units, m.slack, step,
        quantity) end, quantity)
  from (
    select array_agg(abs(t.unit)) as units,
      sum(greatest(0, abs(t.unit) * quantity - t.slack)) as growth
    from unnest(m.units, m.slack) as t (unit, slack)
  ) as g;
end;
comment on function risk_private.gross_check(risk_private.exposure_measure, numeric, numeric) is
  'The row of a gross_exposure limit.';

create function risk_private.exposure_checks(
  p risk_private.proposal, legs risk_private.leg[], limits risk_private.applicable_limit[],
  closable numeric, step numeric, at timestamptz)
returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_checks risk_private.risk_check[] := '{}';
  m risk_private.exposure_measure;
begin
  if not risk_private.keeps_exposures(p.account_id) then
    return v_checks;
  end if;
  foreach m in array risk_private.exposure_measures(
    legs, limits, risk_private.limits_by_underlying(p.account_id, legs, at)) loop
    v_checks := v_checks || case
      when not m.is_known then risk_private.gate(
        (m.l).limit_type, (m.l).scope, (m.l).dimension_name, (m.l).limit_type,
        closable = p.quantity, 'STALE_DATA', closable, p.quantity)
      when (m.l).limit_type = 'gross_exposure'
        then risk_private.gross_check(m, step, p.quantity)
      else risk_private.exposure_check(m, step, p.quantity) end;
  end loop;
  return v_checks;
end
$$;
comment on function risk_private.exposure_checks(
  risk_private.proposal, risk_private.leg[], risk_private.applicable_limit[], numeric, numeric,
  timestamptz) is
  'Limits on Greeks and exposure. Where a Greek that counts is unknown, of the order or of what is '
  'held or open there, only reducing orders pass: STALE_DATA.';
