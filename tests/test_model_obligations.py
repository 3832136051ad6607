"""The oracle's worst losses, sides and cash needs, against published margin-style examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.desk import D, Desk, limits_hit, numbers, option, outcome
from tests.model import LimitKey

if TYPE_CHECKING:
    from decimal import Decimal


@pytest.fixture
def desk() -> Desk:
    """Options on X with 100 shares each, at every strike from 80 to 120."""
    desk = Desk()
    for strike in range(80, 121, 5):
        for right in ("call", "put"):
            symbol = f"{right[0].upper()}{strike}"
            desk.world.instruments[symbol] = option(symbol, right, strike)
            desk.oracle.set_mark(symbol, D(5))
    return desk


def worst(desk: Desk, scope: str = "F") -> Decimal:
    key = desk.limit(scope, "max_loss", 10**9)
    return desk.oracle.utilization()[key][1]


INFINITE = D("Infinity")
STRATEGIES = {
    "long call": ("+1 C100 @ 5", 500),
    "short call": ("-1 C100 @ 5", INFINITE),
    "long put": ("+1 P100 @ 4", 400),
    "cash-secured put": ("-1 P95 @ 3", 9_200),
    "covered call": ("+100 X @ 100, -1 C105 @ 2", 9_800),
    "protective put": ("+100 X @ 100, +1 P95 @ 3", 800),
    "collar": ("+100 X @ 100, +1 P95 @ 3, -1 C105 @ 2", 600),
    "short stock": ("-100 X @ 100", INFINITE),
    "short stock, long call": ("-100 X @ 100, +1 C105 @ 2", 700),
    "bull call spread": ("+1 C100 @ 5, -1 C110 @ 2", 300),
    "bear call credit spread": ("-1 C100 @ 5, +1 C110 @ 2", 700),
    "bull put credit spread": ("-1 P95 @ 4, +1 P85 @ 1", 700),
    "long straddle": ("+1 C100 @ 5, +1 P100 @ 4", 900),
    "short strangle": ("-1 C110 @ 2, -1 P90 @ 2", INFINITE),
    "iron condor": ("-1 C105 @ 3, +1 C110 @ 1, -1 P95 @ 3, +1 P90 @ 1", 100),
    "uneven condor": ("-1 C105 @ 3, +1 C115 @ 1, -1 P95 @ 3, +1 P90 @ 1", 600),
    "butterfly": ("+1 C95 @ 8, -2 C100 @ 5, +1 C105 @ 3", 100),
    "ratio spread": ("+1 C100 @ 5, -2 C110 @ 2", INFINITE),
    "backspread": ("-1 C100 @ 5, +2 C110 @ 2", 900),
    "box": ("+1 C100 @ 6, -1 C110 @ 2, +1 P110 @ 9, -1 P100 @ 4", 0),
    "dear box": ("+1 C100 @ 6, -1 C110 @ 2, +1 P110 @ 12, -1 P100 @ 4", 200),
    "calendar": ("+1 C100 @ 5, -1 C100_NEAR @ 3", 500),
    "reverse calendar": ("-1 C100 @ 5, +1 C100_NEAR @ 3", INFINITE),
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_worst_loss_at_expiry_of_known_strategies(desk: Desk, name: str) -> None:
    legs, loss = STRATEGIES[name]
    for leg in legs.split(","):
        quantity, symbol, _, price = leg.split()
        desk.trade("A1", symbol, int(quantity), price)
    assert worst(desk) == loss


def test_an_order_counts_only_where_it_loses_and_orders_do_not_hedge_each_other(
    desk: Desk,
) -> None:
    desk.limit("A1", "max_loss", 1200)
    condor = "1: sell 1 C105, buy 1 C110, sell 1 P95, buy 1 P90"
    assert desk.check("A1", condor, -4).decision == "ACCEPTED"
    assert worst(desk) == 100
    assert outcome(desk.check("A1", "3: buy 1 C100, sell 1 C110", 4)) == ("RISK_LIMIT_EXCEEDED", 2)
    assert desk.check("A1", "sell 1 C110", 5).reason == "RISK_LIMIT_EXCEEDED"


def test_parents_add_the_worst_of_each_account_and_underlying(desk: Desk) -> None:
    desk.trade("A1", "C100", 1, 5)
    desk.trade("A2", "C100", -1, 5)
    assert worst(desk, "A1") == 500
    assert worst(desk) == INFINITE
    desk.trade("A2", "C110", 1, 2)
    desk.trade("A3", "Y", 10, 20)
    assert worst(desk) == 500 + 700 + 200


def test_while_the_loss_has_no_bound_only_reducing_orders_pass(desk: Desk) -> None:
    desk.trade("A1", "C100", -2, 5)
    desk.limit("F", "max_loss", 10**6)
    assert limits_hit(desk.check("A3", "buy 1 Y")) == {("max_loss", "F")}
    assert desk.check("A1", "buy 1 C110", 2).decision == "REJECTED"
    assert desk.check("A1", "buy 2 C100", 5).decision == "ACCEPTED"


def test_above_its_limit_a_reducing_order_passes_though_it_was_a_hedge(desk: Desk) -> None:
    desk.trade("A1", "X", 100, 100)
    desk.trade("A1", "P95", 1, 3)
    desk.limit("A1", "max_loss", 700)
    assert desk.check("A1", "sell 1 P95", 3).decision == "ACCEPTED"
    desk.limit("A2", "max_loss", 800)
    desk.trade("A2", "X", 100, 100)
    desk.trade("A2", "P95", 1, 3)
    assert desk.check("A2", "sell 1 P95", 3).reason == "RISK_LIMIT_EXCEEDED"


def test_bulls_are_long_calls_and_short_puts_and_never_net_with_bears(desk: Desk) -> None:
    key = LimitKey("F", "same_side")
    desk.limit("F", "same_side", 80)
    desk.hold("A1", C100=50, C110=-45)
    desk.hold("A2", P90=-30)
    assert numbers(*desk.oracle.utilization()[key][:2]) == (80, 80)
    assert desk.check("A3", "buy 1 C110", 5).reason == "RISK_LIMIT_EXCEEDED"
    assert desk.check("A3", "sell 1 P80", 5).reason == "RISK_LIMIT_EXCEEDED"
    assert outcome(desk.check("A3", "sell 36 C110", 5)) == ("RISK_LIMIT_EXCEEDED", 35)
    assert desk.check("A1", "buy 45 C110", 5).decision == "ACCEPTED"
    assert desk.check("A1", "sell 50 C100", 5).decision == "ACCEPTED"


def test_the_order_in_which_legs_are_named_changes_nothing(desk: Desk) -> None:
    """At their marks they cost 105; the 2 above that count on X, before Y by symbol."""
    desk.oracle.set_mark("Y", D(5))
    key = desk.limit("F", "max_loss", 10**9, underlying="X")
    for account, legs in (("A1", "1: buy 1 X, buy 1 Y"), ("A3", "1: buy 1 Y, buy 1 X")):
        before = desk.oracle.utilization()[key][1]
        assert desk.check(account, legs, 107).decision == "ACCEPTED"
        assert desk.oracle.utilization()[key][1] - before == 102


def test_sides_are_in_units_of_100_shares(desk: Desk) -> None:
    desk.world.instruments["MINI"] = option("MINI", "call", 100)
    object.__setattr__(desk.world.instruments["MINI"], "multiplier", D(10))
    desk.oracle.set_mark("MINI", D(5))
    desk.hold("A1", MINI=10, C100=2)
    key = desk.limit("F", "same_side", 80)
    assert numbers(*desk.oracle.utilization()[key][:2]) == (80, 3)


def test_buying_power_is_what_makes_a_cash_secured_put_cash_secured(desk: Desk) -> None:
    desk.oracle.post_cash("A1", D(20_000), "deposit")
    desk.limit("A1", "buying_power", 0)
    assert outcome(desk.check("A1", "sell 3 P95", 3)) == ("RISK_LIMIT_EXCEEDED", 2)
    assert desk.check("A1", "sell 2 P95", 3).decision == "ACCEPTED"
    assert outcome(desk.check("A1", "buy 20 X", 100)) == ("RISK_LIMIT_EXCEEDED", 10)
    spread = desk.check("A1", "3: sell 1 P95, buy 1 P90", -2)
    assert outcome(spread) == ("RISK_LIMIT_EXCEEDED", 2)


def test_a_debit_is_paid_in_cash_and_a_credit_does_not_add_to_it_before_it_is_filled(
    desk: Desk,
) -> None:
    desk.oracle.post_cash("A1", D(500), "deposit")
    desk.limit("A1", "buying_power", 0)
    assert outcome(desk.check("A1", "3: buy 1 C100, sell 1 C110", 2)) == ("RISK_LIMIT_EXCEEDED", 2)
    assert desk.check("A1", "1: sell 1 C100, buy 1 C110", -2).decision == "ACCEPTED"
    assert outcome(desk.check("A1", "buy 6 X", 100)) == ("RISK_LIMIT_EXCEEDED", 5)
