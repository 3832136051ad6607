-- Positions and counters recomputed from what they summarise, orders and fills.

create function risk_private.recount_positions(scope_id integer default null)
returns table (account_id integer, instrument_id integer, quantity numeric, open_buy numeric,
               open_sell numeric, traded_notional numeric, open_orders bigint)
language sql stable
begin atomic
  with accounts as not materialized (
    select s.scope_id as account_id, s.trading_day
    from risk_private.scopes as s
    where s.is_leaf
      and (recount_positions.scope_id is null or s.chain @> array[recount_positions.scope_id])
  )
  select u.account_id, u.instrument_id, sum(u.quantity), sum(u.open_buy), sum(u.open_sell),
    sum(u.traded_notional), sum(u.open_orders)
  from (
    select a.account_id, w.instrument_id, 0::numeric as quantity,
      case when w.ratio > 0 then w.open_quantity else 0 end as open_buy,
      case when w.ratio < 0 then w.open_quantity else 0 end as open_sell,
      w.open_notional as traded_notional, (w.legs = 1)::integer as open_orders
    from accounts as a
    join risk_private.working_legs as w on w.account_id = a.account_id
    union all
    select a.account_id, f.instrument_id, f.signed_quantity, 0, 0,
      case when f.trading_day is not distinct from a.trading_day
           then abs(f.signed_quantity) * f.unit_price else 0 end, 0
    from accounts as a
    join risk_private.fills as f on f.account_id = a.account_id
  ) as u
  group by u.account_id, u.instrument_id;
end;
comment on function risk_private.recount_positions(integer) is
  'Positions as orders and fills say, and open orders of one leg: of the accounts of one scope, or '
  'of all.';

create function risk_private.recount(scope_id integer default null)
returns setof risk_private.counters
language sql stable
begin atomic
  with kept as (
    select a.scope_id as account_id, s.scope_id, d.dimension
    from risk_private.scopes as a
    cross join unnest(a.chain) as c (scope_id)
    join risk_private.scopes as s on s.scope_id = c.scope_id
    cross join lateral (
      values (0, true), (1, s.tracks_sector), (2, s.tracks_underlying), (3, s.tracks_instrument)
    ) as d (dimension, is_tracked)
    where a.is_leaf
      and case when recount.scope_id is null then d.is_tracked
               else s.scope_id = recount.scope_id end
  ), held as (
    select r.*, i.sector_id, i.underlying_id, p.unit_notional,
      risk_private.worst_case(r.quantity, r.open_buy, r.open_sell) as worst_case,
      (r.quantity <> 0 or r.open_buy <> 0 or r.open_sell <> 0)::integer as is_open
    from risk_private.recount_positions(recount.scope_id) as r
    join risk_private.instruments as i on i.instrument_id = r.instrument_id
    left join risk_private.positions as p
      on p.account_id = r.account_id and p.instrument_id = r.instrument_id
  ), summed as (
    select h.account_id, 0 as dimension, 0 as key_id, sum(h.quantity) as quantity,
      sum(h.open_buy) as open_buy, sum(h.open_sell) as open_sell,
      sum(h.worst_case) as gross_position, sum(h.worst_case * h.unit_notional) as gross_notional,
      sum(h.traded_notional) as traded_notional, sum(h.open_orders) as open_orders,
      sum(h.is_open) as open_positions
    from held as h
    group by h.account_id
    union all
    select h.account_id, d.dimension, d.key_id, h.quantity, h.open_buy, h.open_sell, h.worst_case,
      h.worst_case * h.unit_notional, h.traded_notional, h.open_orders, h.is_open
    from held as h
    cross join lateral (
      values (1, h.sector_id), (2, h.underlying_id), (3, h.instrument_id)
    ) as d (dimension, key_id)
    where d.key_id is not null
  ), combos as (
    select distinct w.account_id, w.client_order_id, d.dimension, d.key_id
    from risk_private.scopes as a
    join risk_private.working_legs as w on w.account_id = a.scope_id
    join risk_private.instruments as i on i.instrument_id = w.instrument_id
    cross join lateral (
      values (0, 0), (1, i.sector_id), (2, i.underlying_id), (3, i.instrument_id)
    ) as d (dimension, key_id)
    where w.legs > 1 and (recount.scope_id is null or a.chain @> array[recount.scope_id])
  )
  select
    risk_private.counter_id(m.scope_id, m.dimension, m.key_id), m.scope_id, m.dimension::smallint,
    m.key_id, sum(m.quantity), sum(m.open_buy), sum(m.open_sell), sum(m.gross_position),
    sum(m.gross_notional), sum(m.traded_notional), sum(m.open_orders)::integer,
    sum(m.open_positions)::integer, 0::bigint
  from (
    select k.scope_id, h.*
    from kept as k
    join summed as h on h.account_id = k.account_id and h.dimension = k.dimension
    union all
    select k.scope_id, c.account_id, c.dimension, c.key_id, 0, 0, 0, 0, 0, 0, 1, 0
    from kept as k
    join combos as c on c.account_id = k.account_id and c.dimension = k.dimension
  ) as m
  where m.key_id is not null
  group by m.scope_id, m.dimension, m.key_id;
end;
comment on function risk_private.recount(integer) is
  'Counters as orders, fills and carried values say: of one scope in every dimension, or of all '
  'in those they track.';
