-- Exchange rates, and what moves with them: cash, and the values at which positions are carried.

-- Lock order: for the first foreign rate, changes of limits: accounts learn that rates matter now.
create function risk_private.set_fx(currency text, rate numeric, as_of timestamptz)
returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_number bigint;
  v_is_first boolean := false;
begin
  perform risk_private.begin_change();
  if (currency ~ '^[A-Z]{3}$') is not true then
    perform risk_private.fail('RK400', 'currency must be three capital letters',
      'argument: currency, value: ' || coalesce(pg_catalog."left"(currency, 40), 'NULL'));
  end if;
  if currency = risk_private.base_currency() then
    perform risk_private.fail('RK400',
      pg_catalog.format('%s is the base currency: its rate is 1', currency), 'argument: currency');
  end if;
  if not (risk_private.is_amount(rate) and rate > 0) then
    perform risk_private.fail('RK400',
      'rate must be a finite number above 0, at most 1e15, with at most 12 decimals',
      'argument: rate, value: ' || coalesce(pg_catalog."left"(rate::text, 40), 'NULL'));
  end if;
  if as_of in ('infinity', '-infinity') then
    perform risk_private.fail('RK400', 'as_of must be a moment', 'argument: as_of');
  end if;
  if not risk_private.has_foreign_rates() then
    perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.limits'));
    v_is_first := true;
  end if;
  insert into risk_private.fx_rates as f (currency, rate, as_of)
  values (set_fx.currency, set_fx.rate, coalesce(set_fx.as_of, risk_private.clock()))
  on conflict on constraint fx_rates_pkey do update set rate = excluded.rate, as_of = excluded.as_of
    where f.as_of <= excluded.as_of;
  if found then
    delete from risk_private.moving_rates as r
    where r.since <= risk_private.clock() - interval '1 minute';
    insert into risk_private.moving_rates (currency) values (set_fx.currency)
    returning number into v_number;
    perform risk_private.note_moved(array(
      select i.instrument_id from risk_private.instruments as i
      where i.currency = set_fx.currency));
  end if;
  if v_is_first then
    perform risk_private.compile_account_levels(s.scope_id, risk_private.clock())
    from risk_private.scopes as s where s.parent_id is null;
  end if;
  return v_number;
end
$$;
comment on function risk_private.set_fx(text, numeric, timestamptz) is
  'Stores a rate; returns the number under which accounts are now carried to it, NULL where the '
  'stored one is newer.';

create function risk_private.instruments_in(currency text) returns integer[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select i.instrument_id from risk_private.instruments as i
    where i.currency = instruments_in.currency
      and exists (
        select from risk_private.positions as p where p.instrument_id = i.instrument_id));
end
$$;
comment on function risk_private.instruments_in(text) is
  'The instruments of a currency that somebody has traded.';

-- A fill in flight may have read the rate before this one without being visible yet: whoever holds
-- an account's lock at this moment is waited for by recarry(). Skipping locked rows, it waits for
-- nobody itself; its caller commits at once.
create function risk_private.accounts_in(currency text) returns integer[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_idle integer[];
begin
  perform risk_private.begin_change();
  v_idle := array(
    select c.scope_id
    from risk_private.scopes as s
    join risk_private.counters as c on c.counter_id = risk_private.counter_id(s.scope_id)
    where s.is_leaf
    order by c.counter_id
    for no key update of c skip locked);
  return array(
    select p.account_id from risk_private.positions as p
    where p.instrument_id = any (risk_private.instruments_in(currency))
      and (p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0)
    union
    select s.scope_id from risk_private.scopes as s
    where s.is_leaf and s.scope_id <> all (v_idle)
    union
    select b.account_id from risk_private.cash_balances as b where b.currency = accounts_in.currency
    order by 1);
end
$$;
comment on function risk_private.accounts_in(text) is
  'Accounts that carry cash or positions of a currency, or may come to.';

create function risk_private.unmarked(
  account_id integer, currency text, old_rate numeric, new_rate numeric)
returns risk_private.unit_values[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select risk_private.valued(
      null, p.instrument_id, trim_scale(round(p.unit_value * new_rate / old_rate, 12)))
    from risk_private.positions as p
    join risk_private.instruments as i on i.instrument_id = p.instrument_id
    where p.account_id = unmarked.account_id and i.currency = unmarked.currency
      and not risk_private.is_flat(p.quantity, p.open_buy, p.open_sell)
      and not exists (
        select from risk_private.marks as m where m.instrument_id = p.instrument_id));
end
$$;
comment on function risk_private.unmarked(integer, text, numeric, numeric) is
  'Values at a new rate of positions in a currency that have no mark, and so are carried at the '
  'price at which they were taken up.';

-- Lock order: the account; the counters of its chain, ascending; their equities.
create function risk_private.recarry(account_id integer, currency text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_cash risk_private.cash_balances;
  v_rate numeric;
  v_nothing constant risk_private.money := row(0, 0, 0, 0, 0, 0, 0, 0);
  v_money risk_private.money := v_nothing;
  v_units risk_private.unit_values[];
begin
  perform risk_private.begin_change();
  perform risk_private.lock_account(account_id);
  select b.* into v_cash from risk_private.cash_balances as b
  where b.account_id = recarry.account_id and b.currency = recarry.currency;
  select f.rate into v_rate from risk_private.fx_rates as f where f.currency = recarry.currency;
  if v_cash.account_id is not null and v_rate is distinct from v_cash.rate then
    update risk_private.cash_balances as b set
      rate = v_rate,
      made_known = case when b.rate is null then (b.amount + b.cost) * v_rate else b.made_known end,
      made_known_on = case when b.rate is null then s.trading_day else b.made_known_on end
    from risk_private.scopes as s
    where b.account_id = recarry.account_id and b.currency = recarry.currency
      and s.scope_id = b.account_id;
    v_units := risk_private.unmarked(account_id, currency, coalesce(v_cash.rate, 1), v_rate);
    v_money := row(v_cash.amount, v_cash.amount, v_cash.amount + v_cash.cost, 0, 0, 0, 0, 0);
    v_rate := v_rate - coalesce(v_cash.rate, 0);
    v_money.equity := v_money.equity * v_rate;
    v_money.cash := v_money.cash * v_rate;
    v_money.book := v_money.book * v_rate;
    if v_cash.rate is null then
      v_money.flows := v_money.book;
      v_money.unknown := -1;
    end if;
  end if;
  v_units := v_units || risk_private.unfollowed(account_id, risk_private.instruments_in(currency));
  if cardinality(v_units) > 0 then
    v_money.equity := v_money.equity + risk_private.carry_at(account_id, v_units);
  end if;
  if v_money <> v_nothing then
    perform risk_private.lock_chain(account_id);
    perform risk_private.move_equities(account_id, v_money);
  end if;
  update risk_private.equities as e set peak = e.known_equity
  where e.scope_id = recarry.account_id and e.known_equity > e.peak
    and not risk_private.is_between_rates(recarry.account_id);
  perform risk_private.renew_obligations(recarry.account_id, array(
    select distinct p.underlying_id
    from risk_private.positions as p
    join risk_private.instruments as i on i.instrument_id = p.instrument_id
    where p.account_id = recarry.account_id and i.currency = recarry.currency
      and (p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0)));
end
$$;
comment on function risk_private.recarry(integer, text) is
  'Carries an account''s cash and positions of a currency at its present rate, both at once: what '
  'was borrowed moves against what it bought. What a rate makes of cash and cost is currency P&L; '
  'the first rate of all makes no profit, it only makes known.';

-- Lock order: the rate that moved; counters of parents, ascending; their equities.
create function risk_private.end_rate(number bigint) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform risk_private.begin_change();
  delete from risk_private.moving_rates as r where r.number = end_rate.number;
  if not risk_private.marks_are_moving() then
    perform risk_private.sample_peaks();
  end if;
end
$$;
comment on function risk_private.end_rate(bigint) is
  'Notes that all accounts are carried at a rate, and samples peaks.';

create procedure risk.set_fx(currency text, rate numeric, as_of timestamptz default null)
language plpgsql
as $$
declare
  v_number bigint := risk_private.set_fx(currency, rate, as_of);
  v_account_ids integer[];
  v_account_id integer;
begin
  if v_number is not null then
    commit;
    v_account_ids := risk_private.accounts_in(currency);
    commit;
    foreach v_account_id in array v_account_ids loop
      perform risk_private.recarry(v_account_id, currency);
      commit;
    end loop;
    call risk_private.follow();
    perform risk_private.end_rate(v_number);
  end if;
  commit;
end
$$;
comment on procedure risk.set_fx(text, numeric, timestamptz) is
  'Sets the rate of a currency, in base currency (USD) per unit, as of a moment (default now), '
  'then carries all cash and positions of that currency at it, account by account. A rate older '
  'than the stored one is passed over. Without a rate, or with one older than max_mark_age, only '
  'reducing orders pass in that currency. Errors: RK400, also for the base currency, whose rate '
  'is 1.';
