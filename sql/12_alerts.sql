-- Alerts: what the orchestrator, the execution gateway and the dashboard must hear of, on the queue
-- risk_alerts. A message is sent in the transaction that causes it, so it is seen exactly when the
-- cause is.

create function risk_private.alert(kind text, payload jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pgmq.send('risk_alerts', pg_catalog.jsonb_build_object('kind', kind) || payload);
end
$$;
comment on function risk_private.alert(text, jsonb) is
  'Sends one message on risk_alerts: the kind and the keys of the payload.';

create function risk_private.alerts(kind text, payloads jsonb[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_catalog.cardinality(payloads) > 0 then
    perform pgmq.send_batch('risk_alerts', array(
      select pg_catalog.jsonb_build_object('kind', kind) || p.payload
      from pg_catalog.unnest(payloads) with ordinality as p (payload, number)
      order by p.number));
  end if;
end
$$;
comment on function risk_private.alerts(text, jsonb[]) is
  'Sends a message of one kind on risk_alerts for each payload, in their order.';
