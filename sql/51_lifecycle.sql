-- What else happens to an order: sent, acknowledged, released; and the roll of the trading day.

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
  where o.replace_pending and o.replaces is not null and c.account_id = o.account_id
    and c.client_order_id = o.replaces;
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
begin
  perform risk_private.begin_change();
  perform risk_private.lock_account(v_leaf.scope_id);
  v_order := risk_private.order_of(v_leaf.scope_id, client_order_id);
  if v_order.state <> 'ACCEPTED' then
    return;
  end if;
  select pg_catalog.bool_or(t.state = 'HALTED') into v_is_halted
  from risk_private.trading_states as t
  where t.scope_id = any (v_leaf.chain) and t.state <> 'ACTIVE'
    and (t.underlying_id = 0 or t.underlying_id in (
    select i.underlying_id from risk_private.instruments as i
      where i.instrument_id = any (v_order.instrument_ids)));
  if v_is_halted then
    perform risk_private.close_order(v_order, 'CANCELLED', 'TRADING_HALTED');
  elsif not v_is_halted and not risk_private.is_reducing_order(v_order) then
    perform risk_private.close_order(v_order, 'CANCELLED', 'REDUCE_ONLY');
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
    where s.code = account and o.decided_xid <> pg_catalog.pg_current_xact_id());
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
  'The last look just before sending: marks an accepted order SENT, or, where a halt or '
  'REDUCE_ONLY forbids it by now, releases it and answers REJECTED with the reason. After a crash, '
  'orders still ACCEPTED were not sent; SENT ones may have been. Errors: RK404.';

-- Lock order: the account, then its chain's counters ascending (within close_order and move).
create function risk_private.roll_account(account_id integer, day date) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_order risk_private.orders;
  v_movements risk_private.movement[];
begin
  perform risk_private.begin_change();
  perform risk_private.lock_account(account_id);
  -- Somebody else may have rolled it since the list of accounts was made.
  if exists (
    select from risk_private.scopes as s
    where s.scope_id = roll_account.account_id and s.trading_day >= day) then
    return;
  end if;
  for v_order in
    select o.* from risk_private.orders as o
    where o.account_id = roll_account.account_id and o.closed_at is null and o.time_in_force = 'DAY'
    order by o.decided_at desc, o.client_order_id
  loop
    perform risk_private.close_order(v_order, 'EXPIRED', 'expired');
  end loop;
  v_movements := array(
    select risk_private.movement(
      f.account_id, f.instrument_id, traded_notional => -sum(abs(f.signed_quantity) * f.unit_price))
    from risk_private.fills as f
    join risk_private.scopes as s on s.scope_id = f.account_id
    where f.account_id = roll_account.account_id and f.trading_day is not distinct
      from s.trading_day
    group by f.account_id, f.instrument_id);
  if pg_catalog.cardinality(v_movements) > 0 then
    perform risk_private.move(v_movements, false);
  end if;
  update risk_private.positions as p set realized_pnl_today = 0
  where p.account_id = roll_account.account_id and p.realized_pnl_today <> 0;
  update risk_private.scopes as s set trading_day = day where s.scope_id = roll_account.account_id;
end
$$;
comment on function risk_private.roll_account(integer, date) is
  'Takes an account into a new trading day: day orders expire, traded notional is what stays open, '
  'today''s P&L starts at 0.';

create function risk_private.set_trading_date(day date, equities jsonb) returns integer[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_today date;
begin
  if day is null or day in ('infinity', '-infinity') then
    perform risk_private.fail('RK400', 'day must be a date', 'argument: day');
  end if;
  select c.trading_date into v_today from risk_private.trading_calendar as c for update;
  if day < v_today then
    perform risk_private.fail('RK400',
      pg_catalog.format('the trading date is %s already: it moves forward only', v_today),
      'argument: day');
  end if;
  perform risk_private.set_start_equities(day, equities);
  update risk_private.trading_calendar as c set
    trading_date = day, opened_at = risk_private.clock(), opened_by = session_user;
  return array(
    select s.scope_id from risk_private.scopes as s
    where s.is_leaf and s.trading_day is distinct from day order by s.scope_id);
end
$$;
comment on function risk_private.set_trading_date(date, jsonb) is
  'Moves the trading date and returns the accounts that have to follow.';

create function risk_private.set_start_equities(day date, equities jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if equities is null then
    return;
  end if;
  if pg_catalog.jsonb_typeof(equities) <> 'object' or exists (
    select from pg_catalog.jsonb_each_text(equities) as e
    where (e.value ~ '^-?[0-9]{1,15}(\.[0-9]{1,8})?$') is not true) then
    perform risk_private.fail('RK400', 'equities must be a JSON object of account to amount',
      'argument: equities');
  end if;
  perform risk_private.scope(k) from pg_catalog.jsonb_object_keys(equities) as k;
  insert into risk_private.start_equities as q (account_id, day, equity)
  select s.scope_id, set_start_equities.day, e.value::numeric
  from pg_catalog.jsonb_each_text(equities) as e
  join risk_private.scopes as s on s.code = e.key
  on conflict on constraint start_equities_pkey do update set equity = excluded.equity;
end
$$;
comment on function risk_private.set_start_equities(date, jsonb) is
  'Stores the equity that accounts start the day with.';

create procedure risk.open_day(day date, equities jsonb default null)
language plpgsql
as $$
declare
  v_account_id integer;
begin
  foreach v_account_id in array risk_private.set_trading_date(day, equities) loop
    commit;
    perform risk_private.roll_account(v_account_id, day);
  end loop;
  commit;
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.open_day(date, jsonb) is
  'Rolls the trading day, forward only: day orders expire, traded notional and today''s P&L start '
  'again, account by account. equities: start-of-day equity per account, {"A1": "250000"}. '
  'Repeating a day resumes a roll that was interrupted. Errors: RK400, RK404 unknown account.';
