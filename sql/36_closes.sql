-- Daily closes of underlyings: recorded when the trading day is rolled, or loaded.

create table risk_private.closes (
  instrument_id integer not null references risk_private.instruments,
  day date not null,
  close numeric not null check (close > 0 and risk_private.is_finite(close)),
  recorded_at timestamptz not null,
  primary key (instrument_id, day)
);
create index closes_day_idx on risk_private.closes (day);
comment on table risk_private.closes is
  'Closing prices of underlyings per trading day, adjusted for all later splits.';

create function risk_private.record_closes(day date, since timestamptz) returns void
language sql volatile
begin atomic
  insert into risk_private.closes as c (instrument_id, day, close, recorded_at)
  select m.instrument_id, record_closes.day, m.price, risk_private.clock()
  from risk_private.marks as m
  join risk_private.instruments as i on i.instrument_id = m.instrument_id
  where i.kind <> 'option' and m.price > 0 and m.as_of >= record_closes.since
  order by m.instrument_id
  on conflict on constraint closes_pkey do update set
    close = excluded.close, recorded_at = excluded.recorded_at;
end;
comment on function risk_private.record_closes(date, timestamptz) is
  'Keeps the present marks of underlyings as the closes of a day, where they are no older than the '
  'opening of that day: what was not marked all day has no close.';

create function risk_private.adjust_closes(instrument_id integer, ratio numeric) returns void
language sql volatile
begin atomic
  update risk_private.closes as c set close = c.close / adjust_closes.ratio
  where c.instrument_id = adjust_closes.instrument_id;
end;
comment on function risk_private.adjust_closes(integer, numeric) is
  'Brings stored closes to the level after a split: 4 for 4-for-1.';

create function risk_private.load_closes(symbols text[], days date[], closes numeric[])
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_size integer := cardinality(symbols);
  v_today date := risk_private.trading_date();
  v_problem record;
begin
  if coalesce(v_size, 0) = 0 or array_ndims(symbols) <> 1
    or cardinality(days) is distinct from v_size or cardinality(closes) is distinct from v_size then
    perform risk_private.fail('RK400', 'symbols, days and closes must be lists of the same length',
      'argument: symbols, days, closes');
  end if;
  select p.* into v_problem
  from (
    select t.row_number, t.symbol, t.day, t.close,
      case
        when i.instrument_id is null then 'unknown symbol'
        when i.kind = 'option' then 'an option is no underlying'
        when (t.day > '-infinity' and t.day <= v_today) is not true
          then format('day must be a date up to the trading date %s', v_today)
        when (t.close > 0 and t.close <= 1e12) is not true
          then 'close must be a number above 0, within 1e12'
        when count(*) over (partition by t.symbol, t.day) > 1 then 'the day stands twice'
      end as problem
    from unnest(symbols, days, closes) with ordinality as t (symbol, day, close, row_number)
    left join risk_private.instruments as i on i.symbol = t.symbol
  ) as p
  where p.problem is not null
  order by p.row_number
  limit 1;
  if found then
    perform risk_private.fail(
      case when v_problem.problem = 'unknown symbol' then 'RK404' else 'RK400' end,
      format('row %s (%s): %s', v_problem.row_number, v_problem.symbol, v_problem.problem),
      format('day %s, close %s; nothing was loaded', v_problem.day, v_problem.close));
  end if;
  insert into risk_private.closes as c (instrument_id, day, close, recorded_at)
  select i.instrument_id, t.day, t.close, risk_private.clock()
  from unnest(symbols, days, closes) as t (symbol, day, close)
  join risk_private.instruments as i on i.symbol = t.symbol
  order by i.instrument_id, t.day
  on conflict on constraint closes_pkey do update set
    close = excluded.close, recorded_at = excluded.recorded_at;
  return v_size;
end
$$;
comment on function risk_private.load_closes(text[], date[], numeric[]) is
  'What risk.load_closes does.';

create procedure risk.load_closes(
  symbols text[], days date[], closes numeric[], inout loaded integer default null)
language plpgsql
as $$
begin
  loaded := risk_private.load_closes(symbols, days, closes);
  commit;
end
$$;
comment on procedure risk.load_closes(text[], date[], numeric[], integer) is
  'Loads closing prices of underlyings, all or none: one symbol, day and close per row, adjusted '
  'for splits (and for dividends, if total returns are wanted). What is stored for that day is '
  'replaced. From then on risk.open_day adds the closes of the day that ends. loaded: how many '
  'rows. Errors: RK400, RK404 unknown symbol, naming the first bad row.';
