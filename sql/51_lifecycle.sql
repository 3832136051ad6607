-- What else happens to an order: sent, acknowledged, released.

-- Lock order: the account.
create function risk_private.ack_order(account text, client_order_id text, broker_order_id text)
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
  v_order risk_private.orders;
begin
  perform risk_private.begin_change();
  if broker_order_id is not null and not risk_private.is_code(broker_order_id) then
    perform risk_private.fail('RK400', 'broker_order_id must be 1 to 64 printable characters',
      'argument: broker_order_id');
  end if;
  perform risk_private.lock_account(v_leaf.scope_id);
  v_order := risk_private.order_of(v_leaf.scope_id, client_order_id);
  if v_order.broker_order_id <> ack_order.broker_order_id then
    perform risk_private.fail('RK409',
      pg_catalog.format('order %L was acknowledged as %L', client_order_id,
      v_order.broker_order_id), 'argument: broker_order_id');
  end if;
  update risk_private.orders as o set
    state = case when o.state in ('ACCEPTED', 'SENT') then 'ACKNOWLEDGED' else o.state end,
    acknowledged_at = coalesce(o.acknowledged_at, risk_private.clock()),
    broker_order_id = coalesce(o.broker_order_id, ack_order.broker_order_id)
  where o.account_id = v_order.account_id and o.client_order_id = v_order.client_order_id;
end
$$;
comment on function risk_private.ack_order(text, text, text) is 'What risk.ack_order does.';

create procedure risk.ack_order(account text, client_order_id text,
  broker_order_id text default null)
language plpgsql
as $$
begin
  perform risk_private.ack_order(account, client_order_id, broker_order_id);
  commit;
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.ack_order(text, text, text) is
  'The broker has acknowledged an order. Repeating it changes nothing. Errors: RK404, RK409 '
  'another broker_order_id.';

-- Lock order: the caller holds the account; then its chain's counters ascending (within settle).
create function risk_private.close_order(o risk_private.orders, new_state text, reason text)
  returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ids text[] := array[o.client_order_id, o.replaced_by, o.replaces];
  v_before risk_private.working_legs[];
  v_at timestamptz := risk_private.clock();
begin
  if o.closed_at is not null then
    return;
  end if;
  v_before := risk_private.reserved(o.account_id, v_ids);
  update risk_private.orders as c set state = new_state, closed_at = v_at,
  close_reason = close_order.reason
  where c.account_id = o.account_id and c.client_order_id = o.client_order_id;
  update risk_private.orders as c set replace_pending = false, replaced_by = null
  where c.replace_pending and c.account_id = o.account_id and c.client_order_id = o.replaces;
  perform risk_private.note_fills(o.account_id, v_ids, v_at);
  perform risk_private.settle(o.account_id, v_before, risk_private.reserved(o.account_id, v_ids),
    '{}');
end
$$;
comment on function risk_private.close_order(risk_private.orders, text, text) is
  'Ends a live order and gives back what is not filled. The other half of a pending replace lives '
  'on.';

create function risk_private.release_order(account text, client_order_id text, reason text)
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
begin
  perform risk_private.begin_change();
  if (reason in ('cancelled', 'expired', 'broker_rejected')) is not true then
    perform risk_private.fail('RK400', pg_catalog.format('unknown reason %L', reason),
      'argument: reason',
      'One of cancelled, expired, broker_rejected.');
  end if;
  perform risk_private.lock_account(v_leaf.scope_id);
  perform risk_private.close_order(
    risk_private.order_of(v_leaf.scope_id, client_order_id), pg_catalog.upper(reason), reason);
end
$$;
comment on function risk_private.release_order(text, text, text) is 'What risk.release_order does.';

create procedure risk.release_order(account text, client_order_id text, reason text)
language plpgsql
as $$
begin
  perform risk_private.release_order(account, client_order_id, reason);
  commit;
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.release_order(text, text, text) is
  'The broker has ended an order: cancelled, expired or broker_rejected. Only what is not filled '
  'is released; repeating it changes nothing. Errors: RK400, RK404.';

create function risk_private.is_reducing_order(o risk_private.orders) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  p risk_private.proposal;
begin
  p.account_id := o.account_id;
  p.instrument_ids := o.instrument_ids;
  p.ratios := o.ratios;
  p.quantity := o.quantity;
  p.price := o.price;
  p.is_combo := o.is_combo;
  p.filled := o.filled;
  p.bases := array(
    select greatest(o.quantity * abs(l.ratio), l.filled)
    from unnest(o.ratios, o.filled) with ordinality as l (ratio, filled, leg) order by l.leg);
  p.old_notionals := pg_catalog.array_fill(0::numeric, array[pg_catalog.cardinality(o.ratios)]);
  return risk_private.is_reducing(o.account_id, risk_private.legs(p, risk_private.clock()),
    o.quantity);
end
$$;
comment on function risk_private.is_reducing_order(risk_private.orders) is
  'Whether what is left of a live order only reduces the position that its account has now.';

-- Lock order: the account, then its chain's counters ascending (within close_order).
create function risk_private.dispatch_order(account text, client_order_id text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_leaf risk_private.scopes := risk_private.scope(account);
  v_order risk_private.orders;
  v_is_halted boolean;
  v_reason text;
begin
  perform risk_private.begin_change();
  perform risk_private.lock_account(v_leaf.scope_id);
  v_order := risk_private.order_of(v_leaf.scope_id, client_order_id);
  if v_order.state <> 'ACCEPTED' then
    return;
  end if;
  select pg_catalog.bool_or(t.state = 'HALTED'), case
    when pg_catalog.bool_or(t.state = 'HALTED' and t.breaker_id = 0) then 'TRADING_HALTED'
    when pg_catalog.bool_or(t.breaker_id <> 0) then 'CIRCUIT_BREAKER_TRIPPED'
    else 'REDUCE_ONLY' end
  into v_is_halted, v_reason
  from risk_private.trading_states as t
  where t.scope_id = any (v_leaf.chain) and t.state <> 'ACTIVE'
    and (t.underlying_id = 0 or t.underlying_id in (
    select i.underlying_id from risk_private.instruments as i
      where i.instrument_id = any (v_order.instrument_ids)));
  if v_is_halted is not null and (
    v_is_halted or not risk_private.is_reducing_order(v_order)) then
    perform risk_private.close_order(v_order, 'CANCELLED', v_reason);
  else
    update risk_private.orders as o set state = 'SENT', sent_at = risk_private.clock()
    where o.account_id = v_order.account_id and o.client_order_id = v_order.client_order_id;
  end if;
end
$$;
comment on function risk_private.dispatch_order(text, text) is
  'What risk.dispatch_order does, saying nothing.';

create function risk_private.dispatch_answer(account text, client_order_id text) returns text[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.flush();
  return (
    select case when o.closed_at is null then array['ACCEPTED', null]
                else array['REJECTED', coalesce(o.close_reason, o.reason, o.state)] end
    from risk_private.scopes as s
    join risk_private.orders as o on o.account_id = s.scope_id
      and o.client_order_id = dispatch_answer.client_order_id
    where s.code = account
      and o.decided_xid is distinct from pg_catalog.pg_current_xact_id_if_assigned());
end
$$;
comment on function risk_private.dispatch_answer(text, text) is
  'Whether an order may go to the broker, and why not; durable once the calling transaction '
  'commits.';

create procedure risk.dispatch_order(
  account text, client_order_id text, inout decision text default null,
  inout reason text default null)
language plpgsql
as $$
declare
  v_answer text[];
begin
  perform risk_private.dispatch_order(account, client_order_id);
  commit;
  v_answer := risk_private.dispatch_answer(account, client_order_id);
  commit;
  decision := v_answer[1];
  reason := v_answer[2];
end
$$;
comment on procedure risk.dispatch_order(text, text, text, text) is
  'The last look just before sending: marks an accepted order SENT, or, where a halt, REDUCE_ONLY '
  'or a circuit breaker forbids it by now, releases it and answers REJECTED with the reason. After '
  'a crash, orders still ACCEPTED were not sent; SENT ones may have been. Errors: RK404.';
