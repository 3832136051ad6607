-- How orders and fills move positions and counters. One place computes the increments (changes),
-- one place adds them (move_positions, move_counters); deciding, filling, releasing and the roll of
-- the day all go through them. Only 41_accept.sql has forms of its own, for speed.
--
-- Lock order, everywhere: the counter row (leaf, 0, 0) of each account, ascending; then any row of
-- those accounts; then counters of parents, ascending. What depends on parents is read in a
-- statement begun after the accounts are locked.

create type risk_private.movement as (
  account_id integer,
  instrument_id integer,
  quantity numeric,
  open_buy numeric,
  open_sell numeric,
  traded_notional numeric,
  open_orders integer,
  accepted_orders integer,
  units risk_private.unit_values
);
comment on type risk_private.movement is
  'What happens to one account''s instrument: increments, and the unit values at which a flat '
  'position is picked up. Arrays of it hold each (account, instrument) once.';

create type risk_private.change as (
  counter_id bigint,
  scope_id integer,
  dimension integer,
  key_id integer,
  quantity numeric,
  open_buy numeric,
  open_sell numeric,
  gross_position numeric,
  gross_notional numeric,
  traded_notional numeric,
  open_orders integer,
  open_positions integer,
  accepted_orders integer,
  keeps_rate boolean,
  keeps_fingerprints boolean,
  level risk_private.counter_level
);
comment on type risk_private.change is
  'Increments to one counter row, whether acceptances there are to be remembered, and (only where'
  ' an order is accepted without explanation) the warning levels that must not be reached.';

create function risk_private.movement(
  account_id integer, instrument_id integer, quantity numeric default 0, open_buy numeric default 0,
  open_sell numeric default 0, traded_notional numeric default 0, open_orders integer default 0,
  accepted_orders integer default 0, units risk_private.unit_values default null)
returns risk_private.movement
language sql immutable
return row(account_id, instrument_id, quantity, open_buy, open_sell, traded_notional, open_orders,
           accepted_orders,
           risk_private.valued(units, instrument_id, 0))::risk_private.movement;
comment on function risk_private.movement(
  integer, integer, numeric, numeric, numeric, numeric, integer, integer,
  risk_private.unit_values) is
  'A movement; what is not given is 0.';

create function risk_private.worst_case(quantity numeric, open_buy numeric, open_sell numeric)
returns numeric
language sql immutable
return greatest(quantity + open_buy, open_sell - quantity);
comment on function risk_private.worst_case(numeric, numeric, numeric) is
  'max(abs(q + OB), abs(q - OS)): open buys and sells never net. As q + OB >= q - OS, the larger '
  'of the two sides.';

create function risk_private.changes(
  movements risk_private.movement[], one_order boolean, at timestamptz)
returns setof risk_private.change
language sql stable
begin atomic
  select
    risk_private.counter_id(b.scope_id, d.dimension, d.key_id), b.scope_id, d.dimension, d.key_id,
    sum(b.quantity), sum(b.open_buy), sum(b.open_sell), sum(b.after - b.before),
    sum(b.gross_notional), sum(b.traded_notional),
    case when one_order then max(b.open_orders) else sum(b.open_orders) end::integer,
    sum(b.opened)::integer,
    case when one_order then max(b.accepted_orders) else sum(b.accepted_orders) end::integer,
    bool_or(b.accepted_orders > 0 and coalesce(w.keeps_rate, false)),
    bool_or(b.keeps_fingerprints), null::risk_private.counter_level
  from (
    select
      m.*, s.scope_id, s.tracks_sector, s.tracks_underlying, s.tracks_instrument,
      (m.after - m.before) * case when m.before = 0 then (m.units).unit_notional
        else m.carried_at end as gross_notional,
      (m.after <> 0)::integer - (m.before <> 0)::integer as opened,
      m.accepted_orders > 0 and exists (
        select from (
          values (0, 0), (1, m.sector_id), (2, m.underlying_id), (3, m.instrument_id)
        ) as k (dimension, key_id)
        join risk_private.warning_levels as f
          on f.scope_id = s.scope_id and f.dimension = k.dimension and f.key_id = k.key_id
          and f.valid_from <= at and at < f.valid_until
        where f.keeps_fingerprints) as keeps_fingerprints
    from (
      -- offset 0 keeps the planner from repeating these expressions wherever they are used
      select
        m.*, leaf.chain, i.sector_id, i.underlying_id, p.unit_notional as carried_at,
        coalesce(risk_private.worst_case(p.quantity, p.open_buy, p.open_sell), 0) as before,
        risk_private.worst_case(
          coalesce(p.quantity, 0) + m.quantity, coalesce(p.open_buy, 0) + m.open_buy,
          coalesce(p.open_sell, 0) + m.open_sell) as after
      from unnest(movements) as m
      join risk_private.scopes as leaf on leaf.scope_id = m.account_id
      join risk_private.instruments as i on i.instrument_id = m.instrument_id
      left join risk_private.positions as p
        on p.account_id = m.account_id and p.instrument_id = m.instrument_id
      offset 0
    ) as m
    join risk_private.scopes as s on s.scope_id = any (m.chain)
    offset 0
  ) as b
  cross join lateral (
    values (0, 0, true), (1, b.sector_id, b.tracks_sector and b.sector_id is not null),
      (2, b.underlying_id, b.tracks_underlying), (3, b.instrument_id, b.tracks_instrument)
  ) as d (dimension, key_id, is_tracked)
  left join risk_private.warning_levels as w
    on w.scope_id = b.scope_id and w.dimension = d.dimension and w.key_id = d.key_id
    and w.valid_from <= at and at < w.valid_until
  where d.is_tracked
  group by b.scope_id, d.dimension, d.key_id;
end;
comment on function risk_private.changes(risk_private.movement[], boolean, timestamptz) is
  'What the movements add to each counter row of their chains. one_order: all movements are legs '
  'of one order, which counts once.';

create function risk_private.rate_changes(changes risk_private.change[])
returns risk_private.rate_change[]
language sql immutable
set search_path = pg_catalog, pg_temp
begin atomic
  select pg_catalog.array_agg(row(
    x.counter_id, x.accepted_orders, (x.level).order_rate,
    (x.level).order_rate_minute)::risk_private.rate_change)
  from unnest(changes) as x where x.keeps_rate;
end;
comment on function risk_private.rate_changes(risk_private.change[]) is
  'Those changes that a rate looks back on; NULL: none.';

create function risk_private.move_positions(movements risk_private.movement[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.positions as p (
    account_id, instrument_id, underlying_id, quantity, open_buy, open_sell, unit_value,
    unit_notional, unit_delta, unit_gamma, unit_dollar_delta, unit_dollar_gamma, unit_vega,
    unit_theta, has_greeks)
  select m.account_id, m.instrument_id, i.underlying_id, m.quantity, m.open_buy, m.open_sell,
    u.unit_value, u.unit_notional, u.unit_delta, u.unit_gamma, u.unit_dollar_delta,
    u.unit_dollar_gamma, u.unit_vega, u.unit_theta, u.has_greeks
  from unnest(movements) as m
  join risk_private.instruments as i on i.instrument_id = m.instrument_id
  left join risk_private.positions as h
    on h.account_id = m.account_id and h.instrument_id = m.instrument_id
  cross join lateral risk_private.carried(h, m.units) as u
  on conflict (account_id, instrument_id) do update set
    quantity = p.quantity + excluded.quantity,
    open_buy = p.open_buy + excluded.open_buy,
    open_sell = p.open_sell + excluded.open_sell,
    unit_value = excluded.unit_value,
    unit_notional = excluded.unit_notional,
    unit_delta = excluded.unit_delta,
    unit_gamma = excluded.unit_gamma,
    unit_dollar_delta = excluded.unit_dollar_delta,
    unit_dollar_gamma = excluded.unit_dollar_gamma,
    unit_vega = excluded.unit_vega,
    unit_theta = excluded.unit_theta,
    has_greeks = excluded.has_greeks;
end
$$;
comment on function risk_private.move_positions(risk_private.movement[]) is
  'Adds movements to positions. The caller has locked the accounts.';

create function risk_private.move_counters(changes risk_private.change[]) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_moved integer;
begin
  update risk_private.counters as c set
    quantity = c.quantity + x.quantity,
    open_buy = c.open_buy + x.open_buy,
    open_sell = c.open_sell + x.open_sell,
    gross_position = c.gross_position + x.gross_position,
    gross_notional = c.gross_notional + x.gross_notional,
    traded_notional = c.traded_notional + x.traded_notional,
    open_orders = c.open_orders + x.open_orders,
    open_positions = c.open_positions + x.open_positions,
    accepted_orders = c.accepted_orders + x.accepted_orders
  from unnest(changes) as x
  where c.counter_id = x.counter_id;
  get diagnostics v_moved = row_count;
  return v_moved = cardinality(changes);
end
$$;
comment on function risk_private.move_counters(risk_private.change[]) is
  'Adds changes to counters, which the caller has locked. Returns false where a row is missing.';

create function risk_private.lock_account(account_id integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from risk_private.counters as c
  where c.counter_id = risk_private.counter_id(account_id) for no key update;
end
$$;
comment on function risk_private.lock_account(integer) is
  'Takes the lock under which everything of an account changes.';

-- Rows that others may be making at this moment are waited for, ascending, before any other parent
-- is locked.
create function risk_private.ensure_counters(changes risk_private.change[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.counters (counter_id, scope_id, dimension, key_id)
  select x.counter_id, x.scope_id, x.dimension, x.key_id
  from pg_catalog.unnest(changes) as x
  where not exists (select from risk_private.counters as c where c.counter_id = x.counter_id)
  order by x.counter_id
  on conflict (counter_id) do nothing;
end
$$;
comment on function risk_private.ensure_counters(risk_private.change[]) is
  'Adds the counters that a first trade in an instrument needs. Zero is their value: while a scope '
  'tracks a dimension, every key that anybody below has traded has its row.';

-- Lock order: the caller holds the accounts; then parents ascending.
create function risk_private.move(movements risk_private.movement[], one_order boolean) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_changes risk_private.change[] := array(
    select x from risk_private.changes(movements, one_order, risk_private.clock()) as x
    order by x.counter_id);
begin
  perform risk_private.lock_counters(v_changes);
  perform risk_private.move_positions(movements);
  if not risk_private.move_counters(v_changes) then
    perform risk_private.fail('RK500', 'a counter is missing', v_changes::text,
      'Run risk.verify_counters().');
  end if;
end
$$;
comment on function risk_private.move(risk_private.movement[], boolean) is
  'Applies movements that are facts (fills, releases, revaluations), whatever the limits say.';
