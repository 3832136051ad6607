-- What each trading day made of every scope: kept when the day ended, or as it stands today.

create view risk_private.today as
select
  k.scope_id, s.trading_day as day, sum(a.decisions)::bigint as decisions,
  sum(a.accepted)::bigint as accepted, sum(a.executions)::bigint as executions,
  sum(a.traded_notional) as traded_notional
from risk_private.scopes as s
cross join unnest(s.chain) as k (scope_id)
cross join lateral risk_private.activity(s.scope_id) as a
where s.is_leaf and s.trading_day = (select c.trading_date from risk_private.trading_calendar as c)
group by k.scope_id, s.trading_day;
comment on view risk_private.today is
  'What the accounts below each scope have decided and executed in the trading day that is open.';

create materialized view risk.daily_summary as
select
  s.code as scope, d.day, d.is_closed, d.start_equity, d.equity as end_equity,
  d.equity - d.start_equity - d.flows as daily_pnl, d.realized,
  case when d.equity is not null then d.unrealized end as unrealized, d.start_unrealized, d.fees,
  d.income, d.currency_pnl, d.flows, d.peak as peak_equity,
  risk_private.drawdown_pct(d.peak, d.equity) as drawdown_pct, d.decisions, d.accepted,
  d.decisions - d.accepted as rejected, d.executions as fills, d.traded_notional, d.as_of
from (
  select c.scope_id, c.day, true as is_closed, c.start_equity, c.equity, c.realized, c.unrealized,
    c.start_unrealized, c.fees, c.income, c.currency_pnl, c.flows, c.peak, c.decisions, c.accepted,
    c.executions, c.traded_notional, c.closed_at as as_of
  from risk_private.closed_days as c
  union all
  select t.scope_id, t.day, false, e.start_equity, e.equity, e.realized, e.known_equity - e.book,
    e.start_unrealized, e.fees, e.income, e.currency_pnl, e.flows, e.peak, t.decisions, t.accepted,
    t.executions, t.traded_notional, e.as_of
  from risk_private.today as t
  join risk_private.equities as e on e.scope_id = t.scope_id
) as d
join risk_private.scopes as s on s.scope_id = d.scope_id;
-- squawk-ignore require-concurrent-index-creation
create unique index daily_summary_key on risk.daily_summary (scope, day);
comment on materialized view risk.daily_summary is
  'Every scope and trading day, in base currency, with everything below it: a day that has ended '
  'as it was when the next one was opened, and the open day as of the last refresh '
  '(risk.refresh_views, risk.open_day; the worker does both). What is busted or corrected later '
  'counts to the day in which it was. end_equity - start_equity = flows + realized - fees + income '
  '+ currency_pnl + unrealized - start_unrealized, plus what the start that risk.open_day was told '
  'differed from the engine''s.';
comment on column risk.daily_summary.scope is 'The scope, with all accounts below it.';
comment on column risk.daily_summary.day is 'The trading day.';
comment on column risk.daily_summary.is_closed is 'Whether the day has ended.';
comment on column risk.daily_summary.start_equity is
  'Equity at its start: what risk.open_day was told, else the engine''s own at the roll. NULL '
  'where an account below had none.';
comment on column risk.daily_summary.end_equity is
  'Equity when it ended, or now. NULL where a currency held had no rate.';
comment on column risk.daily_summary.daily_pnl is
  'end_equity - start_equity - flows; NULL where either is.';
comment on column risk.daily_summary.realized is
  'Realized in the day at average cost, before fees; busts and corrections of earlier days too.';
comment on column risk.daily_summary.unrealized is
  'At its end: value of the positions held less their average cost, since they were opened.';
comment on column risk.daily_summary.start_unrealized is 'The same at its start.';
comment on column risk.daily_summary.fees is 'Fees of executions of the day.';
comment on column risk.daily_summary.income is
  'Cash posted that is no flow: dividends, interest, charges.';
comment on column risk.daily_summary.currency_pnl is
  'What changes of exchange rates in the day made of cash and cost.';
comment on column risk.daily_summary.flows is
  'Deposits, withdrawals, transfers, and positions brought in or taken out.';
comment on column risk.daily_summary.peak_equity is
  'Highest equity of this very scope up to the end of the day, across days, as risk.pnl has it.';
comment on column risk.daily_summary.drawdown_pct is
  '(peak_equity - end_equity) / peak_equity, %; 100 where either is 0 or less.';
comment on column risk.daily_summary.decisions is
  'Orders and replaces decided in the day; one asked again counts once.';
comment on column risk.daily_summary.accepted is 'How many of them were accepted.';
comment on column risk.daily_summary.rejected is 'How many were rejected.';
comment on column risk.daily_summary.fills is
  'Executions booked in the day, trades that no order explains too; busted ones not.';
comment on column risk.daily_summary.traded_notional is
  'Sum of quantity x |price| x multiplier x rate of those executions.';
comment on column risk.daily_summary.as_of is
  'When the day ended for the scope, or its equity last moved.';
