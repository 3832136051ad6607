-- How what an account may come to owe moves the sums of its chain.

create function risk_private.obligation_keys(account_id integer, underlying_id integer)
returns table (scope_id integer, dimension integer, key_id integer)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select s.scope_id, d.dimension, d.key_id
  from risk_private.scopes as leaf
  join risk_private.scopes as s on s.scope_id = any (leaf.chain)
  join risk_private.instruments as i on i.instrument_id = obligation_keys.underlying_id
  cross join lateral (
    values (0, 0), (1, i.sector_id), (2, i.instrument_id)
  ) as d (dimension, key_id)
  where leaf.scope_id = obligation_keys.account_id and d.key_id is not null
    and (d.dimension = any (s.obligation_dimensions)
      or (d.dimension = 2 and s.scope_id = leaf.scope_id));
end
$$;
comment on function risk_private.obligation_keys(integer, integer) is
  'The rows of obligations that an account''s business in one underlying moves; its own is '
  'dimension 2. A sector is that of the underlying.';

create function risk_private.obligation_levels(
  account_id integer, underlying_id integer, at timestamptz)
returns risk_private.obligation_level[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select array_agg(row(
      risk_private.counter_id(s.scope_id, d.dimension), s.scope_id, d.dimension,
      case d.dimension
        when 2 then coalesce(l2.same_side, l1.same_side, l0.same_side, 'Infinity')
        else 'Infinity' end,
      coalesce((d.l).max_loss, 'Infinity'),
      coalesce((d.l).buying_power, 'Infinity'))::risk_private.obligation_level
      order by s.scope_id, d.dimension)
    from risk_private.scopes as leaf
    join risk_private.scopes as s on s.scope_id = any (leaf.chain)
    left join risk_private.instruments as u
      on u.instrument_id = obligation_levels.underlying_id
    left join risk_private.warning_levels as l0
      on l0.scope_id = s.scope_id and l0.dimension = 0 and l0.key_id = 0
      and at < l0.valid_until and l0.valid_from <= at
    left join risk_private.warning_levels as l1
      on l1.scope_id = s.scope_id and l1.dimension = 1 and l1.key_id = u.sector_id
      and at < l1.valid_until and l1.valid_from <= at
    left join risk_private.warning_levels as l2
      on l2.scope_id = s.scope_id and l2.dimension = 2 and l2.key_id = u.instrument_id
      and at < l2.valid_until and l2.valid_from <= at
    cross join lateral (values (0, l0), (1, l1), (2, l2)) as d (dimension, l)
    where leaf.scope_id = obligation_levels.account_id
      and (d.dimension = any (s.obligation_dimensions)
        or (d.dimension = 2 and s.scope_id = leaf.scope_id))
    having bool_or(s.obligation_dimensions <> '{}'));
end
$$;
comment on function risk_private.obligation_levels(integer, integer, timestamptz) is
  'The rows of obligations that an account''s orders in one underlying move, and the lowest values '
  'there from which a decision must be explained; underlying NULL: those that hold for all. NULL '
  'where no scope of the chain keeps any.';

-- Lock order: the caller holds the account; its chain's obligations only under the firm's counter.
create function risk_private.obligation_changes(account_id integer, underlying_ids integer[])
returns risk_private.obligations[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Rows are counted: where it is asked whether one exists, the plan may read the whole table.
  return array(
    select row(c.*)::risk_private.obligations
    from (
      select risk_private.counter_id(k.scope_id, k.dimension, k.key_id) as counter_id, k.scope_id,
        k.dimension::smallint, k.key_id, sum(a.bull) as bull, sum(a.bear) as bear,
        sum(a.max_loss) as max_loss, sum(a.unlimited)::integer as unlimited,
        sum(a.cash_need) as cash_need, sum(a.held_bull) as held_bull,
        sum(a.held_bear) as held_bear, sum(a.held_loss) as held_loss,
        sum(a.held_unlimited)::integer as held_unlimited, sum(a.held_need) as held_need
      from unnest(underlying_ids) as u (underlying_id)
      cross join lateral risk_private.obligation_change(
        obligation_changes.account_id, u.underlying_id, true) as a
      cross join lateral risk_private.obligation_keys(
        obligation_changes.account_id, u.underlying_id) as k
      group by k.scope_id, k.dimension, k.key_id
    ) as c
    where row(c.bull, c.bear, c.max_loss, c.unlimited, c.cash_need, c.held_bull, c.held_bear,
      c.held_loss, c.held_unlimited, c.held_need) <> row(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
      or 0 = (
        select count(*) from risk_private.obligations as o where o.counter_id = c.counter_id)
    order by 1);
end
$$;
comment on function risk_private.obligation_changes(integer, integer[]) is
  'What the rows of obligations that are kept on an account''s chain lack of what its positions '
  'and open orders in some underlyings come to now, whose payoffs it keeps.';

create function risk_private.move_obligations(changes risk_private.obligations[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.obligations as o
  select x.* from unnest(changes) as x
  on conflict (counter_id) do update set
    bull = o.bull + excluded.bull,
    bear = o.bear + excluded.bear,
    max_loss = o.max_loss + excluded.max_loss,
    unlimited = o.unlimited + excluded.unlimited,
    cash_need = o.cash_need + excluded.cash_need,
    held_bull = o.held_bull + excluded.held_bull,
    held_bear = o.held_bear + excluded.held_bear,
    held_loss = o.held_loss + excluded.held_loss,
    held_unlimited = o.held_unlimited + excluded.held_unlimited,
    held_need = o.held_need + excluded.held_need;
end
$$;
comment on function risk_private.move_obligations(risk_private.obligations[]) is
  'Adds changes to obligations. The caller holds the account and, above it, the firm''s counter.';

-- Lock order: the caller holds the account; then the firm's counter, and under it obligations.
create function risk_private.renew_obligations(account_id integer, underlying_ids integer[])
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_changes risk_private.obligations[];
begin
  if not exists (
    select from risk_private.account_levels as l
    where l.account_id = renew_obligations.account_id and l.obligations is not null) then
    return;
  end if;
  v_changes := risk_private.obligation_changes(account_id, underlying_ids);
  if cardinality(v_changes) > 0 then
    perform from risk_private.counters as c
    where c.counter_id = risk_private.counter_id((
      select s.chain[cardinality(s.chain)] from risk_private.scopes as s
      where s.scope_id = renew_obligations.account_id))
    for no key update;
    perform risk_private.move_obligations(v_changes);
  end if;
end
$$;
comment on function risk_private.renew_obligations(integer, integer[]) is
  'Brings what an account may come to owe in some underlyings up to date, for itself and its '
  'parents, after its positions, their cost or its orders have changed. Nothing is done where no '
  'limit needs it.';

create function risk_private.obligation_at(
  scope_id integer, dimension integer, key_id integer, measure text)
returns numeric
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select trim_scale(case measure
      when 'max_loss' then coalesce(case when o.unlimited > 0 then 'Infinity'
        else o.max_loss end, 0)
      when 'cash_need' then coalesce(o.cash_need, 0)
      when 'buying_power' then coalesce(o.cash_need, 0) - e.cash
    end)
    from (select) as one
    left join risk_private.obligations as o
      on o.counter_id = risk_private.counter_id(
        obligation_at.scope_id, obligation_at.dimension, obligation_at.key_id)
    left join risk_private.equities as e
      on e.scope_id = obligation_at.scope_id and e.unknown = 0);
end
$$;
comment on function risk_private.obligation_at(integer, integer, integer, text) is
  'What is kept of one measure at a scope: max_loss, Infinity where it is without bound; '
  'cash_need; buying_power, which is that less cash, NULL while a currency below has no rate.';

create function risk_private.recount_obligations(scope_id integer default null)
returns setof risk_private.obligations
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select risk_private.counter_id(k.scope_id, k.dimension, k.key_id), k.scope_id,
    k.dimension::smallint, k.key_id, sum(a.bull), sum(a.bear), sum(a.max_loss),
    sum(a.unlimited)::integer, sum(a.cash_need), sum(a.held_bull), sum(a.held_bear),
    sum(a.held_loss), sum(a.held_unlimited)::integer, sum(a.held_need)
  from (
    select distinct p.account_id, p.underlying_id
    from risk_private.positions as p
    join risk_private.scopes as leaf on leaf.scope_id = p.account_id
    where (p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0)
      and (recount_obligations.scope_id is null
        or leaf.chain @> array[recount_obligations.scope_id])
      and exists (
        select from risk_private.scopes as s
        where s.scope_id = any (leaf.chain) and s.obligation_dimensions <> '{}')
  ) as u
  cross join lateral risk_private.obligations_of(u.account_id, u.underlying_id) as a
  cross join lateral risk_private.obligation_keys(u.account_id, u.underlying_id) as k
  join risk_private.scopes as s on s.scope_id = k.scope_id
  where recount_obligations.scope_id is null or s.chain @> array[recount_obligations.scope_id]
  group by k.scope_id, k.dimension, k.key_id;
end
$$;
comment on function risk_private.recount_obligations(integer) is
  'Obligations as positions and open orders say: of one scope and all below it, or of all.';

-- Lock order: accounts below, ascending. The rows it makes are nobody's yet.
create function risk_private.track_obligations(scope_id integer, dimension integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select from risk_private.scopes as s
    where s.scope_id = track_obligations.scope_id
      and dimension = any (s.obligation_dimensions)
  ) then
    return;
  end if;
  perform risk_private.lock_accounts_below(array[scope_id]);
  update risk_private.scopes as s
  set obligation_dimensions = s.obligation_dimensions || dimension
  where s.scope_id = track_obligations.scope_id;
  insert into risk_private.obligations
  select r.* from risk_private.recount_obligations(scope_id) as r
  on conflict (counter_id) do nothing;
  perform risk_private.compile_account_levels(scope_id, risk_private.clock());
end
$$;
comment on function risk_private.track_obligations(integer, integer) is
  'Starts keeping obligations at a scope, for all (0), per sector (1) or per underlying (2), exact '
  'while orders flow.';
