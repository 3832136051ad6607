-- Limits on losses. An order does not move P&L, so while a loss exceeds its limit only reducing
-- orders pass; likewise while it is not known.

create function risk_private.has_stale_rate(scope_id integer, max_age double precision,
  at timestamptz) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return max_age <> 0 and exists (
    select from risk_private.fx_rates as f
    join risk_private.cash_balances as b on b.currency = f.currency
    join risk_private.scopes as s on s.scope_id = b.account_id
    where f.currency <> risk_private.base_currency()
      and not risk_private.is_fresh(f.as_of, max_age, at)
      and (b.amount <> 0 or b.cost <> 0) and s.chain @> array[has_stale_rate.scope_id]);
end
$$;
comment on function risk_private.has_stale_rate(integer, double precision, timestamptz) is
  'Whether an account at or below a scope has money in a currency whose rate is too old.';

create function risk_private.daily_loss(e risk_private.equities) returns numeric
language sql immutable
return e.start_equity + e.flows - e.equity;
comment on function risk_private.daily_loss(risk_private.equities) is
  'Loss since the trading day was opened; below 0 a profit; NULL while it is not known.';

create function risk_private.drawdown_pct(peak numeric, equity numeric) returns numeric
language sql immutable
return case
  when peak <= 0 or equity <= 0 then 100
  else pg_catalog.round(greatest(0, peak - equity) * 100 / peak, 6)
end;
comment on function risk_private.drawdown_pct(numeric, numeric) is
  'How far the equity is below its peak, %; 100 where either is 0 or less; NULL where unknown.';

create function risk_private.is_drawn_down(e risk_private.equities, pct numeric) returns boolean
language sql immutable
return case
  when e.peak <= 0 or e.equity <= 0 then pct < 100
  else (e.peak - e.equity) * 100 > pct * e.peak
end;
comment on function risk_private.is_drawn_down(risk_private.equities, numeric) is
  'Whether the equity is more than that percentage below its peak; NULL while it is not known.';

create function risk_private.loss_levels(account_id integer, at timestamptz)
returns risk_private.loss_level[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select array_agg(
      row(w.scope_id, w.daily_loss, 1 - w.drawdown_pct * 0.01)::risk_private.loss_level
      order by w.scope_id)
    from risk_private.scopes as s
    join risk_private.warning_levels as w
      on w.scope_id = any (s.chain) and w.dimension = 0 and w.key_id = 0
      and w.valid_from <= at and at < w.valid_until
    where s.scope_id = loss_levels.account_id
      and (w.daily_loss is not null or w.drawdown_pct is not null));
end
$$;
comment on function risk_private.loss_levels(integer, timestamptz) is
  'The warning levels on losses of every scope of an account''s chain that has any; NULL: none.';

create function risk_private.has_foreign_rates() returns boolean
language sql stable
return exists (
  select from risk_private.fx_rates as f where f.currency <> risk_private.base_currency());
comment on function risk_private.has_foreign_rates() is
  'Whether any currency but the base has ever had a rate.';

create function risk_private.has_fresh_rates(max_age double precision, at timestamptz)
returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return not exists (
    select from risk_private.fx_rates as f
    where f.currency <> risk_private.base_currency()
      and not risk_private.is_fresh(f.as_of, max_age, at)
      and exists (select from risk_private.cash_balances as b where b.currency = f.currency));
end
$$;
comment on function risk_private.has_fresh_rates(double precision, timestamptz) is
  'Whether no money at all is in a currency whose rate is too old.';

create function risk_private.has_plain_losses(levels risk_private.loss_level[]) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_level risk_private.loss_level;
begin
  foreach v_level in array levels loop
    perform from risk_private.equities as e
    where e.scope_id = v_level.scope_id
      and (v_level.daily_loss is null or risk_private.daily_loss(e) < v_level.daily_loss)
      and (v_level.equity_ratio is null
        or least(e.peak, e.equity) > 0 and e.equity > e.peak * v_level.equity_ratio);
    if not found then
      return false;
    end if;
  end loop;
  return true;
end
$$;
comment on function risk_private.has_plain_losses(risk_private.loss_level[]) is
  'Whether every loss that is limited is known and below its warning level.';

create function risk_private.loss_checks(
  p risk_private.proposal, limits risk_private.applicable_limit[], closable numeric,
  at timestamptz)
returns risk_private.risk_check[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_max_age double precision := (
    select s.max_mark_age from risk_private.scopes as s where s.scope_id = p.account_id);
begin
  return array(
    select row(
      (k.l).limit_type, (k.l).scope, (k.l).dimension_name, (k.l).limit_type, (k.l).amount,
      v.value, v.value, (k.l).amount - v.value,
      case when b.fits or closable = p.quantity then p.quantity else closable end,
      case when not b.fits and closable < p.quantity then 'FAIL'
        when v.value > 0 and v.value * 100 >= (k.l).warn_pct * (k.l).amount then 'WARN'
        else 'PASS' end,
      case when b.fits or closable = p.quantity then null
        when v.value is null then 'STALE_DATA' else (k.l).reason end)::risk_private.risk_check
    from (
      select distinct on (u.scope_id, u.limit_type) u as l
      from unnest(limits) as u where u.judged = 'loss'
    ) as k
    join risk_private.equities as e on e.scope_id = (k.l).scope_id
    cross join lateral (
      select case
        when risk_private.has_stale_rate((k.l).scope_id, v_max_age, at) then null
        when (k.l).limit_type = 'daily_loss' then risk_private.daily_loss(e)
        else risk_private.drawdown_pct(e.peak, e.equity) end as value
    ) as v
    cross join lateral (
      select coalesce(v.value is not null and case (k.l).limit_type
        when 'daily_loss' then v.value <= (k.l).amount
        else not risk_private.is_drawn_down(e, (k.l).amount) end, false) as fits
    ) as b);
end
$$;
comment on function risk_private.loss_checks(
  risk_private.proposal, risk_private.applicable_limit[], numeric, timestamptz) is
  'daily_loss and drawdown_pct of each scope that limits them.';
