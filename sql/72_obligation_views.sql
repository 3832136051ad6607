-- Views of what accounts may come to owe.

create view risk.position_limits as
select i.symbol as underlying, u.tier, t.amount, t.loaded_by, t.loaded_at
from risk_private.underlying_tiers as u
join risk_private.position_limit_tiers as t on t.tier = u.tier
join risk_private.instruments as i on i.instrument_id = u.underlying_id;
comment on view risk.position_limits is
  'Position limits as loaded by risk.load_position_limits. They bind where '
  'risk.apply_position_limits has set them.';
comment on column risk.position_limits.underlying is 'The underlying.';
comment on column risk.position_limits.tier is 'The tier that it is in.';
comment on column risk.position_limits.amount is
  'Contracts of 100 shares on one side of the market.';
comment on column risk.position_limits.loaded_by is 'The login that loaded the tier''s amount.';
comment on column risk.position_limits.loaded_at is 'When it was loaded.';

create view risk.same_side_positions as
with sides as (
  select p.account_id, p.underlying_id,
    sum(risk_private.side(i.option_right, i.multiplier, w.long, w.short)) as bull,
    sum(risk_private.side(i.option_right, i.multiplier, w.short, w.long)) as bear,
    sum(risk_private.side(i.option_right, i.multiplier, p.quantity, -p.quantity)) as held_bull,
    sum(risk_private.side(i.option_right, i.multiplier, -p.quantity, p.quantity)) as held_bear
  from risk_private.positions as p
  join risk_private.instruments as i on i.instrument_id = p.instrument_id and i.kind = 'option'
  cross join lateral (
    select p.quantity + p.open_buy as long, p.open_sell - p.quantity as short
  ) as w
  where p.quantity <> 0 or p.open_buy <> 0 or p.open_sell <> 0
  group by p.account_id, p.underlying_id
), sums as (
  select c.scope_id, g.underlying_id, sum(g.bull) as bull, sum(g.bear) as bear,
    sum(g.held_bull) as held_bull, sum(g.held_bear) as held_bear
  from sides as g
  join risk_private.scopes as a on a.scope_id = g.account_id
  cross join unnest(a.chain) as c (scope_id)
  group by c.scope_id, g.underlying_id
)
select
  s.code as scope, u.symbol as underlying, m.bull, m.bear, m.held_bull, m.held_bear,
  k.amount as limit_value, t.tier,
  pg_catalog.round(greatest(m.bull, m.bear) * 100 / nullif(k.amount, 0), 2) as utilization_pct,
  case when greatest(m.bull, m.bear) > k.amount then 'BREACH'
    when greatest(m.bull, m.bear) * 100 >= k.warn_pct * k.amount and greatest(m.bull, m.bear) > 0
    then 'WARN'
    else 'OK' end as status,
  risk_private.clock() as as_of
from sums as m
join risk_private.scopes as s on s.scope_id = m.scope_id
join risk_private.instruments as u on u.instrument_id = m.underlying_id
left join risk_private.underlying_tiers as t on t.underlying_id = m.underlying_id
left join lateral (
  select l.amount, l.warn_pct
  from risk_private.limits_in_force as l
  where l.limit_type = 'same_side' and l.scope_id = m.scope_id
    and l.key_id = (array[0, u.sector_id, u.instrument_id])[l.dimension + 1]
  order by l.dimension desc
  limit 1
) as k on true
where (select risk_private.is_settled());
comment on view risk.same_side_positions is
  'Options on each side of the market, as FINRA 2360 and Cboe 8.30 count them: per scope and '
  'underlying, over every account below, all strikes and expiries, in units of 100 shares (ten '
  'minis are one, a jumbo is ten). Sides never net.';
comment on column risk.same_side_positions.scope is 'The scope, with all accounts below it.';
comment on column risk.same_side_positions.underlying is 'The underlying of the options.';
comment on column risk.same_side_positions.bull is
  'Long calls + short puts, per account and option at worst: every open order that enlarges the '
  'side filled.';
comment on column risk.same_side_positions.bear is 'Short calls + long puts, likewise.';
comment on column risk.same_side_positions.held_bull is 'bull of positions alone.';
comment on column risk.same_side_positions.held_bear is 'bear of positions alone.';
comment on column risk.same_side_positions.limit_value is
  'The same_side limit that holds at this very scope for the underlying, for each side; NULL where '
  'none does.';
comment on column risk.same_side_positions.tier is
  'The tier of the underlying; see risk.position_limits.';
comment on column risk.same_side_positions.utilization_pct is
  'The larger side in percent of the limit; NULL without one, or where it is 0.';
comment on column risk.same_side_positions.status is
  'BREACH: a side is above the limit; WARN: at or above its warn_pct; OK, also without a limit.';
comment on column risk.same_side_positions.as_of is 'The moment of reading.';
