-- What positions and orders in one underlying can lose at expiry: pure arithmetic.

create type risk_private.payoff_leg as (
  kind text,
  option_right text,
  strike numeric,
  expiry date,
  multiplier numeric,
  quantity numeric,
  cost numeric,
  order_id text,
  version integer
);
comment on type risk_private.payoff_leg is
  'A signed quantity, and what was or is to be paid for all of it (below 0: received), in base '
  'currency; multiplier is money per 1.00 of price. order_id NULL: a position, else the legs of '
  'one open order. Versions of an order are alternatives: only one of them will be filled.';

create function risk_private.worst_loss(legs risk_private.payoff_leg[]) returns numeric
language sql immutable
set search_path = pg_catalog, pg_temp
begin atomic
  -- Between two strikes the sum is convex in the price, for what a floor of zero adds at an order's
  -- break-even is a bend upwards. So it is largest at 0, at a strike, or beyond all of them.
  with horizons (horizon) as (
    select l.expiry from unnest(legs) as l where l.kind = 'option'
    union
    select 'infinity'::date
    where not exists (select from unnest(legs) as l where l.kind = 'option')
  ), prices (price) as (
    select 0::numeric
    union
    select l.strike from unnest(legs) as l where l.kind = 'option'
  ), versions as (
    select h.horizon, s.price, l.order_id,
      sum(case
        when l.kind <> 'option' then l.cost - l.quantity * l.multiplier * s.price
        when l.expiry < h.horizon then greatest(0, l.cost)
        when l.option_right = 'call'
          then l.cost - l.quantity * l.multiplier * greatest(0, s.price - l.strike)
        else l.cost - l.quantity * l.multiplier * greatest(0, l.strike - s.price)
      end) as loss,
      sum(case
        when l.kind <> 'option' or (l.option_right = 'call' and l.expiry >= h.horizon)
          then -l.quantity * l.multiplier
        else 0
      end) as slope
    from horizons as h
    cross join prices as s
    cross join unnest(legs) as l
    group by h.horizon, s.price, l.order_id, l.version
  ), orders as (
    select v.horizon, v.price,
      case when v.order_id is null then max(v.loss) else greatest(0, max(v.loss)) end as loss,
      case when v.order_id is null then max(v.slope) else greatest(0, max(v.slope)) end as slope
    from versions as v
    group by v.horizon, v.price, v.order_id
  ), sums as (
    select sum(o.loss) as loss, sum(o.slope) as slope
    from orders as o
    group by o.horizon, o.price
  )
  select case when max(s.slope) > 0 then 'Infinity'
    else trim_scale(greatest(0, max(s.loss))) end
  from sums as s;
end;
comment on function risk_private.worst_loss(risk_private.payoff_leg[]) is
  'The largest loss over all prices S >= 0 of the underlying at expiry: what was paid less the '
  'payoff, of the positions, plus that of each open order where it loses; at least 0, Infinity '
  'where it grows without bound. Of several expiries each is a horizon, the worst counts: legs '
  'that expire no earlier pay their intrinsic value, earlier ones have expired, long ones worth '
  'nothing, short ones with what they brought forgotten; so a long option covers only shorts that '
  'expire no later. Stocks, indexes and futures are held throughout.';
