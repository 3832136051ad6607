"""The oracle's busts and corrections, and its currencies, against examples worked out by hand."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.desk import TODAY, D, Desk, numbers
from tests.model import Instrument, RiskError


@pytest.fixture
def desk() -> Desk:
    """10,000 in A1; one euro is 1.25, and E is a stock in euro at 40."""
    desk = Desk()
    desk.oracle.set_fx("EUR", D("1.25"))
    desk.world.instruments["E"] = Instrument("E", "stock", "E", "Oil", currency="EUR")
    desk.oracle.set_mark("E", D(40))
    desk.oracle.post_cash("A1", D(10_000), "deposit")
    return desk


def test_a_bust_across_zero_changes_what_later_trades_realized(desk: Desk) -> None:
    """Without the first, 10 bought at 100: sold 15 at 90 they open a short, closed at 80."""
    desk.trade("A1", "X", 10, 100)
    first = f"t{desk.next_id}"
    desk.trade("A1", "X", -15, 90)
    desk.trade("A1", "X", 5, 80)
    assert desk.oracle.pnl_rows()["A1"].realized == -100 + 50
    desk.oracle.bust_fill("A1", first)
    row = desk.oracle.pnl_rows()["A1"]
    assert numbers(row.realized, row.unrealized, row.cash) == (50, -100, 10_950)
    desk.oracle.bust_fill("A1", first)
    with pytest.raises(RiskError, match="busted"):
        desk.oracle.correct_fill("A1", first, D(1), D(1))


def test_a_late_correction_counts_to_the_day_it_is_told(desk: Desk) -> None:
    """10 bought at 100 and sold at 120; the next day they were sold at 115."""
    desk.trade("A1", "X", 10, 100)
    desk.trade("A1", "X", -10, 120)
    desk.oracle.open_day(TODAY + timedelta(days=1))
    desk.oracle.correct_fill("A1", f"t{desk.next_id}", D(10), D(115))
    row = desk.oracle.pnl_rows()["A1"]
    assert numbers(row.start_equity, row.equity, row.realized) == (10_200, 10_150, -50)


def test_a_correction_after_a_split_is_in_the_terms_of_its_time(desk: Desk) -> None:
    desk.trade("A1", "X", 10, 90)
    desk.oracle.adjust_instrument("X", "2 for 1", 2, 1)
    desk.oracle.correct_fill("A1", f"t{desk.next_id}", D(12), D(80))
    assert desk.oracle.position_rows()["A1", "X"][0] == 24
    row = desk.oracle.pnl_rows()["A1"]
    assert numbers(row.cash, row.unrealized) == (10_000 - 960, 24 * 50 - 960)


def test_an_order_follows_its_fills(desk: Desk) -> None:
    """A live order has so much more to fill; one that was filled stays closed."""

    def state(name: str) -> tuple[int, int, str]:
        filled, left, state = desk.oracle.order_rows()["A1", name, "X"]
        return int(filled), int(left), state

    desk.next_id = 0
    for _ in range(2):
        desk.check("A1", "buy 10 X")
    desk.oracle.record_fill("A1", "o1", "e1", D(4), D(100))
    desk.oracle.replace("A1", "o1", "o3", D(12), D(100))
    desk.oracle.record_fill("A1", "o1", "e2", D(3), D(100))
    desk.oracle.bust_fill("A1", "e1")
    assert state("o1") == (3, 7, "PARTIALLY_FILLED")
    assert numbers(*desk.oracle.position_rows()["A1", "X"]) == (3, 9 + 10, 0)
    desk.oracle.confirm_replace("A1", "o3")
    desk.oracle.bust_fill("A1", "e2")
    assert state("o3") == (0, 12, "ACKNOWLEDGED")
    desk.oracle.record_fill("A1", "o2", "e3", D(10), D(100))
    desk.oracle.correct_fill("A1", "e3", D(9), D(100))
    assert state("o2") == (9, 0, "CANCELLED")
    desk.oracle.correct_fill("A1", "e3", D(11), D(100))
    assert state("o2") == (11, 0, "FILLED")


def test_told_again_as_it_was_or_as_it_is_it_is_the_same_execution(desk: Desk) -> None:
    desk.check("A1", "buy 10 X")
    told = ("A1", desk.last_id(), "e1")
    desk.oracle.record_fill(*told, D(4), D(100))
    desk.oracle.correct_fill("A1", "e1", D(5), D(101))
    for quantity, price in ((4, 100), (5, 101)):
        desk.oracle.record_fill(*told, D(quantity), D(price))
    with pytest.raises(RiskError):
        desk.oracle.record_fill(*told, D(4), D(101))
    assert numbers(*desk.oracle.position_rows()["A1", "X"]) == (5, 5, 0)


def test_a_rate_moves_cash_and_positions_and_makes_currency_pnl(desk: Desk) -> None:
    """10 bought at 40 EUR on credit: the rate moves debt and shares alike, and the fee."""
    desk.trade("A1", "E", 10, 40)
    desk.oracle.set_mark("E", D(42))
    desk.oracle.post_cash("A1", D(-10), "fee", "EUR")
    row = desk.oracle.pnl_rows()["A1"]
    assert numbers(row.equity, row.unrealized, row.income) == (10_012.5, 25, -12.5)
    desk.oracle.set_fx("EUR", D("1.5"))
    row = desk.oracle.pnl_rows()["F"]
    assert numbers(row.equity, row.cash) == (10_000 + 1.5 * 10, 10_000 - 1.5 * 410)
    assert numbers(row.unrealized, row.income, row.currency_pnl) == (30, -12.5, -2.5)


def test_a_rate_too_old_stops_what_depends_on_it(desk: Desk) -> None:
    desk.trade("A2", "E", 10, 40)
    desk.limit("D1", "daily_loss", 1000)
    desk.world.now += timedelta(seconds=50)
    for symbol in ("X", "E"):
        desk.oracle.set_mark(symbol, D(100))
    assert desk.check("A3", "buy 1 X").decision == "ACCEPTED"
    desk.world.now += timedelta(seconds=11)
    assert desk.check("A3", "buy 1 X", 101).decision == "ACCEPTED"
    assert desk.check("A1", "buy 1 X").reason == "STALE_DATA"
    assert desk.check("A3", "buy 1 E").reason == "STALE_DATA"
    assert desk.check("A2", "sell 10 E").decision == "ACCEPTED"
