-- One order in one call, or one combo: accepted where that is plain, else decided with everything
-- spelled out, and answered once that is durable.

-- Lock order: the account, then its chain's counters ascending.
create function risk_private.decide_order(
  account text, client_order_id text, symbols text[], sides text[], ratios numeric[],
  quantity numeric, price numeric,
  agent text, time_in_force text, is_combo boolean)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  p risk_private.proposal;
begin
  perform risk_private.begin_change();
  p := risk_private.propose(
    risk_private.account_of(account), client_order_id, symbols, sides, ratios, quantity, price,
    agent, time_in_force,
    is_combo);
  perform risk_private.lock_account(p.account_id);
  if not risk_private.is_known(p) then
    perform risk_private.decide(array[p]);
  end if;
end
$$;
comment on function risk_private.decide_order(
  text, text, text[], text[], numeric[], numeric, numeric, text, text, boolean) is
  'Decides one order and stores the decision, saying nothing: answer() tells it once it is '
  'committed.';

create procedure risk.check_order(
  account text, client_order_id text, symbol text, side text, quantity numeric,
  price numeric default null,
  agent text default null, time_in_force text default 'DAY',
  inout order_id uuid default null, inout decision text default null,
  inout reason text default null,
  inout allowed_quantity numeric default null, inout detail jsonb default null)
language plpgsql
as $$
declare
  v_account_id integer;
  v_xid xid8;
  v_answer risk_private.decision;
begin
  v_account_id := risk_private.accept_order(
    account, client_order_id, symbol, side, quantity, price, agent, time_in_force, true);
  if pg_catalog.int4eq(v_account_id, 0) then
    rollback;
    v_account_id := risk_private.accept_order(
      account, client_order_id, symbol, side, quantity, price, agent, time_in_force, false);
  end if;
  if v_account_id is null then
    rollback;
  else
    v_xid := pg_catalog.pg_current_xact_id_if_assigned();
    commit;
  end if;
  if risk_private.accepted(v_account_id, client_order_id, v_xid) then
    -- From PostgreSQL 17 on it is durable by now, and there is nothing to commit.
    if pg_catalog.pg_current_xact_id_if_assigned() is not null then
      commit;
    end if;
    order_id := risk_private.order_id(account, client_order_id);
    decision := 'ACCEPTED';
    reason := null;
    allowed_quantity := quantity;
    detail := pg_catalog.jsonb '{"violations": [], "warnings": []}';
    return;
  end if;
  v_answer := risk_private.answer(account, client_order_id, array[symbol], array[side],
    array[1::numeric], quantity, price,
                                  agent, time_in_force, false);
  if v_answer.decision is null then
    perform risk_private.decide_order(account, client_order_id, array[symbol], array[side],
      array[1::numeric], quantity,
                                      price, agent, time_in_force, false);
    commit;
    v_answer := risk_private.answer(account, client_order_id, array[symbol], array[side],
      array[1::numeric], quantity,
                                    price, agent, time_in_force, false);
  end if;
  commit;
  order_id := v_answer.order_id;
  decision := v_answer.decision;
  reason := v_answer.reason;
  allowed_quantity := v_answer.allowed_quantity;
  detail := v_answer.detail;
end
$$;
comment on procedure risk.check_order(
  text, text, text, text, numeric, numeric, text, text, uuid, text, text, numeric, jsonb) is
  'Decides an order, reserves what it may use, and records it, in one durable step. side: buy or '
  'sell; price NULL: a market order; time_in_force: DAY or GTC. Answers ACCEPTED or REJECTED with '
  'the gravest reason, the largest quantity that would pass now, and every violation and warning. '
  'Asked again with the same client_order_id it gives the first answer. An error or time-out means '
  'unknown: ask again. Errors: RK400, RK403, RK404, RK409; 2D000 inside a transaction block.';

create procedure risk.check_combo(
  account text, client_order_id text, legs jsonb, quantity numeric, price numeric default null,
  agent text default null,
  time_in_force text default 'DAY',
  inout order_id uuid default null, inout decision text default null,
  inout reason text default null,
  inout allowed_quantity numeric default null, inout detail jsonb default null)
language plpgsql
as $$
declare
  v_answer risk_private.decision;
  v_legs risk_private.combo_legs := risk_private.combo_legs(legs);
begin
  perform risk_private.decide_order(account, client_order_id, v_legs.symbols, v_legs.sides,
    v_legs.ratios, quantity, price,
                                    agent, time_in_force, true);
  commit;
  v_answer := risk_private.answer(account, client_order_id, v_legs.symbols, v_legs.sides,
    v_legs.ratios, quantity, price,
                                  agent, time_in_force, true);
  commit;
  order_id := v_answer.order_id;
  decision := v_answer.decision;
  reason := v_answer.reason;
  allowed_quantity := v_answer.allowed_quantity;
  detail := v_answer.detail;
end
$$;
comment on procedure risk.check_combo(
  text, text, jsonb, numeric, numeric, text, text, uuid, text, text, numeric, jsonb) is
  'Decides a combo as one order: all legs or none. legs: [{"symbol", "side", "ratio" (default 1)}, '
  '...]; price is net per combo, positive a debit paid, negative a credit received. Else like '
  'risk.check_order.';
