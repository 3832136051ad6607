"""Data must be fresh: marks, heartbeats and their inputs; and configured: required limits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.orders import PLENTY, Answer, Caller, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

NOW = datetime(2098, 1, 5, 15, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    db.set_clock(NOW)
    with open_firm(db) as caller:
        yield caller
        assert caller.differences() == []


def buy(firm: Caller, symbol: str = "AAPL", price: int | None = 100) -> Answer:
    return firm.check("A1", firm.new_name(), symbol, "buy", 10, price)


@pytest.fixture
def gated(db: Database, firm: Caller) -> Caller:
    """Marks may be 60 s old, heartbeats 3 s; A1 holds 10 AAPL and 1 call."""
    for name, seconds in {"max_mark_age": "60", "max_heartbeat_age": "3"}.items():
        firm.call("set_setting", name=name, value=seconds)
    firm.hold("A1", "AAPL", 10)
    firm.hold("A1", "AAPL C100", 1)
    beat(firm, NOW, NOW)
    return firm


def beat(firm: Caller, beat_at: datetime | None, inputs_as_of: datetime | None) -> None:
    firm.rows(
        "update risk_private.heartbeat set beat_at = %s, inputs_as_of = %s", beat_at, inputs_as_of
    )


@pytest.mark.parametrize(
    ("beat_at", "inputs_as_of", "is_fresh"),
    [
        (0, 0, True),
        (-3, -3, True),
        (-3.001, 0, False),
        (0, -3.001, False),
        (0.9, 0.9, True),
        (1.1, 0, False),
        (0, 1.1, False),
        (None, 0, False),
        (0, None, False),
    ],
)
def test_a_heartbeat_is_needed_and_it_and_its_inputs_are_fresh(
    gated: Caller, beat_at: float | None, inputs_as_of: float | None, is_fresh: bool
) -> None:
    moments = [None if s is None else NOW + s * SECOND for s in (beat_at, inputs_as_of)]
    beat(gated, *moments)
    answer = buy(gated)
    assert answer.reason == (None if is_fresh else "STALE_DATA")
    assert gated.check("A1", "2", "AAPL", "sell", 1, 100).is_accepted


@pytest.mark.parametrize("stale", ["AAPL", "AAPL C100"])
@pytest.mark.parametrize(("age", "is_fresh"), [(60, True), (60.001, False)])
def test_marks_of_the_instrument_and_of_its_underlying_are_fresh(
    db: Database, gated: Caller, stale: str, age: float, is_fresh: bool
) -> None:
    later = NOW + age * SECOND
    db.set_clock(later)
    beat(gated, later, later)
    gated.mark({symbol: 5 for symbol in ("AAPL", "AAPL C100") if symbol != stale})
    answer = buy(gated, "AAPL C100", 5)
    assert answer.reason == (None if is_fresh else "STALE_DATA")
    assert gated.check("A1", "2", "AAPL C100", "sell", 1, 5).is_accepted
    gated.call("set_setting", name="max_mark_age", value="0")
    assert buy(gated, "AAPL C100", 5).is_accepted


def test_a_mark_from_the_future_is_stale(gated: Caller) -> None:
    gated.mark({"AAPL": 100}, as_of=NOW + 1.1 * SECOND)
    assert buy(gated).reason == "STALE_DATA"


def test_the_strictest_age_on_the_chain_holds(db: Database, gated: Caller) -> None:
    for scope, seconds in {"F": "50", "D1": "0", "A1": "40"}.items():
        gated.call("set_setting", name="max_mark_age", value=seconds, scope=scope)
    for age, reason in {40: None, 41: "STALE_DATA"}.items():
        later = NOW + age * SECOND
        db.set_clock(later)
        beat(gated, later, later)
        assert buy(gated).reason == reason


def test_required_limit_types_add_up_along_the_chain(firm: Caller) -> None:
    for scope, types in {"F": "order_quantity", "A1": "order_rate, net_position"}.items():
        firm.call("set_setting", name="required_limit_types", value=types, scope=scope)
    missing = {v["limit_type"] for v in buy(firm).violations}
    assert missing == {"order_quantity", "order_rate"}
    firm.limit("D1", "order_quantity", PLENTY, underlying="AAPL")
    firm.limit("F", "order_rate", PLENTY)
    assert buy(firm).is_accepted
    assert buy(firm, "MSFT").reason == "CONFIG_NOT_FOUND"
