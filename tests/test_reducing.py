"""What REDUCE_ONLY lets pass: orders that shrink every position and uncover no short option."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.orders import Answer, Caller, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

CONDOR = {"AAPL P90": 1, "AAPL P100": -1, "AAPL C100": -1, "AAPL C110": 1}
CLOSE_CONDOR = "sell 1 AAPL P90, buy 1 AAPL P100, buy 1 AAPL C100, sell 1 AAPL C110"


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    with open_firm(db) as caller:
        yield caller
        assert caller.differences() == []


def hold(firm: Caller, **rest: int) -> None:
    for symbol, quantity in rest.items():
        firm.hold("A1", symbol, quantity)


def restrict(firm: Caller) -> None:
    firm.call("set_trading_state", scope="F", state="REDUCE_ONLY", reason="a test")


def ask(firm: Caller, what: str, quantity: int, price: int | None = 5) -> Answer:
    """An order as `sell 1 AAPL C100`, or several of those as a combo."""
    side, ratio, symbol = what.split(" ", 2)
    name = firm.new_name()
    if "," in what or ratio != "1":
        return firm.combo("A1", name, what, quantity, price)
    return firm.check("A1", name, symbol, side, quantity, price)


@pytest.mark.parametrize(
    ("held", "open_orders", "what", "quantity", "allowed"),
    [
        # shrink, not cross zero, and count what is open already
        ({"AAPL": 10}, [], "sell 1 AAPL", 10, 10),
        ({"AAPL": 10}, [], "sell 1 AAPL", 11, 10),
        ({"AAPL": 10}, [], "buy 1 AAPL", 1, 0),
        ({"AAPL": -10}, [], "buy 1 AAPL", 12, 10),
        ({}, [], "sell 1 AAPL", 1, 0),
        ({"AAPL": 10}, ["sell 1 AAPL"] * 4, "sell 1 AAPL", 10, 6),
        ({"AAPL": 10}, ["buy 1 AAPL"] * 4, "sell 1 AAPL", 10, 10),
        # a wing covers a short
        (CONDOR, [], "sell 1 AAPL C110", 1, 0),
        (CONDOR, [], "sell 1 AAPL P90", 1, 0),
        (CONDOR, [], "buy 1 AAPL C100", 1, 1),
        (CONDOR, ["buy 1 AAPL C100"], "sell 1 AAPL C110", 1, 0),
        (CONDOR, [], CLOSE_CONDOR, 1, 1),
        (CONDOR, [], CLOSE_CONDOR, 2, 1),
        (CONDOR, [], "buy 1 AAPL C100, sell 1 AAPL C110", 1, 1),
        (CONDOR, [], "buy 1 AAPL C100, buy 1 AAPL C110", 1, 0),
        # what is not needed as cover may go
        ({"AAPL C100": -1, "AAPL C110": 3}, [], "sell 1 AAPL C110", 3, 2),
        # stock covers calls, short stock covers puts
        ({"AAPL": 250, "AAPL C100": -1}, [], "sell 1 AAPL", 250, 150),
        ({"AAPL": 250, "AAPL C100": -1, "AAPL C110": 1}, [], "sell 1 AAPL", 250, 250),
        ({"AAPL": -250, "AAPL P100": -1}, [], "buy 1 AAPL", 250, 150),
        ({"AAPL": -250, "AAPL C100": -1}, [], "buy 1 AAPL", 250, 250),
        # a long covers only shorts that expire no later
        ({"AAPL C100": -1, "AAPL C100 LATE": 1}, [], "sell 1 AAPL C100 LATE", 1, 0),
        ({"AAPL C100": 1, "AAPL C100 LATE": -1}, [], "sell 1 AAPL C100", 1, 1),
        # a put does not cover a call
        ({"AAPL C100": -1, "AAPL P100": 1}, [], "sell 1 AAPL P100", 1, 1),
    ],
)
def test_what_reduces(
    firm: Caller,
    held: dict[str, int],
    open_orders: list[str],
    what: str,
    quantity: int,
    allowed: int,
) -> None:
    hold(firm, **held)
    for order in open_orders:
        assert ask(firm, order, 1).is_accepted
    restrict(firm)
    answer = ask(firm, what, quantity)
    assert answer.allowed_quantity == allowed
    assert answer.is_accepted is (quantity == allowed)
    assert answer.reason == (None if quantity == allowed else "REDUCE_ONLY")
    if 0 < allowed < quantity:
        assert ask(firm, what, allowed).is_accepted


def test_a_reduction_passes_stale_data_and_a_restricted_instrument(firm: Caller) -> None:
    hold(firm, AAPL=10)
    firm.call("set_setting", name="max_heartbeat_age", value="3")
    firm.call("set_instrument_status", symbol="AAPL", status="RESTRICTED", reason="a test")
    assert ask(firm, "buy 1 AAPL", 1).reasons == {"RESTRICTED_INSTRUMENT", "STALE_DATA"}
    over = ask(firm, "sell 1 AAPL", 11)
    assert over.reasons == {"RESTRICTED_INSTRUMENT", "STALE_DATA"}
    assert over.allowed_quantity == 10
    assert ask(firm, "sell 1 AAPL", 10).is_accepted


def test_limits_on_single_orders_and_rates_bind_reductions_too(firm: Caller) -> None:
    hold(firm, AAPL=10)
    firm.limit("F", "order_quantity", 4)
    firm.limit("F", "price_collar_pct", 1)
    restrict(firm)
    assert ask(firm, "sell 1 AAPL", 5, 100).allowed_quantity == 4
    assert ask(firm, "sell 1 AAPL", 4, 90).reason == "PRICE_OUT_OF_BAND"
    firm.limit("F", "order_rate", 0)
    assert ask(firm, "sell 1 AAPL", 4, 100).reason == "RATE_LIMIT_EXCEEDED"


def test_an_exit_by_replace_must_reduce_too(firm: Caller) -> None:
    hold(firm, AAPL=10)
    firm.check("A1", "out", "AAPL", "sell", 4, 100)
    firm.check("A1", "in", "AAPL", "buy", 4, 100)
    restrict(firm)
    assert firm.replace("A1", "out", "more out", 10, 100).is_accepted
    assert firm.replace("A1", "in", "dearer", 3, 101).reason == "REDUCE_ONLY"
    assert firm.replace("A1", "in", "less", 3, 99).is_accepted


def test_a_short_that_is_new_is_refused_where_none_may_be(firm: Caller) -> None:
    hold(firm, AAPL=10)
    firm.call("set_instrument_status", symbol="AAPL", status="NO_NEW_SHORTS", reason="a test")
    assert ask(firm, "sell 1 AAPL", 11).allowed_quantity == 10
    assert ask(firm, "sell 1 AAPL", 6).is_accepted
    assert ask(firm, "sell 1 AAPL", 5).reason == "RESTRICTED_INSTRUMENT"
    assert ask(firm, "buy 1 AAPL", 100).is_accepted
