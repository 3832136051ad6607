-- Checks against what accounts may come to owe: the worst loss at expiry, sides of the market, and
-- the cash that may be called for.

create function risk_private.costs(p risk_private.proposal, legs risk_private.leg[])
returns numeric[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_difference numeric;
begin
  if p.price is not null and not p.is_combo then
    return null;
  end if;
  v_difference := coalesce(p.price - (
    select sum(l.sign * l.ratio * coalesce(l.reference, 0)) from unnest(legs) as l), 0);
  -- With several multipliers it is not said to which leg the difference belongs: the worst one.
  return (
    select array_agg(
      coalesce(c.reference, 0)
        + case when c.rank = 1 then trim_scale(v_difference / (c.sign * c.ratio)) else 0 end
      order by c.leg)
    from (
      select l.reference, l.sign, l.ratio, n.leg,
        row_number() over (
          order by i.multiplier * sign(v_difference) desc, l.ratio, i.symbol collate "C") as rank
      from generate_subscripts(legs, 1) as n (leg)
      cross join lateral (select (legs[n.leg]).*) as l
      join risk_private.instruments as i on i.instrument_id = l.instrument_id
    ) as c);
end
$$;
comment on function risk_private.costs(risk_private.proposal, risk_private.leg[]) is
  'Per leg, the price that counts as paid or received; NULL where it is the order''s own. A market '
  'order''s legs are at their references. So are a combo''s, but one of them takes the difference '
  'to its net price: the one with the smallest ratio, or, where multipliers differ, the one where '
  'it costs most; of equal ones the first by symbol.';

create function risk_private.proposed_legs(
  p risk_private.proposal, legs risk_private.leg[], underlying_id integer, quantity numeric)
returns risk_private.payoff_leg[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_costs numeric[] := risk_private.costs(p, legs);
begin
  -- No order is named ''.
  return array(
    select row(i.kind, i.option_right, i.strike, i.expiry, i.multiplier * r.rate, r.quantity,
      r.quantity * coalesce(v_costs[n.leg], p.price) * i.multiplier * r.rate,
      coalesce(p.replaces, ''), 2)::risk_private.payoff_leg
    from generate_subscripts(legs, 1) as n (leg)
    cross join lateral (select (legs[n.leg]).*) as l
    join risk_private.instruments as i on i.instrument_id = l.instrument_id
    left join risk_private.cash_balances as b
      on b.account_id = p.account_id and b.currency = i.currency
    left join risk_private.fx_rates as f on f.currency = i.currency
    cross join lateral (
      select coalesce(b.rate, f.rate, 1) as rate,
        l.sign * greatest(0, l.ratio * proposed_legs.quantity - l.filled) as quantity
    ) as r
    where l.underlying_id = proposed_legs.underlying_id);
end
$$;
comment on function risk_private.proposed_legs(
  risk_private.proposal, risk_private.leg[], integer, numeric) is
  'The legs of a proposal in one underlying, as if it were open with that quantity.';

create function risk_private.limits_by_underlying(
  account_id integer, legs risk_private.leg[], at timestamptz)
returns risk_private.applicable_limit[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select row(a.leg, a.scope_id, a.scope, a.limit_type, a.dimension, a.key_id, a.amount,
      a.warn_pct, a.judged, a.reason, a.warns,
      case a.dimension when 0 then 'all'
        else risk_private.dimension_name(a.dimension, a.key_id) end)::risk_private.applicable_limit
    from (
      select u.leg, s.scope_id, s.code as scope, k.limit_type, k.dimension::integer, k.key_id,
        k.amount, k.warn_pct, t.judged, t.reason, t.warns,
        case t.judged
          when 'underlying' then row_number() over (
            partition by s.scope_id, k.limit_type, u.underlying_id order by k.dimension desc)
          else row_number() over (
            partition by s.scope_id, k.limit_type, k.dimension, k.key_id order by u.leg)
        end as rank
      from risk_private.scopes as leaf
      join risk_private.scopes as s on s.scope_id = any (leaf.chain)
      cross join lateral (
        select min(n.leg) as leg, i.instrument_id as underlying_id, i.sector_id
        from generate_subscripts(legs, 1) as n (leg)
        join risk_private.instruments as i on i.instrument_id = (legs[n.leg]).underlying_id
        group by i.instrument_id
      ) as u
      cross join lateral (
        values (0, 0), (1, u.sector_id), (2, u.underlying_id)
      ) as d (dimension, key_id)
      join risk_private.limit_periods as k
        on k.scope_id = s.scope_id and k.dimension = d.dimension and k.key_id = d.key_id
        and k.valid_from <= at and at < k.valid_until
      join risk_private.limit_types as t on t.limit_type = k.limit_type
      where leaf.scope_id = limits_by_underlying.account_id
        and t.judged in ('underlying', 'obligation')
    ) as a
    where a.rank = 1
    order by a.scope_id, a.limit_type, a.dimension, a.leg);
end
$$;
comment on function risk_private.limits_by_underlying(
  integer, risk_private.leg[], timestamptz) is
  'The limits in force that are measured underlying by underlying: delta, gamma and same_side once '
  'for each underlying of the legs, the most specific; those on what the account may come to owe '
  'every one. A sector is that of the underlying.';

create function risk_private.obligation_check(
  l risk_private.applicable_limit, current_value numeric, projected_value numeric,
  allowed_quantity numeric, closable numeric, quantity numeric)
returns risk_private.risk_check
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_free boolean := coalesce(current_value > l.amount, true) and closable = quantity;
  v_limit risk_private.applicable_limit := l;
begin
  if current_value is null then
    v_limit.reason := 'STALE_DATA';
  end if;
  return risk_private.limit_check(
    v_limit, nullif(current_value, 'Infinity'), projected_value, not v_is_free,
    case when current_value <= l.amount then allowed_quantity
      else greatest(allowed_quantity, closable) end, quantity);
end
$$;
comment on function risk_private.obligation_check(
  risk_private.applicable_limit, numeric, numeric, numeric, numeric, numeric) is
  'The row of a limit on losses or cash: above it, an order that only reduces passes whatever it '
  'costs; while the loss is infinite, or cash cannot be told for want of a rate, nothing else '
  'does.';

-- How far a proposal of some quantity takes one limit.
create function risk_private.projected_obligation(
  l risk_private.applicable_limit, p risk_private.proposal, legs risk_private.leg[],
  quantity numeric)
returns numeric
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_value numeric := risk_private.obligation_at(l.scope_id, l.dimension, l.key_id, l.limit_type);
  v_underlying_id integer;
  v_legs risk_private.payoff_leg[];
begin
  for v_underlying_id in
    select distinct i.instrument_id
    from pg_catalog.unnest(legs) as g
    join risk_private.instruments as i on i.instrument_id = g.underlying_id
    where l.key_id = (array[0, i.sector_id, i.instrument_id])[l.dimension + 1]
  loop
    exit when v_value = 'Infinity';
    v_legs := risk_private.payoff_legs(p.account_id, v_underlying_id)
      || risk_private.proposed_legs(p, legs, v_underlying_id, projected_obligation.quantity);
    v_value := v_value + case l.limit_type
        when 'max_loss' then risk_private.worst_loss(v_legs)
        else risk_private.cash_need(risk_private.payoff_of(v_legs)) end
      - risk_private.obligation_at(p.account_id, 2, v_underlying_id, case l.limit_type
        when 'max_loss' then 'max_loss' else 'cash_need' end);
  end loop;
  return v_value;
end
$$;
comment on function risk_private.projected_obligation(
  risk_private.applicable_limit, risk_private.proposal, risk_private.leg[], numeric) is
  'What max_loss or buying_power come to at the scope of a limit if a proposal were open with that '
  'quantity; it never falls as the quantity grows.';

create function risk_private.loss_checks(
  p risk_private.proposal, legs risk_private.leg[], limits risk_private.applicable_limit[],
  closable numeric, step numeric)
returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_checks risk_private.risk_check[] := '{}';
  l risk_private.applicable_limit;
  v_current numeric;
  v_projected numeric;
  v_low numeric;
  v_high numeric;
  v_middle numeric;
begin
  foreach l in array limits loop
    continue when l.judged <> 'obligation';
    v_current := risk_private.obligation_at(l.scope_id, l.dimension, l.key_id, l.limit_type);
    v_projected := risk_private.projected_obligation(l, p, legs, p.quantity);
    v_low := 0;
    v_high := case
      when v_current = 'Infinity' or v_current is null
        or v_projected <= greatest(l.amount, v_current) then 0
      else pg_catalog.div(p.quantity, step) - 1 end;
    while v_low < v_high loop
      v_middle := pg_catalog.div(v_low + v_high + 1, 2);
      if risk_private.projected_obligation(l, p, legs, v_middle * step)
        <= greatest(l.amount, v_current) then
        v_low := v_middle;
      else
        v_high := v_middle - 1;
      end if;
    end loop;
    v_checks := v_checks || risk_private.obligation_check(
      l, v_current, v_projected, v_low * step, closable, p.quantity);
  end loop;
  return v_checks;
end
$$;
comment on function risk_private.loss_checks(
  risk_private.proposal, risk_private.leg[], risk_private.applicable_limit[], numeric, numeric) is
  'max_loss and buying_power, with every open order and this one counted where it costs; found by '
  'bisection, how much of it would pass.';

create function risk_private.side_checks(
  p risk_private.proposal, legs risk_private.leg[], limits risk_private.applicable_limit[],
  step numeric)
returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select risk_private.limit_check(
      w.l, w.current_value, w.projected_value, w.is_over, w.allowed, p.quantity)
    from (
      -- the side that fails is shown, else the larger one; what both allow is allowed
      select distinct on (k) k as l, o.current_value, v.projected_value, b.is_over,
        min(case when b.is_over then risk_private.largest_quantity(
            greatest(0, k.amount - o.current_value), g.units, g.offsets, step, p.quantity)
          else p.quantity end) over (partition by k) as allowed
      from pg_catalog.unnest(limits) as k
      left join risk_private.obligations as r
        on r.counter_id = risk_private.counter_id(
          k.scope_id, 2, (legs[k.leg]).underlying_id)
      cross join lateral (
        values ('bull', coalesce(trim_scale(r.bull), 0)),
          ('bear', coalesce(trim_scale(r.bear), 0))
      ) as o (side, current_value)
      cross join lateral (
        select array_agg(x.ratio * i.multiplier * 0.01) as units,
          array_agg((x.base + greatest(0, case when x.sign > 0 then -(x.quantity + x.open_buy)
            else x.quantity - x.open_sell end)) * i.multiplier * 0.01) as offsets
        from pg_catalog.unnest(legs) as x
        join risk_private.instruments as i on i.instrument_id = x.instrument_id
        where x.underlying_id = (legs[k.leg]).underlying_id and i.kind = 'option'
          and o.side = case when (x.sign > 0) = (i.option_right = 'call') then 'bull'
            else 'bear' end
      ) as g
      cross join lateral (
        select trim_scale(o.current_value
          + coalesce(sum(greatest(0, t.unit * p.quantity - t.offset_)), 0)) as projected_value
        from unnest(g.units, g.offsets) as t (unit, offset_)
      ) as v
      cross join lateral (
        select v.projected_value > k.amount and v.projected_value > o.current_value as is_over
      ) as b
      where k.limit_type = 'same_side'
      order by k, b.is_over desc, v.projected_value desc, o.side
    ) as w);
end
$$;
comment on function risk_private.side_checks(
  risk_private.proposal, risk_private.leg[], risk_private.applicable_limit[], numeric) is
  'same_side: bull (long calls + short puts) and bear (short calls + long puts) of each '
  'underlying, in units of 100 shares, summed over the accounts below each scope.';

create function risk_private.obligation_checks(
  p risk_private.proposal, legs risk_private.leg[], closable numeric, step numeric,
  at timestamptz)
returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_limits risk_private.applicable_limit[];
begin
  if not exists (
    select from risk_private.account_levels as a
    where a.account_id = p.account_id and a.obligations is not null) then
    return '{}';
  end if;
  v_limits := risk_private.limits_by_underlying(p.account_id, legs, at);
  return risk_private.side_checks(p, legs, v_limits, step)
    || risk_private.loss_checks(p, legs, v_limits, closable, step);
end
$$;
comment on function risk_private.obligation_checks(
  risk_private.proposal, risk_private.leg[], numeric, numeric, timestamptz) is
  'Every limit on what the account may come to owe.';
