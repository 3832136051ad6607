-- The roll of the trading day, account by account.

create function risk_private.activity(
  account_id integer, out decisions bigint, out accepted bigint, out executions bigint,
  out traded_notional numeric)
language sql stable
begin atomic
  select o.decisions, o.accepted, f.executions, f.traded_notional
  from risk_private.scopes as s
  cross join lateral (
    select count(*) as decisions, count(*) filter (where q.decision = 'ACCEPTED') as accepted
    from risk_private.orders as q
    where q.account_id = s.scope_id and q.decided_at >= coalesce(s.day_began_at, s.created_at)
  ) as o
  cross join lateral (
    select count(*) as executions,
      coalesce(sum(abs(q.signed_quantity) * q.unit_price), 0) as traded_notional
    from risk_private.fills as q
    where q.account_id = s.scope_id and q.trading_day = s.trading_day
      and q.recorded_at >= coalesce(s.day_began_at, s.created_at)
      and q.signed_quantity <> 0 and q.adjustment_id is null
  ) as f
  where s.scope_id = activity.account_id;
end;
comment on function risk_private.activity(integer) is
  'What an account has decided and executed in its trading day so far. Busted executions do not '
  'count, nor does what a split added.';

-- The caller holds the counters of the chain.
create function risk_private.close_day(account_id integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.closed_days as d (
    scope_id, day, start_equity, equity, flows, realized, fees, income, currency_pnl, unrealized,
    start_unrealized, peak, decisions, accepted, executions, traded_notional, closed_at)
  select k.scope_id, s.trading_day, e.start_equity, e.equity, e.flows, e.realized, e.fees,
    e.income, e.currency_pnl, e.known_equity - e.book, e.start_unrealized, p.peak, a.decisions,
    a.accepted, a.executions, a.traded_notional, risk_private.clock()
  from risk_private.scopes as s
  join risk_private.equities as e on e.scope_id = s.scope_id
  cross join unnest(s.chain) as k (scope_id)
  join risk_private.equities as p on p.scope_id = k.scope_id
  cross join lateral risk_private.activity(s.scope_id) as a
  where s.scope_id = close_day.account_id and s.trading_day is not null
  on conflict on constraint closed_days_pkey do update set
    start_equity = d.start_equity + excluded.start_equity, equity = d.equity + excluded.equity,
    flows = d.flows + excluded.flows, realized = d.realized + excluded.realized,
    fees = d.fees + excluded.fees, income = d.income + excluded.income,
    currency_pnl = d.currency_pnl + excluded.currency_pnl,
    unrealized = d.unrealized + excluded.unrealized,
    start_unrealized = d.start_unrealized + excluded.start_unrealized, peak = excluded.peak,
    decisions = d.decisions + excluded.decisions, accepted = d.accepted + excluded.accepted,
    executions = d.executions + excluded.executions,
    traded_notional = d.traded_notional + excluded.traded_notional,
    closed_at = excluded.closed_at;
end
$$;
comment on function risk_private.close_day(integer) is
  'Keeps what the day that ends made of an account, and adds it to every scope above.';

-- The caller holds the counters of the chain.
create function risk_private.begin_day(account_id integer, day date) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old risk_private.equities;
  v_start numeric;
begin
  select e.* into v_old from risk_private.equities as e where e.scope_id = begin_day.account_id;
  v_start := coalesce(
    (select q.equity from risk_private.start_equities as q
     where q.account_id = begin_day.account_id and q.day = begin_day.day), v_old.equity);
  update risk_private.equities as e set
    known_start = e.known_start - v_old.known_start + coalesce(v_start, 0),
    unstarted = e.unstarted - v_old.unstarted + (v_start is null)::integer,
    start_unrealized = e.start_unrealized - v_old.start_unrealized
      + v_old.known_equity - v_old.book,
    flows = e.flows - v_old.flows, realized = e.realized - v_old.realized,
    fees = e.fees - v_old.fees, income = e.income - v_old.income,
    currency_pnl = e.currency_pnl - v_old.currency_pnl, as_of = risk_private.clock()
  from risk_private.scopes as s
  where s.scope_id = begin_day.account_id and e.scope_id = any (s.chain);
  update risk_private.positions as p set realized_pnl_today = 0, fees_today = 0
  where p.account_id = begin_day.account_id
    and (p.realized_pnl_today <> 0 or p.fees_today <> 0);
  update risk_private.scopes as s set trading_day = day, day_began_at = risk_private.clock()
  where s.scope_id = begin_day.account_id;
end
$$;
comment on function risk_private.begin_day(integer, date) is
  'Starts the P&L of an account again, from the equity that open_day was told, else its own at '
  'this moment. Scopes above are the sums.';

-- Lock order: the account; the counters of its chain, ascending; their equities.
create function risk_private.correct_start(account_id integer, day date) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.lock_chain(account_id);
  perform risk_private.move_start(e.scope_id, q.equity - e.known_start, -e.unstarted)
  from risk_private.equities as e
  join risk_private.start_equities as q on q.account_id = e.scope_id and q.day = correct_start.day
  where e.scope_id = correct_start.account_id and e.start_equity is distinct from q.equity;
end
$$;
comment on function risk_private.correct_start(integer, date) is
  'Puts the start of a day that is open already to what open_day was told.';

-- Lock order: the account; its chain's counters ascending (within close_order and move); their
-- equities.
create function risk_private.roll_account(account_id integer, day date) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_order risk_private.orders;
  v_movements risk_private.movement[];
begin
  perform risk_private.begin_change();
  perform risk_private.lock_account(account_id);
  -- Somebody else may have rolled it since the list of accounts was made.
  if exists (
    select from risk_private.scopes as s
    where s.scope_id = roll_account.account_id and s.trading_day >= day) then
    perform risk_private.correct_start(account_id, day);
    return;
  end if;
  for v_order in
    select o.* from risk_private.orders as o
    where o.account_id = roll_account.account_id and o.closed_at is null and o.time_in_force = 'DAY'
    order by o.decided_at desc, o.client_order_id
  loop
    perform risk_private.close_order(v_order, 'EXPIRED', 'expired');
  end loop;
  v_movements := array(
    select risk_private.movement(
      f.account_id, f.instrument_id, traded_notional => -sum(abs(f.signed_quantity) * f.unit_price))
    from risk_private.fills as f
    join risk_private.scopes as s on s.scope_id = f.account_id
    where f.account_id = roll_account.account_id and f.trading_day is not distinct
      from s.trading_day
    group by f.account_id, f.instrument_id);
  if pg_catalog.cardinality(v_movements) > 0 then
    perform risk_private.move(v_movements, false);
  end if;
  perform risk_private.lock_chain(account_id);
  perform risk_private.close_day(account_id);
  perform risk_private.begin_day(account_id, day);
end
$$;
comment on function risk_private.roll_account(integer, date) is
  'Takes an account into a new trading day: day orders expire, traded notional is what stays open, '
  'today''s P&L starts at 0.';

create function risk_private.set_trading_date(day date, equities jsonb) returns integer[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_today date;
  v_opened_at timestamptz;
begin
  if day is null or day in ('infinity', '-infinity') then
    perform risk_private.fail('RK400', 'day must be a date', 'argument: day');
  end if;
  select c.trading_date, c.opened_at into v_today, v_opened_at
  from risk_private.trading_calendar as c for update;
  if day < v_today then
    perform risk_private.fail('RK400',
      pg_catalog.format('the trading date is %s already: it moves forward only', v_today),
      'argument: day');
  end if;
  if day > v_today then
    perform risk_private.record_closes(v_today, v_opened_at);
    perform risk_private.keep_indicators(v_today);
  end if;
  perform risk_private.set_start_equities(day, equities);
  update risk_private.trading_calendar as c set
    trading_date = day, opened_by = session_user,
    opened_at = case when day = v_today then v_opened_at else risk_private.clock() end;
  return array(
    select s.scope_id from risk_private.scopes as s
    left join risk_private.equities as e on e.scope_id = s.scope_id
    left join risk_private.start_equities as q
      on q.account_id = s.scope_id and q.day = set_trading_date.day
    where s.is_leaf and (s.trading_day is distinct from set_trading_date.day
      or q.equity <> e.start_equity or (q.equity is not null and e.start_equity is null))
    order by s.scope_id);
end
$$;
comment on function risk_private.set_trading_date(date, jsonb) is
  'Moves the trading date and returns the accounts that have to follow.';

create function risk_private.set_start_equities(day date, equities jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_parent text;
begin
  if equities is null then
    return;
  end if;
  if pg_catalog.jsonb_typeof(equities) <> 'object' or exists (
    select from pg_catalog.jsonb_each_text(equities) as e
    where (e.value ~ '^-?[0-9]{1,15}(\.[0-9]{1,8})?$') is not true) then
    perform risk_private.fail('RK400', 'equities must be a JSON object of account to amount',
      'argument: equities');
  end if;
  select k into v_parent from pg_catalog.jsonb_object_keys(equities) as k
  where not (risk_private.scope(k)).is_leaf limit 1;
  if v_parent is not null then
    perform risk_private.fail('RK400',
      pg_catalog.format('%L has scopes below it: its equity is the sum of theirs', v_parent),
      'argument: equities');
  end if;
  insert into risk_private.start_equities as q (account_id, day, equity)
  select s.scope_id, set_start_equities.day, e.value::numeric
  from pg_catalog.jsonb_each_text(equities) as e
  join risk_private.scopes as s on s.code = e.key
  on conflict on constraint start_equities_pkey do update set equity = excluded.equity;
end
$$;
comment on function risk_private.set_start_equities(date, jsonb) is
  'Stores the equity that accounts start the day with.';

create procedure risk.open_day(day date, equities jsonb default null)
language plpgsql
as $$
declare
  v_account_id integer;
begin
  foreach v_account_id in array risk_private.set_trading_date(day, equities) loop
    commit;
    perform risk_private.roll_account(v_account_id, day);
  end loop;
  commit;
  call risk_private.follow();
  perform risk_private.refresh_materialized('daily_summary');
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.open_day(date, jsonb) is
  'Rolls the trading day, forward only: day orders expire, traded notional and today''s P&L start '
  'again, account by account; the marks of underlyings are kept as closes of the day that ends, '
  'and what it made of every scope in risk.daily_summary. '
  'equities: start-of-day equity per account, {"A1": "250000"}; where '
  'none is given, the engine''s own at this moment. Daily losses count from it, so cash must have '
  'been posted before. Repeating a day resumes a roll that was interrupted, and corrects the '
  'equities. Errors: RK400, RK404 unknown account.';
