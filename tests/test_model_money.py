"""The oracle's cash, average cost, equity and losses, against examples worked out by hand."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.desk import TODAY, D, Desk, limits_hit, numbers, outcome


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.oracle.post_cash("A1", D(10_000), "deposit")
    return desk


def test_average_cost_realizes_on_what_closes_and_starts_again_through_zero(desk: Desk) -> None:
    desk.trade("A1", "X", 10, 90)
    desk.trade("A1", "X", 10, 110)
    desk.trade("A1", "X", -5, 120)
    row = desk.oracle.pnl_rows()["A1"]
    assert numbers(row.realized, row.unrealized, row.equity) == (100, 0, 10_100)
    desk.trade("A1", "X", -25, 90)
    row = desk.oracle.pnl_rows()["A1"]
    assert numbers(row.realized, row.unrealized) == (100 - 150, -100)
    assert row.equity == 10_000 + row.realized + row.unrealized


def test_positions_brought_in_kind_are_flows_and_move_no_cash(desk: Desk) -> None:
    desk.oracle.set_mark("Y", D(50))
    desk.trade("A1", "Y", 10, 40, "opening")
    row = desk.oracle.pnl_rows()["F"]
    assert numbers(row.flows, row.equity, row.daily_pnl) == (10_400, 10_500, 100)


def test_the_daily_loss_counts_from_the_equity_that_the_day_was_opened_with(desk: Desk) -> None:
    desk.trade("A1", "X", 50, 100)
    desk.limit("D1", "daily_loss", 300)
    desk.oracle.open_day(TODAY + timedelta(days=1))
    desk.oracle.set_mark("X", D(94))
    assert desk.check("A2", "buy 1 Y").decision == "ACCEPTED"
    desk.oracle.set_mark("X", D("93.9"))
    answer = desk.check("A2", "buy 1 Y")
    assert limits_hit(answer) == {("daily_loss", "D1")}
    assert outcome(answer) == ("RISK_LIMIT_EXCEEDED", 0)
    assert desk.check("A3", "buy 1 Y").decision == "ACCEPTED"
    assert desk.check("A1", "sell 60 X", 94).allowed_quantity == 50
    assert desk.check("A1", "sell 50 X", 94).decision == "ACCEPTED"
    desk.oracle.post_cash("A1", D(1000), "deposit")
    assert desk.check("A2", "buy 1 Y", 101).decision == "REJECTED"
    desk.oracle.post_cash("A1", D(5), "dividend")
    assert desk.check("A2", "buy 1 Y", 102).decision == "ACCEPTED"


def test_the_start_of_the_day_may_be_told(desk: Desk) -> None:
    desk.limit("A1", "daily_loss", 300)
    desk.oracle.open_day(TODAY, {"A1": D(10_301)})
    assert desk.oracle.pnl_rows()["F"].start_equity == 10_301
    desk.oracle.open_day(TODAY + timedelta(days=1), {"A1": D(10_301)})
    assert desk.check("A1", "buy 1 X").reason == "RISK_LIMIT_EXCEEDED"
    desk.oracle.open_day(TODAY + timedelta(days=1), {"A1": D(10_300)})
    assert desk.check("A1", "buy 1 X").decision == "ACCEPTED"


def test_the_drawdown_counts_from_the_peak_and_flows_leave_it_as_it_is(desk: Desk) -> None:
    desk.trade("A1", "X", 50, 100)
    desk.oracle.set_mark("X", D(300))
    desk.oracle.set_mark("X", D(200))
    assert desk.oracle.pnl_rows()["A1"].drawdown_pct == 25
    desk.oracle.post_cash("A1", D(-12_000), "withdrawal")
    row = desk.oracle.pnl_rows()["F"]
    assert numbers(row.peak_equity, row.drawdown_pct) == (4_000, 25)
    desk.limit("F", "drawdown_pct", 25)
    assert desk.check("A3", "buy 1 Y").decision == "ACCEPTED"
    desk.oracle.set_mark("X", D(199))
    assert desk.check("A3", "buy 1 Y", 101).reason == "RISK_LIMIT_EXCEEDED"
    desk.oracle.open_day(TODAY + timedelta(days=1))
    assert desk.check("A3", "buy 1 Y", 101).reason == "RISK_LIMIT_EXCEEDED"


def test_a_scope_that_has_lost_everything_is_100_percent_down(desk: Desk) -> None:
    desk.trade("A1", "X", 200, 100)
    desk.oracle.set_mark("X", D(50))
    assert desk.oracle.pnl_rows()["A1"].drawdown_pct == 100


def test_a_hedged_firm_is_never_seen_half_revalued(desk: Desk) -> None:
    desk.trade("A1", "X", 50, 100)
    desk.trade("A3", "X", -50, 100)
    desk.oracle.set_mark("X", D(150))
    row = desk.oracle.pnl_rows()["F"]
    assert numbers(row.peak_equity, row.drawdown_pct) == (10_000, 0)
