"""Busts and corrections: the books afterwards are those of a history without the mistake."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest

from tests.orders import Caller, Row, open_firm
from tests.test_money import DAYS, code, money, pnl, position, trade

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.databases import Database

TRADED = """select traded_notional from risk_private.counters as c
  join risk_private.scopes as s on s.scope_id = c.scope_id
  where s.code = %s and c.dimension = 0"""


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    """A buy of 10 AAPL at 100 is open in A1."""
    with open_firm(db) as caller:
        caller.call("open_day", day=DAYS[0])
        caller.check("A1", "1", "AAPL", "buy", 10, 100)
        yield caller
        assert caller.differences() == []
        for row in caller.rows("select * from risk.pnl"):
            parts = row["flows"] + row["realized"] - row["fees"] + row["income"]
            parts += row["currency_pnl"] + row["unrealized"] - row["start_unrealized"]
            assert row["equity"] - row["start_equity"] == parts, row["scope"]


def bust(firm: Caller, exec_id: str, account: str = "A1") -> None:
    firm.call("bust_fill", account=account, exec_id=exec_id, reason="erroneous")


def correct(firm: Caller, exec_id: str, quantity: int, price: int) -> None:
    firm.call(
        "correct_fill",
        account="A1",
        exec_id=exec_id,
        quantity=quantity,
        price=price,
        reason="wrong",
    )


def order(firm: Caller, name: str) -> tuple[Any, ...]:
    (row,) = firm.rows(
        """select state, filled_quantity, remaining_quantity, close_reason from risk.orders
           where account = 'A1' and client_order_id = %s""",
        name,
    )
    return tuple(row.values())


def books(firm: Caller) -> list[Row]:
    """Everything that a history leads to."""
    return [
        *firm.rows(
            """select account, symbol, quantity, open_buy, open_sell, average_price, market_value,
               unrealized_pnl, realized_pnl_today from risk.positions order by 1, 2"""
        ),
        *firm.rows("select account, currency, amount from risk.cash order by 1, 2"),
        *firm.rows("select scope, equity, realized, fees, unrealized from risk.pnl order by 1"),
        *firm.rows("select scope, gross_notional, traded_notional, open_orders from risk.exposure"),
    ]


def test_a_bust_puts_everything_back(firm: Caller) -> None:
    before = books(firm)
    firm.fill("A1", "1", "e1", 4, 99, fee=1)
    bust(firm, "e1")
    assert order(firm, "1") == ("ACCEPTED", 0, 10, None)
    assert firm.position("A1", "AAPL") == (0, 10, 0)
    assert [row for row in books(firm) if row.get("amount") != 0] == before
    fill = firm.rows("select side, quantity, price, status, realized from risk.fills")
    assert [tuple(row.values()) for row in fill] == [("buy", 0, 99, "BUSTED", 0)]
    (kept,) = firm.rows("select * from risk.fill_corrections")
    assert (kept["kind"], kept["old_quantity"], kept["old_price"]) == ("bust", 4, 99)
    assert (kept["new_quantity"], kept["reason"], kept["corrected_by"]) == (
        0,
        "erroneous",
        "postgres",
    )


def test_a_bust_is_done_once_and_the_execution_may_be_told_again(firm: Caller) -> None:
    firm.fill("A1", "1", "e1", 4, 99)
    for _ in range(2):
        bust(firm, "e1")
        firm.fill("A1", "1", "e1", 4, 99)
    assert firm.position("A1", "AAPL") == (0, 10, 0)
    assert len(firm.alerts("fill_busted")) == 1
    assert firm.value("select count(*) from risk.fill_corrections") == 1
    known = {"account": "A1", "client_order_id": "1", "exec_id": "e1"}
    assert code(firm, "record_fill", **known, quantity=5, price=99) == "RK409"
    assert code(firm, "correct_fill", **wrong(price=98)) == "RK409"


def wrong(**other: Any) -> dict[str, Any]:
    known = {"account": "A1", "exec_id": "e1", "quantity": 4, "price": 99, "reason": "why"}
    return known | other


@pytest.mark.parametrize(
    ("right", "mistake"),
    [
        ([(10, 100), (-4, 110)], lambda firm, ids: bust(firm, ids["wrong"])),
        ([(10, 100), (3, 97), (-4, 110)], lambda firm, ids: correct(firm, ids["wrong"], 3, 97)),
        ([(10, 100), (13, 95), (-4, 110)], lambda firm, ids: correct(firm, ids["wrong"], 13, 95)),
    ],
    ids=["bust", "to less", "to more"],
)
def test_what_followed_is_reckoned_anew(
    firm: Caller, right: list[tuple[int, int]], mistake: Callable[[Caller, dict[str, str]], None]
) -> None:
    """The mistake lies between a purchase and a sale, so the average price of the sale changes."""
    for quantity, price in right:
        trade(firm, "A2", "XOM", quantity, price)
    ids = {}
    for name, quantity, price in (("a", 10, 100), ("wrong", 7, 103), ("b", -4, 110)):
        ids[name] = trade(firm, "A1", "XOM", quantity, price)
    mistake(firm, ids)
    columns = ("quantity", "average_price", "realized_pnl_today", "unrealized_pnl", "market_value")
    rows = [position(firm, "XOM", account) for account in ("A1", "A2")]
    mine, expected = ([row[column] for column in columns] for row in rows)
    assert mine == expected
    assert money(firm, "A1") == money(firm, "A2")


def test_a_bust_across_zero(firm: Caller) -> None:
    """Without the first, 10 bought at 100: sold 15 at 90 they open a short, closed at 80."""
    first = trade(firm, "A1", "XOM", 10, 100)
    trade(firm, "A1", "XOM", -15, 90)
    trade(firm, "A1", "XOM", 5, 80)
    assert money(firm, "A1", "realized", "equity") == (-50, -50)
    bust(firm, first)
    assert position(firm, "XOM")["average_price"] == 90
    assert money(firm, "A1", "realized", "unrealized") == (50, 100)


def test_a_filled_order_stays_closed_when_its_fill_is_busted(firm: Caller) -> None:
    firm.fill("A1", "1", "e1", 10, 99)
    bust(firm, "e1")
    assert order(firm, "1") == ("CANCELLED", 0, 0, "fill_corrected")
    assert firm.position("A1", "AAPL") == (0, 0, 0)
    assert [firm.value(TRADED, scope) for scope in ("A1", "F")] == [0, 0]


def test_an_over_fill_is_busted(firm: Caller) -> None:
    firm.fill("A1", "1", "e1", 8, 99)
    firm.fill("A1", "1", "e2", 5, 98)
    assert firm.position("A1", "AAPL") == (13, 0, 0)
    bust(firm, "e2")
    assert order(firm, "1") == ("CANCELLED", 8, 0, "fill_corrected")
    assert firm.position("A1", "AAPL") == (8, 0, 0)
    assert firm.value(TRADED, "F") == 8 * 99
    assert firm.fill("A1", "1", "e3", 2, 97)["flag"] == "fill_on_closed_order"
    correct(firm, "e1", 10, 99)
    assert order(firm, "1") == ("FILLED", 12, 0, None)


def test_the_surplus_alone_is_busted(firm: Caller) -> None:
    firm.fill("A1", "1", "e1", 10, 99)
    firm.fill("A1", "1", "e2", 3, 98)
    bust(firm, "e2")
    assert order(firm, "1") == ("FILLED", 10, 0, None)


def test_a_correction_fills_or_frees_a_live_order(firm: Caller) -> None:
    firm.call("ack_order", account="A1", client_order_id="1")
    firm.fill("A1", "1", "e1", 4, 99)
    correct(firm, "e1", 6, 98)
    assert order(firm, "1") == ("PARTIALLY_FILLED", 6, 4, None)
    assert firm.position("A1", "AAPL") == (6, 4, 0)
    assert firm.value(TRADED, "D1") == 6 * 98 + 4 * 100
    correct(firm, "e1", 10, 98)
    assert order(firm, "1") == ("FILLED", 10, 0, None)
    correct(firm, "e1", 10, 98)
    assert firm.value("select count(*) from risk.fill_corrections") == 2
    assert [alert["quantity"] for alert in firm.alerts("fill_corrected")] == ["6", "10"]


def test_fills_of_a_replaced_order_are_busted_on_its_heir(firm: Caller) -> None:
    firm.fill("A1", "1", "e1", 4, 99)
    firm.replace("A1", "1", "2", 12, 100)
    firm.fill("A1", "1", "e2", 3, 99)
    bust(firm, "e1")
    assert firm.position("A1", "AAPL") == (3, 9, 0)
    firm.call("confirm_replace", account="A1", new_client_order_id="2")
    bust(firm, "e2")
    assert order(firm, "2") == ("ACKNOWLEDGED", 0, 12, None)
    assert firm.position("A1", "AAPL") == (0, 12, 0)


def test_the_leg_of_a_combo_is_busted(firm: Caller) -> None:
    firm.combo("A1", "c", "sell 1 AAPL C100, buy 2 AAPL C110", 3, 1)
    firm.fill("A1", "c", "e1", 3, 5, symbol="AAPL C100")
    firm.fill("A1", "c", "e2", 2, 4, symbol="AAPL C110")
    bust(firm, "e2")
    assert firm.position("A1", "AAPL C110") == (0, 6, 0)
    assert firm.position("A1", "AAPL C100") == (-3, 0, 0)


def test_a_late_bust_counts_to_the_day_it_is_told(firm: Caller) -> None:
    """Yesterday 10 @ 100 and 10 @ 110 were bought, 10 sold at 120 for 150; without the first the
    sale made 100, and the ten left are gone."""
    first = trade(firm, "A1", "XOM", 10, 100, fee=2)
    trade(firm, "A1", "XOM", 10, 110)
    trade(firm, "A1", "XOM", -10, 120)
    assert pnl(firm)["realized"] == 150
    firm.call("open_day", day=DAYS[1])
    before = pnl(firm)
    traded = firm.value(TRADED, "A1")
    bust(firm, first)
    after = pnl(firm)
    assert (after["realized"], after["fees"], after["unrealized"]) == (-50, -2, 0)
    assert after["daily_pnl"] == after["equity"] - before["equity"] == -50 + 2 + 250
    assert firm.value(TRADED, "A1") == traded == 0
    assert firm.value("select late_realized from risk.fill_corrections") == -50


def test_a_bust_in_another_currency_gives_back_the_cash_of_today(firm: Caller) -> None:
    firm.call("set_fx", currency="EUR", rate=Decimal("1.1"))
    firm.rows(
        """call risk.upsert_instruments(
             '[{"symbol": "SAP", "kind": "stock", "currency": "EUR"}]')"""
    )
    firm.mark({"SAP": 50})
    exec_id = trade(firm, "A1", "SAP", 10, 50, fee=1)
    firm.call("set_fx", currency="EUR", rate=Decimal("1.2"))
    bust(firm, exec_id)
    assert money(firm) == (0, 0, 0, 0, 0, 0, 0, 0)


def test_what_cannot_be_busted_is_refused(firm: Caller) -> None:
    firm.fill("A1", "1", "e1", 4, 99)
    why = {"reason": "why"}
    assert code(firm, "bust_fill", account="A1", exec_id="e2", **why) == "RK404"
    assert code(firm, "bust_fill", account="A2", exec_id="e1", **why) == "RK404"
    assert code(firm, "bust_fill", account="no", exec_id="e1", **why) == "RK404"
    assert code(firm, "bust_fill", account="A1", exec_id="e1", reason=" ") == "RK400"
    for other in ({"quantity": 0}, {"quantity": -1}, {"price": Decimal("NaN")}, {"reason": ""}):
        assert code(firm, "correct_fill", **wrong(**other)) == "RK400"
    assert firm.rows("select * from risk.fill_corrections") == []
