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
