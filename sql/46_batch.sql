-- Many orders in one call.

create type risk_private.batch_item as (
  account text,
  client_order_id text,
  symbol text,
  side text,
  quantity numeric,
  price numeric,
  agent text,
  time_in_force text,
  legs jsonb
);
comment on type risk_private.batch_item is 'One order of a batch, as it was asked for.';

create function risk_private.batch_items(orders jsonb) returns risk_private.batch_item[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_texts constant text[] := array[
    'account', 'client_order_id', 'symbol', 'side', 'agent', 'time_in_force'];
  v_keys constant text[] := v_texts || array['quantity', 'price', 'legs'];
  v_items risk_private.batch_item[];
  v_problem text;
begin
  if pg_catalog.jsonb_typeof(orders) is distinct from 'array'
    or pg_catalog.jsonb_array_length(orders) not between 1 and 10000 then
    perform risk_private.fail('RK400', 'orders must be a JSON array of 1 to 10000 objects',
      'argument: orders');
  end if;
  select pg_catalog.format('item %s: %s', e.position, case
      when pg_catalog.jsonb_typeof(e.value) <> 'object' then 'each order must be an object'
      when e.value ? 'legs' and (e.value ? 'symbol' or e.value ? 'side')
        then 'an order has either legs or symbol and side'
      when e.value - v_keys <> '{}' then 'unknown key'
      else 'account, client_order_id, symbol, side, agent and time_in_force must be text' end)
  into v_problem
  from pg_catalog.jsonb_array_elements(orders) with ordinality as e (value, position)
  where pg_catalog.jsonb_typeof(e.value) <> 'object'
    or e.value - v_keys <> '{}'
    or (e.value ? 'legs' and (e.value ? 'symbol' or e.value ? 'side'))
    or exists (
      select from pg_catalog.unnest(v_texts) as k
      where pg_catalog.jsonb_typeof(e.value -> k) not in ('string', 'null'))
  limit 1;
  if v_problem is not null then
    perform risk_private.fail('RK400', v_problem, 'argument: orders');
  end if;
  begin
    select pg_catalog.array_agg(i) into v_items
    from pg_catalog.jsonb_populate_recordset(
      row(null, null, null, null, null, null, null, 'DAY', null)::risk_private.batch_item,
        orders) as i;
  exception when data_exception then
    perform risk_private.fail('RK400', 'an order holds a value of the wrong kind: ' || sqlerrm,
      'argument: orders');
  end;
  if (select count(distinct (i.account, i.client_order_id)) from pg_catalog.unnest(v_items) as i)
    < pg_catalog.cardinality(v_items) then
    perform risk_private.fail('RK400', 'a client_order_id stands twice in the batch',
      'argument: orders');
  end if;
  return v_items;
end
$$;
comment on function risk_private.batch_items(jsonb) is
  'Reads a batch; RK400 where it makes no sense.';

create function risk_private.accept_batch(items risk_private.batch_item[]) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
  if exists (select from pg_catalog.unnest(items) as i where i.legs is not null) then
    return false;
  end if;
  return risk_private.accept(
    array(select distinct i.account from pg_catalog.unnest(items) as i),
    array(
      select row(i.item, i.account, i.client_order_id, i.symbol, i.side, i.quantity, i.price,
        i.agent,
                 i.time_in_force)::risk_private.request
      from pg_catalog.unnest(items) with ordinality as i (
        account, client_order_id, symbol, side, quantity, price, agent, time_in_force, legs,
        item)));
end
$$;
comment on function risk_private.accept_batch(risk_private.batch_item[]) is
  'Accepts a whole batch of single orders where all are plain; answers as risk_private.accept '
  'does.';

-- Lock order: all accounts ascending, then (in decide) the counters of all chains ascending.
create function risk_private.decide_batch(items risk_private.batch_item[]) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_proposals risk_private.proposal[] := '{}';
  v_item risk_private.batch_item;
  v_legs risk_private.combo_legs;
  v_known risk_private.orders;
  p risk_private.proposal;
begin
  perform risk_private.begin_change();
  foreach v_item in array items loop
    v_legs := case
      when v_item.legs is not null then risk_private.combo_legs(v_item.legs)
      else row(array[v_item.symbol], array[v_item.side], array[1::numeric])::risk_private.combo_legs
    end;
    p := risk_private.propose(
      risk_private.account_of(v_item.account), v_item.client_order_id, v_legs.symbols, v_legs.sides,
      v_legs.ratios,
      v_item.quantity, v_item.price,
      v_item.agent, v_item.time_in_force, v_item.legs is not null);
    v_proposals := v_proposals || p;
  end loop;
  perform from risk_private.counters as c
  where c.counter_id = any (array(
    select risk_private.counter_id(u.account_id) from pg_catalog.unnest(v_proposals) as u))
  order by c.counter_id
  for no key update;
  for i in 1 .. pg_catalog.cardinality(items) loop
    select o.* into v_known from risk_private.orders as o
    where o.account_id = (v_proposals[i]).account_id
      and o.client_order_id = (v_proposals[i]).client_order_id;
    if found and not risk_private.is_item(v_known, items[i]) then
      perform risk_private.refuse_other_content(v_known.client_order_id);
    end if;
  end loop;
  perform risk_private.decide(v_proposals);
end
$$;
comment on function risk_private.decide_batch(risk_private.batch_item[]) is
  'Decides the orders of a batch in their order, each on its own, saying nothing. An item that '
  'makes no sense fails all.';

create function risk_private.is_item(o risk_private.orders, item risk_private.batch_item)
  returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_legs risk_private.combo_legs;
begin
  if item.legs is not null then
    v_legs := risk_private.combo_legs(item.legs);
    return risk_private.is_same_order(
      o, v_legs.symbols, v_legs.sides, v_legs.ratios, item.quantity, item.price, item.agent,
      item.time_in_force, true);
  end if;
  return risk_private.is_same_order(
    o, array[item.symbol], array[item.side], array[1::numeric], item.quantity, item.price,
    item.agent, item.time_in_force,
    false);
end
$$;
comment on function risk_private.is_item(risk_private.orders, risk_private.batch_item) is
  'Whether a stored order has the content of a batch item.';

create function risk_private.answers(items risk_private.batch_item[]) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  v_answers jsonb;
  v_found integer;
  v_other text;
begin
  select
    count(*), min(o.client_order_id) filter (where risk_private.is_item(o,
      items[i.item]) is not true),
    pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'account', i.account, 'client_order_id', o.client_order_id,
      'order_id', risk_private.order_id(i.account, o.client_order_id), 'decision', o.decision,
      'reason', o.reason,
      'allowed_quantity', o.allowed_quantity::text,
      'detail', coalesce(o.detail, '{"violations": [], "warnings": []}')) order by i.item)
  into v_found, v_other, v_answers
  from pg_catalog.unnest(items) with ordinality as i (
    account, client_order_id, symbol, side, quantity, price, agent, time_in_force, legs, item)
  join risk_private.scopes as s on s.code = i.account
  join risk_private.orders as o on o.account_id = s.scope_id
    and o.client_order_id = i.client_order_id
  where o.decided_xid is distinct from pg_catalog.pg_current_xact_id_if_assigned()
    and risk_private.may_trade(s.chain);
  if v_found < pg_catalog.cardinality(items) then
    return null;
  end if;
  if v_other is not null then
    perform risk_private.refuse_other_content(v_other);
  end if;
  perform risk_private.flush();
  return v_answers;
end
$$;
comment on function risk_private.answers(risk_private.batch_item[]) is
  'The stored decisions of a batch, in its order; NULL unless all were committed before this '
  'transaction.';

create function risk_private.accepted_batch(items risk_private.batch_item[], decided_xid xid8)
returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
  v_found integer;
  v_answers jsonb;
begin
  select count(*), jsonb_agg(jsonb_build_object(
    'account', i.account, 'client_order_id', i.client_order_id,
    'order_id', risk_private.order_id(i.account, i.client_order_id), 'decision', 'ACCEPTED',
    'reason', null, 'allowed_quantity', o.allowed_quantity::text,
    'detail', '{"violations": [], "warnings": []}'::jsonb) order by i.item)
  into v_found, v_answers
  from unnest(items) with ordinality as i (
    account, client_order_id, symbol, side, quantity, price, agent, time_in_force, legs, item)
  join risk_private.scopes as s on s.code = i.account
  join risk_private.orders as o on o.account_id = s.scope_id
    and o.client_order_id = i.client_order_id
  where o.decided_xid = accepted_batch.decided_xid
    and o.decided_xid is distinct from pg_current_xact_id_if_assigned()
    and o.decided_by = session_user and o.decision = 'ACCEPTED' and o.detail is null;
  if v_found < cardinality(items) then
    return null;
  end if;
  perform risk_private.flush();
  return v_answers;
end
$$;
comment on function risk_private.accepted_batch(risk_private.batch_item[], xid8) is
  'The answers to a batch that the caller''s transaction of that number, committed since, accepted '
  'without explanation, in its order; else NULL. Durable once the transaction that calls this '
  'commits.';

create procedure risk.check_orders(orders jsonb, inout decisions jsonb default null)
language plpgsql
as $$
declare
  v_items risk_private.batch_item[] := risk_private.batch_items(orders);
  v_xid xid8;
begin
  if risk_private.accept_batch(v_items) then
    rollback;
  else
    v_xid := pg_catalog.pg_current_xact_id_if_assigned();
    commit;
  end if;
  decisions := risk_private.accepted_batch(v_items, v_xid);
  if decisions is not null then
    commit;
    return;
  end if;
  decisions := risk_private.answers(v_items);
  if decisions is null then
    perform risk_private.decide_batch(v_items);
    commit;
    decisions := risk_private.answers(v_items);
  end if;
  commit;
end
$$;
comment on procedure risk.check_orders(jsonb, jsonb) is
  'Decides up to 10,000 orders in one call: a JSON array of objects with the arguments of '
  'risk.check_order or (with legs) risk.check_combo. Answers in the same order, each decided on '
  'its own; one that makes no sense fails the whole batch, which then leaves nothing behind. '
  'Quantities are strings in the answer. Errors: RK400, RK403, RK404, RK409.';
