-- What live orders reserve.

-- Other versions are looked for where a replace is pending, and for no other order: a join would go
-- through all orders once for each, wherever a plan outlives the empty table that it was made for.
create view risk_private.open_legs as
select
  o.*, l.leg, l.instrument_id, l.ratio, l.filled_quantity,
  greatest(0, r.old_open, r.new_open) as open_quantity,
  greatest(0, r.old_open * l.unit_price, r.new_open * l.new_unit_price) as open_notional,
  o.replace_pending and exists (
    select from risk_private.orders as old
    where old.account_id = o.account_id and old.client_order_id = o.replaces
      and old.closed_at is null) as is_replacement
from risk_private.orders as o
left join lateral (
  select p.quantity, p.unit_prices from risk_private.orders as p
  where o.replace_pending and p.account_id = o.account_id and p.client_order_id = o.replaced_by
  offset 0
) as n on true
cross join lateral unnest(o.instrument_ids, o.ratios, o.filled, o.unit_prices,
  n.unit_prices) with ordinality
  as l (instrument_id, ratio, filled_quantity, unit_price, new_unit_price, leg)
cross join lateral (
  select o.quantity * abs(l.ratio) - l.filled_quantity as old_open,
    n.quantity * abs(l.ratio) - l.filled_quantity as new_open
) as r
where o.closed_at is null;
comment on view risk_private.open_legs is
  'Legs of live orders, each with what its order and a pending replacement of it may still fill: '
  'the larger of the two. is_replacement: it is one itself, of an order that lives.';

create view risk_private.working_legs as
select
  o.account_id, o.client_order_id, o.leg, o.instrument_id, o.ratio, o.open_quantity,
  o.open_notional, pg_catalog.cardinality(o.instrument_ids) as legs
from risk_private.open_legs as o
where not o.is_replacement;
comment on view risk_private.working_legs is
  'Legs of live orders and what each reserves. A live order and its pending replacement are one, '
  'under the old id: the larger of the two, per leg.';
