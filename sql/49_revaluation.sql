-- Revaluation: positions follow the marks. Setting marks only notes what moved; risk.revalue()
-- carries it over, account by account, in short transactions, and skips what does not differ.

create table risk_private.moved_marks (
  batch bigint generated always as identity primary key,
  instrument_ids integer[] not null,
  noted_at timestamptz not null default risk_private.clock(),
  settles_at xid8,
  followed_by integer[] not null default '{}'
);
comment on table risk_private.moved_marks is
  'Instruments whose values moved, and which positions have yet to follow: a row per batch.';
comment on column risk_private.moved_marks.settles_at is
  'NULL: no pass has followed it. Else an order in flight during the last pass may have read '
  'the values before the batch: once all transactions below this one have ended, one more pass '
  'sees it.';
comment on column risk_private.moved_marks.followed_by is
  'Accounts that the first pass locked, and so waited for: whoever locks one later reads the '
  'values of the batch. The last pass passes over them.';

create table risk_private.followed_expiries (
  singleton boolean primary key default true check (singleton),
  trading_date date
);
insert into risk_private.followed_expiries default values;
comment on table risk_private.followed_expiries is
  'The trading date up to which the Greeks of expired instruments were noted as moved.';

create function risk_private.note_moved(instrument_ids integer[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.moved_marks (instrument_ids)
  select note_moved.instrument_ids where cardinality(note_moved.instrument_ids) > 0;
end
$$;
comment on function risk_private.note_moved(integer[]) is
  'Lets positions in these instruments, and in those on them, follow at the next revaluation.';

create function risk_private.note_expiries() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_today date := risk_private.trading_date();
  v_before date;
begin
  select f.trading_date into v_before from risk_private.followed_expiries as f;
  if v_before is not distinct from v_today then
    return;
  end if;
  update risk_private.followed_expiries as f set trading_date = v_today;
  perform risk_private.note_moved(array(
    select i.instrument_id from risk_private.instruments as i
    where i.expiry < v_today and (v_before is null or i.expiry >= v_before)));
end
$$;
comment on function risk_private.note_expiries() is
  'Notes, once a trading date, what has expired since the last: it has no Greeks any more.';

create type risk_private.revaluation_pass as (
  batches bigint[],
  instrument_ids integer[],
  account_ids integer[],
  settled_below xid8,
  settles_at xid8,
  is_waiting boolean
);
comment on type risk_private.revaluation_pass is
  'What one pass follows: batches, their instruments and those on them, the accounts that carry '
  'any and have not followed yet. As it began, all transactions below settled_below had ended, and '
  'none above settles_at had begun; is_waiting: some between them were under way.';

create function risk_private.next_pass() returns risk_private.revaluation_pass
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_pass risk_private.revaluation_pass;
begin
  perform risk_private.begin_change();
  perform risk_private.note_expiries();
  v_pass.settled_below := pg_snapshot_xmin(pg_current_snapshot());
  select array_agg(b.batch) filter (where b.is_due), bool_or(not b.is_due)
  into v_pass.batches, v_pass.is_waiting
  from (
    select m.batch,
      m.settles_at is null or m.settles_at <= v_pass.settled_below as is_due
    from risk_private.moved_marks as m
  ) as b;
  if v_pass.batches is null then
    return v_pass;
  end if;
  -- Later than the batches were read: an order that read the values before them had begun.
  v_pass.settles_at := pg_snapshot_xmax(pg_current_snapshot());
  v_pass.is_waiting := v_pass.settled_below < v_pass.settles_at;
  v_pass.instrument_ids := array(
    with moved as (
      select distinct u.id
      from risk_private.moved_marks as m
      cross join unnest(m.instrument_ids) as u (id)
      where m.batch = any (v_pass.batches)
    )
    select d.id from moved as d
    union
    select i.instrument_id from moved as d
    join risk_private.instruments as i on i.underlying_id = d.id);
  v_pass.account_ids := array(
    select a.account_id
    from (
      select distinct p.account_id from risk_private.positions as p
      where p.instrument_id = any (v_pass.instrument_ids)
        and (p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0)
    ) as a
    where exists (
      select from risk_private.moved_marks as m
      where m.batch = any (v_pass.batches) and a.account_id <> all (m.followed_by))
    order by a.account_id);
  return v_pass;
end
$$;
comment on function risk_private.next_pass() is
  'What there is to follow now; batches NULL: nothing.';

-- Lock order: batches that moved; counters of parents, ascending; their equities.
create function risk_private.end_pass(pass risk_private.revaluation_pass) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.begin_change();
  delete from risk_private.moved_marks as m
  where m.batch = any (pass.batches)
    and (m.settles_at <= pass.settled_below or not pass.is_waiting);
  update risk_private.moved_marks as m set
    settles_at = pass.settles_at, followed_by = pass.account_ids
  where m.batch = any (pass.batches);
  perform risk_private.sample_peaks();
end
$$;
comment on function risk_private.end_pass(risk_private.revaluation_pass) is
  'Strikes out what was followed, and samples peaks. What an order in flight may have missed stays '
  'for one more pass.';

create function risk_private.unfollowed(account_id integer, instrument_ids integer[])
returns risk_private.unit_values[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Column by column, since mostly the first one differs.
  return array(
    select row(n.*)::risk_private.unit_values
    from risk_private.positions as p
    cross join lateral (
      select v.* from risk_private.unit_values as v
      where v.instrument_id = p.instrument_id offset 0
    ) as n
    where p.account_id = unfollowed.account_id and p.instrument_id = any (instrument_ids)
      and (p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0)
      and (p.unit_value, p.unit_notional, p.unit_delta, p.unit_gamma, p.unit_dollar_delta,
          p.unit_dollar_gamma, p.unit_vega, p.unit_theta, p.has_greeks)
        is distinct from (n.unit_value, n.unit_notional, n.unit_delta, n.unit_gamma,
          n.unit_dollar_delta, n.unit_dollar_gamma, n.unit_vega, n.unit_theta, n.has_greeks));
end
$$;
comment on function risk_private.unfollowed(integer, integer[]) is
  'Present unit values of those instruments which an account carries at other values.';

-- Lock order: the account, its chain's counters ascending, then their equities ascending.
create function risk_private.revalue(account_id integer, instrument_ids integer[]) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_units risk_private.unit_values[];
begin
  perform risk_private.begin_change();
  perform risk_private.lock_account(account_id);
  v_units := risk_private.unfollowed(account_id, instrument_ids);
  if cardinality(v_units) > 0 then
    perform risk_private.follow_marks(account_id, risk_private.carry_at(account_id, v_units));
  end if;
end
$$;
comment on function risk_private.revalue(integer, integer[]) is
  'Carries an account''s positions in the instruments at their present values, moving its counters '
  'by the difference.';

create function risk_private.rested(
  share double precision, owed double precision, began_at timestamptz)
returns double precision
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  owed := owed + (1 / share - 1) * extract(epoch from clock_timestamp() - began_at);
  if owed > 0.305 then
    perform pg_sleep(owed - 0.3);
    owed := 0.3;
  end if;
  return owed;
end
$$;
comment on function risk_private.rested(double precision, double precision, timestamptz) is
  'Seconds of rest that are owed after what began then and shall take that share of the time: 0.3 '
  'at most, for it rests for what is more.';

-- An order in flight keeps a batch waiting. That is a matter of milliseconds; where it takes
-- longer, the next call sees to it. What takes long rests between accounts, not afterwards: at full
-- speed it would make orders queue up for seconds. Orders come all the time, so it would go on from
-- pass to pass: who owes rest is let go after one.
create procedure risk_private.revalue_sparingly(share double precision, inout owed double precision)
language plpgsql
as $$
declare
  v_pass risk_private.revaluation_pass;
  v_account_id integer;
  v_began_at timestamptz;
begin
  owed := 0;
  for v_turn in 1 .. 20 loop
    v_pass := risk_private.next_pass();
    commit;
    if v_pass.batches is not null then
      foreach v_account_id in array v_pass.account_ids loop
        v_began_at := pg_catalog.clock_timestamp();
        perform risk_private.revalue(v_account_id, v_pass.instrument_ids);
        commit;
        owed := risk_private.rested(share, owed, v_began_at);
      end loop;
      perform risk_private.end_pass(v_pass);
      commit;
    end if;
    exit when v_pass.is_waiting is not true or pg_catalog.float8ge(owed, 0.3);
    perform pg_catalog.pg_sleep(0.005);
  end loop;
end
$$;
comment on procedure risk_private.revalue_sparingly(double precision, double precision) is
  'risk.revalue() that takes at most that share of the time, above 0 and at most 1. It rests when '
  'it owes more than 0.3 s, and tells how many seconds it still owes: above 0 it did something, and '
  'there may be more to do.';

create procedure risk.revalue()
language plpgsql
as $$
declare
  v_owed double precision;
begin
  call risk_private.revalue_sparingly(1, v_owed);
end
$$;
comment on procedure risk.revalue() is
  'Carries every position in instruments that moved since the last call at their present marks, '
  'account by account, and lets counters and exposures follow. A worker calls it all the time; '
  'where none runs, whatever sets marks, rates or the day does.';

create function risk_private.worker_follows() returns boolean
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select from risk_private.heartbeat as h
    where risk_private.is_fresh(h.beat_at, 3, risk_private.clock()));
end
$$;
comment on function risk_private.worker_follows() is
  'Whether a worker gave its heartbeat in the last 3 seconds: then it is its part to revalue.';

create procedure risk_private.follow()
language plpgsql
as $$
begin
  if not risk_private.worker_follows() then
    call risk.revalue();
  end if;
end
$$;
comment on procedure risk_private.follow() is
  'risk.revalue(), unless a worker is there to do it.';
