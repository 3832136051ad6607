-- What decisions go by, as it stands.

create view risk.exposure as
select
  s.code as scope, case when d.dimension = 3 then k.symbol end as symbol,
  case when d.dimension = 2 then k.symbol end as underlying, e.name as sector,
  case when d.dimension = 3 then c.quantity end as quantity,
  case when d.dimension = 3 then c.open_buy end as open_buy,
  case when d.dimension = 3 then c.open_sell end as open_sell,
  c.gross_position, c.gross_notional, c.traded_notional, c.open_orders, c.open_positions,
  (
    select min(m.as_of)
    from risk_private.scopes as a
    join risk_private.positions as p on p.account_id = a.scope_id
    join risk_private.instruments as i on i.instrument_id = p.instrument_id
    join risk_private.marks as m on m.instrument_id = p.instrument_id
    where a.chain @> array[d.scope_id] and (p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0)
      and d.key_id = case d.dimension when 0 then 0 when 1 then i.sector_id
                       when 2 then i.underlying_id else i.instrument_id end
  ) as as_of,
  case when d.dimension = 2 then x.delta_up end as delta_up,
  case when d.dimension = 2 then x.delta_down end as delta_down,
  case when d.dimension = 2 then x.gamma_up end as gamma_up,
  case when d.dimension = 2 then x.gamma_down end as gamma_down,
  x.gross_exposure, x.dollar_delta_up as net_exposure_up, x.dollar_delta_down as net_exposure_down,
  x.dollar_gamma_up, x.dollar_gamma_down, x.vega_up, x.vega_down, x.theta_up, x.theta_down,
  x.unknown as unknown_greeks
from risk_private.counters as c
full join risk_private.exposures as x on x.counter_id = c.counter_id
cross join lateral (
  select coalesce(c.scope_id, x.scope_id) as scope_id,
    coalesce(c.dimension, x.dimension) as dimension, coalesce(c.key_id, x.key_id) as key_id
) as d
join risk_private.scopes as s on s.scope_id = d.scope_id
left join risk_private.instruments as k on d.dimension in (2, 3) and k.instrument_id = d.key_id
left join risk_private.sectors as e on d.dimension = 1 and e.sector_id = d.key_id
where (select risk_private.is_settled());
comment on view risk.exposure is
  'What decisions go by: one row per scope, and one per scope and sector, underlying or '
  'instrument where a limit needs it. Positions net within an instrument and nowhere else; open '
  'orders never net. Money is in the base currency. What no limit there needs is NULL.';
comment on column risk.exposure.scope is 'The scope, with all accounts below it.';
comment on column risk.exposure.symbol is
  'The instrument. Without symbol, underlying and sector: everything.';
comment on column risk.exposure.underlying is 'The underlying.';
comment on column risk.exposure.sector is 'The sector.';
comment on column risk.exposure.quantity is
  'Net position over the accounts; of an instrument only, like the next two.';
comment on column risk.exposure.open_buy is 'Unfilled quantity of open buys.';
comment on column risk.exposure.open_sell is 'Unfilled quantity of open sells.';
comment on column risk.exposure.gross_position is
  'Sum of worst-case quantities per account and instrument.';
comment on column risk.exposure.gross_notional is
  'Sum of worst-case quantities x |mark| x multiplier x rate.';
comment on column risk.exposure.traded_notional is
  'Notional filled since the day opened, and what open orders reserve.';
comment on column risk.exposure.open_orders is
  'Live orders: a combo is one, a pending replace is one.';
comment on column risk.exposure.open_positions is
  'Pairs of account and instrument held or in open orders.';
comment on column risk.exposure.as_of is
  'Data time of the oldest mark in it; NULL where nothing is held.';
comment on column risk.exposure.delta_up is
  'Delta, in shares, if every open order fills that raises it, a combo netted over its legs here; '
  'of an underlying only, like the next three.';
comment on column risk.exposure.delta_down is 'If every open order fills that lowers it.';
comment on column risk.exposure.gamma_up is
  'Gamma, in shares per 1.00 of the underlying, likewise.';
comment on column risk.exposure.gamma_down is 'Likewise.';
comment on column risk.exposure.gross_exposure is
  'Sum of worst-case quantities x |delta| x mark of the underlying x multiplier x rate.';
comment on column risk.exposure.net_exposure_up is
  'Dollar delta, netted over everything, if every open order fills that raises it.';
comment on column risk.exposure.net_exposure_down is 'If every open order fills that lowers it.';
comment on column risk.exposure.dollar_gamma_up is
  'Change of the dollar delta per 1 % of the underlyings, likewise.';
comment on column risk.exposure.dollar_gamma_down is 'Likewise.';
comment on column risk.exposure.vega_up is 'Money per volatility point, likewise.';
comment on column risk.exposure.vega_down is 'Likewise.';
comment on column risk.exposure.theta_up is 'Money per day, likewise.';
comment on column risk.exposure.theta_down is 'Likewise.';
comment on column risk.exposure.unknown_greeks is
  'Pairs of account and instrument held or in open orders whose Greeks are unknown: none of the '
  'Greeks has them in it, and limits on it let only reducing orders pass.';
