-- Money: cash per currency, the equity of every scope, and what was done to executions afterwards.

create table risk_private.cash_balances (
  account_id integer not null,
  currency text not null check (currency ~ '^[A-Z]{3}$'),
  amount numeric not null default 0,
  cost numeric not null default 0,
  rate numeric,
  made_known numeric not null default 0,
  made_known_on date,
  primary key (account_id, currency)
) with (fillfactor = 70);
create index cash_balances_currency_idx on risk_private.cash_balances (currency);
comment on table risk_private.cash_balances is
  'Cash of an account in each currency that it has ever traded or been paid in.';
comment on column risk_private.cash_balances.cost is
  'Sum of positions.cost in this currency: cash and cost are what a change of the rate moves.';
comment on column risk_private.cash_balances.rate is
  'Base currency per unit at which this cash stands in equities; NULL: no rate is known yet, and '
  'so the equity is not either.';

comment on column risk_private.cash_balances.made_known is
  'What cash and cost came to when the first rate made them known: a flow of that day.';

create table risk_private.cash_postings (
  posting_id bigint generated always as identity primary key,
  account_id integer not null references risk_private.scopes,
  currency text not null,
  amount numeric not null,
  reason text not null,
  reference text,
  rate numeric not null,
  trading_day date,
  posted_at timestamptz not null,
  posted_by name not null default session_user,
  unique (account_id, reference)
);
comment on table risk_private.cash_postings is
  'Every risk.post_cash. Deposits, withdrawals and transfers are flows; all else is income.';
comment on column risk_private.cash_postings.rate is
  'Base currency per unit at the time.';

create table risk_private.equities (
  scope_id integer primary key,
  known_equity numeric not null default 0,
  unknown integer not null default 0,
  equity numeric generated always as (case when unknown = 0 then known_equity end) stored,
  known_start numeric not null default 0,
  unstarted integer not null default 0,
  start_equity numeric generated always as (case when unstarted = 0 then known_start end) stored,
  cash numeric not null default 0,
  book numeric not null default 0,
  start_unrealized numeric not null default 0,
  flows numeric not null default 0,
  realized numeric not null default 0,
  fees numeric not null default 0,
  income numeric not null default 0,
  currency_pnl numeric not null default 0,
  peak numeric not null default 0,
  as_of timestamptz not null
) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
comment on table risk_private.equities is
  'Equity of every scope and what moved it since the trading day was opened, in base currency. '
  'Parents are the sums of the accounts below, but for the peak, which is their own. Touched only '
  'while the counters of the chain are locked.';
comment on column risk_private.equities.equity is
  'Cash + quantity x mark x multiplier x rate as carried; NULL while a currency below has no rate.';
comment on column risk_private.equities.known_equity is
  'The part of the equity that is known; unknown counts the (account, currency) pairs without '
  'rate.';
comment on column risk_private.equities.start_equity is
  'Equity at the start of the trading day; NULL while an account below has never been in a day.';
comment on column risk_private.equities.known_start is
  'The part of it that is known; unstarted counts the accounts without.';
comment on column risk_private.equities.book is
  'Cash and positions at cost: what the equity exceeds it by is unrealized.';
comment on column risk_private.equities.start_unrealized is
  'Unrealized profit when the day was opened.';
comment on column risk_private.equities.flows is
  'Since the day was opened: money and positions brought in less those taken out. Likewise the '
  'next four.';
comment on column risk_private.equities.realized is 'Profit of closing trades, before fees.';
comment on column risk_private.equities.income is
  'Cash posted that is no flow: dividends, interest, charges.';
comment on column risk_private.equities.currency_pnl is
  'What changes of rates made of cash and cost.';
comment on column risk_private.equities.peak is
  'Highest equity, sampled at each revaluation and fill, ever since; scaled by flows, so that they '
  'leave the drawdown in percent as it is.';

create table risk_private.moving_rates (
  number bigint generated always as identity primary key,
  currency text not null,
  since timestamptz not null default risk_private.clock()
);
comment on table risk_private.moving_rates is
  'Rates that accounts are being carried to, one after the other: a row per risk.set_fx under way. '
  'One that was interrupted counts for a minute.';

create table risk_private.fill_corrections (
  correction_id bigint generated always as identity primary key,
  account_id integer not null,
  exec_id text not null,
  kind text not null check (kind in ('bust', 'correction')),
  old_quantity numeric not null,
  old_price numeric not null,
  old_fee numeric not null,
  new_quantity numeric not null,
  new_price numeric not null,
  late_realized numeric not null,
  late_fees numeric not null,
  late_flows numeric not null,
  reason text not null,
  trading_day date,
  corrected_at timestamptz not null,
  corrected_xid xid8 not null default pg_catalog.pg_current_xact_id(),
  corrected_by name not null default session_user
);
create index fill_corrections_fill_idx on risk_private.fill_corrections (account_id, exec_id);
comment on table risk_private.fill_corrections is
  'What became of executions after they were booked. Quantities are signed.';
comment on column risk_private.fill_corrections.late_realized is
  'Change of the realized profit, (late_fees) fees and (late_flows) flows of earlier days, in base '
  'currency: it counts to the day of the correction.';

create table risk_private.adjustments (
  adjustment_id bigint generated always as identity primary key,
  reference text not null unique check (risk_private.is_code(reference)),
  instrument_id integer not null references risk_private.instruments,
  symbol text not null,
  new_shares numeric not null,
  old_shares numeric not null,
  strike_change numeric not null,
  new_symbols jsonb not null,
  reason text not null,
  trading_day date,
  adjusted_at timestamptz not null,
  adjusted_by name not null default session_user
);
comment on table risk_private.adjustments is
  'Splits, and other changes of the terms of what is held: see risk.adjust_instrument.';
comment on column risk_private.adjustments.symbol is
  'As it was called then; new_symbols: as it was given.';

create table risk_private.adjusted_instruments (
  adjustment_id bigint not null references risk_private.adjustments,
  instrument_id integer not null references risk_private.instruments,
  old_symbol text not null,
  new_symbol text not null,
  old_strike numeric,
  new_strike numeric,
  old_multiplier numeric not null,
  new_multiplier numeric not null,
  new_units numeric not null,
  old_units numeric not null,
  primary key (adjustment_id, instrument_id)
);
comment on table risk_private.adjusted_instruments is
  'What an adjustment made of the underlying and of everything on it.';
comment on column risk_private.adjusted_instruments.new_units is
  'Positions were multiplied by new_units / old_units: 4 / 1 for the stock of a 4-for-1 split.';

create table risk_private.closed_days (
  scope_id integer not null,
  day date not null,
  start_equity numeric,
  equity numeric,
  flows numeric not null,
  realized numeric not null,
  fees numeric not null,
  income numeric not null,
  currency_pnl numeric not null,
  unrealized numeric not null,
  start_unrealized numeric not null,
  peak numeric not null,
  decisions bigint not null,
  accepted bigint not null,
  executions bigint not null,
  traded_notional numeric not null,
  closed_at timestamptz not null,
  primary key (scope_id, day)
);
comment on table risk_private.closed_days is
  'What each trading day made of every scope, kept when the next one was opened.';

create type risk_private.money as (
  equity numeric,
  cash numeric,
  book numeric,
  realized numeric,
  fees numeric,
  income numeric,
  flows numeric,
  unknown integer
);
comment on type risk_private.money is
  'What something adds to the equities of a chain, in base currency. What book moves by beyond '
  'realized - fees + income + flows is the doing of exchange rates.';
