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
      sum(case when e.is_held then e.delta else e.sign * greatest(0, e.delta) end) as delta_up,
      sum(case when e.is_held then e.delta else e.sign * least(0, e.delta) end) as delta_down,
      coalesce(sum(e.gamma) filter (where e.is_held), 0) as gamma,
      sum(case when e.is_held then e.gamma else e.sign * greatest(0, e.gamma) end) as gamma_up,
      sum(case when e.is_held then e.gamma else e.sign * least(0, e.gamma) end) as gamma_down,
      coalesce(sum(e.dollar_delta) filter (where e.is_held), 0) as dollar_delta,
      sum(case when e.is_held then e.dollar_delta else e.sign * greatest(0, e.dollar_delta) end) as dollar_delta_up,
      sum(case when e.is_held then e.dollar_delta else e.sign * least(0, e.dollar_delta) end) as dollar_delta_down,
      coalesce(sum(e.dollar_gamma) filter (where e.is_held), 0) as dollar_gamma,
      sum(case when e.is_held then e.dollar_gamma else e.sign * greatest(0, e.dollar_gamma) end) as dollar_gamma_up,
      sum(case when e.is_held then e.dollar_gamma else e.sign * least(0, e.dollar_gamma) end) as dollar_gamma_down,
      coalesce(sum(e.vega) filter (where e.is_held), 0) as vega,
      sum(case when e.is_held then e.vega else e.sign * greatest(0, e.vega) end) as vega_up,
      sum(case when e.is_held then e.vega else e.sign * least(0, e.vega) end) as vega_down,
      coalesce(sum(e.theta) filter (where e.is_held), 0) as theta,
      sum(case when e.is_held then e.theta else e.sign * greatest(0, e.theta) end) as theta_up,
      sum(case when e.is_held then e.theta else e.sign * least(0, e.theta) end) as theta_down
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
    pg_catalog.sign(w.ratio) * w.open_quantity, 0, 0,
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

create function risk_private.keeps_exposures(account_id integer) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select from risk_private.account_levels as l
    where l.account_id = keeps_exposures.account_id and l.exposures is not null);
end
$$;
comment on function risk_private.keeps_exposures(integer) is
  'Whether any scope of an account''s chain keeps exposures.';

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
  select p.account_id, p.instrument_id, null::text, 1, p.quantity,
    risk_private.worst_case(p.quantity, p.open_buy, p.open_sell)
      * (abs(u.unit_dollar_delta) - abs(p.unit_dollar_delta)),
    (not u.has_greeks)::integer - (not p.has_greeks)::integer,
    u.unit_delta - p.unit_delta, u.unit_gamma - p.unit_gamma,
    u.unit_dollar_delta - p.unit_dollar_delta, u.unit_dollar_gamma - p.unit_dollar_gamma,
    u.unit_vega - p.unit_vega, u.unit_theta - p.unit_theta
  from unnest(units) as u
  join risk_private.positions as p
    on p.account_id = revaluation_parts.account_id and p.instrument_id = u.instrument_id
  union all
  select p.account_id, p.instrument_id, w.client_order_id, n.sign,
    pg_catalog.sign(w.ratio) * w.open_quantity, 0, 0,
    case when n.sign > 0 and u.instrument_id is not null then u.unit_delta else p.unit_delta end,
    case when n.sign > 0 and u.instrument_id is not null then u.unit_gamma else p.unit_gamma end,
    case when n.sign > 0 and u.instrument_id is not null then u.unit_dollar_delta else p.unit_dollar_delta end,
    case when n.sign > 0 and u.instrument_id is not null then u.unit_dollar_gamma else p.unit_dollar_gamma end,
    case when n.sign > 0 and u.instrument_id is not null then u.unit_vega else p.unit_vega end,
    case when n.sign > 0 and u.instrument_id is not null then u.unit_theta else p.unit_theta end
  from risk_private.working_legs as w
  join risk_private.positions as p
    on p.account_id = w.account_id and p.instrument_id = w.instrument_id
  left join unnest(units) as u on u.instrument_id = w.instrument_id
  cross join (values (1), (-1)) as n (sign)
  where w.account_id = revaluation_parts.account_id and w.open_quantity > 0;
end;
comment on function risk_private.revaluation_parts(integer, risk_private.unit_values[]) is
  'The parts of carrying an account''s positions at these values instead: of what is held, and of '
  'all its open orders, whose legs net.';

-- Lock order: accounts below, ascending.
create function risk_private.track_exposures(scope_id integer, dimension integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select from risk_private.scopes as s
    where s.scope_id = track_exposures.scope_id
      and track_exposures.dimension = any (s.exposure_dimensions)) then
    return;
  end if;
  perform risk_private.lock_accounts_below(array[scope_id]);
  update risk_private.scopes as s set
    exposure_dimensions = s.exposure_dimensions || track_exposures.dimension
  where s.scope_id = track_exposures.scope_id;
  insert into risk_private.exposures
  select r.* from risk_private.recount_exposures(track_exposures.scope_id) as r
  where r.dimension = track_exposures.dimension;
  perform risk_private.compile_account_levels(scope_id, risk_private.clock());
end
$$;
comment on function risk_private.track_exposures(integer, integer) is
  'Starts keeping exposures in a dimension at a scope, exact while orders flow.';

create function risk_private.exposure_levels(
  account_id integer, sector_id integer, underlying_id integer, instrument_id integer,
  at timestamptz)
returns risk_private.exposure_level[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select array_agg(row(
      risk_private.counter_id(s.scope_id, d.dimension), d.dimension,
      case d.dimension when 2 then coalesce(l2.delta, l1.delta, l0.delta, 'Infinity')
        else 'Infinity' end,
      case d.dimension when 2 then coalesce(l2.gamma, l1.gamma, l0.gamma, 'Infinity')
        else 'Infinity' end,
      coalesce((k.l).net_exposure, 'Infinity'), coalesce((k.l).dollar_gamma, 'Infinity'),
      coalesce((k.l).vega, 'Infinity'), coalesce((k.l).theta, 'Infinity'),
      coalesce((k.l).gross_exposure, 'Infinity'))::risk_private.exposure_level
      order by s.scope_id, d.dimension)
    from risk_private.scopes as leaf
    join risk_private.scopes as s on s.scope_id = any (leaf.chain)
    cross join unnest(s.exposure_dimensions) as d (dimension)
    left join risk_private.warning_levels as l0
      on l0.scope_id = s.scope_id and l0.dimension = 0 and l0.key_id = 0
      and at < l0.valid_until and l0.valid_from <= at
    left join risk_private.warning_levels as l1
      on l1.scope_id = s.scope_id and l1.dimension = 1 and l1.key_id = exposure_levels.sector_id
      and at < l1.valid_until and l1.valid_from <= at
    left join risk_private.warning_levels as l2
      on l2.scope_id = s.scope_id and l2.dimension = 2
      and l2.key_id = exposure_levels.underlying_id
      and at < l2.valid_until and l2.valid_from <= at
    left join risk_private.warning_levels as l3
      on l3.scope_id = s.scope_id and l3.dimension = 3
      and l3.key_id = exposure_levels.instrument_id
      and at < l3.valid_until and l3.valid_from <= at
    cross join lateral (
      select case d.dimension when 0 then l0 when 1 then l1 when 2 then l2 else l3 end as l
    ) as k
    where leaf.scope_id = exposure_levels.account_id);
end
$$;
comment on function risk_private.exposure_levels(integer, integer, integer, integer, timestamptz)
is
  'The rows of exposures that an account''s orders in one instrument move, and the lowest values '
  'there from which a decision must be explained; keys NULL: those that hold for all. NULL where '
  'no scope of the chain keeps any.';

create function risk_private.greek_sides(
  x risk_private.exposures, limit_type text, out net numeric, out up numeric, out down numeric)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  case limit_type
    when 'delta' then net := x.delta; up := x.delta_up; down := x.delta_down;
    when 'gamma' then net := x.gamma; up := x.gamma_up; down := x.gamma_down;
    when 'net_exposure' then net := x.dollar_delta; up := x.dollar_delta_up; down := x.dollar_delta_down;
    when 'dollar_gamma' then net := x.dollar_gamma; up := x.dollar_gamma_up; down := x.dollar_gamma_down;
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
