-- The lean path of a batch: accept all of its orders at once, or leave them. If the sum of them
-- stays below every warning level, so does each in turn.

create type risk_private.request as (
  item integer,
  account text,
  client_order_id text,
  symbol text,
  side text,
  quantity numeric,
  price numeric,
  agent text,
  time_in_force text
);
comment on type risk_private.request is 'A single-leg order as it was asked for.';

create type risk_private.entry as (
  account_id integer,
  client_order_id text,
  instrument_id integer,
  sector_id integer,
  underlying_id integer,
  sign integer,
  quantity numeric,
  price numeric,
  agent text,
  time_in_force text,
  unit_price numeric,
  reference numeric
);
comment on type risk_private.entry is 'A single-leg order, resolved and priced.';

create function risk_private.entries(requests risk_private.request[], at timestamptz)
returns table (entry risk_private.entry, is_plain boolean)
language sql stable
begin atomic
  select
    row(
      s.scope_id, r.client_order_id, i.instrument_id, i.sector_id, i.underlying_id, g.sign,
      r.quantity, r.price, r.agent, r.time_in_force, n.unit_price,
      g.reference)::risk_private.entry,
    coalesce(
      i.status = 'ACTIVE' and s.may_trade and s.is_alive
      and risk_private.is_code(r.client_order_id)
      and (r.agent is null or risk_private.is_code(r.agent))
      and risk_private.is_quantity(r.quantity) and r.quantity % i.lot = 0
      and (r.price is null or risk_private.is_price(r.price, i.tick, i.allow_negative_price))
      and r.side in ('buy', 'sell') and r.time_in_force in ('DAY', 'GTC')
      and (i.expiry is null or i.expiry >= risk_private.trading_date())
      and risk_private.is_fresh(m.as_of, s.max_mark_age, at)
      and (i.currency = risk_private.base_currency()
        or risk_private.is_fresh(f.as_of, s.max_mark_age, at))
      and (s.max_mark_age = 0 or u.instrument_id = i.instrument_id
        or risk_private.is_fresh(u.as_of, s.max_mark_age, at))
      and not exists (
        select from risk_private.trading_states as t
        where t.scope_id = any (s.chain) and t.underlying_id in (0, i.underlying_id)
          and t.state <> 'ACTIVE')
      and (l.levels).types & s.required_types = s.required_types
      and r.quantity < (l.levels).order_quantity
      and r.quantity * n.unit_price < (l.levels).order_notional
      and ((l.levels).price_collar_pct = 'Infinity' or r.price is null
        or (r.price - g.reference) * g.sign * 100
          <= (l.levels).price_collar_pct * abs(g.reference)),
      false)
  from unnest(requests) as r
  join (
    select
      s.*, risk_private.is_owner() or exists (
        select from risk_private.granted_scopes as g where g.scope_id = any (s.chain)) as may_trade,
      s.max_heartbeat_age = 0 or (
        risk_private.is_fresh(h.beat_at, s.max_heartbeat_age, at)
        and risk_private.is_fresh(h.inputs_as_of, s.max_heartbeat_age, at)) as is_alive
    from risk_private.scopes as s
    cross join risk_private.heartbeat as h
    where s.code = any (array(select distinct a.account from unnest(requests) as a))
    offset 0
  ) as s on s.code = r.account
  join risk_private.account_levels as a on a.account_id = s.scope_id
  join risk_private.instruments as i on i.symbol = r.symbol
  join risk_private.marks as m on m.instrument_id = i.instrument_id
  join risk_private.fx_rates as f on f.currency = i.currency
  left join risk_private.marks as u on u.instrument_id = i.underlying_id
  cross join lateral (
    select
      case r.side when 'buy' then 1 else -1 end as sign,
      coalesce(case r.side when 'buy' then m.ask else m.bid end, m.price) as reference
  ) as g
  cross join lateral (
    select abs(case when r.price is not null and (r.side = 'buy' or r.price > g.reference)
                 then r.price else g.reference end) * i.multiplier * f.rate as unit_price
  ) as n
  cross join lateral (
    select case when a.is_narrowed
      then risk_private.levels_of(a, i.sector_id, i.underlying_id, i.instrument_id, at)
      else a end as levels
    offset 0
  ) as l
  order by r.item;
end;
comment on function risk_private.entries(risk_private.request[], timestamptz) is
  'Resolves single-leg orders: one row for each whose account, symbol and prices are known. '
  'is_plain: well formed, allowed, fresh, active, not halted, and by itself below every level of '
  'one order.';

create type risk_private.reservation as (
  changes risk_private.change[],
  is_plain boolean,
  keeps_fingerprints boolean,
  duplicate_window numeric
);
comment on type risk_private.reservation is
  'What orders change in each counter, ascending; whether the accounts'' own position limits are '
  'far enough; and what is to be remembered of them.';

create function risk_private.reserve(entries risk_private.entry[], at timestamptz)
returns risk_private.reservation
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_reservation risk_private.reservation;
begin
  with movements as (
    select
      e.account_id, e.instrument_id, e.sector_id, e.underlying_id,
      coalesce(sum(e.quantity) filter (where e.sign = 1), 0) as open_buy,
      coalesce(sum(e.quantity) filter (where e.sign = -1), 0) as open_sell,
      sum(e.quantity * e.unit_price) as traded_notional, count(*)::integer as orders
    from unnest(entries) as e
    group by e.account_id, e.instrument_id, e.sector_id, e.underlying_id
  ), carried as (
    -- Positions as they were. offset 0 keeps the planner from repeating what units are made of
    -- wherever one is used, and from joining positions otherwise than row by row.
    select m.*, (p.held).quantity, (p.held).open_buy as was_open_buy,
      (p.held).open_sell as was_open_sell,
      risk_private.carried(p.held, u.units) as units
    from movements as m
    left join lateral (
      select p as held from risk_private.positions as p
      where p.account_id = m.account_id and p.instrument_id = m.instrument_id
      offset 0
    ) as p on true
    left join lateral (
      select v as units from risk_private.unit_values as v
      where v.instrument_id = m.instrument_id
        and coalesce(risk_private.worst_case((p.held).quantity, (p.held).open_buy,
          (p.held).open_sell), 0) = 0
      offset 0
    ) as u on true
    offset 0
  ), moved as (
    insert into risk_private.positions as p (
      account_id, instrument_id, underlying_id, open_buy, open_sell, unit_value, unit_notional,
      unit_delta, unit_gamma, unit_dollar_delta, unit_dollar_gamma, unit_vega, unit_theta,
      has_greeks)
    select m.account_id, m.instrument_id, m.underlying_id, m.open_buy, m.open_sell, u.unit_value,
      u.unit_notional, u.unit_delta, u.unit_gamma, u.unit_dollar_delta, u.unit_dollar_gamma,
      u.unit_vega, u.unit_theta, u.has_greeks
    from carried as m
    cross join lateral (select (m.units).*) as u
    on conflict (account_id, instrument_id) do update set
      open_buy = p.open_buy + excluded.open_buy,
      open_sell = p.open_sell + excluded.open_sell,
      unit_value = excluded.unit_value, unit_notional = excluded.unit_notional,
      unit_delta = excluded.unit_delta, unit_gamma = excluded.unit_gamma,
      unit_dollar_delta = excluded.unit_dollar_delta,
      unit_dollar_gamma = excluded.unit_dollar_gamma, unit_vega = excluded.unit_vega,
      unit_theta = excluded.unit_theta, has_greeks = excluded.has_greeks
  ), judged as (
    select
      m.sector_id, m.underlying_id, m.instrument_id, m.open_buy, m.open_sell, m.traded_notional,
      m.orders, h.after - h.before as gross_position,
      (h.after - h.before) * (m.units).unit_notional as gross_notional,
      (h.before = 0)::integer as opened,
      (h.long + m.open_buy < l.long_position
        and h.short + m.open_sell < l.short_position
        and (not l.self_cross or (
          (m.open_buy = 0 or m.open_sell + coalesce(m.was_open_sell, 0) = 0)
          and (m.open_sell = 0 or m.open_buy + coalesce(m.was_open_buy, 0) = 0)))) is true
        as is_plain,
      l.keeps_fingerprints, l.duplicate_window, l.counters
    from carried as m
    join risk_private.account_levels as a on a.account_id = m.account_id
    cross join lateral (
      select a.* where not a.is_narrowed
      union all
      select n.* from risk_private.levels_of(
        a, m.sector_id, m.underlying_id, m.instrument_id, at) as n
      where a.is_narrowed
    ) as l
    cross join lateral (
      select w.long, w.short, greatest(w.long, w.short) as before,
        greatest(w.long + m.open_buy, w.short + m.open_sell) as after
      from (
        select coalesce(m.quantity + m.was_open_buy, 0) as long,
          coalesce(m.was_open_sell - m.quantity, 0) as short
        offset 0
      ) as w
      offset 0
    ) as h
  ), increments as (
    -- Narrow rows, for they are sorted.
    select
      l.counter_id | case l.dimension when 0 then 0 when 1 then j.sector_id
        when 2 then j.underlying_id else j.instrument_id end as counter_id,
      j.open_buy, j.open_sell, j.gross_position, j.gross_notional, j.traded_notional, j.orders,
      j.opened, j.is_plain, j.keeps_fingerprints, j.duplicate_window, l as level
    from judged as j
    cross join lateral unnest(j.counters) as l
    where l.dimension <> 1 or j.sector_id is not null
    offset 0
  ), summed as (
    select
      i.counter_id, sum(i.open_buy) as open_buy, sum(i.open_sell) as open_sell,
      sum(i.gross_position) as gross_position, sum(i.gross_notional) as gross_notional,
      sum(i.traded_notional) as traded_notional, sum(i.orders)::integer as orders,
      sum(i.opened)::integer as opened, bool_and(i.is_plain) as is_plain,
      bool_or(i.keeps_fingerprints) as keeps_fingerprints,
      max(i.duplicate_window) as duplicate_window,
      any_value(i.level) as level
    from increments as i
    group by i.counter_id
  )
  select
    array_agg(row(
      s.counter_id, null, null, null, 0, s.open_buy, s.open_sell, s.gross_position,
      s.gross_notional, s.traded_notional, s.orders, s.opened, s.orders, (s.level).keeps_rate,
      null, s.level)::risk_private.change order by s.counter_id),
    bool_and(s.is_plain), bool_or(s.keeps_fingerprints),
    max(s.duplicate_window)
  into v_reservation
  from summed as s;
  return v_reservation;
end
$$;
comment on function risk_private.reserve(risk_private.entry[], timestamptz) is
  'Moves the positions of all entries and tells what follows from it.';

-- Lock order: accounts ascending, then counters ascending.
create function risk_private.accept(accounts text[], requests risk_private.request[])
returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_bitmapscan = off
as $$
declare
  v_at timestamptz;
  v_entries risk_private.entry[];
  v_is_doubtful boolean;
  v_keeps_exposures boolean;
  v_keeps_obligations boolean;
  v_is_plain boolean;
  v_reservation risk_private.reservation;
  v_moved integer;
begin
  perform risk_private.begin_change();
  perform from risk_private.scopes as s
  join risk_private.counters as c on c.counter_id = risk_private.counter_id(s.scope_id)
  where s.code = any (accounts)
  order by c.counter_id
  for no key update of c;
  v_at := risk_private.clock();
  perform risk_private.refresh_account_levels(a.account_id, v_at)
  from risk_private.scopes as s
  join risk_private.account_levels as a on a.account_id = s.scope_id
  where s.code = any (accounts) and not (v_at >= a.valid_from and v_at < a.valid_until);
  select
    bool_or(a.needs_rates and not risk_private.has_fresh_rates(s.max_mark_age, v_at)
      or a.losses is not null and not risk_private.has_plain_losses(a.losses)),
    bool_or(a.exposures is not null), bool_or(a.obligations is not null)
  into v_is_doubtful, v_keeps_exposures, v_keeps_obligations
  from risk_private.scopes as s
  join risk_private.account_levels as a on a.account_id = s.scope_id
  where s.code = any (accounts);
  if v_is_doubtful is not false then
    return false;
  end if;
  select array_agg(e.entry), bool_and(e.is_plain) into v_entries, v_is_plain
  from risk_private.entries(requests, v_at) as e;
  if (v_is_plain and cardinality(v_entries) = cardinality(requests)) is not true then
    return false;
  end if;
  -- offset 0: ids are looked up one by one, whatever the statistics say.
  if exists (
    select from unnest(v_entries) as e
    cross join lateral (
      select from risk_private.orders as o
      where o.account_id = e.account_id and o.client_order_id = e.client_order_id
      offset 0
    ) as o) then
    return false;
  end if;
  insert into risk_private.orders (
    account_id, client_order_id, agent, underlying_id, instrument_ids, ratios, quantity, price,
    is_combo, time_in_force, unit_prices, costs, filled, decision, allowed_quantity, state,
    decided_at)
  select e.account_id, e.client_order_id, e.agent, e.underlying_id, array[e.instrument_id],
    array[e.sign], e.quantity, e.price, false, e.time_in_force, array[e.unit_price],
    case when e.price is null then array[e.reference] end, array[0::numeric],
    'ACCEPTED', e.quantity, 'ACCEPTED', v_at
  from unnest(v_entries) as e;
  v_reservation := risk_private.reserve(v_entries, v_at);
  if v_reservation.is_plain is not true then
    return true;
  end if;
  update risk_private.counters as c set
    open_buy = c.open_buy + x.open_buy,
    open_sell = c.open_sell + x.open_sell,
    gross_position = c.gross_position + x.gross_position,
    gross_notional = c.gross_notional + x.gross_notional,
    traded_notional = c.traded_notional + x.traded_notional,
    open_orders = c.open_orders + x.open_orders,
    open_positions = c.open_positions + x.open_positions,
    accepted_orders = c.accepted_orders + x.accepted_orders
  from unnest(v_reservation.changes) as x
  where c.counter_id = x.counter_id and risk_private.is_below(
    c, x.level, x.open_buy, x.open_sell, x.gross_position, x.gross_notional, x.traded_notional,
    x.open_orders, x.open_positions);
  get diagnostics v_moved = row_count;
  if v_moved < cardinality(v_reservation.changes) then
    return true;
  end if;
  if v_keeps_exposures and not risk_private.reserve_exposures(v_entries, v_at) then
    return true;
  end if;
  if v_keeps_obligations and not risk_private.reserve_obligations(v_entries, v_at) then
    return true;
  end if;
  if not risk_private.number_acceptances(
    risk_private.rate_changes(v_reservation.changes), v_at) then
    return true;
  end if;
  return v_reservation.keeps_fingerprints and exists (
    select from unnest(v_entries) as e
    where not risk_private.remember(
      e.account_id,
      risk_private.fingerprint(array[e.instrument_id], array[e.sign], e.quantity, e.price),
      v_reservation.duplicate_window, v_at));
end
$$;
comment on function risk_private.accept(text[], risk_private.request[]) is
  'Accepts all of the single-leg orders where that is plain. Returns true where the transaction '
  'must be rolled back: an id was used, or there is no room; false says nothing about the orders.';
