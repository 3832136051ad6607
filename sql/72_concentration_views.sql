-- Dollar deltas and what they are of the equity, live from positions, open orders and marks, for
-- every scope, whether or not a limit needs them there.

create view risk_private.unit_dollar_deltas as
select
  i.instrument_id, i.sector_id, i.underlying_id, least(m.as_of, u.as_of) as as_of,
  case
    when e.is_expired and m.price is not null then 0
    when i.kind <> 'option' then d.per_delta
    when num_nulls(m.delta, m.gamma, m.vega, m.theta) = 0
    then round(m.delta::numeric, 12) * d.per_delta
  end as dollar_delta
from risk_private.instruments as i
left join risk_private.marks as m on m.instrument_id = i.instrument_id
left join risk_private.marks as u on u.instrument_id = i.underlying_id
left join risk_private.fx_rates as f on f.currency = i.currency
cross join lateral (
  select coalesce(i.expiry < (select risk_private.present_trading_date()), false) as is_expired
  offset 0
) as e
cross join lateral (
  select case when m.price is not null then u.price * i.multiplier * f.rate end as per_delta
  offset 0
) as d;
comment on view risk_private.unit_dollar_deltas is
  'Dollar delta of one unit of every instrument at the present marks, as unit_values has it; NULL '
  'where it is unknown.';

create view risk_private.dollar_deltas as
select s.scope_id, g.*
from risk_private.scopes as s
cross join lateral (
  select array(
    select a.scope_id from risk_private.scopes as a
    where a.is_leaf and a.chain @> array[s.scope_id]) as accounts
  offset 0
) as c
cross join lateral (
  select
    t.dimension, t.key_id,
    sum(t.effect) filter (where t.is_held) as net,
    sum(case when t.is_held then t.effect else greatest(0, t.effect) end) as up,
    sum(case when t.is_held then t.effect else least(0, t.effect) end) as down,
    sum(t.gross) filter (where t.is_held) as gross, sum(t.unknown)::integer as unknown,
    min(t.as_of) as as_of
  from (
    select
      d.dimension, d.key_id, b.client_order_id is null as is_held,
      sum(b.quantity * u.dollar_delta) as effect,
      sum(b.worst_case * abs(u.dollar_delta)) as gross,
      sum(case when u.dollar_delta is null then b.positions else 0 end) as unknown,
      min(u.as_of) as as_of
    from (
      select
        null::integer as account_id, null::text as client_order_id, p.instrument_id,
        sum(p.quantity) as quantity,
        sum(risk_private.worst_case(p.quantity, p.open_buy, p.open_sell)) as worst_case,
        count(*) as positions
      from risk_private.positions as p
      where p.account_id = any (c.accounts)
        and (p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0)
      group by p.instrument_id
      union all
      select
        w.account_id, w.client_order_id, w.instrument_id,
        sign(w.ratio::numeric) * w.open_quantity, 0, 0
      from risk_private.working_legs as w
      where w.open_quantity > 0 and w.account_id = any (c.accounts)
    ) as b
    join risk_private.unit_dollar_deltas as u on u.instrument_id = b.instrument_id
    cross join lateral (
      values (0, 0), (1, u.sector_id), (2, u.underlying_id), (3, u.instrument_id)
    ) as d (dimension, key_id)
    where d.key_id is not null
    group by d.dimension, d.key_id, b.account_id, b.client_order_id
  ) as t
  group by t.dimension, t.key_id
) as g;
comment on view risk_private.dollar_deltas is
  'Dollar deltas over the accounts below every scope, for all (dimension 0) and per sector, '
  'underlying and instrument: held (net), with every order open that raises it filled (up) or '
  'that lowers it (down), each netted over its legs; and of worst cases, none netted (gross). '
  'unknown: pairs of account and instrument that are in none of them.';

create view risk.concentration as
select
  s.code as scope, u.symbol as underlying, e.name as sector,
  c.net as net_exposure, c.up as net_exposure_up, c.down as net_exposure_down, q.equity,
  p.concentration_pct,
  rank() over (
    partition by s.code, c.dimension order by greatest(c.up, -c.down) desc nulls first) as rank,
  c.unknown, c.as_of
from risk_private.dollar_deltas as c
join risk_private.scopes as s on s.scope_id = c.scope_id
join risk_private.equities as q on q.scope_id = c.scope_id
left join risk_private.instruments as u on c.dimension = 2 and u.instrument_id = c.key_id
left join risk_private.sectors as e on c.dimension = 1 and e.sector_id = c.key_id
cross join lateral (
  select case when c.unknown = 0 then risk_private.concentration_pct(
    greatest(c.up, -c.down), q.equity) end as concentration_pct
) as p
where c.dimension in (1, 2) and (select risk_private.is_settled());
comment on view risk.concentration is
  'What every scope has at stake in each underlying, and in each sector, and what that is of its '
  'equity: as limits on concentration_pct compare it, whether or not there are any. Dollar deltas '
  'net over all accounts below, orders over their legs; open orders never net. In base currency.';
comment on column risk.concentration.scope is 'The scope, with all accounts below it.';
comment on column risk.concentration.underlying is 'The underlying; NULL in rows of a sector.';
comment on column risk.concentration.sector is
  'The sector, summed over its underlyings; NULL in rows of an underlying.';
comment on column risk.concentration.net_exposure is
  'Dollar delta of what is held: sum of quantity x multiplier x delta x mark of the underlying x '
  'rate.';
comment on column risk.concentration.net_exposure_up is
  'The same with every open order filled that raises it.';
comment on column risk.concentration.net_exposure_down is
  'The same with every open order filled that lowers it.';
comment on column risk.concentration.equity is 'Equity of the scope, as in risk.pnl.';
comment on column risk.concentration.concentration_pct is
  'The larger of |net_exposure_up| and |net_exposure_down| in % of the equity. Infinity: there is '
  'exposure, and the equity is 0 or less; NULL: the equity, or some dollar delta, is unknown.';
comment on column risk.concentration.rank is
  'Counted from 1 at the largest, among the underlyings (or the sectors) of the scope.';
comment on column risk.concentration.unknown is
  'Pairs of account and instrument, held or in open orders, that are in none of the sums, because '
  'a Greek, a mark or a rate is missing.';
comment on column risk.concentration.as_of is
  'Data time of the oldest mark in it; NULL where there is none.';
