-- Profit and loss at average cost: what enlarges a position adds to its cost, what reduces it takes
-- a proportionate part of the cost out and realizes the rest. Cost and realized profit are kept in
-- the currency of the instrument, and what rounding does to one it undoes in the other, so cash and
-- P&L agree to the last digit.

create function risk_private.is_in_kind(kind text) returns boolean
language sql immutable
return kind in ('opening', 'transfer');
comment on function risk_private.is_in_kind(text) is
  'Whether a trade of that kind moves no cash: the position itself is brought in or taken out, at '
  'the price given, which is a flow.';

create function risk_private.average_cost(
  quantity numeric, cost numeric, traded numeric, unit_amount numeric,
  out new_cost numeric, out realized numeric, out closed numeric)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_removed numeric;
begin
  closed := case when quantity * traded < 0 then least(abs(quantity), abs(traded)) else 0 end;
  v_removed := case
    when closed = abs(quantity) then cost
    else pg_catalog.round(cost * closed / abs(quantity), 12) end;
  realized := closed * unit_amount * pg_catalog.sign(quantity) - v_removed;
  new_cost := cost - v_removed
    + (traded + closed * pg_catalog.sign(quantity)) * unit_amount;
end
$$;
comment on function risk_private.average_cost(numeric, numeric, numeric, numeric) is
  'Cost of a position after a trade of that signed quantity, the profit that it realizes, and how '
  'much it closes. A '
  'trade through zero closes at the average cost and opens the rest at its own price.';

create function risk_private.average_price(cost numeric, quantity numeric, multiplier numeric)
returns numeric
language sql immutable
return case
  when quantity = 0 then 0
  else pg_catalog.trim_scale(pg_catalog.round(cost / (quantity * multiplier), 12))
end;
comment on function risk_private.average_price(numeric, numeric, numeric) is
  'Average cost per unit, as prices are quoted.';

-- The caller holds the account.
create function risk_private.book(execution risk_private.fills) returns risk_private.fills
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fill risk_private.fills := execution;
begin
  select abs(execution.price) * i.multiplier * coalesce(f.rate, 1),
    i.multiplier, execution.price * i.multiplier,
    risk_private.cash_rate(execution.account_id, i.currency),
    s.trading_day, risk_private.clock(), c.realized, c.closed
  into v_fill.unit_price, v_fill.multiplier, v_fill.unit_amount, v_fill.rate,
    v_fill.trading_day, v_fill.recorded_at, v_fill.realized, v_fill.closed
  from risk_private.instruments as i
  cross join risk_private.scopes as s
  left join risk_private.fx_rates as f on f.currency = i.currency
  left join risk_private.positions as p
    on p.account_id = execution.account_id and p.instrument_id = execution.instrument_id
  cross join lateral risk_private.average_cost(coalesce(p.quantity, 0), coalesce(p.cost, 0),
    execution.signed_quantity, execution.price * i.multiplier) as c
  where i.instrument_id = execution.instrument_id and s.scope_id = execution.account_id;
  v_fill.executed_at := coalesce(execution.executed_at, v_fill.recorded_at);
  insert into risk_private.fills (
    account_id, exec_id, client_order_id, instrument_id, signed_quantity, price, fee, unit_price,
    kind, flag, trading_day, executed_at, recorded_at, booked_on, multiplier, rate,
    realized, closed)
  values (
    v_fill.account_id, v_fill.exec_id, v_fill.client_order_id, v_fill.instrument_id,
    v_fill.signed_quantity, v_fill.price, v_fill.fee, v_fill.unit_price, v_fill.kind, v_fill.flag,
    v_fill.trading_day, v_fill.executed_at, v_fill.recorded_at, v_fill.booked_on,
    v_fill.multiplier, v_fill.rate, v_fill.realized, v_fill.closed);
  perform risk_private.event('fill', '{}', false);
  return v_fill;
end
$$;
comment on function risk_private.book(risk_private.fills) is
  'Stores an execution, valued in base currency, with the profit that it realizes.';

-- The caller holds the account.
create function risk_private.change_cost(
  account_id integer, instrument_id integer, quantity numeric, cost numeric, realized numeric,
  fees numeric)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.positions as p (
    account_id, instrument_id, underlying_id, cost, average_price, realized_pnl_today, fees_today)
  select change_cost.account_id, i.instrument_id, i.underlying_id, change_cost.cost,
    risk_private.average_price(change_cost.cost, change_cost.quantity, i.multiplier),
    change_cost.realized - change_cost.fees, change_cost.fees
  from risk_private.instruments as i where i.instrument_id = change_cost.instrument_id
  on conflict on constraint positions_pkey do update set
    cost = excluded.cost, average_price = excluded.average_price,
    realized_pnl_today = p.realized_pnl_today + excluded.realized_pnl_today,
    fees_today = p.fees_today + excluded.fees_today;
end
$$;
comment on function risk_private.change_cost(integer, integer, numeric, numeric, numeric,
  numeric) is
  'Sets the cost of a position that has, or is about to have, that quantity, and adds to what it '
  'realized today, in base currency.';

create function risk_private.account_for(fill risk_private.fills) returns risk_private.money
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_quantity numeric;
  v_cost numeric;
  v_new_cost numeric;
  v_amount numeric := fill.signed_quantity * fill.unit_amount;
  v_in_kind boolean := risk_private.is_in_kind(fill.kind);
  v_money risk_private.money;
begin
  select p.quantity, p.cost into v_quantity, v_cost from risk_private.positions as p
  where p.account_id = fill.account_id and p.instrument_id = fill.instrument_id;
  v_quantity := coalesce(v_quantity, 0);
  v_cost := coalesce(v_cost, 0);
  select c.new_cost into v_new_cost
  from risk_private.average_cost(v_quantity, v_cost, fill.signed_quantity, fill.unit_amount) as c;
  v_money := risk_private.move_cash(
    fill.account_id,
    (select i.currency from risk_private.instruments as i
     where i.instrument_id = fill.instrument_id),
    case when v_in_kind then 0 else -v_amount end - fill.fee, v_new_cost - v_cost);
  v_money.realized := fill.realized * fill.rate;
  v_money.fees := fill.fee * fill.rate;
  v_money.flows := case when v_in_kind then v_amount * fill.rate else 0 end;
  perform risk_private.change_cost(fill.account_id, fill.instrument_id,
    v_quantity + fill.signed_quantity, v_new_cost, v_money.realized, v_money.fees);
  return v_money;
end
$$;
comment on function risk_private.account_for(risk_private.fills) is
  'Moves the cash and cost of an account by a fill that is booked and not yet settled. Returns '
  'what equities must follow, but for the value of the position.';

-- Lock order: the caller holds the counters of the chain; then its equities, ascending.
create function risk_private.follow_fill(
  account_id integer, instrument_id integer, traded numeric, m risk_private.money)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_money risk_private.money := m;
begin
  v_money.equity := m.equity + traded * (
    select p.unit_value from risk_private.positions as p
    where p.account_id = follow_fill.account_id and p.instrument_id = follow_fill.instrument_id);
  perform risk_private.move_equities(account_id, v_money);
end
$$;
comment on function risk_private.follow_fill(integer, integer, numeric, risk_private.money) is
  'Moves equities by what account_for said and by the carried value of what was traded.';

-- Lock order: the caller holds the counters of the chain; then its equities, ascending.
create function risk_private.follow_marks(account_id integer, change numeric) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
  v_is_whole boolean := not risk_private.is_between_rates(account_id);
begin
  update risk_private.equities as e set
    known_equity = e.known_equity + change,
    peak = case when e.scope_id = follow_marks.account_id and v_is_whole
      then greatest(e.peak, e.known_equity + change) else e.peak end,
    as_of = risk_private.clock()
  where e.scope_id = any (
    (select s.chain from risk_private.scopes as s where s.scope_id = follow_marks.account_id)
      ::integer[]);
end
$$;
comment on function risk_private.follow_marks(integer, numeric) is
  'Moves equities by what a revaluation changed the value of positions. Of scopes above, '
  'sample_peaks samples the peak once all accounts have followed: half-way, the gain of one stands '
  'beside the old value of its hedge in another.';

-- Lock order: counters of parents, ascending; then their equities.
create function risk_private.sample_peaks() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_scope_ids integer[] := array(
    select e.scope_id from risk_private.equities as e
    join risk_private.scopes as s on s.scope_id = e.scope_id
    where not s.is_leaf and e.known_equity > e.peak);
begin
  if v_scope_ids <> '{}' and not risk_private.rates_are_moving() then
    perform from risk_private.counters as c
    where c.counter_id = any (array(
      select risk_private.counter_id(k) from unnest(v_scope_ids) as k))
    order by c.counter_id
    for no key update;
    update risk_private.equities as e set peak = greatest(e.peak, e.known_equity)
    where e.scope_id = any (v_scope_ids);
  end if;
end
$$;
comment on function risk_private.sample_peaks() is
  'Raises the peaks of all scopes above accounts to their present equity, once a change of marks '
  'or rates is complete.';
