"""The payoff that is kept of an account is that of all it holds and has open, after every step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.orders import OPTIONS, PLENTY, Caller, item, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

EVERY = ("max_loss", "buying_power", "same_side")
HELD = {"AAPL": 150, "AAPL C100": 1, "AAPL C110": -1, "AAPL P90": 1, "AAPL P100": -1}


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    with open_firm(db) as caller:
        for scope, limit_type in zip(("A1", "D1", "F"), EVERY, strict=True):
            caller.limit(scope, limit_type, PLENTY)
        for symbol, quantity in HELD.items():
            caller.hold("A1", symbol, quantity, 100 if symbol == "AAPL" else 5)
        # The first order in anything is not plain: it makes counters.
        for symbol in ("AAPL", "MSFT", *OPTIONS):
            name = caller.new_name()
            assert caller.check("A2", name, symbol, "buy", 1, 1).is_accepted
            caller.call("release_order", account="A2", client_order_id=name, reason="cancelled")
        yield caller


def points(firm: Caller, account: str) -> list[tuple[str, int]]:
    """Expiry and price, in their order; none where no payoff is kept."""
    rows = firm.rows(
        """select k.horizon::text, k.price::integer from risk_private.payoffs as p
           join risk_private.scopes as s on s.scope_id = p.account_id
           cross join unnest((p.payoff).horizons, (p.payoff).prices) as k (horizon, price)
           where s.code = %s""",
        account,
    )
    return [(row["horizon"], row["price"]) for row in rows]


def touched(firm: Caller) -> int:
    """The transaction that wrote the only payoff."""
    return int(firm.value("select xmin::text::bigint from risk_private.payoffs"))


ORDERS = st.tuples(
    st.sampled_from(["AAPL", *OPTIONS]),
    st.sampled_from(["buy", "sell"]),
    st.integers(1, 3),
    st.sampled_from([None, 1, 4, 9, 100]),
    st.sampled_from(["leave", "leave", "leave", "fill", "release"]),
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(orders=st.lists(ORDERS, min_size=1, max_size=8))
def test_orders_fills_and_cancels_leave_it_exact(
    firm: Caller, orders: list[tuple[str, str, int, int | None, str]]
) -> None:
    for symbol, side, quantity, price, then in orders:
        name = firm.new_name()
        accepted = firm.check("A1", name, symbol, side, quantity, price).is_accepted
        assert firm.differences() == []
        if accepted and then == "fill":
            firm.fill("A1", name, f"of {name}", 1, price or 5)
        elif accepted and then == "release":
            firm.call("release_order", account="A1", client_order_id=name, reason="cancelled")
        assert firm.differences() == []


def test_a_strike_that_is_new_is_a_new_point(firm: Caller) -> None:
    early, late = OPTIONS["AAPL C100"][2], OPTIONS["AAPL C100 LATE"][2]
    seen = []
    for number, symbol in enumerate(["AAPL C100", "AAPL P90", "AAPL C100 LATE"]):
        assert firm.check("A2", f"o{number}", symbol, "buy", 1, 5).is_accepted
        assert firm.differences() == []
        seen.append(points(firm, "A2"))
    assert seen == [
        [(early, 0), (early, 100)],
        [(early, 0), (early, 90), (early, 100)],
        [(expiry, price) for expiry in (early, late) for price in (0, 90, 100)],
    ]


def test_without_options_none_is_kept(firm: Caller) -> None:
    assert firm.check("A2", "a", "AAPL", "buy", 1, 100).is_accepted
    assert points(firm, "A2") == []
    assert firm.check("A2", "b", "AAPL C100", "buy", 1, 5).is_accepted
    assert points(firm, "A2") != []
    firm.call("release_order", account="A2", client_order_id="b", reason="cancelled")
    assert points(firm, "A2") == []
    assert firm.differences() == []


def test_a_batch_of_options_leaves_it_exact(firm: Caller) -> None:
    assert firm.check("A2", "first", "AAPL C100", "buy", 1, 5).is_accepted
    orders = [
        item("A1", "b1", "buy AAPL C100", 2, price=5),
        item("A1", "b2", "sell AAPL P90", 1, price=4),
        item("A2", "b3", "buy AAPL C100", 1, price=6),
        item("A2", "b4", "buy MSFT", 1, price=50),
    ]
    assert all(answer.is_accepted for answer in firm.batch(orders))
    assert firm.differences() == []
    assert firm.check("A1", "after", "AAPL P100", "sell", 1, 5).is_accepted
    assert firm.differences() == []


def test_an_order_that_is_refused_leaves_it_alone(firm: Caller) -> None:
    before = touched(firm)
    firm.limit("F", "order_quantity", 5)
    assert not firm.check("A1", "a", "AAPL C100", "buy", 6, 5).is_accepted
    firm.limit("F", "max_loss", 20_000)
    assert not firm.check("A1", "b", "AAPL C100", "buy", 5, 40).is_accepted
    assert touched(firm) == before
    assert firm.differences() == []
