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

create function risk_private.concentration_levels(
  account_id integer, sector_id integer, underlying_id integer, at timestamptz)
returns risk_private.concentration_level[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select array_agg(row(
      risk_private.counter_id(s.scope_id, d.dimension), s.scope_id, d.dimension,
      d.level)::risk_private.concentration_level order by s.scope_id, d.dimension)
    from risk_private.scopes as leaf
    join risk_private.scopes as s on s.scope_id = any (leaf.chain)
    left join risk_private.warning_levels as l0
      on l0.scope_id = s.scope_id and l0.dimension = 0 and l0.key_id = 0
      and at < l0.valid_until and l0.valid_from <= at
    left join risk_private.warning_levels as l1
      on l1.scope_id = s.scope_id and l1.dimension = 1
      and l1.key_id = concentration_levels.sector_id
      and at < l1.valid_until and l1.valid_from <= at
    left join risk_private.warning_levels as l2
      on l2.scope_id = s.scope_id and l2.dimension = 2
      and l2.key_id = concentration_levels.underlying_id
      and at < l2.valid_until and l2.valid_from <= at
    cross join lateral (
      values (1, l1.concentration_pct), (2, coalesce(l2.concentration_pct, l0.concentration_pct))
    ) as d (dimension, level)
    where leaf.scope_id = concentration_levels.account_id and d.level is not null);
end
$$;
comment on function risk_private.concentration_levels(integer, integer, integer, timestamptz) is
  'The warning levels of concentration_pct for an account''s orders in one underlying and sector; '
  'keys NULL: those that hold for all. NULL where the chain has none.';

-- Lock order: the caller holds the counters of the chain, without which neither exposures nor
-- equities move.
create function risk_private.is_far_from_concentration(
  levels risk_private.concentration_level[], sector_id integer, underlying_id integer,
  max_age double precision, at timestamptz)
returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
  return not risk_private.may_have_stale_rate(max_age, at) and not exists (
    select
    from unnest(levels) as l
    left join risk_private.exposures as x on x.counter_id = l.counter_id | case l.dimension
      when 1 then is_far_from_concentration.sector_id
      else is_far_from_concentration.underlying_id end
    left join risk_private.equities as e on e.scope_id = l.scope_id
    where (x.unknown = 0 and e.equity > 0
      and greatest(x.dollar_delta_up, -x.dollar_delta_down) * 100
        < l.concentration_pct * e.equity) is not true);
end
$$;
comment on function risk_private.is_far_from_concentration(
  risk_private.concentration_level[], integer, integer, double precision, timestamptz) is
  'Whether exposures as they stand, with the order already in them, are known and below every '
  'warning level of concentration_pct.';

create function risk_private.is_far_from_concentration(
  entries risk_private.entry[], at timestamptz)
returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return not exists (
    select
    from (
      select distinct o.account_id, o.sector_id, o.underlying_id from unnest(entries) as o
    ) as e
    join risk_private.scopes as s on s.scope_id = e.account_id
    join risk_private.account_levels as a on a.account_id = e.account_id
    cross join lateral (
      select case when a.is_narrowed then risk_private.concentration_levels(
          e.account_id, e.sector_id, e.underlying_id, at)
        else a.concentrations end as levels
      offset 0
    ) as n
    where n.levels is not null and not risk_private.is_far_from_concentration(
      n.levels, e.sector_id, e.underlying_id, s.max_mark_age, at));
end
$$;
comment on function risk_private.is_far_from_concentration(risk_private.entry[], timestamptz) is
  'The same for the orders of a batch.';

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
