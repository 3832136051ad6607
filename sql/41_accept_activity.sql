-- The lean path's part for accounts with limits on rates and duplicates.

create function risk_private.number_acceptance(
  rate risk_private.rate_change, number bigint, at timestamptz)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_second bigint := number - rate.order_rate + 1;
  v_minute bigint := number - rate.order_rate_minute + 1;
begin
  insert into risk_private.rate_events (counter_id, number, accepted_at)
  select rate.counter_id, number_acceptance.number, at
  where number_acceptance.number is not null
    and (least(rate.order_rate, rate.order_rate_minute) <= 1) is not true
    and not exists (
      select from risk_private.rate_events as e
      where e.counter_id = rate.counter_id and e.number in (v_second, v_minute)
        and e.accepted_at > at
          - case e.number when v_minute then interval '60 seconds' else interval '1 second' end);
  if not found then
    return false;
  end if;
  -- Now and then, so that it costs nothing.
  if number % 256 < rate.accepted_orders then
    perform risk_private.forget_acceptances(rate.counter_id, at);
  end if;
  return true;
end
$$;
comment on function risk_private.number_acceptance(
  risk_private.rate_change, bigint, timestamptz) is
  'Records when a counter''s order of that number was accepted, the last of those in rate, and now '
  'and then forgets what no limit looks back on any more. Returns false where the number is '
  'unknown or a rate reaches its warning level.';

create function risk_private.number_acceptances(
  rates risk_private.rate_change[], at timestamptz)
returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rate risk_private.rate_change;
  v_number bigint;
begin
  foreach v_rate in array coalesce(rates, '{}') loop
    select c.accepted_orders into v_number
    from risk_private.counters as c where c.counter_id = v_rate.counter_id;
    if v_rate.accepted_orders > 1 then
      insert into risk_private.rate_events (counter_id, number, accepted_at)
      select v_rate.counter_id, v_number - n, at
      from generate_series(1, v_rate.accepted_orders - 1) as n;
    end if;
    if risk_private.number_acceptance(v_rate, v_number, at) is not true then
      return false;
    end if;
  end loop;
  return true;
end
$$;
comment on function risk_private.number_acceptances(
  risk_private.rate_change[], timestamptz) is
  'Records when orders were accepted that the counters count already. Returns false where a '
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
  account_id integer, fingerprint bigint, duplicate_window numeric, at timestamptz)
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
comment on function risk_private.remember(integer, bigint, numeric, timestamptz) is
  'Records when an order of that content was accepted. Returns false where it repeats one that was '
  'accepted less than duplicate_window seconds ago.';
