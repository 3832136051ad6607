-- What every change of the book goes through, and what both ways of deciding check alike.

create function risk_private.begin_change() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    perform risk_private.fail('25001',
      'risk calls need transaction isolation read committed, not '
      || current_setting('transaction_isolation'),
      hint => 'set default_transaction_isolation to ''read committed''.');
  end if;
  perform set_config('synchronous_commit', 'off', true);
end
$$;
comment on function risk_private.begin_change() is
  'First step of every change of the book. The commit that ends it does not wait for the disk, so '
  'locks are short; the commit after flush() waits. Other isolation levels would read limits and '
  'halts as of the past: refused.';

create function risk_private.flush_by_commit() returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('synchronous_commit') not in ('on', 'remote_apply') then
    perform set_config('synchronous_commit', 'on', true);
  end if;
  return pg_logical_emit_message(true, 'pgrisk', '') is not null;
end
$$;
comment on function risk_private.flush_by_commit() is
  'Makes the coming commit wait until everything committed so far is durable: WAL is ordered.';

-- From PostgreSQL 17 on, WAL can be flushed here and now: nothing that is not durable is told, even
-- to a caller who sits in a transaction. Only the commit waits for a synchronous standby.
-- One expression, so that it is inlined: every answer is flushed. A server brought up from 16 with
-- its databases goes on flushing by the commit.
do $$
begin
  execute 'create function risk_private.flush() returns boolean language sql volatile return '
    || case when current_setting('server_version_num')::integer < 170000
      then 'risk_private.flush_by_commit()'
      else $sql$case when pg_catalog.current_setting('synchronous_standby_names') = ''
        then pg_catalog.pg_logical_emit_message(false, 'pgrisk', '', true) is not null
        else risk_private.flush_by_commit() end$sql$ end;
end
$$;
comment on function risk_private.flush() is
  'Makes everything committed so far durable, at once or by the coming commit. It holds no lock '
  'meanwhile.';

create view risk_private.granted_scopes as
select g.scope_id
from risk_private.trading_grants as g
where pg_catalog.pg_has_role(risk_private.caller(), g.role_id, 'member');
comment on view risk_private.granted_scopes is
  'The scopes that the caller was granted to trade, with all below them.';

create function risk_private.may_trade(chain integer[]) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return risk_private.is_owner()
    or exists (select from risk_private.granted_scopes as g where g.scope_id = any (chain));
end
$$;
comment on function risk_private.may_trade(integer[]) is
  'Whether the caller may trade the account of that chain.';

create function risk_private.is_quantity(value numeric) returns boolean
language sql immutable
return coalesce(value > 0 and value <= 1e12 and pg_catalog.min_scale(value) <= 8, false);
comment on function risk_private.is_quantity(numeric) is
  'True for a finite quantity above 0, at most 1e12, with at most 8 decimals.';

create function risk_private.is_price(value numeric, tick numeric, may_be_negative boolean)
returns boolean
language sql immutable
return coalesce(
  value between -1e12 and 1e12 and pg_catalog.min_scale(value) <= 8
  and (value > 0 or may_be_negative) and (tick is null or value % tick = 0), false);
comment on function risk_private.is_price(numeric, numeric, boolean) is
  'True for a finite price within 1e12, with at most 8 decimals, on its tick, and above 0 unless '
  'it may be negative.';

-- Stable, as the arithmetic of timestamptz is: else it could not be inlined.
create function risk_private.are_fresh(
  oldest timestamptz, newest timestamptz, max_age double precision, at timestamptz)
returns boolean
language sql stable
return coalesce(
  max_age = 0 or (
    newest <= at + interval '1 second'
    and oldest >= at - pg_catalog.make_interval(secs => max_age)), false);
comment on function risk_private.are_fresh(
  timestamptz, timestamptz, double precision, timestamptz) is
  'Whether data is at most max_age seconds old and not from the future (a second of clock skew is '
  'tolerated); 0: any age.';

create function risk_private.is_fresh(
  as_of timestamptz, max_age double precision, at timestamptz) returns boolean
language sql stable
return risk_private.are_fresh(as_of, as_of, max_age, at);
comment on function risk_private.is_fresh(timestamptz, double precision, timestamptz) is
  'Likewise of one time.';

create function risk_private.fingerprint(
  instrument_ids integer[], ratios integer[], quantity numeric, price numeric)
returns bigint
language sql stable
return pg_catalog.hash_record_extended(row(instrument_ids, ratios, quantity, price), 0);
comment on function risk_private.fingerprint(integer[], integer[], numeric, numeric) is
  'What makes two orders of an account duplicates: legs with their sides, quantity and price. Of '
  '64 bits: two others have the same once in 10^19.';
