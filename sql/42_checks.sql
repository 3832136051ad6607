-- Every rule, spelled out: what an order is checked against, and how much of it would pass.
-- Previews show these rows; decisions that are not plain are made by them. Nothing here locks or
-- writes.

create type risk_private.proposal as (
  account_id integer,
  client_order_id text,
  agent text,
  time_in_force text,
  instrument_ids integer[],
  ratios integer[],
  quantity numeric,
  price numeric,
  is_combo boolean,
  replaces text,
  harmless_quantity numeric,
  bases numeric[],
  filled numeric[],
  old_notionals numeric[]
);
comment on type risk_private.proposal is
  'An order to be judged, resolved; legs ascending by instrument, ratios signed. For a replace, '
  'quantity is the new total and, per leg, bases is what the old order holds (the larger of its '
  'total and its fills), old_notionals the money it has reserved; else zeros. harmless_quantity: '
  'up to this total a replace asks for no more at no worse a price, and only a halt refuses it.';

create type risk_private.leg as (
  instrument_id integer,
  symbol text,
  kind text,
  underlying_id integer,
  sector_id integer,
  expiry date,
  status text,
  sign integer,
  ratio numeric,
  lot numeric,
  base numeric,
  filled numeric,
  old_notional numeric,
  quantity numeric,
  open_buy numeric,
  open_sell numeric,
  unit_notional numeric,
  units risk_private.unit_values,
  reference numeric,
  unit_price numeric,
  is_fresh boolean,
  floor numeric
);
comment on type risk_private.leg is
  'A leg with what the account holds in its instrument, and its prices: reference (NULL where '
  'there is none), unit_notional and all units at which it is carried, unit_price at which its '
  'order is reserved in traded notional; floor of the price collar.';

create type risk_private.applicable_limit as (
  leg integer,
  scope_id integer,
  scope text,
  limit_type text,
  dimension integer,
  key_id integer,
  amount numeric,
  warn_pct numeric,
  judged text,
  reason text,
  warns boolean,
  dimension_name text
);
comment on type risk_private.applicable_limit is
  'A limit in force that binds a leg, at one scope of the chain.';

create type risk_private.risk_check as (
  check_name text,
  scope text,
  dimension text,
  limit_type text,
  limit_value numeric,
  current_value numeric,
  projected_value numeric,
  headroom numeric,
  allowed_quantity numeric,
  status text,
  reason text
);
comment on type risk_private.risk_check is 'One check of an order, as risk.preview_order shows it.';

create function risk_private.legs(p risk_private.proposal, at timestamptz)
  returns risk_private.leg[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select pg_catalog.array_agg(row(
      i.instrument_id, i.symbol, i.kind, i.underlying_id, i.sector_id, i.expiry, i.status,
      pg_catalog.sign(l.ratio),
      abs(l.ratio), i.lot, l.base, l.filled, l.old_notional, h.quantity, h.open_buy, h.open_sell,
      (h.units).unit_notional, h.units, r.reference,
      abs(case when p.is_combo or p.price is null then coalesce(r.reference, 0)
               when l.ratio > 0 or r.reference is null or p.price > r.reference then p.price
               else r.reference end) * i.multiplier * coalesce(f.rate, 0),
      f.rate is not null and m.price is not null and r.is_fresh
      and (s.max_mark_age = 0 or risk_private.is_fresh(u.as_of, s.max_mark_age, at)),
      case when i.kind = 'option' then abs(l.ratio) * s.collar_floor else 0 end)::risk_private.leg
        order by l.position)
    from unnest(p.instrument_ids, p.ratios, p.bases, p.filled, p.old_notionals) with ordinality
      as l (instrument_id, ratio, base, filled, old_notional, position)
    join risk_private.instruments as i on i.instrument_id = l.instrument_id
    join risk_private.scopes as s on s.scope_id = p.account_id
    left join risk_private.fx_rates as f on f.currency = i.currency
    left join risk_private.marks as m on m.instrument_id = i.instrument_id
    left join risk_private.marks as u on u.instrument_id = i.underlying_id
    left join risk_private.positions as o on o.account_id = p.account_id
      and o.instrument_id = i.instrument_id
    left join risk_private.unit_values as v on v.instrument_id = i.instrument_id
    cross join lateral (
      select coalesce(o.quantity, 0) as quantity, coalesce(o.open_buy, 0) as open_buy,
        coalesce(o.open_sell, 0) as open_sell, risk_private.carried(o, v) as units
      offset 0
    ) as h
    cross join lateral (
      select
        q.is_fresh,
        case when q.is_fresh and l.ratio > 0 then coalesce(m.ask, m.price)
             when q.is_fresh then coalesce(m.bid, m.price)
             else m.price end as reference
      from (select risk_private.is_fresh(m.as_of, s.max_mark_age, at) as is_fresh) as q
    ) as r);
end
$$;
comment on function risk_private.legs(risk_private.proposal, timestamptz) is
  'The legs of a proposal with what is known of them.';

create function risk_private.step(legs risk_private.leg[]) returns numeric
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_step numeric := 0;
  v_leg risk_private.leg;
  v_scaled numeric;
  v_unit numeric;
begin
  foreach v_leg in array legs loop
    v_scaled := v_leg.lot * 10 ^ pg_catalog.min_scale(v_leg.lot);
    v_unit := v_scaled / pg_catalog.gcd(v_scaled,
      v_leg.ratio) / 10 ^ pg_catalog.min_scale(v_leg.lot);
    v_step := case when v_step = 0 then v_unit else pg_catalog.lcm(v_step, v_unit) end;
  end loop;
  return pg_catalog.trim_scale(v_step);
end
$$;
comment on function risk_private.step(risk_private.leg[]) is
  'The smallest quantity of an order, with no more decimals than the lots, at which every leg is '
  'on its lot.';

create function risk_private.largest_quantity(
  headroom numeric, units numeric[], offsets numeric[], step numeric, quantity numeric)
returns numeric
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_low numeric := 0;
  v_high numeric := pg_catalog.div(quantity, step);
  v_middle numeric;
begin
  while v_low < v_high loop
    v_middle := pg_catalog.div(v_low + v_high + 1, 2);
    if (select sum(case when t.unit * v_middle * step > t.offset_
      then t.unit * v_middle * step - t.offset_ else 0 end)
        from unnest(units, offsets) as t (unit, offset_)) <= headroom then
      v_low := v_middle;
    else
      v_high := v_middle - 1;
    end if;
  end loop;
  return v_low * step;
end
$$;
comment on function risk_private.largest_quantity(numeric, numeric[], numeric[], numeric,
  numeric) is
  'The largest multiple Q of the step, up to quantity, for which the sum of max(0, unit x Q - '
  'offset) stays within headroom: how every measure grows with an order. Bisection, so that no '
  'division rounds in the order''s favour.';

create function risk_private.uncovered(
  account_id integer, underlying_ids integer[], legs risk_private.leg[], quantity numeric)
returns table (underlying_id integer, calls numeric, puts numeric)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_today date := risk_private.trading_date();
begin
  return query
  with book as (
    select i.underlying_id, i.kind, i.option_right, i.expiry,
      (b.q + coalesce(l.sign * d.filling, 0)) * i.multiplier as q,
      (b.open_buy - case when l.sign > 0 then d.own else 0 end) * i.multiplier as ob,
      (b.open_sell - case when l.sign < 0 then d.own else 0 end) * i.multiplier as os
    from risk_private.instruments as i
    left join risk_private.positions as p
      on p.account_id = uncovered.account_id and p.instrument_id = i.instrument_id
    left join pg_catalog.unnest(legs) as l on l.instrument_id = i.instrument_id
    cross join lateral (
      select coalesce(p.quantity, 0) as q, coalesce(p.open_buy, 0) as open_buy,
        coalesce(p.open_sell, 0) as open_sell
    ) as b
    cross join lateral (
      select
        case when uncovered.quantity is null then 0
          else greatest(l.base, l.ratio * uncovered.quantity) - l.filled end
          as filling,
        case when uncovered.quantity is null then 0 else l.base - l.filled end as own
    ) as d
    where i.underlying_id = any (underlying_ids) and i.kind <> 'future'
      and (i.expiry is null or i.expiry >= v_today)
      and (p.account_id is not null or l.instrument_id is not null)
  ), stock as (
    select k.underlying_id, sum(greatest(0, k.q - k.os)) as long,
      sum(greatest(0, -(k.q + k.ob))) as short
    from book as k where k.kind <> 'option' group by k.underlying_id
  ), at_expiry as (
    select k.underlying_id, k.option_right,
      sum(sum(greatest(0, k.os - k.q) - greatest(0, k.q - k.os)))
        over (partition by k.underlying_id, k.option_right order by k.expiry desc) as short
    from book as k where k.kind = 'option' group by k.underlying_id, k.option_right, k.expiry
  )
  select u.id,
    greatest(0, coalesce(max(e.short) filter (where e.option_right = 'call'),
      0) - coalesce(max(s.long), 0)),
    greatest(0, coalesce(max(e.short) filter (where e.option_right = 'put'),
      0) - coalesce(max(s.short), 0))
  from pg_catalog.unnest(underlying_ids) as u (id)
  left join at_expiry as e on e.underlying_id = u.id
  left join stock as s on s.underlying_id = u.id
  group by u.id;
end
$$;
comment on function risk_private.uncovered(integer, integer[], risk_private.leg[], numeric) is
  'Worst-case uncovered short calls and puts of an account, in shares: as it stands (quantity '
  'NULL) or as if the order of that quantity had filled. A long option covers shorts that expire '
  'no later; long stock covers calls, short stock covers puts.';

create function risk_private.is_reducing(account_id integer, legs risk_private.leg[],
  quantity numeric) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_underlying_ids integer[];
begin
  if exists (
    select from pg_catalog.unnest(legs) as l
    cross join lateral (select greatest(0, l.ratio * is_reducing.quantity - l.base) as added) as a
    where (
      case when l.sign > 0 then l.open_buy + a.added <= -l.quantity
        else l.open_sell + a.added <= l.quantity end
    ) is not true
  ) then
    return false;
  end if;
  v_underlying_ids := array(select distinct l.underlying_id from pg_catalog.unnest(legs) as l);
  return not exists (
    select from risk_private.uncovered(account_id, v_underlying_ids, legs, null) as before
    join risk_private.uncovered(account_id, v_underlying_ids, legs, is_reducing.quantity) as after
      on after.underlying_id = before.underlying_id
    where (after.calls <= before.calls and after.puts <= before.puts) is not true);
end
$$;
comment on function risk_private.is_reducing(integer, risk_private.leg[], numeric) is
  'Whether an order of that quantity only reduces: every leg shrinks its position without crossing '
  'zero, and no short option is uncovered by it.';

create function risk_private.closable_quantity(
  account_id integer, legs risk_private.leg[], step numeric, quantity numeric) returns numeric
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_low numeric := 0;
  v_high numeric := pg_catalog.div(quantity, step);
  v_middle numeric := v_high;
begin
  while v_low < v_high loop
    if risk_private.is_reducing(account_id, legs, v_middle * step) then
      v_low := v_middle;
    else
      v_high := v_middle - 1;
    end if;
    v_middle := pg_catalog.div(v_low + v_high + 1, 2);
  end loop;
  return v_low * step;
end
$$;
comment on function risk_private.closable_quantity(integer, risk_private.leg[], numeric, numeric) is
  'The largest quantity, up to the given one, that only reduces. Reducing is convex in the '
  'quantity, so bisection finds it.';

create function risk_private.applicable_limits(account_id integer, legs risk_private.leg[],
  at timestamptz)
returns risk_private.applicable_limit[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
  return array(
    select row(a.leg, a.scope_id, a.scope, a.limit_type, a.dimension, a.key_id, a.amount,
      a.warn_pct, a.judged,
               a.reason, a.warns, a.dimension_name)::risk_private.applicable_limit
    from (
      select l.leg::integer, s.scope_id, s.code as scope, k.limit_type, k.dimension::integer,
        k.key_id, k.amount,
        k.warn_pct, t.judged, t.reason, t.warns,
        case k.dimension when 0 then 'all'
          else risk_private.dimension_name(k.dimension, k.key_id) end as dimension_name,
        pg_catalog.rank() over (partition by l.leg, s.scope_id, k.limit_type
          order by k.dimension desc) as rank
      from risk_private.scopes as leaf
      join risk_private.scopes as s on s.scope_id = any (leaf.chain)
      cross join lateral (
        select u.leg, u.sector_id, u.underlying_id, u.instrument_id
        from (select x.*, pg_catalog.row_number() over () as leg
          from pg_catalog.unnest(legs) as x) as u
      ) as l
      cross join lateral (
        values (0, 0), (1, l.sector_id), (2, l.underlying_id), (3, l.instrument_id)
      ) as d (dimension, key_id)
      join risk_private.limit_periods as k
        on k.scope_id = s.scope_id and k.dimension = d.dimension and k.key_id = d.key_id
        and k.valid_from <= at and at < k.valid_until
      join risk_private.limit_types as t on t.limit_type = k.limit_type
      where leaf.scope_id = applicable_limits.account_id
    ) as a
    where a.judged not in ('order', 'instrument', 'underlying') or a.rank = 1
    order by a.scope_id, a.limit_type, a.dimension, a.leg);
end
$$;
comment on function risk_private.applicable_limits(integer, risk_private.leg[], timestamptz) is
  'The limits in force that bind each leg: per order and per instrument the most specific of each '
  'scope, else every one.';

create function risk_private.limit_check(
  l risk_private.applicable_limit, current_value numeric, projected_value numeric, binds boolean,
  allowed_quantity numeric, quantity numeric)
returns risk_private.risk_check
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fits boolean := coalesce(projected_value <= l.amount or projected_value <= current_value, false)
    or not binds;
  v_warns boolean := v_fits and projected_value > 0
    and projected_value * 100 >= l.warn_pct * l.amount
    and l.warns;
begin
  return row(
    l.limit_type, l.scope, l.dimension_name, l.limit_type, l.amount, current_value,
    projected_value, l.amount - current_value,
    case when v_fits then quantity else allowed_quantity end,
    case when not v_fits then 'FAIL' when v_warns then 'WARN' else 'PASS' end,
    case when not v_fits then l.reason end)::risk_private.risk_check;
end
$$;
comment on function risk_private.limit_check(risk_private.applicable_limit, numeric, numeric,
  boolean, numeric, numeric) is
  'The row of one limit: how it is compared, whatever it measures. NULL fails.';
