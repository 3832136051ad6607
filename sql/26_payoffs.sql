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

-- Between two strikes the sum is convex in the price, for what a floor of zero adds at an order's
-- break-even is a bend upwards. So it is largest at 0, at a strike, or beyond all of them. Joint:
-- legs or versions of one order, which are summed before the floor; most orders need no grouping.
create function risk_private.worst_loss(legs risk_private.payoff_leg[]) returns numeric
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    with legs as materialized (
      select l.kind, l.option_right, l.strike, l.expiry, l.cost, l.quantity * l.multiplier as units,
        l.order_id, l.version,
        l.order_id is not null and count(*) over (partition by l.order_id) > 1 as is_joint
      from unnest(worst_loss.legs) as l
    ), horizons as materialized (
      select distinct l.expiry as horizon from legs as l where l.kind = 'option'
      union all
      select 'infinity'::date
      where not exists (select from legs as l where l.kind = 'option')
    ), points as materialized (
      select row_number() over () as point, h.horizon, s.price
      from horizons as h
      cross join (
        select l.strike as price from legs as l where l.kind = 'option' union select 0
      ) as s
    ), losses as not materialized (
      select p.point, l.order_id, l.version, l.is_joint,
        case
          when l.kind <> 'option' then l.cost - l.units * p.price
          when l.expiry < p.horizon then greatest(0, l.cost)
          when case l.option_right when 'call' then p.price > l.strike else p.price < l.strike end
            then l.cost - l.units * abs(p.price - l.strike)
          else l.cost
        end as loss
      from points as p
      cross join legs as l
    ), sums as (
      select sum(a.loss) as loss
      from (
        select l.point,
          sum(case when l.order_id is null then l.loss else greatest(0, l.loss) end) as loss
        from losses as l
        where not l.is_joint
        group by l.point
        union all
        select o.point, greatest(0, max(o.loss))
        from (
          select l.point, l.order_id, sum(l.loss) as loss
          from losses as l
          where l.is_joint
          group by l.point, l.order_id, l.version
        ) as o
        group by o.point, o.order_id
      ) as a
      group by a.point
    ), slopes as (
      select v.horizon,
        case when v.order_id is null then max(v.slope) else greatest(0, max(v.slope)) end as slope
      from (
        select h.horizon, l.order_id, sum(-l.units) as slope
        from horizons as h
        join legs as l
          on l.kind <> 'option' or (l.option_right = 'call' and l.expiry >= h.horizon)
        group by h.horizon, l.order_id, l.version
      ) as v
      group by v.horizon, v.order_id
    )
    select case
      when exists (
          select from legs as l where l.units < 0 and l.option_right is distinct from 'put')
        and exists (select from slopes as s group by s.horizon having sum(s.slope) > 0)
        then 'Infinity'
      else trim_scale(greatest(0, max(s.loss))) end
    from sums as s);
end
$$;
comment on function risk_private.worst_loss(risk_private.payoff_leg[]) is
  'The largest loss over all prices S >= 0 of the underlying at expiry: what was paid less the '
  'payoff, of the positions, plus that of each open order where it loses; at least 0, Infinity '
  'where it grows without bound. Of several expiries each is a horizon, the worst counts: legs '
  'that expire no earlier pay their intrinsic value, earlier ones have expired, long ones worth '
  'nothing, short ones with what they brought forgotten; so a long option covers only shorts that '
  'expire no later. Stocks, indexes and futures are held throughout.';
