-- What an account's orders are compared with, folded along its chain into one row, so that
-- accepting an order looks at one row instead of every scope. 31_compiled_limits.sql keeps it up
-- to date.

create type risk_private.counter_level as (
  counter_id bigint,
  dimension integer,
  long_position numeric,
  short_position numeric,
  self_cross boolean,
  gross_position numeric,
  gross_notional numeric,
  traded_notional numeric,
  open_orders integer,
  open_positions integer,
  order_rate integer,
  order_rate_minute integer,
  keeps_rate boolean
);
comment on type risk_private.counter_level is
  'A counter that orders of an account move, and the warning levels in force there (Infinity, or '
  'the largest integer: no limit). Its key is 0: an order adds the key of its sector, underlying '
  'or instrument. net_position, the larger of both sides, is part of long_position and '
  'short_position.';

create type risk_private.rate_change as (
  counter_id bigint,
  accepted_orders integer,
  order_rate integer,
  order_rate_minute integer
);
comment on type risk_private.rate_change is
  'How many more orders a counter has accepted, and the warning levels of the rates in force '
  'there; NULL where nothing is to be compared.';

create type risk_private.exposure_level as (
  counter_id bigint,
  scope_id integer,
  dimension integer,
  delta numeric,
  gamma numeric,
  net_exposure numeric,
  dollar_gamma numeric,
  vega numeric,
  theta numeric,
  gross_exposure numeric,
  concentration_pct numeric
);
comment on type risk_private.exposure_level is
  'A row of exposures that orders of an account move, and the warning levels in force there; else '
  'as counter_level.';

create type risk_private.obligation_level as (
  counter_id bigint,
  scope_id integer,
  dimension integer,
  same_side numeric,
  max_loss numeric,
  buying_power numeric
);
comment on type risk_private.obligation_level is
  'A row of obligations that orders of an account move, and the warning levels in force there; '
  'else as counter_level.';

create type risk_private.loss_level as (
  scope_id integer,
  daily_loss numeric,
  equity_ratio numeric
);
comment on type risk_private.loss_level is
  'The warning levels in force on the losses of a scope (NULL: no limit). equity_ratio: at what '
  'part of its peak the equity has fallen by that of drawdown_pct.';

-- Not compressed: decompressing it would cost every order more than the pages it takes.
create table risk_private.account_levels (
  account_id integer primary key,
  is_narrowed boolean not null,
  valid_from timestamptz not null,
  valid_until timestamptz not null,
  types bit(32) not null,
  order_quantity numeric not null,
  order_notional numeric not null,
  price_collar_pct numeric not null,
  long_position numeric not null,
  short_position numeric not null,
  self_cross boolean not null,
  gross_position numeric not null,
  gross_notional numeric not null,
  traded_notional numeric not null,
  open_orders integer not null,
  open_positions integer not null,
  duplicate_window numeric not null,
  keeps_fingerprints boolean not null,
  rates risk_private.rate_change[],
  counters risk_private.counter_level[] not null,
  exposures risk_private.exposure_level[],
  obligations risk_private.obligation_level[],
  losses risk_private.loss_level[],
  needs_rates boolean,
  are_own boolean,
  version bigint
) with (toast_tuple_target = 8160);
create sequence risk_private.level_versions;
comment on column risk_private.account_levels.version is
  'Changes with every limit that concerns the account.';
comment on table risk_private.account_levels is
  'Compiled from warning_levels: per leaf, the lowest level of each type on its whole chain, among '
  'those that hold for all instruments. Infinity: no limit.';
comment on column risk_private.account_levels.is_narrowed is
  'Whether some scope of the chain also has levels for a sector, underlying or instrument.';
comment on column risk_private.account_levels.long_position is
  'The account''s own, as counter_level has it: those of its parents stand with their counters. '
  'Likewise the next seven.';
comment on column risk_private.account_levels.keeps_fingerprints is
  'Whether a duplicate limit looks back on the account''s orders.';
comment on column risk_private.account_levels.rates is
  'The counters whose rates look back on them, as one more order moves them, keys included; NULL: '
  'none.';
comment on column risk_private.account_levels.exposures is
  'The same for exposures; NULL where none are kept. Likewise obligations and, where they are '
  'limited, losses.';
comment on column risk_private.account_levels.needs_rates is
  'Whether a limit on the chain goes by equity (daily_loss, drawdown_pct or concentration_pct), '
  'and there are foreign rates by which it may be stale.';
comment on column risk_private.account_levels.are_own is
  'Whether rates (of all its orders) and obligations are limited at the account alone, so that '
  'nobody else moves them; NULL: neither is limited.';
comment on column risk_private.account_levels.counters is
  'Every counter that an order of the account moves, ascending.';

create function risk_private.fold_levels(
  account_id integer, sector_id integer, underlying_id integer, instrument_id integer,
  at timestamptz)
returns risk_private.account_levels
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_levels risk_private.account_levels;
begin
  select
    fold_levels.account_id, bool_or(r.is_narrowed),
    coalesce(max(r.valid_from), '-infinity'), coalesce(min(r.valid_until), 'infinity'),
    bit_or(r.types), min(r.order_quantity), min(r.order_notional), min(r.price_collar_pct),
    min(p.long_position) filter (where r.is_own), min(p.short_position) filter (where r.is_own),
    bool_or(r.self_cross and r.is_own),
    min(k.gross_position) filter (where r.is_own and k.dimension = 0),
    min(k.gross_notional) filter (where r.is_own and k.dimension = 0),
    min(k.traded_notional) filter (where r.is_own and k.dimension = 0),
    min(k.open_orders) filter (where r.is_own and k.dimension = 0),
    min(k.open_positions) filter (where r.is_own and k.dimension = 0),
    max(r.duplicate_window), bool_or(r.keeps_fingerprints),
    array_agg(row(
      k.counter_id | case k.dimension when 0 then 0 when 1 then fold_levels.sector_id
        when 2 then fold_levels.underlying_id else fold_levels.instrument_id end,
      1, k.order_rate, k.order_rate_minute)::risk_private.rate_change
      order by k.counter_id) filter (where k.is_tracked and k.keeps_rate),
    array_agg(row(
      k.counter_id, k.dimension, p.long_position, p.short_position, r.self_cross,
      k.gross_position, k.gross_notional, k.traded_notional, k.open_orders, k.open_positions,
      k.order_rate, k.order_rate_minute, k.keeps_rate)::risk_private.counter_level
      order by k.counter_id) filter (where k.is_tracked)
  into v_levels
  from (
    select
      s.scope_id, s.scope_id = fold_levels.account_id as is_own, s.tracks_sector,
      s.tracks_underlying, s.tracks_instrument, l0, l1, l2, l3,
      exists (
        select from risk_private.warning_levels as w
        where w.scope_id = s.scope_id and w.dimension > 0) as is_narrowed,
      greatest(l0.valid_from, l1.valid_from, lu.valid_from, l2.valid_from, l3.valid_from)
        as valid_from,
      least(l0.valid_until, l1.valid_until, lu.valid_until, l2.valid_until, l3.valid_until)
        as valid_until,
      coalesce(l0.types, b'0'::bit(32)) | coalesce(l1.types, b'0'::bit(32))
        | coalesce(l2.types, b'0'::bit(32)) | coalesce(l3.types, b'0'::bit(32)) as types,
      coalesce(l3.order_quantity, l2.order_quantity, l1.order_quantity, l0.order_quantity,
        'Infinity') as order_quantity,
      coalesce(l3.order_notional, l2.order_notional, l1.order_notional, l0.order_notional,
        'Infinity') as order_notional,
      coalesce(l3.price_collar_pct, l2.price_collar_pct, l1.price_collar_pct, l0.price_collar_pct,
        'Infinity') as price_collar_pct,
      coalesce(l3.net_position, l2.net_position, l1.net_position, l0.net_position, 'Infinity')
        as net_position,
      coalesce(l3.long_position, l2.long_position, l1.long_position, l0.long_position, 'Infinity')
        as long_position,
      coalesce(l3.short_position, l2.short_position, l1.short_position, l0.short_position,
        'Infinity') as short_position,
      coalesce(greatest(l0.self_cross, l1.self_cross, l2.self_cross, l3.self_cross), 0) <> 0
        as self_cross,
      coalesce(greatest(l0.duplicate_window, l1.duplicate_window, l2.duplicate_window,
        l3.duplicate_window), 0) as duplicate_window,
      l0.keeps_fingerprints is true or l1.keeps_fingerprints is true
        or l2.keeps_fingerprints is true or l3.keeps_fingerprints is true as keeps_fingerprints
    from risk_private.scopes as leaf
    join risk_private.scopes as s on s.scope_id = any (leaf.chain)
    left join risk_private.instruments as u on u.instrument_id = fold_levels.underlying_id
    left join risk_private.warning_levels as l0
      on l0.scope_id = s.scope_id and l0.dimension = 0 and l0.key_id = 0
      and at < l0.valid_until and l0.valid_from <= at
    left join risk_private.warning_levels as l1
      on l1.scope_id = s.scope_id and l1.dimension = 1 and l1.key_id = fold_levels.sector_id
      and at < l1.valid_until and l1.valid_from <= at
    left join risk_private.warning_levels as lu
      on lu.scope_id = s.scope_id and lu.dimension = 1 and lu.key_id = u.sector_id
      and at < lu.valid_until and lu.valid_from <= at
    left join risk_private.warning_levels as l2
      on l2.scope_id = s.scope_id and l2.dimension = 2 and l2.key_id = fold_levels.underlying_id
      and at < l2.valid_until and l2.valid_from <= at
    left join risk_private.warning_levels as l3
      on l3.scope_id = s.scope_id and l3.dimension = 3 and l3.key_id = fold_levels.instrument_id
      and at < l3.valid_until and l3.valid_from <= at
    where leaf.scope_id = fold_levels.account_id
  ) as r
  cross join lateral (
    select least(r.net_position, r.long_position) as long_position,
      least(r.net_position, r.short_position) as short_position
  ) as p
  cross join lateral (
    select
      risk_private.counter_id(r.scope_id, d.dimension) as counter_id, d.dimension, d.is_tracked,
      coalesce((d.l).gross_position, 'Infinity') as gross_position,
      coalesce((d.l).gross_notional, 'Infinity') as gross_notional,
      coalesce((d.l).traded_notional, 'Infinity') as traded_notional,
      least(ceil((d.l).open_orders), 2147483647)::integer as open_orders,
      least(ceil((d.l).open_positions), 2147483647)::integer as open_positions,
      least(ceil((d.l).order_rate), 2147483647)::integer as order_rate,
      least(ceil((d.l).order_rate_minute), 2147483647)::integer as order_rate_minute,
      coalesce((d.l).keeps_rate, false) as keeps_rate
    from (
      values (0, true, r.l0), (1, r.tracks_sector, r.l1), (2, r.tracks_underlying, r.l2),
        (3, r.tracks_instrument, r.l3)
    ) as d (dimension, is_tracked, l)
  ) as k;
  v_levels.exposures := risk_private.exposure_levels(
    account_id, sector_id, underlying_id, instrument_id, at);
  v_levels.obligations := risk_private.obligation_levels(account_id, underlying_id, at);
  v_levels.losses := risk_private.loss_levels(account_id, at);
  v_levels.needs_rates := risk_private.has_foreign_rates() and (
    v_levels.losses is not null or exists (
      select from unnest(v_levels.exposures) as x where x.concentration_pct < 'Infinity'));
  -- A scope's counters are numbered below those of the scopes above it.
  v_levels.are_own := (
    select bool_and(x.is_own)
    from (
      select r.counter_id = risk_private.counter_id(account_id) as is_own
      from unnest(v_levels.rates) as r
      union all
      select o.counter_id < risk_private.counter_id(account_id + 1)
      from unnest(v_levels.obligations) as o
    ) as x);
  return v_levels;
end
$$;
comment on function risk_private.fold_levels(integer, integer, integer, integer, timestamptz) is
  'The warning levels for an account''s orders in one instrument: within a scope the most '
  'specific, over the chain the lowest. Keys NULL: those that hold for all instruments.';

create table risk_private.instrument_levels (
  account_id integer not null,
  instrument_id integer not null,
  version bigint not null,
  levels risk_private.account_levels not null,
  primary key (account_id, instrument_id)
);
comment on table risk_private.instrument_levels is
  'Levels folded for one instrument of a narrowed account, kept for its next order. Of use only '
  'while the version is that of account_levels.';

create function risk_private.renew_account_levels(scope_id integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update risk_private.account_levels as l set
    version = nextval('risk_private.level_versions'),
    is_narrowed = l.is_narrowed or exists (
      select from risk_private.warning_levels as w
      where w.scope_id = any (s.chain) and w.dimension > 0)
  from risk_private.scopes as s
  where s.chain @> array[renew_account_levels.scope_id] and l.account_id = s.scope_id;
end
$$;
comment on function risk_private.renew_account_levels(integer) is
  'Gives account_levels at or below a scope a new version, so that nothing folded before is used.';

create function risk_private.compile_account_levels(scope_id integer, at timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from risk_private.account_levels as l
  using risk_private.scopes as s
  where s.chain @> array[compile_account_levels.scope_id] and l.account_id = s.scope_id;
  insert into risk_private.account_levels
  select l.*
  from risk_private.scopes as s
  cross join lateral risk_private.fold_levels(s.scope_id, null, null, null, at) as l
  where s.is_leaf and s.chain @> array[compile_account_levels.scope_id];
  perform risk_private.renew_account_levels(scope_id);
end
$$;
comment on function risk_private.compile_account_levels(integer, timestamptz) is
  'Rebuilds account_levels for every account at or below a scope. The caller holds the lock on '
  'limits.';

create function risk_private.refresh_account_levels(account_id integer, at timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Whoever sets limits has the row locked and rebuilds it himself: he is not waited for.
  perform from risk_private.account_levels as l
  where l.account_id = refresh_account_levels.account_id for no key update skip locked;
  if not found then
    return;
  end if;
  update risk_private.account_levels as l set
    is_narrowed = n.is_narrowed, valid_from = n.valid_from, valid_until = n.valid_until,
    types = n.types, order_quantity = n.order_quantity, order_notional = n.order_notional,
    price_collar_pct = n.price_collar_pct, long_position = n.long_position,
    short_position = n.short_position, self_cross = n.self_cross,
    gross_position = n.gross_position, gross_notional = n.gross_notional,
    traded_notional = n.traded_notional, open_orders = n.open_orders,
    open_positions = n.open_positions,
    duplicate_window = n.duplicate_window, keeps_fingerprints = n.keeps_fingerprints,
    rates = n.rates, counters = n.counters,
    exposures = n.exposures, obligations = n.obligations, losses = n.losses,
    needs_rates = n.needs_rates, are_own = n.are_own
  from risk_private.fold_levels(
    refresh_account_levels.account_id, null, null, null, at) as n
  where l.account_id = n.account_id;
end
$$;
comment on function risk_private.refresh_account_levels(integer, timestamptz) is
  'Rebuilds the account_levels of an account where a temporary limit has begun or ended.';

create function risk_private.levels_of(
  compiled risk_private.account_levels, sector_id integer, underlying_id integer,
  instrument_id integer, at timestamptz)
returns risk_private.account_levels
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if at >= compiled.valid_from and at < compiled.valid_until and not exists (
    select from risk_private.scopes as leaf
    left join risk_private.instruments as u on u.instrument_id = levels_of.underlying_id
    cross join lateral (
      values (1, levels_of.sector_id), (1, u.sector_id), (2, levels_of.underlying_id),
        (3, levels_of.instrument_id)
    ) as d (dimension, key_id)
    join risk_private.warning_levels as w
      on w.scope_id = any (leaf.chain) and w.dimension = d.dimension and w.key_id = d.key_id
    where leaf.scope_id = compiled.account_id
  ) then
    return compiled;
  end if;
  return risk_private.fold_levels(compiled.account_id, sector_id, underlying_id, instrument_id, at);
end
$$;
comment on function risk_private.levels_of(
  risk_private.account_levels, integer, integer, integer, timestamptz) is
  'The levels for one instrument where the compiled row may not tell: it is narrowed, or it is '
  'out of date.';

create function risk_private.kept_levels(
  compiled risk_private.account_levels, sector_id integer, underlying_id integer,
  instrument_id integer, at timestamptz)
returns risk_private.account_levels
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_levels risk_private.account_levels;
begin
  select (k.levels).* into v_levels
  from risk_private.instrument_levels as k
  where k.account_id = compiled.account_id and k.instrument_id = kept_levels.instrument_id
    and k.version = compiled.version;
  if v_levels.valid_from <= at and at < v_levels.valid_until then
    return v_levels;
  end if;
  v_levels := risk_private.levels_of(compiled, sector_id, underlying_id, instrument_id, at);
  insert into risk_private.instrument_levels as k (account_id, instrument_id, version, levels)
  values (compiled.account_id, kept_levels.instrument_id, compiled.version, v_levels)
  on conflict on constraint instrument_levels_pkey
    do update set version = excluded.version, levels = excluded.levels;
  return v_levels;
end
$$;
comment on function risk_private.kept_levels(
  risk_private.account_levels, integer, integer, integer, timestamptz) is
  'levels_of, remembered for the next order. The caller holds the account, and has read the '
  'compiled row in an earlier statement than this: what is kept is never older than its version.';
