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

create function risk_private.payment(
  quantity numeric, price numeric, reference numeric, factor numeric)
returns numeric
language sql immutable
return greatest(0, quantity * coalesce(price, reference) * factor);
comment on function risk_private.payment(numeric, numeric, numeric, numeric) is
  'What an order for a signed quantity pays; 0 where it is paid.';

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

create function risk_private.obligation_keys(underlying_id integer) returns integer[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select array[u.sector_id, u.instrument_id] from risk_private.instruments as u
    where u.instrument_id = obligation_keys.underlying_id);
end
$$;
comment on function risk_private.obligation_keys(integer) is
  'The sector of an underlying and the underlying: keys of obligations by dimension.';

create function risk_private.add_obligations(
  change risk_private.obligation, underlying_id integer, levels risk_private.obligation_level[])
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_keys integer[] := risk_private.obligation_keys(underlying_id);
  v_moved integer;
begin
  update risk_private.obligations as o set
    bull = o.bull + change.bull,
    bear = o.bear + change.bear,
    max_loss = o.max_loss + change.max_loss,
    unlimited = o.unlimited + change.unlimited,
    cash_need = o.cash_need + change.cash_need
  from unnest(levels) as l
  cross join lateral (
    select (
      select q.cash from risk_private.equities as q
      where q.scope_id = l.scope_id and q.unknown = 0) as cash
  ) as e
  where o.counter_id = l.counter_id + coalesce(v_keys[l.dimension], 0)
    and greatest(o.bull + change.bull, o.bear + change.bear) < l.same_side
    and o.max_loss + change.max_loss < l.max_loss
    and (o.unlimited + change.unlimited = 0 or l.max_loss = 'Infinity')
    and (l.buying_power = 'Infinity'
      or o.cash_need + change.cash_need - e.cash < l.buying_power);
  get diagnostics v_moved = row_count;
  if v_moved = cardinality(levels) then
    return true;
  end if;
  return risk_private.are_all(
    v_moved, array(select l.dimension from unnest(levels) as l), v_keys);
end
$$;
comment on function risk_private.add_obligations(
  risk_private.obligation, integer, risk_private.obligation_level[]) is
  'Adds what orders in one underlying change to every row of obligations of a chain. False, to be '
  'rolled back, where one is missing or would reach a warning level. The caller holds the firm''s '
  'counter, or the rows are all of an account that it holds.';

-- What adds nothing but a cost, as most orders in shares do, has a statement of its own, because
-- the other costs it more. Whether it does is asked once for all rows: none of them moves where
-- the account has something else.
create function risk_private.reserve_obligations(
  held risk_private.positions, kind text, rate_as_of timestamptz, cost numeric, keys integer[],
  levels risk_private.obligation_level[])
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_cash_need numeric;
  v_moved integer;
begin
  if risk_private.owes_its_cost(kind, rate_as_of, held.cost, held.quantity, held.open_sell) then
    if held.underlying_id <> held.instrument_id then
      keys := risk_private.obligation_keys(held.underlying_id);
    end if;
    v_cash_need := case when kind = 'future' then 0 else cost end;
    update risk_private.obligations as o set
      max_loss = o.max_loss + reserve_obligations.cost,
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
      and o.max_loss + reserve_obligations.cost < l.max_loss
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
  return risk_private.add_obligations(
    risk_private.obligation_change(held.account_id, held.underlying_id), held.underlying_id,
    levels);
end
$$;
comment on function risk_private.reserve_obligations(
  risk_private.positions, text, timestamptz, numeric, integer[],
  risk_private.obligation_level[]) is
  'Adds an order, which is stored and in its position, to obligations; cost: its payment; keys: '
  'its sector, underlying and instrument. Else as add_obligations.';

create function risk_private.reserve_obligations(entries risk_private.entry[], at timestamptz)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v record;
begin
  for v in
    select e.account_id, e.underlying_id,
      case when a.is_narrowed
        then risk_private.obligation_levels(e.account_id, e.underlying_id, at)
        else a.obligations end as levels
    from (select distinct x.account_id, x.underlying_id from unnest(entries) as x) as e
    join risk_private.account_levels as a on a.account_id = e.account_id
    where a.obligations is not null
  loop
    if not risk_private.add_obligations(
      risk_private.obligation_change(v.account_id, v.underlying_id), v.underlying_id,
      v.levels) then
      return false;
    end if;
  end loop;
  return true;
end
$$;
comment on function risk_private.reserve_obligations(risk_private.entry[], timestamptz) is
  'Adds the orders of a batch, which are stored and in their positions, to obligations. False, to '
  'be rolled back, where a row is missing or would reach a warning level with all of them: each '
  'open order only adds to what may be owed. The caller holds the firm''s counter.';
