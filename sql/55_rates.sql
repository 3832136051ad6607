-- Exchange rates, and what moves with them: cash, and the values at which positions are carried.

create function risk_private.set_fx(currency text, rate numeric, as_of timestamptz)
returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_moved boolean;
begin
  perform risk_private.begin_change();
  if (currency ~ '^[A-Z]{3}$') is not true then
    perform risk_private.fail('RK400', 'currency must be three capital letters',
      'argument: currency, value: ' || coalesce(pg_catalog."left"(currency, 40), 'NULL'));
  end if;
  if currency = risk_private.base_currency() then
    perform risk_private.fail('RK400',
      pg_catalog.format('%s is the base currency: its rate is 1', currency), 'argument: currency');
  end if;
  if not (risk_private.is_amount(rate) and rate > 0) then
    perform risk_private.fail('RK400',
      'rate must be a finite number above 0, at most 1e15, with at most 12 decimals',
      'argument: rate, value: ' || coalesce(pg_catalog."left"(rate::text, 40), 'NULL'));
  end if;
  if as_of in ('infinity', '-infinity') then
    perform risk_private.fail('RK400', 'as_of must be a moment', 'argument: as_of');
  end if;
  insert into risk_private.fx_rates as f (currency, rate, as_of)
  values (set_fx.currency, set_fx.rate, coalesce(set_fx.as_of, risk_private.clock()))
  on conflict on constraint fx_rates_pkey do update set rate = excluded.rate, as_of = excluded.as_of
    where f.as_of <= excluded.as_of;
  get diagnostics v_moved = row_count;
  return v_moved;
end
$$;
comment on function risk_private.set_fx(text, numeric, timestamptz) is
  'Stores a rate; false where the stored one is newer.';
