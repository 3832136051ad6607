-- Answers: what a stored decision says to whoever asks with the same content.

create type risk_private.decision as (
  order_id uuid,
  decision text,
  reason text,
  allowed_quantity numeric,
  detail jsonb
);
comment on type risk_private.decision is 'The stored answer to an order.';

create function risk_private.is_same_order(
  o risk_private.orders, symbols text[], sides text[], ratios numeric[], quantity numeric,
  price numeric, agent text,
  time_in_force text, is_combo boolean)
returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return o.replaces is null and o.quantity = is_same_order.quantity and o.price is not distinct
    from is_same_order.price
    and o.agent is not distinct from is_same_order.agent
      and o.time_in_force = is_same_order.time_in_force
    and o.is_combo = is_same_order.is_combo
      and pg_catalog.cardinality(o.ratios) = pg_catalog.cardinality(symbols)
    and not exists (
      select from unnest(symbols, sides, ratios) as t (symbol, side, ratio)
      where not exists (
        select from risk_private.instruments as i
        where i.symbol = t.symbol
          and o.ratios[pg_catalog.array_position(o.instrument_ids, i.instrument_id)]
          = case t.side when 'buy' then t.ratio when 'sell' then -t.ratio end));
end
$$;
comment on function risk_private.is_same_order(
  risk_private.orders, text[], text[], numeric[], numeric, numeric, text, text, boolean) is
  'Whether a stored order has this content; the order of legs does not matter.';

create function risk_private.stored_order(account text, client_order_id text)
  returns risk_private.orders
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  v_order risk_private.orders;
begin
  select o.* into v_order
  from risk_private.scopes as s
  join risk_private.orders as o on o.account_id = s.scope_id
    and o.client_order_id = stored_order.client_order_id
  where s.code = account
    and o.decided_xid is distinct from pg_catalog.pg_current_xact_id_if_assigned()
    and risk_private.may_trade(s.chain);
  return v_order;
end
$$;
comment on function risk_private.stored_order(text, text) is
  'The order of that id, if it was decided in a transaction other than this one and the caller may '
  'trade its account.';

create function risk_private.answer_of(account text, o risk_private.orders)
  returns risk_private.decision
language sql immutable
return row(
  risk_private.order_id(account, o.client_order_id), o.decision, o.reason, o.allowed_quantity,
  coalesce(o.detail, '{"violations": [], "warnings": []}'::jsonb))::risk_private.decision;
comment on function risk_private.answer_of(text, risk_private.orders) is
  'The answer that a stored order gives.';

create function risk_private.refuse_other_content(client_order_id text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.fail('RK409',
    pg_catalog.format('client_order_id %L was used for another order', client_order_id),
    'argument: client_order_id', 'Ask again with the same content, or use a new id.');
end
$$;
comment on function risk_private.refuse_other_content(text) is
  'Raises RK409: an id names one order for ever.';

create function risk_private.answer(
  account text, client_order_id text, symbols text[], sides text[], ratios numeric[],
  quantity numeric, price numeric,
  agent text, time_in_force text, is_combo boolean)
returns risk_private.decision
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_order risk_private.orders := risk_private.stored_order(account, client_order_id);
begin
  if v_order.decision is null then
    return null;
  end if;
  if risk_private.is_same_order(
    v_order, symbols, sides, ratios, quantity, price, agent, time_in_force,
    is_combo) is not true then
    perform risk_private.refuse_other_content(client_order_id);
  end if;
  perform risk_private.flush();
  return risk_private.answer_of(account, v_order);
end
$$;
comment on function risk_private.answer(
  text, text, text[], text[], numeric[], numeric, numeric, text, text, boolean) is
  'The stored decision, durable once the transaction that calls this commits; NULL where none was '
  'committed before this transaction or the caller may not trade the account. Errors: RK409 same '
  'id with other content.';
