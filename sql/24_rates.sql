-- What rate limits look back on.

create function risk_private.accepted_since(counter_id bigint, since timestamptz) returns bigint
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_last bigint;
  v_low bigint;
  v_high bigint;
  v_middle bigint;
begin
  select min(e.number) - 1, max(e.number) into v_low, v_last
  from risk_private.rate_events as e where e.counter_id = accepted_since.counter_id;
  v_high := v_last;
  while v_low < v_high loop
    v_middle := (v_low + v_high + 1) / 2;
    if (select e.accepted_at from risk_private.rate_events as e
        where e.counter_id = accepted_since.counter_id and e.number = v_middle) > since then
      v_high := v_middle - 1;
    else
      v_low := v_middle;
    end if;
  end loop;
  return coalesce(v_last - v_low, 0);
end
$$;
comment on function risk_private.accepted_since(bigint, timestamptz) is
  'How many orders a counter has accepted after that moment: bisection, as the numbers are in '
  'order of time.';
