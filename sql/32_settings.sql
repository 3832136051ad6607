-- Settings: stored per scope, resolved along the chain onto the scopes themselves, so that a
-- decision reads one row.

create function risk_private.validate_setting(name text, value text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_unknown text;
begin
  if name in ('max_mark_age', 'max_heartbeat_age', 'max_indicator_age', 'collar_floor') then
    if (value ~ '^[0-9]{1,9}(\.[0-9]{1,9})?$') is not true then
      perform risk_private.fail('RK400',
        pg_catalog.format('%s must be a number >= 0, got %L', name, value),
        'argument: value');
    end if;
  elsif name in ('risk_free_rate', 'dividend_yield') then
    if (value ~ '^-?([0-9](\.[0-9]{1,12})?|10)$') is not true then
      perform risk_private.fail('RK400',
        pg_catalog.format('%s must be a number from -10 to 10, got %L', name, value),
        'argument: value',
        'It is continuously compounded, per year: 0.05 is 5 %.');
    end if;
  elsif name = 'four_eyes' then
    if (value in ('on', 'off')) is not true then
      perform risk_private.fail('RK400',
        pg_catalog.format('four_eyes must be on or off, got %L', value), 'argument: value');
    end if;
  elsif name = 'open_day_at' then
    if (value = 'off' or value ~ '^([01][0-9]|2[0-3]):[0-5][0-9]$') is not true then
      perform risk_private.fail('RK400',
        pg_catalog.format('open_day_at must be a time like 17:00, or off, got %L', value),
        'argument: value', 'It is the time of the exchange''s clock.');
    end if;
  elsif name = 'required_limit_types' then
    select t into v_unknown from pg_catalog.unnest(pg_catalog.string_to_array(value, ',')) as t
    where not exists (select from risk_private.limit_types as k
      where k.limit_type = pg_catalog.btrim(t)) limit 1;
    if value is null or v_unknown is not null then
      perform risk_private.fail('RK400', pg_catalog.format('unknown limit type %L', v_unknown),
        'argument: value',
        'A comma-separated list of limit types; net_position is always required.');
    end if;
  elsif name = 'exchange_time_zone' then
    if not exists (select from pg_catalog.pg_timezone_names as z where z.name = value) then
      perform risk_private.fail('RK400', pg_catalog.format('unknown time zone %L', value),
        'argument: value',
        'A name like America/New_York.');
    end if;
  else
    perform risk_private.fail('RK400', pg_catalog.format('unknown setting %L', name),
      'argument: name',
      'Known: max_mark_age, max_heartbeat_age, max_indicator_age, collar_floor, four_eyes, '
      'required_limit_types, exchange_time_zone, open_day_at, risk_free_rate, dividend_yield.');
  end if;
end
$$;
comment on function risk_private.validate_setting(text, text) is
  'Raises RK400 for an unknown setting or an impossible value.';

create function risk_private.resolve_settings(scope_id integer) returns void
language sql volatile
begin atomic
  update risk_private.scopes as s set
    max_mark_age = coalesce(r.max_mark_age, 60),
    max_heartbeat_age = coalesce(r.max_heartbeat_age, 3),
    collar_floor = coalesce(r.collar_floor, 0.10),
    required_types = pg_catalog.set_bit(coalesce(r.required_types, b'0'::bit(32)), 3, 1)
  from risk_private.scopes as t
  cross join lateral (
    select
      coalesce(min(g.value::double precision) filter (where g.name = 'max_mark_age'
        and g.value::numeric > 0),
               max(g.value::double precision) filter (where g.name = 'max_mark_age'))
                 as max_mark_age,
      coalesce(min(g.value::double precision) filter (where g.name = 'max_heartbeat_age'
        and g.value::numeric > 0),
               max(g.value::double precision) filter (where g.name = 'max_heartbeat_age'))
                 as max_heartbeat_age,
      (pg_catalog.array_agg(g.value::numeric
        order by g.scope_id) filter (where g.name = 'collar_floor'))[1]
        as collar_floor,
      (select pg_catalog.bit_or(pg_catalog.set_bit(b'0'::bit(32), k.bit, 1))
       from risk_private.limit_types as k
       where k.limit_type = any (
         select pg_catalog.btrim(n) from risk_private.settings as q
         cross join pg_catalog.unnest(pg_catalog.string_to_array(q.value, ',')) as n
         where q.name = 'required_limit_types'
           and (q.scope_id is null or q.scope_id = any (t.chain)))
      ) as required_types
    from risk_private.settings as g
    where g.scope_id is null or g.scope_id = any (t.chain)
  ) as r
  where t.chain @> array[resolve_settings.scope_id] and s.scope_id = t.scope_id;
end;
comment on function risk_private.resolve_settings(integer) is
  'Resolves the settings of a scope and all below it: ages take the strictest non-zero value on '
  'the chain, the collar floor the nearest, required limit types add up.';

create function risk_private.set_setting(name text, value text, scope text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_scope_id integer;
begin
  perform risk_private.validate_setting(name, value);
  if scope is not null then
    if name in ('exchange_time_zone', 'open_day_at', 'risk_free_rate', 'dividend_yield') then
      perform risk_private.fail('RK400',
        pg_catalog.format('%s holds for all: it cannot be set for a scope', name),
        'argument: scope', 'Leave the scope out.');
    end if;
    v_scope_id := (risk_private.scope(set_setting.scope)).scope_id;
  end if;
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.settings'));
  delete from risk_private.settings as s where s.name = set_setting.name
    and s.scope_id is not distinct from v_scope_id;
  insert into risk_private.settings (name, scope_id, value) values (set_setting.name, v_scope_id,
    set_setting.value);
  if v_scope_id is not null then
    perform risk_private.resolve_settings(v_scope_id);
  else
    perform risk_private.resolve_settings(s.scope_id) from risk_private.scopes as s
      where s.parent_id is null;
  end if;
end
$$;
comment on function risk_private.set_setting(text, text, text) is 'What risk.set_setting does.';

create procedure risk.set_setting(name text, value text, scope text default null)
language plpgsql
as $$
begin
  perform risk_private.set_setting(name, value, scope);
  commit;
end
$$;
comment on procedure risk.set_setting(text, text, text) is
  'Sets a setting for a scope and everything below it, or (scope NULL) for all: max_mark_age (60), '
  'max_heartbeat_age (3), max_indicator_age (60) in seconds, 0 = off, the strictest on the chain '
  'holds; collar_floor (0.10, for options); four_eyes (on, off; stored, not yet enforced); '
  'required_limit_types (comma-separated). For all only: exchange_time_zone (America/New_York); '
  'open_day_at (00:00), when a worker opens each weekday after the first, or off; risk_free_rate '
  'and dividend_yield (0; continuously compounded), with which options are valued where the feed '
  'sends no Greeks (risk.upsert_instruments sets the yield of one underlying). Errors: RK400, '
  'RK404.';

create function risk_private.exchange_date(at timestamptz) returns date
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (at at time zone coalesce(
    (select s.value from risk_private.settings as s
     where s.name = 'exchange_time_zone' and s.scope_id is null),
    'America/New_York'))::date;
end
$$;
comment on function risk_private.exchange_date(timestamptz) is
  'The date at the exchange at a moment, whatever the time zones of server and session are: '
  'setting exchange_time_zone, summer time included.';

create function risk_private.trading_date() returns date
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(c.trading_date, risk_private.exchange_date(risk_private.clock()))
    from risk_private.trading_calendar as c);
end
$$;
comment on function risk_private.trading_date() is
  'The last open_day, else today at the exchange.';
