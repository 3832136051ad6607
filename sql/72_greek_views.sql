-- Greeks of portfolios, live from positions and marks. Quantities are added up per instrument
-- first, so a firm costs one pass over its positions and one look at each instrument.

create view risk.portfolio_greeks as
select
  s.code as scope, i.symbol as underlying, g.delta, g.gamma, g.vega, g.theta, g.rho,
  g.dollar_delta, g.dollar_gamma, g.unknown, g.as_of
from risk_private.scopes as s
cross join lateral (
  select
    v.underlying_id, sum(v.positions) as positions,
    case when grouping(v.underlying_id) = 0 then sum(v.shares * v.delta) end as delta,
    case when grouping(v.underlying_id) = 0 then sum(v.shares * v.gamma) end as gamma,
    sum(v.shares * v.vega * v.rate) as vega,
    sum(v.shares * v.theta * v.rate) as theta,
    sum(v.shares * v.rho * v.rate) as rho,
    sum(v.shares * v.delta * v.spot * v.rate) as dollar_delta,
    sum(v.shares * v.gamma * v.spot * v.spot * 0.01 * v.rate) as dollar_gamma,
    coalesce(sum(v.positions) filter (where v.delta is null or v.rate is null), 0)::integer
      as unknown,
    min(v.as_of) as as_of
  from (
    select
      h.underlying_id, h.positions, h.shares, f.rate::double precision as rate,
      u.price::double precision as spot, least(m.as_of, u.as_of) as as_of,
      case when k.known then case when h.is_linear then 1 when h.is_expired then 0
        else m.delta end end as delta,
      case when h.is_linear or h.is_expired then 0 when k.known then m.gamma end as gamma,
      case when h.is_linear or h.is_expired then 0 when k.known then m.vega end as vega,
      case when h.is_linear or h.is_expired then 0 when k.known then m.theta end as theta,
      case when h.is_linear or h.is_expired then 0 when k.known then m.rho end as rho
    from (
      select
        c.instrument_id, c.underlying_id, c.currency, q.positions,
        (q.quantity * c.multiplier)::double precision as shares,
        c.kind <> 'option' and not e.is_expired as is_linear, e.is_expired
      from (
        select p.instrument_id, sum(p.quantity) as quantity, count(*) as positions
        from risk_private.positions as p
        where p.quantity <> 0 and p.account_id in (
          select a.scope_id from risk_private.scopes as a
          where a.is_leaf and a.chain @> array[s.scope_id])
        group by p.instrument_id
      ) as q
      join risk_private.instruments as c on c.instrument_id = q.instrument_id
      cross join lateral (
        select coalesce(c.expiry < (select risk_private.present_trading_date()), false)
          as is_expired offset 0
      ) as e
    ) as h
    left join risk_private.marks as m on m.instrument_id = h.instrument_id
    left join risk_private.marks as u on u.instrument_id = h.underlying_id
    left join risk_private.fx_rates as f on f.currency = h.currency
    cross join lateral (
      select h.is_expired or u.price is not null and (
        h.is_linear or num_nulls(m.delta, m.gamma, m.vega, m.theta) = 0) as known
    ) as k
  ) as v
  group by grouping sets ((v.underlying_id), ())
) as g
left join risk_private.instruments as i on i.instrument_id = g.underlying_id
where g.positions > 0 and (select risk_private.is_settled());
comment on view risk.portfolio_greeks is
  'Greeks of what is held, live: one row per scope and underlying, and one total per scope. Each '
  'is the sum of quantity x multiplier x the mark''s Greek; stocks, ETFs, indexes and futures have '
  'a delta of 1, expired instruments have none. Positions net over all accounts below the scope. '
  'Open orders are not in it: risk.exposure has the worst case.';
comment on column risk.portfolio_greeks.scope is 'The scope, with all accounts below it.';
comment on column risk.portfolio_greeks.underlying is 'The underlying; NULL: the total.';
comment on column risk.portfolio_greeks.delta is
  'In shares of the underlying; NULL in totals, since shares of several do not add up.';
comment on column risk.portfolio_greeks.gamma is
  'Change of delta, in shares, per 1.00 of the underlying; NULL in totals.';
comment on column risk.portfolio_greeks.vega is
  'Money per volatility point (0.01), in base currency, like all that follow.';
comment on column risk.portfolio_greeks.theta is 'Money per calendar day.';
comment on column risk.portfolio_greeks.rho is
  'Money per 1 % of interest rate; marks without a rho count as 0.';
comment on column risk.portfolio_greeks.dollar_delta is
  'Net exposure: delta x mark of the underlying x rate.';
comment on column risk.portfolio_greeks.dollar_gamma is
  'Change of dollar_delta per 1 % of the underlying: gamma x mark^2 x 0.01 x rate.';
comment on column risk.portfolio_greeks.unknown is
  'Positions that are not in the sums, because their Greeks, the mark of their underlying or the '
  'rate of their currency are unknown.';
comment on column risk.portfolio_greeks.as_of is
  'Data time of the oldest mark in it; NULL where there is none.';
