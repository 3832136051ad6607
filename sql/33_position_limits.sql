-- Position limits by tier, as exchanges and clearing houses publish them, and setting them on a
-- scope.

create function risk_private.position_limit_entries(limits jsonb, part text)
returns table (name text, value text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_catalog.jsonb_typeof(limits) is distinct from 'object'
    or limits - array['tiers', 'underlyings'] <> '{}'
    or coalesce(pg_catalog.jsonb_typeof(limits -> part), 'object') <> 'object' then
    perform risk_private.fail('RK400',
      'limits must be a JSON object of two objects: tiers (name to amount) and underlyings (symbol '
      'to tier)', 'argument: limits');
  end if;
  return query
  select e.key, e.value from pg_catalog.jsonb_each_text(coalesce(limits -> part, '{}')) as e;
end
$$;
comment on function risk_private.position_limit_entries(jsonb, text) is
  'The entries of tiers or underlyings in a load of position limits; RK400 where they make no '
  'sense.';

create function risk_private.load_position_limits(limits jsonb) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tier text;
  v_symbol text;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.limits'));
  select e.name into v_tier from risk_private.position_limit_entries(limits, 'tiers') as e
  where (e.value ~ '^[0-9]{1,15}(\.[0-9]{1,8})?$') is not true or not risk_private.is_code(e.name);
  if v_tier is not null then
    perform risk_private.fail('RK400',
      pg_catalog.format('tier %L must have an amount of 0 to 1e15', v_tier), 'argument: limits');
  end if;
  insert into risk_private.position_limit_tiers as t (tier, amount)
  select e.name, e.value::numeric from risk_private.position_limit_entries(limits, 'tiers') as e
  on conflict (tier) do update set
    amount = excluded.amount, loaded_by = excluded.loaded_by, loaded_at = excluded.loaded_at;
  select e.name, e.value into v_symbol, v_tier
  from risk_private.position_limit_entries(limits, 'underlyings') as e
  where not exists (select from risk_private.position_limit_tiers as t where t.tier = e.value);
  if found then
    perform risk_private.fail('RK404',
      pg_catalog.format('unknown tier %L of underlying %L', v_tier, v_symbol), 'argument: limits',
      'Load the tier with it.');
  end if;
  insert into risk_private.underlying_tiers as u (underlying_id, tier)
  select risk_private.instrument_id(e.name), e.value
  from risk_private.position_limit_entries(limits, 'underlyings') as e
  on conflict (underlying_id) do update set tier = excluded.tier;
end
$$;
comment on function risk_private.load_position_limits(jsonb) is
  'What risk.load_position_limits does.';

create procedure risk.load_position_limits(limits jsonb)
language plpgsql
as $$
begin
  perform risk_private.load_position_limits(limits);
  commit;
end
$$;
comment on procedure risk.load_position_limits(jsonb) is
  'Loads position limits as published: {"tiers": {"250k": "250000", "SPY": "3600000"}, '
  '"underlyings": {"AAPL": "250k", "SPY": "SPY"}}, amounts in contracts of 100 shares on one side '
  'of the market. What is not named stays. Loading sets no limit: risk.apply_position_limits does. '
  'Errors: RK400, RK404 unknown underlying or tier.';

create function risk_private.apply_position_limits(scope text, reason text) returns bigint[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_scope_id integer := (risk_private.scope(scope)).scope_id;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('risk_private.limits'));
  return risk_private.set_limits(coalesce((
    select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'scope', apply_position_limits.scope, 'limit_type', 'same_side', 'underlying', i.symbol,
      'amount', t.amount) order by i.symbol)
    from risk_private.underlying_tiers as u
    join risk_private.position_limit_tiers as t on t.tier = u.tier
    join risk_private.instruments as i on i.instrument_id = u.underlying_id
    where not exists (
      select from risk_private.limit_periods as p
      where p.scope_id = v_scope_id and p.dimension = 2 and p.key_id = u.underlying_id
        and p.limit_type = 'same_side' and p.amount = t.amount and p.valid_until = 'infinity'
        and p.valid_from <= risk_private.clock())), '[]'), reason);
end
$$;
comment on function risk_private.apply_position_limits(text, text) is
  'What risk.apply_position_limits does; the versions that it has set.';

create procedure risk.apply_position_limits(
  scope text, reason text default null, inout request_ids bigint[] default null)
language plpgsql
as $$
begin
  request_ids := risk_private.apply_position_limits(scope, reason);
  commit;
end
$$;
comment on procedure risk.apply_position_limits(text, text, bigint[]) is
  'Sets, on a scope, the same_side limit of every underlying that is in a tier to the amount of '
  'that tier, as risk.set_limit would; those that are right already are left alone, so it may be '
  'repeated after every load. An underlying in no tier falls under the scope''s same_side limit '
  'for all, if there is one. Errors: RK400, RK404 unknown scope.';
