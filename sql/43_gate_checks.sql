-- Checks that are no limits: states, statuses, expiry, configuration, freshness, reference prices.

create function risk_private.gate(
  check_name text, scope text, dimension text, limit_type text, passes boolean, reason text,
  allowed_quantity numeric,
  quantity numeric)
returns risk_private.risk_check
language sql immutable
return row(
  check_name, scope, dimension, limit_type, null, null, null, null,
  case when passes is true then quantity else allowed_quantity end,
  case when passes is true then 'PASS' else 'FAIL' end,
  case when passes is true then null else reason end)::risk_private.risk_check;
comment on function risk_private.gate(text, text, text, text, boolean, text, numeric, numeric) is
  'The row of a check that either passes or not.';

create function risk_private.is_halted(p risk_private.proposal) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select from risk_private.trading_states as t
    join risk_private.scopes as s on t.scope_id = any (s.chain)
    where s.scope_id = p.account_id and t.state = 'HALTED'
      and (t.underlying_id = 0 or t.underlying_id in (
        select i.underlying_id from risk_private.instruments as i
        where i.instrument_id = any (p.instrument_ids))));
end
$$;
comment on function risk_private.is_halted(risk_private.proposal) is
  'Whether a state or a circuit breaker on the chain halts an order, for all or for the underlying '
  'of a leg.';

create function risk_private.gate_checks(
  p risk_private.proposal, legs risk_private.leg[], limits risk_private.applicable_limit[],
  closable numeric,
  step numeric, at timestamptz)
returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_checks risk_private.risk_check[] := '{}';
  v_leaf risk_private.scopes;
  v_is_reducing boolean := closable = p.quantity;
  v_today date := risk_private.trading_date();
begin
  select s.* into v_leaf from risk_private.scopes as s where s.scope_id = p.account_id;
  v_checks := v_checks || array(
  select risk_private.gate(
    case when t.breaker_id = 0 then 'trading_state'
      else 'circuit_breaker ' || (
        select b.name from risk_private.breakers as b where b.breaker_id = t.breaker_id) end,
    s.code, risk_private.dimension_name(
      case when t.underlying_id = 0 then 0 else 2 end, t.underlying_id), null,
    case t.state when 'HALTED' then false else v_is_reducing end,
    case when t.breaker_id <> 0 then 'CIRCUIT_BREAKER_TRIPPED'
      when t.state = 'HALTED' then 'TRADING_HALTED' else 'REDUCE_ONLY' end,
    case t.state when 'HALTED' then 0 else closable end, p.quantity)
  from (
    select q.*, pg_catalog.bool_or(q.state = 'HALTED') over () as is_halted
    from risk_private.trading_states as q
    where q.scope_id = any (v_leaf.chain) and q.state <> 'ACTIVE'
      and (q.underlying_id = 0 or q.underlying_id in (select l.underlying_id
        from pg_catalog.unnest(legs) as l))
  ) as t
  join risk_private.scopes as s on s.scope_id = t.scope_id
  where t.state = 'HALTED' or not t.is_halted);

  v_checks := v_checks || array(
  select risk_private.gate('instrument_status', null, 'instrument:' || l.symbol, null,
    case l.status
      when 'RESTRICTED' then v_is_reducing
      when 'NO_NEW_SHORTS' then l.sign > 0 or a.added = 0 or l.open_sell + a.added <= l.quantity
      else l.status = 'ACTIVE'
    end,
    'RESTRICTED_INSTRUMENT',
    case l.status
      when 'RESTRICTED' then closable
      when 'NO_NEW_SHORTS' then risk_private.largest_quantity(
        greatest(0, l.quantity - l.open_sell), array[l.ratio], array[l.base], step, p.quantity)
      else 0
    end, p.quantity)
  from pg_catalog.unnest(legs) as l
  cross join lateral (select greatest(0, l.ratio * p.quantity - l.base) as added) as a);

  v_checks := v_checks || array(
  select risk_private.gate('expiry', null, 'instrument:' || l.symbol, null, l.expiry is null
    or l.expiry >= v_today,
    'INSTRUMENT_EXPIRED', 0, p.quantity)
  from pg_catalog.unnest(legs) as l);

  v_checks := v_checks || array(
  select risk_private.gate('configuration', v_leaf.code, 'instrument:' || l.symbol, t.limit_type,
    exists (select from pg_catalog.unnest(limits) as k where k.leg = l.leg
      and k.limit_type = t.limit_type),
    'CONFIG_NOT_FOUND', 0, p.quantity)
  from pg_catalog.unnest(legs) with ordinality as l (
    instrument_id, symbol, kind, underlying_id, sector_id, expiry, status, sign, ratio, lot, base,
    filled, old_notional, quantity, open_buy, open_sell, unit_notional, units, reference,
    unit_price, is_fresh, floor, leg)
  cross join risk_private.limit_types as t
  where pg_catalog.get_bit(v_leaf.required_types, t.bit) = 1);

  v_checks := v_checks || array(
  select risk_private.gate('freshness', null, 'instrument:' || i.symbol, null,
    v_is_reducing or (
      m.price is not null and f.rate is not null
        and (i.currency = risk_private.base_currency()
          or risk_private.is_fresh(f.as_of, v_leaf.max_mark_age, at))
        and risk_private.is_fresh(m.as_of, v_leaf.max_mark_age, at)),
    'STALE_DATA', closable, p.quantity)
  from (
    select l.instrument_id from pg_catalog.unnest(legs) as l
    union
    select l.underlying_id from pg_catalog.unnest(legs) as l where v_leaf.max_mark_age > 0
  ) as n
  join risk_private.instruments as i on i.instrument_id = n.instrument_id
  left join risk_private.marks as m on m.instrument_id = i.instrument_id
  left join risk_private.fx_rates as f on f.currency = i.currency);

  v_checks := v_checks || array(
  select risk_private.gate('heartbeat', null, 'all', null,
    v_is_reducing or v_leaf.max_heartbeat_age = 0 or (
      risk_private.is_fresh(h.beat_at, v_leaf.max_heartbeat_age, at)
      and risk_private.is_fresh(h.inputs_as_of, v_leaf.max_heartbeat_age, at)),
    'STALE_DATA', closable, p.quantity)
  from risk_private.heartbeat as h);

  v_checks := v_checks || array(
  select risk_private.gate('reference_price', null, 'instrument:' || l.symbol, null,
    l.reference is not null,
    'REFERENCE_PRICE_UNAVAILABLE', 0, p.quantity)
  from pg_catalog.unnest(legs) as l
  where p.price is null
    or exists (select from pg_catalog.unnest(limits) as k where k.limit_type = 'price_collar_pct')
    or ((p.is_combo or l.sign < 0) and exists (
      select from pg_catalog.unnest(limits) as k
        where k.limit_type in ('order_notional', 'traded_notional'))));
  return v_checks;
end
$$;
comment on function risk_private.gate_checks(
  risk_private.proposal, risk_private.leg[], risk_private.applicable_limit[], numeric, numeric,
  timestamptz) is
  'Whether an order may be judged at all: states, statuses, expiry, required limits, freshness, '
  'reference prices.';
