"""The oracle's Greeks, against examples worked out by hand from the definitions."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.desk import TODAY, D, Desk, limits_hit, numbers, outcome
from tests.model import Dimension, Greeks, LimitKey, Violation


@pytest.fixture
def desk() -> Desk:
    """X stands at 100; each C110 has delta 0.4, each C100 0.5, each P90 -0.3, 100 shares each."""
    desk = Desk()
    for symbol, delta in (("C110", "0.4"), ("C100", "0.5"), ("P90", "-0.3")):
        greeks = Greeks(D(delta), D("0.02"), D("0.1"), D("-0.05"))
        desk.oracle.set_mark(symbol, D(5), greeks=greeks)
    return desk


def used(desk: Desk, scope: str, limit_type: str) -> int:
    """What a limit of a large amount is used to."""
    key = desk.limit(scope, limit_type, 10**9)
    return int(desk.oracle.utilization()[key][1])


def test_delta_is_in_shares_and_binds_both_sides(desk: Desk) -> None:
    desk.limit("A1", "delta", 100)
    assert outcome(desk.check("A1", "buy 3 C100", 5)) == ("RISK_LIMIT_EXCEEDED", 2)
    assert desk.check("A1", "buy 2 C100", 5).decision == "ACCEPTED"
    assert outcome(desk.check("A1", "sell 101 X")) == ("RISK_LIMIT_EXCEEDED", 100)
    assert desk.check("A1", "buy 1 X").allowed_quantity == 0


def test_open_orders_do_not_net_but_the_legs_of_one_combo_do(desk: Desk) -> None:
    desk.limit("A1", "delta", 10)
    assert desk.check("A1", "1: buy 1 C100, sell 1 C110", 0).decision == "ACCEPTED"
    assert outcome(desk.check("A1", "1: buy 1 C100, sell 50 X", 0)) == ("ACCEPTED", 1)
    assert desk.check("A1", "1: buy 1 C100, sell 40 X", 0).reason == "RISK_LIMIT_EXCEEDED"


def test_a_greek_limit_never_blocks_what_moves_towards_zero(desk: Desk) -> None:
    desk.hold("A1", C100=10)
    desk.limit("A1", "delta", 100)
    assert desk.check("A1", "sell 100 X").decision == "ACCEPTED"
    assert outcome(desk.check("A1", "sell 501 X")) == ("RISK_LIMIT_EXCEEDED", 500)
    assert desk.check("A1", "buy 1 X").reason == "RISK_LIMIT_EXCEEDED"
    assert desk.check("A1", "buy 1 P90", 5).decision == "ACCEPTED"


def test_parents_net_and_an_exit_that_unbalances_one_is_refused(desk: Desk) -> None:
    desk.hold("A1", X=100)
    desk.hold("A2", X=-100)
    desk.limit("D1", "delta", 30)
    answer = desk.check("A1", "sell 40 X")
    assert limits_hit(answer) == {("delta", "D1")}
    assert answer.allowed_quantity == 30


def test_delta_is_per_underlying_and_the_most_specific_row_of_a_scope_holds(desk: Desk) -> None:
    desk.hold("A1", X=90, Y=90)
    desk.limit("A1", "delta", 100)
    assert desk.check("A1", "buy 10 X").decision == "ACCEPTED"
    desk.limit("A1", "delta", 200, underlying="Y")
    assert desk.check("A1", "buy 110 Y").decision == "ACCEPTED"
    assert used(desk, "F", "delta") == 200


def test_sums_over_underlyings_are_money(desk: Desk) -> None:
    desk.oracle.set_mark("Y", D(50))
    desk.hold("A1", C100=2, X=-50, Y=10)
    assert used(desk, "A1", "net_exposure") == 2 * 50 * 100 - 50 * 100 + 10 * 50
    assert used(desk, "A1", "gross_exposure") == 2 * 50 * 100 + 50 * 100 + 10 * 50
    assert used(desk, "A1", "gamma") == 4
    assert used(desk, "A1", "dollar_gamma") == 4 * 100 * 100 // 100
    assert used(desk, "A1", "vega") == 20
    assert used(desk, "A1", "theta") == 10


def test_unknown_greeks_refuse_all_but_reducing_orders(desk: Desk) -> None:
    desk.hold("A1", P80=-2)
    desk.limit("D1", "vega", 100, underlying="X")
    stale = Violation("STALE_DATA", "vega", "D1", "underlying:X")
    assert stale in desk.check("A2", "buy 1 X").violations
    assert desk.check("A2", "buy 1 Y").decision == "ACCEPTED"
    assert desk.check("A1", "buy 2 P80", 5).decision == "ACCEPTED"
    desk.oracle.set_mark("P80", D(5), greeks=Greeks(D("-0.1")))
    assert desk.check("A2", "buy 1 X").decision == "ACCEPTED"


def test_an_expired_option_has_no_greeks_left(desk: Desk) -> None:
    desk.oracle.set_mark("C100-NEAR", D(5), greeks=Greeks(D("0.5"), D("0.1")))
    desk.hold("A1", C100_NEAR=1)
    assert used(desk, "A1", "delta") == 50
    desk.oracle.open_day(TODAY + timedelta(days=5))
    assert used(desk, "A1", "delta") == 50
    desk.oracle.open_day(TODAY + timedelta(days=6))
    assert used(desk, "A1", "delta") == 0


def test_a_move_of_the_underlying_moves_the_dollar_delta_of_its_options(desk: Desk) -> None:
    desk.hold("A1", C100=1)
    desk.oracle.set_mark("X", D(200))
    assert desk.oracle.greek_rows()["F", "X"]["net_exposure"] == 50 * 200
    key = LimitKey("A1", "net_exposure", Dimension.SECTOR, "Tech")
    desk.limit("A1", "net_exposure", 10_000, sector="Tech")
    assert numbers(*desk.oracle.utilization()[key][:2]) == (10_000, 10_000)
    assert desk.check("A1", "buy 1 X").reason == "RISK_LIMIT_EXCEEDED"


def paid(desk: Desk, account: str, amount: int) -> None:
    desk.oracle.post_cash(account, D(amount), "deposit")


def test_concentration_is_of_the_equity_and_binds_both_sides(desk: Desk) -> None:
    paid(desk, "A1", 10_000)
    desk.limit("A1", "concentration_pct", 20)
    assert outcome(desk.check("A1", "buy 21 X")) == ("RISK_LIMIT_EXCEEDED", 20)
    assert desk.check("A1", "buy 20 X").decision == "ACCEPTED"
    assert outcome(desk.check("A1", "sell 21 X")) == ("RISK_LIMIT_EXCEEDED", 20)
    assert desk.check("A1", "20: buy 1 C100, sell 50 X", 0).reason is None
    assert desk.check("A1", "buy 20 Y").decision == "ACCEPTED"


def test_a_sector_holds_beside_the_rows_per_underlying(desk: Desk) -> None:
    paid(desk, "A1", 10_000)
    desk.limit("A1", "concentration_pct", 20)
    desk.limit("A1", "concentration_pct", 30, underlying="X")
    desk.limit("A1", "concentration_pct", 25, sector="Tech")
    hit = desk.check("A1", "buy 26 X").violations
    assert {violation.dimension for violation in hit} == {"sector:Tech"}
    hit = desk.check("A1", "buy 31 X").violations
    assert {violation.dimension for violation in hit} == {"sector:Tech", "underlying:X"}
    assert outcome(desk.check("A1", "buy 21 Y")) == ("RISK_LIMIT_EXCEEDED", 20)


def test_concentration_of_parents_nets_and_follows_the_equity(desk: Desk) -> None:
    paid(desk, "A1", 10_000)
    desk.trade("A1", "X", 30, 100)
    desk.hold("A2", X=-10)
    desk.limit("D1", "concentration_pct", 25)
    key = LimitKey("D1", "concentration_pct")
    assert float(desk.oracle.utilization()[key][1]) == pytest.approx(2_000 / 90, abs=1e-6)
    desk.oracle.set_mark("X", D(50))
    assert float(desk.oracle.utilization()[key][1]) == pytest.approx(1_000 / 80, abs=1e-6)
    assert outcome(desk.check("A2", "buy 50 X", 50)) == ("RISK_LIMIT_EXCEEDED", 20)


def test_of_no_equity_only_reducing_orders_pass(desk: Desk) -> None:
    desk.limit("A1", "concentration_pct", 10**6)
    assert outcome(desk.check("A1", "buy 1 X")) == ("RISK_LIMIT_EXCEEDED", 0)
    paid(desk, "A1", 100)
    desk.trade("A1", "X", 5, 100)
    desk.trade("A1", "Y", 1, 200)
    assert outcome(desk.check("A1", "sell 6 X")) == ("RISK_LIMIT_EXCEEDED", 5)
    assert desk.check("A1", "sell 5 X").decision == "ACCEPTED"
