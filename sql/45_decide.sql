-- Deciding proposals with everything spelled out: accounts are locked, nothing is answered yet.

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
