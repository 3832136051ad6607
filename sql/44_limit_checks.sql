-- Checks against limits. A limit is inclusive. Position, exposure and activity are judged by
-- change: a check fails only where the projected value is above the limit and above the current
-- one, so that nothing blocks a reduction.

create function risk_private.order_checks(
  p risk_private.proposal, legs risk_private.leg[], limits risk_private.applicable_limit[],
  step numeric)
returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_checks risk_private.risk_check[] := '{}';
  v_unit_price numeric := (select sum(l.ratio * l.unit_price) from pg_catalog.unnest(legs) as l);
  v_reference numeric := (
    select case when count(*) = count(l.reference)
      then sum(case when p.is_combo then l.sign else 1 end * l.ratio * l.reference) end
    from pg_catalog.unnest(legs) as l);
  v_floor numeric := (select sum(l.floor) from pg_catalog.unnest(legs) as l);
  v_beyond numeric := case when p.is_combo or (legs[1]).sign > 0 then p.price - v_reference
    else v_reference - p.price end;
begin
  v_checks := v_checks || array(
  select risk_private.limit_check(k, -1, g.ratio * p.quantity, true,
    case when g.ratio * p.quantity <= k.amount then p.quantity
         else risk_private.largest_quantity(k.amount, array[g.ratio], array[0::numeric], step,
           p.quantity) end, p.quantity)
  from pg_catalog.unnest(limits) as k
  cross join lateral (select legs[k.leg] as leg) as x
  cross join lateral (select (x.leg).ratio as ratio) as g
  where k.limit_type = 'order_quantity');

  v_checks := v_checks || array(
  select risk_private.limit_check(k.l, -1, v_unit_price * p.quantity, true,
    case when v_unit_price * p.quantity <= (k.l).amount then p.quantity
         else risk_private.largest_quantity((k.l).amount, array[v_unit_price], array[0::numeric],
           step, p.quantity) end,
    p.quantity)
  from (
    select distinct on (u.scope_id, u.dimension, u.key_id) u as l
    from pg_catalog.unnest(limits) as u where u.limit_type = 'order_notional'
  ) as k);

  v_checks := v_checks || array(
  select row(
    'price_collar_pct', (k.l).scope, (k.l).dimension_name, 'price_collar_pct',
    (k.l).amount, null, b.pct, (k.l).amount - b.pct,
    case when b.fits then p.quantity else 0 end, case when b.fits then 'PASS' else 'FAIL' end,
    case when b.fits then null else 'PRICE_OUT_OF_BAND' end)::risk_private.risk_check
  from (
    select distinct on (u.scope_id) u as l
    from pg_catalog.unnest(limits) as u where u.limit_type = 'price_collar_pct'
    order by u.scope_id, u.amount
  ) as k
  cross join lateral (
    select
      coalesce(v_beyond * 100 <= (k.l).amount * abs(v_reference) or v_beyond <= v_floor,
        false) as fits,
      pg_catalog.round(v_beyond * 100 / nullif(abs(v_reference), 0), 6) as pct
  ) as b
  where p.price is not null and v_reference is not null);
  return v_checks;
end
$$;
comment on function risk_private.order_checks(
  risk_private.proposal, risk_private.leg[], risk_private.applicable_limit[], numeric) is
  'Limits on the order itself: quantity of each leg, notional of the whole, distance of the price '
  'from the reference.';

create function risk_private.position_checks(
  p risk_private.proposal, legs risk_private.leg[], limits risk_private.applicable_limit[],
  step numeric)
returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_checks risk_private.risk_check[] := '{}';
begin
  v_checks := v_checks || array(
  select risk_private.limit_check(k, v.current_value, v.projected_value, v.binds,
    case when not v.binds then p.quantity
         else risk_private.largest_quantity(greatest(0, k.amount - case when x.sign > 0 then h.long
           else h.short end),
                                            array[x.ratio], array[x.base], step, p.quantity) end,
                                              p.quantity)
  from pg_catalog.unnest(limits) as k
  cross join lateral (
    select l.*, greatest(0, l.ratio * p.quantity - l.base) as added
      from (select (legs[k.leg]).*) as l
  ) as x
  left join risk_private.counters as c
    on c.counter_id = risk_private.counter_id(k.scope_id, 3, x.instrument_id)
      and k.scope_id <> p.account_id
  cross join lateral (
    select
      case when k.scope_id = p.account_id then x.quantity + x.open_buy
        else coalesce(c.quantity + c.open_buy, 0) end
        as long,
      case when k.scope_id = p.account_id then x.open_sell - x.quantity
        else coalesce(c.open_sell - c.quantity, 0) end
        as short
  ) as h
  cross join lateral (
    select h.long + case when x.sign > 0 then x.added else 0 end as long,
      h.short + case when x.sign < 0 then x.added else 0 end as short
  ) as a
  cross join lateral (
    select
      case k.limit_type when 'long_position' then true when 'short_position' then false
        else a.long >= a.short end
        as is_long,
      case when x.sign > 0 then a.long > k.amount and x.added > 0 else a.short > k.amount
        and x.added > 0 end as is_over
  ) as b
  cross join lateral (
    -- the side that the order enlarges decides; the larger one is shown where neither fails
    select
      case k.limit_type
        when 'long_position' then x.sign > 0 when 'short_position' then x.sign < 0 else true end
          and b.is_over as binds,
      case when b.is_over and k.limit_type = 'net_position' then x.sign > 0
        else b.is_long end as shows_long
  ) as s
  cross join lateral (
    select s.binds,
      case when s.shows_long then h.long else h.short end as current_value,
      case when s.shows_long then a.long else a.short end as projected_value
  ) as v
  where k.judged = 'instrument');
  return v_checks;
end
$$;
comment on function risk_private.position_checks(
  risk_private.proposal, risk_private.leg[], risk_private.applicable_limit[], numeric) is
  'net_position (larger of both sides), long_position (q + OB) and short_position (OS - q) of each '
  'leg''s instrument, netted across the accounts below each scope.';

create function risk_private.slack(l risk_private.leg) returns numeric
language sql immutable
return risk_private.worst_case((l).quantity, (l).open_buy, (l).open_sell)
  - case when (l).sign > 0 then (l).quantity + (l).open_buy else (l).open_sell - (l).quantity end
  + (l).base;
comment on function risk_private.slack(risk_private.leg) is
  'Up to what total quantity of a leg the worst case of its instrument stays what it is.';

-- How much each leg adds to a measure: max(0, unit x quantity - offset). A new kind of summed limit
-- is one line here.
create function risk_private.measure_of_leg(
  limit_type text, l risk_private.leg, out unit numeric, out offset_ numeric)
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_slack numeric := risk_private.slack(l);
begin
  case limit_type
    when 'gross_position' then unit := l.ratio; offset_ := v_slack;
    when 'gross_notional'
      then unit := l.ratio * l.unit_notional; offset_ := v_slack * l.unit_notional;
    when 'traded_notional' then unit := l.ratio * l.unit_price; offset_ := l.filled * l.unit_price
      + l.old_notional;
    else null;
  end case;
end
$$;
comment on function risk_private.measure_of_leg(text, risk_private.leg) is
  'The unit and offset of a leg in gross_position, gross_notional or traded_notional.';

create function risk_private.sum_checks(
  p risk_private.proposal, legs risk_private.leg[], limits risk_private.applicable_limit[],
  closable numeric,
  step numeric)
returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_checks risk_private.risk_check[] := '{}';
begin
  v_checks := v_checks || array(
  select risk_private.limit_check(g.l, c.current_value, c.current_value + m.delta,
    not (closable = p.quantity
      and (g.l).limit_type in ('traded_notional', 'open_orders', 'open_positions')),
    greatest(
      case when (g.l).limit_type in ('open_orders', 'open_positions') then 0
           when c.current_value + m.delta <= (g.l).amount then p.quantity
           else risk_private.largest_quantity(greatest(0, (g.l).amount - c.current_value), m.units,
             m.offsets, step,
                                              p.quantity) end,
      case when (g.l).limit_type in ('traded_notional', 'open_orders', 'open_positions')
        then closable else 0 end),
    p.quantity)
  from (
    select (pg_catalog.array_agg(k))[1] as l, pg_catalog.array_agg(k.leg) as numbers
    from pg_catalog.unnest(limits) as k
    where k.judged = 'sum'
    group by k.scope_id, k.limit_type, k.dimension, k.key_id
  ) as g
  left join risk_private.counters as r
    on r.counter_id = risk_private.counter_id((g.l).scope_id, (g.l).dimension, (g.l).key_id)
  cross join lateral (
    select coalesce(case (g.l).limit_type
      when 'gross_position' then r.gross_position
      when 'gross_notional' then r.gross_notional
      when 'traded_notional' then r.traded_notional
      when 'open_orders' then r.open_orders
      when 'open_positions' then r.open_positions
    end, 0) as current_value
  ) as c
  cross join lateral (
    select
      case (g.l).limit_type
        when 'open_orders' then case when p.replaces is null then 1 else 0 end
        when 'open_positions' then count(*) filter (
          where x.quantity = 0 and x.open_buy = 0 and x.open_sell = 0
            and x.ratio * p.quantity > x.base)
        else case when count(u.unit) = count(*)
          then sum(greatest(0, u.unit * p.quantity - u.offset_)) end
      end as delta,
      pg_catalog.array_agg(u.unit) as units, pg_catalog.array_agg(u.offset_) as offsets
    from pg_catalog.unnest(g.numbers) as n (leg)
    cross join lateral (select (legs[n.leg]).*) as x
    left join lateral risk_private.measure_of_leg((g.l).limit_type, legs[n.leg]) as u
      on (g.l).limit_type not in ('open_orders', 'open_positions')
  ) as m
  where m.delta is not null);
  return v_checks;
end
$$;
comment on function risk_private.sum_checks(
  risk_private.proposal, risk_private.leg[], risk_private.applicable_limit[], numeric, numeric) is
  'Limits on sums over a scope and dimension. What cannot be valued for want of a mark is refused '
  'as STALE_DATA instead.';

create function risk_private.activity_checks(
  p risk_private.proposal, legs risk_private.leg[], limits risk_private.applicable_limit[],
  at timestamptz)
returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_checks risk_private.risk_check[] := '{}';
  v_last timestamptz := (
    select r.accepted_at from risk_private.recent_orders as r
    where r.account_id = p.account_id
      and r.fingerprint = risk_private.fingerprint(p.instrument_ids, p.ratios, p.quantity,
        p.price));
begin
  v_checks := v_checks || array(
  select risk_private.limit_check(k.l, e.seen, e.seen + 1, true, 0, p.quantity)
  from (
    select distinct on (u.scope_id, u.limit_type, u.dimension, u.key_id) u as l
    from pg_catalog.unnest(limits) as u where u.judged = 'window'
  ) as k
  cross join lateral (
    select risk_private.accepted_since(
      risk_private.counter_id((k.l).scope_id, (k.l).dimension, (k.l).key_id),
      at - case (k.l).limit_type when 'order_rate' then interval '1 second'
                                 else interval '60 seconds' end) as seen
  ) as e);

  v_checks := v_checks || array(
  select risk_private.limit_check(k.l, null,
    case when s.is_repeated then (k.l).amount + 1 else 0 end, true, 0, p.quantity)
  from (
    select distinct on (u.scope_id, u.limit_type, u.dimension, u.key_id) u as l
    from pg_catalog.unnest(limits) as u where u.judged = 'switch'
  ) as k
  cross join lateral (
    select case (k.l).limit_type
      when 'duplicate_window' then p.replaces is null
        and coalesce(v_last > at - pg_catalog.make_interval(secs => (k.l).amount::double precision),
          false)
      else (k.l).amount = 1 and risk_private.crosses(p, (k.l).scope_id)
    end as is_repeated
  ) as s);
  return v_checks;
end
$$;
comment on function risk_private.activity_checks(
  risk_private.proposal, risk_private.leg[], risk_private.applicable_limit[], timestamptz) is
  'Order rates in (t - 1 s, t] and (t - 60 s, t], duplicates, and orders that could trade against '
  'another agent''s.';

create function risk_private.crosses(p risk_private.proposal, scope_id integer) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select
    from unnest(p.instrument_ids, p.ratios) as l (instrument_id, ratio)
    join risk_private.positions as h
      on h.instrument_id = l.instrument_id and case when l.ratio > 0 then h.open_sell
        else h.open_buy end > 0
    join risk_private.scopes as a on a.scope_id = h.account_id and crosses.scope_id = any (a.chain)
    join risk_private.working_legs as w
      on w.account_id = h.account_id and w.instrument_id = l.instrument_id and w.ratio * l.ratio < 0
      and w.open_quantity > 0
    join risk_private.orders as o
      on o.account_id = w.account_id and o.closed_at is null
      and (o.client_order_id = w.client_order_id
        or (o.replace_pending and o.replaces = w.client_order_id))
    where o.agent is distinct from p.agent
      and (p.is_combo or o.is_combo or p.price is null or o.price is null
        or case when l.ratio > 0 then p.price >= o.price else p.price <= o.price end));
end
$$;
comment on function risk_private.crosses(risk_private.proposal, integer) is
  'Whether an order could trade against an open opposite order of another agent below the scope. A '
  'leg of a combo may trade at any price.';

create function risk_private.checks(p risk_private.proposal, at timestamptz)
  returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_legs risk_private.leg[] := risk_private.legs(p, at);
  v_step numeric := risk_private.step(v_legs);
  v_limits risk_private.applicable_limit[] := risk_private.applicable_limits(p.account_id, v_legs,
    at);
  v_closable numeric := risk_private.closable_quantity(p.account_id, v_legs, v_step, p.quantity);
  v_gates risk_private.risk_check[] := risk_private.gate_checks(p, v_legs, v_limits, v_closable,
    v_step, at);
begin
  if p.quantity <= p.harmless_quantity then
    return array(
      select g from pg_catalog.unnest(v_gates) as g
      where g.reason in ('TRADING_HALTED', 'CIRCUIT_BREAKER_TRIPPED')
        and risk_private.is_halted(p));
  end if;
  return v_gates
    || risk_private.order_checks(p, v_legs, v_limits, v_step)
    || risk_private.position_checks(p, v_legs, v_limits, v_step)
    || risk_private.sum_checks(p, v_legs, v_limits, v_closable, v_step)
    || risk_private.exposure_checks(p, v_legs, v_limits, v_closable, v_step, at)
    || risk_private.obligation_checks(p, v_legs, v_closable, v_step, at)
    || risk_private.loss_checks(p, v_limits, v_closable, at)
    || risk_private.activity_checks(p, v_legs, v_limits, at);
end
$$;
comment on function risk_private.checks(risk_private.proposal, timestamptz) is
  'Every check of an order against the book as it stands. It is accepted exactly when no row '
  'fails.';
