-- Exposures recomputed from orders, fills and the values that positions carry.

create function risk_private.recount_parts(account_id integer)
returns setof risk_private.exposure_part
language sql stable
begin atomic
  select p.account_id, p.instrument_id, null::text, 1, r.quantity,
    w.worst_case * abs(p.unit_dollar_delta),
    case when p.has_greeks or w.worst_case = 0 then 0 else 1 end,
    p.unit_delta, p.unit_gamma, p.unit_dollar_delta, p.unit_dollar_gamma, p.unit_vega, p.unit_theta
  from risk_private.recount_positions(recount_parts.account_id) as r
  join risk_private.positions as p
    on p.account_id = r.account_id and p.instrument_id = r.instrument_id
  cross join lateral (
    select risk_private.worst_case(r.quantity, r.open_buy, r.open_sell) as worst_case
  ) as w
  union all
  select o.*
  from risk_private.order_parts(array(
    select w from risk_private.working_legs as w
    where w.account_id = recount_parts.account_id), 1) as o;
end;
comment on function risk_private.recount_parts(integer) is
  'The parts of all that orders and fills say of an account, at carried values.';

create function risk_private.recount_exposures(scope_id integer default null)
returns setof risk_private.exposures
language sql stable
begin atomic
  select x.counter_id, x.scope_id, x.dimension, x.key_id,
    sum(x.delta), sum(x.delta_up), sum(x.delta_down), sum(x.gamma), sum(x.gamma_up),
    sum(x.gamma_down), sum(x.dollar_delta), sum(x.dollar_delta_up), sum(x.dollar_delta_down),
    sum(x.dollar_gamma), sum(x.dollar_gamma_up), sum(x.dollar_gamma_down), sum(x.vega),
    sum(x.vega_up), sum(x.vega_down), sum(x.theta), sum(x.theta_up), sum(x.theta_down),
    sum(x.gross_exposure), sum(x.unknown)::integer
  from risk_private.scopes as a
  cross join lateral risk_private.sum_exposures(array(
    select p from risk_private.recount_parts(a.scope_id) as p)) as x
  where a.is_leaf
    and exists (
      select from risk_private.scopes as s
      where s.scope_id = any (a.chain) and pg_catalog.cardinality(s.exposure_dimensions) > 0)
    and (recount_exposures.scope_id is null or x.scope_id = recount_exposures.scope_id)
    and (recount_exposures.scope_id is null or a.chain @> array[recount_exposures.scope_id])
  group by x.counter_id, x.scope_id, x.dimension, x.key_id;
end;
comment on function risk_private.recount_exposures(integer) is
  'Exposures as orders, fills and carried values say: of one scope, or of all.';
