-- Returns and correlations. Materialized, because they change once a day; no decision reads them.

create view risk_private.daily_returns as
select
  c.instrument_id, c.day,
  lag(c.day) over w as previous_day, c.close,
  (pg_catalog.ln(c.close) - pg_catalog.ln(lag(c.close) over w))::double precision as log_return,
  c.recorded_at
from risk_private.closes as c
window w as (partition by c.instrument_id order by c.day);
comment on view risk_private.daily_returns is
  'ln(close / previous close) of every stored close; NULL for the first of an instrument.';

-- A return counts for a pair where both span the same days: one that a missing close has made
-- longer is compared with none.
create view risk_private.correlations as
with recent as (
  select d.day
  from (select distinct c.day from risk_private.closes as c) as d
  order by d.day desc limit 61
), returns as (
  select r.instrument_id, r.day, r.previous_day, r.log_return, r.recorded_at
  from risk_private.daily_returns as r
  where r.previous_day >= (select min(t.day) from recent as t)
    and r.instrument_id in (
      select i.underlying_id
      from risk_private.positions as p
      join risk_private.instruments as i on i.instrument_id = p.instrument_id
      where p.quantity <> 0)
), pairs as (
  select
    a.instrument_id as one_id, b.instrument_id as other_id,
    greatest(-1, least(1, pg_catalog.corr(a.log_return, b.log_return))) as correlation,
    count(*)::integer as days, min(a.day) as first_day, max(a.day) as last_day,
    max(greatest(a.recorded_at, b.recorded_at)) as as_of
  from returns as a
  join returns as b
    on b.day = a.day and b.previous_day = a.previous_day and b.instrument_id > a.instrument_id
  group by a.instrument_id, b.instrument_id
  having count(*) >= 20 and pg_catalog.var_pop(a.log_return) > 1e-18
    and pg_catalog.var_pop(b.log_return) > 1e-18
)
select o.underlying_id, o.other_id, p.correlation, p.days, p.first_day, p.last_day, p.as_of
from pairs as p
cross join lateral (
  values (p.one_id, p.other_id), (p.other_id, p.one_id)
) as o (underlying_id, other_id);
comment on view risk_private.correlations is
  'Pearson correlation of the daily log returns of held underlyings over the last 60 trading days '
  '(61 closes), each pair in both orders. A pair needs 20 common days, and variance.';

create materialized view risk.return_history as
select i.symbol as underlying, r.day, r.previous_day, r.close, r.log_return, r.recorded_at as as_of
from risk_private.daily_returns as r
join risk_private.instruments as i on i.instrument_id = r.instrument_id
where r.day > (select max(c.day) - 366 from risk_private.closes as c);
-- squawk-ignore require-concurrent-index-creation
create unique index return_history_key on risk.return_history (underlying, day);
comment on materialized view risk.return_history is
  'Daily closes and log returns of underlyings over the last year, as of the last refresh '
  '(risk.refresh_views; the worker does it).';
comment on column risk.return_history.underlying is 'Symbol of the underlying.';
comment on column risk.return_history.day is 'Trading day of the close.';
comment on column risk.return_history.previous_day is
  'Day of the close before it: longer ago where closes are missing; NULL for the first.';
comment on column risk.return_history.close is
  'Closing price, adjusted for all later splits, in the instrument''s currency.';
comment on column risk.return_history.log_return is
  'ln(close / close of previous_day); NULL for the first.';
comment on column risk.return_history.as_of is 'When the close was recorded or loaded.';

create materialized view risk.correlation_matrix as
select
  i.symbol as underlying, o.symbol as other, c.correlation, c.days, c.first_day, c.last_day,
  c.as_of
from risk_private.correlations as c
join risk_private.instruments as i on i.instrument_id = c.underlying_id
join risk_private.instruments as o on o.instrument_id = c.other_id;
-- squawk-ignore require-concurrent-index-creation
create unique index correlation_matrix_key on risk.correlation_matrix (underlying, other);
comment on materialized view risk.correlation_matrix is
  'Correlations of the daily log returns of underlyings that some account holds (itself, or '
  'through options and futures), over the last 60 trading days, each pair in both orders; as of '
  'the last refresh (risk.refresh_views; the worker does it).';
comment on column risk.correlation_matrix.underlying is 'Symbol of the one underlying.';
comment on column risk.correlation_matrix.other is 'Symbol of the other.';
comment on column risk.correlation_matrix.correlation is
  'Pearson''s coefficient, -1 to 1. Pairs with fewer than 20 common days or without variance are '
  'left out.';
comment on column risk.correlation_matrix.days is 'How many daily returns both have.';
comment on column risk.correlation_matrix.first_day is 'The first of those days.';
comment on column risk.correlation_matrix.last_day is 'The last of them.';
comment on column risk.correlation_matrix.as_of is
  'When the newest of those closes was recorded or loaded.';

create function risk_private.refresh_materialized(view_name text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_is_populated boolean;
begin
  select m.ispopulated into v_is_populated
  from pg_matviews as m
  where m.schemaname = 'risk' and m.matviewname = view_name;
  if not found then
    perform risk_private.fail('RK404', format('no materialized view %L in risk', view_name),
      'argument: view_name');
  end if;
  execute format('refresh materialized view %s risk.%I',
    case when v_is_populated then 'concurrently' else '' end, view_name);
end
$$;
comment on function risk_private.refresh_materialized(text) is
  'Refreshes one materialized view of risk; readers go on meanwhile. Raises RK404 for another '
  'name.';

create procedure risk.refresh_views()
language plpgsql
as $$
declare
  v_name text;
begin
  foreach v_name in array risk_private.views_to_refresh() loop
    perform risk_private.refresh_materialized(v_name);
    commit;
  end loop;
end
$$;
comment on procedure risk.refresh_views() is
  'Refreshes the materialized views, one after the other, blocking neither readers nor decisions. '
  'A worker does the same by itself.';
