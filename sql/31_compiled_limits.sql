-- What follows from a limit that was set: the compiled tables tell decisions what is in force, and
-- what it is judged by is kept from then on.

create function risk_private.compile_limits(scope_id integer, dimension integer, key_id integer,
  at timestamptz)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from risk_private.limit_periods as p
  where p.scope_id = compile_limits.scope_id and p.dimension = compile_limits.dimension
    and p.key_id = compile_limits.key_id;
  insert into risk_private.limit_periods (
    scope_id, dimension, key_id, limit_type, valid_until, valid_from, limit_id, amount, warn_pct,
    version)
  with versions as (
    select l.* from risk_private.limits as l
    where l.scope_id = compile_limits.scope_id and l.dimension = compile_limits.dimension
      and l.key_id = compile_limits.key_id and l.valid_until > at
  ), moments as (
    select v.limit_type, greatest(v.valid_from, at) as moment from versions as v
    union
    select v.limit_type, v.valid_until from versions as v
  ), periods as (
    select m.limit_type, m.moment as starts,
      pg_catalog.lead(m.moment) over (partition by m.limit_type order by m.moment) as ends
    from moments as m
  )
  select compile_limits.scope_id, compile_limits.dimension, compile_limits.key_id, p.limit_type,
    p.ends, p.starts,
    w.limit_id, w.amount, w.warn_pct, w.version
  from periods as p
  cross join lateral (
    select v.* from versions as v
    where v.limit_type = p.limit_type and v.valid_from <= p.starts and p.starts < v.valid_until
    order by v.version desc limit 1
  ) as w
  where w.amount is not null and p.ends is not null;

  delete from risk_private.warning_levels as w
  where w.scope_id = compile_limits.scope_id and w.dimension = compile_limits.dimension
    and w.key_id = compile_limits.key_id;
  insert into risk_private.warning_levels
  with periods as (
    select p.*, t.bit, t.judged,
      case when t.warns then p.amount * p.warn_pct / 100 else p.amount end as level
    from risk_private.limit_periods as p
    join risk_private.limit_types as t on t.limit_type = p.limit_type
    where p.scope_id = compile_limits.scope_id and p.dimension = compile_limits.dimension
      and p.key_id = compile_limits.key_id
  ), moments as (
    select p.valid_from as moment from periods as p
    union
    select p.valid_until from periods as p
    union
    select '-infinity'
  ), stretches as (
    select m.moment as starts,
      pg_catalog.lead(m.moment, 1, 'infinity') over (order by m.moment) as ends
    from moments as m
  )
  select r.*
  from stretches as s
  cross join lateral (
    select
      coalesce(pg_catalog.jsonb_object_agg(p.limit_type,
        p.level) filter (where p.limit_type is not null), '{}')
      || pg_catalog.jsonb_build_object(
        'scope_id', compile_limits.scope_id, 'dimension', compile_limits.dimension,
        'key_id', compile_limits.key_id, 'valid_from', s.starts, 'valid_until', s.ends,
        'types', coalesce(pg_catalog.bit_or(pg_catalog.set_bit(b'0'::bit(32), p.bit, 1)),
          b'0'::bit(32)),
        'keeps_rate', exists (select from periods as k where k.judged = 'window'),
        'keeps_fingerprints', exists (select from periods as k
          where k.limit_type = 'duplicate_window')) as level
    from periods as p
    where p.valid_from <= s.starts and s.starts < p.valid_until
  ) as j
  cross join lateral pg_catalog.jsonb_populate_record(null::risk_private.warning_levels,
    j.level) as r
  where s.starts < s.ends and exists (select from periods);
  if dimension = 0 then
    perform risk_private.compile_account_levels(scope_id, at);
  else
    perform risk_private.renew_account_levels(scope_id);
  end if;
end
$$;
comment on function risk_private.compile_limits(integer, integer, integer, timestamptz) is
  'Rebuilds limit_periods and warning_levels for one scope, dimension and key, and what accounts '
  'below make of them.';

-- Locks every account below the scope, ascending, for as long as the transaction lasts.
create function risk_private.lock_accounts_below(scope_ids integer[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from risk_private.scopes as s
  join risk_private.counters as c on c.counter_id = risk_private.counter_id(s.scope_id)
  where s.is_leaf and s.chain && scope_ids
  order by c.counter_id
  for no key update of c;
end
$$;
comment on function risk_private.lock_accounts_below(integer[]) is
  'Stops every movement below some scopes until commit.';

-- Lock order: accounts below, ascending; then the counters it makes, ascending.
create function risk_private.track(scope_id integer, dimension integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select from risk_private.scopes as s
    where s.scope_id = track.scope_id
      and (array[true, s.tracks_sector, s.tracks_underlying, s.tracks_instrument])[dimension + 1]
  ) then
    return;
  end if;
  perform risk_private.lock_accounts_below(array[scope_id]);
  insert into risk_private.counters (
    counter_id, scope_id, dimension, key_id, quantity, open_buy, open_sell, gross_position,
    gross_notional,
    traded_notional, open_orders, open_positions)
  select r.counter_id, r.scope_id, r.dimension, r.key_id, r.quantity, r.open_buy, r.open_sell,
    r.gross_position,
    r.gross_notional, r.traded_notional, r.open_orders, r.open_positions
  from risk_private.recount(track.scope_id) as r
  where r.dimension = track.dimension
  order by r.counter_id;
  update risk_private.scopes as s set
    tracks_sector = s.tracks_sector or dimension = 1,
    tracks_underlying = s.tracks_underlying or dimension = 2,
    tracks_instrument = s.tracks_instrument or dimension = 3
  where s.scope_id = track.scope_id;
  perform risk_private.compile_account_levels(scope_id, risk_private.clock());
end
$$;
comment on function risk_private.track(integer, integer) is
  'Starts keeping counters per sector (1), underlying (2) or instrument (3) at a scope, exact '
  'while orders flow. From then on a key without a row is one that nobody below has ever traded.';

-- Lock order: accounts below, ascending; then counters, ascending.
create function risk_private.remember_recent_orders(
  scope_id integer, limit_type text, dimension integer, key_id integer, amount numeric,
  at timestamptz)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_counter_id bigint := risk_private.counter_id(scope_id, dimension, key_id);
  v_window interval := case
    when limit_type = 'duplicate_window'
      then pg_catalog.make_interval(secs => amount::double precision)
    else interval '60 seconds'
  end;
  v_times timestamptz[];
begin
  perform risk_private.lock_accounts_below(array[scope_id]);
  if limit_type = 'duplicate_window' then
    insert into risk_private.recent_orders as r (account_id, fingerprint, accepted_at)
    select o.account_id, f.fingerprint, max(o.decided_at)
    from risk_private.orders as o
    join risk_private.scopes as s on s.scope_id = o.account_id
      and s.chain @> array[remember_recent_orders.scope_id]
    cross join lateral (
      select risk_private.fingerprint(o.instrument_ids, o.ratios, o.quantity,
        o.price) as fingerprint
    ) as f
    where o.decision = 'ACCEPTED' and o.decided_at > at - v_window
    group by o.account_id, f.fingerprint
    on conflict (account_id, fingerprint) do update
      set accepted_at = greatest(r.accepted_at, excluded.accepted_at);
    return;
  end if;
  insert into risk_private.counters (counter_id, scope_id, dimension, key_id)
  values (v_counter_id, remember_recent_orders.scope_id, remember_recent_orders.dimension,
          remember_recent_orders.key_id)
  on conflict on constraint counters_pkey do nothing;
  v_times := array(
    select o.decided_at
    from risk_private.orders as o
    join risk_private.scopes as s on s.scope_id = o.account_id
      and s.chain @> array[remember_recent_orders.scope_id]
    where o.decision = 'ACCEPTED' and o.decided_at > at - v_window
      and exists (
        select from pg_catalog.unnest(o.instrument_ids) as leg (instrument_id)
        join risk_private.instruments as i on i.instrument_id = leg.instrument_id
        where remember_recent_orders.key_id
          = (array[0, i.sector_id, i.underlying_id, i.instrument_id])[dimension + 1])
    order by o.decided_at desc);
  delete from risk_private.rate_events as e where e.counter_id = v_counter_id;
  insert into risk_private.rate_events (counter_id, number, accepted_at)
  select c.counter_id, c.accepted_orders + 1 - t.recency, t.accepted_at
  from risk_private.counters as c
  cross join pg_catalog.unnest(v_times) with ordinality as t (accepted_at, recency)
  where c.counter_id = v_counter_id;
end
$$;
comment on function risk_private.remember_recent_orders(integer, text, integer, integer, numeric,
  timestamptz) is
  'Fills in what a rate or duplicate limit must know of the orders accepted before it was set.';
