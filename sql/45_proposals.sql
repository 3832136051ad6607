-- What an order asks for, resolved and validated: the proposal that is decided.

create type risk_private.combo_legs as (
  symbols text[],
  sides text[],
  ratios numeric[]
);
comment on type risk_private.combo_legs is 'The legs of a combo, side by side.';

create function risk_private.combo_legs(legs jsonb) returns risk_private.combo_legs
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_legs risk_private.combo_legs;
  v_problem text;
begin
  if pg_catalog.jsonb_typeof(legs) is distinct from 'array'
    or pg_catalog.jsonb_array_length(legs) not between 1 and 8 then
    perform risk_private.fail('RK400', 'legs must be a JSON array of 1 to 8 objects',
      'argument: legs');
  end if;
  select pg_catalog.min(case
    when pg_catalog.jsonb_typeof(e.value) <> 'object' then 'each leg must be an object'
    when e.value - array['symbol', 'side', 'ratio'] <> '{}'
      then 'a leg has symbol, side and ratio, nothing else'
    when pg_catalog.jsonb_typeof(e.value -> 'symbol') is distinct from 'string'
      or pg_catalog.jsonb_typeof(e.value -> 'side') is distinct
        from 'string' then 'a leg needs symbol and side as text'
    when e.value ? 'ratio' and (e.value ->> 'ratio' ~ '^[1-9][0-9]{0,2}$') is not true
      then 'ratio must be a whole number of 1 to 999'
  end) into v_problem
  from pg_catalog.jsonb_array_elements(legs) as e;
  if v_problem is not null then
    perform risk_private.fail('RK400', v_problem,
      'argument: legs, value: ' || pg_catalog."left"(legs::text, 500));
  end if;
  select pg_catalog.array_agg(e.value ->> 'symbol' order by e.position),
    pg_catalog.array_agg(e.value ->> 'side' order by e.position),
    pg_catalog.array_agg(coalesce((e.value ->> 'ratio')::numeric, 1) order by e.position)
  into v_legs.symbols, v_legs.sides, v_legs.ratios
  from pg_catalog.jsonb_array_elements(legs) with ordinality as e (value, position);
  if (select count(distinct s)
    from pg_catalog.unnest(v_legs.symbols) as s) < pg_catalog.cardinality(v_legs.symbols) then
    perform risk_private.fail('RK400', 'a symbol may stand in one leg only', 'argument: legs');
  end if;
  return v_legs;
end
$$;
comment on function risk_private.combo_legs(jsonb) is
  'Reads the legs of a combo; RK400 where they make no sense.';

create function risk_private.account_of(account text, only_to_look boolean default false)
returns risk_private.scopes
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_leaf risk_private.scopes;
begin
  select s.* into v_leaf from risk_private.scopes as s where s.code = account;
  if v_leaf.scope_id is null then
    perform risk_private.fail('RK404', pg_catalog.format('unknown account %L', account),
      'argument: account');
  end if;
  if not risk_private.may_trade(v_leaf.chain)
    and not (only_to_look and v_leaf.scope_id = any (risk_private.visible_accounts())) then
    perform risk_private.fail('RK403',
      pg_catalog.format('%I may not trade %L', risk_private.caller(), account),
      'argument: account', 'Ask an administrator for risk.grant_trading.');
  end if;
  if not v_leaf.is_leaf then
    perform risk_private.fail('RK400',
      pg_catalog.format('%L has scopes below it: orders belong to those', account),
      'argument: account');
  end if;
  return v_leaf;
end
$$;
comment on function risk_private.account_of(text, boolean) is
  'The leaf scope of that code, if the caller may trade it or, only to look, may see it. Errors: '
  'RK400 not a leaf, RK403, RK404.';

create function risk_private.validate_order(
  client_order_id text, legs risk_private.leg[], quantity numeric, price numeric, agent text,
  time_in_force text,
  is_combo boolean)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tick numeric;
  v_may_be_negative boolean;
begin
  if not risk_private.is_code(client_order_id) then
    perform risk_private.fail('RK400', 'client_order_id must be 1 to 64 printable characters',
      'argument: client_order_id');
  end if;
  if agent is not null and not risk_private.is_code(agent) then
    perform risk_private.fail('RK400', 'agent must be 1 to 64 printable characters',
      'argument: agent');
  end if;
  if (time_in_force in ('DAY', 'GTC')) is not true then
    perform risk_private.fail('RK400',
      pg_catalog.format('time_in_force must be DAY or GTC, got %L', time_in_force),
      'argument: time_in_force');
  end if;
  if not risk_private.is_quantity(quantity) then
    perform risk_private.fail('RK400',
      'quantity must be a finite number above 0 and at most 1e12, with at most 8 decimals',
      'argument: quantity, value: ' || coalesce(pg_catalog."left"(quantity::text, 40), 'NULL'));
  end if;
  if quantity % risk_private.step(legs) <> 0 then
    perform risk_private.fail('RK400',
      pg_catalog.format('quantity %s is not a multiple of the lot %s', quantity,
      risk_private.step(legs)), 'argument: quantity');
  end if;
  if exists (select from pg_catalog.unnest(legs) as l
    where l.ratio * validate_order.quantity > 1e12) then
    perform risk_private.fail('RK400', 'quantity times ratio must be at most 1e12',
      'argument: quantity');
  end if;
  select min(i.tick), pg_catalog.bool_or(i.allow_negative_price) into v_tick, v_may_be_negative
  from pg_catalog.unnest(legs) as l
  join risk_private.instruments as i on i.instrument_id = l.instrument_id;
  if price is not null and not risk_private.is_price(price, null, is_combo
    or v_may_be_negative) then
    perform risk_private.fail('RK400',
      'price must be a finite number, above 0 (unless it may be negative), within 1e12, with at '
      'most 8 decimals',
      'argument: price, value: ' || pg_catalog."left"(price::text, 40),
      'Leave it out for a market order.');
  end if;
  if price % v_tick <> 0 then
    perform risk_private.fail('RK400',
      pg_catalog.format('price %s is not a multiple of the tick %s', price, v_tick),
      'argument: price');
  end if;
end
$$;
comment on function risk_private.validate_order(
  text, risk_private.leg[], numeric, numeric, text, text, boolean) is
  'Raises RK400 for an order that makes no sense, naming the argument and the rule.';

create function risk_private.propose(
  leaf risk_private.scopes, client_order_id text, symbols text[], sides text[], ratios numeric[],
  quantity numeric, price numeric,
  agent text, time_in_force text, is_combo boolean)
returns risk_private.proposal
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_side text;
  v_symbol text;
  v_ratio numeric;
  p risk_private.proposal;
begin
  foreach v_side in array sides loop
    if (v_side in ('buy', 'sell')) is not true then
      perform risk_private.fail('RK400',
        pg_catalog.format('side must be buy or sell, got %L', v_side), 'argument: side');
    end if;
  end loop;
  foreach v_ratio in array ratios loop
    if (v_ratio between 1 and 1000 and v_ratio % 1 = 0) is not true then
      perform risk_private.fail('RK400', 'ratio must be a whole number of 1 to 1000',
        'argument: legs');
    end if;
  end loop;
  foreach v_symbol in array symbols loop
    perform risk_private.instrument_id(v_symbol);
  end loop;
  select pg_catalog.array_agg(i.instrument_id order by i.instrument_id),
    pg_catalog.array_agg(case t.side when 'buy' then t.ratio else -t.ratio end::integer
      order by i.instrument_id),
    pg_catalog.array_agg(0::numeric), pg_catalog.array_agg(0::numeric),
    pg_catalog.array_agg(0::numeric)
  into p.instrument_ids, p.ratios, p.bases, p.filled, p.old_notionals
  from unnest(symbols, sides, ratios) as t (symbol, side, ratio)
  join risk_private.instruments as i on i.symbol = t.symbol;
  p.account_id := leaf.scope_id;
  p.client_order_id := client_order_id;
  p.agent := agent;
  p.time_in_force := time_in_force;
  p.quantity := quantity;
  p.price := price;
  p.is_combo := is_combo;
  perform risk_private.validate_order(
    client_order_id, risk_private.legs(p, risk_private.clock()), quantity, price, agent,
    time_in_force, is_combo);
  return p;
end
$$;
comment on function risk_private.propose(
  risk_private.scopes, text, text[], text[], numeric[], numeric, numeric, text, text, boolean) is
  'Resolves and validates an order. Errors: RK400, RK403, RK404.';
