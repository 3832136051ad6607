-- The lean path's part for accounts with limits on what they may come to owe.

create function risk_private.has_room(
  levels risk_private.obligation_level[], changes risk_private.obligations[], keys integer[])
returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return not exists (
    select from unnest(levels) as l
    left join unnest(changes) as x on x.scope_id = l.scope_id and x.dimension = l.dimension
    left join risk_private.obligations as o
      on o.counter_id = l.counter_id | keys[l.dimension + 1]
    left join risk_private.equities as e on e.scope_id = l.scope_id and e.unknown = 0
    where least(l.same_side, l.max_loss, l.buying_power) < 'Infinity'
      and (l.dimension <> 1 or keys[2] is not null)
      and (
        greatest(coalesce(o.bull, 0) + coalesce(x.bull, 0),
          coalesce(o.bear, 0) + coalesce(x.bear, 0)) < l.same_side
        and coalesce(o.max_loss, 0) + coalesce(x.max_loss, 0) < l.max_loss
        and (l.max_loss = 'Infinity'
          or coalesce(o.unlimited, 0) + coalesce(x.unlimited, 0) = 0)
        and (l.buying_power = 'Infinity'
          or coalesce(o.cash_need, 0) + coalesce(x.cash_need, 0) - e.cash < l.buying_power)
      ) is not true);
end
$$;
comment on function risk_private.has_room(
  risk_private.obligation_level[], risk_private.obligations[], integer[]) is
  'Whether obligations, so changed, stay below all of these warning levels; keys are 0, the sector '
  'and the underlying.';

create function risk_private.obligation_keys(underlying_id integer) returns integer[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select array[0, u.sector_id, u.instrument_id] from risk_private.instruments as u
    where u.instrument_id = obligation_keys.underlying_id);
end
$$;
comment on function risk_private.obligation_keys(integer) is
  'The keys of an underlying''s obligations, by dimension.';

create function risk_private.reserve_obligations(
  account_id integer, underlying_id integer, levels risk_private.obligation_level[])
returns risk_private.obligations[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_changes risk_private.obligations[] :=
    risk_private.obligation_changes(account_id, array[underlying_id]);
begin
  if risk_private.has_room(
    array(select l from unnest(levels) as l where l.scope_id = account_id), v_changes,
    risk_private.obligation_keys(underlying_id)) then
    return v_changes;
  end if;
  return null;
end
$$;
comment on function risk_private.reserve_obligations(
  integer, integer, risk_private.obligation_level[]) is
  'What an order that has just been stored changes; NULL where its account has no room.';

create function risk_private.add_obligations(
  underlying_id integer, levels risk_private.obligation_level[],
  changes risk_private.obligations[])
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not risk_private.has_room(
    levels, changes, risk_private.obligation_keys(underlying_id)) then
    return false;
  end if;
  perform risk_private.move_obligations(changes);
  return true;
end
$$;
comment on function risk_private.add_obligations(
  integer, risk_private.obligation_level[], risk_private.obligations[]) is
  'Adds changes where every level of the chain stays below its warning level; the caller holds the '
  'firm''s counter.';
