-- Marks: what instruments are worth now, and options where the feed sends no Greeks.

create function risk_private.mark_problem(
  price numeric, bid numeric, ask numeric, may_be_negative boolean, iv double precision,
  delta double precision, gamma double precision, vega double precision, theta double precision,
  rho double precision)
returns text
language sql immutable
return case
  when may_be_negative is null then 'unknown symbol'
  when price is null then 'price is missing'
  when greatest(abs(price), abs(bid), abs(ask)) > 1e12
    then 'prices must be finite numbers within 1e12'
  when not may_be_negative and least(price, bid, ask) <= 0 then 'prices must be above 0'
  when bid > ask then 'crossed quote: the bid is above the ask'
  when greatest(abs(iv), abs(delta), abs(gamma), abs(vega), abs(theta), abs(rho)) > 1e12
    then 'volatility and Greeks must be finite numbers within 1e12'
  when iv < 0 then 'volatility must not be negative'
end;
comment on function risk_private.mark_problem(
  numeric, numeric, numeric, boolean, double precision, double precision, double precision,
  double precision, double precision, double precision) is
  'What is wrong with a mark; NULL where nothing is. NaN is above every number.';

create function risk_private.mark_time(as_of timestamptz) returns timestamptz
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := risk_private.clock();
begin
  if as_of = '-infinity' or as_of > v_now + interval '1 minute' then
    perform risk_private.fail('RK400', 'as_of must be a moment, and not in the future',
      format('argument: as_of %s, now %s', as_of, v_now),
      'A mark from the future would keep out all that come before it.');
  end if;
  return coalesce(as_of, v_now);
end
$$;
comment on function risk_private.mark_time(timestamptz) is
  'The data time of marks, by default now; RK400 where it is more than a minute ahead.';

create function risk_private.session_left(at timestamptz) returns double precision
language sql stable
begin atomic
  select case when l.at::date = l.today
    then greatest(0, pg_catalog.date_part('epoch', time '16:00' - l.at::time) / 86400) else 0 end
  from (
    select risk_private.trading_date() as today, session_left.at at time zone coalesce(
      (select s.value from risk_private.settings as s
       where s.name = 'exchange_time_zone' and s.scope_id is null), 'America/New_York') as at
  ) as l;
end;
comment on function risk_private.session_left(timestamptz) is
  'Days from a moment of the trading date to its close, 16:00 in the exchange''s time zone; 0 on '
  'any other date.';

-- The scalar subselects are evaluated once a query, not once a row.
create view risk_private.option_terms as
select
  i.instrument_id, i.underlying_id, i.option_right as kind, i.strike::double precision as strike,
  (i.expiry - (select risk_private.trading_date()))::double precision as days,
  r.rate,
  case when u.kind = 'future' then r.rate else coalesce(u.dividend_yield, r.dividend) end
    as dividend
from risk_private.instruments as i
join risk_private.instruments as u on u.instrument_id = i.underlying_id
cross join (
  select
    coalesce(max(s.value) filter (where s.name = 'risk_free_rate'), '0')::double precision
      as rate,
    coalesce(max(s.value) filter (where s.name = 'dividend_yield'), '0')::double precision
      as dividend
  from risk_private.settings as s
  where s.scope_id is null
) as r
where i.kind = 'option';
comment on view risk_private.option_terms is
  'With what every option is valued. days: whole calendar days from the trading date to expiry, '
  'below 0 once it has expired. An option on a future carries no cost: its dividend is the rate.';

-- Whoever calls it holds the marks, so the order in which they are updated does not matter.
create function risk_private.complete_marks(instrument_ids integer[], at timestamptz)
returns void
language sql volatile
begin atomic
  with given as materialized (
    select
      o.instrument_id, o.kind, o.days, s.price::double precision as spot, o.strike,
      greatest(0, o.days + (select risk_private.session_left(complete_marks.at))) / 365 as years,
      o.rate, o.dividend, m.price::double precision as price, m.implied_volatility
    from risk_private.marks as m
    join risk_private.option_terms as o on o.instrument_id = m.instrument_id
    join risk_private.marks as s on s.instrument_id = o.underlying_id
    where m.instrument_id = any (complete_marks.instrument_ids) and m.as_of = complete_marks.at
  ), known as materialized (
    select g.*, coalesce(g.implied_volatility, risk_private.implied_volatility(
      g.kind, g.price, g.spot, g.strike, g.years, g.rate, g.dividend)) as volatility
    from given as g
    where risk_private.option_problem(g.kind, g.spot, g.strike, g.years, g.rate, g.dividend)
      is null
  )
  update risk_private.marks as m set
    implied_volatility = k.volatility, volatility_as_of = m.as_of,
    delta = coalesce(m.delta, v.delta), gamma = coalesce(m.gamma, v.gamma),
    vega = coalesce(m.vega, v.vega), theta = coalesce(m.theta, v.theta),
    rho = coalesce(m.rho, v.rho)
  from known as k
  cross join lateral (
    select g.delta, g.gamma, g.vega, g.theta, g.rho
    from risk.option_greeks(k.kind, k.spot, k.strike, k.years, k.rate, k.dividend,
      k.volatility) as g
    where k.days >= 0
    union all
    select 0, 0, 0, 0, 0 where k.days < 0
  ) as v
  where m.instrument_id = k.instrument_id and k.volatility is not null;
end;
comment on function risk_private.complete_marks(integer[], timestamptz) is
  'Computes what the feed left out of the marks of options: the volatility out of the price, the '
  'Greeks by risk.option_greeks at the underlying''s mark. Where there is no such mark, or no '
  'volatility gives the price, they stay unknown.';

create type risk_private.marked as (instrument_ids integer[], report jsonb);
comment on type risk_private.marked is
  'The instruments whose marks moved, and what was refused: [{row, symbol, problem}] or NULL.';

create function risk_private.set_marks(
  symbols text[], prices numeric[], bids numeric[], asks numeric[], ivs double precision[],
  deltas double precision[], gammas double precision[], vegas double precision[],
  thetas double precision[], rhos double precision[], as_of timestamptz)
returns risk_private.marked
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_at timestamptz := risk_private.mark_time(as_of);
  v_size integer := cardinality(symbols);
  v_marked risk_private.marked;
  v_good_ids integer[];
  v_incomplete_ids integer[];
begin
  if coalesce(v_size, 0) = 0 or array_ndims(symbols) <> 1 then
    perform risk_private.fail('RK400', 'symbols must be a list of at least one symbol',
      'argument: symbols');
  end if;
  if cardinality(prices) is distinct from v_size
    or exists (
      select from (values (cardinality(bids)), (cardinality(asks)), (cardinality(ivs)),
        (cardinality(deltas)), (cardinality(gammas)), (cardinality(vegas)),
        (cardinality(thetas)), (cardinality(rhos))) as a (size)
      where a.size <> v_size) then
    perform risk_private.fail('RK400', 'every array must have one element per symbol',
      'argument: prices, bids, asks, …');
  end if;
  perform risk_private.begin_change();
  -- Marks are locked in the order of their instruments, by whoever sets them.
  with given as materialized (
    select
      t.*, i.instrument_id,
      i.option_right is not null and (t.iv is null or t.delta is null or t.gamma is null
        or t.vega is null or t.theta is null or t.rho is null) as is_incomplete,
      case when lag(i.instrument_id) over w = i.instrument_id
          or lead(i.instrument_id) over w = i.instrument_id
        then 'the symbol stands twice in the batch'
        else risk_private.mark_problem(t.price, t.bid, t.ask, i.allow_negative_price, t.iv,
          t.delta, t.gamma, t.vega, t.theta, t.rho) end as problem
    from unnest(symbols, prices, bids, asks, ivs, deltas, gammas, vegas, thetas, rhos)
      with ordinality
      as t (symbol, price, bid, ask, iv, delta, gamma, vega, theta, rho, row_number)
    left join risk_private.instruments as i on i.symbol = t.symbol
    window w as (order by i.instrument_id)
  ), applied as (
    insert into risk_private.marks as m (
      instrument_id, price, bid, ask, implied_volatility, delta, gamma, vega, theta, rho,
      volatility_as_of, as_of)
    select g.instrument_id, g.price, g.bid, g.ask, g.iv, g.delta, g.gamma, g.vega, g.theta,
      g.rho, case when g.iv is not null then v_at end, v_at
    from given as g
    where g.problem is null
    order by g.instrument_id
    on conflict (instrument_id) do update set
      price = excluded.price, bid = excluded.bid, ask = excluded.ask,
      implied_volatility = excluded.implied_volatility, delta = excluded.delta,
      gamma = excluded.gamma, vega = excluded.vega, theta = excluded.theta, rho = excluded.rho,
      volatility_as_of = excluded.volatility_as_of, as_of = excluded.as_of
      where m.as_of <= excluded.as_of
    returning m.instrument_id
  )
  select
    (select array_agg(a.instrument_id) from applied as a),
    jsonb_agg(
      jsonb_build_object('row', g.row_number, 'symbol', g.symbol, 'problem', g.problem)
      order by g.row_number) filter (where g.problem is not null),
    array_agg(g.instrument_id) filter (where g.problem is null),
    array_agg(g.instrument_id) filter (where g.problem is null and g.is_incomplete)
    into v_marked.instrument_ids, v_marked.report, v_good_ids, v_incomplete_ids
  from given as g;
  if cardinality(v_good_ids) is distinct from cardinality(v_marked.instrument_ids) then
    v_marked.report := (
      select jsonb_agg(r.refused order by (r.refused ->> 'row')::integer)
      from (
        select jsonb_array_elements(v_marked.report) as refused
        union all
        select jsonb_build_object('row', t.row_number, 'symbol', t.symbol, 'problem',
          'older than the stored mark')
        from unnest(symbols) with ordinality as t (symbol, row_number)
        join risk_private.instruments as i on i.symbol = t.symbol
        where i.instrument_id = any (v_good_ids)
          and i.instrument_id <> all (coalesce(v_marked.instrument_ids, '{}'))) as r);
  end if;
  if v_marked.instrument_ids is null then
    perform risk_private.fail('RK400', format('no mark could be set: row %s (%s): %s',
      v_marked.report -> 0 ->> 'row', v_marked.report -> 0 ->> 'symbol',
      v_marked.report -> 0 ->> 'problem'), v_marked.report::text);
  end if;
  if v_incomplete_ids is not null then
    perform risk_private.complete_marks(v_incomplete_ids, v_at);
  end if;
  perform risk_private.note_moved(v_marked.instrument_ids);
  perform risk_private.keep_ticks(v_marked.instrument_ids);
  return v_marked;
end
$$;
comment on function risk_private.set_marks(
  text[], numeric[], numeric[], numeric[], double precision[], double precision[],
  double precision[], double precision[], double precision[], double precision[],
  timestamptz) is
  'Stores marks, and tells which instruments moved and which rows were refused.';

create function risk_private.remark_underlying(
  symbol text, price numeric, bid numeric, ask numeric, as_of timestamptz)
returns integer[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := risk_private.mark_time(as_of);
  v_id integer := risk_private.instrument_id(symbol);
  v_problem text;
  v_instrument_ids integer[];
begin
  select case when i.kind = 'option' then 'an option is no underlying'
      when exists (select from risk_private.marks as m
        where m.instrument_id = v_id and m.as_of > v_at) then 'older than the stored mark'
      else risk_private.mark_problem(price, bid, ask, i.allow_negative_price, null, null, null,
        null, null, null) end
    into v_problem
  from risk_private.instruments as i
  where i.instrument_id = v_id;
  if v_problem is not null then
    perform risk_private.fail('RK400', v_problem, format(
      'symbol %s, price %s, bid %s, ask %s, as_of %s', symbol, price, bid, ask, v_at));
  end if;
  perform risk_private.begin_change();
  with given as materialized (
    select
      o.instrument_id, o.kind, o.strike, o.rate, o.dividend,
      remark_underlying.price::double precision as spot,
      greatest(0, o.days + (select risk_private.session_left(v_at))) / 365 as years,
      m.implied_volatility, m.volatility_as_of
    from risk_private.option_terms as o
    join risk_private.marks as m on m.instrument_id = o.instrument_id
    where o.underlying_id = v_id and o.days >= 0 and m.implied_volatility is not null
      and m.as_of <= v_at
  ), applied as (
    insert into risk_private.marks as m (
      instrument_id, price, bid, ask, implied_volatility, delta, gamma, vega, theta, rho,
      volatility_as_of, as_of)
    select r.*, v_at
    from (
      select v_id as instrument_id, remark_underlying.price, remark_underlying.bid,
        remark_underlying.ask, null::double precision, null::double precision,
        null::double precision, null::double precision, null::double precision,
        null::double precision, null::timestamptz
      union all
      select g.instrument_id, greatest(round(v.price::numeric, 8), 0.00000001), null, null,
        g.implied_volatility, v.delta, v.gamma, v.vega, v.theta, v.rho, g.volatility_as_of
      from given as g
      cross join lateral risk.option_greeks(
        g.kind, g.spot, g.strike, g.years, g.rate, g.dividend, g.implied_volatility) as v
      where risk_private.option_problem(g.kind, g.spot, g.strike, g.years, g.rate, g.dividend)
        is null
      order by instrument_id
    ) as r
    on conflict (instrument_id) do update set
      price = excluded.price, bid = excluded.bid, ask = excluded.ask, delta = excluded.delta,
      gamma = excluded.gamma, vega = excluded.vega, theta = excluded.theta, rho = excluded.rho,
      as_of = excluded.as_of
      where m.as_of <= excluded.as_of
    returning m.instrument_id
  )
  select array_agg(a.instrument_id) into v_instrument_ids from applied as a;
  perform risk_private.note_moved(v_instrument_ids);
  perform risk_private.keep_ticks(v_instrument_ids);
  return coalesce(v_instrument_ids, '{}');
end
$$;
comment on function risk_private.remark_underlying(text, numeric, numeric, numeric, timestamptz)
is 'Stores the mark of an underlying and values its options; tells which instruments moved.';

create procedure risk.set_marks(
  symbols text[], prices numeric[], bids numeric[] default null, asks numeric[] default null,
  ivs double precision[] default null, deltas double precision[] default null,
  gammas double precision[] default null, vegas double precision[] default null,
  thetas double precision[] default null, rhos double precision[] default null,
  as_of timestamptz default null, inout report jsonb default null)
language plpgsql
as $$
declare
  v_marked risk_private.marked;
begin
  v_marked := risk_private.set_marks(
    symbols, prices, bids, asks, ivs, deltas, gammas, vegas, thetas, rhos, as_of);
  commit;
  call risk_private.follow();
  report := v_marked.report;
end
$$;
comment on procedure risk.set_marks(
  text[], numeric[], numeric[], numeric[], double precision[], double precision[],
  double precision[], double precision[], double precision[], double precision[], timestamptz,
  jsonb) is
  'Sets prices, and optionally bids, asks, implied volatilities and Greeks, of many instruments as '
  'of one moment (default now), after which every position in them is carried at the new marks, '
  'account by account: by the worker or, where none runs, before the call returns. A bid or ask '
  'left out is cleared. What an option lacks is computed by '
  'risk.option_greeks: its volatility out of its price, its Greeks from its volatility, at the '
  'mark of its underlying (of the same batch, or the stored one), the settings risk_free_rate and '
  'dividend_yield or the underlying''s own yield, and the time to 16:00 exchange time on its '
  'expiry in calendar days / 365, counted from as_of, or from the close of the trading date where '
  'as_of is on another date. Without a mark of the underlying, or where no volatility gives the '
  'price, they are unknown (NULL); after expiry they are 0. report: the rows that were refused, '
  '[{row, symbol, problem}], NULL where none was: unknown symbol, a symbol that stands twice, not '
  'finite, not above 0 (unless the instrument allows it), crossed quote, negative volatility, '
  'older than the stored mark. The others are applied. Errors: RK400 where no row was good, arrays '
  'differ in length, or as_of is more than a minute ahead.';

create procedure risk.remark_underlying(
  symbol text, price numeric, bid numeric default null, ask numeric default null,
  as_of timestamptz default null, inout instruments_marked integer default null)
language plpgsql
as $$
declare
  v_instrument_ids integer[];
begin
  v_instrument_ids := risk_private.remark_underlying(symbol, price, bid, ask, as_of);
  commit;
  call risk_private.follow();
  instruments_marked := pg_catalog.cardinality(v_instrument_ids);
end
$$;
comment on procedure risk.remark_underlying(text, numeric, numeric, numeric, timestamptz, integer)
is
  'Sets the mark of an underlying from one tick and values all its options that have an implied '
  'volatility anew, as risk.set_marks would with that volatility. Such an option gets a price '
  '(rounded to 8 decimals, at least 0.00000001), Greeks and the tick''s as_of; its bid and ask, '
  'made at another spot, are cleared; its volatility and volatility_as_of stay. Options whose own '
  'mark is newer than the tick, that have no volatility or have expired keep their marks. Then '
  'every position in what moved is carried at the new marks. instruments_marked counts what moved, '
  'the underlying included. Errors: RK404 unknown symbol; RK400 an option, a bad price or quote, a '
  'tick older than the stored mark, as_of more than a minute ahead.';
