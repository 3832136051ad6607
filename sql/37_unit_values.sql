-- What one unit of a position is worth, and moves by, at the present marks. Positions carry these
-- values, so that decisions and fills add and subtract the same; revaluation moves them.

-- offset 0: marks and rates are looked up by key, whatever the statistics say. The trading date is
-- not looked up for what never expires.
create view risk_private.unit_values as
select
  n.instrument_id, n.price * n.factor as unit_value, abs(n.price) * n.factor as unit_notional,
  g.delta * n.multiplier as unit_delta, g.gamma * n.multiplier as unit_gamma,
  g.delta * coalesce(s.price, 0) * n.factor as unit_dollar_delta,
  g.gamma * coalesce(s.price * s.price, 0) * 0.01 * n.factor
    as unit_dollar_gamma,
  g.vega * n.factor as unit_vega, g.theta * n.factor as unit_theta, k.has_greeks
from (
  select i.instrument_id, i.kind, i.underlying_id, i.expiry, i.multiplier,
    i.multiplier * f.rate as factor, m.price, m.delta, m.gamma, m.vega, m.theta
  from risk_private.instruments as i
  cross join lateral (
    select m.price, m.delta, m.gamma, m.vega, m.theta
    from risk_private.marks as m where m.instrument_id = i.instrument_id
    offset 0
  ) as m
  cross join lateral (
    select f.rate from risk_private.fx_rates as f where f.currency = i.currency
    offset 0
  ) as f
) as n
left join risk_private.marks as s on s.instrument_id = n.underlying_id
cross join lateral (
  select case when n.expiry is null then false
    else n.expiry < (select risk_private.trading_date()) end as is_expired
) as e
cross join lateral (
  select e.is_expired or s.price is not null and (n.kind <> 'option' or coalesce(
    greatest(abs(n.delta), abs(n.gamma), abs(n.vega), abs(n.theta)) < 'Infinity'
    and num_nulls(n.delta, n.gamma, n.vega, n.theta) = 0, false)) as has_greeks,
    e.is_expired
  offset 0
) as k
cross join lateral (
  select
    case when k.is_expired or not k.has_greeks then 0 when n.kind <> 'option' then 1
      else pg_catalog.round(n.delta::numeric, 12) end as delta,
    case when k.is_expired or not k.has_greeks or n.kind <> 'option' then 0
      else pg_catalog.round(n.gamma::numeric, 12) end as gamma,
    case when k.is_expired or not k.has_greeks or n.kind <> 'option' then 0
      else pg_catalog.round(n.vega::numeric, 12) end as vega,
    case when k.is_expired or not k.has_greeks or n.kind <> 'option' then 0
      else pg_catalog.round(n.theta::numeric, 12) end as theta
  offset 0
) as g;
comment on view risk_private.unit_values is
  'Per marked instrument whose currency has a rate, in base currency: value and |value| of one '
  'unit; delta and gamma in share equivalents; delta and gamma (per 1 %) in money at the '
  'underlying''s mark; vega per volatility point, theta per day. Stocks, ETFs, indexes and futures '
  'have a delta of 1; what has expired has none. has_greeks: false where they are unknown (an '
  'option without one of its Greeks, or no mark of the underlying); they are 0 then.';

create function risk_private.valued(
  units risk_private.unit_values, instrument_id integer, unit_value numeric)
returns risk_private.unit_values
language sql immutable
return case
  when (units).instrument_id is not null then units
  else row(instrument_id, unit_value, abs(unit_value), 0, 0, 0, 0, 0, 0,
    false)::risk_private.unit_values end;
comment on function risk_private.valued(risk_private.unit_values, integer, numeric) is
  'The unit values or, where there are none for want of a mark, that value and unknown Greeks.';

create function risk_private.carried(
  p risk_private.positions, present risk_private.unit_values)
returns risk_private.unit_values
language sql immutable
return case
  when p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0 then row(
    p.instrument_id, p.unit_value, p.unit_notional, p.unit_delta, p.unit_gamma,
    p.unit_dollar_delta, p.unit_dollar_gamma, p.unit_vega, p.unit_theta,
    p.has_greeks)::risk_private.unit_values
  else present end;
comment on function risk_private.carried(risk_private.positions, risk_private.unit_values) is
  'The values at which a position is carried: its own while anything is held or open, else the '
  'present ones.';

create function risk_private.is_flat(quantity numeric, open_buy numeric, open_sell numeric)
returns boolean
language sql immutable
return 0 = all (array[quantity, open_buy, open_sell]);
comment on function risk_private.is_flat(numeric, numeric, numeric) is
  'Whether a position has nothing held or open: then an order or fill picks up the present values.';
