-- Proof: everything that is summed, beside what it summarises.

create function risk_private.dimension_name(dimension integer, key_id integer) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return case dimension
    when 0 then 'all'
    when 1 then 'sector:' || (
      select s.name from risk_private.sectors as s where s.sector_id = key_id)
    when 2 then 'underlying:' || (
      select i.symbol from risk_private.instruments as i where i.instrument_id = key_id)
    when 3 then 'instrument:' || (
      select i.symbol from risk_private.instruments as i where i.instrument_id = key_id)
  end;
end
$$;
comment on function risk_private.dimension_name(integer, integer) is
  'How a dimension is written: all, sector:Energy, underlying:AAPL, instrument:AAPL.';

create function risk_private.position_differences()
returns table (scope_id integer, dimension text, measure text, stored numeric, expected numeric)
language sql stable
begin atomic
  select coalesce(p.account_id, r.account_id), 'position:' || i.symbol, m.measure, m.stored,
    m.expected
  from risk_private.positions as p
  full join risk_private.recount_positions() as r
    on r.account_id = p.account_id and r.instrument_id = p.instrument_id
  join risk_private.instruments as i on i.instrument_id = coalesce(p.instrument_id, r.instrument_id)
  cross join lateral (
    values ('quantity', p.quantity, r.quantity), ('open_buy', p.open_buy, r.open_buy),
      ('open_sell', p.open_sell, r.open_sell)
  ) as m (measure, stored, expected)
  where coalesce(m.stored, 0) <> coalesce(m.expected, 0);
end;
comment on function risk_private.position_differences() is
  'Positions that differ from what orders and fills say.';

create function risk_private.counter_differences()
returns table (scope_id integer, dimension text, measure text, stored numeric, expected numeric)
language sql stable
begin atomic
  select coalesce(c.scope_id, r.scope_id),
    risk_private.dimension_name(coalesce(c.dimension, r.dimension), coalesce(c.key_id, r.key_id)),
    m.measure,
    m.stored, m.expected
  from risk_private.counters as c
  full join risk_private.recount() as r on r.counter_id = c.counter_id
  cross join lateral (
    values
      ('quantity', c.quantity, r.quantity, 3), ('open_buy', c.open_buy, r.open_buy, 3),
      ('open_sell', c.open_sell, r.open_sell, 3),
      ('gross_position', c.gross_position, r.gross_position, 0),
      ('gross_notional', c.gross_notional, r.gross_notional, 0),
      ('traded_notional', c.traded_notional, r.traded_notional, 0),
      ('open_orders', c.open_orders, r.open_orders, 0),
      ('open_positions', c.open_positions, r.open_positions, 0)
  ) as m (measure, stored, expected, least_dimension)
  where coalesce(c.dimension, r.dimension) >= m.least_dimension
    and coalesce(m.stored, 0) <> coalesce(m.expected, 0);
end;
comment on function risk_private.counter_differences() is
  'Counters that differ from what orders, fills and carried values say.';

create function risk_private.obligation_differences()
returns table (scope_id integer, dimension text, measure text, stored numeric, expected numeric)
language sql stable
begin atomic
  select coalesce(o.scope_id, r.scope_id),
    risk_private.dimension_name(coalesce(o.dimension, r.dimension), coalesce(o.key_id, r.key_id)),
    m.measure, m.stored, m.expected
  from risk_private.obligations as o
  full join risk_private.recount_obligations() as r on r.counter_id = o.counter_id
  cross join lateral (
    values
      ('bull', o.bull, r.bull), ('bear', o.bear, r.bear), ('max_loss', o.max_loss, r.max_loss),
      ('unlimited', o.unlimited, r.unlimited), ('cash_need', o.cash_need, r.cash_need),
      ('held_bull', o.held_bull, r.held_bull), ('held_bear', o.held_bear, r.held_bear),
      ('held_loss', o.held_loss, r.held_loss),
      ('held_unlimited', o.held_unlimited, r.held_unlimited),
      ('held_need', o.held_need, r.held_need)
  ) as m (measure, stored, expected)
  where coalesce(m.stored, 0) <> coalesce(m.expected, 0);
end;
comment on function risk_private.obligation_differences() is
  'Obligations that differ from what positions and open orders say.';

create function risk_private.exposure_differences()
returns table (scope_id integer, dimension text, measure text, stored numeric, expected numeric)
language sql stable
begin atomic
  select coalesce(e.scope_id, r.scope_id),
    risk_private.dimension_name(coalesce(e.dimension, r.dimension), coalesce(e.key_id, r.key_id)),
    m.measure, m.stored, m.expected
  from risk_private.exposures as e
  full join risk_private.recount_exposures() as r on r.counter_id = e.counter_id
  cross join lateral (
    values
      ('delta', e.delta, r.delta), ('delta_up', e.delta_up, r.delta_up),
      ('delta_down', e.delta_down, r.delta_down), ('gamma', e.gamma, r.gamma),
      ('gamma_up', e.gamma_up, r.gamma_up), ('gamma_down', e.gamma_down, r.gamma_down),
      ('dollar_delta', e.dollar_delta, r.dollar_delta),
      ('dollar_delta_up', e.dollar_delta_up, r.dollar_delta_up),
      ('dollar_delta_down', e.dollar_delta_down, r.dollar_delta_down),
      ('dollar_gamma', e.dollar_gamma, r.dollar_gamma),
      ('dollar_gamma_up', e.dollar_gamma_up, r.dollar_gamma_up),
      ('dollar_gamma_down', e.dollar_gamma_down, r.dollar_gamma_down),
      ('vega', e.vega, r.vega), ('vega_up', e.vega_up, r.vega_up),
      ('vega_down', e.vega_down, r.vega_down), ('theta', e.theta, r.theta),
      ('theta_up', e.theta_up, r.theta_up), ('theta_down', e.theta_down, r.theta_down),
      ('gross_exposure', e.gross_exposure, r.gross_exposure), ('unknown', e.unknown, r.unknown)
  ) as m (measure, stored, expected)
  where coalesce(m.stored, 0) <> coalesce(m.expected, 0);
end;
comment on function risk_private.exposure_differences() is
  'Exposures that differ from what orders, fills and carried values say.';

create function risk_private.differences(part risk_private.recounted)
returns table (scope_id integer, dimension text, measure text, stored numeric, expected numeric)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  case part
    when 'positions' then return query select d.* from risk_private.position_differences() as d;
    when 'counters' then return query select d.* from risk_private.counter_differences() as d;
    when 'obligations' then return query select d.* from risk_private.obligation_differences() as d;
    when 'payoffs' then return query
      select d.scope_id, risk_private.dimension_name(2, d.underlying_id), d.measure, d.stored,
        d.expected
      from risk_private.payoff_differences() as d;
    when 'exposures' then return query select d.* from risk_private.exposure_differences() as d;
    when 'money' then return query select d.* from risk_private.money_differences() as d;
  end case;
end
$$;
comment on function risk_private.differences(risk_private.recounted) is
  'Where one part of what is summed differs from what it summarises.';

create function risk.verify_counters()
returns table (scope text, dimension text, measure text, stored numeric, expected numeric)
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select s.code, d.dimension, d.measure, d.stored, d.expected
  from unnest(pg_catalog.enum_range(null::risk_private.recounted)) as r (part)
  cross join lateral risk_private.differences(r.part) as d
  join risk_private.scopes as s on s.scope_id = d.scope_id;
end;
comment on function risk.verify_counters() is
  'Recomputes every position, counter, exposure, obligation, payoff, cash balance and equity from '
  'orders, fills, postings and carried values: one row per difference, none when sound.';
