-- What one unit of a position is worth, and moves by, at the present marks. Positions carry these
-- values, so that decisions and fills add and subtract the same; revaluation moves them.

create view risk_private.unit_values as
select
  i.instrument_id, m.price * n.factor as unit_value, abs(m.price) * n.factor as unit_notional,
  g.delta * i.multiplier as unit_delta, g.gamma * i.multiplier as unit_gamma,
  g.delta * u.price * n.factor as unit_dollar_delta,
  g.gamma * u.price * u.price * 0.01 * n.factor as unit_dollar_gamma,
  g.vega * n.factor as unit_vega, g.theta * n.factor as unit_theta, k.has_greeks
from risk_private.instruments as i
join risk_private.marks as m on m.instrument_id = i.instrument_id
join risk_private.fx_rates as f on f.currency = i.currency
left join risk_private.marks as s on s.instrument_id = i.underlying_id
cross join lateral (
  select i.multiplier * f.rate as factor,
    coalesce(i.expiry < (select risk_private.trading_date()), false) as is_expired offset 0
) as n
cross join lateral (
  select n.is_expired or s.price is not null and (i.kind <> 'option' or coalesce(
    greatest(abs(m.delta), abs(m.gamma), abs(m.vega), abs(m.theta)) < 'Infinity'
    and num_nulls(m.delta, m.gamma, m.vega, m.theta) = 0, false)) as has_greeks offset 0
) as k
cross join lateral (
  select coalesce(s.price, 0) as price offset 0
) as u
cross join lateral (
  select
    case when n.is_expired or not k.has_greeks then 0 when i.kind <> 'option' then 1
      else pg_catalog.round(m.delta::numeric, 12) end as delta,
    case when n.is_expired or not k.has_greeks or i.kind <> 'option' then 0
      else pg_catalog.round(m.gamma::numeric, 12) end as gamma,
    case when n.is_expired or not k.has_greeks or i.kind <> 'option' then 0
      else pg_catalog.round(m.vega::numeric, 12) end as vega,
    case when n.is_expired or not k.has_greeks or i.kind <> 'option' then 0
      else pg_catalog.round(m.theta::numeric, 12) end as theta
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

-- The caller has locked the account. Only for positions with nothing held or open.
create function risk_private.pick_up(
  account_id integer, instrument_id integer, open_buy numeric, open_sell numeric)
returns risk_private.positions
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_position risk_private.positions;
begin
  insert into risk_private.positions as p (
    account_id, instrument_id, underlying_id, open_buy, open_sell, unit_value, unit_notional,
    unit_delta, unit_gamma, unit_dollar_delta, unit_dollar_gamma, unit_vega, unit_theta, has_greeks)
  select pick_up.account_id, u.instrument_id, i.underlying_id, pick_up.open_buy,
    pick_up.open_sell, u.unit_value, u.unit_notional, u.unit_delta, u.unit_gamma,
    u.unit_dollar_delta, u.unit_dollar_gamma, u.unit_vega, u.unit_theta, u.has_greeks
  from risk_private.unit_values as u
  join risk_private.instruments as i on i.instrument_id = u.instrument_id
  where u.instrument_id = pick_up.instrument_id
  on conflict on constraint positions_pkey do update set
    open_buy = excluded.open_buy, open_sell = excluded.open_sell,
    unit_value = excluded.unit_value, unit_notional = excluded.unit_notional,
    unit_delta = excluded.unit_delta, unit_gamma = excluded.unit_gamma,
    unit_dollar_delta = excluded.unit_dollar_delta,
    unit_dollar_gamma = excluded.unit_dollar_gamma, unit_vega = excluded.unit_vega,
    unit_theta = excluded.unit_theta, has_greeks = excluded.has_greeks
  returning p.* into v_position;
  return v_position;
end
$$;
comment on function risk_private.pick_up(integer, integer, numeric, numeric) is
  'Opens a flat position with the orders it begins with, at the present unit values.';
