"""What conditions on prices, indicators and the age of data measure."""

from __future__ import annotations

import random
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest

from tests import breaker_model as model
from tests.breaker_steps import (
    close_to,
    defined,
    hold_all,
    load_closes,
    mark_everything,
    worst,
)

if TYPE_CHECKING:
    from tests.breaker_desk import Desk


@pytest.mark.parametrize("seed", range(3))
def test_spikes_are_those_of_the_model(desk: Desk, seed: int) -> None:
    dice = random.Random(seed)
    window = timedelta(seconds=40)
    defined(desk, "volatility_spike", parameters={"window": 40})
    ticks: list[tuple[Any, Fraction]] = []
    new: list[Any] = []
    for _ in range(60):
        desk.wait(dice.choice((1, 5, 60)))
        value = dice.randint(10, 90)
        desk.firm.call("set_indicator", name="VIX", value=float(value))
        ticks.append((desk.now, Fraction(value)))
        new.append(desk.now)
        if dice.random() < 0.4:
            stands, largest = worst(desk)
            assert close_to(stands, model.spike(ticks, desk.now, window))
            assert close_to(largest, max(model.spike(ticks, at, window) for at in new))
            new.clear()


@pytest.mark.parametrize("direction", ["up", "down", "both"])
def test_price_moves_are_those_of_the_model(desk: Desk, direction: str) -> None:
    dice = random.Random(direction)
    window = timedelta(minutes=5)
    desk.firm.mark({"AAPL": 100})
    defined(desk, "price_move", parameters={"symbol": "AAPL", "direction": direction})
    start = desk.firm.value("select as_of from risk.marks where symbol = 'AAPL'")
    ticks: list[tuple[Any, Fraction]] = [(start, Fraction(100))]
    new: list[Any] = []
    for _ in range(60):
        desk.wait(dice.choice((1, 60, 400)))
        price = Decimal(dice.randint(8000, 12000)) / 100
        desk.firm.mark({"AAPL": price})
        ticks.append((desk.now, Fraction(price)))
        new.append(desk.now)
        if dice.random() < 0.4:
            stands, largest = worst(desk)
            assert close_to(stands, model.move(ticks, desk.now, window, direction))
            moves = [model.move(ticks, at, window, direction) for at in new]
            assert close_to(largest, max(move for move in moves if move is not None))
            new.clear()


def test_the_mean_correlation_is_that_of_the_model(desk: Desk) -> None:
    firm = desk.firm
    dice = random.Random(11)
    first = desk.now.date() - timedelta(days=100)
    closes: dict[str, dict[date, float]] = {}
    for symbol, days in (("AAPL", range(90)), ("MSFT", range(90)), ("XOM", range(60, 90))):
        price = 100.0
        closes[symbol] = {}
        for day in days:
            price *= 1 + dice.gauss(0, 0.02)
            if symbol == "XOM" or day % 17:
                closes[symbol][first + timedelta(days=day)] = price
    for symbol, series in closes.items():
        firm.call("load_closes", symbols=[symbol] * len(series), days=list(series),
                  closes=[Decimal(repr(price)) for price in series.values()])  # fmt: skip
        firm.hold("A1", symbol, -5 if symbol == "MSFT" else 5)
    desk.define("b", 2, condition="correlation", scope="F", action="NOTIFY")
    for number in (60, 30, 20):
        desk.define("b", 2, condition="correlation", scope="F", action="NOTIFY",
                    parameters={"days": number})  # fmt: skip
        desk.sweep()
        assert close_to(desk.breaker("b")["last_value"], model.correlation(closes, number))


def test_without_a_pair_there_is_no_correlation(desk: Desk) -> None:
    load_closes(desk)
    desk.define("b", 0, condition="correlation", scope="F", reset_policy="session")
    for symbols in ((), ("AAPL",)):
        hold_all(*symbols)(desk)
        assert desk.sweep() == 0
        assert desk.breaker("b")["last_value"] is None
    hold_all("AAPL", "MSFT")(desk)
    assert desk.sweep() == 1
    hold_all("AAPL")(desk)
    desk.firm.call("open_day", day=desk.now.date() + timedelta(days=1))
    desk.sweep()
    assert desk.state("b") == "ARMED", "nothing to measure is as good as a low value"


def test_an_index_may_be_what_moves(desk: Desk) -> None:
    """7 % below the prior close, as the market-wide breaker has it."""
    firm = desk.firm
    firm.call("open_day", day=desk.now.date())
    desk.define("mwcb", 7, condition="price_move", scope="F", parameters={
        "indicator": "SPX", "reference": "prior_close", "direction": "down"})  # fmt: skip
    for value, tripped in ((2000.0, 0), (1000.0, 0)):
        desk.wait()
        firm.call("set_indicator", name="SPX", value=value)
        assert desk.sweep() == tripped, "there is no prior close yet"
    firm.call("open_day", day=desk.now.date() + timedelta(days=1))
    for value, tripped in ((1100.0, 0), (930.01, 0), (930.0, 1)):
        desk.wait()
        firm.call("set_indicator", name="SPX", value=value)
        assert desk.sweep() == tripped


def test_missing_data_are_infinitely_old(desk: Desk) -> None:
    mark_everything(desk)
    desk.define("b", 10**6, condition="stale_data", scope="F", action="NOTIFY")
    assert desk.sweep() == 0
    desk.define("vix", 1000)
    assert desk.sweep() == 1
    assert desk.breaker("b")["tripped_value"] == Decimal("Infinity")


def test_a_stale_mark_matters_where_something_is_held(desk: Desk) -> None:
    desk.firm.hold("A1", "AAPL C100", 1)
    mark_everything(desk)
    desk.firm.mark({"AAPL C100": 5})
    for scope in ("D1", "D2"):
        desk.define(scope, 10, condition="stale_data", scope=scope, action="NOTIFY")
    desk.define("of MSFT", 10, condition="stale_data", scope="F", underlying="MSFT")
    desk.wait(10)
    desk.firm.mark({"AAPL C100": 5})
    assert desk.sweep() == 1, "the underlying's is old"
    assert desk.state("D1") == "TRIPPED"
    assert desk.breaker("D1")["tripped_value"] == 10


def test_ticks_are_forgotten_when_no_window_reaches_them(desk: Desk) -> None:
    desk.define("s", 1000, condition="volatility_spike", parameters={"window": "1 day"})
    desk.define("p", 1000, condition="price_move", parameters={"symbol": "AAPL"})
    for day in range(12):
        desk.vix(20 + day)
        desk.firm.mark({"AAPL": 100})
        desk.wait(86400 if day < 11 else 1)
    desk.firm.rows("select risk_private.sweep(0)")
    assert desk.firm.value("select min(value) from risk_private.indicator_ticks") == 23
    assert desk.firm.value("select count(*) from risk_private.price_ticks") == 2
    assert desk.breaker("s")["last_value"] == Decimal("3.333333333333")
