"""The worst loss at expiry: published examples, and a search over prices that shares no code."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.databases import create_database

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

    from pgrisk.client import embedded

JUNE, SEPTEMBER, DECEMBER = "2030-06-21", "2030-09-20", "2030-12-20"
WORST_LOSS = """
  select risk_private.worst_loss(array(
    select row(l.kind, l.option_right, l.strike, l.expiry, l.multiplier, l.quantity, l.cost,
      l.order_id, l.version)::risk_private.payoff_leg
    from unnest(%s::text[], %s::text[], %s::numeric[], %s::date[], %s::numeric[], %s::numeric[],
      %s::numeric[], %s::text[], %s::integer[]) as l (
      kind, option_right, strike, expiry, multiplier, quantity, cost, order_id, version)))"""


@dataclass(frozen=True)
class Leg:
    """So many contracts (100 shares each, below 0: sold) or shares, at a cost per share."""

    quantity: int
    right: str  # call, put or stock
    strike: int
    cost: str
    expiry: str = JUNE
    order: str | None = None
    version: int = 0

    @property
    def is_option(self) -> bool:
        return self.right != "stock"

    @property
    def multiplier(self) -> int:
        return 100 if self.is_option else 1


@pytest.fixture(scope="module")
def connection(server: embedded.Server, template: str) -> Iterator[psycopg.Connection]:
    database = create_database(server, template)
    with database.connect() as connection:
        yield connection
    database.drop()


def worst_loss(connection: psycopg.Connection, legs: Sequence[Leg]) -> Decimal:
    columns = [
        ["option" if leg.is_option else "stock" for leg in legs],
        [leg.right if leg.is_option else None for leg in legs],
        [leg.strike if leg.is_option else None for leg in legs],
        [leg.expiry if leg.is_option else None for leg in legs],
        [leg.multiplier for leg in legs],
        [leg.quantity for leg in legs],
        [Decimal(leg.cost) * leg.quantity * leg.multiplier for leg in legs],
        [leg.order for leg in legs],
        [leg.version for leg in legs],
    ]
    row = connection.execute(WORST_LOSS, columns).fetchone()
    assert row is not None
    return Decimal(row[0])


PUBLISHED = {
    # optionalpha.com, Iron condor risk calculation: 5 wide for 1.64; with calls 6 wide for 1.96.
    "iron condor": (
        "336",
        [
            (1, "put", 90, "1"),
            (-1, "put", 95, "1.82"),
            (-1, "call", 105, "1.82"),
            (1, "call", 110, "1"),
        ],
    ),
    "iron condor with a wider call side": (
        "404",
        [
            (1, "put", 90, "1"),
            (-1, "put", 95, "1.98"),
            (-1, "call", 105, "1.98"),
            (1, "call", 111, "1"),
        ],
    ),
    # quantra.quantinsti.com, Iron Condor: XYZ at 55, 45/50/60/65 for a credit of 100.
    "iron condor on XYZ": (
        "400",
        [
            (1, "put", 45, "0.5"),
            (-1, "put", 50, "1"),
            (-1, "call", 60, "1"),
            (1, "call", 65, "0.5"),
        ],
    ),
    # tbt.ai, Bull put: 100/95 for 1.50.
    "bull put spread": ("350", [(-1, "put", 100, "2.5"), (1, "put", 95, "1")]),
    # The mirror images: the width less the credit, or the debit (Cboe, Strategy-based margin).
    "bear call spread": ("300", [(-1, "call", 50, "3"), (1, "call", 55, "1")]),
    "bull call spread": ("200", [(1, "call", 50, "3"), (-1, "call", 55, "1")]),
    "bear put spread": ("150", [(1, "put", 60, "2.5"), (-1, "put", 55, "1")]),
    # Options Industry Council: long straddle and strangle cost both premiums, short ones are
    # without limit.
    "long straddle": ("800", [(1, "call", 100, "4.5"), (1, "put", 100, "3.5")]),
    "long strangle": ("300", [(1, "call", 110, "2"), (1, "put", 90, "1")]),
    "short straddle": ("Infinity", [(-1, "call", 100, "4.5"), (-1, "put", 100, "3.5")]),
    "short strangle": ("Infinity", [(-1, "call", 110, "2"), (-1, "put", 90, "1")]),
    # analystprep.com, FRM, Trading strategies: stock at 10, the 12 call sold for 0.50.
    "covered call": ("950", [(100, "stock", 0, "10"), (-1, "call", 12, "0.5")]),
    "cash-secured put": ("4800", [(-1, "put", 50, "2")]),
    "naked call": ("Infinity", [(-1, "call", 50, "2")]),
    "ratio call spread": ("Infinity", [(1, "call", 50, "3"), (-2, "call", 55, "1")]),
    "short stock": ("Infinity", [(-100, "stock", 0, "10")]),
    "short stock with a call": ("700", [(-100, "stock", 0, "50"), (1, "call", 55, "2")]),
    # analystnotes.com, CFA, Collars: stock at 48, JUL 50 call for 2, JUL 45 put for 1.
    "collar": ("200", [(100, "stock", 0, "48"), (-1, "call", 50, "2"), (1, "put", 45, "1")]),
    # poweropt.com, Collar Spread: 44.92, the 45 call for 4.00, the 35 put for 0.85.
    "wide collar": (
        "677",
        [(100, "stock", 0, "44.92"), (-1, "call", 45, "4"), (1, "put", 35, "0.85")],
    ),
    "protective put": ("600", [(100, "stock", 0, "50"), (1, "put", 45, "1")]),
    "long butterfly": (
        "150",
        [(1, "call", 45, "6"), (-2, "call", 50, "3"), (1, "call", 55, "1.5")],
    ),
    "iron butterfly": (
        "200",
        [
            (1, "put", 45, "1"),
            (-1, "put", 50, "2.5"),
            (-1, "call", 50, "2.5"),
            (1, "call", 55, "1"),
        ],
    ),
    "nothing": ("0", []),
    "a gift": ("0", [(1, "call", 50, "0")]),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_examples(connection: psycopg.Connection, name: str) -> None:
    loss, legs = PUBLISHED[name]
    assert worst_loss(connection, [Leg(*leg) for leg in legs]) == Decimal(loss)


def test_calendars(connection: psycopg.Connection) -> None:
    near, far = Leg(-1, "call", 100, "3"), Leg(1, "call", 100, "5", SEPTEMBER)
    # At June's expiry the debit of 2 (Options Industry Council, long call calendar); by September
    # what June brought is not relied on.
    assert worst_loss(connection, [near, far]) == 500
    # The other way round the long call is gone when the short one is exercised.
    late_short = [Leg(1, "call", 100, "3"), Leg(-1, "call", 100, "5", SEPTEMBER)]
    assert worst_loss(connection, late_short) == Decimal("Infinity")
    # Stock is held throughout: it covers both.
    stock = Leg(100, "stock", 0, "90")
    assert worst_loss(connection, [stock, near]) == 8700
    assert worst_loss(connection, [stock, *late_short]) == 8800


def test_an_open_order_counts_where_it_loses_and_never_helps(
    connection: psycopg.Connection,
) -> None:
    naked = Leg(-1, "put", 50, "2")
    cover = Leg(1, "put", 50, "1", order="a")
    assert worst_loss(connection, [naked]) == 4800
    assert worst_loss(connection, [naked, cover]) == 4800
    assert worst_loss(connection, [Leg(1, "call", 60, "3"), cover]) == 400
    # Two orders are two risks, two legs of one order are one.
    spread = [Leg(-1, "put", 50, "2", order="s"), Leg(1, "put", 45, "1", order="s")]
    apart = [Leg(-1, "put", 50, "2", order="s"), Leg(1, "put", 45, "1", order="t")]
    assert worst_loss(connection, spread) == 400
    assert worst_loss(connection, apart) == 4800
    # A call that is still to be bought does not cover one that is sold.
    short, long = Leg(-1, "call", 50, "2"), Leg(1, "call", 55, "1", order="b")
    assert worst_loss(connection, [short, long]) == Decimal("Infinity")


def test_of_an_order_and_its_replacement_the_worse_one_counts(
    connection: psycopg.Connection,
) -> None:
    old = Leg(1, "call", 50, "2", order="a", version=1)
    new = Leg(2, "call", 50, "1.5", order="a", version=2)
    assert worst_loss(connection, [old, new]) == 300
    assert worst_loss(connection, [old]) == 200
    sold = Leg(-1, "call", 50, "2", order="a", version=2)
    assert worst_loss(connection, [old, sold]) == Decimal("Infinity")


# -- against a search over prices -----------------------------------------------------------------


def loss_at(legs: Sequence[Leg], horizon: str, price: Fraction) -> Fraction:
    """Positions and orders at one price and expiry, leg by leg as the definitions say."""
    total = Fraction(0)
    orders: dict[str, dict[int, Fraction]] = {}
    for leg in legs:
        paid = Fraction(leg.cost) * leg.quantity
        if not leg.is_option:
            loss = paid - price * leg.quantity
        elif leg.expiry < horizon:
            loss = paid if leg.quantity > 0 else Fraction(0)
        else:
            above = price - leg.strike if leg.right == "call" else leg.strike - price
            loss = paid - max(Fraction(0), above) * leg.quantity
        loss *= leg.multiplier
        if leg.order is None:
            total += loss
        else:
            versions = orders.setdefault(leg.order, {})
            versions[leg.version] = versions.get(leg.version, Fraction(0)) + loss
    return total + sum(max(Fraction(0), *v.values()) for v in orders.values())


def searched(legs: Sequence[Leg]) -> Fraction | None:
    """The largest loss on a fine grid of prices; None where it still grows far out."""
    horizons = {leg.expiry for leg in legs if leg.is_option} or {DECEMBER}
    worst = Fraction(0)
    for horizon in horizons:
        far = loss_at(legs, horizon, Fraction(10**6))
        if loss_at(legs, horizon, Fraction(2 * 10**6)) > far:
            return None
        grid = [loss_at(legs, horizon, Fraction(step, 4)) for step in range(161)]
        worst = max(worst, far, *grid)
    return worst


LEGS = st.builds(
    Leg,
    quantity=st.integers(-3, 3).filter(bool),
    right=st.sampled_from(["call", "call", "put", "put", "stock"]),
    strike=st.sampled_from([10, 15, 20, 30]),
    cost=st.sampled_from(["0.25", "1", "2.5", "7", "12"]),
    expiry=st.sampled_from([JUNE, SEPTEMBER, DECEMBER]),
    order=st.sampled_from([None, None, "a", "b"]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(LEGS, max_size=7))
def test_no_price_is_worse(connection: psycopg.Connection, legs: list[Leg]) -> None:
    stock = [Leg(100 * x.quantity, *_rest(x)) if not x.is_option else x for x in legs]
    found = searched(stock)
    expected = Decimal("Infinity") if found is None else Decimal(found.numerator)
    assert worst_loss(connection, stock) * (1 if found is None else found.denominator) == expected


def _rest(leg: Leg) -> tuple[str, int, str, str, str | None]:
    return leg.right, leg.strike, leg.cost, leg.expiry, leg.order
