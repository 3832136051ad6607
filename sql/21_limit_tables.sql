-- Limits: every version ever set, and the compiled levels that the accepting path compares with.

create table risk_private.limit_types (
  limit_type text primary key,
  bit smallint not null unique check (bit between 0 and 31),
  judged text not null check (judged in ('order', 'instrument', 'underlying', 'sum', 'exposure',
    'obligation', 'window', 'switch', 'loss', 'concentration')),
  reason text not null,
  warns boolean not null,
  description text not null
);
comment on table risk_private.limit_types is
  'The kinds of limit. sql/README.md tells what else a new kind needs.';
comment on column risk_private.limit_types.judged is
  'order, instrument and underlying: a wider limit is the default for each instrument or '
  'underlying, and within a scope the most specific one wins; concentration likewise, but for '
  'sectors; else every matching limit applies to its own dimension.';
comment on column risk_private.limit_types.warns is
  'Whether reaching warn_pct of the limit is reported as a warning.';

insert into risk_private.limit_types (limit_type, bit, judged, reason, warns, description) values
('order_quantity', 0, 'order', 'RISK_LIMIT_EXCEEDED', true,
  'Quantity of one order; each leg of a combo by itself.'),
('order_notional', 1, 'order', 'RISK_LIMIT_EXCEEDED', true,
  'Notional of one order: quantity x multiplier x price x rate.'),
('price_collar_pct', 2, 'order', 'PRICE_OUT_OF_BAND', false,
  'How far beyond the reference price an order may bid or offer, %.'),
('net_position', 3, 'instrument', 'RISK_LIMIT_EXCEEDED', true,
  'Larger of the long and the short side of an instrument.'),
('long_position', 4, 'instrument', 'RISK_LIMIT_EXCEEDED', true,
  'Position plus open buys of an instrument.'),
('short_position', 5, 'instrument', 'RISK_LIMIT_EXCEEDED', true,
  'Open sells less position of an instrument.'),
('gross_position', 6, 'sum', 'RISK_LIMIT_EXCEEDED', true, 'Sum of worst-case quantities.'),
('gross_notional', 7, 'sum', 'RISK_LIMIT_EXCEEDED', true,
  'Sum of worst-case quantities at their marks, in base currency.'),
('traded_notional', 8, 'sum', 'RISK_LIMIT_EXCEEDED', true,
  'Notional filled since the day opened plus what is open.'),
('open_orders', 9, 'sum', 'RISK_LIMIT_EXCEEDED', true, 'Number of live orders; a combo is one.'),
('open_positions', 10, 'sum', 'RISK_LIMIT_EXCEEDED', true,
  'Number of (account, instrument) pairs held or in open orders.'),
('order_rate', 11, 'window', 'RATE_LIMIT_EXCEEDED', true,
  'Accepted orders and replaces in any one second.'),
('order_rate_minute', 12, 'window', 'RATE_LIMIT_EXCEEDED', true,
  'Accepted orders and replaces in any 60 seconds.'),
('duplicate_window', 13, 'switch', 'DUPLICATE_ORDER', false,
  'Seconds in which the same order may not be repeated.'),
('self_cross', 14, 'switch', 'SELF_CROSS', false,
  '1: an order may not trade against another agent below the scope.'),
('delta', 15, 'underlying', 'RISK_LIMIT_EXCEEDED', true,
  'Delta of an underlying, up or down, in share equivalents.'),
('gamma', 16, 'underlying', 'RISK_LIMIT_EXCEEDED', true,
  'Gamma of an underlying, up or down, in share equivalents per 1.00 of it.'),
('dollar_gamma', 17, 'exposure', 'RISK_LIMIT_EXCEEDED', true,
  'Change of net exposure per 1 % of the underlyings, up or down, in base currency.'),
('vega', 18, 'exposure', 'RISK_LIMIT_EXCEEDED', true,
  'Vega, up or down, in base currency per volatility point.'),
('theta', 19, 'exposure', 'RISK_LIMIT_EXCEEDED', true,
  'Theta, up or down, in base currency per day.'),
('gross_exposure', 20, 'exposure', 'RISK_LIMIT_EXCEEDED', true,
  'Sum of worst-case quantities at their absolute dollar delta, in base currency.'),
('net_exposure', 21, 'exposure', 'RISK_LIMIT_EXCEEDED', true,
  'Net dollar delta, up or down, in base currency.'),
('daily_loss', 22, 'loss', 'RISK_LIMIT_EXCEEDED', true,
  'Start equity and flows since less equity: beyond it only reducing orders pass.'),
('drawdown_pct', 23, 'loss', 'RISK_LIMIT_EXCEEDED', true,
  'Equity below its peak, %: beyond it only reducing orders pass.'),
('concentration_pct', 24, 'concentration', 'RISK_LIMIT_EXCEEDED', true,
  'Dollar delta of an underlying, or sector, up or down, in % of the equity.'),
('same_side', 25, 'underlying', 'RISK_LIMIT_EXCEEDED', true,
  'Options on one side of the market, bullish or bearish, in units of 100 shares.'),
('max_loss', 26, 'obligation', 'RISK_LIMIT_EXCEEDED', true,
  'Sum of the worst losses at expiry of each account and underlying, in base currency.'),
('buying_power', 27, 'obligation', 'RISK_LIMIT_EXCEEDED', true,
  'How far open buys and short puts may take cash below zero, in base currency.');

create table risk_private.limits (
  limit_id bigint generated always as identity primary key,
  scope_id integer not null references risk_private.scopes,
  limit_type text not null references risk_private.limit_types,
  dimension smallint not null check (dimension between 0 and 3),
  key_id integer not null,
  version integer not null,
  amount numeric check (amount is null or risk_private.is_amount(amount)),
  warn_pct numeric not null check (warn_pct > 0 and warn_pct <= 100),
  valid_from timestamptz not null,
  valid_until timestamptz not null,
  reason text,
  set_by name not null default session_user,
  set_at timestamptz not null,
  unique (scope_id, limit_type, dimension, key_id, version),
  constraint limits_window check (valid_from < valid_until)
);
create index limits_key_idx on risk_private.limits (scope_id, dimension, key_id);
comment on table risk_private.limits is
  'Every version of every limit; never updated. In force at a moment is the highest version whose '
  'window holds it. Amount NULL is a removal.';

create table risk_private.limit_periods (
  scope_id integer not null,
  dimension smallint not null,
  key_id integer not null,
  limit_type text not null,
  valid_until timestamptz not null,
  valid_from timestamptz not null,
  limit_id bigint not null,
  amount numeric not null check (risk_private.is_amount(amount)),
  warn_pct numeric not null check (warn_pct > 0 and warn_pct <= 100),
  version integer not null,
  primary key (scope_id, dimension, key_id, limit_type, valid_until)
);
comment on table risk_private.limit_periods is
  'Compiled from limits: which version is in force in which stretch of time, so that no decision '
  'reads history.';

create function risk_private.is_exposure_type(limit_type text) returns boolean
language sql immutable
return limit_type in (
  'delta', 'gamma', 'dollar_gamma', 'vega', 'theta', 'gross_exposure', 'net_exposure',
  'concentration_pct');
comment on function risk_private.is_exposure_type(text) is
  'Whether limits of this type are judged by exposures.';

create function risk_private.exposure_dimension(judged text, dimension integer) returns integer
language sql immutable
return case
  when judged = 'underlying' or judged = 'concentration' and dimension = 0 then 2
  else dimension
end;
comment on function risk_private.exposure_dimension(text, integer) is
  'The dimension of the exposures by which a limit set in that dimension is judged.';

create function risk_private.is_level(value numeric) returns boolean
language sql immutable
return coalesce(value >= 0 and value < 'Infinity', value is null);
comment on function risk_private.is_level(numeric) is
  'True for a finite amount >= 0 and for NULL (no limit); false for NaN.';

-- One column per limit type, named as the type is.
create table risk_private.warning_levels (
  scope_id integer not null,
  dimension smallint not null,
  key_id integer not null,
  valid_until timestamptz not null,
  valid_from timestamptz not null,
  types bit(32) not null,
  keeps_rate boolean not null,
  keeps_fingerprints boolean not null,
  order_quantity numeric check (risk_private.is_level(order_quantity)),
  order_notional numeric check (risk_private.is_level(order_notional)),
  price_collar_pct numeric check (risk_private.is_level(price_collar_pct)),
  net_position numeric check (risk_private.is_level(net_position)),
  long_position numeric check (risk_private.is_level(long_position)),
  short_position numeric check (risk_private.is_level(short_position)),
  gross_position numeric check (risk_private.is_level(gross_position)),
  gross_notional numeric check (risk_private.is_level(gross_notional)),
  traded_notional numeric check (risk_private.is_level(traded_notional)),
  open_orders numeric check (risk_private.is_level(open_orders)),
  open_positions numeric check (risk_private.is_level(open_positions)),
  order_rate numeric check (risk_private.is_level(order_rate)),
  order_rate_minute numeric check (risk_private.is_level(order_rate_minute)),
  duplicate_window numeric check (risk_private.is_level(duplicate_window)),
  self_cross numeric check (risk_private.is_level(self_cross)),
  delta numeric check (risk_private.is_level(delta)),
  gamma numeric check (risk_private.is_level(gamma)),
  dollar_gamma numeric check (risk_private.is_level(dollar_gamma)),
  vega numeric check (risk_private.is_level(vega)),
  theta numeric check (risk_private.is_level(theta)),
  gross_exposure numeric check (risk_private.is_level(gross_exposure)),
  net_exposure numeric check (risk_private.is_level(net_exposure)),
  daily_loss numeric check (risk_private.is_level(daily_loss)),
  drawdown_pct numeric check (risk_private.is_level(drawdown_pct)),
  concentration_pct numeric check (risk_private.is_level(concentration_pct)),
  same_side numeric check (risk_private.is_level(same_side)),
  max_loss numeric check (risk_private.is_level(max_loss)),
  buying_power numeric check (risk_private.is_level(buying_power)),
  primary key (scope_id, dimension, key_id, valid_until)
);
comment on column risk_private.warning_levels.keeps_rate is
  'Whether acceptances are kept in rate_events, now or for a rate limit to come; '
  'keeps_fingerprints likewise for duplicates.';
comment on table risk_private.warning_levels is
  'Compiled from limit_periods: per scope, dimension and stretch of time, the value of each '
  'measure from which a decision must be explained (warn_pct of the limit, or the limit itself). '
  'Below all of them no limit can fail. NULL: no limit.';
