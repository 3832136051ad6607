-- Splits and adjusted options: positions follow the terms.

create function risk_private.at_new_terms(
  p risk_private.positions, t risk_private.adjusted_instruments, a risk_private.adjustments)
returns risk_private.unit_values
language sql immutable
return row(
  p.instrument_id, p.unit_value * t.old_units / t.new_units,
  p.unit_notional * t.old_units / t.new_units,
  p.unit_delta * (a.new_shares * t.old_units) / (a.old_shares * t.new_units),
  p.unit_gamma * (a.new_shares * a.new_shares * t.old_units)
    / (a.old_shares * a.old_shares * t.new_units),
  p.unit_dollar_delta * t.old_units / t.new_units,
  p.unit_dollar_gamma * t.old_units / t.new_units,
  p.unit_vega * t.old_units / t.new_units, p.unit_theta * t.old_units / t.new_units,
  p.has_greeks)::risk_private.unit_values;
comment on function risk_private.at_new_terms(
  risk_private.positions, risk_private.adjusted_instruments, risk_private.adjustments) is
  'The values that a position carries, per unit on the new terms: as money it stays what it was; '
  'deltas count more shares, gammas those per smaller moves.';

create function risk_private.book_adjustment(account_id integer, adjustment_id bigint) returns void
language sql volatile
begin atomic
  insert into risk_private.fills (
    account_id, exec_id, instrument_id, signed_quantity, price, fee, unit_price, kind, trading_day,
    executed_at, recorded_at, multiplier, rate, adjustment_id)
  select p.account_id, pg_catalog.format('adjustment %s %s', t.adjustment_id, t.new_symbol),
    p.instrument_id,
    risk_private.adjusted_quantity(p.quantity, t.new_units, t.old_units) - p.quantity,
    0, 0, 0, 'adjustment', s.trading_day, n.at, n.at, t.new_multiplier,
    risk_private.cash_rate(p.account_id, i.currency), t.adjustment_id
  from risk_private.adjusted_instruments as t
  join risk_private.positions as p
    on p.account_id = book_adjustment.account_id and p.instrument_id = t.instrument_id
  join risk_private.instruments as i on i.instrument_id = t.instrument_id
  join risk_private.scopes as s on s.scope_id = p.account_id
  cross join (select risk_private.clock() as at) as n
  where t.adjustment_id = book_adjustment.adjustment_id and t.new_units <> t.old_units
    and exists (
      select from risk_private.fills as f
      where f.account_id = p.account_id and f.instrument_id = p.instrument_id)
  order by p.instrument_id;
end;
comment on function risk_private.book_adjustment(integer, bigint) is
  'Stands between the executions before and after a split, also where nothing was held: what is '
  'busted or corrected later may have been.';

-- Lock order: the caller holds all counters; then the equities of the chain, ascending.
create function risk_private.adjust_account(account_id integer, a risk_private.adjustments)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_units risk_private.unit_values[];
  v_movements risk_private.movement[];
  v_gained numeric;
begin
  perform risk_private.book_adjustment(account_id, a.adjustment_id);
  select
    pg_catalog.array_agg(risk_private.at_new_terms(p, t, a)),
    pg_catalog.array_agg(risk_private.movement(p.account_id, p.instrument_id, q.change)),
    sum(q.change * p.unit_value)
  into v_units, v_movements, v_gained
  from risk_private.positions as p
  join risk_private.adjusted_instruments as t
    on t.adjustment_id = a.adjustment_id and t.instrument_id = p.instrument_id
  cross join lateral (
    select risk_private.adjusted_quantity(p.quantity, t.new_units, t.old_units) - p.quantity
      as change
  ) as q
  where p.account_id = adjust_account.account_id and p.quantity <> 0;
  if v_units is null then
    return;
  end if;
  perform risk_private.move(v_movements, false);
  perform risk_private.move_exposures(account_id, v_movements, '{}', '{}');
  v_gained := v_gained + risk_private.carry_at(account_id, v_units);
  perform risk_private.follow_marks(account_id, v_gained);
  perform risk_private.change_cost(p.account_id, p.instrument_id, p.quantity, p.cost, 0, 0)
  from risk_private.positions as p
  join pg_catalog.unnest(v_units) as u on u.instrument_id = p.instrument_id
  where p.account_id = adjust_account.account_id;
  perform risk_private.renew_obligations(account_id, array[a.instrument_id]);
end
$$;
comment on function risk_private.adjust_account(integer, risk_private.adjustments) is
  'Takes the positions of an account to new terms. What they cost and are worth stays.';

-- Lock order: changes of limits and of instruments; the instruments; all accounts, then all scopes
-- above, ascending; their equities. Nothing of a counter that is kept can change meanwhile.
create function risk_private.adjust_instrument(
  symbol text, reference text, reason text, new_shares numeric, old_shares numeric,
  strike_change numeric, new_symbols jsonb)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_one risk_private.adjustments;
  v_terms risk_private.adjusted_instruments[];
  v_ids integer[];
begin
  perform risk_private.begin_change();
  v_one.reference := reference;
  v_one.symbol := symbol;
  v_one.reason := reason;
  v_one.new_shares := new_shares;
  v_one.old_shares := old_shares;
  v_one.strike_change := strike_change;
  v_one.new_symbols := coalesce(new_symbols, '{}');
  perform risk_private.validate_adjustment(v_one);
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.limits'));
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.instruments'));
  if risk_private.is_adjusted(v_one) then
    return;
  end if;
  v_one.instrument_id := risk_private.instrument_id(symbol);
  if not (select i.kind <> 'option' and i.underlying_id = i.instrument_id
    from risk_private.instruments as i where i.instrument_id = v_one.instrument_id) then
    perform risk_private.fail('RK400',
      pg_catalog.format('%s follows its underlying: adjust that', symbol), 'argument: symbol');
  end if;
  perform risk_private.lock_accounts_below(array(
    select s.scope_id from risk_private.scopes as s where s.parent_id is null));
  perform from risk_private.scopes as s
  join risk_private.counters as c on c.counter_id = risk_private.counter_id(s.scope_id)
  where not s.is_leaf order by c.counter_id for no key update of c;
  v_terms := array(select t from risk_private.adjusted_terms(v_one) as t);
  perform risk_private.require_adjustable(v_one, v_terms);
  v_ids := array(select t.instrument_id from pg_catalog.unnest(v_terms) as t);
  insert into risk_private.adjustments as k (
    reference, instrument_id, symbol, new_shares, old_shares, strike_change, new_symbols, reason,
    trading_day, adjusted_at)
  values (
    v_one.reference, v_one.instrument_id, v_one.symbol, v_one.new_shares, v_one.old_shares,
    v_one.strike_change, v_one.new_symbols, v_one.reason, risk_private.trading_date(),
    risk_private.clock())
  returning k.* into v_one;
  insert into risk_private.adjusted_instruments
  select v_one.adjustment_id, t.instrument_id, t.old_symbol, t.new_symbol, t.old_strike,
    t.new_strike, t.old_multiplier, t.new_multiplier, t.new_units, t.old_units
  from pg_catalog.unnest(v_terms) as t;
  perform risk_private.change_terms(v_one, v_ids);
  perform risk_private.adjust_account(x.account_id, v_one)
  from (
    select distinct p.account_id from risk_private.positions as p
    where p.instrument_id = any (v_ids) order by p.account_id
  ) as x;
  perform risk_private.note_moved(v_ids);
  perform risk_private.alert('instrument_adjusted', pg_catalog.jsonb_build_object(
    'symbol', symbol, 'reference', reference, 'new_shares', new_shares::text,
    'old_shares', old_shares::text, 'strike_change', strike_change::text,
    'new_symbols', v_one.new_symbols, 'reason', reason, 'severity', 'warning'));
end
$$;
comment on function risk_private.adjust_instrument(
  text, text, text, numeric, numeric, numeric, jsonb) is 'What risk.adjust_instrument does.';

create procedure risk.adjust_instrument(
  symbol text, reference text, reason text, new_shares numeric default 1,
  old_shares numeric default 1, strike_change numeric default 0, new_symbols jsonb default null)
language plpgsql
as $$
begin
  perform risk_private.adjust_instrument(
    symbol, reference, reason, new_shares, old_shares, strike_change, new_symbols);
  commit;
  call risk_private.follow();
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.adjust_instrument(text, text, text, numeric, numeric, numeric, jsonb) is
  'Adjusts a stock, ETF or index, and everything on it that has not expired, for a corporate '
  'action: all accounts at one moment. new_shares for old_shares is a split: 4 and 1, 3 and 2, or '
  '1 and 10 for a reverse one. Positions in the stock are multiplied by that ratio; a fraction '
  'stays until the broker pays it (risk.record_trade, kind cash_in_lieu). Options follow the rule '
  'of the OCC: where each share becomes whole shares, contracts are multiplied and strikes '
  'divided, to the cent; with any other ratio the multiplier changes instead, and the strike so '
  'that strike x multiplier stays (to 8 decimals): marks are then quoted per share delivered. '
  'strike_change is added to every strike: a special dividend of 12 is -12. new_symbols renames, '
  '{"X C100": "X C25", …}, the stock itself too. Cost, value, P&L, equity and drawdown stay; '
  'average prices, marks, quotes, Greeks, closes and the prices that breakers look back on are '
  'put to the new level. Limits stay as they are, those in shares and contracts too. Executions '
  'keep the terms of their time: one that is busted or corrected later counts as the split made '
  'it. Call it before the first mark on the new terms. A reference is adjusted once, however '
  'often it is called. Alerted as instrument_adjusted; risk.adjustments tells what changed. '
  'Errors: RK400; RK404 unknown symbol; RK409 a reference with other content, a symbol that is '
  'taken, open orders in any of the instruments (cancel them first), positions that have expired '
  'and are not settled.';
