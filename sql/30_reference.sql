-- Reference data: scopes, instruments, grants and settings.

create function risk_private.scope(code text) returns risk_private.scopes
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_scope risk_private.scopes;
begin
  select s.* into v_scope from risk_private.scopes as s where s.code = scope.code;
  if v_scope.scope_id is null then
    perform risk_private.fail('RK404', pg_catalog.format('unknown scope %L', code),
      'argument: scope',
      'Create it with risk.create_scope.');
  end if;
  return v_scope;
end
$$;
comment on function risk_private.scope(text) is
  'The scope of that code; RK404 where there is none.';

create function risk_private.instrument_id(symbol text) returns integer
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id integer;
begin
  select i.instrument_id into v_id from risk_private.instruments as i
    where i.symbol = instrument_id.symbol;
  if v_id is null then
    perform risk_private.fail('RK404', pg_catalog.format('unknown symbol %L', symbol),
      'argument: symbol',
      'Add it with risk.upsert_instruments.');
  end if;
  return v_id;
end
$$;
comment on function risk_private.instrument_id(text) is
  'The instrument of that symbol; RK404 where there is none.';

-- Lock order: other changes of limits; the counters of the chain above, ascending; their equities.
create function risk_private.create_scope(code text, kind text, parent text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_parent risk_private.scopes;
  v_scope_id integer := pg_catalog.nextval('risk_private.scope_ids');
  v_kinds constant text[] := array['firm', 'desk', 'account', 'strategy'];
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.limits'));
  if not risk_private.is_code(code) then
    perform risk_private.fail('RK400', 'code must be 1 to 64 printable characters',
      'argument: code');
  end if;
  if (kind = any (v_kinds)) is not true then
    perform risk_private.fail('RK400', pg_catalog.format('unknown kind %L', kind), 'argument: kind',
      'One of firm, desk, account, strategy.');
  end if;
  if (kind = 'firm') is distinct from (parent is null) then
    perform risk_private.fail('RK400', 'a firm has no parent and every other scope has one',
      'argument: parent');
  end if;
  if exists (select from risk_private.scopes as s where s.code = create_scope.code) then
    perform risk_private.fail('RK409', pg_catalog.format('scope %L exists', code),
      'argument: code');
  end if;
  if parent is not null then
    v_parent := risk_private.scope(parent);
    if pg_catalog.array_position(v_kinds, v_parent.kind) > pg_catalog.array_position(v_kinds,
      kind) then
      perform risk_private.fail('RK400',
        pg_catalog.format('a %s cannot stand below a %s', kind, v_parent.kind),
        'argument: kind', 'The order is firm > desk > account > strategy.');
    end if;
    perform risk_private.lock_chain(v_parent.scope_id);
    if exists (select from risk_private.positions as p where p.account_id = v_parent.scope_id)
      or exists (select from risk_private.orders as o where o.account_id = v_parent.scope_id)
      or exists (
        select from risk_private.cash_balances as b where b.account_id = v_parent.scope_id) then
      perform risk_private.fail('RK409',
        pg_catalog.format('%L holds positions, orders or cash', parent),
        'argument: parent',
        'Only a scope that has never traded can get scopes below it.');
    end if;
    if v_parent.is_leaf then
      perform risk_private.end_as_leaf(v_parent);
    end if;
    update risk_private.scopes as s set is_leaf = false where s.scope_id = v_parent.scope_id
      and s.is_leaf;
  end if;
  insert into risk_private.scopes (scope_id, code, kind, parent_id, chain, trading_day)
  values (v_scope_id, create_scope.code, create_scope.kind, v_parent.scope_id,
          v_scope_id || coalesce(v_parent.chain, '{}'),
          (select c.trading_date from risk_private.trading_calendar as c));
  insert into risk_private.counters (counter_id, scope_id, dimension, key_id)
  values (risk_private.counter_id(v_scope_id), v_scope_id, 0, 0);
  perform risk_private.begin_as_leaf(v_scope_id);
  perform risk_private.resolve_settings(v_scope_id);
  delete from risk_private.account_levels as l where l.account_id = v_parent.scope_id;
  perform risk_private.compile_account_levels(v_scope_id, risk_private.clock());
end
$$;
comment on function risk_private.create_scope(text, text, text) is 'What risk.create_scope does.';

create procedure risk.create_scope(code text, kind text, parent text default null)
language plpgsql
as $$
begin
  perform risk_private.create_scope(code, kind, parent);
  commit;
end
$$;
comment on procedure risk.create_scope(text, text, text) is
  'Adds a scope: firm > desk > account > strategy, any depth. A scope with none below it holds '
  'positions and orders. Errors: RK400, RK404 unknown parent, RK409 the code exists or the parent '
  'has traded.';

create type risk_private.instrument_terms as (
  symbol text,
  kind text,
  underlying text,
  expiry date,
  strike numeric,
  option_right text,
  multiplier numeric,
  lot numeric,
  tick numeric,
  currency text,
  sector text,
  allow_negative_price boolean,
  dividend_yield double precision
);

create function risk_private.validate_instrument(t risk_private.instrument_terms) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_problem text := case
    when not risk_private.is_code(t.symbol) then 'symbol must be 1 to 64 printable characters'
    when (t.kind in ('stock', 'etf', 'index', 'option', 'future')) is not true
      then 'kind must be stock, etf, index, option or future'
    when (t.kind = 'option') is distinct
      from (t.strike is not null) then 'an option, and nothing else, has a strike'
    when (t.kind = 'option') is distinct from (t.option_right is not null)
      then 'an option, and nothing else, has an option_right'
    when t.option_right not in ('call', 'put') then 'option_right must be call or put'
    when t.kind = 'option' and t.expiry is null then 'an option needs an expiry'
    when t.kind = 'option' and t.underlying is null then 'an option needs an underlying'
    when t.strike is not null and not (risk_private.is_amount(t.strike) and t.strike > 0)
      then 'strike must be a positive finite number'
    when not (risk_private.is_amount(t.multiplier) and t.multiplier > 0)
      then 'multiplier must be a positive finite number'
    when not (risk_private.is_amount(t.lot) and t.lot > 0)
      then 'lot must be a positive finite number'
    when t.tick is not null and not (risk_private.is_amount(t.tick) and t.tick > 0)
      then 'tick must be a positive finite number'
    when t.currency !~ '^[A-Z]{3}$' then 'currency must be three capital letters'
    when t.sector is not null
      and not risk_private.is_code(t.sector) then 'sector must be 1 to 64 printable characters'
    when t.expiry in ('infinity', '-infinity') then 'expiry must be a date'
    when t.dividend_yield is not null and not t.dividend_yield between -10 and 10
      then 'dividend_yield must be a number from -10 to 10 (0.02 is 2 %)'
  end;
begin
  if v_problem is not null then
    perform risk_private.fail('RK400', v_problem, 'instrument: ' || coalesce(t.symbol, 'NULL'));
  end if;
end
$$;
comment on function risk_private.validate_instrument(risk_private.instrument_terms) is
  'Raises RK400 for impossible terms.';

create function risk_private.upsert_instrument(item jsonb) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_terms risk_private.instrument_terms;
  v_old risk_private.instruments;
  v_underlying_id integer;
  v_underlying risk_private.instruments;
  v_sector_id integer;
  v_unknown text;
begin
  if pg_catalog.jsonb_typeof(item) is distinct from 'object' then
    perform risk_private.fail('RK400', 'each instrument must be a JSON object',
      'item: ' || coalesce(item::text, 'NULL'));
  end if;
  v_unknown := (select k from pg_catalog.jsonb_object_keys(item) as k
                where not k = any (array['symbol', 'kind', 'underlying', 'expiry', 'strike',
                  'option_right', 'multiplier',
                                         'lot', 'tick', 'currency', 'sector',
                                         'allow_negative_price', 'dividend_yield']) limit 1);
  if v_unknown is not null then
    perform risk_private.fail('RK400', pg_catalog.format('unknown key %L', v_unknown),
      'item: ' || item::text);
  end if;
  begin
    v_terms := pg_catalog.jsonb_populate_record(
      row(null, null, null, null, null, null, case when item ->> 'kind' = 'option' then 100
        else 1 end, 1, null,
          'USD', null, false, null)::risk_private.instrument_terms, item);
  exception when data_exception then
    perform risk_private.fail('RK400', sqlerrm, 'item: ' || item::text);
  end;
  perform risk_private.validate_instrument(v_terms);
  select i.* into v_old from risk_private.instruments as i
    where i.symbol = v_terms.symbol for no key update;
  if v_terms.underlying is not null and v_terms.underlying <> v_terms.symbol then
    v_underlying_id := risk_private.instrument_id(v_terms.underlying);
    select i.* into v_underlying from risk_private.instruments as i
      where i.instrument_id = v_underlying_id;
  end if;
  if v_terms.sector is not null then
    insert into risk_private.sectors (name) values (v_terms.sector) on conflict (name) do nothing;
    select s.sector_id into v_sector_id from risk_private.sectors as s
      where s.name = v_terms.sector;
  end if;
  v_sector_id := coalesce(v_sector_id, v_underlying.sector_id);
  if v_old.instrument_id is null then
    insert into risk_private.instruments (
      symbol, kind, underlying_id, sector_id, expiry, strike, option_right, multiplier, lot, tick,
      currency,
      allow_negative_price, dividend_yield)
    values (
      v_terms.symbol, v_terms.kind,
      coalesce(v_underlying.instrument_id,
               pg_catalog.currval(pg_catalog.pg_get_serial_sequence('risk_private.instruments',
                 'instrument_id'))),
      v_sector_id, v_terms.expiry, v_terms.strike, v_terms.option_right, v_terms.multiplier,
      v_terms.lot, v_terms.tick,
      v_terms.currency, coalesce(v_terms.allow_negative_price, false), v_terms.dividend_yield);
    return;
  end if;
  perform risk_private.change_instrument(
    v_old, v_terms, coalesce(v_underlying.instrument_id, v_old.instrument_id), v_sector_id);
end
$$;
comment on function risk_private.upsert_instrument(jsonb) is 'Adds or changes one instrument.';

-- Lock order: accounts that have traded the instrument, ascending.
create function risk_private.change_instrument(
  old risk_private.instruments, terms risk_private.instrument_terms, underlying_id integer,
  sector_id integer)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if row(old.kind, old.underlying_id, old.sector_id, old.expiry, old.strike, old.option_right,
    old.multiplier,
         old.currency)
    is distinct from row(terms.kind, change_instrument.underlying_id, change_instrument.sector_id,
      terms.expiry,
                         terms.strike, terms.option_right, terms.multiplier, terms.currency) then
    perform from risk_private.counters as c
    where c.counter_id = any (array(
      select risk_private.counter_id(p.account_id) from risk_private.positions as p
      where p.instrument_id = old.instrument_id))
    order by c.counter_id for no key update;
    if exists (select from risk_private.positions as p
      where p.instrument_id = old.instrument_id) then
      perform risk_private.fail('RK409',
        pg_catalog.format('%s has been traded: its terms cannot change', old.symbol),
        'kind, underlying, sector, expiry, strike, option_right, multiplier and currency are fixed '
        'once traded',
        'Add an instrument with the new terms; for a split there is risk.adjust_instrument.');
    end if;
  end if;
  update risk_private.instruments as i set
    kind = terms.kind, underlying_id = change_instrument.underlying_id,
    sector_id = change_instrument.sector_id,
    expiry = terms.expiry, strike = terms.strike, option_right = terms.option_right,
    multiplier = terms.multiplier,
    lot = terms.lot, tick = terms.tick, currency = terms.currency,
    allow_negative_price = coalesce(terms.allow_negative_price, false),
    dividend_yield = terms.dividend_yield
  where i.instrument_id = old.instrument_id;
end
$$;
comment on function risk_private.change_instrument(
  risk_private.instruments, risk_private.instrument_terms, integer, integer) is
  'Changes an instrument. Counters are kept by its terms, so those are fixed once it has been '
  'traded.';

create function risk_private.upsert_instruments(instruments jsonb) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.instruments'));
  if pg_catalog.jsonb_typeof(instruments) is distinct from 'array' then
    perform risk_private.fail('RK400', 'instruments must be a JSON array of objects',
      'argument: instruments');
  end if;
  perform risk_private.upsert_instrument(e.value)
  from pg_catalog.jsonb_array_elements(instruments) with ordinality as e (value, position)
  order by e.position;
end
$$;
comment on function risk_private.upsert_instruments(jsonb) is 'What risk.upsert_instruments does.';

create procedure risk.upsert_instruments(instruments jsonb)
language plpgsql
as $$
begin
  perform risk_private.upsert_instruments(instruments);
  commit;
end
$$;
comment on procedure risk.upsert_instruments(jsonb) is
  'Adds or changes instruments, all or none: an array of {symbol, kind (stock, etf, index, option, '
  'future), underlying, expiry, strike, option_right (call, put), multiplier (default 100 for '
  'options, else 1), lot (default 1), tick (default none), currency (default USD), sector (default '
  'the underlying''s), allow_negative_price, dividend_yield (of an underlying: what its options '
  'are valued with; default the setting)}. An underlying comes before its options. Errors: RK400, '
  'RK404 unknown underlying, RK409 fixed terms of a traded instrument.';

create function risk_private.grant_trading(role name, scope text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_role_id regrole := pg_catalog.to_regrole(pg_catalog.quote_ident(role));
begin
  if v_role_id is null then
    perform risk_private.fail('RK404', pg_catalog.format('unknown role %L', role), 'argument: role',
      'Make it with CREATE ROLE.');
  end if;
  insert into risk_private.trading_grants (scope_id, role_id)
  values ((risk_private.scope(grant_trading.scope)).scope_id, v_role_id)
  on conflict do nothing;
end
$$;
comment on function risk_private.grant_trading(name, text) is 'What risk.grant_trading does.';

create procedure risk.grant_trading(role name, scope text)
language plpgsql
as $$
begin
  perform risk_private.grant_trading(role, scope);
  commit;
end
$$;
comment on procedure risk.grant_trading(name, text) is
  'Lets a role (and its members) trade a scope and everything below it. Errors: RK404.';

create function risk_private.revoke_trading(role name, scope text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from risk_private.trading_grants as g
  where g.scope_id = (risk_private.scope(revoke_trading.scope)).scope_id
    and g.role_id = pg_catalog.to_regrole(pg_catalog.quote_ident(role));
  if not found then
    perform risk_private.fail('RK404', pg_catalog.format('role %L has no grant on %L', role, scope),
      'argument: role');
  end if;
end
$$;
comment on function risk_private.revoke_trading(name, text) is 'What risk.revoke_trading does.';

create procedure risk.revoke_trading(role name, scope text)
language plpgsql
as $$
begin
  perform risk_private.revoke_trading(role, scope);
  commit;
end
$$;
comment on procedure risk.revoke_trading(name, text) is
  'Takes a trading grant back. Errors: RK404 where there is none.';
