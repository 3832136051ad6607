-- The lean path's part for accounts with limits on rates and duplicates.

create function risk_private.number_acceptances(
  rates risk_private.rate_change[], last_number bigint, at timestamptz)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rate risk_private.rate_change;
  v_number bigint := last_number;
begin
  foreach v_rate in array coalesce(rates, '{}') loop
    if last_number is null then
      select c.accepted_orders into v_number
      from risk_private.counters as c where c.counter_id = v_rate.counter_id;
    end if;
    if v_rate.accepted_orders > 1 then
      insert into risk_private.rate_events (counter_id, number, accepted_at)
      select v_rate.counter_id, v_number - n, at
      from generate_series(1, v_rate.accepted_orders - 1) as n;
    end if;
    insert into risk_private.rate_events (counter_id, number, accepted_at)
    select v_rate.counter_id, v_number, at
    where v_number is not null
      and (least(v_rate.order_rate, v_rate.order_rate_minute) <= 1) is not true
      and not exists (
        select from risk_private.rate_events as e
        where e.counter_id = v_rate.counter_id
          and e.number in (
            v_number - v_rate.order_rate + 1, v_number - v_rate.order_rate_minute + 1)
          and e.accepted_at > at - case e.number
            when v_number - v_rate.order_rate_minute + 1 then interval '60 seconds'
            else interval '1 second' end
        offset 0);
    if not found then
      return false;
    end if;
    -- Now and then, so that it costs nothing.
    if random() * 256 < v_rate.accepted_orders then
      perform risk_private.forget_acceptances(v_rate.counter_id, at);
    end if;
  end loop;
  return true;
end
$$;
comment on function risk_private.number_acceptances(
  risk_private.rate_change[], bigint, timestamptz) is
  'Records when orders were accepted, and now and then forgets what no limit looks back on any '
  'more. last_number: how many there are with the last of them, where only one counter''s rates '
  'are limited and the caller knows; else (NULL) the counters hold that. Returns false where a '
  'counter is missing or a rate reaches its warning level.';

create function risk_private.forget_acceptances(counter_id bigint, at timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from risk_private.rate_events as e
  where e.counter_id = forget_acceptances.counter_id
    and e.number <= (
      select c.accepted_orders - risk_private.accepted_since(
        c.counter_id, at - interval '60 seconds')
      from risk_private.counters as c where c.counter_id = forget_acceptances.counter_id);
end
$$;
comment on function risk_private.forget_acceptances(bigint, timestamptz) is
  'Forgets the acceptances of a counter that no limit looks back on any more.';

create function risk_private.remember(
  account_id integer, fingerprint uuid, duplicate_window numeric, at timestamptz)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into risk_private.recent_orders as r (account_id, fingerprint, accepted_at)
  values (remember.account_id, remember.fingerprint, at)
  on conflict on constraint recent_orders_pkey do update set accepted_at = excluded.accepted_at
    where r.accepted_at
      <= excluded.accepted_at - make_interval(secs => duplicate_window::double precision);
  return found;
end
$$;
comment on function risk_private.remember(integer, uuid, numeric, timestamptz) is
  'Records when an order of that content was accepted. Returns false where it repeats one that was '
  'accepted less than duplicate_window seconds ago.';
