-- Deciding an order with everything spelled out, and answering.

create type risk_private.decision as (
  order_id uuid,
  decision text,
  reason text,
  allowed_quantity numeric,
  detail jsonb
);
comment on type risk_private.decision is 'The stored answer to an order.';

create type risk_private.combo_legs as (
  symbols text[],
  sides text[],
  ratios numeric[]
);
comment on type risk_private.combo_legs is 'The legs of a combo, side by side.';

create function risk_private.combo_legs(legs jsonb) returns risk_private.combo_legs
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_legs risk_private.combo_legs;
  v_problem text;
begin
  if pg_catalog.jsonb_typeof(legs) is distinct from 'array'
    or pg_catalog.jsonb_array_length(legs) not between 1 and 8 then
    perform risk_private.fail('RK400', 'legs must be a JSON array of 1 to 8 objects',
      'argument: legs');
  end if;
  select pg_catalog.min(case
    when pg_catalog.jsonb_typeof(e.value) <> 'object' then 'each leg must be an object'
    when e.value - array['symbol', 'side', 'ratio'] <> '{}'
      then 'a leg has symbol, side and ratio, nothing else'
    when pg_catalog.jsonb_typeof(e.value -> 'symbol') is distinct from 'string'
      or pg_catalog.jsonb_typeof(e.value -> 'side') is distinct
        from 'string' then 'a leg needs symbol and side as text'
    when e.value ? 'ratio' and (e.value ->> 'ratio' ~ '^[1-9][0-9]{0,2}$') is not true
      then 'ratio must be a whole number of 1 to 999'
  end) into v_problem
  from pg_catalog.jsonb_array_elements(legs) as e;
  if v_problem is not null then
    perform risk_private.fail('RK400', v_problem,
      'argument: legs, value: ' || pg_catalog."left"(legs::text, 500));
  end if;
  select pg_catalog.array_agg(e.value ->> 'symbol' order by e.position),
    pg_catalog.array_agg(e.value ->> 'side' order by e.position),
    pg_catalog.array_agg(coalesce((e.value ->> 'ratio')::numeric, 1) order by e.position)
  into v_legs.symbols, v_legs.sides, v_legs.ratios
  from pg_catalog.jsonb_array_elements(legs) with ordinality as e (value, position);
  if (select count(distinct s)
    from pg_catalog.unnest(v_legs.symbols) as s) < pg_catalog.cardinality(v_legs.symbols) then
    perform risk_private.fail('RK400', 'a symbol may stand in one leg only', 'argument: legs');
  end if;
  return v_legs;
end
$$;
comment on function risk_private.combo_legs(jsonb) is
  'Reads the legs of a combo; RK400 where they make no sense.';

create function risk_private.account_of(account text, only_to_look boolean default false)
returns risk_private.scopes
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_leaf risk_private.scopes;
begin
  select s.* into v_leaf from risk_private.scopes as s where s.code = account;
  if v_leaf.scope_id is null then
    perform risk_private.fail('RK404', pg_catalog.format('unknown account %L', account),
      'argument: account');
  end if;
  if not risk_private.may_trade(v_leaf.chain)
    and not (only_to_look and v_leaf.scope_id = any (risk_private.visible_accounts())) then
    perform risk_private.fail('RK403',
      pg_catalog.format('%I may not trade %L', risk_private.caller(), account),
      'argument: account', 'Ask an administrator for risk.grant_trading.');
  end if;
  if not v_leaf.is_leaf then
    perform risk_private.fail('RK400',
      pg_catalog.format('%L has scopes below it: orders belong to those', account),
      'argument: account');
  end if;
  return v_leaf;
end
$$;
comment on function risk_private.account_of(text, boolean) is
  'The leaf scope of that code, if the caller may trade it or, only to look, may see it. Errors: '
  'RK400 not a leaf, RK403, RK404.';

create function risk_private.validate_order(
  client_order_id text, legs risk_private.leg[], quantity numeric, price numeric, agent text,
  time_in_force text,
  is_combo boolean)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tick numeric;
  v_may_be_negative boolean;
begin
  if not risk_private.is_code(client_order_id) then
    perform risk_private.fail('RK400', 'client_order_id must be 1 to 64 printable characters',
      'argument: client_order_id');
  end if;
  if agent is not null and not risk_private.is_code(agent) then
    perform risk_private.fail('RK400', 'agent must be 1 to 64 printable characters',
      'argument: agent');
  end if;
  if (time_in_force in ('DAY', 'GTC')) is not true then
    perform risk_private.fail('RK400',
      pg_catalog.format('time_in_force must be DAY or GTC, got %L', time_in_force),
      'argument: time_in_force');
  end if;
  if not risk_private.is_quantity(quantity) then
    perform risk_private.fail('RK400',
      'quantity must be a finite number above 0 and at most 1e12, with at most 8 decimals',
      'argument: quantity, value: ' || coalesce(pg_catalog."left"(quantity::text, 40), 'NULL'));
  end if;
  if quantity % risk_private.step(legs) <> 0 then
    perform risk_private.fail('RK400',
      pg_catalog.format('quantity %s is not a multiple of the lot %s', quantity,
      risk_private.step(legs)), 'argument: quantity');
  end if;
  if exists (select from pg_catalog.unnest(legs) as l
    where l.ratio * validate_order.quantity > 1e12) then
    perform risk_private.fail('RK400', 'quantity times ratio must be at most 1e12',
      'argument: quantity');
  end if;
  select min(i.tick), pg_catalog.bool_or(i.allow_negative_price) into v_tick, v_may_be_negative
  from pg_catalog.unnest(legs) as l
  join risk_private.instruments as i on i.instrument_id = l.instrument_id;
  if price is not null and not risk_private.is_price(price, null, is_combo
    or v_may_be_negative) then
    perform risk_private.fail('RK400',
      'price must be a finite number, above 0 (unless it may be negative), within 1e12, with at '
      'most 8 decimals',
      'argument: price, value: ' || pg_catalog."left"(price::text, 40),
      'Leave it out for a market order.');
  end if;
  if price % v_tick <> 0 then
    perform risk_private.fail('RK400',
      pg_catalog.format('price %s is not a multiple of the tick %s', price, v_tick),
      'argument: price');
  end if;
end
$$;
comment on function risk_private.validate_order(
  text, risk_private.leg[], numeric, numeric, text, text, boolean) is
  'Raises RK400 for an order that makes no sense, naming the argument and the rule.';

create function risk_private.propose(
  leaf risk_private.scopes, client_order_id text, symbols text[], sides text[], ratios numeric[],
  quantity numeric, price numeric,
  agent text, time_in_force text, is_combo boolean)
returns risk_private.proposal
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_side text;
  v_symbol text;
  v_ratio numeric;
  p risk_private.proposal;
begin
  foreach v_side in array sides loop
    if (v_side in ('buy', 'sell')) is not true then
      perform risk_private.fail('RK400',
        pg_catalog.format('side must be buy or sell, got %L', v_side), 'argument: side');
    end if;
  end loop;
  foreach v_ratio in array ratios loop
    if (v_ratio between 1 and 1000 and v_ratio % 1 = 0) is not true then
      perform risk_private.fail('RK400', 'ratio must be a whole number of 1 to 1000',
        'argument: legs');
    end if;
  end loop;
  foreach v_symbol in array symbols loop
    perform risk_private.instrument_id(v_symbol);
  end loop;
  select pg_catalog.array_agg(i.instrument_id order by i.instrument_id),
    pg_catalog.array_agg(case t.side when 'buy' then t.ratio else -t.ratio end::integer
      order by i.instrument_id),
    pg_catalog.array_agg(0::numeric), pg_catalog.array_agg(0::numeric),
    pg_catalog.array_agg(0::numeric)
  into p.instrument_ids, p.ratios, p.bases, p.filled, p.old_notionals
  from unnest(symbols, sides, ratios) as t (symbol, side, ratio)
  join risk_private.instruments as i on i.symbol = t.symbol;
  p.account_id := leaf.scope_id;
  p.client_order_id := client_order_id;
  p.agent := agent;
  p.time_in_force := time_in_force;
  p.quantity := quantity;
  p.price := price;
  p.is_combo := is_combo;
  perform risk_private.validate_order(
    client_order_id, risk_private.legs(p, risk_private.clock()), quantity, price, agent,
    time_in_force, is_combo);
  return p;
end
$$;
comment on function risk_private.propose(
  risk_private.scopes, text, text[], text[], numeric[], numeric, numeric, text, text, boolean) is
  'Resolves and validates an order. Errors: RK400, RK403, RK404.';

create function risk_private.gravity(reason text) returns integer
language sql immutable
return pg_catalog.array_position(
  array['TRADING_HALTED', 'CIRCUIT_BREAKER_TRIPPED', 'RESTRICTED_INSTRUMENT', 'INSTRUMENT_EXPIRED',
    'CONFIG_NOT_FOUND',
        'STALE_DATA', 'REFERENCE_PRICE_UNAVAILABLE', 'PRICE_OUT_OF_BAND', 'DUPLICATE_ORDER',
        'SELF_CROSS',
        'RATE_LIMIT_EXCEEDED', 'REDUCE_ONLY', 'RISK_LIMIT_EXCEEDED'], reason);
comment on function risk_private.gravity(text) is 'Rank of a reason: 1 is the gravest.';

create function risk_private.explain(checks risk_private.risk_check[]) returns jsonb
language sql immutable
set search_path = pg_catalog, pg_temp
begin atomic
  select pg_catalog.jsonb_build_object(
    'violations', coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'reason', c.reason, 'limit_type', c.limit_type, 'scope', c.scope, 'dimension', c.dimension,
      'limit', c.limit_value::text, 'current', c.current_value::text, 'projected',
      c.projected_value::text,
      'allowed_quantity', c.allowed_quantity::text)
      || case when c.check_name like 'circuit_breaker %'
        then pg_catalog.jsonb_build_object('breaker', pg_catalog.substr(c.check_name, 17))
        else '{}' end
      order by risk_private.gravity(c.reason), c.scope, c.limit_type,
        c.dimension) filter (where c.status = 'FAIL'), '[]'),
    'warnings', coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'limit_type', c.limit_type, 'scope', c.scope, 'dimension', c.dimension, 'limit',
      c.limit_value::text,
      'current', c.current_value::text, 'projected', c.projected_value::text)
      order by c.scope, c.limit_type, c.dimension) filter (where c.status = 'WARN'), '[]'))
  from unnest(checks) as c;
end;
comment on function risk_private.explain(risk_private.risk_check[]) is
  'What a decision tells of its checks; amounts are strings, for drivers turn JSON numbers into '
  'floats.';

create function risk_private.opening_of(p risk_private.proposal, legs risk_private.leg[])
returns risk_private.movement[]
language sql stable
set search_path = pg_catalog, pg_temp
begin atomic
  select pg_catalog.array_agg(risk_private.movement(
    p.account_id, l.instrument_id,
    open_buy => case when l.sign > 0 then a.added else 0 end,
    open_sell => case when l.sign < 0 then a.added else 0 end,
    traded_notional => greatest(0,
      (l.ratio * p.quantity - l.filled) * l.unit_price - l.old_notional),
    open_orders => case when p.replaces is null then 1 else 0 end,
    accepted_orders => 1,
    units => risk_private.valued(l.units, l.instrument_id, l.unit_price)))
  from unnest(legs) as l
  cross join lateral (select greatest(0, l.ratio * p.quantity - l.base) as added) as a;
end;
comment on function risk_private.opening_of(risk_private.proposal, risk_private.leg[]) is
  'The movements of accepting a proposal.';

create function risk_private.working_legs_of(
  p risk_private.proposal, legs risk_private.leg[])
returns risk_private.working_legs[]
language sql stable
set search_path = pg_catalog, pg_temp
begin atomic
  select pg_catalog.array_agg(row(
    p.account_id, coalesce(p.replaces, p.client_order_id), l.leg, l.instrument_id,
    l.sign * l.ratio, greatest(l.base, l.ratio * p.quantity) - l.filled, null,
    pg_catalog.cardinality(legs))::risk_private.working_legs)
  from (
    select pg_catalog.row_number() over () as leg, u.instrument_id, u.sign, u.ratio, u.base,
      u.filled
    from unnest(legs) as u
  ) as l;
end;
comment on function risk_private.working_legs_of(risk_private.proposal, risk_private.leg[]) is
  'What a proposal and the order that it replaces reserve once it is accepted.';

create function risk_private.insert_order(
  p risk_private.proposal, legs risk_private.leg[], checks risk_private.risk_check[],
  at timestamptz) returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_reason text;
  v_allowed numeric;
begin
  select (pg_catalog.array_agg(c.reason
    order by risk_private.gravity(c.reason)) filter (where c.status = 'FAIL'))[1],
    min(c.allowed_quantity)
  into v_reason, v_allowed
  from pg_catalog.unnest(checks) as c;
  if p.harmless_quantity > 0 and not risk_private.is_halted(p) then
    v_allowed := greatest(v_allowed, p.harmless_quantity);
  end if;
  if exists (select from pg_catalog.unnest(legs) as l where l.ratio * v_allowed <= l.filled) then
    v_allowed := 0;
  end if;
  insert into risk_private.orders (
    account_id, client_order_id, agent, underlying_id, instrument_ids, ratios, quantity, price,
    is_combo, time_in_force, unit_prices, costs, filled, decision, reason, allowed_quantity,
    detail, state, decided_at, closed_at, replaces, replace_pending)
  values (
    p.account_id, p.client_order_id, p.agent,
    case when (legs[1]).underlying_id = all (array(
        select l.underlying_id from pg_catalog.unnest(legs) as l))
      then (legs[1]).underlying_id else 0 end,
    p.instrument_ids, p.ratios, p.quantity, p.price, p.is_combo, p.time_in_force,
    array(select l.unit_price from pg_catalog.unnest(legs) as l), risk_private.costs(p, legs),
    p.filled,
    case when v_reason is null then 'ACCEPTED' else 'REJECTED' end, v_reason,
    case when v_reason is null then p.quantity else coalesce(v_allowed, 0) end,
    risk_private.explain(checks), case when v_reason is null then 'ACCEPTED' else 'REJECTED' end,
    at,
    case when v_reason is null then null else at end, p.replaces, p.replaces is not null
      and v_reason is null);
  return v_reason;
end
$$;
comment on function risk_private.insert_order(
  risk_private.proposal, risk_private.leg[], risk_private.risk_check[], timestamptz) is
  'Stores the decision that the checks make, and returns the reason of a rejection, NULL of an '
  'acceptance.';

create function risk_private.lock_counters(changes risk_private.change[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.ensure_counters(changes);
  perform from risk_private.counters as c
  where c.counter_id = any (array(select x.counter_id from pg_catalog.unnest(changes) as x))
  order by c.counter_id
  for no key update;
end
$$;
comment on function risk_private.lock_counters(risk_private.change[]) is
  'Locks counters, ascending, making those that are missing.';

-- The caller has locked the account and the counters of the whole chain.
create function risk_private.decide_locked(p risk_private.proposal) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := risk_private.clock();
  v_legs risk_private.leg[] := risk_private.legs(p, v_at);
  v_movements risk_private.movement[] := risk_private.opening_of(p, v_legs);
  v_changes risk_private.change[];
  v_before risk_private.working_legs[] := risk_private.reserved(p.account_id, array[p.replaces]);
begin
  if risk_private.insert_order(
    p, v_legs, risk_private.checks(p, v_at), v_at) is not null then
    return;
  end if;
  v_changes := array(select x from risk_private.changes(v_movements, true, v_at) as x);
  perform risk_private.move_positions(v_movements);
  if not risk_private.move_counters(v_changes) then
    perform risk_private.fail('RK500', 'a counter is missing', v_changes::text,
      'Run risk.verify_counters().');
  end if;
  perform risk_private.move_exposures(p.account_id, v_movements, v_before,
    risk_private.working_legs_of(p, v_legs));
  perform risk_private.renew_obligations(p.account_id, array(
    select distinct l.underlying_id from pg_catalog.unnest(v_legs) as l));
  perform risk_private.number_acceptances(
    risk_private.rate_changes(v_changes), v_at);
  if exists (select from pg_catalog.unnest(v_changes) as x where x.keeps_fingerprints) then
    insert into risk_private.recent_orders as r (account_id, fingerprint, accepted_at)
    values (p.account_id, risk_private.fingerprint(p.instrument_ids, p.ratios, p.quantity, p.price),
      v_at)
    on conflict (account_id, fingerprint) do update set accepted_at = excluded.accepted_at;
  end if;
end
$$;
comment on function risk_private.decide_locked(risk_private.proposal) is
  'Judges a proposal and stores the decision.';

create function risk_private.is_known(p risk_private.proposal) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select from risk_private.orders as o
    where o.account_id = p.account_id and o.client_order_id = p.client_order_id);
end
$$;
comment on function risk_private.is_known(risk_private.proposal) is
  'Whether the id was decided before.';

-- Lock order: accounts ascending, then the counters of all chains ascending. A rejection is found
-- before parents are locked.
create function risk_private.decide(proposals risk_private.proposal[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_changes risk_private.change[] := '{}';
  v_at timestamptz;
  v_legs risk_private.leg[];
  v_checks risk_private.risk_check[];
  p risk_private.proposal;
begin
  if pg_catalog.cardinality(proposals) = 1 then
    p := proposals[1];
    v_at := risk_private.clock();
    v_legs := risk_private.legs(p, v_at);
    v_checks := risk_private.checks(p, v_at);
    if exists (select from pg_catalog.unnest(v_checks) as c where c.status = 'FAIL') then
      perform risk_private.insert_order(p, v_legs, v_checks, v_at);
      return;
    end if;
  end if;
  foreach p in array proposals loop
    v_at := risk_private.clock();
    v_changes := v_changes || array(
      select x from risk_private.changes(risk_private.opening_of(p, risk_private.legs(p, v_at)),
        true, v_at) as x);
  end loop;
  perform risk_private.lock_counters(v_changes);
  foreach p in array proposals loop
    if not risk_private.is_known(p) then
      perform risk_private.decide_locked(p);
    end if;
  end loop;
end
$$;
comment on function risk_private.decide(risk_private.proposal[]) is
  'Decides proposals whose accounts are locked, in their order, each on its own.';

create function risk_private.is_same_order(
  o risk_private.orders, symbols text[], sides text[], ratios numeric[], quantity numeric,
  price numeric, agent text,
  time_in_force text, is_combo boolean)
returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return o.replaces is null and o.quantity = is_same_order.quantity and o.price is not distinct
    from is_same_order.price
    and o.agent is not distinct from is_same_order.agent
      and o.time_in_force = is_same_order.time_in_force
    and o.is_combo = is_same_order.is_combo
      and pg_catalog.cardinality(o.ratios) = pg_catalog.cardinality(symbols)
    and not exists (
      select from unnest(symbols, sides, ratios) as t (symbol, side, ratio)
      where not exists (
        select from risk_private.instruments as i
        where i.symbol = t.symbol
          and o.ratios[pg_catalog.array_position(o.instrument_ids, i.instrument_id)]
          = case t.side when 'buy' then t.ratio when 'sell' then -t.ratio end));
end
$$;
comment on function risk_private.is_same_order(
  risk_private.orders, text[], text[], numeric[], numeric, numeric, text, text, boolean) is
  'Whether a stored order has this content; the order of legs does not matter.';

create function risk_private.stored_order(account text, client_order_id text)
  returns risk_private.orders
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  v_order risk_private.orders;
begin
  select o.* into v_order
  from risk_private.scopes as s
  join risk_private.orders as o on o.account_id = s.scope_id
    and o.client_order_id = stored_order.client_order_id
  where s.code = account
    and o.decided_xid is distinct from pg_catalog.pg_current_xact_id_if_assigned()
    and risk_private.may_trade(s.chain);
  return v_order;
end
$$;
comment on function risk_private.stored_order(text, text) is
  'The order of that id, if it was decided in a transaction other than this one and the caller may '
  'trade its account.';

create function risk_private.answer_of(account text, o risk_private.orders)
  returns risk_private.decision
language sql immutable
return row(
  risk_private.order_id(account, o.client_order_id), o.decision, o.reason, o.allowed_quantity,
  coalesce(o.detail, '{"violations": [], "warnings": []}'::jsonb))::risk_private.decision;
comment on function risk_private.answer_of(text, risk_private.orders) is
  'The answer that a stored order gives.';

create function risk_private.refuse_other_content(client_order_id text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.fail('RK409',
    pg_catalog.format('client_order_id %L was used for another order', client_order_id),
    'argument: client_order_id', 'Ask again with the same content, or use a new id.');
end
$$;
comment on function risk_private.refuse_other_content(text) is
  'Raises RK409: an id names one order for ever.';

create function risk_private.answer(
  account text, client_order_id text, symbols text[], sides text[], ratios numeric[],
  quantity numeric, price numeric,
  agent text, time_in_force text, is_combo boolean)
returns risk_private.decision
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_order risk_private.orders := risk_private.stored_order(account, client_order_id);
begin
  if v_order.decision is null then
    return null;
  end if;
  if risk_private.is_same_order(
    v_order, symbols, sides, ratios, quantity, price, agent, time_in_force,
    is_combo) is not true then
    perform risk_private.refuse_other_content(client_order_id);
  end if;
  perform risk_private.flush();
  return risk_private.answer_of(account, v_order);
end
$$;
comment on function risk_private.answer(
  text, text, text[], text[], numeric[], numeric, numeric, text, text, boolean) is
  'The stored decision, durable once the transaction that calls this commits; NULL where none was '
  'committed before this transaction or the caller may not trade the account. Errors: RK409 same '
  'id with other content.';

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
