-- What an account may come to owe in one underlying, and the payoff that is kept of it, so that an
-- order need not go through all that is held and open.

create function risk_private.payoff_legs(account_id integer, underlying_id integer)
returns risk_private.payoff_leg[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- offset 0: what is held and open is found once, and looked up leg by leg, whatever the
  -- statistics say.
  return array(
    select row(i.kind, i.option_right, i.strike, i.expiry, i.multiplier * r.rate, l.quantity,
      coalesce(l.cost, l.quantity * l.price * i.multiplier) * r.rate, l.order_id,
      l.version)::risk_private.payoff_leg
    from (
      select p.instrument_id, p.quantity, p.cost, null::numeric as price, null::text as order_id,
        0 as version
      from risk_private.positions as p
      where p.account_id = payoff_legs.account_id
        and p.underlying_id = payoff_legs.underlying_id and p.quantity <> 0
      union all
      -- A pending replacement and the order that it replaces are two versions of one order.
      select w.instrument_id,
        sign(w.ratio::numeric) * greatest(0, o.quantity * abs(w.ratio) - w.filled), null,
        coalesce(w.cost, o.price),
        case when o.replace_pending and o.replaced_by is null then o.replaces
          else o.client_order_id end,
        case when o.replace_pending and o.replaced_by is null then 2 else 1 end
      from risk_private.orders as o
      cross join lateral unnest(o.instrument_ids, o.ratios, o.filled, o.costs)
        as w (instrument_id, ratio, filled, cost)
      where o.account_id = payoff_legs.account_id
        and o.underlying_id = any (array[payoff_legs.underlying_id, 0]) and o.closed_at is null
      offset 0
    ) as l
    cross join lateral (
      select i.* from risk_private.instruments as i
      where i.instrument_id = l.instrument_id
      offset 0
    ) as i
    cross join lateral (
      select coalesce(
        (
          select b.rate from risk_private.cash_balances as b
          where b.account_id = payoff_legs.account_id and b.currency = i.currency
        ),
        (select f.rate from risk_private.fx_rates as f where f.currency = i.currency), 1) as rate
      offset 0
    ) as r
    where i.underlying_id = payoff_legs.underlying_id and l.quantity <> 0);
end
$$;
comment on function risk_private.payoff_legs(integer, integer) is
  'What an account holds in one underlying, at average cost, and what its open orders may still '
  'fill, at their prices, in base currency at the rate at which its book is carried.';

create function risk_private.open_obligations_of(
  account_id integer, underlying_id integer, payoff risk_private.payoff)
returns risk_private.obligation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_loss numeric := risk_private.worst_loss(payoff);
  v_obligation risk_private.obligation;
begin
  select
    coalesce(sum(risk_private.side(i.option_right, i.multiplier, w.long, w.short)), 0),
    coalesce(sum(risk_private.side(i.option_right, i.multiplier, w.short, w.long)), 0),
    case when v_loss = 'Infinity' then 0 else v_loss end, (v_loss = 'Infinity')::integer,
    risk_private.cash_need(payoff),
    coalesce(sum(risk_private.side(i.option_right, i.multiplier, w.held, -w.held)), 0),
    coalesce(sum(risk_private.side(i.option_right, i.multiplier, -w.held, w.held)), 0)
  into v_obligation
  from (
    select p.instrument_id, p.quantity as held, p.quantity + p.open_buy as long,
      p.open_sell - p.quantity as short
    from risk_private.positions as p
    where p.account_id = open_obligations_of.account_id
      and p.underlying_id = open_obligations_of.underlying_id
    offset 0
  ) as w
  join risk_private.instruments as i
    on i.instrument_id = w.instrument_id and i.kind = 'option';
  return v_obligation;
end
$$;
comment on function risk_private.open_obligations_of(integer, integer, risk_private.payoff) is
  'What an account may come to owe in one underlying with every open order, and its held sides; '
  'what positions alone may cost is left NULL.';

create function risk_private.with_held(
  obligation risk_private.obligation, legs risk_private.payoff_leg[])
returns risk_private.obligation
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_held risk_private.payoff_leg[] := array(
    select l from unnest(legs) as l where l.order_id is null);
  v_payoff risk_private.payoff;
  v_loss numeric;
begin
  if cardinality(v_held) = cardinality(legs) then
    obligation.held_loss := obligation.max_loss;
    obligation.held_unlimited := obligation.unlimited;
    obligation.held_need := obligation.cash_need;
  else
    v_payoff := risk_private.payoff_of(v_held);
    v_loss := risk_private.worst_loss(v_payoff);
    obligation.held_loss := case when v_loss = 'Infinity' then 0 else v_loss end;
    obligation.held_unlimited := (v_loss = 'Infinity')::integer;
    obligation.held_need := risk_private.cash_need(v_payoff);
  end if;
  return obligation;
end
$$;
comment on function risk_private.with_held(
  risk_private.obligation, risk_private.payoff_leg[]) is
  'Completes obligations by what the positions alone may cost.';

create function risk_private.obligations_of(account_id integer, underlying_id integer)
returns risk_private.obligation
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_legs risk_private.payoff_leg[] := risk_private.payoff_legs(account_id, underlying_id);
begin
  return risk_private.with_held(
    risk_private.open_obligations_of(
      account_id, underlying_id, risk_private.payoff_of(v_legs)),
    v_legs);
end
$$;
comment on function risk_private.obligations_of(integer, integer) is
  'What an account may come to owe in one underlying, from its positions and open orders. Counted '
  'until settled, whatever has expired.';

create function risk_private.keep_payoff(
  account_id integer, underlying_id integer, payoff risk_private.payoff)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if payoff.horizons is null or payoff.horizons[1] = 'infinity' then
    delete from risk_private.payoffs as p
    where p.account_id = keep_payoff.account_id and p.underlying_id = keep_payoff.underlying_id;
  else
    insert into risk_private.payoffs (account_id, underlying_id, payoff)
    values (keep_payoff.account_id, keep_payoff.underlying_id, keep_payoff.payoff)
    on conflict on constraint payoffs_pkey do update set payoff = excluded.payoff;
  end if;
end
$$;
comment on function risk_private.keep_payoff(integer, integer, risk_private.payoff) is
  'Keeps the payoff of an account in one underlying where options are part of it. The caller '
  'holds the account.';

create function risk_private.obligation_change(
  account_id integer, underlying_id integer, has_held_changed boolean)
returns risk_private.obligation
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_legs risk_private.payoff_leg[] := risk_private.payoff_legs(account_id, underlying_id);
  v_payoff risk_private.payoff := risk_private.payoff_of(v_legs);
  a risk_private.obligation := risk_private.open_obligations_of(
    account_id, underlying_id, v_payoff);
  k risk_private.obligations;
begin
  if has_held_changed then
    a := risk_private.with_held(a, v_legs);
  end if;
  perform risk_private.keep_payoff(account_id, underlying_id, v_payoff);
  select o.* into k from risk_private.obligations as o
  where o.counter_id = risk_private.counter_id(
    obligation_change.account_id, 2, obligation_change.underlying_id);
  if found then
    a := row(a.bull - k.bull, a.bear - k.bear, a.max_loss - k.max_loss,
      a.unlimited - k.unlimited, a.cash_need - k.cash_need, a.held_bull - k.held_bull,
      a.held_bear - k.held_bear, a.held_loss - k.held_loss, a.held_unlimited - k.held_unlimited,
      a.held_need - k.held_need);
  end if;
  return a;
end
$$;
comment on function risk_private.obligation_change(integer, integer, boolean) is
  'By how much what is kept of an account''s obligations in one underlying differs from what its '
  'positions and open orders come to now, and keeps their payoff. Where only orders have changed '
  'it need not tell held_loss, held_unlimited and held_need (NULL). The caller holds the account.';

create function risk_private.order_change(
  held risk_private.positions, quantity numeric, amount numeric)
returns risk_private.obligation
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  i risk_private.instruments;
  v_payoff risk_private.payoff;
  v_loss numeric;
  v_long numeric := held.quantity + held.open_buy;
  v_short numeric := held.open_sell - held.quantity;
  v_bought numeric := greatest(0, order_change.quantity);
  v_sold numeric := greatest(0, -order_change.quantity);
  v_change risk_private.obligation;
begin
  select x.* into i from risk_private.instruments as x where x.instrument_id = held.instrument_id;
  update risk_private.payoffs as p
  set payoff = risk_private.with_order(p.payoff, row(i.kind, i.option_right, i.strike, i.expiry,
    i.multiplier, order_change.quantity, amount, '', 1)::risk_private.payoff_leg)
  where p.account_id = held.account_id and p.underlying_id = held.underlying_id
    and i.currency = risk_private.base_currency()
    and (i.kind <> 'option' or (i.strike = any ((p.payoff).prices)
      and i.expiry = any ((p.payoff).horizons)))
  returning (p.payoff).* into v_payoff;
  if not found then
    return risk_private.obligation_change(held.account_id, held.underlying_id, false);
  end if;
  v_loss := risk_private.worst_loss(v_payoff);
  select
    case when i.kind = 'option' then
      risk_private.side(i.option_right, i.multiplier, v_long, v_short)
      - risk_private.side(i.option_right, i.multiplier, v_long - v_bought, v_short - v_sold)
    else 0 end,
    case when i.kind = 'option' then
      risk_private.side(i.option_right, i.multiplier, v_short, v_long)
      - risk_private.side(i.option_right, i.multiplier, v_short - v_sold, v_long - v_bought)
    else 0 end,
    case when v_loss = 'Infinity' then 0 else v_loss end - o.max_loss,
    (v_loss = 'Infinity')::integer - o.unlimited, risk_private.cash_need(v_payoff) - o.cash_need
  into v_change
  from risk_private.obligations as o
  where o.counter_id = risk_private.counter_id(held.account_id, 2, held.underlying_id);
  return v_change;
end
$$;
comment on function risk_private.order_change(risk_private.positions, numeric, numeric) is
  'As obligation_change by a new order of one leg, which is stored and in its position; quantity '
  'and what it pays (amount) are signed. The caller holds the account.';
