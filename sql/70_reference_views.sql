-- Views of what is set up: scopes, instruments, marks, settings, grants and trading states. No view
-- locks anything.

create view risk.scopes as
select
  s.code as scope, s.kind, p.code as parent, s.is_leaf as is_account,
  array(
    select c.code from unnest(s.chain) with ordinality as k (scope_id, position)
    join risk_private.scopes as c on c.scope_id = k.scope_id
    order by k.position desc) as path,
  s.max_mark_age, s.max_heartbeat_age, s.collar_floor,
  array(
    select t.limit_type from risk_private.limit_types as t
    where pg_catalog.get_bit(s.required_types, t.bit) = 1
    order by t.bit) as required_limit_types,
  s.created_at
from risk_private.scopes as s
left join risk_private.scopes as p on p.scope_id = s.parent_id;
comment on view risk.scopes is
  'The hierarchy firm > desk > account > strategy, with the settings that hold for each scope.';
comment on column risk.scopes.scope is 'Code of the scope.';
comment on column risk.scopes.kind is 'firm, desk, account or strategy.';
comment on column risk.scopes.parent is 'The scope directly above; NULL for a firm.';
comment on column risk.scopes.is_account is
  'Whether nothing stands below it: then it may hold positions and orders.';
comment on column risk.scopes.path is 'The chain from the firm down to the scope itself.';
comment on column risk.scopes.max_mark_age is
  'Seconds a mark may be old for a decision here; 0: any age.';
comment on column risk.scopes.max_heartbeat_age is
  'Seconds the last evaluation of the circuit breakers may be old for a decision here; 0: any age.';
comment on column risk.scopes.collar_floor is
  'Least width of the price collar of an option, in money per share.';
comment on column risk.scopes.required_limit_types is
  'Limit types without which an order here is refused.';
comment on column risk.scopes.created_at is 'When the scope was created.';

create view risk.instruments as
select
  i.symbol, i.kind, u.symbol as underlying, s.name as sector, i.expiry, i.strike, i.option_right,
  i.multiplier, i.lot, i.tick, i.currency, i.allow_negative_price, i.status, i.status_reason,
  i.dividend_yield
from risk_private.instruments as i
join risk_private.instruments as u on u.instrument_id = i.underlying_id
left join risk_private.sectors as s on s.sector_id = i.sector_id;
comment on view risk.instruments is 'What can be traded, and its terms.';
comment on column risk.instruments.symbol is 'Symbol of the instrument.';
comment on column risk.instruments.kind is 'stock, etf, index, option or future.';
comment on column risk.instruments.underlying is 'Symbol of the underlying; a stock''s is its own.';
comment on column risk.instruments.sector is
  'Sector, by default the underlying''s; NULL where there is none.';
comment on column risk.instruments.expiry is 'Last day of trading; NULL for what does not expire.';
comment on column risk.instruments.strike is 'Strike of an option, per share.';
comment on column risk.instruments.option_right is 'call or put.';
comment on column risk.instruments.multiplier is 'Units of the underlying per contract.';
comment on column risk.instruments.lot is 'Quantities are multiples of it.';
comment on column risk.instruments.tick is 'Prices are multiples of it; NULL: any price.';
comment on column risk.instruments.currency is 'Currency of its prices.';
comment on column risk.instruments.allow_negative_price is 'Whether a price may be 0 or below.';
comment on column risk.instruments.status is
  'ACTIVE; RESTRICTED: reducing orders only; NO_NEW_SHORTS: no order that makes or enlarges a '
  'short; BLOCKED: no order.';
comment on column risk.instruments.status_reason is 'Why the status was last set.';
comment on column risk.instruments.dividend_yield is
  'Of an underlying: the yield its options are valued with, 0.02 for 2 %; NULL: the setting''s.';

create view risk.adjustments as
select
  a.reference, t.old_symbol, t.new_symbol, a.new_shares, a.old_shares, a.strike_change,
  t.old_strike, t.new_strike, t.old_multiplier, t.new_multiplier,
  t.new_units / t.old_units as position_factor, a.reason, a.trading_day, a.adjusted_at,
  a.adjusted_by
from risk_private.adjustments as a
join risk_private.adjusted_instruments as t on t.adjustment_id = a.adjustment_id;
comment on view risk.adjustments is
  'Splits and other changes of terms by risk.adjust_instrument: one row per instrument.';
comment on column risk.adjustments.reference is 'The corporate action.';
comment on column risk.adjustments.old_symbol is 'Symbol of the instrument before.';
comment on column risk.adjustments.new_symbol is 'Its symbol since.';
comment on column risk.adjustments.new_shares is 'Shares given for old_shares; 1 and 1: no split.';
comment on column risk.adjustments.old_shares is 'Shares they were given for.';
comment on column risk.adjustments.strike_change is 'What was added to every strike.';
comment on column risk.adjustments.old_strike is 'Strike of an option before, per share.';
comment on column risk.adjustments.new_strike is 'Its strike since.';
comment on column risk.adjustments.old_multiplier is 'Multiplier before.';
comment on column risk.adjustments.new_multiplier is 'Multiplier since.';
comment on column risk.adjustments.position_factor is 'What positions were multiplied by.';
comment on column risk.adjustments.reason is 'Why.';
comment on column risk.adjustments.trading_day is 'The trading day in which it was done.';
comment on column risk.adjustments.adjusted_at is 'When.';
comment on column risk.adjustments.adjusted_by is 'The login that did it.';

create view risk.marks as
select
  i.symbol, m.price, m.bid, m.ask, m.implied_volatility, m.delta, m.gamma, m.vega, m.theta, m.rho,
  m.as_of, m.volatility_as_of
from risk_private.marks as m
join risk_private.instruments as i on i.instrument_id = m.instrument_id;
comment on view risk.marks is 'The latest mark, quote and Greeks of each instrument, per unit.';
comment on column risk.marks.symbol is 'Symbol of the instrument.';
comment on column risk.marks.price is 'Mark price.';
comment on column risk.marks.bid is 'Best bid; NULL where the feed sent none.';
comment on column risk.marks.ask is 'Best ask; NULL where the feed sent none.';
comment on column risk.marks.implied_volatility is
  'Annual implied volatility, 0.2 for 20 %: the feed''s, else the price''s.';
comment on column risk.marks.delta is 'Price change per 1.00 of the underlying.';
comment on column risk.marks.gamma is 'Change of delta per 1.00 of the underlying.';
comment on column risk.marks.vega is 'Price change per volatility point (0.01).';
comment on column risk.marks.theta is 'Price change per calendar day.';
comment on column risk.marks.rho is 'Price change per 1 % of interest rate.';
comment on column risk.marks.as_of is 'Data time of the mark.';
comment on column risk.marks.volatility_as_of is
  'Data time of the implied volatility: re-marking from a tick of the underlying keeps it.';

create view risk.settings as
select g.name, s.code as scope, g.value, g.set_by, g.set_at
from risk_private.settings as g
left join risk_private.scopes as s on s.scope_id = g.scope_id;
comment on view risk.settings is
  'Settings that were made; risk.scopes shows what holds where. What is not set has its default.';
comment on column risk.settings.name is 'Name of the setting.';
comment on column risk.settings.scope is
  'The scope it was made for, and everything below; NULL: everywhere.';
comment on column risk.settings.value is 'Its value, as text.';
comment on column risk.settings.set_by is 'The login that made it.';
comment on column risk.settings.set_at is 'When it was made.';

create view risk.trading_grants as
select pg_catalog.pg_get_userbyid(g.role_id) as role, s.code as scope, g.granted_by, g.granted_at
from risk_private.trading_grants as g
join risk_private.scopes as s on s.scope_id = g.scope_id;
comment on view risk.trading_grants is
  'Who may trade what. Superusers and members of risk_owner may trade everywhere.';
comment on column risk.trading_grants.role is 'The role; its members have the grant too.';
comment on column risk.trading_grants.scope is 'The scope it may trade, and everything below.';
comment on column risk.trading_grants.granted_by is 'The login that granted it.';
comment on column risk.trading_grants.granted_at is 'When it was granted.';

create view risk.trading_states as
select
  s.code as scope, u.symbol as underlying, coalesce(o.state, 'ACTIVE') as own_state,
  coalesce(e.state, 'ACTIVE') as effective_state, e.since, e.changed_by, e.reason
from risk_private.scopes as s
cross join lateral (
  select 0 as underlying_id
  union
  select t.underlying_id from risk_private.trading_states as t where t.scope_id = any (s.chain)
) as k
left join risk_private.instruments as u on u.instrument_id = k.underlying_id
left join risk_private.trading_states as o on o.scope_id = s.scope_id
  and o.underlying_id = k.underlying_id and o.breaker_id = 0
left join lateral (
  select t.* from risk_private.trading_states as t
  where t.scope_id = any (s.chain) and t.underlying_id in (0, k.underlying_id)
  order by pg_catalog.array_position(array['HALTED', 'REDUCE_ONLY', 'ACTIVE'], t.state),
    pg_catalog.array_position(s.chain, t.scope_id), t.underlying_id desc, t.breaker_id
  limit 1
) as e on true;
comment on view risk.trading_states is
  'Trading states: one row per scope, and one per scope and underlying where a state was set, or a '
  'circuit breaker holds, for that underlying on the scope or above it.';
comment on column risk.trading_states.scope is 'Code of the scope.';
comment on column risk.trading_states.underlying is
  'The underlying it is about; NULL: all of them.';
comment on column risk.trading_states.own_state is
  'What a person set on this very scope: ACTIVE, REDUCE_ONLY or HALTED.';
comment on column risk.trading_states.effective_state is
  'What decisions go by: the most severe of the states and the circuit breakers that hold, on the '
  'scope and above it.';
comment on column risk.trading_states.since is
  'When the effective state was set; NULL where none ever was. Likewise the next two.';
comment on column risk.trading_states.changed_by is 'The login that set it.';
comment on column risk.trading_states.reason is 'Why it was set.';
