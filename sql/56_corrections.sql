-- Busts and corrections: an execution that was wrong is taken back or put right, and what it led to
-- is reckoned anew from the executions that remain, in the order in which they were booked.

create type risk_private.replayed as (
  signed_quantity numeric,
  realized numeric,
  quantity numeric,
  cost numeric
);
comment on type risk_private.replayed is
  'What an execution should have traded and realized, and the position after it.';

create function risk_private.adjusted_quantity(quantity numeric, new_units numeric,
  old_units numeric)
returns numeric
language sql immutable
return pg_catalog.round(quantity * new_units / old_units, 8);
comment on function risk_private.adjusted_quantity(numeric, numeric, numeric) is
  'A position after an adjustment, fractions included: those are the broker''s to pay.';

create function risk_private.replay_next(
  before risk_private.replayed, signed_quantity numeric, unit_amount numeric, new_units numeric,
  old_units numeric)
returns risk_private.replayed
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_quantity numeric := coalesce(before.quantity, 0);
  v_after risk_private.replayed;
begin
  if new_units is null then
    v_after.signed_quantity := signed_quantity;
    select c.new_cost, c.realized into v_after.cost, v_after.realized
    from risk_private.average_cost(v_quantity, coalesce(before.cost, 0), signed_quantity,
      unit_amount) as c;
  else
    v_after.signed_quantity :=
      risk_private.adjusted_quantity(v_quantity, new_units, old_units) - v_quantity;
    v_after.cost := coalesce(before.cost, 0);
    v_after.realized := 0;
  end if;
  v_after.quantity := v_quantity + v_after.signed_quantity;
  return v_after;
end
$$;
comment on function risk_private.replay_next(
  risk_private.replayed, numeric, numeric, numeric, numeric) is
  'One more execution or, where units are given, a split, which leaves the cost as it is and makes '
  'another quantity of the position.';

create aggregate risk_private.replay(numeric, numeric, numeric, numeric) (
  sfunc = risk_private.replay_next, stype = risk_private.replayed);
comment on aggregate risk_private.replay(numeric, numeric, numeric, numeric) is
  'Signed quantities, unit amounts and units of executions, in the order of their booking.';

create view risk_private.replayed_fills as
select
  f.account_id, f.instrument_id, f.exec_id, f.booking, f.trading_day, f.rate, f.fee,
  risk_private.replay(f.signed_quantity, f.unit_amount, a.new_units, a.old_units) over w
    as replayed,
  lead(f.booking) over w is null as is_last
from risk_private.fills as f
left join risk_private.adjusted_instruments as a
  on a.adjustment_id = f.adjustment_id and a.instrument_id = f.instrument_id
window w as (partition by f.account_id, f.instrument_id order by f.booking);
comment on view risk_private.replayed_fills is
  'Every execution, with the cost and profit at average cost that follow from all up to it.';

create function risk_private.heirs(account_id integer, client_order_id text) returns text[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    with recursive chain as (
      select o.account_id, o.client_order_id, o.replaced_by from risk_private.orders as o
      where o.account_id = heirs.account_id and o.client_order_id = heirs.client_order_id
      union all
      select o.account_id, o.client_order_id, o.replaced_by from chain as c
      join risk_private.orders as o
        on o.account_id = c.account_id and o.client_order_id = c.replaced_by
    )
    select pg_catalog.array_agg(c.client_order_id) from chain as c);
end
$$;
comment on function risk_private.heirs(integer, text) is
  'An order and all that have replaced it or may yet: what it had filled counts in each.';

-- The caller holds the account.
create function risk_private.refill_orders(fill risk_private.fills, client_order_ids text[],
  added numeric)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_leg integer := (
    select pg_catalog.array_position(o.instrument_ids, fill.instrument_id)
    from risk_private.orders as o
    where o.account_id = fill.account_id and o.client_order_id = fill.booked_on);
begin
  update risk_private.orders as o set filled[v_leg] = o.filled[v_leg] + added
  where o.account_id = fill.account_id and o.client_order_id = any (client_order_ids);
  update risk_private.orders as o set
    state = case
      when o.closed_at is not null and d.is_done then 'FILLED'
      when o.closed_at is not null then 'CANCELLED'
      when o.acknowledged_at is not null then 'ACKNOWLEDGED'
      when o.sent_at is not null then 'SENT'
      else 'ACCEPTED'
    end,
    close_reason = case
      when o.closed_at is not null and not d.is_done then 'fill_corrected' end
  from (
    select q.client_order_id,
      pg_catalog.bool_and(l.filled >= q.quantity * abs(l.ratio)) as is_done
    from risk_private.orders as q
    cross join lateral unnest(q.ratios, q.filled) as l (ratio, filled)
    where q.account_id = fill.account_id and q.client_order_id = any (client_order_ids)
    group by q.client_order_id
    having pg_catalog.bool_and(l.filled = 0) or bool_or(q.closed_at is not null)
  ) as d
  where o.account_id = fill.account_id and o.client_order_id = d.client_order_id
    and (o.state in ('FILLED', 'PARTIALLY_FILLED') or o.close_reason = 'fill_corrected');
  perform risk_private.note_fills(fill.account_id, client_order_ids, risk_private.clock());
end
$$;
comment on function risk_private.refill_orders(risk_private.fills, text[], numeric) is
  'Adds to what an execution filled of its order, and of its heirs. A live order has '
  'so much more or less to fill. One that had been filled stays closed: exchanges do not put '
  'orders back into the book.';

-- The caller holds the account, and has changed the execution.
create function risk_private.reprice(
  fill risk_private.fills, out today numeric, out late numeric, out quantity numeric,
  out cost numeric)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_day date := (select s.trading_day from risk_private.scopes as s
    where s.scope_id = fill.account_id);
  v_row record;
  v_old risk_private.fills;
begin
  today := 0;
  late := 0;
  for v_row in
    select r.exec_id, (r.replayed).*
    from risk_private.replayed_fills as r
    where r.account_id = fill.account_id and r.instrument_id = fill.instrument_id
    order by r.booking
  loop
    select f.* into v_old from risk_private.fills as f
    where f.account_id = fill.account_id and f.exec_id = v_row.exec_id;
    if v_row.realized <> v_old.realized or v_row.signed_quantity <> v_old.signed_quantity then
      update risk_private.fills as f set
        realized = v_row.realized, signed_quantity = v_row.signed_quantity
      where f.account_id = fill.account_id and f.exec_id = v_row.exec_id;
      if v_old.trading_day is not distinct from v_day then
        today := today + (v_row.realized - v_old.realized) * v_old.rate;
      else
        late := late + (v_row.realized - v_old.realized) * v_old.rate;
      end if;
    end if;
    quantity := v_row.quantity;
    cost := v_row.cost;
  end loop;
end
$$;
comment on function risk_private.reprice(risk_private.fills) is
  'Reckons all executions of an account in an instrument anew. Returns the position and its cost, '
  'and by what the profit of today and that of earlier days changed, in base currency.';

-- The caller holds the account; then its chain's counters ascending (within settle), then their
-- equities.
create function risk_private.replace_fill(old risk_private.fills, new risk_private.fills,
  reason text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_day date := (select s.trading_day from risk_private.scopes as s
    where s.scope_id = old.account_id);
  v_is_late boolean := old.trading_day is distinct from v_day;
  v_position risk_private.positions;
  v_result record;
  v_ids text[] := '{}';
  v_before risk_private.working_legs[] := '{}';
  v_money risk_private.money;
  v_amount numeric := new.signed_quantity * new.unit_amount - old.signed_quantity * old.unit_amount;
  v_fees numeric := (new.fee - old.fee) * old.rate;
  v_flows numeric :=
    case when risk_private.is_in_kind(old.kind) then v_amount * old.rate else 0 end;
  v_split numeric;
begin
  select p.* into v_position from risk_private.positions as p
  where p.account_id = old.account_id and p.instrument_id = old.instrument_id;
  update risk_private.fills as f set
    signed_quantity = new.signed_quantity, price = new.price, fee = new.fee,
    unit_price = case when v_is_late then old.unit_price else new.unit_price end,
    status = new.status
  where f.account_id = old.account_id and f.exec_id = old.exec_id;
  select r.* into v_result from risk_private.reprice(new) as r;
  if old.booked_on is not null then
    v_ids := risk_private.heirs(old.account_id, old.booked_on);
    v_before := risk_private.reserved(old.account_id, v_ids);
    perform risk_private.refill_orders(
      old, v_ids, abs(new.signed_quantity) - abs(old.signed_quantity));
  end if;
  v_money := risk_private.move_cash(
    old.account_id,
    (select i.currency from risk_private.instruments as i
     where i.instrument_id = old.instrument_id),
    case when risk_private.is_in_kind(old.kind) then 0 else -v_amount end - (new.fee - old.fee),
    v_result.cost - v_position.cost);
  v_money.realized := v_result.today + v_result.late;
  v_money.fees := v_fees;
  v_money.flows := v_flows;
  perform risk_private.change_cost(old.account_id, old.instrument_id, v_result.quantity,
    v_result.cost, v_money.realized, v_fees);
  v_split := v_result.quantity - v_position.quantity - new.signed_quantity + old.signed_quantity;
  perform risk_private.settle(
    old.account_id, v_before, risk_private.reserved(old.account_id, v_ids),
    risk_private.amends(old, new, v_split, v_is_late));
  perform risk_private.follow_fill(
    old.account_id, old.instrument_id, v_result.quantity - v_position.quantity, v_money);
  insert into risk_private.fill_corrections (
    account_id, exec_id, kind, old_quantity, old_price, old_fee, new_quantity, new_price,
    late_realized, late_fees, late_flows, reason, trading_day, corrected_at)
  values (
    old.account_id, old.exec_id, case new.status when 'BUSTED' then 'bust' else 'correction' end,
    old.signed_quantity, old.price, old.fee, new.signed_quantity, new.price, v_result.late,
    case when v_is_late then v_fees else 0 end, case when v_is_late then v_flows else 0 end,
    replace_fill.reason, v_day, risk_private.clock());
end
$$;
comment on function risk_private.replace_fill(risk_private.fills, risk_private.fills, text) is
  'Puts an execution in place of another of the same id: order, position, counters, cash, cost, '
  'profit and equity follow. What it changes of earlier days counts to today.';

create function risk_private.amends(
  old risk_private.fills, new risk_private.fills, split numeric, is_late boolean)
returns risk_private.fills[]
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_back risk_private.fills := old;
  v_forth risk_private.fills := new;
  v_split risk_private.fills := new;
begin
  v_back.signed_quantity := -old.signed_quantity;
  v_back.unit_price := case when is_late then 0 else -old.unit_price end;
  v_forth.unit_price := case when is_late then 0 else new.unit_price end;
  v_split.signed_quantity := split;
  v_split.unit_price := case when split = 0 then old.unit_price else 0 end;
  return array[v_back, v_forth, v_split];
end
$$;
comment on function risk_private.amends(
  risk_private.fills, risk_private.fills, numeric, boolean) is
  'What to settle where one execution takes the place of another: the old one back, the new one, '
  'and what later splits made of the difference. Only one of today counts in traded notional.';
