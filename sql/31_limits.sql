-- Setting limits. A limit is a version that is only ever added; two compiled tables tell decisions
-- what is in force.

create type risk_private.limit_request as (
  scope text,
  limit_type text,
  amount numeric,
  symbol text,
  underlying text,
  sector text,
  warn_pct numeric,
  valid_from timestamptz,
  valid_until timestamptz
);

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

create function risk_private.stops_orders(s risk_private.scopes, t risk_private.limit_types,
  dimension integer)
returns boolean
language sql immutable
return t.judged = 'window' or t.limit_type = 'duplicate_window'
  or (t.judged = 'sum'
      and not (array[true, s.tracks_sector, s.tracks_underlying,
        s.tracks_instrument])[dimension + 1])
  or (risk_private.is_exposure_type(t.limit_type)
      and risk_private.exposure_dimension(t.judged, dimension) <> all (s.exposure_dimensions))
  or (t.judged in ('underlying', 'obligation')
      and not risk_private.is_exposure_type(t.limit_type)
      and case t.judged when 'underlying' then 2 else dimension end
        <> all (s.obligation_dimensions))
  or (not s.is_leaf and not s.tracks_instrument
    and (t.judged = 'instrument' or t.limit_type = 'self_cross'));
comment on function risk_private.stops_orders(risk_private.scopes, risk_private.limit_types,
  integer) is
  'Whether setting a limit of this type must hold the accounts below for a moment, to start '
  'counting or to look back.';

create function risk_private.limit_key(
  symbol text, underlying text, sector text, out dimension integer, out key_id integer)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_catalog.num_nonnulls(symbol, underlying, sector) > 1 then
    perform risk_private.fail('RK400', 'a limit has at most one of symbol, underlying and sector',
      pg_catalog.format('symbol: %s, underlying: %s, sector: %s', symbol, underlying, sector));
  end if;
  dimension := case when symbol is not null then 3 when underlying is not null then 2
    when sector is not null then 1
    else 0 end;
  if dimension = 0 then
    key_id := 0;
  elsif dimension = 1 then
    select s.sector_id into key_id from risk_private.sectors as s where s.name = sector;
  else
    key_id := risk_private.instrument_id(coalesce(symbol, underlying));
  end if;
  if key_id is null then
    perform risk_private.fail('RK404', pg_catalog.format('unknown sector %L', sector),
      'argument: sector',
      'Sectors come into being with risk.upsert_instruments.');
  end if;
end
$$;
comment on function risk_private.limit_key(text, text, text) is
  'The dimension and key that a limit''s arguments name.';

create function risk_private.validate_limit(request risk_private.limit_request, at timestamptz)
  returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select from risk_private.limit_types as t
    where t.limit_type = request.limit_type) then
    perform risk_private.fail('RK400',
      pg_catalog.format('unknown limit type %L', request.limit_type),
      'argument: limit_type',
      'Known: ' || (select pg_catalog.string_agg(t.limit_type, ', ' order by t.bit)
                    from risk_private.limit_types as t));
  end if;
  if not risk_private.is_amount(request.amount) then
    perform risk_private.fail('RK400',
      pg_catalog.format('amount must be a finite number of 0 to 1e15, got %s',
      coalesce(request.amount::text, 'NULL')), 'argument: amount', '0 permits nothing.');
  end if;
  if request.symbol is not null and (request.limit_type = 'max_loss' or exists (
    select from risk_private.limit_types as t
    where t.limit_type = request.limit_type and t.judged in ('underlying', 'concentration'))) then
    perform risk_private.fail('RK400',
      request.limit_type || ' is measured per underlying, not per symbol', 'argument: symbol',
      'Name the underlying instead.');
  end if;
  if request.limit_type in ('daily_loss', 'drawdown_pct', 'buying_power')
    and pg_catalog.num_nonnulls(request.symbol, request.underlying, request.sector) > 0 then
    perform risk_private.fail('RK400',
      request.limit_type || ' is measured for a scope as a whole',
      'argument: symbol, underlying, sector', 'Leave them out.');
  end if;
  if request.limit_type = 'self_cross' and request.amount not in (0, 1) then
    perform risk_private.fail('RK400', 'self_cross is 1 (on) or 0 (off)', 'argument: amount');
  end if;
  if request.limit_type = 'duplicate_window' and request.amount > 86400 then
    perform risk_private.fail('RK400', 'duplicate_window is at most 86400 seconds',
      'argument: amount');
  end if;
  if (request.warn_pct > 0 and request.warn_pct <= 100) is not true then
    perform risk_private.fail('RK400',
      pg_catalog.format('warn_pct must be above 0 and at most 100, got %s',
      coalesce(request.warn_pct::text, 'NULL')), 'argument: warn_pct');
  end if;
  if (coalesce(request.valid_from, at) < coalesce(request.valid_until, 'infinity')
      and coalesce(request.valid_until, 'infinity') > at) is not true then
    perform risk_private.fail('RK400', 'valid_until must lie after valid_from and in the future',
      pg_catalog.format('valid_from: %s, valid_until: %s', request.valid_from,
        request.valid_until));
  end if;
end
$$;
comment on function risk_private.validate_limit(risk_private.limit_request, timestamptz) is
  'Raises RK400 for a limit that makes no sense.';

-- Lock order: other limit changes; accounts below, where stops_orders says so; the counters it
-- makes, ascending.
create function risk_private.store_limit(request risk_private.limit_request, reason text)
  returns risk_private.limits
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := risk_private.clock();
  v_scope risk_private.scopes := risk_private.scope(request.scope);
  v_type risk_private.limit_types;
  v_dimension integer;
  v_key_id integer;
  v_limit risk_private.limits;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.limits'));
  if request.amount is not null then
    perform risk_private.validate_limit(request, v_at);
  end if;
  if store_limit.reason is not null then
    perform risk_private.require_reason(store_limit.reason);
  end if;
  select t.* into v_type from risk_private.limit_types as t where t.limit_type = request.limit_type;
  select k.dimension, k.key_id into v_dimension, v_key_id
  from risk_private.limit_key(request.symbol, request.underlying, request.sector) as k;
  insert into risk_private.limits (
    scope_id, limit_type, dimension, key_id, version, amount, warn_pct, valid_from, valid_until,
    reason, set_at)
  select v_scope.scope_id, v_type.limit_type, v_dimension, v_key_id,
    coalesce(max(l.version), 0) + 1, request.amount,
    coalesce(request.warn_pct, 100), coalesce(request.valid_from, v_at),
    coalesce(request.valid_until, 'infinity'),
    store_limit.reason, v_at
  from risk_private.limits as l
  where l.scope_id = v_scope.scope_id and l.limit_type = v_type.limit_type
    and l.dimension = v_dimension
    and l.key_id = v_key_id
  returning limits.* into v_limit;
  if request.amount is not null then
    if v_type.judged in ('sum', 'window') then
      perform risk_private.track(v_scope.scope_id, v_dimension);
    elsif risk_private.is_exposure_type(v_type.limit_type) then
      perform risk_private.track_exposures(
        v_scope.scope_id, risk_private.exposure_dimension(v_type.judged, v_dimension));
    elsif v_type.judged in ('underlying', 'obligation') then
      perform risk_private.track_obligations(
        v_scope.scope_id, case v_type.judged when 'underlying' then 2 else v_dimension end);
    elsif not v_scope.is_leaf
      and (v_type.judged = 'instrument' or v_type.limit_type = 'self_cross') then
      perform risk_private.track(v_scope.scope_id, 3);
    end if;
    if v_type.judged = 'window' or v_type.limit_type = 'duplicate_window' then
      perform risk_private.remember_recent_orders(
        v_scope.scope_id, v_type.limit_type, v_dimension, v_key_id, request.amount, v_at);
    end if;
  end if;
  perform risk_private.event('limit', pg_catalog.jsonb_build_object('scope', v_scope.code));
  return v_limit;
end
$$;
comment on function risk_private.store_limit(risk_private.limit_request, text) is
  'Stores the next version of a limit, or its removal (amount NULL), and begins to track what it '
  'needs. It is in force once compile_limits() has run. Errors: RK400, RK404.';

create function risk_private.set_limit(request risk_private.limit_request, reason text)
  returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_limit risk_private.limits := risk_private.store_limit(request, reason);
begin
  perform risk_private.compile_limits(
    v_limit.scope_id, v_limit.dimension, v_limit.key_id, v_limit.set_at);
  return v_limit.limit_id;
end
$$;
comment on function risk_private.set_limit(risk_private.limit_request, text) is
  'Adds a version of a limit; amount NULL removes it. Returns the version''s id.';

create procedure risk.set_limit(
  scope text, limit_type text, amount numeric, symbol text default null,
  underlying text default null,
  sector text default null, warn_pct numeric default 80, valid_from timestamptz default null,
  valid_until timestamptz default null, reason text default null,
  inout request_id bigint default null, inout status text default null)
language plpgsql
as $$
begin
  if amount is null then
    perform risk_private.fail('RK400', 'amount must not be NULL', 'argument: amount',
      'Use risk.remove_limit to remove one.');
  end if;
  request_id := risk_private.set_limit(
    row(scope, limit_type, amount, symbol, underlying, sector, warn_pct, valid_from, valid_until),
      reason);
  status := 'IN_FORCE';
  commit;
end
$$;
comment on procedure risk.set_limit(
  text, text, numeric, text, text, text, numeric, timestamptz, timestamptz, text, bigint, text) is
  'Sets a limit on a scope for all instruments, or for one symbol, underlying or sector. In force '
  'at once or from valid_from, until valid_until. Amounts are finite and >= 0; 0 permits nothing; '
  'a limit is inclusive. Errors: RK400, RK404.';

create function risk_private.limit_requests(limits jsonb) returns risk_private.limit_request[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_requests risk_private.limit_request[] := '{}';
  v_item jsonb;
  v_problem text;
begin
  if pg_catalog.jsonb_typeof(limits) is distinct from 'array' then
    perform risk_private.fail('RK400', 'limits must be a JSON array of objects',
      'argument: limits');
  end if;
  for v_item in select e.value from pg_catalog.jsonb_array_elements(limits) as e loop
    v_problem := case
      when pg_catalog.jsonb_typeof(v_item) <> 'object' then 'each limit must be an object'
      when v_item - array['scope', 'limit_type', 'amount', 'symbol', 'underlying', 'sector',
                          'warn_pct', 'valid_from', 'valid_until'] <> '{}'
        then 'a limit has the arguments of risk.set_limit, nothing else'
      when v_item ->> 'amount' is null then 'amount must not be NULL'
    end;
    if v_problem is not null then
      perform risk_private.fail('RK400', v_problem, 'argument: limits, item: ' || v_item::text);
    end if;
    begin
      v_requests := v_requests || pg_catalog.jsonb_populate_record(
        row(null, null, null, null, null, null, 80, null, null)::risk_private.limit_request,
        v_item);
    exception when data_exception then
      perform risk_private.fail('RK400', 'a limit holds a value of the wrong kind: ' || sqlerrm,
        'argument: limits, item: ' || v_item::text);
    end;
  end loop;
  return v_requests;
end
$$;
comment on function risk_private.limit_requests(jsonb) is
  'Reads a list of limits; RK400 where it makes no sense.';

create function risk_private.set_limits(limits jsonb, reason text) returns bigint[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_requests risk_private.limit_request[] := risk_private.limit_requests(limits);
  v_request risk_private.limit_request;
  v_limits risk_private.limits[] := '{}';
begin
  if reason is not null then
    perform risk_private.require_reason(reason);
  end if;
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.limits'));
  -- All accounts at once, ascending: limit by limit they would be taken in any order.
  perform risk_private.lock_accounts_below(array(
    select s.scope_id
    from pg_catalog.unnest(v_requests) as r
    join risk_private.scopes as s on s.code = r.scope
    join risk_private.limit_types as t on t.limit_type = r.limit_type
    where risk_private.stops_orders(s, t, case when r.symbol is not null then 3
      when r.underlying is not null then 2 when r.sector is not null then 1 else 0 end)));
  foreach v_request in array v_requests loop
    v_limits := v_limits || risk_private.store_limit(v_request, reason);
  end loop;
  perform risk_private.compile_limits(k.scope_id, k.dimension, k.key_id, risk_private.clock())
  from (
    select distinct l.scope_id, l.dimension, l.key_id from unnest(v_limits) as l
    order by l.scope_id, l.dimension, l.key_id
  ) as k;
  return array(select l.limit_id from unnest(v_limits) as l);
end
$$;
comment on function risk_private.set_limits(jsonb, text) is
  'Sets many limits, all or none; returns the versions'' ids.';

create procedure risk.set_limits(limits jsonb, reason text default null,
  inout request_ids bigint[] default null)
language plpgsql
as $$
begin
  request_ids := risk_private.set_limits(limits, reason);
  commit;
end
$$;
comment on procedure risk.set_limits(jsonb, text, bigint[]) is
  'Sets many limits, all or none: an array of objects with the arguments of risk.set_limit. '
  'Errors: RK400, RK404.';

create procedure risk.remove_limit(
  scope text, limit_type text, symbol text default null, underlying text default null,
  sector text default null,
  reason text default null)
language plpgsql
as $$
begin
  perform risk_private.remove_limit(scope, limit_type, symbol, underlying, sector, reason);
  commit;
end
$$;
comment on procedure risk.remove_limit(text, text, text, text, text, text) is
  'Removes a limit, from now on. Other scopes'' and wider dimensions'' limits still hold. Errors: '
  'RK404 where there is none.';

create function risk_private.remove_limit(
  scope text, limit_type text, symbol text, underlying text, sector text, reason text)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (
    select from risk_private.limits as l
    join risk_private.limit_key(symbol, underlying, sector) as k on k.dimension = l.dimension
      and k.key_id = l.key_id
    where l.scope_id = (risk_private.scope(remove_limit.scope)).scope_id
      and l.limit_type = remove_limit.limit_type
  ) then
    perform risk_private.fail('RK404',
      pg_catalog.format('no %s limit is set at %L for this dimension', limit_type, scope),
      pg_catalog.format('symbol: %s, underlying: %s, sector: %s', symbol, underlying, sector));
  end if;
  perform risk_private.set_limit(
    row(scope, limit_type, null, symbol, underlying, sector, null, null,
      null)::risk_private.limit_request, reason);
end
$$;
comment on function risk_private.remove_limit(text, text, text, text, text, text) is
  'What risk.remove_limit does.';
