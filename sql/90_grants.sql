-- Who may do what: the only grants there are. Nobody but the owner reaches a table. What a
-- procedure calls in risk_private is granted to whoever may call the procedure, because only a
-- procedure that runs as its caller can commit; those functions check their caller and tell nothing
-- that is not committed.

revoke all on all tables in schema risk, risk_private from public;
revoke all on all sequences in schema risk, risk_private from public;
revoke all on all routines in schema risk, risk_private from public;

grant usage on schema risk, risk_private
to risk_trader, risk_execution, risk_feed, risk_admin, risk_worker, risk_analyst, risk_auditor;

-- Deciding
grant execute on procedure risk.check_order, risk.check_combo, risk.check_orders, risk.replace_order
to risk_trader;
grant execute on function
  risk_private.accept_order, risk_private.accepted, risk_private.answer,
  risk_private.decide_order, risk_private.batch_items,
  risk_private.accept_batch, risk_private.accepted_batch, risk_private.decide_batch,
  risk_private.answers,
  risk_private.decide_replace, risk_private.answer_replace
to risk_trader;

grant execute on function
  risk.preview_order, risk.preview_combo, risk_private.preview, risk_private.combo_legs,
  risk_private.fail
to risk_trader, risk_admin, risk_analyst;

-- What happened to orders
grant execute on procedure
  risk.record_fill, risk.record_trade, risk.ack_order, risk.release_order, risk.dispatch_order,
  risk.confirm_replace, risk.reject_replace
to risk_execution;
grant execute on procedure risk.bust_fill, risk.correct_fill to risk_execution;
grant execute on function risk_private.bust_fill, risk_private.correct_fill to risk_execution;
grant execute on procedure risk.adjust_instrument to risk_admin;
grant execute on function risk_private.adjust_instrument to risk_admin;
grant execute on procedure risk.post_cash to risk_execution, risk_admin;
grant execute on function risk_private.post_cash to risk_execution, risk_admin;
grant execute on procedure risk.set_fx to risk_feed;
grant execute on function
  risk_private.set_fx, risk_private.accounts_in, risk_private.recarry, risk_private.end_rate
to risk_feed;
grant execute on function
  risk_private.record_fill, risk_private.record_trade, risk_private.fill_detail,
  risk_private.ack_order, risk_private.release_order, risk_private.dispatch_order,
  risk_private.dispatch_answer, risk_private.end_replace
to risk_execution;

-- Market data
grant execute on procedure risk.set_marks, risk.remark_underlying to risk_feed;
grant execute on procedure risk.revalue to risk_feed, risk_admin, risk_worker;
grant execute on procedure risk_private.revalue_sparingly to risk_feed, risk_admin, risk_worker;
grant execute on procedure risk_private.follow to risk_feed, risk_admin;
grant execute on function risk_private.worker_follows to risk_feed, risk_admin;
grant execute on function
  risk_private.next_pass, risk_private.revalue, risk_private.rested, risk_private.end_pass
to risk_feed, risk_admin, risk_worker;
grant execute on function risk_private.set_marks, risk_private.remark_underlying to risk_feed;

-- History
grant execute on procedure risk.load_closes to risk_feed, risk_admin;
grant execute on function risk_private.load_closes to risk_feed, risk_admin;
grant select on
  risk.portfolio_greeks, risk.return_history, risk.correlation_matrix, risk.daily_summary
to risk_admin, risk_worker, risk_analyst, risk_auditor;
grant execute on procedure risk.refresh_views to risk_admin, risk_worker;
grant execute on function risk_private.views_to_refresh, risk_private.refresh_materialized
to risk_admin, risk_worker;

grant execute on procedure risk.set_indicator to risk_feed;
grant execute on function risk_private.set_indicator to risk_feed;

-- Circuit breakers
grant execute on procedure
  risk.define_breaker, risk.remove_breaker, risk.trip_breaker, risk.reset_breaker
to risk_admin;
grant execute on function
  risk_private.define_breaker, risk_private.remove_breaker, risk_private.trip_breaker,
  risk_private.reset_breaker, risk_private.breaker_place
to risk_admin;
grant execute on procedure risk_private.cancel_halted to risk_worker;
grant execute on function
  risk_private.sweep, risk_private.accounts_halted, risk_private.cancel_halted_orders
to risk_worker;

-- What options are worth: arithmetic that says nothing of anybody
grant execute on function
  risk.option_greeks, risk.implied_volatility, risk_private.option_problem,
  risk_private.require_option_terms, risk_private.implied_volatility, risk_private.find_deviation,
  risk_private.fail
to risk_trader, risk_execution, risk_feed, risk_admin, risk_worker, risk_analyst, risk_auditor;

-- Stopping
grant execute on procedure risk.cancel_orders, risk_private.cancel_orders
to risk_trader, risk_admin;
grant execute on function risk_private.accounts_to_cancel, risk_private.request_cancels
to risk_trader, risk_admin;
grant execute on function risk_private.flush, risk_private.flush_by_commit
to risk_trader, risk_execution, risk_admin;

-- Administration
grant execute on procedure
  risk.create_scope, risk.upsert_instruments, risk.grant_trading, risk.revoke_trading,
  risk.load_position_limits, risk.apply_position_limits,
  risk.set_limit, risk.set_limits, risk.remove_limit, risk.set_setting, risk.set_trading_state,
  risk.set_instrument_status, risk.open_day
to risk_admin;
grant execute on function
  risk_private.create_scope, risk_private.upsert_instruments, risk_private.grant_trading,
  risk_private.load_position_limits, risk_private.apply_position_limits,
  risk_private.revoke_trading, risk_private.set_limit, risk_private.set_limits,
  risk_private.remove_limit, risk_private.set_setting, risk_private.set_trading_state,
  risk_private.set_instrument_status, risk_private.set_trading_date, risk_private.roll_account
to risk_admin;
grant execute on function risk.verify_counters
to risk_admin, risk_worker, risk_analyst, risk_auditor;

-- The worker. Every function checks its epoch; those without one change nothing.
grant execute on function
  risk_private.lease, risk_private.take_lease, risk_private.take_lease_at,
  risk_private.terminate_worker, risk_private.keep_lease, risk_private.release_lease,
  risk_private.waiting, risk_private.read_events, risk_private.handle_events,
  risk_private.bury_event,
  risk_private.bound_queues, risk_private.evaluate, risk_private.has_unfollowed,
  risk_private.count_breaches,
  risk_private.begin_due_day,
  risk_private.roll_account_at, risk_private.tell_lapsed_limits, risk_private.tell_warnings,
  risk_private.parts_to_recount, risk_private.reconcile, risk_private.views_to_refresh,
  risk_private.refresh_view
to risk_worker;

-- Limits for caches; whose limits, the function checks.
grant execute on function
  risk.hot_limits, risk.limit_cache, risk_private.hot_limits, risk_private.limit_cache
to risk_trader, risk_admin, risk_worker, risk_analyst, risk_auditor;

-- Reading. The functions are those that views call: they run as the reader.
grant select on
  risk.orders, risk.open_orders, risk.decisions, risk.violations, risk.fills, risk.positions,
  risk.cash, risk.fill_corrections
to risk_trader, risk_execution, risk_admin, risk_worker, risk_analyst, risk_auditor;
grant select on risk.instruments, risk.marks, risk.indicators, risk.adjustments
to risk_trader, risk_execution, risk_feed, risk_admin, risk_worker, risk_analyst, risk_auditor;
grant select on
  risk.scopes, risk.trading_states, risk.breakers, risk.breaker_events, risk.breaker_conditions,
  risk.queue_status, risk.health
to risk_execution, risk_admin, risk_worker, risk_analyst, risk_auditor;
grant select on
  risk.settings, risk.trading_grants, risk.limits, risk.limit_history, risk.limit_utilization,
  risk.exposure, risk.concentration, risk.same_side_positions, risk.position_limits, risk.pnl
to risk_admin, risk_worker, risk_analyst, risk_auditor;
grant execute on function
  risk_private.order_id, risk_private.visible_accounts, risk_private.is_settled,
  risk_private.present_trading_date
to risk_trader, risk_execution, risk_admin, risk_worker, risk_analyst, risk_auditor;
grant execute on function risk_private.clock
to risk_execution, risk_admin, risk_worker, risk_analyst, risk_auditor;
grant execute on function
  risk_private.counter_id, risk_private.greek_sides, risk_private.worst_case,
  risk_private.accepted_since, risk_private.daily_loss, risk_private.drawdown_pct,
  risk_private.concentration_pct, risk_private.side
to risk_admin, risk_worker, risk_analyst, risk_auditor;

reset role;

-- Queues are read with pgmq's own functions: alerts by the gateway, which cancels, all of them by
-- the worker.
grant usage on schema pgmq to risk_execution, risk_worker;
grant select, update, delete on pgmq.q_risk_alerts to risk_execution;
grant select, insert on pgmq.a_risk_alerts to risk_execution;
grant select, insert, update, delete on pgmq.q_risk_events, pgmq.q_risk_alerts, pgmq.q_risk_dead
to risk_worker;
grant select, insert on pgmq.a_risk_events, pgmq.a_risk_alerts, pgmq.a_risk_dead to risk_worker;
