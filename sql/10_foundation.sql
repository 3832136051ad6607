-- Function bodies written as expressions are bound when they are created: no caller's search_path
-- can redirect them. What everything else stands on: the clock, errors, who is calling, and how
-- counters are numbered.

create function risk_private.clock() returns timestamptz
language sql volatile
return pg_catalog.clock_timestamp();
comment on function risk_private.clock() is
  'The engine''s only clock. Unlike now() it moves inside a transaction, so an old transaction '
  'cannot pass for a fresh one.';

create function risk_private.fail(code text, message text, detail text default null,
  hint text default null)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Arguments are echoed, and may be of any length.
  if hint is null then
    raise exception using errcode = code, message = pg_catalog."left"(message, 1000),
      detail = pg_catalog."left"(coalesce(detail, ''), 1000);
  end if;
  raise exception using errcode = code, message = pg_catalog."left"(message, 1000),
    detail = pg_catalog."left"(coalesce(detail, ''), 1000), hint = hint;
end
$$;
comment on function risk_private.fail(text, text, text, text) is
  'Raises an error of class RK: RK400 malformed, RK403 not allowed, RK404 unknown, RK409 conflict, '
  'RK500 broken invariant. Never returns; typed boolean so that it can stand in an expression.';

-- A SECURITY DEFINER function runs as the owner, so current_user says nothing about the caller; the
-- role setting does.
create function risk_private.caller() returns name
language sql stable
return coalesce(nullif(pg_catalog.current_setting('role'), 'none')::name, session_user);
comment on function risk_private.caller() is
  'The role on whose behalf a definer function runs: SET ROLE''s, else the login.';

create function risk_private.is_owner() returns boolean
language sql stable
return pg_catalog.pg_has_role(risk_private.caller(), 'risk_owner', 'member');
comment on function risk_private.is_owner() is
  'Whether the caller is a superuser or a member of risk_owner.';

-- Scopes are numbered downwards as they are created, so a child's number is always below its
-- parent's, and ascending counter numbers run from the accounts up to the firm. That order is the
-- lock order of the whole engine.
create sequence risk_private.scope_ids as integer
  increment by -1 minvalue 1 maxvalue 536870911 start with 536870911;

create function risk_private.counter_id(scope_id integer, dimension integer default 0,
  key_id integer default 0)
returns bigint
language sql immutable
return (scope_id::bigint << 34) | (dimension::bigint << 32) | key_id::bigint;
comment on function risk_private.counter_id(integer, integer, integer) is
  'The number of a counter row: scope, then dimension (0 all, 1 sector, 2 underlying, 3 '
  'instrument), then its key.';

create function risk_private.order_id(account text, client_order_id text) returns uuid
language sql immutable
return pg_catalog.md5(account || pg_catalog.chr(31) || client_order_id)::uuid;
comment on function risk_private.order_id(text, text) is
  'The name-based id of an order, so that a retry gets the same one. The unit separator keeps (a, '
  'bc) and (ab, c) apart.';

create function risk_private.is_finite(value numeric) returns boolean
language sql immutable
return coalesce(value > '-Infinity' and value < 'Infinity', false);
comment on function risk_private.is_finite(numeric) is
  'True for an ordinary number; false for NULL, NaN and infinities.';

create function risk_private.is_code(value text) returns boolean
language sql immutable
return coalesce(
  pg_catalog.length(value) between 1 and 64 and value !~ '[[:cntrl:]]|^\s|\s$', false);
comment on function risk_private.is_code(text) is
  'True for 1 to 64 printable characters without surrounding blanks: what codes, symbols and order '
  'ids must be.';

create function risk_private.is_amount(value numeric) returns boolean
language sql immutable
return coalesce(value >= 0 and value <= 1e15 and pg_catalog.min_scale(value) <= 12, false);
comment on function risk_private.is_amount(numeric) is
  'True for a finite amount of 0 to 1e15 with at most 12 decimals: what limits, multipliers and '
  'rates must be.';

create function risk_private.base_currency() returns text
language sql immutable
return 'USD';
comment on function risk_private.base_currency() is
  'The currency of every sum over instruments; its rate is 1.';
