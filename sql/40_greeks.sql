-- Exposures: how Greeks, netted over each order and summed over accounts, move with orders, fills
-- and marks. Whatever happens is a list of parts; sum_exposures makes of them what every row of
-- exposures gains. Only 41_accept_greeks.sql has forms of its own, for speed.
--
-- Lock order: the account, the counters of its chain up to the firm; only then exposures, which
-- nobody else can touch at that moment.

create type risk_private.exposure_part as (
  account_id integer,
  instrument_id integer,
  client_order_id text,
  sign integer,
  quantity numeric,
  gross_exposure numeric,
  unknown integer,
  unit_delta numeric,
  unit_gamma numeric,
  unit_dollar_delta numeric,
  unit_dollar_gamma numeric,
  unit_vega numeric,
  unit_theta numeric
);
comment on type risk_private.exposure_part is
  'Quantity of an instrument at unit Greeks: of a position (client_order_id NULL: what it gains), '
  'or the signed rest of a leg of an open order, which comes (sign 1) or goes (sign -1).';

create function risk_private.raised(effect numeric, is_held boolean, sign integer) returns numeric
language sql immutable
return case when is_held then effect else sign * greatest(0, effect) end;
comment on function risk_private.raised(numeric, boolean, integer) is
  'What the upper side of a measure gains by what is held, or by an order that comes (sign 1) or '
  'goes (sign -1).';

create function risk_private.lowered(effect numeric, is_held boolean, sign integer) returns numeric
language sql immutable
return case when is_held then effect else sign * least(0, effect) end;
comment on function risk_private.lowered(numeric, boolean, integer) is
  'The same of the lower side.';

create function risk_private.sum_exposures(parts risk_private.exposure_part[])
returns setof risk_private.exposures
language sql stable
begin atomic
  with chains as (
    select leaf.scope_id as account_id, s.scope_id, d.dimension
    from risk_private.scopes as leaf
    join risk_private.scopes as s on s.scope_id = any (leaf.chain)
    cross join unnest(s.exposure_dimensions) as d (dimension)
    where leaf.scope_id = any (array(select distinct a.account_id from unnest(parts) as a))
  ), effects as (
    select a.account_id, d.dimension, d.key_id, a.client_order_id is null as is_held, a.sign,
      sum(a.gross_exposure) as gross_exposure, sum(a.unknown) as unknown,
      sum(a.quantity * a.unit_delta) as delta,
      sum(a.quantity * a.unit_gamma) as gamma,
      sum(a.quantity * a.unit_dollar_delta) as dollar_delta,
      sum(a.quantity * a.unit_dollar_gamma) as dollar_gamma,
      sum(a.quantity * a.unit_vega) as vega,
      sum(a.quantity * a.unit_theta) as theta
    from unnest(parts) as a
    join risk_private.instruments as i on i.instrument_id = a.instrument_id
    cross join lateral (
      values (0, 0), (1, i.sector_id), (2, i.underlying_id), (3, i.instrument_id)
    ) as d (dimension, key_id)
    where d.key_id is not null and d.dimension = any (array(select c.dimension from chains as c))
    group by a.account_id, d.dimension, d.key_id, a.client_order_id, a.sign
  ), summed as (
    select e.account_id, e.dimension, e.key_id, sum(e.gross_exposure) as gross_exposure,
      sum(e.unknown) as unknown,
      coalesce(sum(e.delta) filter (where e.is_held), 0) as delta,
      sum(risk_private.raised(e.delta, e.is_held, e.sign)) as delta_up,
      sum(risk_private.lowered(e.delta, e.is_held, e.sign)) as delta_down,
      coalesce(sum(e.gamma) filter (where e.is_held), 0) as gamma,
      sum(risk_private.raised(e.gamma, e.is_held, e.sign)) as gamma_up,
      sum(risk_private.lowered(e.gamma, e.is_held, e.sign)) as gamma_down,
      coalesce(sum(e.dollar_delta) filter (where e.is_held), 0) as dollar_delta,
      sum(risk_private.raised(e.dollar_delta, e.is_held, e.sign)) as dollar_delta_up,
      sum(risk_private.lowered(e.dollar_delta, e.is_held, e.sign)) as dollar_delta_down,
      coalesce(sum(e.dollar_gamma) filter (where e.is_held), 0) as dollar_gamma,
      sum(risk_private.raised(e.dollar_gamma, e.is_held, e.sign)) as dollar_gamma_up,
      sum(risk_private.lowered(e.dollar_gamma, e.is_held, e.sign)) as dollar_gamma_down,
      coalesce(sum(e.vega) filter (where e.is_held), 0) as vega,
      sum(risk_private.raised(e.vega, e.is_held, e.sign)) as vega_up,
      sum(risk_private.lowered(e.vega, e.is_held, e.sign)) as vega_down,
      coalesce(sum(e.theta) filter (where e.is_held), 0) as theta,
      sum(risk_private.raised(e.theta, e.is_held, e.sign)) as theta_up,
      sum(risk_private.lowered(e.theta, e.is_held, e.sign)) as theta_down
    from effects as e
    group by e.account_id, e.dimension, e.key_id
  )
  select risk_private.counter_id(c.scope_id, s.dimension, s.key_id), c.scope_id,
    s.dimension::smallint, s.key_id,
    sum(s.delta), sum(s.delta_up), sum(s.delta_down), sum(s.gamma), sum(s.gamma_up),
    sum(s.gamma_down), sum(s.dollar_delta), sum(s.dollar_delta_up), sum(s.dollar_delta_down),
    sum(s.dollar_gamma), sum(s.dollar_gamma_up), sum(s.dollar_gamma_down), sum(s.vega),
    sum(s.vega_up), sum(s.vega_down), sum(s.theta), sum(s.theta_up), sum(s.theta_down),
    sum(s.gross_exposure), sum(s.unknown)::integer
  from summed as s
  join chains as c on c.account_id = s.account_id and c.dimension = s.dimension
  group by c.scope_id, s.dimension, s.key_id;
end;
comment on function risk_private.sum_exposures(risk_private.exposure_part[]) is
  'What parts add to each row of exposures of their chains.';

create function risk_private.order_parts(legs risk_private.working_legs[], sign integer)
returns setof risk_private.exposure_part
language sql stable
begin atomic
  select p.account_id, p.instrument_id, w.client_order_id, order_parts.sign,
    pg_catalog.sign(w.ratio::numeric) * w.open_quantity, 0, 0,
    p.unit_delta, p.unit_gamma, p.unit_dollar_delta, p.unit_dollar_gamma, p.unit_vega, p.unit_theta
  from unnest(legs) as w
  join risk_private.positions as p
    on p.account_id = w.account_id and p.instrument_id = w.instrument_id
  where w.open_quantity > 0;
end;
comment on function risk_private.order_parts(risk_private.working_legs[], integer) is
  'The parts of open orders, at the values that positions carry.';

create function risk_private.position_parts(movements risk_private.movement[])
returns setof risk_private.exposure_part
language sql stable
begin atomic
  select p.account_id, p.instrument_id, null::text, 1, m.quantity,
    (w.after - w.before) * abs(p.unit_dollar_delta),
    case when p.has_greeks then 0 else (w.after <> 0)::integer - (w.before <> 0)::integer end,
    p.unit_delta, p.unit_gamma, p.unit_dollar_delta, p.unit_dollar_gamma, p.unit_vega, p.unit_theta
  from unnest(movements) as m
  join risk_private.positions as p
    on p.account_id = m.account_id and p.instrument_id = m.instrument_id
  cross join lateral (
    select risk_private.worst_case(p.quantity, p.open_buy, p.open_sell) as after,
      risk_private.worst_case(p.quantity - m.quantity, p.open_buy - m.open_buy,
        p.open_sell - m.open_sell) as before
    offset 0
  ) as w;
end;
comment on function risk_private.position_parts(risk_private.movement[]) is
  'The parts of positions that have just moved.';

create function risk_private.add_exposures(parts risk_private.exposure_part[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_changes risk_private.exposures[] := array(
    select x from risk_private.sum_exposures(parts) as x order by x.counter_id);
begin
  insert into risk_private.exposures (counter_id, scope_id, dimension, key_id)
  select x.counter_id, x.scope_id, x.dimension, x.key_id from unnest(v_changes) as x
  where not exists (
    select from risk_private.exposures as e where e.counter_id = x.counter_id);
  update risk_private.exposures as e set
    delta = e.delta + x.delta,
    delta_up = e.delta_up + x.delta_up,
    delta_down = e.delta_down + x.delta_down,
    gamma = e.gamma + x.gamma,
    gamma_up = e.gamma_up + x.gamma_up,
    gamma_down = e.gamma_down + x.gamma_down,
    dollar_delta = e.dollar_delta + x.dollar_delta,
    dollar_delta_up = e.dollar_delta_up + x.dollar_delta_up,
    dollar_delta_down = e.dollar_delta_down + x.dollar_delta_down,
    dollar_gamma = e.dollar_gamma + x.dollar_gamma,
    dollar_gamma_up = e.dollar_gamma_up + x.dollar_gamma_up,
    dollar_gamma_down = e.dollar_gamma_down + x.dollar_gamma_down,
    vega = e.vega + x.vega,
    vega_up = e.vega_up + x.vega_up,
    vega_down = e.vega_down + x.vega_down,
    theta = e.theta + x.theta,
    theta_up = e.theta_up + x.theta_up,
    theta_down = e.theta_down + x.theta_down,
    gross_exposure = e.gross_exposure + x.gross_exposure,
    unknown = e.unknown + x.unknown
  from unnest(v_changes) as x
  where e.counter_id = x.counter_id;
end
$$;
comment on function risk_private.add_exposures(risk_private.exposure_part[]) is
  'Adds parts to exposures. The caller has locked the counters of the chain.';

create function risk_private.move_exposures(
  account_id integer, movements risk_private.movement[], before risk_private.working_legs[],
  after risk_private.working_legs[])
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if risk_private.keeps_exposures(account_id) then
    perform risk_private.add_exposures(array(
      select p from risk_private.position_parts(movements) as p
      union all
      select p from risk_private.order_parts(before, -1) as p
      union all
      select p from risk_private.order_parts(after, 1) as p));
  end if;
end
$$;
comment on function risk_private.move_exposures(
  integer, risk_private.movement[], risk_private.working_legs[], risk_private.working_legs[]) is
  'Lets exposures follow movements of an account that were just applied, and the orders that were '
  'and are open instead. The caller has locked the counters of the chain.';

create function risk_private.revaluation_parts(
  account_id integer, units risk_private.unit_values[])
returns setof risk_private.exposure_part
language sql stable
begin atomic
  select p.account_id, p.instrument_id, w.client_order_id, n.sign,
    pg_catalog.sign(w.ratio::numeric) * w.open_quantity, 0, 0,
    v.unit_delta, v.unit_gamma, v.unit_dollar_delta, v.unit_dollar_gamma, v.unit_vega, v.unit_theta
  from risk_private.working_legs as w
  join risk_private.positions as p
    on p.account_id = w.account_id and p.instrument_id = w.instrument_id
  left join unnest(units) as u on u.instrument_id = w.instrument_id
  cross join (values (1), (-1)) as n (sign)
  cross join lateral (
    select (k.units).* from (
      select case when n.sign = 1 and u.instrument_id is not null then u
        else risk_private.carried(p, null) end as units
      offset 0
    ) as k
  ) as v
  where w.account_id = revaluation_parts.account_id and w.open_quantity > 0
    and (w.legs > 1 or u.instrument_id is not null);
end;
comment on function risk_private.revaluation_parts(integer, risk_private.unit_values[]) is
  'The parts of an account''s open orders where its positions are carried at these values instead; '
  'of combos, whose legs net, all legs.';

create function risk_private.greek_sides(
  x risk_private.exposures, limit_type text, out net numeric, out up numeric, out down numeric)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  case limit_type
    when 'delta' then net := x.delta; up := x.delta_up; down := x.delta_down;
    when 'gamma' then net := x.gamma; up := x.gamma_up; down := x.gamma_down;
    when 'net_exposure' then
      net := x.dollar_delta; up := x.dollar_delta_up; down := x.dollar_delta_down;
    when 'dollar_gamma' then
      net := x.dollar_gamma; up := x.dollar_gamma_up; down := x.dollar_gamma_down;
    when 'vega' then net := x.vega; up := x.vega_up; down := x.vega_down;
    when 'theta' then net := x.theta; up := x.theta_up; down := x.theta_down;
    when 'gross_exposure' then up := x.gross_exposure; down := 0;
    else null;
  end case;
end
$$;
comment on function risk_private.greek_sides(risk_private.exposures, text) is
  'What a row of exposures says of a type of limit: filled, and both sides with open orders. '
  'gross_exposure has one side, and no figure of what is filled.';
