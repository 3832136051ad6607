"""Exercise, assignment, expiry and cash settlement, by examples worked by hand."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.types.json import Jsonb

from tests.orders import Caller, Number, open_firm
from tests.test_money import DAYS, code, money, pnl, position, post, trade

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

D = Decimal
GREEKS = ("delta", "gamma", "vega", "theta", "rho")
OPTIONS = {"X C95": ("call", 95), "X C110": ("call", 110), "X P90": ("put", 90)}
OPTIONS |= {"X P105": ("put", 105), "SPX C4000": ("call", 4000)}


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    """Options on stock X and on the index SPX that expire on the first day; 50,000 in A1 and A2."""
    with open_firm(db) as caller:
        options = [
            {
                "symbol": symbol,
                "kind": "option",
                "underlying": symbol.split()[0],
                "option_right": right,
                "strike": strike,
                "expiry": DAYS[0],
            }
            for symbol, (right, strike) in OPTIONS.items()
        ]
        underlyings = [{"symbol": "X", "kind": "stock"}, {"symbol": "SPX", "kind": "index"}]
        caller.call("upsert_instruments", instruments=Jsonb(underlyings + options))
        for limit_type in ("max_loss", "buying_power", "same_side", "delta", "vega"):
            caller.limit("F", limit_type, 10**9)
        caller.call("open_day", day=DAYS[0])
        for account in ("A1", "A2"):
            post(caller, account, 50_000, "deposit")
        mark(caller, 100, 4000)
        yield caller
        assert caller.differences() == []
        for row in caller.rows("select * from risk.pnl"):
            parts = row["flows"] + row["realized"] - row["fees"] + row["income"]
            parts += row["currency_pnl"] + row["unrealized"] - row["start_unrealized"]
            assert row["equity"] - row["start_equity"] == parts, row["scope"]


def mark(firm: Caller, stock: Number, index: Number) -> None:
    """Mark everything: an option at what it would be worth if exercised, and a cent."""
    spots = {"X": D(stock), "SPX": D(index)}
    prices = dict(spots)
    for symbol, (right, strike) in OPTIONS.items():
        inside = (spots[symbol.split()[0]] - strike) * (1 if right == "call" else -1)
        prices[symbol] = max(inside, D(0)) + D("0.01")
    count = len(prices)
    arrays = {name: [0.5] * count for name in ("deltas", "gammas", "vegas", "thetas", "rhos")}
    firm.call("set_marks", symbols=list(prices), prices=list(prices.values()), **arrays)


def close(firm: Caller, stock: Number, index: Number) -> None:
    """The last marks of the first day, and the next morning."""
    mark(firm, stock, index)
    firm.call("open_day", day=DAYS[1])


def settle(
    firm: Caller,
    symbol: str,
    quantity: Number,
    price: Number,
    kind: str,
    exec_id: str,
    account: str = "A1",
) -> None:
    """One trade of a settlement, reported twice."""
    for _ in range(2):
        firm.call(
            "record_trade",
            account=account,
            symbol=symbol,
            side="buy" if D(quantity) > 0 else "sell",
            quantity=abs(D(quantity)),
            price=D(price),
            exec_id=exec_id,
            kind=kind,
        )


def owed(firm: Caller, underlying: str = "X", account: str = "A1") -> tuple[Any, ...]:
    """Bounded worst loss, cash that may be called for, bull and bear contracts."""
    rows = firm.rows(
        """select o.max_loss, o.cash_need, o.bull, o.bear
           from risk_private.obligations as o
           join risk_private.scopes as s using (scope_id)
           join risk_private.instruments as i on i.instrument_id = o.key_id
           where o.dimension = 2 and s.code = %s and i.symbol = %s""",
        account,
        underlying,
    )
    return tuple(rows[0].values()) if rows else (0, 0, 0, 0)


def firm_delta(firm: Caller, underlying: str = "X") -> Any:
    return firm.value(
        """select coalesce(sum(delta), 0) from risk.portfolio_greeks
           where scope = 'F' and underlying = %s""",
        underlying,
    )


def test_a_long_call_is_exercised(firm: Caller) -> None:
    """2 calls of 95 at 7 and a fee of 1.30 cost 1,401.30; the stock closes at 108. The shares stand
    at 95 and have gained 13 each; the premium is lost."""
    trade(firm, "A1", "X C95", 2, 7, fee="1.3")
    assert owed(firm) == (1400, 0, 2, 0)
    close(firm, 108, 4000)
    settle(firm, "X C95", -2, 0, "exercise", "exercise 1")
    settle(firm, "X", 200, 95, "exercise", "exercise 1 shares")
    assert firm.position("A1", "X C95") == (0, 0, 0)
    assert position(firm, "X")["average_price"] == 95
    assert money(firm, "A1", "cash", "realized", "unrealized", "flows") == (
        D("29598.7"),
        -1400,
        2600,
        0,
    )
    assert pnl(firm)["equity"] == D("51198.7") == 50_000 - D("1401.3") + 2 * 100 * 13
    assert pnl(firm, "F")["equity"] == D("101198.7")
    assert owed(firm) == (19_000, 0, 0, 0)
    assert firm_delta(firm) == 200
    assert len(firm.alerts("unexplained_trade")) == 1  # the purchase alone


def test_a_short_put_is_assigned(firm: Caller) -> None:
    """3 puts of 105 sold at 4 bring 1,200 and may take 31,500; the stock closes at 98."""
    trade(firm, "A1", "X P105", -3, 4)
    assert owed(firm) == (30_300, 31_500, 3, 0)
    close(firm, 98, 4000)
    settle(firm, "X P105", 3, 0, "assignment", "assignment 1")
    settle(firm, "X", 300, 105, "assignment", "assignment 1 shares")
    assert money(firm, "A1", "cash", "realized", "unrealized", "equity") == (
        19_700,
        1200,
        -2100,
        49_100,
    )
    assert owed(firm) == (31_500, 0, 0, 0)
    assert firm_delta(firm) == 300


def test_a_covered_call_is_assigned(firm: Caller) -> None:
    """100 shares at 90 are called away at 95, for 500 and the premium of 6."""
    trade(firm, "A1", "X", 100, 90)
    trade(firm, "A1", "X C95", -1, 6)
    assert owed(firm) == (8_400, 0, 0, 1)
    close(firm, 112, 4000)
    settle(firm, "X C95", 1, 0, "assignment", "assignment 1")
    settle(firm, "X", -100, 95, "assignment", "assignment 1 shares")
    assert money(firm, "A1", "cash", "realized", "unrealized") == (51_100, 1100, 0)
    assert owed(firm) == (0, 0, 0, 0)
    assert firm_delta(firm) == 0


def test_worthless_options_expire_long_and_short(firm: Caller) -> None:
    """5 calls bought at 1.20 are lost, 600; 4 puts sold at 0.80 are kept, 320."""
    trade(firm, "A1", "X C110", 5, "1.2")
    trade(firm, "A1", "X P90", -4, "0.8")
    assert owed(firm) == (35_680 + 600, 36_000, 9, 0)
    close(firm, 100, 4000)
    settle(firm, "X C110", -5, 0, "expiry", "expiry 1")
    settle(firm, "X P90", 4, 0, "expiry", "expiry 2")
    assert money(firm, "A1", "cash", "realized", "unrealized", "equity") == (
        49_720,
        -280,
        0,
        49_720,
    )
    assert owed(firm) == (0, 0, 0, 0)


def test_an_index_option_is_settled_in_cash(firm: Caller) -> None:
    """At a settlement value of 4,075 a call of 4,000 pays 75 x 100, and nothing is delivered."""
    trade(firm, "A1", "SPX C4000", 1, 50)
    trade(firm, "A2", "SPX C4000", -1, 52)
    close(firm, 100, 4080)
    settle(firm, "SPX C4000", -1, 75, "exercise", "exercise 1")
    settle(firm, "SPX C4000", 1, 75, "assignment", "assignment 1", "A2")
    assert money(firm, "A1", "cash", "realized", "unrealized") == (52_500, 2500, 0)
    assert money(firm, "A2", "cash", "realized", "unrealized") == (47_700, -2300, 0)
    assert pnl(firm, "D1")["equity"] == 100_200
    assert firm.position("A1", "SPX") == (0, 0, 0)
    assert owed(firm, "SPX", "A2") == (0, 0, 0, 0)


def test_a_settlement_is_booked_once_and_known_by_its_content(firm: Caller) -> None:
    trade(firm, "A1", "X C95", 2, 7)
    close(firm, 108, 4000)
    settle(firm, "X C95", -2, 0, "exercise", "e1")
    known = {
        "account": "A1",
        "symbol": "X C95",
        "side": "sell",
        "quantity": 2,
        "price": 0,
        "exec_id": "e1",
    }
    for other in ({"kind": "expiry"}, {"kind": "exercise", "quantity": 1}):
        assert code(firm, "record_trade", **(known | other)) == "RK409"
    assert code(firm, "record_trade", **known | {"kind": "settlement"}) == "RK400"
    settle(firm, "X C95", -2, 0, "exercise", "e1", "A2")  # another account's id of that name
    assert firm.position("A2", "X C95") == (-2, 0, 0)
    settle(firm, "X C95", 2, 0, "exercise", "e2", "A2")


def test_what_has_expired_stays_until_settled_and_moves_no_more(firm: Caller) -> None:
    trade(firm, "A1", "X C95", 2, 7)
    trade(firm, "A1", "X P105", -1, 4)
    assert firm_delta(firm) == 2 * 50 - 50
    assert position(firm, "X C95")["delta"] == 100
    close(firm, 108, 4000)
    before = owed(firm)
    row = position(firm, "X C95")
    assert row["quantity"] == 2
    assert [row[name] for name in GREEKS] == [0] * 5
    assert row["market_value"] == D("2602.00")
    assert (
        firm.value(
            """select max(abs(e.delta) + abs(e.vega) + e.unknown) from risk_private.exposures as e
           join risk_private.scopes as s using (scope_id) where s.code = 'F'"""
        )
        == 0
    )
    assert before == (1400 + 10_100, 10_500, 3, 0)
    answer = firm.check("A1", "1", "X C95", "sell", 1, 13)
    assert (answer.is_accepted, answer.reason) == (False, "INSTRUMENT_EXPIRED")
    settle(firm, "X C95", -2, 0, "exercise", "e1")
    assert owed(firm) == (10_100, 10_500, 1, 0)
    settle(firm, "X P105", 1, 0, "expiry", "e2")
    assert owed(firm) == (0, 0, 0, 0)


def test_a_settlement_that_was_wrong_is_busted(firm: Caller) -> None:
    """The clearing house takes an assignment of two back to one."""
    trade(firm, "A1", "X P105", -2, 4)
    close(firm, 98, 4000)
    settle(firm, "X P105", 2, 0, "assignment", "e1")
    settle(firm, "X", 200, 105, "assignment", "e2")
    firm.call("correct_fill", account="A1", exec_id="e1", quantity=1, price=0, reason="one only")
    firm.call(
        "correct_fill", account="A1", exec_id="e2", quantity=100, price=105, reason="one only"
    )
    assert firm.position("A1", "X P105") == (-1, 0, 0)
    assert firm.position("A1", "X") == (100, 0, 0)
    assert money(firm, "A1", "cash", "realized") == (50_800 - 10_500, 400)
    assert owed(firm) == (10_100 + 10_500, 10_500, 1, 0)
