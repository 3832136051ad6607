-- Views of limits and of what is used of them.

create view risk_private.limits_in_force as
select
  p.scope_id, s.code as scope, s.is_leaf, p.dimension, p.key_id, p.limit_type, t.judged, t.warns,
  p.limit_id, p.amount, p.warn_pct, p.version, p.valid_from, p.valid_until, n.at
from (select risk_private.clock() as at) as n
join risk_private.limit_periods as p on p.valid_from <= n.at and n.at < p.valid_until
join risk_private.scopes as s on s.scope_id = p.scope_id
join risk_private.limit_types as t on t.limit_type = p.limit_type;
comment on view risk_private.limits_in_force is 'The limits in force at this moment.';

create view risk_private.used_by_instruments as
select distinct on (g.limit_id) g.limit_id, g.instrument_id, g.used, g.worst_case
from (
  select distinct on (n.scope_id, n.instrument_id, l.limit_type) l.limit_id, n.instrument_id,
    case l.limit_type
      when 'net_position' then abs(n.quantity)
      when 'long_position' then greatest(0, n.quantity)
      else greatest(0, -n.quantity)
    end as used,
    case l.limit_type
      when 'net_position' then risk_private.worst_case(n.quantity, n.open_buy, n.open_sell)
      when 'long_position' then greatest(0, n.quantity + n.open_buy)
      else greatest(0, n.open_sell - n.quantity)
    end as worst_case
  from (
    select p.account_id as scope_id, p.instrument_id, p.quantity, p.open_buy, p.open_sell
    from risk_private.positions as p
    union all
    select c.scope_id, c.key_id, c.quantity, c.open_buy, c.open_sell
    from risk_private.counters as c
    where c.dimension = 3
  ) as n
  join risk_private.instruments as i on i.instrument_id = n.instrument_id
  cross join lateral (
    values (0, 0), (1, i.sector_id), (2, i.underlying_id), (3, i.instrument_id)
  ) as d (dimension, key_id)
  join risk_private.limits_in_force as l
    on l.scope_id = n.scope_id and l.dimension = d.dimension and l.key_id = d.key_id
      and l.judged = 'instrument'
  order by n.scope_id, n.instrument_id, l.limit_type, l.dimension desc
) as g
order by g.limit_id, g.worst_case desc, g.used desc, g.instrument_id;
comment on view risk_private.used_by_instruments is
  'Use of limits per instrument. Within a scope the most specific limit governs an instrument; a '
  'wider one shows the worst of those that it governs.';

create view risk_private.used_by_sums as
with keys as materialized (
  select distinct l.scope_id, l.dimension, l.key_id
  from risk_private.limits_in_force as l
  where l.judged = 'sum'
), filled_by_account as materialized (
  select p.account_id, d.dimension, d.key_id, sum(abs(p.quantity)) as gross_position,
    sum(abs(p.quantity) * p.unit_notional) as gross_notional, count(*) as open_positions
  from risk_private.positions as p
  join risk_private.instruments as i on i.instrument_id = p.instrument_id
  cross join lateral (
    values (0, 0), (1, i.sector_id), (2, i.underlying_id), (3, i.instrument_id)
  ) as d (dimension, key_id)
  where p.quantity <> 0 and d.dimension in (select k.dimension from keys as k)
  group by p.account_id, d.dimension, d.key_id
), working_by_account as materialized (
  select w.account_id, d.dimension, d.key_id, sum(w.open_notional) as open_notional
  from risk_private.working_legs as w
  join risk_private.instruments as i on i.instrument_id = w.instrument_id
  cross join lateral (
    values (0, 0), (1, i.sector_id), (2, i.underlying_id), (3, i.instrument_id)
  ) as d (dimension, key_id)
  where d.dimension in (
    select l.dimension from risk_private.limits_in_force as l
    where l.limit_type = 'traded_notional')
  group by w.account_id, d.dimension, d.key_id
), filled as materialized (
  select k.scope_id, k.dimension, k.key_id, sum(f.gross_position) as gross_position,
    sum(f.gross_notional) as gross_notional, sum(f.open_positions) as open_positions
  from filled_by_account as f
  join risk_private.scopes as a on a.scope_id = f.account_id
  join keys as k on k.scope_id = any (a.chain) and k.dimension = f.dimension and k.key_id = f.key_id
  group by k.scope_id, k.dimension, k.key_id
), working as materialized (
  select k.scope_id, k.dimension, k.key_id, sum(w.open_notional) as open_notional
  from working_by_account as w
  join risk_private.scopes as a on a.scope_id = w.account_id
  join keys as k on k.scope_id = any (a.chain) and k.dimension = w.dimension and k.key_id = w.key_id
  group by k.scope_id, k.dimension, k.key_id
)
select c.scope_id, c.dimension, c.key_id, m.limit_type, m.used, m.worst_case
from keys as k
join risk_private.counters as c
  on c.counter_id = risk_private.counter_id(k.scope_id, k.dimension, k.key_id)
left join filled as f
  on f.scope_id = k.scope_id and f.dimension = k.dimension and f.key_id = k.key_id
left join working as w
  on w.scope_id = k.scope_id and w.dimension = k.dimension and w.key_id = k.key_id
cross join lateral (
  values
    ('gross_position', coalesce(f.gross_position, 0), c.gross_position),
    ('gross_notional', coalesce(f.gross_notional, 0), c.gross_notional),
    ('traded_notional', c.traded_notional - coalesce(w.open_notional, 0), c.traded_notional),
    ('open_orders', c.open_orders, c.open_orders),
    ('open_positions', coalesce(f.open_positions, 0), c.open_positions)
) as m (limit_type, used, worst_case);
comment on view risk_private.used_by_sums is
  'Use of limits on sums: worst_case is the counter that decisions go by, used the part of it '
  'that is filled.';

create view risk_private.used_by_obligations as
select distinct on (g.limit_id) g.limit_id, g.underlying_id, g.used, g.worst_case
from (
  select distinct on (o.counter_id) l.limit_id, o.key_id as underlying_id,
    greatest(o.held_bull, o.held_bear) as used, greatest(o.bull, o.bear) as worst_case
  from risk_private.obligations as o
  join risk_private.instruments as i on i.instrument_id = o.key_id
  cross join lateral (
    values (0, 0), (1, i.sector_id), (2, i.instrument_id)
  ) as d (dimension, key_id)
  join risk_private.limits_in_force as l
    on l.scope_id = o.scope_id and l.dimension = d.dimension and l.key_id = d.key_id
    and l.limit_type = 'same_side'
  where o.dimension = 2
  order by o.counter_id, l.dimension desc
) as g
order by g.limit_id, g.worst_case desc, g.used desc, g.underlying_id;
comment on view risk_private.used_by_obligations is
  'Use of same_side limits: the larger side. The most specific limit governs an underlying; a '
  'wider one shows the worst of those that it governs.';

create view risk_private.used_by_losses as
select l.limit_id,
  case
    when l.limit_type = 'buying_power' then coalesce(o.held_need, 0) - e.cash
    when o.held_unlimited > 0 then 'Infinity'
    else coalesce(o.held_loss, 0)
  end as used,
  case
    when l.limit_type = 'buying_power' then coalesce(o.cash_need, 0) - e.cash
    when o.unlimited > 0 then 'Infinity'
    else coalesce(o.max_loss, 0)
  end as worst_case
from risk_private.limits_in_force as l
join risk_private.equities as e on e.scope_id = l.scope_id
left join risk_private.obligations as o
  on o.counter_id = risk_private.counter_id(l.scope_id, l.dimension, l.key_id)
where l.judged = 'obligation';
comment on view risk_private.used_by_losses is
  'Use of max_loss and buying_power limits, by positions alone and with open orders.';

create view risk_private.used_by_equities as
select l.limit_id,
  case when v.value < 0 then 0 else v.value end as used, v.value is null as is_unknown
from risk_private.limits_in_force as l
join risk_private.equities as e on e.scope_id = l.scope_id
cross join lateral (
  select case l.limit_type when 'daily_loss' then risk_private.daily_loss(e)
    else risk_private.drawdown_pct(e.peak, e.equity) end as value
) as v
where l.judged = 'loss';
comment on view risk_private.used_by_equities is
  'Use of limits on losses, as equities stand.';

create view risk_private.used_by_exposures as
with filled as materialized (
  select l.limit_id, sum(abs(p.quantity * p.unit_dollar_delta)) as gross_exposure
  from risk_private.limits_in_force as l
  join risk_private.scopes as a on a.is_leaf and a.chain @> array[l.scope_id]
  join risk_private.positions as p on p.account_id = a.scope_id and p.quantity <> 0
  join risk_private.instruments as i on i.instrument_id = p.instrument_id
  where l.limit_type = 'gross_exposure'
    and l.key_id = (array[0, i.sector_id, i.underlying_id, i.instrument_id])[l.dimension + 1]
  group by l.limit_id
), governed as (
  select l.limit_id, l.limit_type, null::integer as underlying_id, x
  from risk_private.limits_in_force as l
  left join risk_private.exposures as x
    on x.counter_id = risk_private.counter_id(l.scope_id, l.dimension, l.key_id)
  where l.judged = 'exposure'
  union all
  select d.* from (
    select distinct on (x.counter_id, l.limit_type) l.limit_id, l.limit_type, x.key_id, x
    from risk_private.exposures as x
    join risk_private.instruments as u on u.instrument_id = x.key_id
    cross join lateral (
      values (0, 0), (1, u.sector_id), (2, u.instrument_id)
    ) as d (dimension, key_id)
    join risk_private.limits_in_force as l
      on l.scope_id = x.scope_id and l.dimension = d.dimension and l.key_id = d.key_id
      and l.limit_type in ('delta', 'gamma')
    where x.dimension = 2
    order by x.counter_id, l.limit_type, l.dimension desc
  ) as d
)
select distinct on (g.limit_id) g.limit_id, g.underlying_id, v.used, v.worst_case,
  v.worst_case is null as is_unknown
from governed as g
left join filled as f on f.limit_id = g.limit_id
cross join lateral risk_private.greek_sides(g.x, g.limit_type) as s
cross join lateral (
  select
    case when (g.x).unknown > 0 then null
      else coalesce(f.gross_exposure, abs(s.net), 0) end as used,
    case when (g.x).unknown > 0 then null else greatest(0, s.up, -s.down) end as worst_case
) as v
order by g.limit_id, v.worst_case desc nulls first, v.used desc, g.underlying_id;
comment on view risk_private.used_by_exposures is
  'Use of limits on Greeks and exposure: the larger side, as positions are carried; NULL while '
  'Greeks of anything held or open are unknown. Of delta and gamma the most specific limit governs '
  'an underlying; a wider one shows the worst of those that it governs.';

create view risk.limits as
select
  l.scope, l.limit_type, case when l.dimension = 3 then k.symbol end as symbol,
  case when l.dimension = 2 then k.symbol end as underlying, e.name as sector,
  l.amount as limit_value, l.warn_pct, l.version, v.valid_from,
  nullif(v.valid_until, 'infinity') as valid_until, v.reason, v.set_by, v.set_at
from risk_private.limits_in_force as l
join risk_private.limits as v on v.limit_id = l.limit_id
left join risk_private.instruments as k on l.dimension in (2, 3) and k.instrument_id = l.key_id
left join risk_private.sectors as e on l.dimension = 1 and e.sector_id = l.key_id;
comment on view risk.limits is
  'The limits in force now. Every one on the chain of an account holds; within one scope the most '
  'specific holds for limits per order and per instrument, and each for its own sum otherwise.';
comment on column risk.limits.scope is 'The scope that is limited, with everything below it.';
comment on column risk.limits.limit_type is 'What is limited, such as net_position.';
comment on column risk.limits.symbol is
  'The one instrument it is for. Without symbol, underlying and sector it is for all.';
comment on column risk.limits.underlying is 'The one underlying it is for.';
comment on column risk.limits.sector is 'The one sector it is for.';
comment on column risk.limits.limit_value is 'The limit; a use equal to it passes.';
comment on column risk.limits.warn_pct is
  'From this percentage of the limit on, decisions carry a warning.';
comment on column risk.limits.version is 'Version of the limit, counted from 1.';
comment on column risk.limits.valid_from is 'From when on this version holds.';
comment on column risk.limits.valid_until is
  'Until when; the version before it returns then. NULL: for good.';
comment on column risk.limits.reason is 'Why it was set.';
comment on column risk.limits.set_by is 'The login that set it.';
comment on column risk.limits.set_at is 'When it was set.';

create view risk.limit_history as
select
  s.code as scope, l.limit_type, case when l.dimension = 3 then k.symbol end as symbol,
  case when l.dimension = 2 then k.symbol end as underlying, e.name as sector, l.version,
  l.amount as limit_value, l.warn_pct, l.valid_from,
  nullif(l.valid_until, 'infinity') as valid_until, l.reason, l.set_by, l.set_at,
  l.limit_id as request_id
from risk_private.limits as l
join risk_private.scopes as s on s.scope_id = l.scope_id
left join risk_private.instruments as k on l.dimension in (2, 3) and k.instrument_id = l.key_id
left join risk_private.sectors as e on l.dimension = 1 and e.sector_id = l.key_id;
comment on view risk.limit_history is
  'Every version of every limit, as it was set. In force at a moment is the highest version whose '
  'time holds that moment.';
comment on column risk.limit_history.scope is 'The scope that is limited.';
comment on column risk.limit_history.limit_type is 'What is limited.';
comment on column risk.limit_history.symbol is 'The one instrument it is for.';
comment on column risk.limit_history.underlying is 'The one underlying it is for.';
comment on column risk.limit_history.sector is 'The one sector it is for.';
comment on column risk.limit_history.version is 'Version of the limit, counted from 1.';
comment on column risk.limit_history.limit_value is 'The limit; NULL: this version removed it.';
comment on column risk.limit_history.warn_pct is
  'From this percentage of the limit on, decisions carry a warning.';
comment on column risk.limit_history.valid_from is 'From when on this version holds.';
comment on column risk.limit_history.valid_until is 'Until when; NULL: for good.';
comment on column risk.limit_history.reason is 'Why it was set.';
comment on column risk.limit_history.set_by is 'The login that set it.';
comment on column risk.limit_history.set_at is 'When it was set.';
comment on column risk.limit_history.request_id is 'What risk.set_limit returned.';

create view risk.limit_utilization as
select
  l.scope, l.limit_type, case when l.dimension = 3 then k.symbol end as symbol,
  case when l.dimension = 2 then k.symbol end as underlying, e.name as sector,
  l.amount as limit_value, m.used, m.worst_case, p.utilization_pct, p.status, l.version,
  l.at as as_of, i.symbol as instrument
from risk_private.limits_in_force as l
left join risk_private.instruments as k on l.dimension in (2, 3) and k.instrument_id = l.key_id
left join risk_private.sectors as e on l.dimension = 1 and e.sector_id = l.key_id
left join risk_private.used_by_instruments as u on u.limit_id = l.limit_id
left join risk_private.used_by_obligations as o on o.limit_id = l.limit_id
left join risk_private.used_by_exposures as g on g.limit_id = l.limit_id
left join risk_private.used_by_losses as x on x.limit_id = l.limit_id
left join risk_private.instruments as i
  on i.instrument_id = coalesce(u.instrument_id, o.underlying_id, g.underlying_id)
left join risk_private.used_by_sums as t
  on t.scope_id = l.scope_id and t.dimension = l.dimension and t.key_id = l.key_id
    and t.limit_type = l.limit_type
left join risk_private.used_by_equities as q on q.limit_id = l.limit_id
cross join lateral (
  select case when l.judged = 'window' then risk_private.accepted_since(
    risk_private.counter_id(l.scope_id, l.dimension, l.key_id),
    l.at - case l.limit_type when 'order_rate' then interval '1 second'
                             else interval '60 seconds' end)
  end as accepted
) as w
cross join lateral (
  select
    case when l.judged = 'loss' then q.used
         when l.judged not in ('order', 'switch') and g.is_unknown is not true
         then coalesce(u.used, o.used, x.used, g.used, t.used, w.accepted, 0) end as used,
    case when l.judged = 'loss' then q.used
         when l.judged not in ('order', 'switch') and g.is_unknown is not true
         then coalesce(u.worst_case, o.worst_case, x.worst_case, g.worst_case, t.worst_case,
           w.accepted, 0)
    end as worst_case
) as m
cross join lateral (
  select
    case when m.worst_case <= 0 then 0
         else pg_catalog.round(m.worst_case * 100 / nullif(l.amount, 0), 2) end as utilization_pct,
    case when m.worst_case > l.amount or q.is_unknown or g.is_unknown then 'BREACH'
         when l.warns and m.worst_case > 0 and m.worst_case * 100 >= l.warn_pct * l.amount
         then 'WARN'
         else 'OK' end as status
) as p
where (select risk_private.is_settled())
order by
  pg_catalog.array_position(array['BREACH', 'WARN', 'OK'], p.status),
  case when p.status = 'BREACH' then coalesce(p.utilization_pct, 'Infinity')
       else coalesce(p.utilization_pct, -1) end desc,
  l.scope, l.limit_type, l.dimension, e.name, k.symbol;
comment on view risk.limit_utilization is
  'What is used of every limit in force, worst first. Limits per order, duplicate_window and '
  'self_cross have nothing that is used up: their use is NULL.';
comment on column risk.limit_utilization.scope is 'The scope that is limited.';
comment on column risk.limit_utilization.limit_type is 'What is limited.';
comment on column risk.limit_utilization.symbol is
  'The one instrument it is for. Without symbol, underlying and sector: all.';
comment on column risk.limit_utilization.underlying is 'The one underlying it is for.';
comment on column risk.limit_utilization.sector is 'The one sector it is for.';
comment on column risk.limit_utilization.limit_value is 'The limit.';
comment on column risk.limit_utilization.used is
  'What is filled or done: positions, Greeks, notional traded, orders open, orders accepted in the '
  'window that ends now, losses. NULL for a loss or Greeks that are not known.';
comment on column risk.limit_utilization.worst_case is
  'The same if every open order were filled on its worse side: what decisions compare with the '
  'limit. Of buying_power below 0: cash that is free.';
comment on column risk.limit_utilization.utilization_pct is
  'worst_case in percent of the limit; NULL where a limit of 0 is exceeded, or nothing is used up.';
comment on column risk.limit_utilization.status is
  'BREACH: worst_case is above the limit (it was lowered, marks moved, or a fill came that no '
  'order explains), or the loss or a Greek is not known; WARN: at or above its warn_pct; OK.';
comment on column risk.limit_utilization.version is 'Version of the limit.';
comment on column risk.limit_utilization.as_of is 'The moment of reading.';
comment on column risk.limit_utilization.instrument is
  'For limits per instrument or underlying: the one that is measured, for a default the one with '
  'the worst use.';
