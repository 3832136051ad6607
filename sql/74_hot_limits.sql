-- What a cache outside the database may keep of limits, and how it learns that they have changed.
-- Every commit that changes a limit, a state or a status takes the next version as its last act, so
-- versions are in the order of commits: whoever sees version n sees every change up to n.

create table risk_private.limit_version (
  singleton boolean primary key default true check (singleton),
  version bigint not null,
  secret uuid not null
);
insert into risk_private.limit_version (version, secret) values (1, pg_catalog.gen_random_uuid());
comment on table risk_private.limit_version is
  'The version of all limits, states and statuses together, and what signing keys derive from.';

create table risk_private.limit_changes (
  xid xid8 primary key
);
comment on table risk_private.limit_changes is
  'Transactions that are changing limits, states or statuses: one row each until just before '
  'their commit, so never a row that others see.';

create function risk_private.note_limit_change() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.limit_changes (xid) values (pg_current_xact_id())
  on conflict (xid) do nothing;
  return null;
end
$$;
comment on function risk_private.note_limit_change() is
  'Notes that this transaction changes what caches hold.';

-- Lock order: last of all. The row is taken in the commit itself, so no change waits here for one
-- that still waits for a trader's lock.
create function risk_private.publish_limit_change() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_version bigint;
begin
  update risk_private.limit_version as v set version = v.version + 1
  returning v.version into v_version;
  perform pg_notify('risk_limits', v_version::text);
  delete from risk_private.limit_changes as c where c.xid = new.xid;
  return null;
end
$$;
comment on function risk_private.publish_limit_change() is
  'Takes the next version and tells it on the channel risk_limits. Runs once in the commit of a '
  'transaction that has noted a change.';

create constraint trigger limit_changes_at_commit after insert on risk_private.limit_changes
deferrable initially deferred
for each row execute function risk_private.publish_limit_change();

create trigger limits_when_changed after insert on risk_private.limits
for each statement execute function risk_private.note_limit_change();
create trigger trading_states_when_changed
after insert or update or delete on risk_private.trading_states
for each statement execute function risk_private.note_limit_change();
create trigger trading_grants_when_changed
after insert or update or delete on risk_private.trading_grants
for each statement execute function risk_private.note_limit_change();
create trigger instruments_when_changed
after update of sector_id, underlying_id, status, status_reason on risk_private.instruments
for each statement execute function risk_private.note_limit_change();

create function risk_private.may_see_limits(chain integer[]) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return risk_private.may_trade(chain) or exists (
    select from unnest(array['risk_admin', 'risk_worker', 'risk_analyst', 'risk_auditor'])
      as r (role)
    where pg_has_role(risk_private.caller(), r.role, 'member'));
end
$$;
comment on function risk_private.may_see_limits(integer[]) is
  'Whether the caller may see limits and states of the scope of that chain: whoever may trade it, '
  'and whoever may read risk.limits.';

-- What risk.limit_utilization shows as worst_case, for one limit and without reading the others.
create function risk_private.hot_use(
  k risk_private.applicable_limit, underlying_id integer, instrument_id integer, at timestamptz)
returns numeric
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  v_key bigint := risk_private.counter_id(k.scope_id, k.dimension, k.key_id);
begin
  if k.judged = 'sum' then
    return coalesce((
      select case k.limit_type
        when 'gross_position' then c.gross_position
        when 'gross_notional' then c.gross_notional
        when 'traded_notional' then c.traded_notional
        when 'open_orders' then c.open_orders
        when 'open_positions' then c.open_positions
      end
      from risk_private.counters as c where c.counter_id = v_key), 0);
  elsif k.judged = 'instrument' and instrument_id is not null then
    return (
      select case k.limit_type
        when 'net_position' then risk_private.worst_case(h.quantity, h.open_buy, h.open_sell)
        when 'long_position' then greatest(0, h.quantity + h.open_buy)
        when 'short_position' then greatest(0, h.open_sell - h.quantity)
      end
      from (values (k.scope_id)) as s (scope_id)
      left join risk_private.positions as p
        on p.account_id = s.scope_id and p.instrument_id = hot_use.instrument_id
      left join risk_private.counters as c
        on c.counter_id = risk_private.counter_id(s.scope_id, 3, hot_use.instrument_id)
      cross join lateral (
        select coalesce(p.quantity, c.quantity, 0) as quantity,
          coalesce(p.open_buy, c.open_buy, 0) as open_buy,
          coalesce(p.open_sell, c.open_sell, 0) as open_sell
      ) as h);
  elsif k.judged = 'window' then
    return risk_private.accepted_since(v_key, at - case k.limit_type
      when 'order_rate' then interval '1 second' else interval '60 seconds' end);
  elsif k.limit_type = 'same_side' and underlying_id is not null then
    return coalesce((
      select greatest(o.bull, o.bear) from risk_private.obligations as o
      where o.counter_id = risk_private.counter_id(k.scope_id, 2, hot_use.underlying_id)), 0);
  elsif k.judged = 'exposure'
    or risk_private.is_exposure_type(k.limit_type) and underlying_id is not null then
    return (
      select case when x.unknown > 0 then null else greatest(0, s.up, -s.down) end
      from (
        select case k.judged when 'exposure' then v_key
          else risk_private.counter_id(k.scope_id, 2, hot_use.underlying_id) end as counter_id
      ) as c
      left join risk_private.exposures as x on x.counter_id = c.counter_id
      cross join lateral risk_private.greek_sides(x, k.limit_type) as s);
  elsif k.judged = 'loss' then
    return (
      select case when v.value < 0 then 0 else v.value end
      from risk_private.equities as e
      cross join lateral (
        select case k.limit_type when 'daily_loss' then risk_private.daily_loss(e)
          else risk_private.drawdown_pct(e.peak, e.equity) end as value
      ) as v
      where e.scope_id = k.scope_id);
  elsif k.judged = 'obligation' then
    return (
      select case
        when k.limit_type = 'buying_power' then coalesce(o.cash_need, 0) - e.cash
        when o.unlimited > 0 then 'Infinity'
        else coalesce(o.max_loss, 0)
      end
      from risk_private.equities as e
      left join risk_private.obligations as o on o.counter_id = v_key
      where e.scope_id = k.scope_id);
  end if;
  return null;
end
$$;
comment on function risk_private.hot_use(
  risk_private.applicable_limit, integer, integer, timestamptz) is
  'What decisions compare with a limit now. NULL where nothing is used up, as with limits on '
  'single orders, where the instrument or underlying that it would be measured for is NULL, and '
  'where a loss or a Greek is not known.';

create function risk_private.hot_uses(
  chain integer[], sector_id integer, underlying_id integer, instrument_id integer,
  at timestamptz)
returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  v_leg risk_private.leg;
begin
  v_leg.sector_id := hot_uses.sector_id;
  v_leg.underlying_id := hot_uses.underlying_id;
  v_leg.instrument_id := hot_uses.instrument_id;
  return coalesce((
    select jsonb_agg(jsonb_build_object(
      'scope', k.scope, 'limit_type', k.limit_type, 'dimension', k.dimension_name,
      'limit_value', k.amount::text, 'warn_pct', k.warn_pct::text,
      'worst_case', u.worst_case::text,
      'utilization_pct', case when u.worst_case <= 0 then '0'
        else trim_scale(round(u.worst_case * 100 / nullif(k.amount, 0), 2))::text end,
      'status', case when u.worst_case > k.amount
          or u.worst_case is null and (k.judged in ('exposure', 'loss')
            or k.judged = 'underlying' and hot_uses.underlying_id is not null) then 'BREACH'
        when k.warns and u.worst_case > 0 and u.worst_case * 100 >= k.warn_pct * k.amount
        then 'WARN' else 'OK' end,
      'version', f.version)
      order by array_position(chain, k.scope_id), k.limit_type, k.dimension)
    from unnest(risk_private.applicable_limits(chain[1], array[v_leg], at)) as k
    join risk_private.limit_periods as f
      on f.scope_id = k.scope_id and f.dimension = k.dimension and f.key_id = k.key_id
      and f.limit_type = k.limit_type and f.valid_from <= at and at < f.valid_until
    cross join lateral (
      select risk_private.hot_use(k, hot_uses.underlying_id, hot_uses.instrument_id, at)
        as worst_case
    ) as u), '[]');
end
$$;
comment on function risk_private.hot_uses(integer[], integer, integer, integer, timestamptz) is
  'Every limit that binds orders of the first scope of the chain in one instrument, with what '
  'decisions compare with it. Keys NULL: those that hold for all instruments.';

create function risk_private.hot_limits(scope text, symbol text) returns jsonb
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_at timestamptz := risk_private.clock();
  v_scope risk_private.scopes := risk_private.scope(scope);
  v_instrument risk_private.instruments;
  v_underlying text;
begin
  perform risk_private.is_settled();
  if risk_private.may_see_limits(v_scope.chain) is not true then
    perform risk_private.fail('RK403',
      format('%s may not see the limits of %L', risk_private.caller(), scope), 'argument: scope',
      'A trading grant on the scope, or a role that reads risk.limits, allows it.');
  end if;
  if symbol is not null then
    select i.* into v_instrument from risk_private.instruments as i
    where i.instrument_id = risk_private.instrument_id(hot_limits.symbol);
    select u.symbol into v_underlying from risk_private.instruments as u
    where u.instrument_id = v_instrument.underlying_id;
  end if;
  return (
    select jsonb_build_object(
      'version', v.version, 'scope', v_scope.code, 'symbol', v_instrument.symbol,
      'underlying', v_underlying, 'as_of', v_at, 'changes_at', (
        select min(e.moment)
        from (values (0, 0), (1, v_instrument.sector_id), (2, v_instrument.underlying_id),
                (3, v_instrument.instrument_id)) as d (dimension, key_id)
        join risk_private.limit_periods as p
          on p.scope_id = any (v_scope.chain) and p.dimension = d.dimension
          and p.key_id = d.key_id
        cross join lateral (values (p.valid_from), (p.valid_until)) as e (moment)
        where e.moment > v_at and e.moment < 'infinity'),
      'state', t.effective_state, 'state_since', t.since, 'state_reason', t.reason,
      'instrument_status', v_instrument.status,
      'limits', risk_private.hot_uses(v_scope.chain, v_instrument.sector_id,
        v_instrument.underlying_id, v_instrument.instrument_id, v_at))
    from risk_private.limit_version as v
    cross join lateral (
      select s.* from risk.trading_states as s
      where s.scope = v_scope.code and (s.underlying is null or s.underlying = v_underlying)
      order by s.underlying nulls last
      limit 1
    ) as t);
end
$$;
comment on function risk_private.hot_limits(text, text) is 'What risk.hot_limits tells.';

create function risk.hot_limits(scope text, symbol text default null) returns jsonb
language sql stable
begin atomic
  select risk_private.hot_limits(scope, symbol);
end;
comment on function risk.hot_limits(text, text) is
  'The limits that bind orders of a scope in an instrument (NULL: those for all instruments), as '
  'one document: version, as_of, changes_at (when a limit next begins or ends by itself), state '
  '(ACTIVE, REDUCE_ONLY, HALTED: the most severe on the chain, for the instrument''s underlying) '
  'with since and reason, instrument_status, and per limit on the whole chain: scope, limit_type, '
  'dimension, limit_value, warn_pct, worst_case (what decisions compare with the limit; NULL '
  'where nothing is used up), utilization_pct, status (OK, WARN, BREACH) and version. Amounts are '
  'strings. For pre-screens and displays: decisions never read it. For whoever may trade the '
  'scope, and who may read risk.limits. Errors: RK403, RK404.';

create function risk_private.limit_cache() returns table (version bigint, signing_key text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select v.version, encode(sha256(convert_to(concat_ws('|',
    v.secret, current_database(), risk_private.caller()), 'UTF8')), 'hex')
  from risk_private.limit_version as v;
end;
comment on function risk_private.limit_cache() is 'What risk.limit_cache tells.';

create function risk.limit_cache() returns table (version bigint, signing_key text)
language sql stable
begin atomic
  select c.version, c.signing_key from risk_private.limit_cache() as c;
end;
comment on function risk.limit_cache() is
  'What a cache of risk.hot_limits needs: the version of all limits, states and statuses '
  'together, which grows with every change and is told on the channel risk_limits; and a key '
  'with which to sign what is kept, different for every role and database.';
