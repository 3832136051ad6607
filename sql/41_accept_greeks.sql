-- The lean path for exposures: add orders where every measure stays below its warning level.

create function risk_private.is_within(
  l risk_private.exposure_level, unknown integer, delta numeric, gamma numeric,
  net_exposure numeric, dollar_gamma numeric, vega numeric, theta numeric,
  gross_exposure numeric, equity numeric)
returns boolean
language sql immutable
return
  unknown = 0 and delta < l.delta and gamma < l.gamma and net_exposure < l.net_exposure
  and dollar_gamma < l.dollar_gamma and vega < l.vega and theta < l.theta
  and gross_exposure < l.gross_exposure
  and (l.concentration_pct = 'Infinity'
    or net_exposure * 100 < l.concentration_pct * greatest(0, equity));
comment on function risk_private.is_within(
  risk_private.exposure_level, integer, numeric, numeric, numeric, numeric, numeric, numeric,
  numeric, numeric) is
  'Whether every measure of a row of exposures, the larger of its two sides with orders already in '
  'it, is known and below its warning level: then no limit on it can fail.';

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
    where x.counter_id = c.counter_id and c.has_greeks
    returning c.level, x.unknown,
      greatest(x.delta_up, -x.delta_down) as delta, greatest(x.gamma_up, -x.gamma_down) as gamma,
      greatest(x.dollar_delta_up, -x.dollar_delta_down) as net_exposure,
      greatest(x.dollar_gamma_up, -x.dollar_gamma_down) as dollar_gamma,
      greatest(x.vega_up, -x.vega_down) as vega, greatest(x.theta_up, -x.theta_down) as theta,
      x.gross_exposure
  )
  select (select count(*) from changes),
    (
      select count(*) from moved as m
      left join lateral (
        select q.equity from risk_private.equities as q where q.scope_id = (m.level).scope_id
        offset 0
      ) as e on true
      where risk_private.is_within(
        m.level, m.unknown, m.delta, m.gamma, m.net_exposure, m.dollar_gamma, m.vega, m.theta,
        m.gross_exposure, e.equity)
    )
  into v_rows, v_moved;
  return v_rows = v_moved;
end
$$;
comment on function risk_private.reserve_exposures(risk_private.entry[], timestamptz) is
  'Adds the orders of a batch, whose positions and counters have moved, to exposures. False, to be '
  'rolled back, where a row is missing, incomplete or reaches a warning level with all of them: '
  'what they do together is the worst that each of them could meet.';
