-- Fills: never refused, never counted twice. The broker's truth wins over what was reserved.

create function risk_private.reserved(account_id integer, client_order_ids text[])
  returns risk_private.working_legs[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select w from risk_private.working_legs as w
    where w.account_id = reserved.account_id and w.client_order_id = any (client_order_ids));
end
$$;
comment on function risk_private.reserved(integer, text[]) is
  'What live orders reserve at this moment, an order and its pending replacement as one.';

-- Lock order: the caller holds the account; then its chain's counters ascending (within move).
create function risk_private.settle(
  account_id integer, before risk_private.working_legs[], after risk_private.working_legs[],
  fills risk_private.fills[])
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_movements risk_private.movement[];
  v_opened integer := (
    select count(distinct a.client_order_id) from pg_catalog.unnest(after) as a)
    - (select count(distinct b.client_order_id) from pg_catalog.unnest(before) as b);
begin
  -- A leg of a combo that is filled and closed again, and has no mark, stands in no value.
  v_movements := array(
    select risk_private.movement(
      settle.account_id, c.instrument_id, sum(c.quantity), sum(c.open_buy), sum(c.open_sell),
      sum(c.notional), v_opened,
      0, risk_private.valued(
        pg_catalog.any_value(u), c.instrument_id, coalesce(max(c.unit_value), 0)))
    from (
      select a.instrument_id, 0::numeric as quantity, case when a.ratio > 0 then a.open_quantity
        else 0 end as open_buy,
        case when a.ratio < 0 then a.open_quantity else 0 end as open_sell,
        a.open_notional as notional,
        null::numeric as unit_value
      from pg_catalog.unnest(after) as a
      union all
      select b.instrument_id, 0, case when b.ratio > 0 then -b.open_quantity else 0 end,
        case when b.ratio < 0 then -b.open_quantity else 0 end, -b.open_notional, null
      from pg_catalog.unnest(before) as b
      union all
      select f.instrument_id, f.signed_quantity, 0, 0, abs(f.signed_quantity) * f.unit_price,
        f.unit_price * pg_catalog.sign(f.price)
      from pg_catalog.unnest(fills) as f
    ) as c
    left join risk_private.unit_values as u on u.instrument_id = c.instrument_id
    group by c.instrument_id);
  if pg_catalog.cardinality(v_movements) > 0 then
    perform risk_private.move(v_movements, true);
    perform risk_private.move_exposures(settle.account_id, v_movements, before, after);
    perform risk_private.renew_obligations(settle.account_id, array(
      select distinct i.underlying_id
      from pg_catalog.unnest(v_movements) as m
      join risk_private.instruments as i on i.instrument_id = m.instrument_id));
  end if;
end
$$;
comment on function risk_private.settle(
  integer, risk_private.working_legs[], risk_private.working_legs[], risk_private.fills[]) is
  'Moves positions and counters by the difference between what was and is reserved, and by fills, '
  'whose cost is booked already; then what the account may come to owe.';

create function risk_private.note_fills(account_id integer, client_order_ids text[], at timestamptz)
  returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update risk_private.orders as o set
    state = case when f.is_done then 'FILLED' else 'PARTIALLY_FILLED' end,
    closed_at = case when f.is_done then at end
  from (
    select q.account_id, q.client_order_id,
      pg_catalog.bool_and(l.filled >= q.quantity * abs(l.ratio)) as is_done
    from risk_private.orders as q
    cross join lateral unnest(q.ratios, q.filled) as l (ratio, filled)
    where q.account_id = note_fills.account_id and q.client_order_id = any (client_order_ids)
      and q.closed_at is null
      and not (q.replace_pending and q.replaces is not null and exists (
        select from risk_private.orders as old
        where old.account_id = q.account_id and old.client_order_id = q.replaces
          and old.closed_at is null))
    group by q.account_id, q.client_order_id
    having pg_catalog.bool_or(l.filled > 0)
  ) as f
  where o.account_id = f.account_id and o.client_order_id = f.client_order_id;
end
$$;
comment on function risk_private.note_fills(integer, text[], timestamptz) is
  'Marks live orders PARTIALLY_FILLED or FILLED. A pending replacement keeps its state while the '
  'old order lives.';

create function risk_private.validate_execution(
  exec_id text, quantity numeric, price numeric, fee numeric, executed_at timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not risk_private.is_code(exec_id) then
    perform risk_private.fail('RK400', 'exec_id must be 1 to 64 printable characters',
      'argument: exec_id');
  end if;
  if not risk_private.is_quantity(quantity) then
    perform risk_private.fail('RK400',
      'quantity must be a finite number above 0 and at most 1e12, with at most 8 decimals',
      'argument: quantity, value: ' || coalesce(pg_catalog."left"(quantity::text, 40), 'NULL'));
  end if;
  if not risk_private.is_price(price, null, true) then
    perform risk_private.fail('RK400',
      'price must be a finite number within 1e12, with at most 8 decimals',
      'argument: price, value: ' || coalesce(pg_catalog."left"(price::text, 40), 'NULL'));
  end if;
  if not risk_private.is_price(fee, null, true) and fee is distinct from 0 then
    perform risk_private.fail('RK400',
      'fee must be a finite number within 1e12, with at most 8 decimals', 'argument: fee');
  end if;
  if executed_at in ('infinity', '-infinity') then
    perform risk_private.fail('RK400', 'executed_at must be a moment', 'argument: executed_at');
  end if;
end
$$;
comment on function risk_private.validate_execution(
  text, numeric, numeric, numeric, timestamptz) is
  'Raises RK400 for an execution that cannot be: what a broker may report is not limited '
  'otherwise.';

create function risk_private.is_recorded(execution risk_private.fills) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_known risk_private.fills;
begin
  select f.* into v_known from risk_private.fills as f
  where f.account_id = execution.account_id and f.exec_id = execution.exec_id;
  if v_known.exec_id is null then
    return false;
  end if;
  -- Told again as it first was, it is the same execution, whatever has become of it.
  if v_known.status <> 'BOOKED' and exists (
    select from (
      select c.* from risk_private.fill_corrections as c
      where c.account_id = execution.account_id and c.exec_id = execution.exec_id
      order by c.correction_id limit 1
    ) as c
    where c.old_quantity = execution.signed_quantity and c.old_price = execution.price
      and c.old_fee = execution.fee) then
    v_known.signed_quantity := execution.signed_quantity;
    v_known.price := execution.price;
    v_known.fee := execution.fee;
  end if;
  if row(v_known.client_order_id, v_known.instrument_id, v_known.signed_quantity, v_known.price,
    v_known.fee, v_known.kind)
    is distinct from row(execution.client_order_id, execution.instrument_id,
      execution.signed_quantity, execution.price,
                         execution.fee, execution.kind) then
    perform risk_private.fail('RK409',
      pg_catalog.format('exec_id %L was recorded with other content', execution.exec_id),
      'argument: exec_id');
  end if;
  return true;
end
$$;
comment on function risk_private.is_recorded(risk_private.fills) is
  'Whether this very execution is booked already; RK409 where its id stands for another.';

create function risk_private.successor(o risk_private.orders) returns risk_private.orders
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_order risk_private.orders := o;
begin
  if v_order.replace_pending and v_order.replaces is not null and v_order.closed_at is null then
    select old.* into v_order from risk_private.orders as old
    where old.account_id = o.account_id and old.client_order_id = o.replaces
      and old.closed_at is null;
    return case when found then v_order else o end;
  end if;
  while v_order.replaced_by is not null and not v_order.replace_pending loop
    select n.* into v_order from risk_private.orders as n
    where n.account_id = o.account_id and n.client_order_id = v_order.replaced_by;
  end loop;
  return v_order;
end
$$;
comment on function risk_private.successor(risk_private.orders) is
  'The order that a fill under this id belongs to: the live half of a pending replace, the end of '
  'a chain of confirmed ones.';

-- Lock order: the account; its chain's counters ascending (within settle); their equities.
create function risk_private.record_fill(
  account text, client_order_id text, exec_id text, quantity numeric, price numeric, symbol text,
  fee numeric,
  executed_at timestamptz)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_leaf risk_private.scopes := risk_private.scope(account);
  v_asked risk_private.orders;
  v_order risk_private.orders;
  v_leg integer;
  v_before risk_private.working_legs[];
  v_ids text[];
  v_fill risk_private.fills;
  v_money risk_private.money;
begin
  perform risk_private.begin_change();
  perform risk_private.validate_execution(exec_id, quantity, price, fee, executed_at);
  perform risk_private.lock_account(v_leaf.scope_id);
  v_asked := risk_private.order_of(v_leaf.scope_id, client_order_id);
  v_leg := case
    when symbol is not null
      then pg_catalog.array_position(v_asked.instrument_ids, risk_private.instrument_id(symbol))
    when pg_catalog.cardinality(v_asked.ratios) = 1 then 1
  end;
  if v_leg is null then
    perform risk_private.fail('RK400', case
      when symbol is null then 'a fill of a combo needs the symbol of its leg'
      else pg_catalog.format('order %L has no leg in %L', client_order_id, symbol) end,
      'argument: symbol');
  end if;
  v_fill.account_id := v_leaf.scope_id;
  v_fill.exec_id := exec_id;
  v_fill.client_order_id := client_order_id;
  v_fill.instrument_id := v_asked.instrument_ids[v_leg];
  v_fill.signed_quantity := quantity * pg_catalog.sign(v_asked.ratios[v_leg]);
  v_fill.price := price;
  v_fill.fee := fee;
  v_fill.kind := 'fill';
  v_fill.executed_at := executed_at;
  if risk_private.is_recorded(v_fill) then
    return;
  end if;
  v_order := risk_private.successor(v_asked);
  v_ids := array[v_order.client_order_id, v_order.replaced_by];
  v_before := risk_private.reserved(v_leaf.scope_id, v_ids);
  v_fill.flag := case
    when v_order.decision = 'REJECTED' then 'fill_on_rejected_order'
    when v_order.closed_at is not null then 'fill_on_closed_order'
    when quantity > (select w.open_quantity from pg_catalog.unnest(v_before) as w
      where w.leg = v_leg) then 'over_fill'
  end;
  v_fill.booked_on := v_order.client_order_id;
  v_fill := risk_private.book(v_fill);
  v_money := risk_private.account_for(v_fill);
  update risk_private.orders as o set filled[v_leg] = o.filled[v_leg] + record_fill.quantity
  where o.account_id = v_leaf.scope_id and (
    o.client_order_id = v_order.client_order_id
    or (o.client_order_id = v_order.replaced_by and v_order.replace_pending));
  perform risk_private.note_fills(v_leaf.scope_id, v_ids, v_fill.recorded_at);
  perform risk_private.settle(v_leaf.scope_id, v_before,
    risk_private.reserved(v_leaf.scope_id, v_ids), array[v_fill]);
  perform risk_private.follow_fill(v_leaf.scope_id, v_fill.instrument_id, v_fill.signed_quantity,
    v_money);
  if v_fill.flag is not null then
    perform risk_private.alert(v_fill.flag, pg_catalog.jsonb_build_object(
      'account', account, 'client_order_id', client_order_id, 'exec_id', exec_id, 'quantity',
      quantity::text,
      'price', price::text,
      'severity', case v_fill.flag when 'fill_on_rejected_order' then 'critical'
        else 'warning' end));
  end if;
end
$$;
comment on function risk_private.record_fill(text, text, text, numeric, numeric, text, numeric,
  timestamptz) is
  'What risk.record_fill does.';

create function risk_private.fill_detail(account text, exec_id text) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.flush();
  return (
    select pg_catalog.jsonb_build_object(
      'exec_id', f.exec_id, 'flag', f.flag, 'position', p.quantity::text, 'order_state', o.state,
      'remaining_quantity', (
        select sum(w.open_quantity)::text from risk_private.working_legs as w
        where w.account_id = f.account_id and w.client_order_id = f.client_order_id))
    from risk_private.scopes as s
    join risk_private.fills as f on f.account_id = s.scope_id and f.exec_id = fill_detail.exec_id
    join risk_private.positions as p on p.account_id = f.account_id
      and p.instrument_id = f.instrument_id
    left join risk_private.orders as o on o.account_id = f.account_id
      and o.client_order_id = f.client_order_id
    where s.code = account
      and f.recorded_xid is distinct from pg_catalog.pg_current_xact_id_if_assigned());
end
$$;
comment on function risk_private.fill_detail(text, text) is
  'What a booked execution led to, durable once the calling transaction commits.';

create procedure risk.record_fill(
  account text, client_order_id text, exec_id text, quantity numeric, price numeric,
  symbol text default null,
  fee numeric default 0, executed_at timestamptz default null, inout detail jsonb default null)
language plpgsql
as $$
begin
  perform risk_private.record_fill(account, client_order_id, exec_id, quantity, price, symbol, fee,
    executed_at);
  commit;
  detail := risk_private.fill_detail(account, exec_id);
  commit;
end
$$;
comment on procedure risk.record_fill(text, text, text, numeric, numeric, text, numeric,
  timestamptz, jsonb) is
  'Books a fill; symbol names the leg of a combo. Never refused for risk, and booked once per '
  'exec_id. An over-fill, a fill of a closed or of a rejected order is booked in full, flagged in '
  'detail and alerted. Errors: RK400, RK404 unknown order, RK409 same exec_id with other content.';

-- Lock order: the account; its chain's counters ascending (within settle); their equities.
create function risk_private.record_trade(
  account text, symbol text, side text, quantity numeric, price numeric, exec_id text, kind text,
  fee numeric,
  executed_at timestamptz)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_leaf risk_private.scopes := risk_private.scope(account);
  v_fill risk_private.fills;
  v_money risk_private.money;
begin
  perform risk_private.begin_change();
  perform risk_private.validate_execution(exec_id, quantity, price, fee, executed_at);
  if (side in ('buy', 'sell')) is not true then
    perform risk_private.fail('RK400', pg_catalog.format('side must be buy or sell, got %L', side),
      'argument: side');
  end if;
  if (kind in ('opening', 'assignment', 'exercise', 'expiry', 'transfer', 'cash_in_lieu',
    'unexplained')) is not true then
    perform risk_private.fail('RK400', pg_catalog.format('unknown kind %L', kind), 'argument: kind',
      'One of opening, assignment, exercise, expiry, transfer, cash_in_lieu, unexplained.');
  end if;
  if not v_leaf.is_leaf then
    perform risk_private.fail('RK400',
      pg_catalog.format('%L has scopes below it: positions belong to those', account),
      'argument: account');
  end if;
  perform risk_private.lock_account(v_leaf.scope_id);
  v_fill.account_id := v_leaf.scope_id;
  v_fill.exec_id := exec_id;
  v_fill.instrument_id := risk_private.instrument_id(symbol);
  v_fill.signed_quantity := case side when 'buy' then quantity else -quantity end;
  v_fill.price := price;
  v_fill.fee := fee;
  v_fill.kind := kind;
  v_fill.flag := case kind when 'unexplained' then 'unexplained_trade' end;
  v_fill.executed_at := executed_at;
  if risk_private.is_recorded(v_fill) then
    return;
  end if;
  v_fill := risk_private.book(v_fill);
  v_money := risk_private.account_for(v_fill);
  perform risk_private.settle(v_leaf.scope_id, '{}', '{}', array[v_fill]);
  perform risk_private.follow_fill(v_leaf.scope_id, v_fill.instrument_id, v_fill.signed_quantity,
    v_money);
  if v_fill.flag is not null then
    perform risk_private.alert(v_fill.flag, pg_catalog.jsonb_build_object(
      'account', account, 'symbol', symbol, 'exec_id', exec_id, 'side', side, 'quantity',
      quantity::text,
      'price', price::text, 'severity', 'critical'));
  end if;
end
$$;
comment on function risk_private.record_trade(
  text, text, text, numeric, numeric, text, text, numeric,
  timestamptz) is 'What risk.record_trade does.';

create procedure risk.record_trade(
  account text, symbol text, side text, quantity numeric, price numeric, exec_id text,
  kind text default 'unexplained',
  fee numeric default 0, executed_at timestamptz default null, inout detail jsonb default null)
language plpgsql
as $$
begin
  perform risk_private.record_trade(account, symbol, side, quantity, price, exec_id, kind, fee,
    executed_at);
  commit;
  detail := risk_private.fill_detail(account, exec_id);
  commit;
end
$$;
comment on procedure risk.record_trade(
  text, text, text, numeric, numeric, text, text, numeric, timestamptz, jsonb) is
  'Books a trade that no order of ours explains: kind opening or transfer (a position brought in '
  'or taken out: a flow, no cash), assignment, exercise, expiry (of an option at price 0, or at '
  'what it is settled for in cash; shares that change hands are a trade of their own at the '
  'strike), cash_in_lieu (a fraction that a split left), or unexplained (alerted). Booked once per '
  'exec_id. Errors: RK400, RK404, RK409 same exec_id with other content.';
