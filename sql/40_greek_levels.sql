-- Where exposures are kept, and the warning levels that they are compared with.

create function risk_private.keeps_exposures(account_id integer) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select from risk_private.account_levels as l
    where l.account_id = keeps_exposures.account_id and l.exposures is not null);
end
$$;
comment on function risk_private.keeps_exposures(integer) is
  'Whether any scope of an account''s chain keeps exposures.';

-- Positions may carry no Greeks before: they are carried at the present ones first.
-- Lock order: accounts below, ascending; then, account by account, the counters of its chain.
create function risk_private.track_exposures(scope_id integer, dimension integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select from risk_private.scopes as s
    where s.scope_id = track_exposures.scope_id
      and track_exposures.dimension = any (s.exposure_dimensions)) then
    return;
  end if;
  perform risk_private.lock_accounts_below(array[scope_id]);
  perform risk_private.revalue(a.scope_id, array(
    select p.instrument_id from risk_private.positions as p where p.account_id = a.scope_id))
  from (
    select s.scope_id from risk_private.scopes as s
    where s.is_leaf and s.chain @> array[track_exposures.scope_id]
    order by s.scope_id
  ) as a;
  update risk_private.scopes as s set
    exposure_dimensions = s.exposure_dimensions || track_exposures.dimension
  where s.scope_id = track_exposures.scope_id;
  insert into risk_private.exposures
  select r.* from risk_private.recount_exposures(track_exposures.scope_id) as r
  where r.dimension = track_exposures.dimension;
  perform risk_private.compile_account_levels(scope_id, risk_private.clock());
end
$$;
comment on function risk_private.track_exposures(integer, integer) is
  'Starts keeping exposures in a dimension at a scope, exact while orders flow.';

create function risk_private.exposure_levels(
  account_id integer, sector_id integer, underlying_id integer, instrument_id integer,
  at timestamptz)
returns risk_private.exposure_level[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select array_agg(row(
      risk_private.counter_id(s.scope_id, d.dimension), s.scope_id, d.dimension,
      case d.dimension when 2 then coalesce(l2.delta, lu.delta, l0.delta, 'Infinity')
        else 'Infinity' end,
      case d.dimension when 2 then coalesce(l2.gamma, lu.gamma, l0.gamma, 'Infinity')
        else 'Infinity' end,
      coalesce((k.l).net_exposure, 'Infinity'), coalesce((k.l).dollar_gamma, 'Infinity'),
      coalesce((k.l).vega, 'Infinity'), coalesce((k.l).theta, 'Infinity'),
      coalesce((k.l).gross_exposure, 'Infinity'),
      coalesce(case d.dimension when 1 then l1.concentration_pct
        when 2 then coalesce(l2.concentration_pct, l0.concentration_pct) end,
        'Infinity'))::risk_private.exposure_level
      order by s.scope_id, d.dimension)
    from risk_private.scopes as leaf
    join risk_private.scopes as s on s.scope_id = any (leaf.chain)
    cross join unnest(s.exposure_dimensions) as d (dimension)
    left join risk_private.instruments as u on u.instrument_id = exposure_levels.underlying_id
    left join risk_private.warning_levels as l0
      on l0.scope_id = s.scope_id and l0.dimension = 0 and l0.key_id = 0
      and at < l0.valid_until and l0.valid_from <= at
    left join risk_private.warning_levels as l1
      on l1.scope_id = s.scope_id and l1.dimension = 1 and l1.key_id = exposure_levels.sector_id
      and at < l1.valid_until and l1.valid_from <= at
    left join risk_private.warning_levels as lu
      on lu.scope_id = s.scope_id and lu.dimension = 1 and lu.key_id = u.sector_id
      and at < lu.valid_until and lu.valid_from <= at
    left join risk_private.warning_levels as l2
      on l2.scope_id = s.scope_id and l2.dimension = 2
      and l2.key_id = exposure_levels.underlying_id
      and at < l2.valid_until and l2.valid_from <= at
    left join risk_private.warning_levels as l3
      on l3.scope_id = s.scope_id and l3.dimension = 3
      and l3.key_id = exposure_levels.instrument_id
      and at < l3.valid_until and l3.valid_from <= at
    cross join lateral (
      select case d.dimension when 0 then l0 when 1 then l1 when 2 then l2 else l3 end as l
    ) as k
    where leaf.scope_id = exposure_levels.account_id);
end
$$;
comment on function risk_private.exposure_levels(integer, integer, integer, integer, timestamptz)
is
  'The rows of exposures that an account''s orders in one instrument move, and the lowest values '
  'there from which a decision must be explained; keys NULL: those that hold for all. Limits per '
  'underlying go by the sector of the underlying. NULL where no scope of the chain keeps any.';
