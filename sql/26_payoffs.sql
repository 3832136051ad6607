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

create function risk_private.loss_at(
  price numeric, horizon date, kind text, option_right text, strike numeric, expiry date,
  units numeric, cost numeric)
returns numeric
language sql immutable
return case
  when kind <> 'option' then cost - units * price
  when expiry < horizon then greatest(0, cost)
  when case option_right when 'call' then price > strike else price < strike end
    then cost - units * abs(price - strike)
  else cost
end;
comment on function risk_private.loss_at(
  numeric, date, text, text, numeric, date, numeric, numeric) is
  'What was paid for a leg less its payoff. units: quantity x multiplier. Of several expiries each '
  'is a horizon: legs that expire no earlier pay their intrinsic value, earlier ones have expired, '
  'long ones worth nothing, short ones with what they brought forgotten; so a long option covers '
  'only shorts that expire no later. Stocks, indexes and futures are held throughout.';

create function risk_private.slope_at(
  horizon date, kind text, option_right text, expiry date, units numeric)
returns numeric
language sql immutable
return case
  when kind <> 'option' or (option_right = 'call' and expiry >= horizon) then -units
  else 0
end;
comment on function risk_private.slope_at(date, text, text, date, numeric) is
  'How the loss of a leg grows with the price beyond all strikes.';

create function risk_private.put_loss_at(
  price numeric, horizon date, option_right text, strike numeric, expiry date, units numeric)
returns numeric
language sql immutable
return case
  when option_right = 'put' and expiry >= horizon and price < strike then -units * (strike - price)
  else 0
end;
comment on function risk_private.put_loss_at(numeric, date, text, numeric, date, numeric) is
  'What a put takes, its cost aside; 0 of anything else.';

-- Joint: legs or versions of one order, summed before the floor of zero. Most orders have none, and
-- to group by them is not free. A position has no floor: greatest() passes over NULL.
create function risk_private.payoff_of(legs risk_private.payoff_leg[])
returns risk_private.payoff
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    with legs as materialized (
      select l.kind, l.option_right, l.strike, l.expiry, l.cost, l.quantity * l.multiplier as units,
        l.order_id, l.version, case when l.order_id is not null then 0 end as floor,
        l.order_id is not null and count(*) over (partition by l.order_id) > 1 as is_joint
      from unnest(payoff_of.legs) as l
    ), points as materialized (
      select h.horizon, s.price
      from (
        select l.expiry as horizon from legs as l where l.kind = 'option'
        union
        select 'infinity' where not exists (select from legs as l where l.kind = 'option')
      ) as h
      cross join (
        select l.strike as price from legs as l where l.kind = 'option' union select 0
      ) as s
    ), parts as not materialized (
      select p.horizon, p.price, l.order_id, l.version, l.is_joint, l.floor,
        risk_private.loss_at(p.price, p.horizon, l.kind, l.option_right, l.strike, l.expiry,
          l.units, l.cost) as loss,
        risk_private.slope_at(p.horizon, l.kind, l.option_right, l.expiry, l.units) as slope,
        risk_private.put_loss_at(p.price, p.horizon, l.option_right, l.strike, l.expiry,
          l.units) as put_loss
      from points as p
      cross join legs as l
    ), sums as (
      select a.horizon, a.price, sum(a.loss) as loss, sum(a.slope) as slope,
        sum(a.put_loss) as put_loss
      from (
        select l.horizon, l.price, sum(greatest(l.floor, l.loss)) as loss,
          sum(greatest(l.floor, l.slope)) as slope, sum(greatest(l.floor, l.put_loss)) as put_loss
        from parts as l
        where not l.is_joint
        group by l.horizon, l.price
        union all
        select o.horizon, o.price, greatest(0, max(o.loss)), greatest(0, max(o.slope)),
          greatest(0, max(o.put_loss))
        from (
          select l.horizon, l.price, l.order_id, sum(l.loss) as loss, sum(l.slope) as slope,
            sum(l.put_loss) as put_loss
          from parts as l
          where l.is_joint
          group by l.horizon, l.price, l.order_id, l.version
        ) as o
        group by o.horizon, o.price, o.order_id
      ) as a
      group by a.horizon, a.price
    )
    select row(
      array_agg(s.horizon order by s.horizon, s.price),
      array_agg(s.price order by s.horizon, s.price),
      array_agg(s.loss order by s.horizon, s.price),
      array_agg(s.slope order by s.horizon, s.price),
      array_agg(s.put_loss order by s.horizon, s.price),
      (
        select coalesce(sum(greatest(0, o.cost)), 0)
        from (
          select max(v.cost) as cost
          from (
            select l.order_id, sum(l.cost) as cost
            from legs as l
            where l.order_id is not null and l.kind <> 'future'
            group by l.order_id, l.version
          ) as v
          group by v.order_id
        ) as o
      ))::risk_private.payoff
    from sums as s);
end
$$;
comment on function risk_private.payoff_of(risk_private.payoff_leg[]) is
  'The payoff of legs in one underlying. Its points are every expiry with every strike and 0: '
  'between two strikes a sum is convex in the price, for what a floor of zero adds at an order''s '
  'break-even is a bend upwards, so it is largest at one of them, or beyond all.';

create function risk_private.with_order(
  payoff risk_private.payoff, leg risk_private.payoff_leg)
returns risk_private.payoff
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_units numeric := leg.quantity * leg.multiplier;
begin
  return (
    select row(payoff.horizons, payoff.prices,
      array_agg(p.loss + greatest(0, risk_private.loss_at(p.price, p.horizon, leg.kind,
        leg.option_right, leg.strike, leg.expiry, v_units, leg.cost)) order by p.point),
      array_agg(p.slope + greatest(0, risk_private.slope_at(p.horizon, leg.kind, leg.option_right,
        leg.expiry, v_units)) order by p.point),
      array_agg(p.put_loss + greatest(0, risk_private.put_loss_at(p.price, p.horizon,
        leg.option_right, leg.strike, leg.expiry, v_units)) order by p.point),
      payoff.costs + case when leg.kind = 'future' then 0 else greatest(0, leg.cost) end
    )::risk_private.payoff
    from unnest(payoff.horizons, payoff.prices, payoff.losses, payoff.slopes, payoff.put_losses)
      with ordinality as p (horizon, price, loss, slope, put_loss, point));
end
$$;
comment on function risk_private.with_order(risk_private.payoff, risk_private.payoff_leg) is
  'The payoff with one more open order, of one leg, whose strike and expiry are among its points.';

create function risk_private.worst_loss(payoff risk_private.payoff) returns numeric
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select case when max(p.slope) > 0 then 'Infinity'
      else trim_scale(greatest(0, max(p.loss))) end
    from unnest(payoff.losses, payoff.slopes) as p (loss, slope));
end
$$;
comment on function risk_private.worst_loss(risk_private.payoff) is
  'The largest loss over all prices >= 0 of the underlying at expiry; at least 0, Infinity where '
  'it grows without bound. Of several horizons the worst counts.';

create function risk_private.worst_loss(legs risk_private.payoff_leg[]) returns numeric
language sql immutable
return risk_private.worst_loss(risk_private.payoff_of(legs));
comment on function risk_private.worst_loss(risk_private.payoff_leg[]) is
  'The largest loss of legs in one underlying at expiry.';

create function risk_private.cash_need(payoff risk_private.payoff) returns numeric
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return payoff.costs
    + trim_scale(greatest(0, (select max(p.loss) from unnest(payoff.put_losses) as p (loss))));
end
$$;
comment on function risk_private.cash_need(risk_private.payoff) is
  'Cash that may be called for: premium and cost of each open order, net of what its other legs '
  'bring in and never below 0; and what short puts could take, strike x multiplier, covered by '
  'long ones. A future is margined, not paid for.';

create function risk_private.side(
  option_right text, multiplier numeric, calls numeric, puts numeric)
returns numeric
language sql immutable
return greatest(0, case option_right when 'call' then calls else puts end) * multiplier * 0.01;
comment on function risk_private.side(text, numeric, numeric, numeric) is
  'What an option is on one side of the market, in units of 100 shares: long calls and short puts '
  'are bullish, short calls and long puts bearish (FINRA 2360, Cboe 8.30). calls, puts: how many '
  'of it count there if it is a call, or a put.';
