-- What the worker does beside evaluating breakers: rolls the day, tells of limits that lapse or
-- come near, recounts, refreshes materialized views. Every change checks the epoch.

create index limits_expiry_idx on risk_private.limits (valid_until) where valid_until < 'infinity';

create table risk_private.worker_progress (
  job text primary key,
  done_until timestamptz not null
);
comment on table risk_private.worker_progress is
  'Up to which moment a job of the worker has looked; kept from leader to leader.';

create table risk_private.limit_warnings (
  limit_key text primary key,
  warned_at timestamptz not null
);
comment on table risk_private.limit_warnings is
  'Limits whose warning was alerted and is not armed again yet.';

-- Lock order: the lease.
create function risk_private.has_unfollowed(epoch bigint) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.require_epoch(epoch);
  perform pg_catalog.set_config('synchronous_commit', 'off', true);
  return exists (select from risk_private.moved_marks);
end
$$;
comment on function risk_private.has_unfollowed(bigint) is
  'Whether positions have yet to follow marks that moved: then the leader calls risk.revalue. '
  'Raises RK409 when the epoch is over.';

create function risk_private.due_day() returns date
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at text := coalesce(
    (select s.value from risk_private.settings as s
     where s.name = 'open_day_at' and s.scope_id is null), '00:00');
  v_zone text := coalesce(
    (select s.value from risk_private.settings as s
     where s.name = 'exchange_time_zone' and s.scope_id is null), 'America/New_York');
  v_day date;
begin
  if v_at = 'off' then
    return null;
  end if;
  v_day := ((risk_private.clock() at time zone v_zone) - v_at::interval)::date;
  return (
    select v_day from risk_private.trading_calendar as c
    where c.trading_date < v_day and pg_catalog.date_part('isodow', v_day) < 6
      and c.opened_at < (v_day + v_at::time) at time zone v_zone);
end
$$;
comment on function risk_private.due_day() is
  'The day that is to be opened now: a weekday whose time open_day_at (of the exchange''s clock) '
  'has come since the last open_day. NULL: none, or nobody has opened a first day.';

-- Lock order: the lease, then the calendar.
create function risk_private.begin_due_day(epoch bigint, out day date, out account_ids integer[])
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.require_epoch(epoch);
  day := risk_private.due_day();
  if day is not null then
    account_ids := risk_private.set_trading_date(day, null);
    return;
  end if;
  select c.trading_date into day from risk_private.trading_calendar as c;
  account_ids := array(
    select s.scope_id from risk_private.scopes as s
    where s.is_leaf and s.trading_day < begin_due_day.day order by s.scope_id);
end
$$;
comment on function risk_private.begin_due_day(bigint) is
  'Moves the trading date when a day is due. Returns the day and the accounts that have yet to '
  'follow, those of a roll that was interrupted too. Raises RK409 when the epoch is over.';

-- Lock order: the lease, then the account, then its chain's counters ascending.
create function risk_private.roll_account_at(epoch bigint, account_id integer, day date)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.require_epoch(epoch);
  perform risk_private.roll_account(account_id, day);
end
$$;
comment on function risk_private.roll_account_at(bigint, integer, date) is
  'Takes an account into a trading day. Raises RK409 when the epoch is over.';

-- Lock order: the lease, then progress.
create function risk_private.tell_lapsed_limits(epoch bigint) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_until timestamptz := risk_private.clock();
  v_since timestamptz;
  v_payloads jsonb[];
begin
  perform risk_private.require_epoch(epoch);
  select p.done_until into v_since
  from risk_private.worker_progress as p where p.job = 'tell_lapsed_limits' for update;
  insert into risk_private.worker_progress as p (job, done_until)
  values ('tell_lapsed_limits', v_until)
  on conflict on constraint worker_progress_pkey do update set done_until = excluded.done_until;
  v_payloads := array(
    select pg_catalog.jsonb_build_object(
      'scope', s.code, 'limit_type', l.limit_type,
      'dimension', risk_private.dimension_name(l.dimension, l.key_id),
      'limit_value', l.amount::text, 'version', l.version, 'valid_until', l.valid_until,
      'limit_value_now', (
        select f.amount::text from risk_private.limits_in_force as f
        where f.scope_id = l.scope_id and f.limit_type = l.limit_type
          and f.dimension = l.dimension and f.key_id = l.key_id))
    from risk_private.limits as l
    join risk_private.scopes as s on s.scope_id = l.scope_id
    where l.valid_until > v_since and l.valid_until <= v_until and l.amount is not null
      and not exists (
        select from risk_private.limits as k
        where k.scope_id = l.scope_id and k.limit_type = l.limit_type
          and k.dimension = l.dimension and k.key_id = l.key_id and k.version > l.version
          and k.valid_from < l.valid_until and k.valid_until >= l.valid_until)
    order by l.valid_until, l.limit_id);
  perform risk_private.alerts('limit_lapsed', v_payloads);
  return pg_catalog.cardinality(v_payloads);
end
$$;
comment on function risk_private.tell_lapsed_limits(bigint) is
  'Alerts every temporary limit whose time ended since the last look while it was in force, with '
  'the amount that holds now (null: none). Returns how many. Raises RK409 when the epoch is over.';

-- Lock order: the lease, then warnings.
create function risk_private.tell_warnings(epoch bigint) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_payloads jsonb[];
begin
  perform risk_private.require_epoch(epoch);
  with levels as (
    select l.warn_pct, l.version, pg_catalog.concat_ws(pg_catalog.chr(31), l.scope, l.limit_type,
      's' || l.symbol, 'u' || l.underlying, 'k' || l.sector) as limit_key
    from risk.limits as l
  ), keyed as (
    select u.*, pg_catalog.concat_ws(pg_catalog.chr(31), u.scope, u.limit_type,
      's' || u.symbol, 'u' || u.underlying, 'k' || u.sector) as limit_key
    from risk.limit_utilization as u
  ), used as materialized (
    select k.*, l.warn_pct
    from keyed as k join levels as l on l.limit_key = k.limit_key and l.version = k.version
  ), armed as (
    delete from risk_private.limit_warnings as w
    where not exists (
      select from used as u
      where u.limit_key = w.limit_key
        and (u.utilization_pct < u.warn_pct - 5 and u.status = 'OK') is not true)
  ), crossed as (
    insert into risk_private.limit_warnings (limit_key, warned_at)
    select u.limit_key, u.as_of from used as u where u.status in ('WARN', 'BREACH')
    on conflict on constraint limit_warnings_pkey do nothing
    returning limit_warnings.limit_key
  )
  select coalesce(pg_catalog.array_agg(pg_catalog.jsonb_build_object(
    'scope', u.scope, 'limit_type', u.limit_type, 'symbol', u.symbol, 'underlying', u.underlying,
    'sector', u.sector, 'limit_value', u.limit_value::text, 'worst_case', u.worst_case::text,
    'utilization_pct', u.utilization_pct::text, 'warn_pct', u.warn_pct::text,
    'status', u.status, 'as_of', u.as_of) order by u.limit_key), '{}') into v_payloads
  from used as u join crossed as c on c.limit_key = u.limit_key;
  perform risk_private.alerts('limit_warning', v_payloads);
  return pg_catalog.cardinality(v_payloads);
end
$$;
comment on function risk_private.tell_warnings(bigint) is
  'Alerts every limit whose use has reached warn_pct, once; again only after the use has been '
  'below warn_pct - 5. Returns how many. Raises RK409 when the epoch is over.';

create type risk_private.recounted as enum (
  'positions', 'counters', 'obligations', 'payoffs', 'exposures', 'money');
comment on type risk_private.recounted is 'What is recounted, part by part.';

create function risk_private.parts_to_recount() returns text[]
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select pg_catalog.enum_range(null::risk_private.recounted)::text[];
end;
comment on function risk_private.parts_to_recount() is 'What reconcile() can recount.';

-- Part by part: as long as a snapshot is in use, the rows that orders update keep all versions.
-- Lock order: the lease, then trading states. The count is one statement on one snapshot.
create function risk_private.reconcile(epoch bigint, part risk_private.recounted)
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_drift record;
  v_count integer := 0;
begin
  for v_drift in
    select s.scope_id, count(*)::integer as differences,
      (pg_catalog.array_agg(pg_catalog.jsonb_build_object('scope', s.code,
        'dimension', d.dimension, 'measure', d.measure, 'stored', d.stored,
        'expected', d.expected)))[1:20] as details,
      pg_catalog.min(pg_catalog.format('%s of %s is %s, expected %s', d.measure, d.dimension,
        d.stored, d.expected)) as example
    from risk_private.differences(part) as d
    join risk_private.scopes as s on s.scope_id = d.scope_id
    group by s.scope_id
    order by s.scope_id
  loop
    perform risk_private.require_epoch(epoch);
    v_count := v_count + v_drift.differences;
    if risk_private.trip_scope(v_drift.scope_id, 'HALTED',
      'counters differ from orders and fills: ' || v_drift.example) then
      perform risk_private.alerts('drift', v_drift.details);
    end if;
  end loop;
  return v_count;
end
$$;
comment on function risk_private.reconcile(bigint, risk_private.recounted) is
  'Recounts one part of what is summed from what it summarises. Halts each scope with a difference '
  'and alerts up to 20 of its differences, when it was not halted already; repairs nothing. '
  'Returns the number of differences. Raises RK409 when the epoch is over.';

create function risk_private.views_to_refresh() returns text[]
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select array(
    select c.relname::text from pg_class as c
    where c.relnamespace = 'risk'::regnamespace and c.relkind = 'm' order by c.relname);
end;
comment on function risk_private.views_to_refresh() is 'The materialized views of risk.';

-- Lock order: the lease, then the view.
create function risk_private.refresh_view(epoch bigint, view_name text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.require_epoch(epoch);
  perform risk_private.refresh_materialized(view_name);
end
$$;
comment on function risk_private.refresh_view(bigint, text) is
  'Refreshes a materialized view; readers go on meanwhile. Raises RK404 for another name, RK409 '
  'when the epoch is over.';
