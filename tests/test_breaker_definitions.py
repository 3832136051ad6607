"""Defining, changing and removing circuit breakers."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

if TYPE_CHECKING:
    from tests.breaker_desk import Desk
    from tests.orders import Row

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
    assert desk.refusal("define_breaker", **given) == expected
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
        assert desk.refusal("define_breaker", **SENSIBLE | {"name": "vix"} | change) == (
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
    assert desk.refusal("remove_breaker", name="vix", reason="x") == ("RK409", "argument: name")
    desk.reset()
    assert desk.refusal("remove_breaker", name="vix", reason="") == ("RK400", "argument: reason")
    desk.firm.call("remove_breaker", name="vix", reason="no longer needed")
    assert desk.firm.rows("select * from risk.breakers") == []
    assert desk.events() == ["DEFINED", "TRIPPED", "RESET", "REMOVED"]
    assert desk.refusal("remove_breaker", name="vix", reason="x") == ("RK404", "argument: name")
