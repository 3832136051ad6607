-- What limits on Greeks are judged by.

create table risk_private.exposures (
  counter_id bigint primary key,
  scope_id integer not null,
  dimension smallint not null,
  key_id integer not null,
  delta numeric not null default 0,
  delta_up numeric not null default 0,
  delta_down numeric not null default 0,
  gamma numeric not null default 0,
  gamma_up numeric not null default 0,
  gamma_down numeric not null default 0,
  dollar_delta numeric not null default 0,
  dollar_delta_up numeric not null default 0,
  dollar_delta_down numeric not null default 0,
  dollar_gamma numeric not null default 0,
  dollar_gamma_up numeric not null default 0,
  dollar_gamma_down numeric not null default 0,
  vega numeric not null default 0,
  vega_up numeric not null default 0,
  vega_down numeric not null default 0,
  theta numeric not null default 0,
  theta_up numeric not null default 0,
  theta_down numeric not null default 0,
  gross_exposure numeric not null default 0,
  unknown integer not null default 0
) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
comment on table risk_private.exposures is
  'Greeks over the accounts below a scope, for all or for one sector, underlying or instrument, '
  'where a limit needs them; numbered as counters are, and touched only while the counters of the '
  'chain are locked. No row: nothing was ever traded there. Delta and gamma mean something per '
  'underlying only.';
comment on column risk_private.exposures.delta is 'Of what is filled. Likewise the other Greeks.';
comment on column risk_private.exposures.delta_up is
  'delta + the sum of max(0, e) over open orders, e being what an order, netted over its legs '
  'here, adds when its rest is filled. Likewise the other Greeks.';
comment on column risk_private.exposures.delta_down is 'delta + the sum of min(0, e).';
comment on column risk_private.exposures.gross_exposure is
  'Sum of worst-case quantities x |dollar delta| of a unit.';
comment on column risk_private.exposures.unknown is
  'Pairs of account and instrument held or in open orders whose Greeks are unknown; they are in '
  'none of the sums.';
