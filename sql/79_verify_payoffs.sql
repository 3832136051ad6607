-- Proof of the payoffs that are kept.

create function risk_private.payoff_differences()
returns table (scope_id integer, underlying_id integer, measure text, stored numeric,
  expected numeric)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select p.account_id, p.underlying_id,
    pg_catalog.format('%s at %s on %s', m.measure, price, horizon), m.stored, m.expected
  from risk_private.payoffs as p
  cross join lateral risk_private.payoff_of(
    risk_private.payoff_legs(p.account_id, p.underlying_id)) as r
  cross join lateral (
    select price, horizon, k.loss as stored_loss, k.slope as stored_slope,
      k.put_loss as stored_put_loss, n.loss, n.slope, n.put_loss
    from unnest((p.payoff).horizons, (p.payoff).prices, (p.payoff).losses, (p.payoff).slopes,
      (p.payoff).put_losses) as k (horizon, price, loss, slope, put_loss)
    full join unnest(r.horizons, r.prices, r.losses, r.slopes, r.put_losses)
      as n (horizon, price, loss, slope, put_loss) using (horizon, price)
  ) as d
  cross join lateral (
    values ('loss', d.stored_loss, d.loss), ('slope', d.stored_slope, d.slope),
      ('put loss', d.stored_put_loss, d.put_loss)
  ) as m (measure, stored, expected)
  where m.stored is distinct from m.expected
  union all
  select p.account_id, p.underlying_id, 'costs', (p.payoff).costs, r.costs
  from risk_private.payoffs as p
  cross join lateral risk_private.payoff_of(
    risk_private.payoff_legs(p.account_id, p.underlying_id)) as r
  where (p.payoff).costs is distinct from r.costs;
end
$$;
comment on function risk_private.payoff_differences() is
  'Where a payoff that is kept differs from that of the positions and open orders, point by point.';
