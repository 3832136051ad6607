-- Roles and schemas. `risk` is the public interface: procedures, functions and views.
-- `risk_private` holds tables and internals. Only the NOLOGIN owner reaches a table; everybody else
-- goes through what 90_grants.sql allows.

do $$
declare
  v_role text;
begin
  foreach v_role in array array['risk_owner', 'risk_trader', 'risk_execution', 'risk_feed',
    'risk_admin',
                                'risk_worker', 'risk_analyst', 'risk_auditor'] loop
    begin
      execute pg_catalog.format('create role %I nologin', v_role);
    exception when duplicate_object or unique_violation then
      null;  -- roles belong to the cluster: another database may have made them
    end;
  end loop;
end
$$;

create schema risk authorization risk_owner;
comment on schema risk is
  'The public interface of the pre-trade risk engine: procedures that change, views that show.';
create schema risk_private authorization risk_owner;
comment on schema risk_private is
  'Tables and internals of the risk engine. Only risk_owner has rights here.';

select pgmq.create(queue_name)
from (values ('risk_events'), ('risk_alerts'), ('risk_dead')) as queues (queue_name);

do $$
declare
  v_table regclass;
begin
  grant usage on schema pgmq to risk_owner;
  grant select on all tables in schema pgmq to risk_owner;
  grant execute on all functions in schema pgmq to risk_owner;
  for v_table in
    select c.oid from pg_catalog.pg_class as c
    where c.relnamespace = 'pgmq'::regnamespace and c.relname ~ '^[aq]_risk_' and c.relkind = 'r'
  loop
    execute pg_catalog.format('grant all on table %s to risk_owner', v_table);
  end loop;
  grant all on all sequences in schema pgmq to risk_owner;
end
$$;

grant risk_owner to current_user;
set role risk_owner;

alter default privileges for role risk_owner revoke execute on functions from public;
alter default privileges for role risk_owner revoke usage on types from public;
