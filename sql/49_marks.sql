-- Marks, and what moves with them: the values at which positions are carried.

create function risk_private.mark_problem(
  price numeric, bid numeric, ask numeric, may_be_negative boolean, greeks double precision[])
    returns text
language sql immutable
return case
  when may_be_negative is null then 'unknown symbol'
  when not risk_private.is_finite(price) then 'price must be a finite number'
  when bid is not null and not risk_private.is_finite(bid) then 'bid must be a finite number'
  when ask is not null and not risk_private.is_finite(ask) then 'ask must be a finite number'
  when not may_be_negative and (price <= 0 or bid <= 0 or ask <= 0) then 'prices must be above 0'
  when abs(price) > 1e12 or abs(bid) > 1e12 or abs(ask) > 1e12 then 'prices must be within 1e12'
  when bid > ask then 'the bid is above the ask'
  when 'NaN' = any (greeks) or 'Infinity' = any (greeks) or '-Infinity' = any (greeks)
    then 'volatility and Greeks must be finite numbers'
  when greeks[1] < 0 then 'volatility must not be negative'
end;
comment on function risk_private.mark_problem(numeric, numeric, numeric, boolean,
  double precision[]) is
  'What is wrong with a mark; NULL where nothing is.';

create function risk_private.set_marks(
  symbols text[], prices numeric[], bids numeric[], asks numeric[], ivs double precision[],
  deltas double precision[],
  gammas double precision[], vegas double precision[], thetas double precision[],
  rhos double precision[],
  as_of timestamptz)
returns integer[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := coalesce(as_of, risk_private.clock());
  v_size integer := pg_catalog.cardinality(symbols);
  v_problems text;
  v_instrument_ids integer[];
begin
  if coalesce(v_size, 0) = 0 or pg_catalog.array_ndims(symbols) <> 1 then
    perform risk_private.fail('RK400', 'symbols must be a list of at least one symbol',
      'argument: symbols');
  end if;
  if pg_catalog.cardinality(prices) is distinct from v_size
    or exists (
      select from (values (pg_catalog.cardinality(bids)), (pg_catalog.cardinality(asks)),
        (pg_catalog.cardinality(ivs)),
        (pg_catalog.cardinality(deltas)), (pg_catalog.cardinality(gammas)),
        (pg_catalog.cardinality(vegas)),
        (pg_catalog.cardinality(thetas)), (pg_catalog.cardinality(rhos))) as a (size)
      where a.size <> v_size) then
    perform risk_private.fail('RK400', 'every array must have one element per symbol',
      'argument: prices, bids, asks, …');
  end if;
  if as_of in ('infinity', '-infinity') then
    perform risk_private.fail('RK400', 'as_of must be a moment', 'argument: as_of');
  end if;
  select pg_catalog.string_agg(pg_catalog.format('row %s (%s): %s', r.row_number, r.symbol,
    r.problem), '; '
                               order by r.row_number) into v_problems
  from (
    select t.row_number, t.symbol,
      case when count(*) over (partition by t.symbol) > 1 then 'the symbol stands twice'
           else risk_private.mark_problem(t.price, t.bid, t.ask, i.allow_negative_price,
                                          array[t.iv, t.delta, t.gamma, t.vega, t.theta, t.rho]) end
                                            as problem
    from unnest(symbols, prices, bids, asks, ivs, deltas, gammas, vegas, thetas,
      rhos) with ordinality
      as t (symbol, price, bid, ask, iv, delta, gamma, vega, theta, rho, row_number)
    left join risk_private.instruments as i on i.symbol = t.symbol
  ) as r
  where r.problem is not null;
  if v_problems is not null then
    perform risk_private.fail('RK400', 'marks refused: ' || pg_catalog."left"(v_problems, 500),
      v_problems,
      'Nothing of the batch was applied.');
  end if;
  with applied as (
    insert into risk_private.marks as m (
      instrument_id, price, bid, ask, implied_volatility, delta, gamma, vega, theta, rho, as_of)
    select i.instrument_id, t.price, t.bid, t.ask, t.iv, t.delta, t.gamma, t.vega, t.theta, t.rho,
      v_at
    from unnest(symbols, prices, bids, asks, ivs, deltas, gammas, vegas, thetas, rhos)
      as t (symbol, price, bid, ask, iv, delta, gamma, vega, theta, rho)
    join risk_private.instruments as i on i.symbol = t.symbol
    order by i.instrument_id
    on conflict (instrument_id) do update set
      price = excluded.price, bid = excluded.bid, ask = excluded.ask,
      implied_volatility = excluded.implied_volatility, delta = excluded.delta,
      gamma = excluded.gamma,
      vega = excluded.vega, theta = excluded.theta, rho = excluded.rho, as_of = excluded.as_of
      where m.as_of <= excluded.as_of
    returning m.instrument_id
  )
  select coalesce(pg_catalog.array_agg(a.instrument_id), '{}') into v_instrument_ids
    from applied as a;
  return v_instrument_ids;
end
$$;
comment on function risk_private.set_marks(
  text[], numeric[], numeric[], numeric[], double precision[], double precision[],
  double precision[], double precision[],
  double precision[], double precision[], timestamptz) is
  'Stores marks and returns the instruments that moved. A mark older than the stored one is passed '
  'over.';

-- An order in flight may have read the mark before this one without being visible yet: whoever
-- holds an account's lock at this moment is waited for by revalue(). Skipping locked rows, it waits
-- for nobody itself; its caller commits at once.
create function risk_private.accounts_to_revalue(instrument_ids integer[]) returns integer[]
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
    select p.account_id
    from risk_private.positions as p
    join risk_private.unit_notionals as u on u.instrument_id = p.instrument_id
    where p.instrument_id = any (instrument_ids) and p.unit_notional <> u.unit_notional
      and (p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0)
    union
    select s.scope_id from risk_private.scopes as s
    where s.is_leaf and s.scope_id <> all (v_idle)
    order by 1);
end
$$;
comment on function risk_private.accounts_to_revalue(integer[]) is
  'Accounts that carry one of the instruments at another value than its mark, or may come to.';

create view risk_private.unit_notionals as
select i.instrument_id, abs(m.price) * i.multiplier * f.rate as unit_notional
from risk_private.instruments as i
join risk_private.marks as m on m.instrument_id = i.instrument_id
join risk_private.fx_rates as f on f.currency = i.currency;
comment on view risk_private.unit_notionals is
  '|mark| x multiplier x rate of every marked instrument, in base currency.';

-- Lock order: the account, then parents ascending (within move_counters).
create function risk_private.revalue(account_id integer, instrument_ids integer[]) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_movements risk_private.movement[];
begin
  perform risk_private.begin_change();
  perform risk_private.lock_account(account_id);
  v_movements := array(
    select risk_private.movement(p.account_id, p.instrument_id,
      revaluation => u.unit_notional - p.unit_notional)
    from risk_private.positions as p
    join risk_private.unit_notionals as u on u.instrument_id = p.instrument_id
    where p.account_id = revalue.account_id and p.instrument_id = any (instrument_ids)
      and p.unit_notional <> u.unit_notional
        and (p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0));
  if pg_catalog.cardinality(v_movements) > 0 then
    perform risk_private.move(v_movements, false);
    update risk_private.positions as p set unit_notional = p.unit_notional + m.revaluation
    from pg_catalog.unnest(v_movements) as m
    where p.account_id = m.account_id and p.instrument_id = m.instrument_id;
  end if;
end
$$;
comment on function risk_private.revalue(integer, integer[]) is
  'Carries an account''s positions in the instruments at their present marks, moving its counters '
  'by the difference.';

create procedure risk.set_marks(
  symbols text[], prices numeric[], bids numeric[] default null, asks numeric[] default null,
  ivs double precision[] default null, deltas double precision[] default null,
  gammas double precision[] default null,
  vegas double precision[] default null, thetas double precision[] default null,
  rhos double precision[] default null,
  as_of timestamptz default null)
language plpgsql
as $$
declare
  v_instrument_ids integer[];
  v_account_ids integer[];
  v_account_id integer;
begin
  v_instrument_ids := risk_private.set_marks(
    symbols, prices, bids, asks, ivs, deltas, gammas, vegas, thetas, rhos, as_of);
  commit;
  v_account_ids := risk_private.accounts_to_revalue(v_instrument_ids);
  commit;
  foreach v_account_id in array v_account_ids loop
    perform risk_private.revalue(v_account_id, v_instrument_ids);
    commit;
  end loop;
end
$$;
comment on procedure risk.set_marks(
  text[], numeric[], numeric[], numeric[], double precision[], double precision[],
  double precision[], double precision[],
  double precision[], double precision[], timestamptz) is
  'Sets prices, and optionally bids, asks, implied volatilities and Greeks, of many instruments as '
  'of one moment (default now), then carries every position in them at the new marks, account by '
  'account. A bid or ask left out is cleared. A mark older than the stored one is passed over. '
  'Errors: RK400 names the row and the rule; then nothing was applied.';
