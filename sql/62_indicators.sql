-- Market indicators, and the history that circuit breakers look back on.

create function risk_private.indicator_id(name text) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id integer;
begin
  if not risk_private.is_code(name) then
    perform risk_private.fail('RK400', 'the name of an indicator must be 1 to 64 printable '
      'characters', 'argument: name', 'Such as VIX or SPX.');
  end if;
  select i.indicator_id into v_id from risk_private.indicators as i
  where i.name = indicator_id.name;
  if v_id is null then
    insert into risk_private.indicators (name) values (indicator_id.name)
    on conflict on constraint indicators_name_key do nothing;
    select i.indicator_id into v_id from risk_private.indicators as i
    where i.name = indicator_id.name;
  end if;
  return v_id;
end
$$;
comment on function risk_private.indicator_id(text) is
  'The number of an indicator, known from now on. RK400 for a name that is none.';

create function risk_private.set_indicator(name text, value double precision, as_of timestamptz)
returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := risk_private.clock();
  v_at timestamptz := coalesce(as_of, v_now);
  v_id integer;
  v_value numeric;
begin
  if (value > '-Infinity' and value < 'Infinity') is not true then
    perform risk_private.fail('RK400', 'value must be a finite number',
      'argument: value, value: ' || coalesce(value::text, 'NULL'));
  end if;
  if v_at = '-infinity' or v_at > v_now + interval '1 second' then
    perform risk_private.fail('RK400', 'as_of must be a moment that has come',
      pg_catalog.format('argument: as_of %s, the clock: %s', v_at, v_now),
      'Send the time of the data; leave it out for now.');
  end if;
  v_id := risk_private.indicator_id(name);
  -- By way of its text: a cast to numeric keeps 15 digits, and a value just below a threshold
  -- would be rounded up to it.
  v_value := value::text::numeric;
  update risk_private.indicators as i set
    value = v_value, as_of = v_at, set_by = session_user, received_at = v_now
  where i.indicator_id = v_id and (i.as_of <= v_at or i.as_of is null);
  insert into risk_private.indicator_ticks (indicator_id, as_of, value)
  values (v_id, v_at, v_value);
  perform risk_private.event('indicator', pg_catalog.jsonb_build_object('name', name));
end
$$;
comment on function risk_private.set_indicator(text, double precision, timestamptz) is
  'What risk.set_indicator does.';

create procedure risk.set_indicator(
  name text, value double precision, as_of timestamptz default null)
language plpgsql
as $$
begin
  perform risk_private.set_indicator(name, value, as_of);
  commit;
end
$$;
comment on procedure risk.set_indicator(text, double precision, timestamptz) is
  'Tells the value of a market indicator such as VIX or SPX as of a moment (default now). Circuit '
  'breakers judge every value, one that comes late too; risk.indicators shows the latest by data '
  'time. Errors: RK400 for what is no finite number, or from the future.';

create function risk_private.keep_ticks(instrument_ids integer[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.price_ticks (instrument_id, as_of, price)
  select m.instrument_id, m.as_of, m.price
  from risk_private.marks as m
  where m.instrument_id = any (instrument_ids) and exists (
    select from risk_private.breakers as b where b.instrument_id = m.instrument_id);
  if instrument_ids <> '{}' then
    perform risk_private.event('marks', '{}', false);
  end if;
end
$$;
comment on function risk_private.keep_ticks(integer[]) is
  'Keeps the present marks of those instruments that a circuit breaker watches, and tells that '
  'marks have moved.';

create function risk_private.keep_indicators(day date) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.indicator_closes (indicator_id, day, close)
  select i.indicator_id, keep_indicators.day, i.value
  from risk_private.indicators as i
  where i.value is not null;
end
$$;
comment on function risk_private.keep_indicators(date) is
  'Keeps the values of indicators as the closes of a day that ends.';

-- By data time, for the clock of a replay is not ours. The last value before what must be kept
-- stays: it is the one that stood then.
create function risk_private.forget_ticks() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from risk_private.indicator_ticks as t
  using (
    select i.indicator_id, i.as_of - interval '7 days' - coalesce(max(b.look_back), '0') as since
    from risk_private.indicators as i
    left join risk_private.breakers as b on b.indicator_id = i.indicator_id
    group by i.indicator_id
  ) as k
  where t.indicator_id = k.indicator_id and t.as_of < (
    select max(n.as_of) from risk_private.indicator_ticks as n
    where n.indicator_id = k.indicator_id and n.as_of <= k.since);
  delete from risk_private.price_ticks as t
  using (
    select m.instrument_id, m.as_of - interval '10 minutes' - coalesce(max(b.look_back), '0')
      as since
    from risk_private.marks as m
    left join risk_private.breakers as b on b.instrument_id = m.instrument_id
    where m.instrument_id in (select p.instrument_id from risk_private.price_ticks as p)
    group by m.instrument_id
  ) as k
  where t.instrument_id = k.instrument_id and t.as_of < (
    select max(n.as_of) from risk_private.price_ticks as n
    where n.instrument_id = k.instrument_id and n.as_of <= k.since);
end
$$;
comment on function risk_private.forget_ticks() is
  'Deletes values that no circuit breaker looks back on: of an indicator what is more than 7 days '
  'older than its latest, of a watched price 10 minutes, and what a window needs besides.';
