-- Replacing a live order: the larger of old and new stays reserved until the broker has answered.

create function risk_private.order_of(account_id integer, client_order_id text)
  returns risk_private.orders
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_order risk_private.orders;
begin
  select o.* into v_order from risk_private.orders as o
  where o.account_id = order_of.account_id and o.client_order_id = order_of.client_order_id;
  if v_order.account_id is null then
    perform risk_private.fail('RK404', pg_catalog.format('unknown order %L', client_order_id),
      'argument: client_order_id');
  end if;
  return v_order;
end
$$;
comment on function risk_private.order_of(integer, text) is
  'The order of that id; RK404 where there is none.';

create function risk_private.propose_replace(
  old risk_private.orders, new_client_order_id text, quantity numeric, price numeric)
returns risk_private.proposal
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  p risk_private.proposal;
begin
  if old.closed_at is not null or old.replace_pending then
    perform risk_private.fail('RK409',
      pg_catalog.format('order %L cannot be replaced: it %s', old.client_order_id,
      case when old.closed_at is null then 'is in a pending replace' else 'is ' || old.state end),
      'argument: client_order_id');
  end if;
  p.account_id := old.account_id;
  p.client_order_id := new_client_order_id;
  p.agent := old.agent;
  p.time_in_force := old.time_in_force;
  p.instrument_ids := old.instrument_ids;
  p.ratios := old.ratios;
  p.quantity := quantity;
  p.price := price;
  p.is_combo := old.is_combo;
  p.replaces := old.client_order_id;
  p.filled := old.filled;
  select
    pg_catalog.array_agg(greatest(old.quantity * abs(l.ratio), l.filled) order by l.leg),
    pg_catalog.array_agg(greatest(0, old.quantity * abs(l.ratio) - l.filled) * l.unit_price
      order by l.leg)
  into p.bases, p.old_notionals
  from unnest(old.ratios, old.filled, old.unit_prices) with ordinality as l (ratio, filled,
    unit_price, leg);
  perform risk_private.validate_order(
    new_client_order_id, risk_private.legs(p, risk_private.clock()), quantity, price, p.agent,
    p.time_in_force, p.is_combo);
  if exists (
    select from unnest(old.ratios, old.filled) as l (ratio, filled)
      where quantity * abs(l.ratio) <= l.filled) then
    perform risk_private.fail('RK400',
      'the new quantity is the total and must exceed what is filled already',
      'argument: quantity');
  end if;
  p.harmless_quantity := case
    when case
      when price is null or old.price is null then price is null and old.price is null
      when old.is_combo or old.ratios[1] > 0 then price <= old.price
      else price >= old.price
    end then old.quantity
    else 0
  end;
  return p;
end
$$;
comment on function risk_private.propose_replace(risk_private.orders, text, numeric, numeric) is
  'Resolves and validates a replace. Errors: RK400, RK409 not live, or another replace is pending.';

-- Lock order: the account, then its chain's counters ascending.
create function risk_private.decide_replace(
  account text, client_order_id text, new_client_order_id text, quantity numeric, price numeric)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_leaf risk_private.scopes;
  v_old risk_private.orders;
begin
  perform risk_private.begin_change();
  v_leaf := risk_private.account_of(account);
  perform risk_private.lock_account(v_leaf.scope_id);
  v_old := risk_private.order_of(v_leaf.scope_id, client_order_id);
  if exists (
    select from risk_private.orders as o
    where o.account_id = v_leaf.scope_id and o.client_order_id = new_client_order_id) then
    return;
  end if;
  perform risk_private.decide(
    array[risk_private.propose_replace(v_old, new_client_order_id, quantity, price)]);
  update risk_private.orders as o set replace_pending = true, replaced_by = new_client_order_id
  from risk_private.orders as n
  where o.account_id = v_old.account_id and o.client_order_id = v_old.client_order_id
    and n.account_id = v_old.account_id and n.client_order_id = new_client_order_id
      and n.decision = 'ACCEPTED';
end
$$;
comment on function risk_private.decide_replace(text, text, text, numeric, numeric) is
  'Decides a replace and stores the decision, saying nothing.';

create function risk_private.answer_replace(
  account text, client_order_id text, new_client_order_id text, quantity numeric, price numeric)
returns risk_private.decision
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_order risk_private.orders := risk_private.stored_order(account, new_client_order_id);
begin
  if v_order.decision is null then
    return null;
  end if;
  if (v_order.replaces = client_order_id and v_order.quantity = answer_replace.quantity
      and v_order.price is not distinct from answer_replace.price) is not true then
    perform risk_private.refuse_other_content(new_client_order_id);
  end if;
  perform risk_private.flush();
  return risk_private.answer_of(account, v_order);
end
$$;
comment on function risk_private.answer_replace(text, text, text, numeric, numeric) is
  'The stored decision on a replace; see risk_private.answer.';

create procedure risk.replace_order(
  account text, client_order_id text, new_client_order_id text, quantity numeric,
  price numeric default null,
  inout order_id uuid default null, inout decision text default null,
  inout reason text default null,
  inout allowed_quantity numeric default null, inout detail jsonb default null)
language plpgsql
as $$
declare
  v_answer risk_private.decision;
begin
  perform risk_private.decide_replace(account, client_order_id, new_client_order_id, quantity,
    price);
  commit;
  v_answer := risk_private.answer_replace(account, client_order_id, new_client_order_id, quantity,
    price);
  commit;
  order_id := v_answer.order_id;
  decision := v_answer.decision;
  reason := v_answer.reason;
  allowed_quantity := v_answer.allowed_quantity;
  detail := v_answer.detail;
end
$$;
comment on procedure risk.replace_order(
  text, text, text, numeric, numeric, uuid, text, text, numeric, jsonb) is
  'Decides a new total quantity and price for a live order. The larger of old and new stays '
  'reserved until risk.confirm_replace or risk.reject_replace; a refusal leaves the old order as '
  'it was. For no more at no worse a price it passes unless halted. Errors: RK400, RK403, RK404, '
  'RK409 not live, another replace pending, or the id used otherwise.';

-- Lock order: the account, then its chain's counters ascending (within settle).
create function risk_private.end_replace(account text, new_client_order_id text,
  is_confirmed boolean) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_leaf risk_private.scopes := risk_private.scope(account);
  v_at timestamptz;
  v_new risk_private.orders;
  v_before risk_private.working_legs[];
begin
  perform risk_private.begin_change();
  perform risk_private.lock_account(v_leaf.scope_id);
  v_at := risk_private.clock();
  v_new := risk_private.order_of(v_leaf.scope_id, new_client_order_id);
  if v_new.replaces is null or v_new.decision <> 'ACCEPTED' then
    perform risk_private.fail('RK409',
      pg_catalog.format('order %L is no replacement', new_client_order_id),
      'argument: new_client_order_id');
  end if;
  if not v_new.replace_pending or v_new.closed_at is not null then
    return;
  end if;
  v_before := risk_private.reserved(v_leaf.scope_id, array[v_new.client_order_id, v_new.replaces]);
  if is_confirmed then
    update risk_private.orders as o set state = 'CANCELLED', closed_at = v_at,
    close_reason = 'replaced'
    where o.account_id = v_new.account_id and o.client_order_id = v_new.replaces
      and o.closed_at is null;
    update risk_private.orders as o set replace_pending = false
    where o.account_id = v_new.account_id
      and o.client_order_id in (v_new.replaces, v_new.client_order_id);
    update risk_private.orders as o set
      state = case when o.state in ('ACCEPTED', 'SENT') then 'ACKNOWLEDGED' else o.state end,
      acknowledged_at = coalesce(o.acknowledged_at, v_at)
    where o.account_id = v_new.account_id and o.client_order_id = v_new.client_order_id;
  else
    update risk_private.orders as o set state = 'BROKER_REJECTED', closed_at = v_at,
    close_reason = 'broker_rejected',
      replace_pending = false
    where o.account_id = v_new.account_id and o.client_order_id = v_new.client_order_id;
    update risk_private.orders as o set replace_pending = false, replaced_by = null
    where o.account_id = v_new.account_id and o.client_order_id = v_new.replaces;
  end if;
  perform risk_private.note_fills(v_leaf.scope_id, array[v_new.client_order_id, v_new.replaces],
    v_at);
  perform risk_private.settle(
    v_leaf.scope_id, v_before,
    risk_private.reserved(v_leaf.scope_id, array[v_new.client_order_id, v_new.replaces]),
    '{}');
end
$$;
comment on function risk_private.end_replace(text, text, boolean) is
  'What risk.confirm_replace and risk.reject_replace do. Repeating it changes nothing.';

create procedure risk.confirm_replace(account text, new_client_order_id text)
language plpgsql
as $$
begin
  perform risk_private.end_replace(account, new_client_order_id, true);
  commit;
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.confirm_replace(text, text) is
  'The broker has replaced the order: the old id is CANCELLED (replaced), the new one lives on as '
  'ACKNOWLEDGED. '
  'Errors: RK404, RK409.';

create procedure risk.reject_replace(account text, new_client_order_id text)
language plpgsql
as $$
begin
  perform risk_private.end_replace(account, new_client_order_id, false);
  commit;
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.reject_replace(text, text) is
  'The broker has refused the replace: the new id is BROKER_REJECTED, the old order lives on. '
  'Errors: RK404, RK409.';
