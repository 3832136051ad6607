-- Views of money.

create view risk.pnl as
select
  s.code as scope,
  case when s.is_leaf and s.trading_day is not null then s.trading_day
    else risk_private.present_trading_date() end as day,
  e.start_equity, e.equity, e.realized,
  e.equity - e.book as unrealized, e.fees, e.equity - e.start_equity - e.flows as daily_pnl,
  e.peak as peak_equity, risk_private.drawdown_pct(e.peak, e.equity) as drawdown_pct, e.as_of,
  case when e.unknown = 0 then e.cash end as cash, e.flows, e.income, e.currency_pnl,
  e.start_unrealized
from risk_private.scopes as s
join risk_private.equities as e on e.scope_id = s.scope_id
where (select risk_private.is_settled());
comment on view risk.pnl is
  'Profit and loss of every scope in the trading day, in base currency, with everything below it. '
  'equity - start_equity = flows + realized - fees + income + currency_pnl + unrealized - '
  'start_unrealized, plus what the start that risk.open_day was told differed from the engine''s.';
comment on column risk.pnl.scope is 'The scope, with all accounts below it.';
comment on column risk.pnl.day is 'The trading day.';
comment on column risk.pnl.start_equity is
  'Equity at its start: what risk.open_day was told, else the engine''s own at the roll. NULL '
  'before the first open_day.';
comment on column risk.pnl.equity is
  'Cash and positions at their carried marks. NULL while a currency held has no rate.';
comment on column risk.pnl.realized is
  'Realized in the day at average cost, before fees; busts and corrections of earlier days too.';
comment on column risk.pnl.unrealized is
  'Value of the positions held now less their average cost, since they were opened.';
comment on column risk.pnl.fees is 'Fees of executions of the day.';
comment on column risk.pnl.daily_pnl is
  'equity - start_equity - flows. NULL where the equity or the start is unknown.';
comment on column risk.pnl.peak_equity is
  'Highest equity of this very scope, sampled at each revaluation and fill, across days. A flow '
  'scales it so that the drawdown stays what it is.';
comment on column risk.pnl.drawdown_pct is
  '(peak - equity) / peak, %; 100 where either is 0 or less.';
comment on column risk.pnl.as_of is 'When the equity last moved.';
comment on column risk.pnl.cash is 'Cash in all currencies, at their rates.';
comment on column risk.pnl.flows is
  'Deposits, withdrawals and transfers of the day, and positions brought in or taken out (trades '
  'of kind opening and transfer) at their price.';
comment on column risk.pnl.income is 'Other cash posted in the day: dividends, interest, charges.';
comment on column risk.pnl.currency_pnl is
  'What changes of exchange rates in the day made of cash and cost.';
comment on column risk.pnl.start_unrealized is 'Unrealized profit when the day was opened.';

create view risk.cash with (security_barrier) as
select a.code as account, b.currency, b.amount, b.rate, b.amount * b.rate as base_amount,
  nullif(f.as_of, '-infinity') as as_of
from risk_private.scopes as a
join risk_private.cash_balances as b on b.account_id = a.scope_id
left join risk_private.fx_rates as f on f.currency = b.currency
where a.scope_id = any ((select risk_private.visible_accounts())::integer[])
  and (select risk_private.is_settled());
comment on view risk.cash is 'Cash of every account, per currency.';
comment on column risk.cash.account is 'The account.';
comment on column risk.cash.currency is 'The currency.';
comment on column risk.cash.amount is
  'Cash: postings less what trades cost and their fees; below 0 it is owed.';
comment on column risk.cash.rate is 'Base currency per unit at which it is carried; NULL: unknown.';
comment on column risk.cash.base_amount is 'The amount in base currency.';
comment on column risk.cash.as_of is
  'Data time of the latest rate; NULL for the base currency, whose rate is always 1.';
