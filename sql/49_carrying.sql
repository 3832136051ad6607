-- Carrying positions at other unit values: what that adds to counters and exposures.

create type risk_private.revaluation_gain as (
  dimension integer,
  key_id integer,
  equity numeric,
  gross_notional numeric,
  gross_exposure numeric,
  unknown integer,
  delta numeric,
  gamma numeric,
  dollar_delta numeric,
  dollar_gamma numeric,
  vega numeric,
  theta numeric
);
comment on type risk_private.revaluation_gain is
  'What other unit values of positions add in one dimension and key: the same to the account and '
  'to every scope above.';

-- Summed per sector and underlying, where the chain needs these, before it is summed any wider;
-- offset 0 keeps expressions from being repeated wherever they are used.
create function risk_private.revaluation_gains(
  account_id integer, units risk_private.unit_values[])
returns setof risk_private.revaluation_gain
language sql stable
begin atomic
  with needed as materialized (
    select bool_or(s.tracks_sector or 1 = any (s.exposure_dimensions)) as sectors,
      bool_or(s.tracks_underlying or 2 = any (s.exposure_dimensions)) as underlyings,
      bool_or(s.tracks_instrument or 3 = any (s.exposure_dimensions)) as instruments
    from risk_private.scopes as leaf
    join risk_private.scopes as s on s.scope_id = any (leaf.chain)
    where leaf.scope_id = revaluation_gains.account_id
  ), held as materialized (
    select i.instrument_id, case when n.sectors then i.sector_id end as sector_id,
      case when n.underlyings then i.underlying_id end as underlying_id,
      p.quantity * (u.unit_value - p.unit_value) as equity,
      w.worst_case * (u.unit_notional - p.unit_notional) as gross_notional,
      w.worst_case * (abs(u.unit_dollar_delta) - abs(p.unit_dollar_delta)) as gross_exposure,
      (not u.has_greeks)::integer - (not p.has_greeks)::integer as unknown,
      p.quantity * (u.unit_delta - p.unit_delta) as delta,
      p.quantity * (u.unit_gamma - p.unit_gamma) as gamma,
      p.quantity * (u.unit_dollar_delta - p.unit_dollar_delta) as dollar_delta,
      p.quantity * (u.unit_dollar_gamma - p.unit_dollar_gamma) as dollar_gamma,
      p.quantity * (u.unit_vega - p.unit_vega) as vega,
      p.quantity * (u.unit_theta - p.unit_theta) as theta
    from unnest(units) as u
    join risk_private.positions as p
      on p.account_id = revaluation_gains.account_id and p.instrument_id = u.instrument_id
    join risk_private.instruments as i on i.instrument_id = u.instrument_id
    cross join needed as n
    cross join lateral (
      select risk_private.worst_case(p.quantity, p.open_buy, p.open_sell) as worst_case offset 0
    ) as w
  )
  select d.dimension, d.key_id, sum(s.equity), sum(s.gross_notional), sum(s.gross_exposure),
    sum(s.unknown)::integer, sum(s.delta), sum(s.gamma), sum(s.dollar_delta), sum(s.dollar_gamma),
    sum(s.vega), sum(s.theta)
  from (
    select h.sector_id, h.underlying_id, sum(h.equity) as equity,
      sum(h.gross_notional) as gross_notional, sum(h.gross_exposure) as gross_exposure,
      sum(h.unknown) as unknown, sum(h.delta) as delta, sum(h.gamma) as gamma,
      sum(h.dollar_delta) as dollar_delta, sum(h.dollar_gamma) as dollar_gamma,
      sum(h.vega) as vega, sum(h.theta) as theta
    from held as h
    group by h.sector_id, h.underlying_id
  ) as s
  cross join lateral (
    values (0, 0), (1, s.sector_id), (2, s.underlying_id)
  ) as d (dimension, key_id)
  where d.key_id is not null
  group by d.dimension, d.key_id
  union all
  select 3, h.instrument_id, h.equity, h.gross_notional, h.gross_exposure, h.unknown, h.delta,
    h.gamma, h.dollar_delta, h.dollar_gamma, h.vega, h.theta
  from held as h
  where (select n.instruments from needed as n);
end;
comment on function risk_private.revaluation_gains(integer, risk_private.unit_values[]) is
  'What carrying an account''s positions at those values adds in each dimension and key that a '
  'scope of its chain needs, open orders apart.';

-- Lock order: the scope's counter; then its others, in the order of the gains, which is ascending:
-- an order that is about to be rolled back may hold some of them and not the scope's own. Exposures
-- are moved by nobody without it. What is held has its rows already.
create function risk_private.add_gains(
  scope risk_private.scopes, gains risk_private.revaluation_gain[])
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from risk_private.counters as c where c.counter_id = scope.counter_id for no key update;
  update risk_private.counters as c set gross_notional = c.gross_notional + g.gross_notional
  from unnest(gains) as g
  where g.gross_notional <> 0
    and (array[true, scope.tracks_sector, scope.tracks_underlying, scope.tracks_instrument])
      [g.dimension + 1]
    and c.counter_id = risk_private.counter_id(scope.scope_id, g.dimension, g.key_id);
  if cardinality(scope.exposure_dimensions) > 0 then
    update risk_private.exposures as e set
      delta = e.delta + g.delta,
      delta_up = e.delta_up + g.delta,
      delta_down = e.delta_down + g.delta,
      gamma = e.gamma + g.gamma,
      gamma_up = e.gamma_up + g.gamma,
      gamma_down = e.gamma_down + g.gamma,
      dollar_delta = e.dollar_delta + g.dollar_delta,
      dollar_delta_up = e.dollar_delta_up + g.dollar_delta,
      dollar_delta_down = e.dollar_delta_down + g.dollar_delta,
      dollar_gamma = e.dollar_gamma + g.dollar_gamma,
      dollar_gamma_up = e.dollar_gamma_up + g.dollar_gamma,
      dollar_gamma_down = e.dollar_gamma_down + g.dollar_gamma,
      vega = e.vega + g.vega,
      vega_up = e.vega_up + g.vega,
      vega_down = e.vega_down + g.vega,
      theta = e.theta + g.theta,
      theta_up = e.theta_up + g.theta,
      theta_down = e.theta_down + g.theta,
      gross_exposure = e.gross_exposure + g.gross_exposure,
      unknown = e.unknown + g.unknown
    from unnest(gains) as g
    where g.dimension = any (scope.exposure_dimensions)
      and e.counter_id = risk_private.counter_id(scope.scope_id, g.dimension, g.key_id);
  end if;
end
$$;
comment on function risk_private.add_gains(
  risk_private.scopes, risk_private.revaluation_gain[]) is
  'Adds what a revaluation gained to the counters of a scope and to its exposures: to what is '
  'held, and so to both sides.';

-- Lock order: the caller holds the account; then its chain's counters, ascending: the firm's comes
-- last, as late as can be: whoever waits for an order that is about to be rolled back must not hold
-- a scope above. Only nested loops keep the order of the gains.
create function risk_private.carry_at(account_id integer, units risk_private.unit_values[])
returns numeric
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_gains risk_private.revaluation_gain[] := array(
    select g from risk_private.revaluation_gains(account_id, units) as g
    order by g.dimension, g.key_id);
  v_parts risk_private.exposure_part[] := '{}';
  v_scope risk_private.scopes;
begin
  if risk_private.keeps_exposures(account_id) then
    v_parts := array(select x from risk_private.revaluation_parts(account_id, units) as x);
  end if;
  update risk_private.positions as p set
    unit_value = u.unit_value, unit_notional = u.unit_notional, unit_delta = u.unit_delta,
    unit_gamma = u.unit_gamma, unit_dollar_delta = u.unit_dollar_delta,
    unit_dollar_gamma = u.unit_dollar_gamma, unit_vega = u.unit_vega,
    unit_theta = u.unit_theta, has_greeks = u.has_greeks
  from unnest(units) as u
  where p.account_id = carry_at.account_id and p.instrument_id = u.instrument_id;
  for v_scope in
    select s.* from risk_private.scopes as leaf
    join risk_private.scopes as s on s.scope_id = any (leaf.chain)
    where leaf.scope_id = carry_at.account_id
    order by s.scope_id
  loop
    perform risk_private.add_gains(v_scope, v_gains);
  end loop;
  if v_parts <> '{}' then
    perform risk_private.add_exposures(v_parts);
  end if;
  return (select g.equity from unnest(v_gains) as g where g.dimension = 0);
end
$$;
comment on function risk_private.carry_at(integer, risk_private.unit_values[]) is
  'Carries an account''s positions at those values, moving its counters and exposures by the '
  'difference. Returns what its equity must follow.';
