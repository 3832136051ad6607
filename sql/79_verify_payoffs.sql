-- Proof of the payoffs that are kept.

create function risk_private.payoff_differences()
returns table (scope_id integer, underlying_id integer, measure text, stored numeric,
  expected numeric)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select p.account_id, p.underlying_id, m.measure, m.stored, m.expected
  from risk_private.payoffs as p
  cross join lateral risk_private.payoff_of(
    risk_private.payoff_legs(p.account_id, p.underlying_id)) as r
  cross join lateral (
    select pg_catalog.format('%s at %s on %s', v.measure, price, horizon) as measure, v.stored,
      v.expected
    from unnest((p.payoff).horizons, (p.payoff).prices, (p.payoff).losses, (p.payoff).slopes,
      (p.payoff).put_losses) as k (horizon, price, loss, slope, put_loss)
    full join unnest(r.horizons, r.prices, r.losses, r.slopes, r.put_losses)
      as n (horizon, price, loss, slope, put_loss) using (horizon, price)
    cross join lateral (
      values ('loss', k.loss, n.loss), ('slope', k.slope, n.slope),
        ('put loss', k.put_loss, n.put_loss)
    ) as v (measure, stored, expected)
    union all
    select 'costs', (p.payoff).costs, r.costs
  ) as m
  where m.stored is distinct from m.expected;
end
$$;
comment on function risk_private.payoff_differences() is
  'Where a payoff that is kept differs from that of the positions and open orders, point by point.';
