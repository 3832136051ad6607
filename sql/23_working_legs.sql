-- What live orders reserve.

create view risk_private.working_legs as
select
  o.account_id, o.client_order_id, l.leg, l.instrument_id, l.ratio,
  greatest(0, r.old_open, r.new_open) as open_quantity,
  greatest(0, r.old_open * l.unit_price, r.new_open * l.new_unit_price) as open_notional,
  pg_catalog.cardinality(o.instrument_ids) as legs
from risk_private.orders as o
left join risk_private.orders as n
  on o.replaced_by is not null and o.replace_pending and n.account_id = o.account_id
  and n.client_order_id = o.replaced_by
left join risk_private.orders as old
  on o.replaces is not null and o.replace_pending and old.account_id = o.account_id
  and old.client_order_id = o.replaces and old.closed_at is null
cross join lateral unnest(o.instrument_ids, o.ratios, o.filled, o.unit_prices,
  n.unit_prices) with ordinality
  as l (instrument_id, ratio, filled, unit_price, new_unit_price, leg)
cross join lateral (
  select o.quantity * abs(l.ratio) - l.filled as old_open,
    n.quantity * abs(l.ratio) - l.filled as new_open
) as r
where o.closed_at is null and old.account_id is null;
comment on view risk_private.working_legs is
  'Legs of live orders and what each reserves. A live order and its pending replacement are one, '
  'under the old id: the larger of the two, per leg.';
