-- Splits and adjusted options: new terms for what is held. All of it is one transaction under the
-- locks of all accounts, so nobody decides between old terms and new ones.
--
-- Options follow the rule of the Options Clearing Corporation (By-Laws, Article VI, section 11A;
-- Characteristics and Risks of Standardized Options, chapter III). A split that gives whole shares
-- for each one multiplies contracts and divides the strike, to the cent. Any other ratio leaves
-- contracts as they are and changes what one delivers. Since 2007 (SR-OCC-2006-01) the strike then
-- stays nominally, each point of it counting as 100 shares; an instrument has one multiplier here,
-- for price and delivery alike, and so has a strike per share delivered, as before that change:
-- strike x multiplier is the same. A special cash dividend lowers strikes by its amount.

create function risk_private.validate_adjustment(a risk_private.adjustments) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not risk_private.is_code(a.reference) then
    perform risk_private.fail('RK400', 'reference must be 1 to 64 printable characters',
      'argument: reference',
      'The id of the corporate action: it is done once, however often told.');
  end if;
  perform risk_private.require_reason(a.reason);
  if (least(a.new_shares, a.old_shares) >= 1 and greatest(a.new_shares, a.old_shares) <= 1000000
    and a.new_shares % 1 = 0 and a.old_shares % 1 = 0) is not true then
    perform risk_private.fail('RK400',
      'new_shares and old_shares must be whole numbers of 1 to 1000000',
      pg_catalog.format('arguments: new_shares %s, old_shares %s', a.new_shares, a.old_shares),
      '4 and 1 for a split 4-for-1, 3 and 2 for 3-for-2, 1 and 10 for a reverse split.');
  end if;
  if not risk_private.is_amount(abs(a.strike_change)) then
    perform risk_private.fail('RK400',
      'strike_change must be a finite number within 1e15, with at most 12 decimals',
      'argument: strike_change', 'Below 0 lowers strikes, as a special dividend does.');
  end if;
  if pg_catalog.jsonb_typeof(a.new_symbols) <> 'object' or exists (
    select from pg_catalog.jsonb_each(a.new_symbols) as e
    where pg_catalog.jsonb_typeof(e.value) <> 'string'
      or not risk_private.is_code(e.value #>> '{}')) then
    perform risk_private.fail('RK400',
      'new_symbols must be a JSON object of old symbol to new symbol', 'argument: new_symbols');
  end if;
  if a.new_shares = a.old_shares and a.strike_change = 0 and a.new_symbols = '{}' then
    perform risk_private.fail('RK400', 'nothing is to be adjusted',
      'arguments: new_shares, old_shares, strike_change, new_symbols');
  end if;
end
$$;
comment on function risk_private.validate_adjustment(risk_private.adjustments) is
  'Raises RK400 for an adjustment that makes no sense.';

create function risk_private.is_adjusted(a risk_private.adjustments) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_known risk_private.adjustments;
begin
  select k.* into v_known from risk_private.adjustments as k where k.reference = a.reference;
  if v_known.adjustment_id is null then
    return false;
  end if;
  if row(v_known.symbol, v_known.new_shares, v_known.old_shares, v_known.strike_change,
      v_known.new_symbols)
    is distinct from row(a.symbol, a.new_shares, a.old_shares, a.strike_change, a.new_symbols) then
    perform risk_private.fail('RK409',
      pg_catalog.format('adjustment %L was made with other content', a.reference),
      'argument: reference');
  end if;
  return true;
end
$$;
comment on function risk_private.is_adjusted(risk_private.adjustments) is
  'Whether this very adjustment was made already; RK409 where its reference stands for another.';

create function risk_private.adjusted_terms(a risk_private.adjustments)
returns setof risk_private.adjusted_instruments
language sql stable
begin atomic
  select a.adjustment_id, i.instrument_id, i.symbol, coalesce(a.new_symbols ->> i.symbol, i.symbol),
    i.strike,
    case when a.new_shares = a.old_shares then i.strike
      else pg_catalog.round(i.strike * a.old_shares / a.new_shares, case when k.is_whole then 2
        else 8 end)
    end + a.strike_change,
    i.multiplier,
    case when i.instrument_id = a.instrument_id or k.is_whole then i.multiplier
      else pg_catalog.round(i.multiplier * a.new_shares / a.old_shares, 12) end,
    case when i.instrument_id = a.instrument_id or k.is_whole then a.new_shares else 1 end,
    case when i.instrument_id = a.instrument_id or k.is_whole then a.old_shares else 1 end
  from risk_private.instruments as i
  cross join (select a.new_shares > a.old_shares and a.new_shares % a.old_shares = 0 as is_whole)
    as k
  where i.underlying_id = a.instrument_id
    and (i.expiry < risk_private.trading_date()) is not true;
end;
comment on function risk_private.adjusted_terms(risk_private.adjustments) is
  'The old and new terms of the underlying and of everything on it that has not expired.';

create function risk_private.require_adjustable(
  a risk_private.adjustments, terms risk_private.adjusted_instruments[])
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_named text;
  v_count bigint;
begin
  select t.old_symbol into v_named from pg_catalog.unnest(terms) as t
  where (t.new_strike > 0) is not true and t.old_strike is not null or t.new_multiplier <= 0
  order by t.old_symbol limit 1;
  if found then
    perform risk_private.fail('RK400',
      pg_catalog.format('the strike of %s would not be above 0', v_named),
      'arguments: new_shares, old_shares, strike_change');
  end if;
  select k into v_named from pg_catalog.jsonb_object_keys(a.new_symbols) as k
  where k <> all (array(select t.old_symbol from pg_catalog.unnest(terms) as t)) limit 1;
  if found then
    perform risk_private.fail('RK404',
      pg_catalog.format('%s is neither %s nor on it', v_named, a.symbol), 'argument: new_symbols');
  end if;
  select t.new_symbol into v_named from pg_catalog.unnest(terms) as t
  where t.new_symbol <> t.old_symbol and exists (
      select from risk_private.instruments as i where i.symbol = t.new_symbol
        and i.symbol <> all (
          array(select o.old_symbol from pg_catalog.unnest(terms) as o
            where o.new_symbol <> o.old_symbol)))
    or (select count(*) from pg_catalog.unnest(terms) as o where o.new_symbol = t.new_symbol) > 1
  limit 1;
  if found then
    perform risk_private.fail('RK409', pg_catalog.format('symbol %L is taken', v_named),
      'argument: new_symbols');
  end if;
  select count(*), pg_catalog.string_agg(distinct s.code, ', ') into v_count, v_named
  from risk_private.orders as o
  join risk_private.scopes as s on s.scope_id = o.account_id
  where o.closed_at is null
    and o.instrument_ids && array(select t.instrument_id from pg_catalog.unnest(terms) as t);
  if v_count > 0 then
    perform risk_private.fail('RK409',
      pg_catalog.format('%s open orders in %s or on it, entered on the old terms', v_count,
        a.symbol),
      'accounts: ' || v_named,
      'Cancel them with risk.cancel_orders, release what the broker confirms, and ask again.');
  end if;
  select count(*), pg_catalog.string_agg(distinct i.symbol, ', ') into v_count, v_named
  from risk_private.instruments as i
  join risk_private.positions as p on p.instrument_id = i.instrument_id and p.quantity <> 0
  where i.underlying_id = a.instrument_id and i.expiry < risk_private.trading_date();
  if v_count > 0 then
    perform risk_private.fail('RK409',
      pg_catalog.format('%s positions on %s have expired and are not settled', v_count, a.symbol),
      'symbols: ' || v_named,
      'Settle them on the old terms with risk.record_trade, and ask again.');
  end if;
end
$$;
comment on function risk_private.require_adjustable(
  risk_private.adjustments, risk_private.adjusted_instruments[]) is
  'Raises RK400, RK404 or RK409 where an adjustment cannot be made: impossible strikes, symbols '
  'unknown or taken, orders open, positions that wait for their settlement.';

-- Lock order: the caller holds all accounts; marks ascending, which feeds lock before they look at
-- instruments; then instruments ascending; breakers.
create function risk_private.change_terms(a risk_private.adjustments, ids integer[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from risk_private.marks as m where m.instrument_id = any (ids)
  order by m.instrument_id for no key update;
  perform from risk_private.instruments as i where i.instrument_id = any (ids)
  order by i.instrument_id for update;
  -- One option often takes the symbol that another one gives up.
  update risk_private.instruments as i
  set symbol = pg_catalog.format('adjusted %s', i.instrument_id)
  from risk_private.adjusted_instruments as t
  where t.adjustment_id = a.adjustment_id and i.instrument_id = t.instrument_id
    and t.new_symbol <> t.old_symbol;
  update risk_private.instruments as i
  set symbol = t.new_symbol, strike = t.new_strike, multiplier = t.new_multiplier
  from risk_private.adjusted_instruments as t
  where t.adjustment_id = a.adjustment_id and i.instrument_id = t.instrument_id
    and row(i.symbol, i.strike, i.multiplier)
      is distinct from row(t.new_symbol, t.new_strike, t.new_multiplier);
  update risk_private.breakers as b
  set parameters = b.parameters || pg_catalog.jsonb_build_object('symbol', t.new_symbol)
  from risk_private.adjusted_instruments as t
  where t.adjustment_id = a.adjustment_id and b.instrument_id = t.instrument_id
    and b.parameters ->> 'symbol' <> t.new_symbol;
  if a.new_shares = a.old_shares then
    return;
  end if;
  update risk_private.marks as m set
    price = m.price * a.old_shares / a.new_shares,
    bid = m.bid * a.old_shares / a.new_shares,
    ask = m.ask * a.old_shares / a.new_shares,
    gamma = m.gamma * a.new_shares::double precision / a.old_shares::double precision,
    vega = m.vega * a.old_shares::double precision / a.new_shares::double precision,
    theta = m.theta * a.old_shares::double precision / a.new_shares::double precision,
    rho = m.rho * a.old_shares::double precision / a.new_shares::double precision
  where m.instrument_id = any (ids);
  update risk_private.price_ticks as t set price = t.price * a.old_shares / a.new_shares
  where t.instrument_id = any (ids);
  perform risk_private.adjust_closes(a.instrument_id, a.new_shares / a.old_shares);
end
$$;
comment on function risk_private.change_terms(risk_private.adjustments, integer[]) is
  'Puts instruments to their new terms and symbols; and what was told of them per share, their '
  'marks, the prices that breakers look back on and the closes, to the level after the split. '
  'Delta and volatility are the same at either.';
