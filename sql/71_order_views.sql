-- Views of accounts: orders, decisions, fills, positions. A trader sees the accounts that he may
-- trade, everybody else who may read them sees all. None shows what the reading transaction itself
-- has done: that could still be rolled back.

create view risk.orders with (security_barrier) as
select
  risk_private.order_id(a.code, o.client_order_id) as order_id, a.code as account,
  o.client_order_id, o.agent, i.symbol,
  case when l.ratio > 0 then 'buy' else 'sell' end as side, o.quantity * abs(l.ratio) as quantity,
  o.price,
  l.filled as filled_quantity,
  case when o.closed_at is null and not (o.replace_pending and o.replaces is not null and exists (
         select from risk_private.orders as old
         where old.account_id = o.account_id and old.client_order_id = o.replaces
           and old.closed_at is null))
       then greatest(0, o.quantity * abs(l.ratio) - l.filled) else 0 end as remaining_quantity,
  o.state, o.decision, o.reason, o.decided_at, o.time_in_force, o.replaces, o.replaced_by,
  o.closed_at, o.close_reason
from risk_private.scopes as a
join risk_private.orders as o on o.account_id = a.scope_id
cross join lateral unnest(o.instrument_ids, o.ratios, o.filled) as l (instrument_id, ratio, filled)
join risk_private.instruments as i on i.instrument_id = l.instrument_id
where a.scope_id = any ((select risk_private.visible_accounts())::integer[])
  and o.decided_xid is distinct from pg_catalog.pg_current_xact_id_if_assigned()
  and (select risk_private.is_settled());
comment on view risk.orders is 'Every order ever decided, one row per leg.';
comment on column risk.orders.order_id is 'Id of the order, made of account and client_order_id.';
comment on column risk.orders.account is 'The account.';
comment on column risk.orders.client_order_id is 'The caller''s id of the order.';
comment on column risk.orders.agent is 'The strategy or algorithm that sent it.';
comment on column risk.orders.symbol is 'Instrument of the leg.';
comment on column risk.orders.side is 'buy or sell, of the leg.';
comment on column risk.orders.quantity is
  'Quantity of the leg: the order''s times the leg''s ratio.';
comment on column risk.orders.price is
  'Limit price of the order, for a combo net per combo; NULL: a market order.';
comment on column risk.orders.filled_quantity is
  'Filled quantity of the leg; of a replacement, with what the replaced order had filled.';
comment on column risk.orders.remaining_quantity is
  'Unfilled quantity of the leg; 0 once the order is closed, and for a replacement while the old '
  'order lives.';
comment on column risk.orders.state is
  'ACCEPTED, SENT, ACKNOWLEDGED, PARTIALLY_FILLED, FILLED, CANCELLED, EXPIRED, BROKER_REJECTED or '
  'REJECTED.';
comment on column risk.orders.decision is 'ACCEPTED or REJECTED.';
comment on column risk.orders.reason is 'The gravest reason of a rejection.';
comment on column risk.orders.decided_at is 'When it was decided.';
comment on column risk.orders.time_in_force is
  'DAY: until the next open_day; GTC: until cancelled.';
comment on column risk.orders.replaces is
  'The client_order_id that this order replaces or was to replace.';
comment on column risk.orders.replaced_by is
  'The client_order_id of its replacement, pending or confirmed.';
comment on column risk.orders.closed_at is 'When it ceased to be live; NULL while it is.';
comment on column risk.orders.close_reason is 'Why it was closed before it was filled.';

create view risk.open_orders with (security_barrier) as
select
  risk_private.order_id(a.code, o.client_order_id) as order_id, a.code as account,
  o.client_order_id, o.agent, i.symbol,
  case when o.ratio > 0 then 'buy' else 'sell' end as side, o.quantity * abs(o.ratio) as quantity,
  o.price,
  o.filled_quantity,
  case when o.is_replacement then 0
    else greatest(0, o.quantity * abs(o.ratio) - o.filled_quantity) end as remaining_quantity,
  case when o.is_replacement then 0 else o.open_quantity end as reserved_quantity,
  o.state, o.decided_at, o.time_in_force,
  o.is_combo, o.sent_at, o.acknowledged_at, o.broker_order_id, o.cancel_requested_at,
  o.replace_pending, o.replaces, o.replaced_by
from risk_private.scopes as a
join risk_private.open_legs as o on o.account_id = a.scope_id
join risk_private.instruments as i on i.instrument_id = o.instrument_id
where a.scope_id = any ((select risk_private.visible_accounts())::integer[])
  and o.decided_xid is distinct from pg_catalog.pg_current_xact_id_if_assigned()
  and (select risk_private.is_settled());
comment on view risk.open_orders is
  'Orders that are live, one row per leg. After a crash of the gateway state tells them apart: '
  'ACCEPTED was not marked sent, SENT not acknowledged.';
comment on column risk.open_orders.order_id is
  'Id of the order, made of account and client_order_id.';
comment on column risk.open_orders.account is 'The account.';
comment on column risk.open_orders.client_order_id is 'The caller''s id of the order.';
comment on column risk.open_orders.agent is 'The strategy or algorithm that sent it.';
comment on column risk.open_orders.symbol is 'Instrument of the leg.';
comment on column risk.open_orders.side is 'buy or sell, of the leg.';
comment on column risk.open_orders.quantity is
  'Quantity of the leg: the order''s times the leg''s ratio.';
comment on column risk.open_orders.price is
  'Limit price of the order, for a combo net per combo; NULL: a market order.';
comment on column risk.open_orders.filled_quantity is 'Filled quantity of the leg.';
comment on column risk.open_orders.remaining_quantity is
  'Unfilled quantity of the leg; 0 for a replacement while the old order lives.';
comment on column risk.open_orders.reserved_quantity is
  'What the leg counts in limits: while a replace is pending the larger of both, shown on the old '
  'order.';
comment on column risk.open_orders.state is 'ACCEPTED, SENT, ACKNOWLEDGED or PARTIALLY_FILLED.';
comment on column risk.open_orders.decided_at is 'When it was accepted.';
comment on column risk.open_orders.time_in_force is
  'DAY: until the next open_day; GTC: until cancelled.';
comment on column risk.open_orders.is_combo is 'Whether it was sent as a combo.';
comment on column risk.open_orders.sent_at is 'When the gateway dispatched it.';
comment on column risk.open_orders.acknowledged_at is 'When the broker acknowledged it.';
comment on column risk.open_orders.broker_order_id is 'The broker''s id.';
comment on column risk.open_orders.cancel_requested_at is 'When its cancel was first requested.';
comment on column risk.open_orders.replace_pending is
  'Whether it is one of the two orders of a pending replace.';
comment on column risk.open_orders.replaces is
  'The client_order_id that it replaces or is to replace.';
comment on column risk.open_orders.replaced_by is 'The client_order_id of its pending replacement.';

create view risk.decisions with (security_barrier) as
select
  risk_private.order_id(a.code, o.client_order_id) as order_id, a.code as account,
  o.client_order_id, o.agent,
  (
    select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'symbol', (
        select i.symbol from risk_private.instruments as i
        where i.instrument_id = l.instrument_id),
      'side', case when l.ratio > 0 then 'buy' else 'sell' end,
      'ratio', abs(l.ratio)) order by l.leg)
    from unnest(o.instrument_ids, o.ratios) with ordinality as l (instrument_id, ratio, leg)
  ) as legs,
  o.quantity, o.price, o.time_in_force, o.replaces, o.decision, o.reason, o.allowed_quantity,
  coalesce(o.detail, '{"violations": [], "warnings": []}') as detail, o.decided_at, o.decided_by
from risk_private.scopes as a
join risk_private.orders as o on o.account_id = a.scope_id
where a.scope_id = any ((select risk_private.visible_accounts())::integer[])
  and o.decided_xid is distinct from pg_catalog.pg_current_xact_id_if_assigned();
comment on view risk.decisions is 'Every decision, as it was answered: one row per order.';
comment on column risk.decisions.order_id is
  'Id of the order, made of account and client_order_id.';
comment on column risk.decisions.account is 'The account.';
comment on column risk.decisions.client_order_id is 'The caller''s id of the order.';
comment on column risk.decisions.agent is 'The strategy or algorithm that sent it.';
comment on column risk.decisions.legs is
  'What was to be traded: [{"symbol", "side", "ratio"}, ...].';
comment on column risk.decisions.quantity is
  'Quantity of the order; of a replacement, the new total.';
comment on column risk.decisions.price is
  'Limit price, for a combo net per combo; NULL: a market order.';
comment on column risk.decisions.time_in_force is 'DAY or GTC.';
comment on column risk.decisions.replaces is
  'The client_order_id that it was to replace; NULL for a new order.';
comment on column risk.decisions.decision is 'ACCEPTED or REJECTED.';
comment on column risk.decisions.reason is 'The gravest reason of a rejection.';
comment on column risk.decisions.allowed_quantity is 'The largest quantity that would have passed.';
comment on column risk.decisions.detail is
  '{"violations": [...], "warnings": [...]}: every one of them.';
comment on column risk.decisions.decided_at is 'When it was decided.';
comment on column risk.decisions.decided_by is 'The login that asked.';

create view risk.violations with (security_barrier) as
select
  risk_private.order_id(a.code, o.client_order_id) as order_id, a.code as account,
  o.client_order_id, o.agent,
  v.value ->> 'reason' as reason, v.value ->> 'limit_type' as limit_type,
  v.value ->> 'scope' as scope,
  v.value ->> 'dimension' as dimension, (v.value ->> 'limit')::numeric as limit_value,
  (v.value ->> 'current')::numeric as current_value,
  (v.value ->> 'projected')::numeric as projected_value,
  (v.value ->> 'allowed_quantity')::numeric as allowed_quantity, o.decided_at
from risk_private.scopes as a
join risk_private.orders as o on o.account_id = a.scope_id and o.decision = 'REJECTED'
cross join lateral pg_catalog.jsonb_array_elements(o.detail -> 'violations') as v
where a.scope_id = any ((select risk_private.visible_accounts())::integer[])
  and o.decided_xid is distinct from pg_catalog.pg_current_xact_id_if_assigned();
comment on view risk.violations is 'Why orders were rejected: one row for every check that failed.';
comment on column risk.violations.order_id is
  'Id of the order, made of account and client_order_id.';
comment on column risk.violations.account is 'The account.';
comment on column risk.violations.client_order_id is 'The caller''s id of the order.';
comment on column risk.violations.agent is 'The strategy or algorithm that sent it.';
comment on column risk.violations.reason is 'Reason of this failure, such as RISK_LIMIT_EXCEEDED.';
comment on column risk.violations.limit_type is
  'The type of limit that failed; NULL for other checks.';
comment on column risk.violations.scope is 'The scope whose limit, state or setting it was.';
comment on column risk.violations.dimension is
  'all, sector:Tech, underlying:AAPL or instrument:AAPL.';
comment on column risk.violations.limit_value is 'The limit.';
comment on column risk.violations.current_value is 'What was used before, open orders included.';
comment on column risk.violations.projected_value is 'What would have been used with the order.';
comment on column risk.violations.allowed_quantity is
  'The largest quantity that this check would have passed.';
comment on column risk.violations.decided_at is 'When it was decided.';

create view risk.fills with (security_barrier) as
select
  a.code as account, f.exec_id, risk_private.order_id(a.code, f.client_order_id) as order_id,
  f.client_order_id, i.symbol,
  case when coalesce(nullif(f.signed_quantity, 0), c.old_quantity) > 0 then 'buy'
    else 'sell' end as side,
  abs(f.signed_quantity) as quantity, f.price, f.fee,
  f.kind, f.flag, f.trading_day, f.executed_at, f.recorded_at, f.recorded_by, f.status,
  f.realized * f.rate as realized
from risk_private.scopes as a
join risk_private.fills as f on f.account_id = a.scope_id
join risk_private.instruments as i on i.instrument_id = f.instrument_id
left join lateral (
  select x.old_quantity from risk_private.fill_corrections as x
  where x.account_id = f.account_id and x.exec_id = f.exec_id and x.old_quantity <> 0
  order by x.correction_id limit 1
) as c on f.signed_quantity = 0
where a.scope_id = any ((select risk_private.visible_accounts())::integer[])
  and f.recorded_xid is distinct from pg_catalog.pg_current_xact_id_if_assigned()
  and (f.adjustment_id is null or f.signed_quantity <> 0);
comment on view risk.fills is
  'Executions as they stand: fills of orders, and trades that no order explains.';
comment on column risk.fills.account is 'The account.';
comment on column risk.fills.exec_id is
  'The broker''s id of the execution, unique within the account.';
comment on column risk.fills.order_id is 'Id of the order; NULL where no order explains it.';
comment on column risk.fills.client_order_id is 'The order under which it was reported.';
comment on column risk.fills.symbol is 'The instrument.';
comment on column risk.fills.side is 'buy or sell.';
comment on column risk.fills.quantity is 'Executed quantity; 0 once busted.';
comment on column risk.fills.price is 'Price of the execution.';
comment on column risk.fills.fee is 'Fee paid.';
comment on column risk.fills.kind is
  'fill; or, with no order: opening, assignment, exercise, expiry, transfer, cash_in_lieu, '
  'unexplained; adjustment: what a split added to the position.';
comment on column risk.fills.flag is
  'What was wrong with it: over_fill, fill_on_closed_order, fill_on_rejected_order, '
  'unexplained_trade; NULL: nothing.';
comment on column risk.fills.trading_day is 'The trading day to whose traded notional it counts.';
comment on column risk.fills.executed_at is 'When the broker executed it.';
comment on column risk.fills.recorded_at is 'When it was booked.';
comment on column risk.fills.recorded_by is 'The login that reported it.';
comment on column risk.fills.status is
  'BOOKED, BUSTED or CORRECTED; risk.fill_corrections tells what it was before.';
comment on column risk.fills.realized is
  'Profit that it realized at average cost, before its fee, in base currency.';

create view risk.fill_corrections with (security_barrier) as
select
  a.code as account, c.exec_id, c.kind, abs(c.old_quantity) as old_quantity, c.old_price,
  c.old_fee, abs(c.new_quantity) as new_quantity, c.new_price, c.reason, c.trading_day,
  c.late_realized, c.corrected_at, c.corrected_by
from risk_private.scopes as a
join risk_private.fill_corrections as c on c.account_id = a.scope_id
where a.scope_id = any ((select risk_private.visible_accounts())::integer[])
  and c.corrected_xid is distinct from pg_catalog.pg_current_xact_id_if_assigned();
comment on view risk.fill_corrections is 'What became of executions after they were booked.';
comment on column risk.fill_corrections.account is 'The account.';
comment on column risk.fill_corrections.exec_id is 'The execution.';
comment on column risk.fill_corrections.kind is 'bust or correction.';
comment on column risk.fill_corrections.old_quantity is 'Its quantity before.';
comment on column risk.fill_corrections.old_price is 'Its price before.';
comment on column risk.fill_corrections.old_fee is 'Its fee before; a bust gives it back.';
comment on column risk.fill_corrections.new_quantity is 'Its quantity since; 0 for a bust.';
comment on column risk.fill_corrections.new_price is 'Its price since.';
comment on column risk.fill_corrections.reason is 'Why.';
comment on column risk.fill_corrections.trading_day is 'The trading day in which it was done.';
comment on column risk.fill_corrections.late_realized is
  'What it changed of the profit realized on earlier days, in base currency: it counts to this '
  'one.';
comment on column risk.fill_corrections.corrected_at is 'When.';
comment on column risk.fill_corrections.corrected_by is 'The login that reported it.';

create view risk.positions with (security_barrier) as
select
  a.code as account, i.symbol, u.symbol as underlying, p.quantity, p.open_buy, p.open_sell,
  p.average_price,
  m.price as mark, p.quantity * m.price * i.multiplier * f.rate as market_value,
  p.quantity * (m.price - p.average_price) * i.multiplier * f.rate as unrealized_pnl,
  p.realized_pnl_today,
  g.units * m.delta as delta, g.units * m.gamma as gamma, g.units * m.vega as vega,
  g.units * m.theta as theta,
  g.units * m.rho as rho, m.as_of
from risk_private.scopes as a
join risk_private.positions as p on p.account_id = a.scope_id
join risk_private.instruments as i on i.instrument_id = p.instrument_id
join risk_private.instruments as u on u.instrument_id = i.underlying_id
left join risk_private.fx_rates as f on f.currency = i.currency
left join risk_private.marks as m on m.instrument_id = p.instrument_id
cross join lateral (
  select case when i.expiry < (select risk_private.present_trading_date()) then 0
              else (p.quantity * i.multiplier)::double precision end as units
) as g
where a.scope_id = any ((select risk_private.visible_accounts())::integer[])
  and (select risk_private.is_settled())
  and (p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0 or p.realized_pnl_today <> 0);
comment on view risk.positions is
  'What each account holds and has in open orders, at the latest marks. Money is in the base '
  'currency.';
comment on column risk.positions.account is 'The account.';
comment on column risk.positions.symbol is 'The instrument.';
comment on column risk.positions.underlying is 'Its underlying.';
comment on column risk.positions.quantity is 'Filled position: above 0 long, below 0 short.';
comment on column risk.positions.open_buy is 'Unfilled quantity of open buys.';
comment on column risk.positions.open_sell is 'Unfilled quantity of open sells.';
comment on column risk.positions.average_price is 'Average cost per unit of the position.';
comment on column risk.positions.mark is
  'Latest mark; NULL where there is none, and so are the values made of it.';
comment on column risk.positions.market_value is 'quantity x mark x multiplier x rate.';
comment on column risk.positions.unrealized_pnl is 'Market value less cost.';
comment on column risk.positions.realized_pnl_today is
  'Realized since the trading day was opened, less fees.';
comment on column risk.positions.delta is
  'Delta in share equivalents: that of the mark x quantity x multiplier. NULL where the mark has '
  'none; 0 once expired. Likewise the other Greeks.';
comment on column risk.positions.gamma is
  'Change of the position''s delta per 1.00 of the underlying.';
comment on column risk.positions.vega is 'Money per volatility point (0.01).';
comment on column risk.positions.theta is 'Money per calendar day.';
comment on column risk.positions.rho is 'Money per 1 % of interest rate.';
comment on column risk.positions.as_of is 'Data time of the mark.';
