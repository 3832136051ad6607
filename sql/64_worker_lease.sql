-- Who leads among the workers: one row, taken over when it is not renewed in time. Its epoch is
-- the fencing token: every effect of a worker locks the row at its own epoch and fails when that
-- is over, so a worker that was stopped and goes on later can do nothing. An advisory lock would
-- not do: a stopped leader keeps it.

create table risk_private.worker_lease (
  epoch bigint primary key,
  holder text,
  backend_pids integer[] not null default '{}',
  expires_at timestamptz not null default '-infinity',
  dozes boolean not null default false,
  singleton boolean not null default true unique check (singleton)
);
insert into risk_private.worker_lease (epoch) values (0);
comment on table risk_private.worker_lease is
  'Which worker leads. The epoch is the key, so taking over waits for the effects that hold the '
  'row for key share, and renewing does not.';
comment on column risk_private.worker_lease.epoch is 'Counts the takeovers.';
comment on column risk_private.worker_lease.holder is 'Who leads; NULL: nobody.';
comment on column risk_private.worker_lease.backend_pids is
  'Its connections, which whoever takes over terminates.';
comment on column risk_private.worker_lease.expires_at is
  'From then on another worker may take over.';
comment on column risk_private.worker_lease.dozes is
  'Whether the leader has stopped asking for messages: then every message notifies it.';

create function risk_private.lease_time() returns interval
language sql immutable
return interval '1.5 seconds';
comment on function risk_private.lease_time() is 'How long a lease holds when it is not renewed.';

-- An expiry that no renewal could have set comes from a clock that jumped back since.
create function risk_private.lease_is_over(expires_at timestamptz, at timestamptz)
returns boolean
language sql stable
return expires_at <= at or expires_at > at + 2 * risk_private.lease_time();
comment on function risk_private.lease_is_over(timestamptz, timestamptz) is
  'Whether another worker may take the lease.';

create function risk_private.lease(
  out epoch bigint, out holder text, out backend_pids integer[], out is_over boolean)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  select l.epoch, l.holder, l.backend_pids,
    risk_private.lease_is_over(l.expires_at, risk_private.clock())
  into lease.epoch, lease.holder, lease.backend_pids, lease.is_over
  from risk_private.worker_lease as l;
end
$$;
comment on function risk_private.lease() is 'Who leads now, and whether the lease is over.';

create table risk_private.known_server (
  singleton boolean primary key default true check (singleton),
  identity text
);
insert into risk_private.known_server default values;
comment on table risk_private.known_server is
  'The database cluster and the timeline of its log that a worker led on last; NULL: none has yet.';

-- Lock order: the caller holds the lease; then the server, then trading states.
create function risk_private.halt_restored() returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_identity text := (
    select c.system_identifier || '/'
      || "left"(pg_walfile_name(pg_current_wal_lsn()), 8)
    from pg_control_system() as c);
  v_known text;
begin
  select k.identity into v_known from risk_private.known_server as k for no key update;
  if v_known = v_identity then
    return false;
  end if;
  update risk_private.known_server as k set identity = v_identity;
  if v_known is not null then
    perform risk_private.trip_scope(s.scope_id, 'HALTED', 'the server was restored or failed over: '
      'compare open orders, executions and positions with the broker, then set it ACTIVE')
    from risk_private.scopes as s where s.parent_id is null order by s.scope_id;
  end if;
  return v_known is not null;
end
$$;
comment on function risk_private.halt_restored() is
  'Halts every firm where this is another cluster or timeline than the last leader''s: the last '
  'decisions and fills may be missing. Returns whether it did.';

-- Lock order: the lease, then the server, then trading states. Effects of the old leader that are
-- under way end first.
create function risk_private.take_lease_at(old_epoch bigint, holder text, backend_pids integer[])
returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_epoch bigint;
begin
  perform pg_catalog.set_config('lock_timeout', '1s', true);
  update risk_private.worker_lease as l set
    epoch = l.epoch + 1, holder = take_lease_at.holder, backend_pids = take_lease_at.backend_pids,
    expires_at = risk_private.clock() + risk_private.lease_time(), dozes = false
  where l.epoch = old_epoch
    and risk_private.lease_is_over(l.expires_at, risk_private.clock())
  returning l.epoch into v_epoch;
  if found then
    perform risk_private.halt_restored();
  end if;
  return v_epoch;
end
$$;
comment on function risk_private.take_lease_at(bigint, text, integer[]) is
  'Takes the lease if it is still over and nobody else took it: the new epoch, else NULL. Halts '
  'every firm first where the server was restored or failed over.';

create function risk_private.terminate_worker(backend_pids integer[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_catalog.pg_terminate_backend(a.pid)
  from pg_catalog.pg_stat_activity as a
  where a.pid = any (backend_pids) and a.datname = pg_catalog.current_database()
    and a.application_name = 'pgrisk-worker' and a.pid <> pg_catalog.pg_backend_pid();
exception when insufficient_privilege then
  raise warning 'the old leader''s connections are of another login and stay: they can do nothing '
    'with its epoch, but what they have begun is waited for'
    using hint = 'grant pg_signal_backend to the login of this worker.';
end
$$;
comment on function risk_private.terminate_worker(integer[]) is
  'Ends the connections of a worker, with the rights of the caller. A process number that another '
  'program got since is left alone.';

create function risk_private.take_lease(holder text, backend_pids integer[]) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old record;
begin
  v_old := risk_private.lease();
  if v_old.is_over is not true then
    return null;
  end if;
  if v_old.holder is not null then
    perform risk_private.terminate_worker(v_old.backend_pids);
  end if;
  return risk_private.take_lease_at(v_old.epoch, holder, backend_pids);
end
$$;
comment on function risk_private.take_lease(text, integer[]) is
  'Takes over a lease that is over, terminating the old leader''s connections: the epoch to work '
  'with. NULL: another worker leads. Fails with 55P03 where one of those connections stays.';

-- Lock order: the lease; held for key share to the end of the transaction.
create function risk_private.require_epoch(epoch bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from risk_private.worker_lease as l where l.epoch = require_epoch.epoch for key share;
  if not found then
    perform risk_private.fail('RK409',
      pg_catalog.format('epoch %s is over: another worker leads', coalesce(epoch::text, 'null')),
      'argument: epoch', 'Take the lease again before doing anything.');
  end if;
end
$$;
comment on function risk_private.require_epoch(bigint) is
  'Raises RK409 unless that epoch is the present one; nobody can take over before the '
  'transaction ends.';

-- Lock order: the lease.
create function risk_private.keep_lease(
  epoch bigint, backend_pids integer[], dozes boolean default false) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := risk_private.clock();
  v_lease risk_private.worker_lease;
begin
  select l.* into v_lease
  from risk_private.worker_lease as l where l.epoch = keep_lease.epoch;
  if not found then
    perform risk_private.require_epoch(epoch);
  end if;
  if (v_lease.dozes = keep_lease.dozes and v_lease.expires_at
      between v_now + interval '1 second' and v_now + risk_private.lease_time()) is not true then
    perform pg_catalog.set_config('synchronous_commit', 'off', true);
    update risk_private.worker_lease as l set
      expires_at = v_now + risk_private.lease_time(), backend_pids = keep_lease.backend_pids,
      dozes = keep_lease.dozes
    where l.epoch = keep_lease.epoch;
  end if;
end
$$;
comment on function risk_private.keep_lease(bigint, integer[], boolean) is
  'Renews the lease when less than a second of it is left, or the leader begins or ends to doze. '
  'Raises RK409 when the epoch is over.';

create function risk_private.release_lease(epoch bigint) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update risk_private.worker_lease as l set
    holder = null, backend_pids = '{}', expires_at = '-infinity', dozes = false
  where l.epoch = release_lease.epoch;
end
$$;
comment on function risk_private.release_lease(bigint) is
  'Lets another worker lead at once; nothing where the epoch is over.';
