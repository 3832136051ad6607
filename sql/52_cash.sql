-- Cash and equity. Cash is kept per currency at the rate that it is carried at; equities sum it
-- with the carried value of positions, for the account and every scope above.

-- The caller holds the account.
create function risk_private.move_cash(account_id integer, currency text, amount numeric,
  cost numeric)
returns risk_private.money
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rate numeric;
  v_unknown integer := 0;
begin
  update risk_private.cash_balances as b set
    amount = b.amount + move_cash.amount, cost = b.cost + move_cash.cost
  where b.account_id = move_cash.account_id and b.currency = move_cash.currency
  returning b.rate into v_rate;
  if not found then
    insert into risk_private.cash_balances as b (account_id, currency, amount, cost, rate)
    values (
      move_cash.account_id, move_cash.currency, move_cash.amount, move_cash.cost,
      (select f.rate from risk_private.fx_rates as f where f.currency = move_cash.currency))
    returning b.rate into v_rate;
    v_unknown := (v_rate is null)::integer;
  end if;
  v_rate := coalesce(v_rate, 0);
  return row(amount * v_rate, amount * v_rate, (amount + cost) * v_rate, 0, 0, 0, 0,
    v_unknown)::risk_private.money;
end
$$;
comment on function risk_private.move_cash(integer, text, numeric, numeric) is
  'Adds to the cash of an account, and to the cost of its positions, in one currency. Returns what '
  'that adds to equities.';

create function risk_private.cash_rate(account_id integer, currency text) returns numeric
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return coalesce(
    (select b.rate from risk_private.cash_balances as b
     where b.account_id = cash_rate.account_id and b.currency = cash_rate.currency),
    (select f.rate from risk_private.fx_rates as f where f.currency = cash_rate.currency), 0);
end
$$;
comment on function risk_private.cash_rate(integer, text) is
  'Base currency per unit at which an account''s cash in a currency is carried; 0: unknown.';

-- Lock order: the caller holds the account; then the counters of its chain, ascending.
create function risk_private.lock_chain(account_id integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from risk_private.counters as c
  where c.counter_id = any (array(
    select risk_private.counter_id(k.scope_id)
    from risk_private.scopes as s cross join unnest(s.chain) as k (scope_id)
    where s.scope_id = lock_chain.account_id))
  order by c.counter_id
  for no key update;
end
$$;
comment on function risk_private.lock_chain(integer) is
  'Locks an account and all scopes above it, for what moves their equities and no counter.';

create function risk_private.rebased_peak(peak numeric, equity numeric, flows numeric)
returns numeric
language sql immutable
return case
  when flows = 0 then peak
  when equity > 0 and equity + flows > 0
    then pg_catalog.round(peak * (equity + flows) / equity, 12)
  else peak + flows
end;
comment on function risk_private.rebased_peak(numeric, numeric, numeric) is
  'The peak after a flow: (peak - equity) / peak stays what it was. From an equity of 0 or less, '
  'or to one, that cannot be, and the peak moves by the flow.';

create function risk_private.rates_are_moving() returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select from risk_private.moving_rates as r
    where r.since > risk_private.clock() - interval '1 minute');
end
$$;
comment on function risk_private.rates_are_moving() is
  'Whether some cash may still be carried at an old rate: then no scope above accounts can be at a '
  'peak.';

create function risk_private.is_between_rates(account_id integer) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (
    select from risk_private.cash_balances as b
    join risk_private.fx_rates as f on f.currency = b.currency
    where b.account_id = is_between_rates.account_id and b.rate is distinct from f.rate);
end
$$;
comment on function risk_private.is_between_rates(integer) is
  'Whether cash of an account has yet to follow a rate that its positions may stand at: then it '
  'cannot be at a peak. recarry() samples it once both have.';

create function risk_private.marks_are_moving() returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return exists (select from risk_private.moved_marks as m where m.settles_at is null);
end
$$;
comment on function risk_private.marks_are_moving() is
  'Whether some accounts may have followed marks that others have yet to follow: then no scope '
  'above them can be at a peak. The pass that ends it samples all.';

-- Lock order: the caller holds the counters of the chain; then its equities, ascending.
create function risk_private.move_equities(account_id integer, m risk_private.money) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
declare
  v_is_whole boolean := not risk_private.is_between_rates(account_id);
  v_are_whole boolean := not (
    risk_private.marks_are_moving() or risk_private.rates_are_moving());
begin
  update risk_private.equities as e set
    known_equity = e.known_equity + m.equity,
    unknown = e.unknown + m.unknown,
    cash = e.cash + m.cash,
    book = e.book + m.book,
    flows = e.flows + m.flows,
    realized = e.realized + m.realized,
    fees = e.fees + m.fees,
    income = e.income + m.income,
    currency_pnl = e.currency_pnl + m.book - (m.realized - m.fees + m.income + m.flows),
    peak = greatest(
      risk_private.rebased_peak(e.peak, e.known_equity, m.flows),
      case when e.scope_id = move_equities.account_id and v_is_whole
          or e.scope_id <> move_equities.account_id and v_are_whole
        then e.known_equity + m.equity end),
    as_of = risk_private.clock()
  where e.scope_id = any (
    (select s.chain from risk_private.scopes as s where s.scope_id = move_equities.account_id)
      ::integer[]);
end
$$;
comment on function risk_private.move_equities(integer, risk_private.money) is
  'Adds to the equities of an account and of every scope above it, and samples their peaks, but '
  'not half-way through a change of marks or rates.';

create function risk_private.is_flow(reason text) returns boolean
language sql immutable
return reason in ('deposit', 'withdrawal', 'transfer');
comment on function risk_private.is_flow(text) is
  'Whether cash of that reason is brought in or taken out; all else is profit or loss.';

create function risk_private.validate_posting(amount numeric, reason text, currency text,
  reference text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if not (risk_private.is_amount(abs(amount)) and amount <> 0) then
    perform risk_private.fail('RK400',
      'amount must be a finite number other than 0, within 1e15, with at most 12 decimals',
      'argument: amount, value: ' || coalesce(pg_catalog."left"(amount::text, 40), 'NULL'));
  end if;
  if not risk_private.is_code(reason) then
    perform risk_private.fail('RK400', 'reason must be 1 to 64 printable characters',
      'argument: reason',
      'deposit, withdrawal and transfer are flows; all else (dividend, interest, fee) is P&L.');
  end if;
  if reason = 'deposit' and amount < 0 or reason = 'withdrawal' and amount > 0 then
    perform risk_private.fail('RK400',
      pg_catalog.format('a %s of %s: what leaves the account is below 0', reason, amount),
      'argument: amount');
  end if;
  if reference is not null and not risk_private.is_code(reference) then
    perform risk_private.fail('RK400', 'reference must be 1 to 64 printable characters',
      'argument: reference');
  end if;
  if not exists (
    select from risk_private.fx_rates as f where f.currency = validate_posting.currency)
  then
    perform risk_private.fail('RK404', pg_catalog.format('no rate for currency %L', currency),
      'argument: currency', 'Set one with risk.set_fx.');
  end if;
end
$$;
comment on function risk_private.validate_posting(numeric, text, text, text) is
  'Raises RK400 or RK404 for cash that cannot be posted.';

create function risk_private.is_posted(posting risk_private.cash_postings) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_known risk_private.cash_postings;
begin
  select p.* into v_known from risk_private.cash_postings as p
  where p.account_id = posting.account_id and p.reference = posting.reference;
  if v_known.posting_id is null then
    return false;
  end if;
  if row(v_known.currency, v_known.amount, v_known.reason)
    is distinct from row(posting.currency, posting.amount, posting.reason) then
    perform risk_private.fail('RK409',
      pg_catalog.format('reference %L was posted with other content', posting.reference),
      'argument: reference');
  end if;
  return true;
end
$$;
comment on function risk_private.is_posted(risk_private.cash_postings) is
  'Whether this very posting was made already; RK409 where its reference stands for another.';

-- Lock order: the account; the counters of its chain ascending; their equities ascending.
create function risk_private.post_cash(account text, amount numeric, reason text, currency text,
  reference text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_leaf risk_private.scopes := risk_private.scope(account);
  v_posting risk_private.cash_postings;
  v_money risk_private.money;
  v_value numeric;
begin
  perform risk_private.begin_change();
  v_posting.account_id := v_leaf.scope_id;
  v_posting.currency := coalesce(currency, risk_private.base_currency());
  v_posting.amount := amount;
  v_posting.reason := pg_catalog.lower(reason);
  v_posting.reference := reference;
  perform risk_private.validate_posting(amount, v_posting.reason, v_posting.currency, reference);
  perform risk_private.lock_chain(v_leaf.scope_id);
  if not (select s.is_leaf from risk_private.scopes as s where s.scope_id = v_leaf.scope_id) then
    perform risk_private.fail('RK400',
      pg_catalog.format('%L has scopes below it: cash belongs to those', account),
      'argument: account');
  end if;
  if risk_private.is_posted(v_posting) then
    return;
  end if;
  v_money := risk_private.move_cash(v_leaf.scope_id, v_posting.currency, amount, 0);
  v_value := v_money.cash;
  v_money.flows := case when risk_private.is_flow(v_posting.reason) then v_value else 0 end;
  v_money.income := v_value - v_money.flows;
  perform risk_private.move_equities(v_leaf.scope_id, v_money);
  insert into risk_private.cash_postings (
    account_id, currency, amount, reason, reference, rate, trading_day, posted_at)
  select v_leaf.scope_id, v_posting.currency, amount, v_posting.reason, post_cash.reference,
    risk_private.cash_rate(v_leaf.scope_id, v_posting.currency), s.trading_day,
    risk_private.clock()
  from risk_private.scopes as s where s.scope_id = v_leaf.scope_id;
end
$$;
comment on function risk_private.post_cash(text, numeric, text, text, text) is
  'What risk.post_cash does.';

create procedure risk.post_cash(account text, amount numeric, reason text,
  currency text default null, reference text default null)
language plpgsql
as $$
begin
  perform risk_private.post_cash(account, amount, reason, currency, reference);
  commit;
  perform risk_private.flush();
  commit;
end
$$;
comment on procedure risk.post_cash(text, numeric, text, text, text) is
  'Adds cash to an account, below 0 takes it out; currency by default the base currency. reason '
  'deposit, withdrawal or transfer is a flow: no profit, and the drawdown in percent stays as it '
  'is. Any other (dividend, interest, fee) is profit or loss. With a reference it is posted once, '
  'however often it is called. Errors: RK400, RK404 unknown account or currency without rate, '
  'RK409 same reference with other content.';

-- The caller holds the counters of the chain.
create function risk_private.begin_as_leaf(scope_id integer) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_unstarted integer;
begin
  select (s.trading_day is null)::integer into v_unstarted
  from risk_private.scopes as s where s.scope_id = begin_as_leaf.scope_id;
  insert into risk_private.equities (scope_id, as_of)
  values (begin_as_leaf.scope_id, risk_private.clock());
  perform risk_private.move_start(scope_id, 0, v_unstarted);
end
$$;
comment on function risk_private.begin_as_leaf(integer) is
  'Gives a new scope its equity of 0: known, and its start too once a trading day is open.';

-- The caller holds the counters of the chain.
create function risk_private.end_as_leaf(leaf risk_private.scopes) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.move_start(e.scope_id, -e.known_start, -e.unstarted)
  from risk_private.equities as e where e.scope_id = leaf.scope_id;
end
$$;
comment on function risk_private.end_as_leaf(risk_private.scopes) is
  'Takes away the start of day of an account that becomes a parent: from now on it is the sum of '
  'what is below.';

create function risk_private.move_start(account_id integer, known_start numeric, unstarted integer)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update risk_private.equities as e set
    known_start = e.known_start + move_start.known_start,
    unstarted = e.unstarted + move_start.unstarted
  from risk_private.scopes as s
  where s.scope_id = move_start.account_id and e.scope_id = any (s.chain);
end
$$;
comment on function risk_private.move_start(integer, numeric, integer) is
  'Adds to the start of day of an account and every scope above it. The caller holds the counters '
  'of the chain.';
