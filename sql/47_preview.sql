-- What if: every check of an order, without locks or writes.

create function risk_private.preview(
  account text, symbols text[], sides text[], ratios numeric[], quantity numeric, price numeric,
  agent text,
  is_combo boolean)
returns setof risk_private.risk_check
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
declare
  v_checks risk_private.risk_check[];
begin
  perform risk_private.is_settled();
  v_checks := risk_private.checks(
    risk_private.propose(
      risk_private.account_of(account, true), 'preview', symbols, sides, ratios, quantity, price,
      agent, 'DAY', is_combo),
    risk_private.clock());
  return query
  select c.*
  from pg_catalog.unnest(v_checks) as c
  order by case c.status when 'FAIL' then 0 when 'WARN' then 1 else 2 end,
    risk_private.gravity(c.reason), c.check_name, c.scope, c.dimension;
end
$$;
comment on function risk_private.preview(text, text[], text[], numeric[], numeric, numeric, text,
  boolean) is
  'What the previews show.';

create function risk.preview_order(
  account text, symbol text, side text, quantity numeric, price numeric default null,
  agent text default null)
returns table (check_name text, scope text, dimension text, limit_type text, limit_value numeric,
  current_value numeric,
               projected_value numeric, headroom numeric, allowed_quantity numeric, status text,
               reason text)
language sql stable
begin atomic
  select p.check_name, p.scope, p.dimension, p.limit_type, p.limit_value, p.current_value,
    p.projected_value, p.headroom,
    p.allowed_quantity, p.status, p.reason
  from risk_private.preview(account, array[symbol], array[side], array[1::numeric], quantity, price,
    agent, false) as p;
end;
comment on function risk.preview_order(text, text, text, numeric, numeric, text) is
  'What risk.check_order would say now: one row per check, failures first (PASS, WARN, FAIL). '
  'Takes no locks, writes nothing, reserves nothing. The order would be accepted if no row says '
  'FAIL; of what is allowed, the smallest binds. Errors: RK400, RK403, RK404.';

create function risk.preview_combo(
  account text, legs jsonb, quantity numeric, price numeric default null, agent text default null)
returns table (check_name text, scope text, dimension text, limit_type text, limit_value numeric,
  current_value numeric,
               projected_value numeric, headroom numeric, allowed_quantity numeric, status text,
               reason text)
language sql stable
begin atomic
  select p.check_name, p.scope, p.dimension, p.limit_type, p.limit_value, p.current_value,
    p.projected_value, p.headroom,
    p.allowed_quantity, p.status, p.reason
  from (select (risk_private.combo_legs(preview_combo.legs)).*) as l
  cross join lateral risk_private.preview(account, l.symbols, l.sides, l.ratios, quantity, price,
    agent, true) as p;
end;
comment on function risk.preview_combo(text, jsonb, numeric, numeric, text) is
  'What risk.check_combo would say now; see risk.preview_order.';
