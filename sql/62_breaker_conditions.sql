-- What a circuit breaker may watch, with parameters, defaults and source; and what of it a
-- definition may say.

insert into risk_private.breaker_conditions (
  condition, position, function_name, unit, parameters, default_threshold, description, source)
values
  ('volatility_level', 1, 'observe_volatility_level', 'points',
   '{"indicator": {"type": "indicator", "default": "VIX", "meaning": "which volatility index"}}',
   null, 'The value of the indicator.',
   'desk practice: VIX at 30, 40, 50'),
  ('volatility_spike', 2, 'observe_volatility_spike', '%',
   '{"indicator": {"type": "indicator", "default": "VIX", "meaning": "which volatility index"},
     "window": {"type": "seconds", "default": 86400, "meaning": "how far to look back"}}',
   null,
   '(v - lowest) / lowest x 100 over the window, in which the value that stood when it began, such '
   'as the prior close, counts.',
   'desk practice: 30 % within a day'),
  ('daily_loss', 3, 'observe_daily_loss', '% or money',
   '{"unit": {"type": "choice", "choices": ["pct", "amount"], "default": "pct",
              "meaning": "of the start equity, or in base currency"}}',
   null,
   'Start equity + flows since - equity; as a percentage of the start equity, which trips when it '
   'is 0 or less.',
   'desk practice: 2-3 % a day; LEAN, freqtrade'),
  ('drawdown', 4, 'observe_drawdown', '% or money',
   '{"unit": {"type": "choice", "choices": ["pct", "amount"], "default": "pct",
              "meaning": "of the peak, or in base currency"}}',
   null,
   'Peak equity - equity; as a percentage of the peak, 100 where peak or equity is 0 or less. A '
   'reset by a person rebases the peak.',
   'LEAN 5 %, freqtrade 20 %'),
  ('correlation', 5, 'observe_correlation', '-1 to 1',
   '{"days": {"type": "days", "default": 60, "meaning": "daily returns to look back on"}}',
   null,
   'Mean Pearson correlation of the daily log returns of all pairs of underlyings held, neither '
   'weighted by size nor signed by side. A pair counts from 20 common days on, with variance.',
   'desk practice: 0.3 and up over 60 days'),
  ('price_move', 6, 'observe_price_move', '%',
   '{"symbol": {"type": "symbol", "default": null,
                "meaning": "whose mark; by default the breaker''s underlying"},
     "indicator": {"type": "indicator", "default": null, "meaning": "instead of a symbol"},
     "reference": {"type": "choice", "choices": ["mean_5m", "prior_close"], "default": "mean_5m",
                   "meaning": "mean of the marks of the 5 minutes before, or the last close"},
     "direction": {"type": "choice", "choices": ["both", "up", "down"], "default": "both",
                   "meaning": "which moves count"}}',
   null, 'Distance of a mark from its reference, in percent of the reference.',
   'LULD 5/10/20 % of the 5-minute mean; market-wide 7/13/20 % down from the prior close'),
  ('limit_breach', 7, 'observe_limit_breach', 'limits', '{}', 1,
   'Number of limits of the scope and below whose filled use exceeds the limit.',
   'MiFID II RTS 6 art. 17: post-trade controls'),
  ('stale_data', 8, 'observe_stale_data', 'seconds', '{}', null,
   'Age of the oldest input of the scope and all below: marks of what is held or in open orders '
   'and of its underlyings, indicators and marks that circuit breakers watch.',
   'RTS 7 art. 12: 5 seconds'),
  ('reject_rate', 9, 'observe_reject_rate', '%',
   '{"window": {"type": "seconds", "default": 60, "meaning": "how far to look back"}}',
   null,
   'Rejected / (accepted + rejected) x 100 in the window, from 20 orders on, without refusals by '
   'a halt, a breaker, REDUCE_ONLY or stale data.',
   'RTS 6 art. 15, exchanges'' reject counters'),
  ('order_rate', 10, 'observe_order_rate', 'orders',
   '{"window": {"type": "seconds", "default": 1, "meaning": "how far to look back"}}',
   null, 'Orders and replaces decided in the window, accepted or rejected.',
   'RTS 6 art. 15(1)(d); Nautilus 100 a second'),
  ('repeated_fills', 11, 'observe_repeated_fills', 'fills',
   '{"window": {"type": "seconds", "default": 60, "meaning": "how far to look back"}}',
   null,
   'Most fills of one account, agent, symbol and side in the window, since it was last armed or '
   'tripped.',
   'RTS 6 art. 15(3): until designated staff re-enable'),
  ('consecutive_losses', 12, 'observe_consecutive_losses', 'orders', '{}', null,
   'Closing orders in a row whose realized P&L net of fees is below 0, since it was last armed or '
   'tripped.',
   'freqtrade StoplossGuard'),
  ('queue_backlog', 13, 'observe_queue_backlog', 'seconds',
   '{"queue": {"type": "choice", "choices": ["risk_events", "risk_alerts"],
               "default": "risk_events", "meaning": "which queue"}}',
   null, 'Age of the oldest message in the queue.',
   'RTS 7 art. 12: 5 seconds'),
  ('escalation', 14, 'observe_escalation', 'breakers',
   '{"window": {"type": "seconds", "default": 300, "meaning": "how far to look back"}}',
   null,
   'Circuit breakers of the scope and below that tripped in the window, other than escalations and '
   'those that only notify.',
   'NYSE Arca trigger counter; ISE market-wide risk protection');

update risk_private.breaker_conditions as c set reset_policies = array['manual']
where c.condition = 'repeated_fills';
update risk_private.breaker_conditions as c set may_be_empty = true
where c.condition in ('correlation', 'price_move');

create function risk_private.breaker_condition(condition text)
returns risk_private.breaker_conditions
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_condition risk_private.breaker_conditions;
begin
  select c.* into v_condition from risk_private.breaker_conditions as c
  where c.condition = breaker_condition.condition;
  if v_condition.condition is null then
    perform risk_private.fail('RK400', pg_catalog.format('unknown condition %L', condition),
      'argument: condition', 'One of ' || (
        select pg_catalog.string_agg(c.condition, ', ' order by c.position)
        from risk_private.breaker_conditions as c) || '.');
  end if;
  return v_condition;
end
$$;
comment on function risk_private.breaker_condition(text) is
  'The condition of that name; RK400 where there is none.';

create function risk_private.parameter_seconds(value jsonb) returns numeric
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_catalog.jsonb_typeof(value) = 'number' then
    return value::numeric;
  end if;
  return extract(epoch from (value #>> '{}')::interval);
exception when data_exception then
  return null;
end
$$;
comment on function risk_private.parameter_seconds(jsonb) is
  'A number of seconds, or an interval such as "5 minutes", in seconds; NULL for neither.';

create function risk_private.breaker_parameter(name text, spec jsonb, value jsonb) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_text text := value #>> '{}';
  v_problem text;
begin
  if spec ->> 'type' = 'seconds' then
    value := pg_catalog.to_jsonb(risk_private.parameter_seconds(value));
    v_problem := case when (value::numeric > 0 and value::numeric <= 2678400) is not true
      then 'a number of seconds or an interval above 0, at most 31 days' end;
  elsif spec ->> 'type' = 'days' then
    v_problem := case when (pg_catalog.jsonb_typeof(value) = 'number'
      and v_text ~ '^[0-9]{1,3}$' and v_text::integer between 20 and 250) is not true
      then 'a whole number from 20 to 250' end;
  elsif spec ->> 'type' = 'choice' then
    v_problem := case when (spec -> 'choices' ? v_text) is not true
      then 'one of ' || (spec ->> 'choices') end;
  elsif spec ->> 'type' = 'symbol' then
    perform risk_private.instrument_id(v_text);
  elsif not risk_private.is_code(v_text) or pg_catalog.jsonb_typeof(value) <> 'string' then
    v_problem := 'a name of 1 to 64 printable characters';
  end if;
  if v_problem is not null then
    perform risk_private.fail('RK400',
      pg_catalog.format('parameter %s must be %s', name, v_problem),
      pg_catalog.format('argument: parameters, value: %s', coalesce(v_text, 'null')));
  end if;
  return value;
end
$$;
comment on function risk_private.breaker_parameter(text, jsonb, jsonb) is
  'A parameter in the form in which it is kept. Errors: RK400, RK404 unknown symbol.';

create function risk_private.breaker_parameters(
  condition risk_private.breaker_conditions, given jsonb, underlying text) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_unknown text;
  v_parameters jsonb;
begin
  if pg_catalog.jsonb_typeof(given) is distinct from 'object' then
    perform risk_private.fail('RK400', 'parameters must be a JSON object', 'argument: parameters');
  end if;
  select k into v_unknown from pg_catalog.jsonb_object_keys(given) as k
  where not condition.parameters ? k limit 1;
  if v_unknown is not null then
    perform risk_private.fail('RK400',
      pg_catalog.format('%s has no parameter %L', condition.condition, v_unknown),
      'argument: parameters', coalesce('Known: ' || (
        select pg_catalog.string_agg(k, ', ' order by k)
        from pg_catalog.jsonb_object_keys(condition.parameters) as k) || '.', 'It has none.'));
  end if;
  select coalesce(pg_catalog.jsonb_object_agg(p.key, case
    when given ? p.key then risk_private.breaker_parameter(p.key, p.value, given -> p.key)
    else p.value -> 'default' end), '{}') into v_parameters
  from pg_catalog.jsonb_each(condition.parameters) as p;
  if condition.condition <> 'price_move' then
    return v_parameters;
  end if;
  if given ?& array['symbol', 'indicator'] then
    perform risk_private.fail('RK400', 'price_move watches a symbol or an indicator, not both',
      'argument: parameters');
  elsif not given ?| array['symbol', 'indicator'] then
    if underlying is null then
      perform risk_private.fail('RK400', 'price_move needs a symbol or an indicator to watch',
        'argument: parameters', 'Such as {"symbol": "AAPL"}, or give the breaker an underlying.');
    end if;
    v_parameters := v_parameters || pg_catalog.jsonb_build_object('symbol', underlying);
  end if;
  return v_parameters;
end
$$;
comment on function risk_private.breaker_parameters(
  risk_private.breaker_conditions, jsonb, text) is
  'The parameters of a definition with defaults filled in. Errors: RK400 unknown or malformed, '
  'RK404 unknown symbol.';
