-- Stopping: trading states, instrument statuses and cancel requests. A halt is in force when its
-- own short transaction has committed; only then are cancels requested, so that it never waits for
-- a lock that a trader holds.

create function risk_private.require_reason(reason text) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if (reason ~ '\S' and pg_catalog.length(reason) <= 1000) is not true then
    perform risk_private.fail('RK400', 'a reason of 1 to 1000 characters is required',
      'argument: reason', 'Say why: it is kept and shown to whoever is affected.');
  end if;
end
$$;
comment on function risk_private.require_reason(text) is
  'Raises RK400 for a reason that says nothing.';

create function risk_private.underlying_id(underlying text) returns integer
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id integer;
begin
  if underlying is null then
    return 0;
  end if;
  v_id := risk_private.instrument_id(underlying);
  if not exists (select from risk_private.instruments as i where i.underlying_id = v_id) then
    perform risk_private.fail('RK400', pg_catalog.format('%L is not an underlying', underlying),
      'argument: underlying',
      pg_catalog.format('Its own underlying is %L.', (
        select u.symbol from risk_private.instruments as i
        join risk_private.instruments as u on u.instrument_id = i.underlying_id
        where i.instrument_id = v_id)));
  end if;
  return v_id;
end
$$;
comment on function risk_private.underlying_id(text) is
  'The instrument of that symbol, 0 for NULL (all). RK404 where there is none, RK400 where '
  'nothing has it as its underlying: a state set on it would stop nothing.';

create function risk_private.set_trading_state(
  scope text, state text, reason text, underlying text, cancel_open boolean)
returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.begin_change();
  if (state in ('ACTIVE', 'REDUCE_ONLY', 'HALTED')) is not true then
    perform risk_private.fail('RK400', pg_catalog.format('unknown trading state %L', state),
      'argument: state',
      'One of ACTIVE, REDUCE_ONLY, HALTED.');
  end if;
  if cancel_open is null then
    perform risk_private.fail('RK400', 'cancel_open must be true or false',
      'argument: cancel_open');
  end if;
  perform risk_private.require_reason(reason);
  insert into risk_private.trading_states as t (
    scope_id, underlying_id, state, cancels, reason, changed_by, since)
  values (
    (risk_private.scope(set_trading_state.scope)).scope_id, risk_private.underlying_id(underlying),
    set_trading_state.state, state = 'HALTED' and cancel_open, set_trading_state.reason,
    session_user, risk_private.clock())
  on conflict on constraint trading_states_pkey do update set
    state = excluded.state, cancels = excluded.cancels, reason = excluded.reason,
    changed_by = excluded.changed_by, since = excluded.since;
  perform risk_private.event('state', pg_catalog.jsonb_build_object('scope', scope));
  return state = 'HALTED' and cancel_open;
end
$$;
comment on function risk_private.set_trading_state(text, text, text, text, boolean) is
  'Sets the state of a scope. Returns whether its open orders are to be cancelled.';

create procedure risk.set_trading_state(
  scope text, state text, reason text, underlying text default null,
  cancel_open boolean default true)
language plpgsql
as $$
declare
  v_cancels boolean;
begin
  v_cancels := risk_private.set_trading_state(scope, state, reason, underlying, cancel_open);
  commit;
  if v_cancels then
    call risk_private.cancel_orders(scope, reason, underlying, null, false);
  end if;
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.set_trading_state(text, text, text, text, boolean) is
  'Sets the trading state of a scope and everything below it, for one underlying or (NULL) for '
  'all: ACTIVE, REDUCE_ONLY (only reducing orders pass) or HALTED (no new order or replace '
  'passes). In force for every decision that begins after its first commit, whoever holds which '
  'lock. HALTED also requests the cancel of every open order there that has not been asked for '
  'yet, unless cancel_open is false; orders that were being accepted while the halt came into '
  'force are among them. ACTIVE clears what was set on this scope, not what is set above it, and '
  'never a circuit breaker. '
  'After an error or time-out call it again. Errors: RK400, RK404.';

create function risk_private.may_cancel(chain integer[]) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return risk_private.may_trade(chain)
    or pg_catalog.pg_has_role(risk_private.caller(), 'risk_admin', 'member');
end
$$;
comment on function risk_private.may_cancel(integer[]) is
  'Whether the caller may cancel orders of the scope of that chain.';

-- Every account, not only those with open orders at this moment: an order that is being accepted
-- holds its account's lock from before it read the trading state, so whoever has had that lock
-- since knows all that slipped through.
create function risk_private.accounts_to_cancel(
  scope text, reason text, underlying text, agent text)
returns integer[]
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_scope risk_private.scopes := risk_private.scope(scope);
begin
  perform risk_private.require_reason(reason);
  perform risk_private.underlying_id(underlying);
  if agent is not null and not risk_private.is_code(agent) then
    perform risk_private.fail('RK400', 'agent must be 1 to 64 printable characters',
      'argument: agent');
  end if;
  if risk_private.may_cancel(v_scope.chain) is not true then
    perform risk_private.fail('RK403',
      pg_catalog.format('%s may not cancel orders of %L', risk_private.caller(), scope),
      'argument: scope', 'A trading grant on the scope, or membership in risk_admin, allows it.');
  end if;
  return array(
    select s.scope_id from risk_private.scopes as s
    where s.is_leaf and s.chain @> array[v_scope.scope_id]
    order by s.scope_id);
end
$$;
comment on function risk_private.accounts_to_cancel(text, text, text, text) is
  'The accounts of a scope, ascending, having checked the arguments of a cancel. Errors: RK400, '
  'RK403, RK404.';

create function risk_private.lock_account_within(account_id integer, wait text) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_catalog.set_config('lock_timeout', wait, true);
  perform risk_private.lock_account(account_id);
  return true;
exception when lock_not_available then
  return false;
end
$$;
comment on function risk_private.lock_account_within(integer, text) is
  'Takes an account''s lock; false where somebody else keeps it for longer than that.';

-- The caller holds the account's lock.
create function risk_private.ask_cancels(
  account_id integer, reason text, underlying_id integer, agent text, again boolean)
returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_account text := (
    select s.code from risk_private.scopes as s where s.scope_id = ask_cancels.account_id);
  v_at timestamptz := risk_private.clock();
  v_payloads jsonb[];
begin
  with asked as (
    update risk_private.orders as o set cancel_requested_at = coalesce(o.cancel_requested_at, v_at)
    where o.account_id = ask_cancels.account_id and o.closed_at is null
      and (ask_cancels.again or o.cancel_requested_at is null)
      and (ask_cancels.agent is null or o.agent = ask_cancels.agent)
      and (ask_cancels.underlying_id = 0 or exists (
        select from risk_private.instruments as i
        where i.instrument_id = any (o.instrument_ids)
          and i.underlying_id = ask_cancels.underlying_id))
    returning o.client_order_id, o.decided_at
  )
  select pg_catalog.array_agg(
    pg_catalog.jsonb_build_object(
      'account', v_account, 'client_order_id', a.client_order_id,
      'order_id', risk_private.order_id(v_account, a.client_order_id),
      'reason', ask_cancels.reason)
    order by a.decided_at, a.client_order_id) into v_payloads
  from asked as a;
  perform risk_private.alerts('cancel_request', v_payloads);
  return coalesce(pg_catalog.cardinality(v_payloads), 0);
end
$$;
comment on function risk_private.ask_cancels(integer, text, integer, text, boolean) is
  'Requests the cancel of an account''s open orders, of one underlying or (0) all, of one agent or '
  'all: those not asked for yet or, again, all. Returns how many.';

-- Lock order: the account, then its orders.
create function risk_private.request_cancels(
  account_id integer, reason text, underlying text, agent text, again boolean, patiently boolean)
returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_underlying_id integer := risk_private.underlying_id(underlying);
begin
  perform risk_private.begin_change();
  perform risk_private.require_reason(reason);
  if risk_private.may_cancel((
    select s.chain from risk_private.scopes as s
    where s.scope_id = request_cancels.account_id)) is not true then
    perform risk_private.fail('RK403',
      pg_catalog.format('%s may not cancel orders here', risk_private.caller()),
      'argument: account_id');
  end if;
  if patiently then
    perform risk_private.lock_account(account_id);
  elsif not risk_private.lock_account_within(account_id, '100ms') then
    return false;
  end if;
  perform risk_private.ask_cancels(account_id, reason, v_underlying_id, agent, again);
  return true;
end
$$;
comment on function risk_private.request_cancels(integer, text, text, text, boolean, boolean) is
  'Requests the cancel of an account''s open orders: those not asked for yet or, again, all. '
  'Impatiently it gives up after a moment and returns false where somebody holds the account''s '
  'lock.';

-- A session that sits on one account's lock must not keep all other accounts from being asked: it
-- is waited for last.
create procedure risk_private.cancel_orders(
  scope text, reason text, underlying text, agent text, again boolean)
language plpgsql
as $$
declare
  v_account_id integer;
  v_busy integer[];
begin
  foreach v_account_id in array
    risk_private.accounts_to_cancel(scope, reason, underlying, agent) loop
    if not risk_private.request_cancels(v_account_id, reason, underlying, agent, again, false) then
      v_busy := pg_catalog.array_append(v_busy, v_account_id);
    end if;
    commit;
  end loop;
  foreach v_account_id in array coalesce(v_busy, array[]::integer[]) loop
    perform risk_private.request_cancels(v_account_id, reason, underlying, agent, again, true);
    commit;
  end loop;
end
$$;
comment on procedure risk_private.cancel_orders(text, text, text, text, boolean) is
  'Requests cancels account by account, each in its own short transaction.';

create procedure risk.cancel_orders(
  scope text, reason text, underlying text default null, agent text default null)
language plpgsql
as $$
begin
  call risk_private.cancel_orders(scope, reason, underlying, agent, true);
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.cancel_orders(text, text, text, text) is
  'Requests the cancel of every open order of a scope and everything below it, of one underlying '
  '(in any leg) or all, of one agent or all: one message on risk_alerts per order, {"kind": '
  '"cancel_request", "account", "client_order_id", "order_id", "reason"}, and for both ids while '
  'a replace is pending, as only the broker knows which of them works. A request is not a cancel: '
  'the order counts until it is released. Called again it asks again for what is still open, in '
  'case a message was lost; cancel_requested_at stays that of the first request. For whoever may '
  'trade the scope, and admins. Errors: RK400, RK403, RK404.';

create function risk_private.set_instrument_status(symbol text, status text, reason text)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if (status in ('ACTIVE', 'RESTRICTED', 'NO_NEW_SHORTS', 'BLOCKED')) is not true then
    perform risk_private.fail('RK400', pg_catalog.format('unknown instrument status %L', status),
      'argument: status',
      'One of ACTIVE, RESTRICTED, NO_NEW_SHORTS, BLOCKED.');
  end if;
  perform risk_private.require_reason(reason);
  update risk_private.instruments as i
  set status = set_instrument_status.status, status_reason = set_instrument_status.reason
  where i.instrument_id = risk_private.instrument_id(set_instrument_status.symbol);
  perform risk_private.flush();
end
$$;
comment on function risk_private.set_instrument_status(text, text, text) is
  'What risk.set_instrument_status does.';

create procedure risk.set_instrument_status(symbol text, status text, reason text)
language plpgsql
as $$
begin
  perform risk_private.set_instrument_status(symbol, status, reason);
  commit;
end
$$;
comment on procedure risk.set_instrument_status(text, text, text) is
  'Sets what may be done in an instrument: ACTIVE, RESTRICTED (only reducing orders), '
  'NO_NEW_SHORTS (no sell that makes or enlarges a short) or BLOCKED (no order). Open orders '
  'stay. Errors: RK400, RK404.';
