-- The lean path of a decision: accept what is comfortably inside every limit, or leave it. Whatever
-- is not plain (a warning, a halt, a reduction, stale data, a refusal, bad input) is left to
-- 45_decide.sql.

create function risk_private.is_below(
  c risk_private.counters, l risk_private.counter_level, open_buy numeric, open_sell numeric,
  gross_position numeric, gross_notional numeric, traded_notional numeric, open_orders integer,
  open_positions integer)
returns boolean
language sql immutable
return
  c.gross_position + gross_position < l.gross_position
  and c.gross_notional + gross_notional < l.gross_notional
  and c.traded_notional + traded_notional < l.traded_notional
  and c.open_orders + open_orders < l.open_orders
  and c.open_positions + open_positions < l.open_positions
  and (l.dimension <> 3 or (
    c.quantity + c.open_buy + open_buy < l.long_position
    and c.open_sell + open_sell - c.quantity < l.short_position
    and (not l.self_cross or least(c.open_buy + open_buy, c.open_sell + open_sell) = 0)));
comment on function risk_private.is_below(
  risk_private.counters, risk_private.counter_level, numeric, numeric, numeric, numeric, numeric,
  integer, integer) is
  'Whether every measure of a counter, so increased, stays below its warning level: then no limit'
  ' on it can fail. Orders of an account on one side only cannot cross each other.';

-- Asked where fewer moved than there are levels: to gather their dimensions is not free.
create function risk_private.are_all(moved integer, dimensions integer[], keys integer[])
returns boolean
language sql immutable
return moved = pg_catalog.cardinality(dimensions)
  - case when keys[1] is null
    then pg_catalog.cardinality(pg_catalog.array_positions(dimensions, 1)) else 0 end;
comment on function risk_private.are_all(integer, integer[], integer[]) is
  'Whether as many rows moved as there are levels of these dimensions: without a sector (the first '
  'key NULL) there is no row for it.';

-- One long function and no branch that is not needed, because this is what every order waits for:
-- each operator, plan node and call costs. What most orders do not need is done by others, and
-- asked for in an `if` of its own: what an expression names is set up even where it is not
-- evaluated.
-- Lock order: the account, then the counters of its chain, ascending.
create function risk_private.accept_order(
  account text, client_order_id text, symbol text, side text, quantity numeric, price numeric,
  agent text, time_in_force text, in_line boolean)
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_bitmapscan = off
as $$
declare
  v_is_buy boolean;
  v_is_admitted boolean;
  v_account_id integer;
  v_counter_id bigint;
  v_chain integer[];
  v_mark_age double precision;
  v_heartbeat_age double precision;
  v_required_types bit(32);
  v_at timestamptz;
  v_levels risk_private.account_levels;
  i record;
  v_units risk_private.unit_values;
  v_buy numeric;
  v_sell numeric;
  v_unit_price numeric;
  v_traded numeric;
  v_position record;
  v_long numeric;
  v_short numeric;
  v_after numeric;
  v_growth numeric;
  v_notional numeric;
  v_opened integer;
  v_gross_position numeric;
  v_gross_notional numeric;
  v_traded_notional numeric;
  v_open_orders integer;
  v_open_positions integer;
  v_accepted_orders bigint;
  v_moved integer;
  v_delta numeric;
  v_dollar_delta numeric;
  v_gross_exposure numeric;
  v_gamma numeric;
  v_dollar_gamma numeric;
  v_vega numeric;
  v_theta numeric;
  v_has_room boolean;
  v_obligation risk_private.obligation;
begin
  -- A few orders in hand keep the firm's row busy. More would wait for it and each other holding
  -- their accounts, so they wait in line holding nothing. No place in line waits for an account.
  if in_line then
    v_is_admitted := pg_advisory_xact_lock(
      hashtext('risk_private.accept_order'), pg_backend_pid() % 4) is not null;
  else
    perform from risk_private.scopes as s
    join risk_private.counters as c on c.counter_id = s.counter_id
    where s.code = account
    for no key update of c;
  end if;
  select s.scope_id, s.counter_id, s.chain, s.max_mark_age, s.max_heartbeat_age, s.required_types,
    side = 'buy', set_config('synchronous_commit', 'off', true)
  into v_account_id, v_counter_id, v_chain, v_mark_age, v_heartbeat_age, v_required_types, v_is_buy
  from risk_private.scopes as s
  where s.code = account;
  select c.gross_position, c.gross_notional, c.traded_notional, c.open_orders, c.open_positions,
    c.accepted_orders, risk_private.clock()
  into v_gross_position, v_gross_notional, v_traded_notional, v_open_orders, v_open_positions,
    v_accepted_orders, v_at
  from risk_private.counters as c
  where c.counter_id = v_counter_id
  for no key update skip locked;
  if in_line and v_at is null then
    return 0;
  end if;

  select l.* into v_levels
  from risk_private.account_levels as l where l.account_id = v_account_id;

  -- The subqueries have a place of their own: where a statement has them itself, all of it is gone
  -- through once more every time its plan is used. offset 0: the mark is looked up by key, whatever
  -- the statistics say.
  select p.instrument_id, p.sector_id, p.underlying_id, p.kind, p.currency, m.price,
    case when v_is_buy then coalesce(m.ask, m.price) else coalesce(m.bid, m.price) end as reference,
    array[p.sector_id, p.underlying_id, p.instrument_id] as keys, p.multiplier as factor, m.as_of,
    m.as_of as underlying_as_of, null::timestamptz as rate_as_of, s.is_granted
  into i
  from risk_private.instruments as p
  cross join lateral (
    select m.price, m.bid, m.ask, m.as_of
    from risk_private.marks as m where m.instrument_id = p.instrument_id
    offset 0
  ) as m
  cross join lateral (
    select
      exists (select from risk_private.granted_scopes as g where g.scope_id = any (v_chain))
        as is_granted,
      exists (
        select from risk_private.trading_states as t
        where t.scope_id = any (v_chain) and t.underlying_id in (0, p.underlying_id)
          and t.state <> 'ACTIVE'
      ) as is_halted
  ) as s
  where p.symbol = accept_order.symbol and p.status = 'ACTIVE'
    and (p.expiry is null or p.expiry >= risk_private.trading_date())
    and accept_order.quantity % p.lot = 0
    and (accept_order.price is null or p.tick is null or accept_order.price % p.tick = 0)
    and least(
      accept_order.quantity, case when not p.allow_negative_price then accept_order.price end) > 0
    and not s.is_halted;
  if i.is_granted is not true then
    if i.instrument_id is null or not risk_private.is_owner() then
      return v_account_id;
    end if;
  end if;

  if v_levels.is_narrowed or v_at < v_levels.valid_from or v_at >= v_levels.valid_until then
    if v_at < v_levels.valid_from or v_at >= v_levels.valid_until then
      perform risk_private.refresh_account_levels(v_account_id, v_at);
    end if;
    v_levels := risk_private.kept_levels(
      v_levels, i.sector_id, i.underlying_id, i.instrument_id, v_at);
  end if;

  -- What is its own underlying, in the base currency, which is at 1, needs neither.
  if i.underlying_id <> i.instrument_id then
    select u.as_of into i.underlying_as_of
    from risk_private.marks as u where u.instrument_id = i.underlying_id;
  end if;
  if i.currency <> risk_private.base_currency() then
    select i.factor * f.rate, f.as_of into i.factor, i.rate_as_of
    from risk_private.fx_rates as f where f.currency = i.currency;
  end if;

  v_unit_price := abs(case when v_is_buy then coalesce(price, i.reference)
    else greatest(price, i.reference) end) * i.factor;
  v_traded := quantity * v_unit_price;
  -- greatest() and least() pass over NULL: no price, agent or rate to look at.
  if (greatest(quantity, abs(price)) <= 1e12
      and greatest(min_scale(quantity), min_scale(price)) <= 8
      and quantity < v_levels.order_quantity and v_traded < v_levels.order_notional
      and v_levels.types & v_required_types = v_required_types
      and client_order_id ~ '^[!-~]+$' and (agent is null or agent ~ '^[!-~]+$')
      and greatest(length(client_order_id), length(agent)) <= 64
      and side in ('buy', 'sell') and time_in_force in ('DAY', 'GTC')
      and current_setting('transaction_isolation') = 'read committed'
      and risk_private.are_fresh(
        least(i.as_of, coalesce(i.underlying_as_of, '-infinity'), i.rate_as_of),
        greatest(i.as_of, i.underlying_as_of, i.rate_as_of), v_mark_age, v_at)) is not true then
    return v_account_id;
  end if;
  if v_levels.needs_rates then
    if not risk_private.has_fresh_rates(v_mark_age, v_at) then
      return v_account_id;
    end if;
  end if;
  if v_levels.losses is not null then
    if not risk_private.has_plain_losses(v_levels.losses) then
      return v_account_id;
    end if;
  end if;
  if v_levels.price_collar_pct < 'Infinity' then
    if (price is null
      or case when v_is_buy then price - i.reference else i.reference - price end * 100
        <= v_levels.price_collar_pct * abs(i.reference)) is not true then
      return v_account_id;
    end if;
  end if;
  if v_heartbeat_age <> 0 then
    if not exists (
      select from risk_private.heartbeat as h
      where h.beat_at is not null and h.inputs_as_of is not null
        and risk_private.are_fresh(least(h.beat_at, h.inputs_as_of),
          greatest(h.beat_at, h.inputs_as_of), v_heartbeat_age, v_at)) then
      return v_account_id;
    end if;
  end if;

  insert into risk_private.orders (
    account_id, client_order_id, agent, underlying_id, instrument_ids, ratios, quantity, price,
    is_combo, time_in_force, unit_prices, costs, filled, decision, allowed_quantity, state,
    decided_at)
  values (
    v_account_id, accept_order.client_order_id, accept_order.agent, i.underlying_id,
    array[i.instrument_id], array[case when v_is_buy then 1 else -1 end], accept_order.quantity,
    accept_order.price, false, accept_order.time_in_force, array[v_unit_price],
    case when accept_order.price is null then array[i.reference] end, array[0::numeric],
    'ACCEPTED', accept_order.quantity, 'ACCEPTED', v_at)
  on conflict on constraint orders_pkey do nothing;
  if not found then
    return v_account_id;
  end if;

  v_buy := case when v_is_buy then quantity else 0 end;
  v_sell := case when v_is_buy then 0 else quantity end;
  update risk_private.positions as p set
    open_buy = p.open_buy + v_buy,
    open_sell = p.open_sell + v_sell
  where p.account_id = v_account_id and p.instrument_id = i.instrument_id
    and not risk_private.is_flat(p.quantity, p.open_buy, p.open_sell)
  returning p.quantity, p.open_buy, p.open_sell, p.unit_notional, p as held into v_position;
  if not found then
    -- Greeks are carried where a limit needs them: tracking begins with a revaluation.
    if v_levels.exposures is null then
      v_units := risk_private.valued(null, i.instrument_id, i.price * i.factor);
    else
      select u.* into v_units
      from risk_private.unit_values as u where u.instrument_id = i.instrument_id;
    end if;
    insert into risk_private.positions as p (
      account_id, instrument_id, underlying_id, open_buy, open_sell, unit_value, unit_notional,
      unit_delta, unit_gamma, unit_dollar_delta, unit_dollar_gamma, unit_vega, unit_theta,
      has_greeks)
    values (
      v_account_id, i.instrument_id, i.underlying_id, v_buy, v_sell, v_units.unit_value,
      v_units.unit_notional, v_units.unit_delta, v_units.unit_gamma, v_units.unit_dollar_delta,
      v_units.unit_dollar_gamma, v_units.unit_vega, v_units.unit_theta, v_units.has_greeks)
    on conflict on constraint positions_pkey do update set
      open_buy = excluded.open_buy, open_sell = excluded.open_sell,
      unit_value = excluded.unit_value, unit_notional = excluded.unit_notional,
      unit_delta = excluded.unit_delta, unit_gamma = excluded.unit_gamma,
      unit_dollar_delta = excluded.unit_dollar_delta,
      unit_dollar_gamma = excluded.unit_dollar_gamma, unit_vega = excluded.unit_vega,
      unit_theta = excluded.unit_theta, has_greeks = excluded.has_greeks
    returning p.quantity, p.open_buy, p.open_sell, p.unit_notional, p as held into v_position;
  end if;
  v_long := v_position.quantity + v_position.open_buy;
  v_short := v_position.open_sell - v_position.quantity;
  v_after := greatest(v_long, v_short);
  v_growth := v_after - greatest(v_long - v_buy, v_short - v_sell);
  v_notional := v_growth * v_position.unit_notional;
  v_opened := case when v_growth = v_after then 1 else 0 end;
  -- What the account itself has no room for shall not lock its parents.
  if (v_long < v_levels.long_position
      and v_short < v_levels.short_position
      and not (v_levels.self_cross
        and case when v_is_buy then v_position.open_sell else v_position.open_buy end <> 0)
      and v_gross_position + v_growth < v_levels.gross_position
      and v_gross_notional + v_notional < v_levels.gross_notional
      and v_traded_notional + v_traded < v_levels.traded_notional
      and v_open_orders < v_levels.open_orders
      and v_open_positions + v_opened < v_levels.open_positions) is not true then
    return null;
  end if;

  if v_levels.keeps_fingerprints then
    if not risk_private.remember(
      v_account_id,
      risk_private.fingerprint(
        array[i.instrument_id], array[case when v_is_buy then 1 else -1 end], quantity, price),
      v_levels.duplicate_window, v_at) then
      return null;
    end if;
  end if;
  if v_levels.are_own then
    if v_levels.obligations is not null then
      if risk_private.reserve_obligations(
        v_position.held, i.kind, i.rate_as_of, v_buy - v_sell,
        (v_buy - v_sell) * coalesce(price, i.reference) * i.factor, i.keys,
        v_levels.obligations) is not true then
        return null;
      end if;
    end if;
    if v_levels.rates is not null then
      if risk_private.number_acceptance(
        v_levels.rates[1], v_accepted_orders + 1, v_at) is not true then
        return null;
      end if;
    end if;
  elsif v_levels.obligations is not null then
    -- Not while the firm's row is held: it takes long.
    if risk_private.owes_its_cost(
        i.kind, i.rate_as_of, (v_position.held).cost, v_position.quantity,
        v_position.open_sell) is not true
      or exists (select from risk_private.others_of(v_position.held)) then
      v_obligation := risk_private.order_change(v_position.held, v_buy - v_sell,
        (v_buy - v_sell) * coalesce(price, i.reference) * i.factor);
    end if;
  end if;

  -- The firm's row comes last and is held for as short as can be. Dimension 0 has no key.
  update risk_private.counters as c set
    open_buy = c.open_buy + v_buy,
    open_sell = c.open_sell + v_sell,
    gross_position = c.gross_position + v_growth,
    gross_notional = c.gross_notional + v_notional,
    traded_notional = c.traded_notional + v_traded,
    open_orders = c.open_orders + 1,
    open_positions = c.open_positions + v_opened,
    accepted_orders = c.accepted_orders + 1
  from unnest(v_levels.counters) as l
  where c.counter_id = l.counter_id + coalesce(i.keys[l.dimension], 0)
    and risk_private.is_below(
      c, l, v_buy, v_sell, v_growth, v_notional, v_traded, 1, v_opened);
  get diagnostics v_moved = row_count;
  if v_moved < cardinality(v_levels.counters) then
    if not risk_private.are_all(
      v_moved, array(select l.dimension from unnest(v_levels.counters) as l), i.keys) then
      return null;
    end if;
  end if;
  if v_levels.exposures is not null then
    if not (v_position.held).has_greeks then
      return null;
    end if;
    v_delta := (v_buy - v_sell) * (v_position.held).unit_delta;
    v_dollar_delta := (v_buy - v_sell) * (v_position.held).unit_dollar_delta;
    v_gross_exposure := v_growth * abs((v_position.held).unit_dollar_delta);
    -- Either side plus the change, whatever its sign, is no less than what comes of it: where that
    -- is below the level, so is the side. What is no option moves delta alone, cheaper by a third.
    if i.kind <> 'option' then
      update risk_private.exposures as x set
        delta_up = x.delta_up + greatest(0, v_delta),
        delta_down = x.delta_down + least(0, v_delta),
        dollar_delta_up = x.dollar_delta_up + greatest(0, v_dollar_delta),
        dollar_delta_down = x.dollar_delta_down + least(0, v_dollar_delta),
        gross_exposure = x.gross_exposure + v_gross_exposure
      from unnest(v_levels.exposures) as l
      cross join lateral (
        select (
          select q.equity from risk_private.equities as q where q.scope_id = l.scope_id) as equity
      ) as e
      where x.counter_id = l.counter_id + coalesce(i.keys[l.dimension], 0)
        and risk_private.is_within(
          l, x.unknown,
          greatest(x.delta_up, -x.delta_down) + abs(v_delta),
          greatest(x.gamma_up, -x.gamma_down),
          greatest(x.dollar_delta_up, -x.dollar_delta_down) + abs(v_dollar_delta),
          greatest(x.dollar_gamma_up, -x.dollar_gamma_down),
          greatest(x.vega_up, -x.vega_down),
          greatest(x.theta_up, -x.theta_down),
          x.gross_exposure + v_gross_exposure, e.equity);
    else
      v_gamma := (v_buy - v_sell) * (v_position.held).unit_gamma;
      v_dollar_gamma := (v_buy - v_sell) * (v_position.held).unit_dollar_gamma;
      v_vega := (v_buy - v_sell) * (v_position.held).unit_vega;
      v_theta := (v_buy - v_sell) * (v_position.held).unit_theta;
      update risk_private.exposures as x set
        delta_up = x.delta_up + greatest(0, v_delta),
        delta_down = x.delta_down + least(0, v_delta),
        gamma_up = x.gamma_up + greatest(0, v_gamma),
        gamma_down = x.gamma_down + least(0, v_gamma),
        dollar_delta_up = x.dollar_delta_up + greatest(0, v_dollar_delta),
        dollar_delta_down = x.dollar_delta_down + least(0, v_dollar_delta),
        dollar_gamma_up = x.dollar_gamma_up + greatest(0, v_dollar_gamma),
        dollar_gamma_down = x.dollar_gamma_down + least(0, v_dollar_gamma),
        vega_up = x.vega_up + greatest(0, v_vega),
        vega_down = x.vega_down + least(0, v_vega),
        theta_up = x.theta_up + greatest(0, v_theta),
        theta_down = x.theta_down + least(0, v_theta),
        gross_exposure = x.gross_exposure + v_gross_exposure
      from unnest(v_levels.exposures) as l
      cross join lateral (
        select (
          select q.equity from risk_private.equities as q where q.scope_id = l.scope_id) as equity
      ) as e
      where x.counter_id = l.counter_id + coalesce(i.keys[l.dimension], 0)
        and risk_private.is_within(
          l, x.unknown,
          greatest(x.delta_up, -x.delta_down) + abs(v_delta),
          greatest(x.gamma_up, -x.gamma_down) + abs(v_gamma),
          greatest(x.dollar_delta_up, -x.dollar_delta_down) + abs(v_dollar_delta),
          greatest(x.dollar_gamma_up, -x.dollar_gamma_down) + abs(v_dollar_gamma),
          greatest(x.vega_up, -x.vega_down) + abs(v_vega),
          greatest(x.theta_up, -x.theta_down) + abs(v_theta),
          x.gross_exposure + v_gross_exposure, e.equity);
    end if;
    get diagnostics v_moved = row_count;
    if v_moved < cardinality(v_levels.exposures) then
      if not risk_private.are_all(
        v_moved, array(select l.dimension from unnest(v_levels.exposures) as l), i.keys) then
        return null;
      end if;
    end if;
  end if;
  if not v_levels.are_own then
    if v_levels.obligations is not null then
      if v_obligation.bull is null then
        v_has_room := risk_private.reserve_obligations(
          v_position.held, i.kind, i.rate_as_of, v_buy - v_sell,
          (v_buy - v_sell) * coalesce(price, i.reference) * i.factor, i.keys,
          v_levels.obligations);
      else
        v_has_room := risk_private.add_obligations(risk_private.obligation_moves(
          v_obligation, i.underlying_id, v_levels.obligations));
      end if;
      if v_has_room is not true then
        return null;
      end if;
    end if;
    if risk_private.number_acceptances(v_levels.rates, v_at) is not true then
      return null;
    end if;
  end if;
  return v_account_id;
end
$$;
comment on function risk_private.accept_order(
  text, text, text, text, numeric, numeric, text, text, boolean) is
  'Accepts an order where that is plain. in_line: waits for its turn, but not for its account. '
  'Returns the account''s number, which says nothing about the order; NULL where the transaction '
  'must be rolled back: there is no room, or no such account; 0 where it must be asked again, out '
  'of line: the account is locked now, or unknown.';

create function risk_private.accepted(
  account_id integer, client_order_id text, decided_xid xid8)
returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
begin
  perform risk_private.flush()
  from risk_private.orders as o
  where o.account_id = accepted.account_id and o.client_order_id = accepted.client_order_id
    and o.decided_xid = accepted.decided_xid
    and o.decided_xid is distinct from pg_current_xact_id_if_assigned()
    and o.decided_by = session_user
    and o.decision = 'ACCEPTED';
  return found;
end
$$;
comment on function risk_private.accepted(integer, text, xid8) is
  'Whether the caller''s transaction of that number, committed since, accepted the order without '
  'explanation; durable once the transaction that calls this commits.';
