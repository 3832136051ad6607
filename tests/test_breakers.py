"""Circuit breakers: tripping, and what a trip does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.breaker_desk import Desk
from tests.orders import Caller, Row, callers, is_waiting, item, wait_until

if TYPE_CHECKING:
    from tests.databases import Database


def test_it_trips_at_the_threshold_and_remembers_why(db: Database, desk: Desk) -> None:
    desk.define(reason="panic")
    assert desk.vix(39.99999999999999) == 0
    assert desk.state() == "ARMED"
    assert desk.vix(40) == 1
    row = desk.breaker()
    assert (row["state"], row["last_value"], row["tripped_value"]) == ("TRIPPED", 40, 40)
    assert row["tripped_at"] == row["last_evaluated_at"] == row["tripped_data_at"] == desk.now
    assert (row["tripped_by"], row["is_manual"]) == ("postgres", False)
    (event,) = desk.firm.rows("select * from risk.breaker_events where event = 'TRIPPED'")
    assert (event["value"], event["threshold"], event["data_at"]) == (40, 40, desk.now)
    (alert,) = desk.firm.alerts("breaker_tripped")
    assert (alert["breaker"], alert["scope"], alert["value"]) == ("vix", "F", "40")
    assert (alert["severity"], alert["action"]) == ("critical", "HALT")
    assert desk.sweep() == 0, "it latches"
    assert desk.vix(20) == 0
    assert desk.state() == "TRIPPED"


def test_a_spike_between_two_evaluations_is_not_missed(desk: Desk) -> None:
    desk.define()
    desk.vix(30)
    for value in (41, 45, 30):
        desk.vix(value, sweeps=False)
    assert desk.sweep() == 1
    row = desk.breaker()
    assert (row["tripped_value"], row["last_value"]) == (45, 30)
    assert row["tripped_data_at"] == desk.now - timedelta(seconds=1)


def test_a_value_that_comes_late_is_judged_and_not_shown(desk: Desk) -> None:
    desk.define()
    desk.vix(30)
    desk.wait(60)
    desk.vix(31)
    late = desk.now - timedelta(seconds=30)
    desk.firm.call("set_indicator", name="VIX", value=44, as_of=late)
    assert desk.sweep() == 1
    assert desk.breaker()["tripped_data_at"] == late
    assert desk.firm.value("select value from risk.indicators") == 31


def test_a_value_that_commits_after_a_later_one_is_judged(db: Database, desk: Desk) -> None:
    """The evaluation in between has seen the later one only."""
    desk.define()
    desk.wait()
    with db.connect(autocommit=False) as slow:
        slow.execute("select risk_private.set_indicator('SPX', 1, null)")
        slow.execute(
            "insert into risk_private.indicator_ticks (indicator_id, as_of, value)"
            " select indicator_id, %s, 50 from risk_private.indicators where name = 'VIX'",
            [desk.now],
        )
        assert desk.vix(30) == 0
        slow.commit()
    assert desk.sweep() == 1


def test_data_from_before_it_was_armed_is_not_judged(desk: Desk) -> None:
    desk.vix(45)
    desk.wait()
    desk.define()
    assert desk.sweep() == 0
    desk.firm.call("set_indicator", name="VIX", value=46, as_of=desk.now - timedelta(seconds=1))
    assert desk.sweep() == 0
    assert desk.vix(45) == 1
    desk.vix(30)
    desk.reset()
    desk.firm.call("set_indicator", name="VIX", value=46, as_of=desk.now - timedelta(seconds=1))
    assert desk.sweep() == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), None])
def test_an_indicator_is_a_finite_number(desk: Desk, value: float | None) -> None:
    assert desk.refusal("set_indicator", name="VIX", value=value) == ("RK400", "argument: value")
    assert desk.firm.rows("select * from risk.indicators") == []


def test_an_indicator_has_a_name_and_is_not_from_the_future(desk: Desk) -> None:
    soon = desk.now + timedelta(seconds=2)
    arguments: Row = {"name": "VIX", "value": 1.0, "as_of": soon}
    code, detail = desk.refusal("set_indicator", **arguments)
    assert code == "RK400"
    assert detail.startswith("argument: as_of")
    for as_of in ("infinity", "-infinity"):
        assert desk.refusal("set_indicator", **arguments | {"as_of": as_of})[0] == "RK400"
    for name in ("", None, "x" * 65):
        assert desk.refusal("set_indicator", name=name, value=1.0) == ("RK400", "argument: name")


def test_a_condition_that_fails_trips_its_breaker_and_no_other(desk: Desk) -> None:
    for number in range(5):
        desk.define(f"b{number}")
    desk.define("other", condition="order_rate", threshold=1)
    desk.firm.rows(
        "update risk_private.breakers set parameters = '{\"window\": \"x\"}' where name = 'other'"
    )
    desk.firm.rows(
        """create or replace function risk_private.observe_volatility_level(
             watches risk_private.watch[], at timestamptz)
           returns setof risk_private.observation language plpgsql as $$
           begin
             return query select w.breaker_id, 1 / (w.breaker_id - 3)::numeric, at,
               1 / (w.breaker_id - 3)::numeric, at, null::text
             from unnest(watches) as w;
           end $$"""
    )
    assert desk.sweep() == 2
    rows = desk.firm.rows("select breaker, error, value from risk.breaker_events where event = %s",
                          "TRIPPED")  # fmt: skip
    errors = {row["breaker"]: row["error"] for row in rows}
    assert errors.keys() == {"b2", "other"}
    assert errors["b2"] == "division by zero"
    assert all(row["value"] is None for row in rows)
    assert desk.state("b4") == "ARMED"
    assert desk.refusal("reset_breaker", name="b2", reason="x") == ("RK409", "argument: name")


def test_a_condition_that_says_nothing_of_a_breaker_trips_it(desk: Desk) -> None:
    desk.define()
    desk.firm.rows(
        """create or replace function risk_private.observe_volatility_level(
             watches risk_private.watch[], at timestamptz)
           returns setof risk_private.observation language plpgsql as 'begin end'"""
    )
    assert desk.sweep() == 1


def test_a_halt_refuses_everything_below_and_nothing_beside(desk: Desk) -> None:
    desk.firm.hold("A1", "AAPL", 10)
    desk.define(scope="D1")
    desk.vix(41)
    assert desk.buy("A1") == desk.buy("A2") == "CIRCUIT_BREAKER_TRIPPED"
    assert desk.buy("B1") == "ACCEPTED"
    closing = desk.firm.check("A1", "close", "AAPL", "sell", 10, 100)
    assert (closing.reason, closing.allowed_quantity) == ("CIRCUIT_BREAKER_TRIPPED", Decimal(0))
    (violation,) = closing.violations
    assert (violation["scope"], violation["breaker"]) == ("D1", "vix")


def test_reduce_only_passes_what_reduces(desk: Desk) -> None:
    desk.firm.hold("A1", "AAPL", 10)
    desk.define(action="REDUCE_ONLY")
    desk.vix(41)
    assert desk.buy() == "CIRCUIT_BREAKER_TRIPPED"
    assert desk.firm.check("A1", "s", "AAPL", "sell", 4, 100).is_accepted
    too_much = desk.firm.check("A1", "t", "AAPL", "sell", 9, 100)
    assert (too_much.reason, too_much.allowed_quantity) == ("CIRCUIT_BREAKER_TRIPPED", Decimal(6))


def test_notify_only_tells(desk: Desk) -> None:
    desk.define(action="NOTIFY")
    assert desk.vix(41) == 1
    assert desk.buy() == "ACCEPTED"
    assert desk.state() == "TRIPPED"
    (alert,) = desk.firm.alerts("breaker_tripped")
    assert alert["severity"] == "warning"


def test_a_breaker_of_one_underlying_leaves_the_others(desk: Desk) -> None:
    desk.define(underlying="AAPL")
    desk.vix(41)
    assert desk.buy(symbol="AAPL C100") == "CIRCUIT_BREAKER_TRIPPED"
    assert desk.buy(symbol="MSFT") == "ACCEPTED"
    combo = desk.firm.combo("A1", "c", "buy 1 MSFT, sell 1 AAPL P90", 1)
    assert combo.reason == "CIRCUIT_BREAKER_TRIPPED"


def test_every_way_to_an_order_meets_it(desk: Desk) -> None:
    firm = desk.firm
    for name in ("dispatched", "replaced"):
        assert firm.check("A1", name, "AAPL", "buy", 2, 100).is_accepted
    desk.define()
    desk.vix(41)
    reason = "CIRCUIT_BREAKER_TRIPPED"
    assert firm.check("A1", "single", "AAPL", "buy", 1, 100).reason == reason
    assert firm.combo("A1", "combo", "buy 1 AAPL, buy 1 MSFT", 1).reason == reason
    batch = [item("A1", "one", "buy AAPL", 1), item("B1", "two", "buy MSFT", 1)]
    assert [answer.reason for answer in firm.batch(batch)] == [reason, reason]
    replaced = firm.replace("A1", "replaced", "new", 1, 100)
    assert (replaced.reason, replaced.allowed_quantity) == (reason, Decimal(0)), "even one for less"
    dispatched = firm.call("dispatch_order", account="A1", client_order_id="dispatched")
    assert dispatched == {"decision": "REJECTED", "reason": reason}
    assert firm.value("select state from risk.orders where client_order_id = 'dispatched'") == (
        "CANCELLED"
    )
    failed = firm.rows(
        "select reason from risk.preview_order('A1', 'AAPL', 'buy', 1, 100) where status = 'FAIL'"
    )
    assert failed == [{"reason": reason}]
    assert firm.differences() == []


def test_a_smaller_replace_passes_reduce_only(desk: Desk) -> None:
    assert desk.firm.check("A1", "old", "AAPL", "buy", 2, 100).is_accepted
    desk.define(action="REDUCE_ONLY")
    desk.vix(41)
    larger = desk.firm.replace("A1", "old", "larger", 3, 100)
    assert (larger.reason, larger.allowed_quantity) == ("CIRCUIT_BREAKER_TRIPPED", Decimal(2))
    assert desk.firm.replace("A1", "old", "smaller", 1, 100).is_accepted


def test_a_halt_by_a_person_is_graver_and_lifting_it_clears_no_breaker(desk: Desk) -> None:
    desk.define(action="REDUCE_ONLY")
    desk.vix(41)
    state = {"scope": "F", "reason": "a test"}
    desk.firm.call("set_trading_state", state="HALTED", **state)
    assert desk.buy() == "TRADING_HALTED"
    desk.firm.call("set_trading_state", state="REDUCE_ONLY", **state)
    assert desk.buy() == "CIRCUIT_BREAKER_TRIPPED"
    desk.firm.call("set_trading_state", state="ACTIVE", **state)
    assert desk.buy() == "CIRCUIT_BREAKER_TRIPPED"
    (row,) = desk.firm.rows("select * from risk.trading_states where scope = 'A1'")
    assert (row["own_state"], row["effective_state"]) == ("ACTIVE", "REDUCE_ONLY")
    assert row["reason"] == "breaker vix: volatility_level 41 >= 40"


def test_the_most_severe_breaker_counts(desk: Desk) -> None:
    desk.define("soft", 30, action="REDUCE_ONLY")
    desk.define("hard", 50, action="HALT", scope="D1")
    desk.define("one", 30, action="HALT", scope="A2", underlying="MSFT")
    desk.vix(55)
    rows = desk.firm.rows("select scope, underlying, effective_state from risk.trading_states")
    states = {(row["scope"], row["underlying"]): row["effective_state"] for row in rows}
    assert states["F", None] == states["B1", None] == "REDUCE_ONLY"
    assert states["A1", None] == states["A2", None] == states["A2", "MSFT"] == "HALTED"
    desk.vix(20)
    desk.reset("hard")
    rows = desk.firm.rows("select scope, underlying, effective_state from risk.trading_states")
    states = {(row["scope"], row["underlying"]): row["effective_state"] for row in rows}
    assert states["A1", None] == states["A2", None] == "REDUCE_ONLY"
    assert states["A2", "MSFT"] == "HALTED"


def test_it_trips_while_a_trader_holds_the_lock_of_his_account(db: Database, desk: Desk) -> None:
    desk.define(scope="A1", action="HALT_AND_CANCEL")
    desk.wait()
    with db.connect(autocommit=False) as trader, callers(db, 1) as (other,):
        trader.execute(
            "select from risk_private.counters as c join risk_private.scopes as s"
            " on c.counter_id = risk_private.counter_id(s.scope_id)"
            " where s.code in ('A1', 'D1', 'F') for update of c"
        )
        with ThreadPoolExecutor(1) as pool:
            order = pool.submit(other.check, "A1", "waiting", "AAPL", "buy", 1, 100)
            wait_until(lambda: is_waiting(desk.firm, other))
            assert desk.vix(41) == 1
            assert desk.state() == "TRIPPED"
            desk.firm.rows("call risk_private.cancel_halted(0)")
            trader.rollback()
            assert order.result().reason == "CIRCUIT_BREAKER_TRIPPED"


def test_halt_and_cancel_asks_for_every_open_order_until_it_is_released(desk: Desk) -> None:
    firm = desk.firm
    for account in ("A1", "A2", "B1"):
        firm.check(account, f"of {account}", "AAPL", "buy", 1, 100)
    firm.check("A1", "other", "MSFT", "buy", 1, 100)
    desk.define(scope="D1", underlying="AAPL", action="HALT_AND_CANCEL")
    desk.vix(41)
    assert firm.alerts("cancel_request") == [], "the trip itself waits for no account"
    for _ in range(2):
        firm.rows("call risk_private.cancel_halted(0)")
        requests = firm.alerts("cancel_request")
        assert sorted(request["client_order_id"] for request in requests) == ["of A1", "of A2"]
    assert requests[0]["reason"] == "breaker vix: volatility_level 41 >= 40"
    pending = "select count(*) from risk.open_orders where cancel_requested_at is not null"
    assert firm.value(pending) == 2
    firm.call("release_order", account="A1", client_order_id="of A1", reason="cancelled")
    assert firm.value(pending) == 1


def test_open_orders_that_turn_up_in_a_halt_are_asked_for(desk: Desk) -> None:
    """A person's halt too, unless it was to leave them."""
    firm = desk.firm
    state = {"state": "HALTED", "reason": "a test"}
    firm.call("set_trading_state", scope="D1", **state)
    firm.call("set_trading_state", scope="D2", cancel_open=False, **state)
    firm.rows("alter table risk_private.trading_states disable trigger user")
    firm.rows("update risk_private.trading_states set state = 'ACTIVE'")
    firm.check("A1", "late", "AAPL", "buy", 1, 100)
    firm.check("B1", "left", "AAPL", "buy", 1, 100)
    firm.rows("update risk_private.trading_states set state = 'HALTED'")
    firm.rows("call risk_private.cancel_halted(0)")
    assert [alert["client_order_id"] for alert in firm.alerts("cancel_request")] == ["late"]


def test_halt_leaves_working_orders(desk: Desk) -> None:
    desk.firm.check("A1", "working", "AAPL", "buy", 1, 100)
    desk.define(action="HALT")
    desk.vix(41)
    desk.firm.rows("call risk_private.cancel_halted(0)")
    assert desk.firm.alerts("cancel_request") == []


def test_a_worker_whose_epoch_is_over_evaluates_and_cancels_nothing(desk: Desk) -> None:
    desk.define(action="HALT_AND_CANCEL")
    desk.vix(41, sweeps=False)
    for statement in ("select risk_private.sweep(7)", "call risk_private.cancel_halted(7)"):
        with pytest.raises(psycopg.Error) as caught:
            desk.firm.rows(statement)
        assert caught.value.sqlstate == "RK409"
    assert desk.state() == "ARMED"
    assert desk.firm.value("select risk_private.sweep(0)") == 1


def test_the_worker_trips_through_its_sweep_only(db: Database, desk: Desk) -> None:
    desk.define()
    with db.connect(db.create_user("w", "risk_worker")) as connection:
        worker = Caller(connection)
        for statement in (
            "call risk.trip_breaker('vix', 'x')",
            "call risk.reset_breaker('vix', 'x')",
            "select risk_private.evaluate_breakers()",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                worker.rows(statement)
        desk.vix(41, sweeps=False)
        assert worker.value("select risk_private.sweep(0)") == 1
        worker.rows("call risk_private.cancel_halted(0)")
    assert desk.breaker()["tripped_by"] == "w"


def test_an_admin_defines_trips_and_resets(db: Database, desk: Desk) -> None:
    with db.connect(db.create_user("boss", "risk_admin")) as connection:
        boss = Desk(db, Caller(connection))
        boss.firm.check = desk.firm.check  # type: ignore[method-assign]
        boss.define(action="HALT_AND_CANCEL")
        assert boss.firm.check("A1", "1", "AAPL", "buy", 1, 100).is_accepted
        boss.trip()
        assert boss.breaker()["tripped_by"] == "boss"
        boss.reset()
        boss.firm.call("remove_breaker", name="vix", reason="done")
    assert len(desk.firm.alerts("cancel_request")) == 1
