"""Limits on what accounts may come to owe: max_loss and same_side, end to end."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.json import Jsonb

from tests.orders import Answer, Caller, callers, each_at_once, item, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

INFINITE = Decimal("Infinity")
CONDOR = "buy 1 AAPL P90, sell 1 AAPL P100, sell 1 AAPL C100, buy 1 AAPL C110"
OUT = "sell 1 AAPL P90, buy 1 AAPL P100, buy 1 AAPL C100, sell 1 AAPL C110"


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    with open_firm(db) as caller:
        yield caller
        assert caller.differences() == []


def loss(firm: Caller, scope: str, underlying: str | None = None) -> Decimal:
    """The worst loss that is kept for a scope."""
    return Decimal(
        firm.value(
            """select coalesce(max(case when o.unlimited > 0 then 'Infinity'
                 else o.max_loss end), 0)
               from risk_private.obligations as o
               join risk_private.scopes as s using (scope_id)
               left join risk_private.instruments as i on o.dimension = 2
                 and i.instrument_id = o.key_id
               where s.code = %s and o.dimension = %s and i.symbol is not distinct from %s""",
            scope,
            0 if underlying is None else 2,
            underlying,
        )
    )


def only(answer: Answer, *columns: str) -> tuple[Any, ...]:
    (violation,) = answer.violations
    return tuple(violation[column] for column in columns)


def test_a_condor_counts_its_width_less_its_credit(firm: Caller) -> None:
    firm.limit("D1", "max_loss", 10 * 800)
    refused = firm.combo("A1", "a", CONDOR, 11, -2)
    assert only(refused, "limit_type", "scope", "dimension", "limit", "current", "projected") == (
        ("max_loss", "D1", "all", "8000", "0", "8800")
    )
    assert refused.reason == "RISK_LIMIT_EXCEEDED"
    assert refused.allowed_quantity == 10
    assert firm.combo("A1", "b", CONDOR, 10, -2).is_accepted
    assert loss(firm, "D1") == 8000
    assert not firm.combo("A2", "c", CONDOR, 1, -2).is_accepted
    for leg, price in (("P90", 2), ("P100", 3), ("C100", 3), ("C110", 2)):
        firm.fill("A1", "b", leg, 10, price, symbol=f"AAPL {leg}")
    assert loss(firm, "D1") == 8000
    assert firm.combo("A1", "out", OUT, 10, 1).is_accepted
    for leg, price in (("P90", 2), ("P100", 3), ("C100", 2), ("C110", 2)):
        firm.fill("A1", "out", f"out {leg}", 10, price, symbol=f"AAPL {leg}")
    assert loss(firm, "D1") == 0


def test_a_fill_leg_by_leg_counts_what_is_left_as_one_order(firm: Caller) -> None:
    firm.limit("A1", "max_loss", 10**6)
    assert firm.combo("A1", "a", CONDOR, 1, -2).is_accepted
    assert loss(firm, "A1") == 800
    firm.fill("A1", "a", "1", 1, 3, symbol="AAPL C100")
    assert loss(firm, "A1") == INFINITE
    firm.fill("A1", "a", "2", 1, 2, symbol="AAPL C110")
    # The calls are held for a credit of 1; the puts that are left are both marked 5.
    assert loss(firm, "A1") == 900
    firm.call("release_order", account="A1", client_order_id="a", reason="cancelled")
    assert loss(firm, "A1") == 900


def test_a_naked_call_never_passes_and_a_covered_one_does(firm: Caller) -> None:
    firm.limit("F", "max_loss", 10**12)
    refused = firm.check("A1", "a", "AAPL C100", "sell", 1, 5)
    assert only(refused, "limit", "projected") == ("1000000000000", "Infinity")
    assert refused.allowed_quantity == 0
    firm.hold("A1", "AAPL", 150, 100)
    refused = firm.check("A1", "b", "AAPL C100", "sell", 2, 5)
    assert refused.reason == "RISK_LIMIT_EXCEEDED"
    assert refused.allowed_quantity == 1
    assert firm.check("A1", "c", "AAPL C100", "sell", 1, 5).is_accepted
    assert loss(firm, "A1", "AAPL") == 15000  # an open order that may not fill saves nothing
    firm.fill("A1", "c", "1", 1, 5)
    assert loss(firm, "A1", "AAPL") == 14500


def test_while_infinite_only_reducing_orders_pass(firm: Caller) -> None:
    firm.hold("A1", "AAPL C100", -5, 5)
    firm.limit("D1", "max_loss", 1000)
    assert loss(firm, "D1") == INFINITE
    for number, order in enumerate(
        [
            ("AAPL C100", "sell", 1),
            ("AAPL P90", "buy", 1),
            ("MSFT", "buy", 1),
            ("AAPL C100", "buy", 6),
        ]
    ):
        symbol, side, quantity = order
        answer = firm.check("A1", f"r{number}", symbol, side, quantity, 5)
        assert answer.reason == "RISK_LIMIT_EXCEEDED"
        assert answer.allowed_quantity == (5 if quantity == 6 else 0)
    assert not firm.check("A2", "other", "MSFT", "buy", 1, 5).is_accepted
    assert firm.check("B1", "elsewhere", "MSFT", "buy", 100, 50).is_accepted
    assert firm.check("A1", "close", "AAPL C100", "buy", 5, 5).is_accepted
    firm.fill("A1", "close", "1", 5, 5)
    assert loss(firm, "D1") == 0
    assert firm.check("A1", "again", "MSFT", "buy", 20, 50).is_accepted


def test_above_the_limit_what_only_reduces_passes_whatever_it_costs(firm: Caller) -> None:
    for symbol, quantity in (("P90", 1), ("P100", -1), ("C100", -1), ("C110", 1)):
        firm.hold("A1", f"AAPL {symbol}", 10 * quantity, 2 if abs(quantity) != quantity else 1)
    firm.limit("A1", "max_loss", 5000)
    assert loss(firm, "A1") == 8000
    half = "buy 1 AAPL P100, sell 1 AAPL P90"
    assert not firm.combo("A1", "other", "buy 1 MSFT", 1, 1).is_accepted
    assert firm.combo("A1", "half", half, 10, 1).is_accepted
    assert loss(firm, "A1") == 9000


def test_a_market_order_counts_at_its_reference(firm: Caller) -> None:
    firm.limit("A1", "max_loss", 1000)
    firm.mark({"AAPL C100": 5}, bids=[Decimal("4.9")], asks=[Decimal("5.1")])
    refused = firm.check("A1", "a", "AAPL C100", "buy", 2)
    assert only(refused, "projected", "allowed_quantity") == ("1020", "1")
    assert firm.check("A1", "b", "AAPL C100", "buy", 1).is_accepted
    assert loss(firm, "A1") == 510
    firm.mark({"AAPL C100": 50})
    assert loss(firm, "A1") == 510
    assert not firm.check("A1", "c", "AAPL C100", "buy", 1).is_accepted


def test_a_replace_holds_the_worse_of_both_until_it_is_settled(firm: Caller) -> None:
    firm.limit("A1", "max_loss", 2000)
    assert firm.check("A1", "a", "AAPL C100", "buy", 2, 5).is_accepted
    refused = firm.replace("A1", "a", "b", 5, 5)
    assert refused.allowed_quantity == 4
    assert loss(firm, "A1") == 1000
    assert firm.replace("A1", "a", "c", 3, 5).is_accepted
    assert loss(firm, "A1") == 1500
    firm.call("reject_replace", account="A1", new_client_order_id="c")
    assert loss(firm, "A1") == 1000
    assert firm.replace("A1", "a", "d", 3, 6).is_accepted
    firm.fill("A1", "a", "1", 1, 5)
    assert loss(firm, "A1") == 500 + 1200
    firm.call("confirm_replace", account="A1", new_client_order_id="d")
    assert loss(firm, "A1") == 1700
    assert firm.replace("A1", "d", "e", 2, 6).is_accepted
    firm.call("confirm_replace", account="A1", new_client_order_id="e")
    assert loss(firm, "A1") == 1100


@pytest.mark.parametrize(
    ("rest", "binds"),
    [
        ({}, True),
        ({"sector": "Tech"}, True),
        ({"underlying": "AAPL"}, True),
        ({"sector": "Energy"}, False),
        ({"underlying": "MSFT"}, False),
    ],
)
def test_each_dimension_has_its_own_sum(firm: Caller, rest: dict[str, str], binds: bool) -> None:
    assert firm.check("A1", "before", "AAPL P90", "buy", 1, 1).is_accepted
    assert firm.check("A1", "oil", "XOM", "buy", 1, 80).is_accepted
    firm.limit("F", "max_loss", 480 if rest else 560, **rest)
    answer = firm.check("A2", "a", "AAPL C100", "buy", 1, 4)
    assert answer.is_accepted is not binds
    assert firm.check("A2", "b", "AAPL C100", "buy", 1, "3.8").is_accepted


@pytest.mark.parametrize("price", [100, None])
def test_shares_lose_no_more_than_they_cost(firm: Caller, price: int | None) -> None:
    firm.limit("D1", "max_loss", 10_000)
    assert firm.check("A1", "no", "AAPL", "buy", 101, price).allowed_quantity == 100
    assert firm.check("A1", "a", "AAPL", "buy", 60, price).is_accepted
    assert firm.check("A2", "no", "AAPL", "buy", 41, price).failed == {("max_loss", "D1", "all")}
    assert firm.check("A2", "b", "AAPL", "buy", 40, price).is_accepted
    assert loss(firm, "D1") == 10_000
    assert loss(firm, "A1", "AAPL") == 6_000
    assert not firm.check("A1", "above", "AAPL", "buy", 1, price).is_accepted


def test_a_symbol_has_no_worst_loss(firm: Caller) -> None:
    for limit_type in ("max_loss", "same_side"):
        with pytest.raises(Exception, match="measured per underlying") as caught:
            firm.limit("F", limit_type, 1, symbol="AAPL C100")
        assert getattr(caught.value, "sqlstate", None) == "RK400"


def test_a_warning_comes_before_the_limit(firm: Caller) -> None:
    firm.limit("A1", "max_loss", 1000, warn_pct=50)
    assert firm.check("A1", "a", "AAPL C100", "buy", 1, 4).warnings == ()
    (warning,) = firm.check("A1", "b", "AAPL C100", "buy", 1, 1).warnings
    assert (warning["limit_type"], warning["projected"]) == ("max_loss", "500")


def test_several_expiries_cover_in_one_direction_only(firm: Caller) -> None:
    firm.limit("A1", "max_loss", 10**6)
    assert firm.combo("A1", "a", "buy 1 AAPL C100 LATE, sell 1 AAPL C100", 1, 2).is_accepted
    assert loss(firm, "A1") == 500  # the later call alone
    diagonal = "sell 1 AAPL C100 LATE, buy 1 AAPL C100"
    assert only(firm.combo("A1", "b", diagonal, 1, -2), "projected") == ("Infinity",)


@pytest.mark.parametrize("way", ["single", "combo", "batch"])
def test_exactly_the_capacity_is_accepted(db: Database, firm: Caller, way: str) -> None:
    firm.limit("D1", "max_loss", 100 * 37)
    firm.limit("A1", "max_loss", 100 * 30, underlying="AAPL")

    def run(caller: Caller) -> int:
        accepted = 0
        for number in range(10):
            account = ("A1", "A2")[(number + caller.number) % 2]
            name = caller.new_name()
            if way == "combo":
                answer = caller.combo(account, name, "buy 1 AAPL P90", 1, 1)
            elif way == "batch":
                answer = caller.batch([item(account, name, "buy AAPL P90", 1, price=1)])[0]
            else:
                answer = caller.check(account, name, "AAPL P90", "buy", 1, 1)
            accepted += answer.is_accepted
        return accepted

    with callers(db, 8) as clients:
        assert sum(each_at_once(clients, run)) == 37
    assert loss(firm, "D1") == 3700


def test_a_batch_is_judged_like_its_orders(firm: Caller) -> None:
    firm.limit("D1", "max_loss", 10_000)
    firm.limit("A1", "same_side", 3, underlying="AAPL")
    for account, symbol, price in (("A1", "AAPL", 100), ("A2", "AAPL C100", 5)):
        assert firm.check(account, "first", symbol, "buy", 1, price).is_accepted
    fine = [
        item("A1", "f1", "buy AAPL", 9, price=100),
        item("A2", "f2", "buy AAPL C100", 1, price=5),
    ]
    assert [answer.reason for answer in firm.batch(fine)] == [None, None]
    assert loss(firm, "D1") == 10 * 100 + 2 * 500
    orders = [
        item("A1", "b1", "buy AAPL", 81, price=100),
        item("A2", "b2", "buy AAPL", 75, price=100),
        item("A2", "b3", "buy AAPL", 6, price=100),
        item("A1", "b4", "sell AAPL C100", 1, price=5),
        item("A1", "b5", "buy AAPL C100", 4, price="0.1"),
        item("A1", "b6", "buy AAPL", 5, price=100),
    ]
    refused = "RISK_LIMIT_EXCEEDED"
    reasons = [answer.reason for answer in firm.batch(orders)]
    assert reasons == [refused, None, refused, refused, refused, None]
    assert loss(firm, "D1") == 10_000


def test_a_rate_moves_what_is_at_stake_in_its_currency(firm: Caller) -> None:
    stock = {"symbol": "SAP", "kind": "stock", "currency": "EUR"}
    option = {"kind": "option", "underlying": "SAP", "currency": "EUR", "expiry": "2099-03-20"}
    put = option | {"symbol": "SAP P100", "option_right": "put", "strike": 100}
    firm.call("set_fx", currency="EUR", rate="1.5")
    firm.call("upsert_instruments", instruments=Jsonb([stock, put]))
    firm.mark({"SAP": 100, "SAP P100": 4})
    firm.limit("F", "max_loss", 30_000)
    firm.hold("A1", "SAP P100", -1, 4)
    assert loss(firm, "F") == 14_400
    assert firm.check("A1", "a", "SAP P100", "sell", 1, 4).is_accepted
    assert loss(firm, "F") == 28_800
    firm.call("set_fx", currency="EUR", rate=1)
    assert loss(firm, "F") == 19_200
    assert firm.check("A1", "b", "SAP P100", "sell", 1, 4).is_accepted


def test_use_is_shown_with_and_without_open_orders(firm: Caller) -> None:
    firm.limit("A1", "max_loss", 1000)
    firm.limit("A1", "max_loss", 700, underlying="AAPL")
    firm.hold("A1", "AAPL C100", 1, 3)
    assert firm.check("A1", "a", "AAPL C100", "buy", 1, 4).is_accepted
    firm.hold("A1", "MSFT", -1, 50)
    rows = firm.rows(
        """select underlying, used, worst_case, utilization_pct, status
           from risk.limit_utilization where limit_type = 'max_loss' order by limit_value"""
    )
    infinite = Decimal("Infinity")
    assert [tuple(row.values()) for row in rows] == [
        ("AAPL", 300, 700, 100, "WARN"),
        (None, infinite, infinite, infinite, "BREACH"),
    ]
