-- What European options are worth: Black-Scholes-Merton. Single statements without SET clauses, so
-- that the planner inlines them: thousands of options are valued by one query. Each OFFSET 0 keeps
-- the planner from computing a subexpression again wherever it is used.

create function risk_private.option_problem(
  kind text, spot double precision, strike double precision, years double precision,
  rate double precision, dividend double precision)
returns text
language sql immutable parallel safe
return case
  when (kind in ('call', 'put')) is not true then 'kind must be call or put'
  when (spot between 0 and 1e12) is not true then 'spot must be a number from 0 to 1e12'
  when (strike between 1e-12 and 1e15) is not true then
    'strike must be a number above 0, from 1e-12 to 1e15'
  when (years between 0 and 100) is not true then 'years must be a number from 0 to 100'
  when (rate between -10 and 10) is not true or abs(rate) > 0.5 and abs(rate) * years > 50 then
    'rate must be a number from -10 to 10 (0.05 is 5 %), and rate * years within 50'
  when (dividend between -10 and 10) is not true
    or abs(dividend) > 0.5 and abs(dividend) * years > 50 then
    'dividend must be a number from -10 to 10 (0.02 is 2 %), and dividend * years within 50'
end;
comment on function risk_private.option_problem(
  text, double precision, double precision, double precision, double precision,
  double precision) is
  'What is wrong with the terms of an option that is to be valued; NULL where nothing is.';

create function risk_private.require_option_terms(
  kind text, spot double precision, strike double precision, years double precision,
  rate double precision, dividend double precision, volatility double precision)
returns boolean
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_problem text := risk_private.option_problem(kind, spot, strike, years, rate, dividend);
begin
  if v_problem is null and (volatility >= 0 and volatility < 'Infinity') is not true then
    v_problem := 'volatility must be a finite number >= 0 (0.2 is 20 %)';
  end if;
  if v_problem is not null then
    perform risk_private.fail('RK400', v_problem, format(
      'kind %s, spot %s, strike %s, years %s, rate %s, dividend %s, volatility %s', kind, spot,
      strike, years, rate, dividend, volatility));
  end if;
  return true;
end
$$;
comment on function risk_private.require_option_terms(
  text, double precision, double precision, double precision, double precision, double precision,
  double precision) is
  'True; or RK400 for terms that no option can have.';

-- Tails further out than 35 standard deviations, and what is too small to matter, are 0: a product
-- of them would be the error "underflow".
create function risk.option_greeks(
  kind text, spot double precision, strike double precision, years double precision,
  rate double precision, dividend double precision, volatility double precision)
returns table (
  price double precision, delta double precision, gamma double precision, vega double precision,
  theta double precision, rho double precision)
language sql immutable parallel safe rows 1
begin atomic
  select
    greatest(0, c.sign * (b.spot_value * d.n1 - b.strike_value * d.n2)),
    c.sign * b.dividend_factor * d.n1,
    case when b.deviation >= 1e-15 and a.spot > 0
      then b.dividend_factor * d.density / (a.spot * b.deviation) else 0 end,
    b.spot_value * d.density * a.root_years / 100,
    (case when a.root_years > 0
       then -b.spot_value * d.density * a.volatility / (2 * a.root_years) else 0 end
     - c.sign * a.rate * b.strike_value * d.n2
     + c.sign * a.dividend * b.spot_value * d.n1) / 365,
    c.sign * b.strike_value * a.years * d.n2 / 100
  from (
    select
      case when option_greeks.spot < 1e-30 then 0 else option_greeks.spot end as spot,
      case when option_greeks.years < 1e-12 then 0 else option_greeks.years end as years,
      case when option_greeks.years < 1e-12 then 0
        else pg_catalog.sqrt(option_greeks.years) end as root_years,
      case when pg_catalog.abs(option_greeks.rate) < 1e-18 then 0
        else option_greeks.rate end as rate,
      case when pg_catalog.abs(option_greeks.dividend) < 1e-18 then 0
        else option_greeks.dividend end as dividend,
      case when option_greeks.volatility < 1e-18 then 0
        else least(option_greeks.volatility, 1e100) end as volatility
    where risk_private.require_option_terms(option_greeks.kind, option_greeks.spot,
      option_greeks.strike, option_greeks.years, option_greeks.rate, option_greeks.dividend,
      option_greeks.volatility)
    offset 0
  ) as a
  cross join lateral (
    select
      pg_catalog.exp(-a.dividend * a.years) as dividend_factor,
      a.spot * pg_catalog.exp(-a.dividend * a.years) as spot_value,
      option_greeks.strike * pg_catalog.exp(-a.rate * a.years) as strike_value,
      a.volatility * a.root_years as deviation,
      case when a.spot > 0 then pg_catalog.ln(a.spot / option_greeks.strike)
        + (a.rate - a.dividend) * a.years else -1000 end as moneyness
    offset 0
  ) as b
  cross join lateral (
    select
      case when option_greeks.kind = 'call' then 1::double precision else -1 end as sign,
      case when b.deviation >= 1e-15 and a.spot > 0
        then b.moneyness / b.deviation + b.deviation / 2
        else 100 * pg_catalog.sign(b.moneyness) end as d1,
      case when b.deviation >= 1e-15 and a.spot > 0
        then b.moneyness / b.deviation - b.deviation / 2
        else 100 * pg_catalog.sign(b.moneyness) end as d2
    offset 0
  ) as c
  cross join lateral (
    select
      case when c.sign * c.d1 > -35
        then pg_catalog.erfc(-c.sign * c.d1 * 0.70710678118654752) / 2 else 0 end as n1,
      case when c.sign * c.d2 > -35
        then pg_catalog.erfc(-c.sign * c.d2 * 0.70710678118654752) / 2 else 0 end as n2,
      case when pg_catalog.abs(c.d1) < 35
        then pg_catalog.exp(-c.d1 * c.d1 / 2) * 0.39894228040143268 else 0 end as density
    offset 0
  ) as d;
end;
comment on function risk.option_greeks(
  text, double precision, double precision, double precision, double precision, double precision,
  double precision) is
  'Price and Greeks of a European option by Black-Scholes-Merton (Merton 1973), per share of the '
  'underlying: delta; gamma per 1.00 of spot; vega per volatility point (0.01); theta per calendar '
  'day (1/365 year); rho per 1 % of rate. kind: call or put; years to expiry; rate and dividend '
  'yield continuously compounded, volatility per year, 0.05 being 5 %. Early exercise is not '
  'valued: an American option, above all a put or a call before a dividend, is worth at least as '
  'much. At expiry or without volatility: the intrinsic value of the forward and its limits, delta '
  'one half and gamma 0 at the money. An option on a future (Black 1976): dividend = rate. Never '
  'NULL or NaN. Errors: RK400 where an argument is NULL, not finite, or of no option: spot 0 to '
  '1e12, strike 1e-12 to 1e15, years 0 to 100, rate and dividend within 10 and times years within '
  '50, volatility >= 0.';

-- The price is brought to that of the out-of-the-money option of the same strike, by parity, in
-- units of the square root of both present values. It has its turning point where deviation^2 is 2
-- |moneyness|: below that, 1/ln(price) is nearly straight; above it the price bends one way only;
-- near the top the logarithm of what is missing does (Jaeckel 2006). Newton's steps that leave the
-- bracket are replaced by halving it.
create function risk_private.find_deviation(
  moneyness double precision, price double precision, missing double precision)
returns double precision
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_root_half constant double precision := sqrt(0.5::double precision);
  v_up constant double precision := exp(moneyness / 2);
  v_turn constant double precision := sqrt(-2 * moneyness);
  v_turn_price constant double precision :=
    v_up / 2 - erfc(v_turn * v_root_half) / v_up / 2;
  v_branch constant text := case
    when price < v_turn_price then 'low' when missing < v_up / 2 then 'high' else 'middle' end;
  v_low double precision := case when v_branch = 'low' then 0 else v_turn end;
  v_high double precision := case when v_branch = 'low' then v_turn end;
  v_s double precision := case
    when v_branch = 'low' then least(-moneyness / sqrt(-2 * ln(price)), v_turn)
    else v_turn + (price - v_turn_price) * 2.50662827463100050 end;
  v_next double precision;
  v_d1 double precision;
  v_d2 double precision;
  v_value double precision;
  v_is_above boolean;
  v_slope double precision;
  v_step double precision;
begin
  -- Next to nothing at the money: the first guess is exact, and its square would underflow.
  if v_branch = 'middle' and v_s < 1e-8 then
    return v_s;
  end if;
  for v_round in 1..200 loop
    v_d1 := moneyness / v_s + v_s / 2;
    v_d2 := moneyness / v_s - v_s / 2;
    v_slope := case when abs(v_d1) < 35
      then v_up * exp(-v_d1 * v_d1 / 2) * 0.39894228040143268 else 0 end;
    if v_branch = 'high' then
      v_value := v_up * erfc(least(v_d1, 50) * v_root_half) / 2
        + erfc(least(-v_d2, 50) * v_root_half) / v_up / 2;
      v_is_above := v_value < missing;
      v_step := case when v_slope > 0
        then ln(v_value / missing) * v_value / v_slope end;
    else
      v_value := v_up * erfc(least(-v_d1, 50) * v_root_half) / 2
        - erfc(least(-v_d2, 50) * v_root_half) / v_up / 2;
      v_is_above := v_value > price;
      v_step := case when v_slope = 0 or v_value <= 0 then null
        when v_branch = 'middle' then (price - v_value) / v_slope
        else (1 - ln(v_value) / ln(price)) * ln(v_value) * v_value / v_slope end;
    end if;
    if v_is_above then
      v_high := v_s;
    else
      v_low := v_s;
    end if;
    v_next := v_s + v_step;
    exit when abs(v_step) <= 1e-8 * v_s or v_high - v_low <= 1e-15 * v_high;
    if (v_next > v_low and (v_high is null or v_next < v_high)) is not true then
      v_next := case when v_high is null then 2 * v_s else (v_low + v_high) / 2 end;
    end if;
    v_s := v_next;
  end loop;
  return coalesce(v_next, v_s);
end
$$;
comment on function risk_private.find_deviation(
  double precision, double precision, double precision) is
  'The standard deviation to expiry (volatility x root of years) that gives an out-of-the-money '
  'option this normalised price: price / sqrt(S K), both discounted; moneyness = -|ln(S / K)|, '
  'missing = what the price lacks to its upper bound.';

create function risk_private.implied_volatility(
  kind text, price double precision, spot double precision, strike double precision,
  years double precision, rate double precision, dividend double precision)
returns double precision
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rate constant double precision := case when abs(rate) < 1e-18 then 0 else rate end;
  v_dividend constant double precision :=
    case when abs(dividend) < 1e-18 then 0 else dividend end;
  v_years constant double precision := case when years < 1e-12 then 0 else years end;
  v_spot_value double precision;
  v_strike_value double precision;
  v_least double precision;
  v_most double precision;
  v_unit double precision;
begin
  if risk_private.option_problem(kind, spot, strike, years, rate, dividend) is not null
    or (price >= 0 and price < 'Infinity') is not true then
    return null;
  end if;
  v_spot_value := case when spot < 1e-30 then 0 else spot end * exp(-v_dividend * v_years);
  v_strike_value := strike * exp(-v_rate * v_years);
  v_most := case when kind = 'call' then v_spot_value else v_strike_value end;
  v_least := greatest(0, v_most - case when kind = 'call' then v_strike_value
    else v_spot_value end);
  v_unit := sqrt(v_spot_value) * sqrt(v_strike_value);
  if price <= v_least or price - v_least < 1e-250 * v_unit then
    return 0;
  elsif price >= v_most or v_years = 0 then
    return null;
  end if;
  return risk_private.find_deviation(
    -abs(ln(spot / strike) + (v_rate - v_dividend) * v_years), (price - v_least) / v_unit,
    (v_most - price) / v_unit) / sqrt(v_years);
end
$$;
comment on function risk_private.implied_volatility(
  text, double precision, double precision, double precision, double precision, double precision,
  double precision) is
  'As risk.implied_volatility, but 0 for a price below the least value, and NULL where no '
  'volatility gives the price or an argument is impossible.';

create function risk.implied_volatility(
  kind text, price double precision, spot double precision, strike double precision,
  years double precision, rate double precision, dividend double precision)
returns double precision
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_volatility double precision :=
    risk_private.implied_volatility(kind, price, spot, strike, years, rate, dividend);
  v_least double precision;
begin
  if v_volatility > 0 then
    return v_volatility;
  end if;
  perform risk_private.require_option_terms(kind, spot, strike, years, rate, dividend, 0);
  select g.price into v_least
  from risk.option_greeks(kind, spot, strike, years, rate, dividend, 0) as g;
  -- The least value is a difference: rounding must not forbid it.
  if v_volatility is null or price < v_least - 1e-12 * (v_least + strike) then
    perform risk_private.fail('RK400', 'no volatility gives this price', format(
      'price %s: it must be at least %s and less than the discounted %s, and years above 0',
      price, v_least, case when kind = 'call' then 'spot' else 'strike' end),
      'Check that price, spot and strike are of one moment, per share and in one currency.');
  end if;
  return 0;
end
$$;
comment on function risk.implied_volatility(
  text, double precision, double precision, double precision, double precision, double precision,
  double precision) is
  'The volatility at which risk.option_greeks gives the price, 0.2 for 20 %; 0 where the price is '
  'the least that the option can be worth. What a price far in the money tells of volatility is '
  'lost in its rounding. Errors: RK400 where an argument is impossible, or no volatility gives the '
  'price: below the discounted intrinsic value, or not below the discounted spot (call) or strike '
  '(put).';
