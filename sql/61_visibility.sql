-- Who may look into which accounts, and when.

create function risk_private.visible_accounts() returns integer[]
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if exists (
    select
    from pg_catalog.unnest(array['risk_owner', 'risk_execution', 'risk_admin', 'risk_worker',
                                 'risk_analyst', 'risk_auditor']) as r (role)
    where pg_catalog.pg_has_role(risk_private.caller(), r.role, 'member')) then
    return array(select s.scope_id from risk_private.scopes as s where s.is_leaf);
  end if;
  return array(
    select s.scope_id from risk_private.scopes as s
    where s.is_leaf and risk_private.may_trade(s.chain));
end
$$;
comment on function risk_private.visible_accounts() is
  'The accounts that the caller may look into.';

-- Counters and positions do not tell who moved them last. So whoever could have made this
-- transaction accept an order is shown none of them in a transaction that has written anything,
-- whatever role he has set since.
create function risk_private.is_settled() returns boolean
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_catalog.pg_current_xact_id_if_assigned() is not null
    and (pg_catalog.pg_has_role(session_user, 'risk_trader', 'member')
      or pg_catalog.pg_has_role(risk_private.caller(), 'risk_trader', 'member'))
    and not pg_catalog.pg_has_role(session_user, 'risk_owner', 'member') then
    perform risk_private.fail('25001',
      'a trader cannot read this in a transaction that has written',
      'It would show what may still be rolled back.', 'Commit first.');
  end if;
  return true;
end
$$;
comment on function risk_private.is_settled() is
  'True; or error 25001 for a trader in a transaction that has written, and so may have accepted '
  'an order itself.';

create function risk_private.present_trading_date() returns date
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return risk_private.trading_date();
end
$$;
comment on function risk_private.present_trading_date() is
  'risk_private.trading_date() for readers of views.';
