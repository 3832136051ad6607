-- The lean path for exposures: add an order where every measure stays below its warning level.

create function risk_private.is_within(
  x risk_private.exposures, l risk_private.exposure_level, delta_up numeric, delta_down numeric,
  gamma_up numeric, gamma_down numeric, dollar_delta_up numeric, dollar_delta_down numeric,
  dollar_gamma_up numeric, dollar_gamma_down numeric, vega_up numeric, vega_down numeric,
  theta_up numeric, theta_down numeric, gross_exposure numeric)
returns boolean
language sql immutable
return
  x.unknown = 0
  and x.delta_up + delta_up < l.delta
  and -(x.delta_down + delta_down) < l.delta
  and x.gamma_up + gamma_up < l.gamma
  and -(x.gamma_down + gamma_down) < l.gamma
  and x.dollar_delta_up + dollar_delta_up < l.net_exposure
  and -(x.dollar_delta_down + dollar_delta_down) < l.net_exposure
  and x.dollar_gamma_up + dollar_gamma_up < l.dollar_gamma
  and -(x.dollar_gamma_down + dollar_gamma_down) < l.dollar_gamma
  and x.vega_up + vega_up < l.vega
  and -(x.vega_down + vega_down) < l.vega
  and x.theta_up + theta_up < l.theta
  and -(x.theta_down + theta_down) < l.theta
  and x.gross_exposure + gross_exposure < l.gross_exposure;
comment on function risk_private.is_within(
  risk_private.exposures, risk_private.exposure_level, numeric, numeric, numeric, numeric, numeric,
  numeric, numeric, numeric, numeric, numeric, numeric, numeric, numeric) is
  'Whether every measure of a row of exposures, so changed, stays below its warning level: then no '
  'limit on it can fail.';

create function risk_private.reserve_exposures(
  held risk_private.positions, sector_id integer, underlying_id integer, quantity numeric,
  growth numeric, levels risk_private.exposure_level[])
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_moved integer;
begin
  update risk_private.exposures as x set
    delta_up = x.delta_up + e.delta_up,
    delta_down = x.delta_down + e.delta_down,
    gamma_up = x.gamma_up + e.gamma_up,
    gamma_down = x.gamma_down + e.gamma_down,
    dollar_delta_up = x.dollar_delta_up + e.dollar_delta_up,
    dollar_delta_down = x.dollar_delta_down + e.dollar_delta_down,
    dollar_gamma_up = x.dollar_gamma_up + e.dollar_gamma_up,
    dollar_gamma_down = x.dollar_gamma_down + e.dollar_gamma_down,
    vega_up = x.vega_up + e.vega_up,
    vega_down = x.vega_down + e.vega_down,
    theta_up = x.theta_up + e.theta_up,
    theta_down = x.theta_down + e.theta_down,
    gross_exposure = x.gross_exposure + e.gross_exposure
  from (
    select
      greatest(0, quantity * held.unit_delta) as delta_up,
      least(0, quantity * held.unit_delta) as delta_down,
      greatest(0, quantity * held.unit_gamma) as gamma_up,
      least(0, quantity * held.unit_gamma) as gamma_down,
      greatest(0, quantity * held.unit_dollar_delta) as dollar_delta_up,
      least(0, quantity * held.unit_dollar_delta) as dollar_delta_down,
      greatest(0, quantity * held.unit_dollar_gamma) as dollar_gamma_up,
      least(0, quantity * held.unit_dollar_gamma) as dollar_gamma_down,
      greatest(0, quantity * held.unit_vega) as vega_up,
      least(0, quantity * held.unit_vega) as vega_down,
      greatest(0, quantity * held.unit_theta) as theta_up,
      least(0, quantity * held.unit_theta) as theta_down,
      growth * abs(held.unit_dollar_delta) as gross_exposure
    offset 0
  ) as e
  cross join unnest(levels) as l
  where held.has_greeks
    and x.counter_id = l.counter_id | case l.dimension when 0 then 0
      when 1 then reserve_exposures.sector_id when 2 then reserve_exposures.underlying_id
      else held.instrument_id end
    and risk_private.is_within(
      x, l, e.delta_up, e.delta_down, e.gamma_up, e.gamma_down, e.dollar_delta_up,
      e.dollar_delta_down, e.dollar_gamma_up, e.dollar_gamma_down, e.vega_up, e.vega_down,
      e.theta_up, e.theta_down, e.gross_exposure);
  get diagnostics v_moved = row_count;
  return v_moved = cardinality(levels) or sector_id is null and v_moved = (
    select count(*) from unnest(levels) as l where l.dimension <> 1);
end
$$;
comment on function risk_private.reserve_exposures(
  risk_private.positions, integer, integer, numeric, numeric, risk_private.exposure_level[]) is
  'Adds an order of a signed quantity, by which the worst case of the position grows, to every row '
  'of exposures of its chain. False, to be rolled back, where one is missing, incomplete or '
  'reaches a warning level.';

create function risk_private.reserve_exposures(entries risk_private.entry[], at timestamptz)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rows integer;
  v_moved integer;
begin
  with orders as (
    select e.account_id, e.instrument_id, e.sector_id, e.underlying_id,
      coalesce(sum(e.quantity) filter (where e.sign = 1), 0) as bought,
      coalesce(sum(e.quantity) filter (where e.sign = -1), 0) as sold
    from unnest(entries) as e
    group by e.account_id, e.instrument_id, e.sector_id, e.underlying_id
  ), effects as (
    -- Of all buys and all sells, one kind raises a Greek and the other lowers it.
    select o.*, n.levels, p.has_greeks,
      greatest(o.bought * p.unit_delta, -o.sold * p.unit_delta) as delta_up,
      least(o.bought * p.unit_delta, -o.sold * p.unit_delta) as delta_down,
      greatest(o.bought * p.unit_gamma, -o.sold * p.unit_gamma) as gamma_up,
      least(o.bought * p.unit_gamma, -o.sold * p.unit_gamma) as gamma_down,
      greatest(o.bought * p.unit_dollar_delta, -o.sold * p.unit_dollar_delta) as dollar_delta_up,
      least(o.bought * p.unit_dollar_delta, -o.sold * p.unit_dollar_delta) as dollar_delta_down,
      greatest(o.bought * p.unit_dollar_gamma, -o.sold * p.unit_dollar_gamma) as dollar_gamma_up,
      least(o.bought * p.unit_dollar_gamma, -o.sold * p.unit_dollar_gamma) as dollar_gamma_down,
      greatest(o.bought * p.unit_vega, -o.sold * p.unit_vega) as vega_up,
      least(o.bought * p.unit_vega, -o.sold * p.unit_vega) as vega_down,
      greatest(o.bought * p.unit_theta, -o.sold * p.unit_theta) as theta_up,
      least(o.bought * p.unit_theta, -o.sold * p.unit_theta) as theta_down,
      (risk_private.worst_case(p.quantity, p.open_buy, p.open_sell) - risk_private.worst_case(
        p.quantity, p.open_buy - o.bought, p.open_sell - o.sold))
        * abs(p.unit_dollar_delta) as gross_exposure
    from orders as o
    join risk_private.positions as p
      on p.account_id = o.account_id and p.instrument_id = o.instrument_id
    join risk_private.account_levels as a on a.account_id = o.account_id
    cross join lateral (
      select case when a.is_narrowed
        then (risk_private.levels_of(
          a, o.sector_id, o.underlying_id, o.instrument_id, at)).exposures
        else a.exposures end as levels
      offset 0
    ) as n
    where n.levels is not null
    offset 0
  ), changes as (
    select k.counter_id, bool_and(e.has_greeks) as has_greeks, any_value(l) as level,
      sum(e.gross_exposure) as gross_exposure,
      sum(e.delta_up) as delta_up, sum(e.delta_down) as delta_down,
      sum(e.gamma_up) as gamma_up, sum(e.gamma_down) as gamma_down,
      sum(e.dollar_delta_up) as dollar_delta_up, sum(e.dollar_delta_down) as dollar_delta_down,
      sum(e.dollar_gamma_up) as dollar_gamma_up, sum(e.dollar_gamma_down) as dollar_gamma_down,
      sum(e.vega_up) as vega_up, sum(e.vega_down) as vega_down,
      sum(e.theta_up) as theta_up, sum(e.theta_down) as theta_down
    from effects as e
    cross join lateral unnest(e.levels) as l
    cross join lateral (
      select l.counter_id | case l.dimension when 0 then 0 when 1 then e.sector_id
        when 2 then e.underlying_id else e.instrument_id end as counter_id
    ) as k
    where l.dimension <> 1 or e.sector_id is not null
    group by k.counter_id
  ), moved as (
    update risk_private.exposures as x set
      delta_up = x.delta_up + c.delta_up,
      delta_down = x.delta_down + c.delta_down,
      gamma_up = x.gamma_up + c.gamma_up,
      gamma_down = x.gamma_down + c.gamma_down,
      dollar_delta_up = x.dollar_delta_up + c.dollar_delta_up,
      dollar_delta_down = x.dollar_delta_down + c.dollar_delta_down,
      dollar_gamma_up = x.dollar_gamma_up + c.dollar_gamma_up,
      dollar_gamma_down = x.dollar_gamma_down + c.dollar_gamma_down,
      vega_up = x.vega_up + c.vega_up,
      vega_down = x.vega_down + c.vega_down,
      theta_up = x.theta_up + c.theta_up,
      theta_down = x.theta_down + c.theta_down,
      gross_exposure = x.gross_exposure + c.gross_exposure
    from changes as c
    where x.counter_id = c.counter_id and c.has_greeks and risk_private.is_within(
      x, c.level, c.delta_up, c.delta_down, c.gamma_up, c.gamma_down, c.dollar_delta_up,
      c.dollar_delta_down, c.dollar_gamma_up, c.dollar_gamma_down, c.vega_up, c.vega_down,
      c.theta_up, c.theta_down, c.gross_exposure)
    returning x.counter_id
  )
  select (select count(*) from changes), (select count(*) from moved) into v_rows, v_moved;
  return v_rows = v_moved;
end
$$;
comment on function risk_private.reserve_exposures(risk_private.entry[], timestamptz) is
  'Adds the orders of a batch, whose positions and counters have moved, to exposures. False, to be '
  'rolled back, where a row is missing, incomplete or reaches a warning level with all of them: '
  'what they do together is the worst that each of them could meet.';
