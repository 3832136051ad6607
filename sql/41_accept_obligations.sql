-- The lean path's part for accounts with limits on what they may come to owe. Subqueries stand in a
-- lateral of their own for the reason that accept_order gives.

create function risk_private.owes_its_cost(
  kind text, rate_as_of timestamptz, cost numeric, quantity numeric, open_sell numeric)
returns boolean
language sql immutable
return kind <> 'option' and rate_as_of is null and cost >= 0
  and quantity >= greatest(0, open_sell);
comment on function risk_private.owes_its_cost(text, timestamptz, numeric, numeric, numeric) is
  'Whether an order, already in the open quantities of its position, adds what it costs to the '
  'obligations of the underlying and nothing else, if the account has nothing else there: in base '
  'currency (rate_as_of NULL), no option, held long or flat, not oversold by open orders. It loses '
  'most at a price of 0.';

create function risk_private.others_of(held risk_private.positions)
returns setof risk_private.positions
language sql stable
begin atomic
  select p.* from risk_private.positions as p
  where p.account_id = held.account_id and p.underlying_id = held.underlying_id
    and p.instrument_id <> held.instrument_id
    and not risk_private.is_flat(p.quantity, p.open_buy, p.open_sell);
end;
comment on function risk_private.others_of(risk_private.positions) is
  'What else the account of a position holds or may come to hold in its underlying.';

create type risk_private.obligation_move as (
  counter_id bigint,
  change risk_private.obligation,
  level risk_private.obligation_level
);
comment on type risk_private.obligation_move is
  'What orders change in one row of obligations, and the warning levels in force there.';

create function risk_private.obligation_moves(
  change risk_private.obligation, underlying_id integer, levels risk_private.obligation_level[])
returns risk_private.obligation_move[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select row(l.counter_id + k.key_id, change, l)::risk_private.obligation_move
    from risk_private.instruments as u
    cross join unnest(levels) as l
    cross join lateral (
      select case l.dimension when 0 then 0 when 1 then u.sector_id else u.instrument_id end
        as key_id
    ) as k
    where u.instrument_id = obligation_moves.underlying_id and k.key_id is not null);
end
$$;
comment on function risk_private.obligation_moves(
  risk_private.obligation, integer, risk_private.obligation_level[]) is
  'The rows that a change in one underlying moves; without a sector there is none for it.';

create function risk_private.add_obligations(moves risk_private.obligation_move[])
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_moved integer;
begin
  update risk_private.obligations as o set
    bull = o.bull + m.bull,
    bear = o.bear + m.bear,
    max_loss = o.max_loss + m.max_loss,
    unlimited = o.unlimited + m.unlimited,
    cash_need = o.cash_need + m.cash_need
  from (
    select x.counter_id, (x.change).bull, (x.change).bear, (x.change).max_loss,
      (x.change).unlimited, (x.change).cash_need, x.level,
      (
        select q.cash from risk_private.equities as q
        where q.scope_id = (x.level).scope_id and q.unknown = 0
      ) as cash
    from unnest(moves) as x
    offset 0
  ) as m
  where o.counter_id = m.counter_id
    and greatest(o.bull + m.bull, o.bear + m.bear) < (m.level).same_side
    and o.max_loss + m.max_loss < (m.level).max_loss
    and (o.unlimited + m.unlimited = 0 or (m.level).max_loss = 'Infinity')
    and ((m.level).buying_power = 'Infinity'
      or o.cash_need + m.cash_need - m.cash < (m.level).buying_power);
  get diagnostics v_moved = row_count;
  return v_moved = cardinality(moves);
end
$$;
comment on function risk_private.add_obligations(risk_private.obligation_move[]) is
  'Adds changes to rows of obligations. False, to be rolled back, where one is missing or would '
  'reach a warning level. The caller holds the firm''s counter, or the rows are all of an account '
  'that it holds.';

-- What adds nothing but a cost, as most orders in shares do, has a statement of its own, because
-- the other costs it more. Whether it does is asked once for all rows: none of them moves where
-- the account has something else.
create function risk_private.reserve_obligations(
  held risk_private.positions, kind text, rate_as_of timestamptz, quantity numeric, amount numeric,
  keys integer[], levels risk_private.obligation_level[])
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_cost numeric := greatest(0, amount);
  v_cash_need numeric;
  v_moved integer;
begin
  if risk_private.owes_its_cost(kind, rate_as_of, held.cost, held.quantity, held.open_sell) then
    if held.underlying_id <> held.instrument_id then
      keys := (
        select array[u.sector_id, u.instrument_id]
        from risk_private.instruments as u where u.instrument_id = held.underlying_id);
    end if;
    v_cash_need := case when kind = 'future' then 0 else v_cost end;
    update risk_private.obligations as o set
      max_loss = o.max_loss + v_cost,
      cash_need = o.cash_need + v_cash_need
    from unnest(levels) as l
    cross join lateral (
      select (
          select q.cash from risk_private.equities as q
          where q.scope_id = l.scope_id and q.unknown = 0
        ) as cash,
        exists (select from risk_private.others_of(held)) as has_others
    ) as e
    where not e.has_others
      and o.counter_id = l.counter_id + coalesce(keys[l.dimension], 0)
      and greatest(o.bull, o.bear) < l.same_side
      and o.max_loss + v_cost < l.max_loss
      and (o.unlimited = 0 or l.max_loss = 'Infinity')
      and (l.buying_power = 'Infinity' or o.cash_need + v_cash_need - e.cash < l.buying_power);
    get diagnostics v_moved = row_count;
    if v_moved = cardinality(levels) then
      return true;
    end if;
    if v_moved > 0 or not exists (select from risk_private.others_of(held)) then
      return risk_private.are_all(
        v_moved, array(select l.dimension from unnest(levels) as l), keys);
    end if;
  end if;
  return risk_private.add_obligations(risk_private.obligation_moves(
    risk_private.order_change(held, quantity, amount), held.underlying_id, levels));
end
$$;
comment on function risk_private.reserve_obligations(
  risk_private.positions, text, timestamptz, numeric, numeric, integer[],
  risk_private.obligation_level[]) is
  'Adds an order, which is stored and in its position, to obligations; quantity and what it pays '
  '(amount) are signed; keys: its sector, underlying and instrument. Else as add_obligations.';

create function risk_private.obligation_moves(entries risk_private.entry[], at timestamptz)
returns risk_private.obligation_move[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    with groups as (
      select e.account_id, e.underlying_id, min(e.instrument_id) as instrument_id,
        min(e.instrument_id) = max(e.instrument_id) as is_single,
        sum(greatest(0, e.sign * e.quantity * coalesce(e.price, e.reference) * i.multiplier))
          as cost
      from unnest(entries) as e
      join risk_private.instruments as i on i.instrument_id = e.instrument_id
      group by e.account_id, e.underlying_id
    ), changes as (
      select u.sector_id, u.instrument_id as underlying_id,
        case when a.is_narrowed
          then risk_private.obligation_levels(g.account_id, g.underlying_id, at)
          else a.obligations end as levels,
        case
          when g.is_single and i.currency = risk_private.base_currency()
            and risk_private.owes_its_cost(i.kind, null, p.cost, p.quantity, p.open_sell)
            and not exists (select from risk_private.others_of(p))
            then row(0, 0, g.cost, 0, case when i.kind = 'future' then 0 else g.cost end,
              null, null, null, null, null)::risk_private.obligation
          else risk_private.obligation_change(g.account_id, g.underlying_id, false)
        end as change
      from groups as g
      join risk_private.account_levels as a
        on a.account_id = g.account_id and a.obligations is not null
      join risk_private.instruments as u on u.instrument_id = g.underlying_id
      join risk_private.instruments as i on i.instrument_id = g.instrument_id
      join risk_private.positions as p
        on p.account_id = g.account_id and p.instrument_id = g.instrument_id
      offset 0
    )
    select row(
      m.counter_id,
      row(sum((m.change).bull), sum((m.change).bear), sum((m.change).max_loss),
        sum((m.change).unlimited), sum((m.change).cash_need), null, null, null, null,
        null)::risk_private.obligation,
      any_value(m.level))::risk_private.obligation_move
    from changes as c
    cross join lateral unnest(risk_private.obligation_moves(
      c.change, c.underlying_id, c.levels)) as m
    group by m.counter_id);
end
$$;
comment on function risk_private.obligation_moves(risk_private.entry[], timestamptz) is
  'The rows that the orders of a batch move, which are stored and in their positions, each row '
  'once: each open order only adds to what may be owed.';

create function risk_private.reserve_obligations(entries risk_private.entry[], at timestamptz)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  return risk_private.add_obligations(risk_private.obligation_moves(entries, at));
end
$$;
comment on function risk_private.reserve_obligations(risk_private.entry[], timestamptz) is
  'Adds the orders of a batch, which are stored and in their positions, to obligations, as '
  'add_obligations does. The caller holds the firm''s counter.';
