-- What orders leave behind: orders, fills, positions and the counters that limits are judged by.

create table risk_private.orders (
  account_id integer not null,
  client_order_id text not null,
  agent text,
  underlying_id integer not null,
  instrument_ids integer[] not null,
  ratios integer[] not null,
  quantity numeric not null,
  price numeric,
  is_combo boolean not null,
  time_in_force text not null,
  unit_prices numeric[] not null,
  costs numeric[],
  filled numeric[] not null,
  decision text not null,
  reason text,
  allowed_quantity numeric not null,
  detail jsonb,
  state text not null,
  decided_at timestamptz not null,
  decided_xid xid8 not null default pg_catalog.pg_current_xact_id(),
  decided_by name not null default session_user,
  closed_at timestamptz,
  replaces text,
  replaced_by text,
  replace_pending boolean not null default false,
  cancel_requested_at timestamptz,
  sent_at timestamptz,
  acknowledged_at timestamptz,
  broker_order_id text,
  close_reason text,
  primary key (account_id, client_order_id)
) with (fillfactor = 85);
create index orders_open_idx on risk_private.orders (account_id, underlying_id)
  where closed_at is null;
create index orders_decided_at_idx on risk_private.orders (decided_at);
comment on table risk_private.orders is 'Every decision, and the life of every accepted order.';
comment on column risk_private.orders.account_id is
  'The leaf scope. No foreign key: scopes are never removed, and every order would lock its row.';
comment on column risk_private.orders.underlying_id is
  'The underlying of every leg; 0 where they have several.';
comment on column risk_private.orders.ratios is
  'Signed quantity of each leg per unit of the order: + buys, - sells.';
comment on column risk_private.orders.unit_prices is
  'Per leg, the money one unit of quantity is reserved at in traded notional: |price| x multiplier '
  'x rate.';
comment on column risk_private.orders.costs is
  'Per leg, the price that counts as paid or received in what the order may lose; NULL: the '
  'order''s own.';
comment on column risk_private.orders.filled is 'Filled quantity per leg, unsigned.';
comment on column risk_private.orders.decided_xid is
  'The deciding transaction: an answer is never given from inside it, so no caller sees an accept '
  'that could roll back.';

create table risk_private.fills (
  account_id integer not null references risk_private.scopes,
  exec_id text not null,
  client_order_id text,
  instrument_id integer not null references risk_private.instruments,
  signed_quantity numeric not null,
  price numeric not null,
  fee numeric not null,
  unit_price numeric not null,
  kind text not null,
  flag text,
  trading_day date,
  executed_at timestamptz not null,
  recorded_at timestamptz not null,
  recorded_xid xid8 not null default pg_catalog.pg_current_xact_id(),
  recorded_by name not null default session_user,
  booking bigint generated always as identity,
  booked_on text,
  status text not null default 'BOOKED' check (status in ('BOOKED', 'BUSTED', 'CORRECTED')),
  multiplier numeric not null default 1,
  unit_amount numeric generated always as (price * multiplier) stored,
  rate numeric not null default 0,
  realized numeric not null default 0,
  closed numeric not null default 0,
  adjustment_id bigint,
  primary key (account_id, exec_id)
);
create index fills_order_idx on risk_private.fills (account_id, client_order_id);
create index fills_instrument_idx on risk_private.fills (account_id, instrument_id, booking);
comment on table risk_private.fills is 'Executions, each once, as the broker reported them.';
comment on column risk_private.fills.unit_price is
  'Money per unit of quantity: |price| x multiplier x rate.';
comment on column risk_private.fills.flag is
  'over_fill, fill_on_closed_order, fill_on_rejected_order, unexplained_trade.';
comment on column risk_private.fills.signed_quantity is
  'As it stands: 0 once busted. What it was before stands in fill_corrections.';
comment on column risk_private.fills.booking is
  'The order in which executions were booked, by which average costs are reckoned.';
comment on column risk_private.fills.booked_on is
  'The order whose filled quantity it counts to: the one named, or what has replaced it.';
comment on column risk_private.fills.multiplier is
  'Multiplier of the instrument when it was booked. unit_amount: money per unit of quantity, in '
  'the currency of the instrument.';
comment on column risk_private.fills.rate is
  'Base currency per unit of that currency when it was booked; 0: unknown.';
comment on column risk_private.fills.closed is
  'How much of a position it closed when it was booked.';
comment on column risk_private.fills.realized is
  'Profit that it realized at average cost, before its fee, in the currency of the instrument.';
comment on column risk_private.fills.adjustment_id is
  'The split that changed the quantity; NULL for executions.';

create table risk_private.positions (
  account_id integer not null,
  instrument_id integer not null,
  underlying_id integer not null,
  quantity numeric not null default 0,
  open_buy numeric not null default 0,
  open_sell numeric not null default 0,
  unit_value numeric not null default 0,
  unit_notional numeric not null default 0,
  unit_delta numeric not null default 0,
  unit_gamma numeric not null default 0,
  unit_dollar_delta numeric not null default 0,
  unit_dollar_gamma numeric not null default 0,
  unit_vega numeric not null default 0,
  unit_theta numeric not null default 0,
  has_greeks boolean not null default false,
  cost numeric not null default 0,
  average_price numeric not null default 0,
  realized_pnl_today numeric not null default 0,
  fees_today numeric not null default 0
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);
create index positions_underlying_idx on risk_private.positions (account_id, underlying_id);
create index positions_instrument_idx on risk_private.positions (instrument_id);
-- Made last: of indexes that cost the same, as all do on an empty table, the youngest is taken.
alter table risk_private.positions add primary key (account_id, instrument_id);
comment on table risk_private.positions is
  'Per account and instrument: position, open orders, and the unit values carried.';
comment on column risk_private.positions.unit_value is
  'mark x multiplier x rate at which this position is carried, as risk_private.unit_values has '
  'it; likewise the next eight. Moved by revaluation; a flat position picks up the present values.';
comment on column risk_private.positions.cost is
  'What was paid for the position (below 0: received) at average cost, in the currency of the '
  'instrument; average_price is made of it.';
comment on column risk_private.positions.realized_pnl_today is
  'Realized since the trading day was opened, less fees_today, in base currency.';

create table risk_private.counters (
  counter_id bigint primary key,
  scope_id integer not null,
  dimension smallint not null,
  key_id integer not null,
  quantity numeric not null default 0,
  open_buy numeric not null default 0,
  open_sell numeric not null default 0,
  gross_position numeric not null default 0,
  gross_notional numeric not null default 0,
  traded_notional numeric not null default 0,
  open_orders integer not null default 0,
  open_positions integer not null default 0,
  accepted_orders bigint not null default 0
) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
comment on table risk_private.counters is
  'What limits are judged by: sums over the accounts below a scope, for all or for one sector, '
  'underlying or instrument. The row (leaf, 0, 0) is the account''s lock. No index on a changing '
  'column, so that updates stay heap-only.';
comment on column risk_private.counters.quantity is
  'Net position; only in instrument rows, like open_buy and open_sell.';
comment on column risk_private.counters.accepted_orders is
  'Running number of accepted orders and replaces: numbers rate_events.';

create table risk_private.rate_events (
  counter_id bigint not null,
  number bigint not null,
  accepted_at timestamptz not null,
  primary key (counter_id, number)
);
comment on table risk_private.rate_events is
  'When the n-th order was accepted, kept where an order_rate limit needs it: the limit is one '
  'probe, however busy the scope.';

create table risk_private.recent_orders (
  account_id integer not null,
  fingerprint bigint not null,
  accepted_at timestamptz not null,
  primary key (account_id, fingerprint)
) with (fillfactor = 70);
comment on table risk_private.recent_orders is
  'When an order of this content was last accepted; kept where duplicate_window is set.';

create table risk_private.start_equities (
  account_id integer not null references risk_private.scopes,
  day date not null,
  equity numeric not null check (risk_private.is_finite(equity)),
  primary key (account_id, day)
);
comment on table risk_private.start_equities is
  'Equity of an account at the start of a trading day, as told to open_day.';
