-- What brokers take back or put right.

create function risk_private.fill_to_amend(account_id integer, exec_id text)
returns risk_private.fills
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fill risk_private.fills;
begin
  select f.* into v_fill from risk_private.fills as f
  where f.account_id = fill_to_amend.account_id and f.exec_id = fill_to_amend.exec_id;
  if v_fill.exec_id is null then
    perform risk_private.fail('RK404', pg_catalog.format('unknown execution %L', exec_id),
      'argument: exec_id');
  end if;
  if v_fill.adjustment_id is not null then
    perform risk_private.fail('RK409',
      pg_catalog.format('%L is the adjustment of a split, no execution', exec_id),
      'argument: exec_id', 'Correct the executions before it: the split then follows.');
  end if;
  return v_fill;
end
$$;
comment on function risk_private.fill_to_amend(integer, text) is
  'The execution of that id. Errors: RK404, RK409 no execution.';

create function risk_private.alert_amended(account text, fill risk_private.fills, reason text)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.alert(
    case fill.status when 'BUSTED' then 'fill_busted' else 'fill_corrected' end,
    pg_catalog.jsonb_build_object(
      'account', account, 'exec_id', fill.exec_id, 'client_order_id', fill.client_order_id,
      'quantity', abs(fill.signed_quantity)::text, 'price', fill.price::text, 'reason', reason,
      'severity', 'warning'));
end
$$;
comment on function risk_private.alert_amended(text, risk_private.fills, text) is
  'Tells agents and the gateway that an execution is not what it was.';

-- Lock order: the account; its chain's counters ascending; their equities.
create function risk_private.bust_fill(account text, exec_id text, reason text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_leaf risk_private.scopes := risk_private.scope(account);
  v_old risk_private.fills;
  v_new risk_private.fills;
begin
  perform risk_private.begin_change();
  perform risk_private.require_reason(reason);
  perform risk_private.lock_account(v_leaf.scope_id);
  v_old := risk_private.fill_to_amend(v_leaf.scope_id, exec_id);
  if v_old.status = 'BUSTED' then
    return;
  end if;
  v_new := v_old;
  v_new.signed_quantity := 0;
  v_new.fee := 0;
  v_new.status := 'BUSTED';
  perform risk_private.replace_fill(v_old, v_new, reason);
  perform risk_private.alert_amended(account, v_new, reason);
end
$$;
comment on function risk_private.bust_fill(text, text, text) is 'What risk.bust_fill does.';

create procedure risk.bust_fill(account text, exec_id text, reason text)
language plpgsql
as $$
begin
  perform risk_private.bust_fill(account, exec_id, reason);
  commit;
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.bust_fill(text, text, text) is
  'The broker has cancelled an execution: position, cash, fee, average cost, profit, counters and '
  'the filled quantity of its order are put as if it had never been; what it had led to is '
  'reckoned anew. A live order has the quantity to fill again; one that it had filled stays '
  'closed, CANCELLED. It stays in risk.fills with quantity 0; risk.fill_corrections keeps what it '
  'was. Alerted; repeating it changes nothing. Errors: RK400, RK404, RK409 no execution.';

-- Lock order: the account; its chain's counters ascending; their equities.
create function risk_private.correct_fill(
  account text, exec_id text, quantity numeric, price numeric, reason text)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_leaf risk_private.scopes := risk_private.scope(account);
  v_old risk_private.fills;
  v_new risk_private.fills;
begin
  perform risk_private.begin_change();
  perform risk_private.validate_execution(exec_id, quantity, price, 0, null);
  perform risk_private.require_reason(reason);
  perform risk_private.lock_account(v_leaf.scope_id);
  v_old := risk_private.fill_to_amend(v_leaf.scope_id, exec_id);
  if v_old.status = 'BUSTED' then
    perform risk_private.fail('RK409', pg_catalog.format('execution %L was busted', exec_id),
      'argument: exec_id', 'Book what replaces it under an id of its own.');
  end if;
  v_new := v_old;
  v_new.signed_quantity := pg_catalog.sign(v_old.signed_quantity) * quantity;
  v_new.price := price;
  v_new.unit_amount := price * v_old.multiplier;
  v_new.unit_price := abs(v_new.unit_amount) * case when v_old.rate = 0 then 1 else v_old.rate end;
  v_new.status := 'CORRECTED';
  if v_new.signed_quantity = v_old.signed_quantity and v_new.price = v_old.price then
    return;
  end if;
  perform risk_private.replace_fill(v_old, v_new, reason);
  perform risk_private.alert_amended(account, v_new, reason);
end
$$;
comment on function risk_private.correct_fill(text, text, numeric, numeric, text) is
  'What risk.correct_fill does.';

create procedure risk.correct_fill(account text, exec_id text, quantity numeric, price numeric,
  reason text)
language plpgsql
as $$
begin
  perform risk_private.correct_fill(account, exec_id, quantity, price, reason);
  commit;
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.correct_fill(text, text, numeric, numeric, text) is
  'The broker has corrected an execution to another quantity or price; its fee stays. Everything '
  'follows as in risk.bust_fill, and what it was is kept in risk.fill_corrections. Alerted; '
  'repeating it changes nothing. Errors: RK400, RK404, RK409 busted, or no execution.';
