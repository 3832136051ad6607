"""Circuit breakers: how they are defined, trip, hold and reset."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.breaker_desk import Desk, open_desk
from tests.orders import Caller, Row, callers, is_waiting, item, open_firm, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import DurableServer
    from tests.databases import Database


@pytest.fixture
def desk(db: Database) -> Iterator[Desk]:
    """The small firm, with the superuser and a clock that stands still."""
    with open_desk(db) as opened:
        yield opened


def refusal(desk: Desk, procedure: str, **arguments: Any) -> tuple[str | None, str]:
    """Code of the error, and the argument that it is about."""
    with pytest.raises(psycopg.Error) as caught:
        desk.firm.call(procedure, **arguments)
    return caught.value.sqlstate, (caught.value.diag.message_detail or "").partition(",")[0]


# -- definitions -------------------------------------------------------------------------------

WINDOWS: list[Any] = [-1, 0, "-5 minutes", "soon", None, [], True, "32 days", 1e300]
DAYS: list[Any] = [19, 251, 30.5, "60", -60]
BAD_PARAMETERS: list[Row] = [
    *({"condition": "volatility_spike", "parameters": {"window": window}} for window in WINDOWS),
    *({"condition": "correlation", "parameters": {"days": days}} for days in DAYS),
]
SENSIBLE: Row = {
    "name": "b",
    "scope": "F",
    "condition": "volatility_level",
    "threshold": 40,
    "action": "HALT",
}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"name": " "}, ("RK400", "argument: name")),
        ({"name": None}, ("RK400", "argument: name")),
        ({"scope": "nowhere"}, ("RK404", "argument: scope")),
        ({"scope": None}, ("RK404", "argument: scope")),
        ({"condition": "moon"}, ("RK400", "argument: condition")),
        ({"condition": None}, ("RK400", "argument: condition")),
        ({"threshold": None}, ("RK400", "argument: threshold")),
        ({"threshold": Decimal("NaN")}, ("RK400", "argument: threshold")),
        ({"threshold": Decimal("Infinity")}, ("RK400", "argument: threshold")),
        ({"threshold": -1}, ("RK400", "argument: threshold")),
        ({"action": "PANIC"}, ("RK400", "argument: action")),
        ({"action": None}, ("RK400", "argument: action")),
        ({"reset_policy": "never"}, ("RK400", "argument: reset_policy")),
        ({"reset_policy": None}, ("RK400", "argument: reset_policy")),
        ({"reset_policy": "timer"}, ("RK400", "argument: cooldown")),
        ({"cooldown": timedelta(0)}, ("RK400", "argument: cooldown")),
        ({"cooldown": timedelta(seconds=-1)}, ("RK400", "argument: cooldown")),
        ({"cooldown": timedelta(days=400)}, ("RK400", "argument: cooldown")),
        ({"underlying": "nothing"}, ("RK404", "argument: symbol")),
        ({"underlying": "AAPL C100"}, ("RK400", "argument: underlying")),
        ({"reason": " "}, ("RK400", "argument: reason")),
        ({"parameters": [1]}, ("RK400", "argument: parameters")),
        ({"parameters": {"colour": 1}}, ("RK400", "argument: parameters")),
        ({"parameters": {"indicator": 3}}, ("RK400", "argument: parameters")),
        ({"parameters": {"indicator": ""}}, ("RK400", "argument: parameters")),
        ({"parameters": {"indicator": None}}, ("RK400", "argument: parameters")),
        *((bad, ("RK400", "argument: parameters")) for bad in BAD_PARAMETERS),
        ({"condition": "price_move"}, ("RK400", "argument: parameters")),
        ({"condition": "price_move", "parameters": {"symbol": "nothing"}},
         ("RK404", "argument: symbol")),
        ({"condition": "price_move", "parameters": {"symbol": "AAPL", "indicator": "SPX"}},
         ("RK400", "argument: parameters")),
        ({"condition": "price_move", "parameters": {"symbol": "AAPL", "direction": "left"}},
         ("RK400", "argument: parameters")),
        ({"condition": "repeated_fills", "reset_policy": "session"},
         ("RK400", "argument: reset_policy")),
    ],
)  # fmt: skip
def test_a_definition_that_makes_no_sense_is_refused(
    desk: Desk, arguments: Row, expected: tuple[str, str]
) -> None:
    given = SENSIBLE | arguments
    if "parameters" in given:
        given["parameters"] = Jsonb(given["parameters"])
    assert refusal(desk, "define_breaker", **given) == expected
    assert desk.firm.rows("select * from risk.breakers") == []
    assert desk.firm.rows("select * from risk.breaker_events") == []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"condition": "moon"}, ("moon", "argument: condition")),
        ({"threshold": Decimal("NaN")}, ("threshold", "argument: threshold, value: NaN")),
        ({"threshold": -1}, ("threshold", "argument: threshold, value: -1")),
        ({"cooldown": timedelta(days=-1)}, ("cooldown", "argument: cooldown, value: -1 days")),
        ({"parameters": {"colour": 1}}, ("colour", "argument: parameters")),
        ({"condition": "order_rate", "parameters": {"window": -1}},
         ("window", "argument: parameters, value: -1")),
        ({"condition": "order_rate", "parameters": {"window": "-5 minutes"}},
         ("window", "argument: parameters, value: -5 minutes")),
    ],
)  # fmt: skip
def test_a_refusal_names_what_is_wrong(desk: Desk, arguments: Row, named: tuple[str, str]) -> None:
    given = SENSIBLE | arguments
    given["parameters"] = Jsonb(given.get("parameters", {}))
    with pytest.raises(psycopg.Error) as caught:
        desk.firm.call("define_breaker", **given)
    assert caught.value.sqlstate == "RK400"
    assert named[0] in (caught.value.diag.message_primary or "")
    assert caught.value.diag.message_detail == named[1]


def test_a_definition_shows_its_defaults(desk: Desk) -> None:
    desk.define("spike", 30, condition="volatility_spike", action="NOTIFY", reason="calm seas")
    desk.define("breach", None, condition="limit_breach", scope="D1")
    desk.define("luld", 5, condition="price_move", scope="A1", underlying="AAPL")
    spike, breach, luld = map(desk.breaker, ("spike", "breach", "luld"))
    assert spike["parameters"] == {"indicator": "VIX", "window": 86400}
    assert (spike["state"], spike["last_value"], spike["tripped_at"]) == ("ARMED", None, None)
    assert (spike["reset_policy"], spike["reason"], spike["scope"]) == ("manual", "calm seas", "F")
    assert breach["threshold"] == 1
    assert luld["underlying"] == "AAPL"
    assert luld["parameters"] == {
        "symbol": "AAPL", "indicator": None, "reference": "mean_5m", "direction": "both",
    }  # fmt: skip


def test_a_window_may_be_an_interval(desk: Desk) -> None:
    desk.define("s", 30, condition="volatility_spike", parameters={"window": "90 minutes"})
    assert desk.breaker("s")["parameters"]["window"] == 5400


def test_every_condition_is_documented(desk: Desk) -> None:
    rows = desk.firm.rows("select * from risk.breaker_conditions")
    assert all(row["description"] and row["source"] and row["unit"] for row in rows)
    for row in rows:
        assert all(spec.keys() >= {"type", "default", "meaning"}
                   for spec in row["parameters"].values())  # fmt: skip


def test_the_same_definition_again_changes_nothing(desk: Desk) -> None:
    desk.define()
    armed = desk.breaker()["armed_at"]
    desk.wait()
    desk.define()
    assert desk.events() == ["DEFINED"]
    assert desk.breaker()["armed_at"] == armed


def test_another_threshold_holds_at_once_and_keeps_what_is_not_judged_yet(desk: Desk) -> None:
    desk.define()
    desk.vix(35)
    desk.vix(39, sweeps=False)
    desk.define(threshold=38)
    assert desk.sweep() == 1
    assert desk.breaker()["tripped_value"] == 39
    assert desk.events() == ["DEFINED", "REDEFINED", "TRIPPED"]


def test_a_tripped_breaker_stays_what_it_is(desk: Desk) -> None:
    desk.define()
    desk.vix(41)
    for change in (
        {"action": "NOTIFY"},
        {"scope": "D1"},
        {"underlying": "AAPL"},
        {"condition": "volatility_spike"},
    ):
        assert refusal(desk, "define_breaker", **SENSIBLE | {"name": "vix"} | change) == (
            "RK409",
            "argument: name",
        )
    desk.define(threshold=50)
    assert desk.buy() == "CIRCUIT_BREAKER_TRIPPED"
    desk.reset()
    assert desk.buy() == "ACCEPTED"


def test_an_armed_breaker_can_be_removed_and_its_history_stays(desk: Desk) -> None:
    desk.define()
    desk.trip()
    assert refusal(desk, "remove_breaker", name="vix", reason="x") == ("RK409", "argument: name")
    desk.reset()
    assert refusal(desk, "remove_breaker", name="vix", reason="") == ("RK400", "argument: reason")
    desk.firm.call("remove_breaker", name="vix", reason="no longer needed")
    assert desk.firm.rows("select * from risk.breakers") == []
    assert desk.events() == ["DEFINED", "TRIPPED", "RESET", "REMOVED"]
    assert refusal(desk, "remove_breaker", name="vix", reason="x") == ("RK404", "argument: name")


# -- tripping ----------------------------------------------------------------------------------


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
    assert refusal(desk, "set_indicator", name="VIX", value=value) == ("RK400", "argument: value")
    assert desk.firm.rows("select * from risk.indicators") == []


def test_an_indicator_has_a_name_and_is_not_from_the_future(desk: Desk) -> None:
    soon = desk.now + timedelta(seconds=2)
    arguments: Row = {"name": "VIX", "value": 1.0, "as_of": soon}
    code, detail = refusal(desk, "set_indicator", **arguments)
    assert code == "RK400"
    assert detail.startswith("argument: as_of")
    for as_of in ("infinity", "-infinity"):
        assert refusal(desk, "set_indicator", **arguments | {"as_of": as_of})[0] == "RK400"
    for name in ("", None, "x" * 65):
        assert refusal(desk, "set_indicator", name=name, value=1.0) == ("RK400", "argument: name")


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
    assert refusal(desk, "reset_breaker", name="b2", reason="x") == ("RK409", "argument: name")


def test_a_condition_that_says_nothing_of_a_breaker_trips_it(desk: Desk) -> None:
    desk.define()
    desk.firm.rows(
        """create or replace function risk_private.observe_volatility_level(
             watches risk_private.watch[], at timestamptz)
           returns setof risk_private.observation language plpgsql as 'begin end'"""
    )
    assert desk.sweep() == 1


# -- effects -----------------------------------------------------------------------------------


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


# -- by hand -----------------------------------------------------------------------------------


def test_a_person_trips_it_and_only_a_person_resets_it(desk: Desk) -> None:
    desk.define(reset_policy="timer", cooldown=timedelta(seconds=10), action="HALT_AND_CANCEL")
    desk.firm.check("A1", "open", "AAPL", "buy", 1, 100)
    desk.trip()
    assert desk.buy() == "CIRCUIT_BREAKER_TRIPPED"
    assert [alert["client_order_id"] for alert in desk.firm.alerts("cancel_request")] == ["open"]
    row = desk.breaker()
    assert (row["is_manual"], row["trip_reason"], row["tripped_value"]) == (True, "a test", None)
    desk.vix(10)
    for _ in range(3):
        desk.wait(3600)
        desk.sweep()
    assert desk.state() == "TRIPPED"
    desk.reset()
    assert desk.state() == "COOLDOWN"
    desk.wait(10)
    desk.sweep()
    assert desk.state() == "ARMED"
    assert desk.buy() == "ACCEPTED"


def test_a_person_takes_over_what_a_condition_tripped(desk: Desk) -> None:
    desk.define(reset_policy="timer", cooldown=timedelta(seconds=10))
    desk.vix(41)
    desk.trip()
    desk.trip()
    assert desk.events() == ["DEFINED", "TRIPPED", "TRIPPED"]
    desk.vix(10)
    desk.wait(60)
    desk.sweep()
    assert desk.state() == "TRIPPED"


def test_a_reset_is_refused_while_the_value_is_not_below_the_threshold(desk: Desk) -> None:
    desk.define()
    desk.vix(41)
    for value, expected in ((40, "RK409"), (39.9, None)):
        desk.vix(value)
        if expected:
            assert refusal(desk, "reset_breaker", name="vix", reason="x")[0] == expected
            assert desk.state() == "TRIPPED"
    desk.reset()
    assert desk.state() == "ARMED"
    (alert,) = desk.firm.alerts("breaker_reset")
    assert (alert["breaker"], alert["reason"], alert["value"]) == ("vix", "a test", "39.9")
    assert desk.firm.rows("select * from risk_private.trading_states") == []


def test_what_is_armed_or_unknown_cannot_be_reset(desk: Desk) -> None:
    desk.define()
    assert refusal(desk, "reset_breaker", name="vix", reason="x") == ("RK409", "argument: name")
    for procedure in ("trip_breaker", "reset_breaker"):
        assert refusal(desk, procedure, name="x", reason="x") == ("RK404", "argument: name")
        assert refusal(desk, procedure, name="vix", reason=" ") == ("RK400", "argument: reason")


def test_a_trip_survives_a_crash_right_after_the_call(
    durable_server: Callable[..., DurableServer],
) -> None:
    durable = durable_server(wal_writer_delay="10s")
    database = durable.create_database()
    with open_firm(database) as firm:
        firm.connection.execute("set synchronous_commit = off")
        desk = Desk(database, firm)
        desk.define("by hand")
        desk.define()
        desk.trip("by hand")
        desk.vix(41)
        durable.kill()
    database.server = durable.start()
    with database.connect() as connection:
        rows = Caller(connection).rows("select state from risk.breakers")
        assert [row["state"] for row in rows] == ["TRIPPED", "TRIPPED"]


# -- resetting by itself -----------------------------------------------------------------------


def test_the_timer_runs_from_when_the_value_is_well_below_the_threshold(desk: Desk) -> None:
    desk.define(reset_policy="timer", cooldown=timedelta(seconds=30))
    desk.vix(41)
    desk.vix(36)
    assert desk.state() == "TRIPPED", "0.9 x 40 is not below 0.9 x 40"
    desk.vix(35.9)
    row = desk.breaker()
    assert (row["state"], row["resets_at"]) == ("COOLDOWN", desk.now + timedelta(seconds=30))
    assert desk.buy() == "CIRCUIT_BREAKER_TRIPPED"
    desk.wait(29)
    desk.sweep()
    assert desk.state() == "COOLDOWN"
    desk.wait(1)
    desk.sweep()
    assert desk.state() == "ARMED"
    assert desk.buy() == "ACCEPTED"
    assert desk.events() == ["DEFINED", "TRIPPED", "COOLDOWN", "RESET"]


def test_a_value_that_comes_back_during_the_cool_down_trips_it_again(desk: Desk) -> None:
    """Even if it has gone again when the evaluation looks."""
    desk.define(reset_policy="timer", cooldown=timedelta(seconds=30))
    desk.vix(41)
    desk.vix(30)
    desk.wait(20)
    desk.vix(36, sweeps=False)
    desk.vix(30)
    assert desk.state() == "TRIPPED"
    desk.sweep()
    assert desk.state() == "COOLDOWN"
    assert desk.breaker()["resets_at"] == desk.now + timedelta(seconds=30)


def test_silence_does_not_reset(desk: Desk) -> None:
    desk.define(reset_policy="timer", cooldown=timedelta(seconds=30))
    desk.vix(41)
    desk.wait(3600)
    desk.sweep()
    assert desk.state() == "TRIPPED"


@pytest.mark.parametrize(("value", "state"), [(40, "TRIPPED"), (39.9, "ARMED")])
def test_the_next_session_resets_it_if_the_value_is_clear(
    desk: Desk, value: float, state: str
) -> None:
    desk.firm.call("open_day", day="2091-03-05")
    desk.define(reset_policy="session")
    desk.vix(41)
    desk.vix(10)
    desk.firm.call("open_day", day="2091-03-05")
    desk.sweep()
    assert desk.state() == "TRIPPED", "the same day again is no new day"
    desk.vix(value)
    desk.firm.call("open_day", day="2091-03-06")
    desk.sweep()
    assert desk.state() == state


def test_a_new_session_does_not_overrule_a_person(desk: Desk) -> None:
    desk.define(reset_policy="session")
    desk.vix(10)
    desk.trip()
    desk.firm.call("open_day", day="2091-03-06")
    desk.sweep()
    assert desk.state() == "TRIPPED"


def test_tiers_are_several_breakers(desk: Desk) -> None:
    for threshold, action in ((30, "NOTIFY"), (40, "REDUCE_ONLY"), (50, "HALT")):
        desk.define(f"vix-{threshold}", threshold, action=action)
    assert desk.vix(45) == 2
    assert [desk.state(f"vix-{threshold}") for threshold in (30, 40, 50)] == [
        "TRIPPED",
        "TRIPPED",
        "ARMED",
    ]


# -- who may -----------------------------------------------------------------------------------


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
