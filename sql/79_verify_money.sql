-- Proof of the money: cash, cost, P&L and equity recomputed from executions, postings and carried
-- values.

create function risk_private.recount_realized()
returns table (held risk_private.positions, symbol text, cost numeric, average_price numeric,
  realized numeric, fees numeric)
language sql stable
begin atomic
  with replayed as (
    select f.account_id, f.instrument_id, sum((f.replayed).cost) filter (where f.is_last) as cost,
      sum((f.replayed).realized * f.rate) filter (where d.is_today) as realized,
      sum(f.fee * f.rate) filter (where d.is_today) as fees
    from risk_private.replayed_fills as f
    join risk_private.scopes as s on s.scope_id = f.account_id
    cross join lateral (select f.trading_day is not distinct from s.trading_day as is_today) as d
    group by f.account_id, f.instrument_id
  ), late as (
    select f.account_id, f.instrument_id, sum(c.late_realized) as realized, sum(c.late_fees) as fees
    from risk_private.fill_corrections as c
    join risk_private.fills as f on f.account_id = c.account_id and f.exec_id = c.exec_id
    join risk_private.scopes as s
      on s.scope_id = c.account_id and s.trading_day is not distinct from c.trading_day
    group by f.account_id, f.instrument_id
  )
  select p, i.symbol, coalesce(r.cost, 0),
    risk_private.average_price(coalesce(r.cost, 0), p.quantity, i.multiplier),
    coalesce(r.realized, 0) + coalesce(l.realized, 0), coalesce(r.fees, 0) + coalesce(l.fees, 0)
  from risk_private.positions as p
  join risk_private.instruments as i on i.instrument_id = p.instrument_id
  left join replayed as r on r.account_id = p.account_id and r.instrument_id = p.instrument_id
  left join late as l on l.account_id = p.account_id and l.instrument_id = p.instrument_id;
end;
comment on function risk_private.recount_realized() is
  'Every position, with its cost, its average price, and what today realized and cost in fees, as '
  'replayed from its executions.';

create function risk_private.recount_cash()
returns table (account_id integer, currency text, amount numeric, cost numeric)
language sql stable
begin atomic
  select u.account_id, u.currency, sum(u.amount), sum(u.cost)
  from (
    select p.account_id, p.currency, p.amount, 0::numeric as cost
    from risk_private.cash_postings as p
    union all
    select f.account_id, i.currency,
      case when risk_private.is_in_kind(f.kind) then 0 else -f.signed_quantity * f.unit_amount end
        - f.fee, 0
    from risk_private.fills as f
    join risk_private.instruments as i on i.instrument_id = f.instrument_id
    where f.adjustment_id is null
    union all
    select p.account_id, i.currency, 0, p.cost
    from risk_private.positions as p
    join risk_private.instruments as i on i.instrument_id = p.instrument_id
    where p.cost <> 0
  ) as u
  group by u.account_id, u.currency;
end;
comment on function risk_private.recount_cash() is
  'Cash and cost per account and currency, as postings, executions and positions say.';

create function risk_private.recount_equities()
returns table (account_id integer, equity numeric, unknown bigint, cash numeric, book numeric,
  realized numeric, fees numeric, income numeric, flows numeric)
language sql stable
begin atomic
  select s.scope_id, c.cash + v.value, c.unknown, c.cash, c.book, v.realized, v.fees, p.income,
    p.flows + k.flows + c.flows
  from risk_private.scopes as s
  cross join lateral (
    select coalesce(sum(b.amount * b.rate), 0) as cash,
      coalesce(sum((b.amount + b.cost) * b.rate), 0) as book,
      count(*) filter (where b.rate is null) as unknown,
      coalesce(sum(b.made_known) filter (
        where b.made_known_on is not distinct from s.trading_day), 0) as flows
    from risk_private.cash_balances as b where b.account_id = s.scope_id
  ) as c
  cross join lateral (
    select coalesce(sum(q.quantity * q.unit_value), 0) as value,
      coalesce(sum(q.realized_pnl_today + q.fees_today), 0) as realized,
      coalesce(sum(q.fees_today), 0) as fees
    from risk_private.positions as q where q.account_id = s.scope_id
  ) as v
  cross join lateral (
    select coalesce(sum(g.amount * g.rate) filter (where risk_private.is_flow(g.reason)), 0)
        as flows,
      coalesce(sum(g.amount * g.rate) filter (where not risk_private.is_flow(g.reason)), 0)
        as income
    from risk_private.cash_postings as g
    where g.account_id = s.scope_id and g.trading_day is not distinct from s.trading_day
  ) as p
  cross join lateral (
    select coalesce(sum(f.signed_quantity * f.unit_amount * f.rate), 0) + (
      select coalesce(sum(x.late_flows), 0) from risk_private.fill_corrections as x
      where x.account_id = s.scope_id and x.trading_day is not distinct from s.trading_day
    ) as flows
    from risk_private.fills as f
    where f.account_id = s.scope_id and risk_private.is_in_kind(f.kind)
      and f.trading_day is not distinct from s.trading_day
  ) as k
  where s.is_leaf;
end;
comment on function risk_private.recount_equities() is
  'The equity of every account and what moved it today, as balances, positions, postings and '
  'executions say.';

create function risk_private.money_differences()
returns table (scope_id integer, dimension text, measure text, stored numeric, expected numeric)
language sql stable
begin atomic
  select (r.held).account_id, 'position:' || r.symbol, m.measure, m.stored, m.expected
  from risk_private.recount_realized() as r
  cross join lateral (
    values ('cost', (r.held).cost, r.cost),
      ('average_price', (r.held).average_price, r.average_price),
      ('realized_pnl_today', (r.held).realized_pnl_today, r.realized - r.fees),
      ('fees_today', (r.held).fees_today, r.fees)
  ) as m (measure, stored, expected)
  where m.stored <> m.expected
  union all
  select coalesce(b.account_id, r.account_id), 'cash:' || coalesce(b.currency, r.currency),
    m.measure, m.stored, m.expected
  from risk_private.cash_balances as b
  full join risk_private.recount_cash() as r
    on r.account_id = b.account_id and r.currency = b.currency
  cross join lateral (
    values ('amount', b.amount, r.amount), ('cost', b.cost, r.cost)
  ) as m (measure, stored, expected)
  where coalesce(m.stored, 0) <> coalesce(m.expected, 0)
  union all
  select r.account_id, 'all', m.measure, m.stored, m.expected
  from risk_private.recount_equities() as r
  left join risk_private.equities as e on e.scope_id = r.account_id
  cross join lateral (
    select e.known_equity > e.peak and (risk_private.is_between_rates(r.account_id)
      or exists (select from risk_private.moving_rates)) as is_between
  ) as k
  cross join lateral (
    values ('equity', e.known_equity, r.equity), ('unknown_equity', e.unknown, r.unknown),
      ('cash', e.cash, r.cash), ('book', e.book, r.book), ('realized', e.realized, r.realized),
      ('fees', e.fees, r.fees), ('income', e.income, r.income), ('flows', e.flows, r.flows),
      ('peak', case when k.is_between then e.known_equity else least(e.peak, e.known_equity) end,
        e.known_equity)
  ) as m (measure, stored, expected)
  where m.stored is distinct from m.expected
  union all
  select s.scope_id, 'all', m.measure, m.stored, m.expected
  from risk_private.scopes as s
  left join risk_private.equities as e on e.scope_id = s.scope_id
  cross join lateral (
    select sum(b.known_equity) as known_equity, sum(b.unknown) as unknown, sum(b.cash) as cash,
      sum(b.book) as book, sum(b.realized) as realized, sum(b.fees) as fees,
      sum(b.income) as income, sum(b.flows) as flows, sum(b.currency_pnl) as currency_pnl,
      sum(b.known_start) as known_start, sum(b.unstarted) as unstarted,
      sum(b.start_unrealized) as start_unrealized
    from risk_private.equities as b
    join risk_private.scopes as c on c.scope_id = b.scope_id
    where c.parent_id = s.scope_id
  ) as t
  cross join lateral (
    values ('equity', e.known_equity, t.known_equity), ('unknown_equity', e.unknown, t.unknown),
      ('cash', e.cash, t.cash), ('book', e.book, t.book), ('realized', e.realized, t.realized),
      ('fees', e.fees, t.fees), ('income', e.income, t.income), ('flows', e.flows, t.flows),
      ('currency_pnl', e.currency_pnl, t.currency_pnl),
      ('start_equity', e.known_start, t.known_start), ('unstarted', e.unstarted, t.unstarted),
      ('start_unrealized', e.start_unrealized, t.start_unrealized)
  ) as m (measure, stored, expected)
  where not s.is_leaf and m.stored is distinct from coalesce(m.expected, 0);
end;
comment on function risk_private.money_differences() is
  'Every difference between the money that is stored and what it is made of; none when sound.';
