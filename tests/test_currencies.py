"""Other currencies: their rate must be known and fresh, and everything follows it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

import pytest
from psycopg.types.json import Jsonb

from tests.orders import Answer, Caller, all_at_once, callers, item, open_firm
from tests.test_money import DAYS, pnl, post, trade

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

D = Decimal
NOW = datetime(2098, 1, 6, 15, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
EURO = {"currency": "EUR", "allow_negative_price": False}
INSTRUMENTS = [
    {"symbol": "SAP", "kind": "stock"} | EURO,
    {"symbol": "SAP C50", "kind": "option", "underlying": "SAP", "option_right": "call"}
    | {"strike": 50, "expiry": "2099-03-20"}
    | EURO,
    {"symbol": "BP", "kind": "stock", "currency": "GBP"},
]
WAYS = ("order", "batch", "batch of two", "combo", "replace", "preview")


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    """Marks and rates may be 60 s old; 1 EUR is 1.10, of GBP nothing is known. A1 holds 10 of each
    stock; a buy of 1 is open in each."""
    db.set_clock(NOW)
    with open_firm(db) as caller:
        caller.call("upsert_instruments", instruments=Jsonb(INSTRUMENTS))
        caller.call("set_fx", currency="EUR", rate=D("1.1"))
        remark(caller)
        for symbol in ("SAP", "BP", "MSFT", "XOM"):
            caller.hold("A1", symbol, 10, 50)
        caller.call("set_fx", currency="GBP", rate=D("1.3"))
        for symbol in ("SAP", "BP", "MSFT"):
            assert caller.check("A1", f"open {symbol}", symbol, "buy", 1, 50).is_accepted
        caller.rows("delete from risk_private.fx_rates where currency = 'GBP'")
        caller.call("set_setting", name="max_mark_age", value="60")
        yield caller
        caller.call("set_fx", currency="GBP", rate=D("1.3"))
        assert caller.differences() == []


def remark(firm: Caller) -> None:
    firm.mark({"SAP": 50, "SAP C50": 5, "BP": 50, "MSFT": 50, "XOM": 80})


def ask(firm: Caller, way: str, symbol: str, side: str) -> str | None:
    """The reason for which one more is refused."""
    name = firm.new_name()
    answers: list[Answer]
    if way == "order":
        answers = [firm.check("A1", name, symbol, side, 1, 50)]
    elif way == "combo":
        answers = [firm.combo("A1", name, f"{side} 1 {symbol}, {side} 1 XOM", 1, 100)]
    elif way == "replace":
        quantity = 2 if side == "buy" else 1
        answers = [firm.replace("A1", f"open {symbol}", name, quantity, 50)]
    elif way == "preview":
        rows = firm.rows(
            "select reason from risk.preview_order('A1', %s, %s, 1, 50) where status = 'FAIL'",
            symbol,
            side,
        )
        return rows[0]["reason"] if rows else None
    else:
        count = 2 if way == "batch of two" else 1
        orders = [item("A1", f"{name} {n}", f"{side} {symbol}", 1, price=50) for n in range(count)]
        answers = firm.batch(orders)
    (reason,) = {answer.reason for answer in answers}
    return reason


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("age", "expected"), [(60, None), (60.001, "STALE_DATA")])
def test_a_rate_may_be_as_old_as_a_mark(
    db: Database, firm: Caller, way: str, age: float, expected: str | None
) -> None:
    db.set_clock(NOW + age * SECOND)
    remark(firm)
    assert ask(firm, way, "SAP", "buy") == expected
    firm.call("set_fx", currency="EUR", rate=D("1.1"))
    if way != "replace":  # which is pending now, or was refused for ever
        assert ask(firm, way, "SAP", "buy") is None


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("symbol", ["SAP", "BP"])
def test_without_a_fresh_rate_risk_can_be_reduced(
    db: Database, firm: Caller, way: str, symbol: str
) -> None:
    """Nothing is known of GBP; EUR is old. Only what reduces passes: a smaller replace, a sell."""
    db.set_clock(NOW + timedelta(hours=1))
    remark(firm)
    assert ask(firm, way, "MSFT", "buy") is None
    assert ask(firm, way, symbol, "sell") is None
    if way != "replace":
        assert ask(firm, way, symbol, "buy") == "STALE_DATA"


def test_an_option_needs_the_rate_of_its_currency(db: Database, firm: Caller) -> None:
    assert firm.check("A1", "1", "SAP C50", "buy", 1, 5).is_accepted
    db.set_clock(NOW + 61 * SECOND)
    remark(firm)
    answer = firm.check("A1", "2", "SAP C50", "buy", 1, 5)
    assert answer.reasons == {"STALE_DATA"}
    assert answer.failed == {(None, None, f"instrument:{name}") for name in ("SAP", "SAP C50")}


def test_a_rate_from_the_future_is_not_believed(db: Database, firm: Caller) -> None:
    firm.call("set_fx", currency="EUR", rate=D("1.1"), as_of=NOW + 1.1 * SECOND)
    assert ask(firm, "order", "SAP", "buy") == "STALE_DATA"
    db.set_clock(NOW + 0.2 * SECOND)
    assert ask(firm, "order", "SAP", "buy") is None


def test_the_strictest_age_of_the_chain_holds_and_0_lets_any_age_pass_but_none_missing(
    db: Database, firm: Caller
) -> None:
    firm.call("set_setting", name="max_mark_age", value="20", scope="D1")
    db.set_clock(NOW + 21 * SECOND)
    remark(firm)
    assert firm.check("B1", "1", "SAP", "buy", 1, 50).is_accepted
    assert ask(firm, "order", "SAP", "buy") == "STALE_DATA"
    for scope in ("D1", None):
        firm.call("set_setting", name="max_mark_age", value="0", scope=scope)
    db.set_clock(NOW + timedelta(days=30))
    for way in WAYS:
        assert ask(firm, way, "SAP", "buy") is None
        assert ask(firm, way, "BP", "buy") == "STALE_DATA"


def test_a_stale_rate_holds_up_no_other_currency(db: Database, firm: Caller) -> None:
    db.set_clock(NOW + 61 * SECOND)
    remark(firm)
    assert [ask(firm, way, "MSFT", "buy") for way in WAYS] == [None] * len(WAYS)
    reason = firm.combo("A1", "mixed", "buy 1 MSFT, buy 1 SAP", 1, 100).reason
    assert reason == "STALE_DATA"


def test_what_is_held_and_what_is_open_follow_the_rate(firm: Caller) -> None:
    """10 held and 1 to buy at 50 EUR: 550 EUR; a share moves 50 EUR by its whole price."""
    notional = "select gross_notional from risk.exposure where scope = 'A1' and underlying = 'SAP'"
    firm.limit("A1", "gross_notional", 10**6, underlying="SAP")
    firm.limit("A1", "net_exposure", 10**6, underlying="SAP")
    for rate in (D("1.1"), D("1.25"), D("0.9")):
        firm.call("set_fx", currency="EUR", rate=rate)
        assert firm.value(notional) == 11 * 50 * rate
        kept = firm.rows(
            """select e.dollar_delta, e.dollar_delta_up, e.gross_exposure
               from risk_private.exposures as e
               join risk_private.instruments as i on i.instrument_id = e.key_id
               where e.dimension = 2 and i.symbol = 'SAP'"""
        )
        assert [tuple(row.values()) for row in kept] == [(500 * rate, 550 * rate, 550 * rate)]
        shown = """select dollar_delta from risk.portfolio_greeks
          where scope = 'A1' and underlying = 'SAP'"""
        assert firm.value(shown) == pytest.approx(float(500 * rate))


def test_rates_move_while_accounts_trade(firm: Caller, db: Database) -> None:
    def set_rates(caller: Caller) -> None:
        for turn in range(40):
            caller.call("set_fx", currency="EUR", rate=D(100 + turn) / 100)

    def trade_on(account: str, caller: Caller) -> None:
        for turn in range(40):
            trade(caller, account, "SAP", (3, -2)[turn % 2], 50)
            post(caller, account, 10, "deposit", currency="EUR")

    firm.call("set_setting", name="max_mark_age", value="0")
    with callers(db, 4) as (feed, one, two, other):
        all_at_once(
            [
                partial(set_rates, feed),
                partial(trade_on, "A1", one),
                partial(trade_on, "A2", two),
                partial(trade_on, "A2", other),
            ]
        )
    rates = firm.rows("select account, rate from risk.cash where currency = 'EUR' order by account")
    assert [tuple(row.values()) for row in rates] == [("A1", D("1.39")), ("A2", D("1.39"))]


def test_a_day_keeps_what_rates_made_of_it(firm: Caller) -> None:
    """100 EUR at 1.10 are 110; at 1.20 they have made 10, which is neither a flow nor income."""
    firm.call("open_day", day=DAYS[0])
    post(firm, "B1", 100, "deposit", currency="EUR")
    firm.call("set_fx", currency="EUR", rate=D("1.2"))
    firm.call("open_day", day=DAYS[1])
    (row,) = firm.rows("select * from risk.daily_summary where scope = 'B1' and day = %s", DAYS[0])
    names = ("flows", "income", "currency_pnl", "daily_pnl", "end_equity")
    assert [row[name] for name in names] == [110, 0, 10, 10, 120]
    assert pnl(firm, "B1")["currency_pnl"] == 0
