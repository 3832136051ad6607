-- Busts and corrections: an execution that was wrong is taken back or put right, and what it led to
-- is reckoned anew from the executions that remain, in the order in which they were booked.

create type risk_private.replayed as (
  exec_id text,
  signed_quantity numeric,
  realized numeric,
  quantity numeric,
  cost numeric
);
comment on type risk_private.replayed is
  'An execution as it should stand, and the position after it.';

create function risk_private.split_quantity(quantity numeric, split_to numeric, split_from numeric,
  lot numeric)
returns numeric
language sql immutable
return pg_catalog.trunc(quantity * split_to / (split_from * lot)) * lot;
comment on function risk_private.split_quantity(numeric, numeric, numeric, numeric) is
  'A position after a split; what is less than a lot is paid in cash by the broker.';

create function risk_private.replay(account_id integer, instrument_id integer)
returns setof risk_private.replayed
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fill record;
  v_row risk_private.replayed;
begin
  v_row.quantity := 0;
  v_row.cost := 0;
  for v_fill in
    select f.exec_id, f.signed_quantity, f.unit_amount, a.adjustment_id, a.split_to, a.split_from,
      i.lot
    from risk_private.fills as f
    join risk_private.instruments as i on i.instrument_id = f.instrument_id
    left join risk_private.adjustments as a on a.adjustment_id = f.adjustment_id
    where f.account_id = replay.account_id and f.instrument_id = replay.instrument_id
    order by f.booking
  loop
    v_row.exec_id := v_fill.exec_id;
    if v_fill.adjustment_id is null then
      v_row.signed_quantity := v_fill.signed_quantity;
      select c.new_cost, c.realized into v_row.cost, v_row.realized
      from risk_private.average_cost(v_row.quantity, v_row.cost, v_fill.signed_quantity,
        v_fill.unit_amount) as c;
    else
      v_row.signed_quantity := risk_private.split_quantity(v_row.quantity, v_fill.split_to,
        v_fill.split_from, v_fill.lot) - v_row.quantity;
      v_row.realized := case
        when v_row.quantity + v_row.signed_quantity = 0 then -v_row.cost else 0 end;
      v_row.cost := v_row.cost + v_row.realized;
    end if;
    v_row.quantity := v_row.quantity + v_row.signed_quantity;
    return next v_row;
  end loop;
end
$$;
comment on function risk_private.replay(integer, integer) is
  'The executions of an account in an instrument, with the cost and profit at average cost that '
  'follow from them. After a split the cost stays, and the quantity is what the split makes of it.';
