"""Cash, average cost, P&L, currencies and flows, by examples worked by hand."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.orders import Caller, Number, Row, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

DAYS = ("2026-03-02", "2026-03-03")
MONEY = ("equity", "cash", "realized", "unrealized", "fees", "income", "flows", "currency_pnl")


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    """The small firm with a stock in euro, and nothing that was ever held."""
    with open_firm(db) as caller:
        caller.call(
            "upsert_instruments",
            instruments=Jsonb([{"symbol": "SAP", "kind": "stock", "currency": "EUR"}]),
        )
        yield caller
        assert caller.differences() == []
        for row in caller.rows("select * from risk.pnl where equity is not null"):
            parts = row["flows"] + row["realized"] - row["fees"] + row["income"]
            parts += row["currency_pnl"] + row["unrealized"] - row["start_unrealized"]
            if row["start_equity"] is not None:
                assert row["equity"] - row["start_equity"] == parts, row["scope"]
                assert row["daily_pnl"] == parts - row["flows"]


def pnl(firm: Caller, scope: str = "A1") -> Row:
    (row,) = firm.rows("select * from risk.pnl where scope = %s", scope)
    return row


def money(firm: Caller, scope: str = "A1", *columns: str) -> tuple[Any, ...]:
    row = pnl(firm, scope)
    return tuple(row[column] for column in columns or MONEY)


def post(firm: Caller, account: str, amount: Number, reason: str, **rest: object) -> None:
    firm.call("post_cash", account=account, amount=Decimal(amount), reason=reason, **rest)


def trade(
    firm: Caller,
    account: str,
    symbol: str,
    quantity: Number,
    price: Number,
    fee: Number = 0,
    kind: str = "unexplained",
) -> str:
    """A trade, bought or (below 0) sold; returns its exec_id."""
    exec_id = firm.new_name()
    firm.call(
        "record_trade",
        account=account,
        symbol=symbol,
        side="buy" if Decimal(quantity) > 0 else "sell",
        quantity=abs(Decimal(quantity)),
        price=Decimal(price),
        exec_id=exec_id,
        fee=Decimal(fee),
        kind=kind,
    )
    return exec_id


def position(firm: Caller, symbol: str, account: str = "A1") -> Row:
    (row,) = firm.rows(
        "select * from risk.positions where account = %s and symbol = %s", account, symbol
    )
    return row


def code(firm: Caller, procedure: str, **arguments: Any) -> str | None:
    """The code of the error that a call raises."""
    with pytest.raises(psycopg.Error) as caught:
        firm.call(procedure, **arguments)
    return caught.value.sqlstate


# -- fills -------------------------------------------------------------------------------------


def test_a_fill_moves_cash_and_leaves_the_equity_but_for_its_fee(firm: Caller) -> None:
    post(firm, "A1", 10_000, "deposit")
    firm.check("A1", "1", "AAPL", "buy", 10, 100)
    assert money(firm)[:2] == (10_000, 10_000)  # an order moves no money
    firm.fill("A1", "1", "e1", 10, 100, fee=1)
    assert money(firm) == (9_999, 8_999, 0, 0, 1, 0, 10_000, 0)
    firm.mark({"AAPL": 110})
    assert money(firm) == (10_099, 8_999, 0, 100, 1, 0, 10_000, 0)
    for scope in ("D1", "F"):
        assert money(firm, scope) == money(firm)
    assert money(firm, "D2") == (0,) * 8


def test_average_cost_through_zero(firm: Caller) -> None:
    """4 @ 99 + 6 @ 104 = 10 @ 102; sold 5 @ 110 (+40) and 10 @ 100 (-10), which leaves -5 @ 100;
    bought back 2 @ 90 (+20), 4 @ 120 (3 close -60, 1 opens @ 120)."""
    expected = [
        (4, 99, 99, 0),
        (6, 104, 102, 0),
        (-5, 110, 102, 40),
        (-10, 100, 100, 30),
        (2, 90, 100, 50),
        (4, 120, 120, -10),
    ]
    for quantity, price, average, realized in expected:
        trade(firm, "A1", "AAPL", quantity, price)
        row = position(firm, "AAPL")
        assert (row["average_price"], row["realized_pnl_today"]) == (average, realized)
        assert pnl(firm)["realized"] == realized
    assert position(firm, "AAPL")["quantity"] == 1


def test_an_average_that_no_decimal_can_write_loses_nothing(firm: Caller) -> None:
    trade(firm, "A1", "AAPL", 1, 10)
    trade(firm, "A1", "AAPL", 2, 11)
    assert position(firm, "AAPL")["average_price"] == Decimal("10.666666666667")
    for price in (12, 13, 14):
        trade(firm, "A1", "AAPL", -1, price)
    assert money(firm, "A1", "cash", "equity", "realized") == (7, 7, 7)


def test_short_positions_and_multipliers(firm: Caller) -> None:
    """10 options of 100 shares sold at 4: 4,000 received; marked at 5 they owe 5,000."""
    trade(firm, "A1", "AAPL C100", -10, 4, fee="6.5")
    assert money(firm) == (
        Decimal("-1006.5"),
        Decimal("3993.5"),
        0,
        -1000,
        Decimal("6.5"),
        0,
        0,
        0,
    )
    row = position(firm, "AAPL C100")
    assert (row["average_price"], row["market_value"], row["unrealized_pnl"]) == (4, -5000, -1000)
    trade(firm, "A1", "AAPL C100", 4, 3)
    assert money(firm, "A1", "realized", "unrealized") == (400, -600)


def test_a_fill_of_a_combo_leg_moves_the_cash_of_that_leg(firm: Caller) -> None:
    firm.combo("A1", "c", "sell 1 AAPL C100, buy 1 AAPL C110", 2, 1)
    firm.fill("A1", "c", "e1", 2, 6, symbol="AAPL C100")
    firm.fill("A1", "c", "e2", 2, 5, symbol="AAPL C110")
    assert money(firm, "A1", "cash", "equity") == (200, 200)


# -- kinds of trades ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["opening", "transfer"])
def test_positions_brought_in_are_flows_at_their_price(firm: Caller, kind: str) -> None:
    trade(firm, "A1", "AAPL", 10, 90, kind=kind)
    assert money(firm) == (1_000, 0, 0, 100, 0, 0, 900, 0)
    trade(firm, "A1", "AAPL", -4, 95, kind="transfer")
    assert money(firm) == (600, 0, 20, 60, 0, 0, 520, 0)


def test_an_expiry_at_0_settles_a_worthless_option(firm: Caller) -> None:
    trade(firm, "A1", "AAPL P90", -3, 2)
    trade(firm, "A1", "AAPL P90", 3, 0, kind="expiry")
    assert money(firm, "A1", "cash", "equity", "realized") == (600, 600, 600)
    assert firm.position("A1", "AAPL P90") == (0, 0, 0)


def test_an_assignment_is_the_option_at_0_and_the_stock_at_the_strike(firm: Caller) -> None:
    """A put of 90 sold at 2 is assigned while the stock stands at 100: 200 + 1,000."""
    post(firm, "A1", 20_000, "deposit")
    trade(firm, "A1", "AAPL P90", -1, 2)
    trade(firm, "A1", "AAPL P90", 1, 0, kind="assignment")
    trade(firm, "A1", "AAPL", 100, 90, kind="assignment")
    assert money(firm, "A1", "cash", "equity", "realized", "unrealized") == (
        11_200,
        21_200,
        200,
        1_000,
    )
    assert position(firm, "AAPL")["average_price"] == 90


def test_an_exercise_costs_the_premium_and_buys_at_the_strike(firm: Caller) -> None:
    trade(firm, "A1", "AAPL C100", 1, 3)
    firm.mark({"AAPL": 108})
    trade(firm, "A1", "AAPL C100", -1, 0, kind="exercise")
    trade(firm, "A1", "AAPL", 100, 100, kind="exercise")
    assert money(firm, "A1", "equity", "realized", "unrealized") == (500, -300, 800)


# -- cash --------------------------------------------------------------------------------------


def test_flows_are_no_profit_and_all_else_is(firm: Caller) -> None:
    firm.call("open_day", day=DAYS[0])
    post(firm, "A1", 1000, "Deposit")
    post(firm, "A1", -200, "withdrawal")
    post(firm, "A1", -50, "transfer")
    post(firm, "A2", 50, "transfer")
    post(firm, "A1", 12, "dividend")
    post(firm, "A1", "-3.5", "interest")
    assert money(firm, "A1", "equity", "flows", "income", "daily_pnl") == (
        Decimal("758.5"),
        750,
        Decimal("8.5"),
        Decimal("8.5"),
    )
    assert money(firm, "D1", "equity", "flows", "daily_pnl") == (
        Decimal("808.5"),
        800,
        Decimal("8.5"),
    )


def test_a_reference_is_posted_once(firm: Caller) -> None:
    for _ in range(3):
        post(firm, "A1", 100, "deposit", reference="wire 7")
    post(firm, "A2", 100, "deposit", reference="wire 7")
    assert pnl(firm, "F")["equity"] == 200
    known = {"account": "A1", "amount": 100, "reason": "deposit", "reference": "wire 7"}
    for other in ({"amount": 101}, {"reason": "transfer"}):
        assert code(firm, "post_cash", **(known | other)) == "RK409"


def test_cash_that_makes_no_sense_is_refused(firm: Caller) -> None:
    known = {"account": "A1", "amount": 100, "reason": "deposit"}
    for other, expected in (
        ({"account": "nobody"}, "RK404"),
        ({"account": "D1"}, "RK400"),
        ({"currency": "XXX"}, "RK404"),
        ({"amount": -100}, "RK400"),
        ({"reason": "withdrawal"}, "RK400"),
        ({"amount": 0}, "RK400"),
        ({"amount": Decimal("NaN")}, "RK400"),
        ({"reason": " "}, "RK400"),
    ):
        assert code(firm, "post_cash", **(known | other)) == expected
    assert firm.rows("select * from risk.cash") == []


def test_a_scope_with_cash_cannot_become_a_parent(firm: Caller) -> None:
    post(firm, "A1", 1, "deposit")
    assert code(firm, "create_scope", code="S9", kind="strategy", parent="A1") == "RK409"


# -- currencies --------------------------------------------------------------------------------


def test_a_book_in_another_currency(firm: Caller) -> None:
    """1,000 EUR at 1.10; 10 @ 50 with a fee of 2; marked 55: (498 + 550) EUR. At 1.20 the cash and
    the cost (498 + 500) make 99.80 of the rate."""
    firm.call("set_fx", currency="EUR", rate=Decimal("1.10"))
    post(firm, "A1", 1000, "deposit", currency="EUR")
    firm.mark({"SAP": 50})
    trade(firm, "A1", "SAP", 10, 50, fee=2)
    firm.mark({"SAP": 55})
    fees = Decimal("2.2")
    assert money(firm) == (
        Decimal("1152.8"),
        Decimal("547.8"),
        0,
        55,
        fees,
        0,
        1100,
        0,
    )
    firm.call("set_fx", currency="EUR", rate=Decimal("1.20"))
    assert money(firm) == (
        Decimal("1257.6"),
        Decimal("597.6"),
        0,
        60,
        fees,
        0,
        1100,
        Decimal("99.8"),
    )
    row = position(firm, "SAP")
    assert (row["market_value"], row["unrealized_pnl"]) == (660, 60)
    trade(firm, "A1", "SAP", -10, 60)
    assert money(firm, "A1", "realized", "unrealized", "equity") == (
        120,
        0,
        Decimal("1317.6"),
    )
    assert firm.rows("select account, currency, amount, base_amount from risk.cash") == [
        {
            "account": "A1",
            "currency": "EUR",
            "amount": 1098,
            "base_amount": Decimal("1317.6"),
        }
    ]


def test_without_a_rate_the_equity_is_unknown_all_the_way_up(firm: Caller) -> None:
    firm.call("open_day", day=DAYS[0])
    post(firm, "A1", 1000, "deposit")
    firm.mark({"SAP": 55})
    trade(firm, "A1", "SAP", 10, 50)
    for scope in ("A1", "D1", "F"):
        assert money(firm, scope, "equity", "unrealized", "daily_pnl") == (None, None, None)
    assert pnl(firm, "A2")["equity"] == 0
    firm.call("set_fx", currency="EUR", rate=2)
    assert money(firm, "F", "equity", "unrealized", "daily_pnl") == (1100, 100, 100)


def test_rates_that_make_no_sense_are_refused_and_old_ones_passed_over(firm: Caller) -> None:
    for wrong in (
        {"currency": "EUR", "rate": 0},
        {"currency": "EUR", "rate": Decimal("NaN")},
        {"currency": "USD", "rate": 2},
        {"currency": "eur", "rate": 2},
    ):
        assert code(firm, "set_fx", **wrong) == "RK400"
    firm.call("set_fx", currency="EUR", rate=2, as_of="2026-03-02 15:00Z")
    firm.call("set_fx", currency="EUR", rate=3, as_of="2026-03-02 14:00Z")
    post(firm, "A1", 10, "deposit", currency="EUR")
    assert pnl(firm)["equity"] == 20


# -- peak and drawdown -------------------------------------------------------------------------


def test_a_flow_leaves_the_drawdown_as_it_is(firm: Caller) -> None:
    """1,100 at the peak, 990 now: 10 %. After 990 more it is 2,200 and 1,980."""
    shown = ("equity", "peak_equity", "drawdown_pct")
    post(firm, "A1", 1000, "deposit")
    trade(firm, "A1", "AAPL", 10, 100)
    firm.mark({"AAPL": 110})
    assert money(firm, "A1", *shown) == (1100, 1100, 0)
    firm.mark({"AAPL": 99})
    assert money(firm, "A1", *shown) == (990, 1100, 10)
    post(firm, "A1", 990, "deposit")
    assert money(firm, "A1", *shown) == (1980, 2200, 10)
    post(firm, "A1", -1782, "withdrawal")
    assert money(firm, "A1", *shown) == (198, 220, 10)
    post(firm, "A1", "-49.5", "fee")
    assert money(firm, "A1", *shown) == (Decimal("148.5"), 220, Decimal("32.5"))


def test_a_parent_has_a_peak_of_its_own(firm: Caller) -> None:
    for account, symbol in (("A1", "AAPL"), ("A2", "XOM")):
        post(firm, account, 1000, "deposit")
        trade(firm, account, symbol, 10, {"AAPL": 100, "XOM": 80}[symbol])
    firm.mark({"AAPL": 120})
    firm.mark({"AAPL": 100})
    firm.mark({"XOM": 110})
    assert money(firm, "A1", "peak_equity", "drawdown_pct") == (1200, Decimal("16.666667"))
    assert money(firm, "D1", "equity", "peak_equity") == (2300, 2300)


def test_a_hedge_in_another_account_makes_no_peak(firm: Caller) -> None:
    """Accounts follow the marks one after the other; what a desk gained in between is no gain."""
    for account, quantity in (("A1", 10), ("A2", -10)):
        post(firm, account, 1000, "deposit")
        trade(firm, account, "AAPL", quantity, 100)
    for price in (90, 110, 100):
        firm.mark({"AAPL": price})
    assert money(firm, "D1", "equity", "peak_equity", "drawdown_pct") == (2000, 2000, 0)
    assert money(firm, "A1", "peak_equity") == (1100,)
    assert money(firm, "A2", "peak_equity") == (1100,)


def test_a_parent_is_at_no_peak_between_its_accounts(firm: Caller) -> None:
    """What one account gains by a mark, the other loses: together they are at 2,000 throughout."""
    for account, quantity in (("A1", 10), ("A2", -10)):
        post(firm, account, 1000, "deposit")
        trade(firm, account, "AAPL", quantity, 100)
    for price in (120, 90, 105):
        firm.mark({"AAPL": price})
        assert money(firm, "D1", "equity", "peak_equity", "drawdown_pct") == (2000, 2000, 0)
    assert [pnl(firm, account)["peak_equity"] for account in ("A1", "A2")] == [1200, 1100]
    firm.mark({"MSFT": 51})
    trade(firm, "A1", "MSFT", 10, 51)
    firm.mark({"MSFT": 52})
    assert money(firm, "D1", "equity", "peak_equity") == (2010, 2010)


def follow(firm: Caller, account: str) -> None:
    """Let one account follow the marks, as a revaluation does for each in turn."""
    firm.rows(
        """select risk_private.revalue(s.scope_id, array(
             select i.instrument_id from risk_private.instruments as i))
           from risk_private.scopes as s where s.code = %s""",
        account,
    )


def move_mark(firm: Caller, symbol: str, price: Number) -> None:
    """Store a mark that no account has followed yet."""
    firm.rows(
        """select risk_private.set_marks(array[%s], array[%s::numeric], null, null, null, null,
             null, null, null, null, null)""",
        symbol,
        Decimal(price),
    )


@pytest.mark.parametrize("first", ["A1", "A2"])
@pytest.mark.parametrize("move", ["trade", "posting"])
def test_what_happens_half_way_through_a_revaluation_makes_no_peak(
    firm: Caller, first: str, move: str
) -> None:
    """One of two hedged accounts has followed the mark when something else moves the equity."""
    for account, quantity in (("A1", 10), ("A2", -10)):
        post(firm, account, 1000, "deposit")
        trade(firm, account, "AAPL", quantity, 100)
    move_mark(firm, "AAPL", 110 if first == "A1" else 90)
    follow(firm, first)
    assert money(firm, "D1", "equity") == (2100,)
    if move == "trade":
        trade(firm, "A1", "XOM", 1, 75)
        trade(firm, "B1", "XOM", 1, 75)
    else:
        post(firm, "A1", 5, "dividend")
        post(firm, "B1", 5, "interest")
    assert money(firm, "D1", "peak_equity") == (2000,)
    firm.call("revalue")
    assert money(firm, "D1", "equity", "peak_equity") == (2005, 2005)
    assert money(firm, "D2", "equity", "peak_equity") == (5, 5)
    assert money(firm, "F", "equity", "peak_equity") == (2010, 2010)


@pytest.mark.parametrize("rate", ["1.2", "1.0"])
def test_a_rate_makes_no_peak_before_all_accounts_are_carried_at_it(
    firm: Caller, rate: str
) -> None:
    """What one account gains in euro the other loses, and in B1 cash hedges a position."""
    firm.call("set_fx", currency="EUR", rate=Decimal("1.1"))
    firm.mark({"SAP": 100})
    for account, amount in (("A1", 1000), ("A2", -1000), ("B1", 1000)):
        post(firm, account, 5000, "deposit")
        post(firm, account, amount, "transfer", currency="EUR")
    trade(firm, "B1", "SAP", -10, 100, kind="opening")
    shown = {scope: money(firm, scope, "equity", "peak_equity") for scope in ("D1", "B1", "F")}
    assert shown == {"D1": (10000,) * 2, "B1": (5000,) * 2, "F": (15000,) * 2}
    firm.call("set_fx", currency="EUR", rate=Decimal(rate))
    for scope in shown:
        assert money(firm, scope, "equity", "peak_equity") == shown[scope], scope
    assert money(firm, "A1", "equity") == (5000 + 1000 * Decimal(rate),)


def test_a_rate_that_only_positions_have_followed_makes_no_peak(firm: Caller) -> None:
    """A worker may carry positions at a rate before the cash that hedges them."""
    firm.call("set_fx", currency="EUR", rate=Decimal("1.1"))
    firm.mark({"SAP": 100})
    post(firm, "A1", 5000, "deposit")
    post(firm, "A1", 1000, "transfer", currency="EUR")
    trade(firm, "A1", "SAP", -10, 100, kind="opening")
    firm.rows("select risk_private.set_fx('EUR', 1.0, null)")
    follow(firm, "A1")
    trade(firm, "A1", "AAPL", 1, 100)
    assert money(firm, "A1", "equity", "peak_equity") == (5100, 5000)
    assert firm.differences() == []
    firm.call("set_fx", currency="EUR", rate=Decimal("1.0"))
    assert money(firm, "A1", "equity", "peak_equity") == (5000, 5000)
    assert firm.value("select count(*) from risk_private.moving_rates") == 1
    assert firm.differences() == []
    post(firm, "A1", 10, "interest")
    assert money(firm, "A1", "equity", "peak_equity") == (5010, 5010)


def test_a_rate_that_gains_makes_a_peak_of_every_scope(firm: Caller) -> None:
    firm.call("set_fx", currency="EUR", rate=Decimal("1.1"))
    for account in ("A1", "A2"):
        post(firm, account, 1000, "deposit", currency="EUR")
    firm.call("set_fx", currency="EUR", rate=Decimal("1.2"))
    for scope, equity in (("A1", 1200), ("A2", 1200), ("D1", 2400), ("F", 2400)):
        assert money(firm, scope, "equity", "peak_equity") == (equity, equity)


def test_a_change_of_rates_that_was_interrupted_keeps_no_peak_back_for_long(firm: Caller) -> None:
    firm.rows(
        """insert into risk_private.moving_rates (currency, since)
           values ('EUR', risk_private.clock() - interval '61 seconds')"""
    )
    post(firm, "A1", 1000, "interest")
    assert money(firm, "D1", "equity", "peak_equity") == (1000, 1000)
    firm.call("set_fx", currency="EUR", rate=Decimal("1.1"))
    assert firm.rows("select * from risk_private.moving_rates") == []


def test_a_rate_makes_no_peak_where_it_makes_no_gain(firm: Caller) -> None:
    """A1 owes the 400 EUR that its 10 shares are worth; what it loses with 100 EUR, A2 gains."""
    firm.call("set_fx", currency="EUR", rate=Decimal("1.5"))
    firm.mark({"SAP": 40})
    for account in ("A1", "A2"):
        post(firm, account, 10_000, "deposit")
    trade(firm, "A1", "SAP", 10, 40)
    for account, amount in (("A1", 100), ("A2", -100)):
        post(firm, account, amount, "transfer", currency="EUR")
    for rate in ("1.5", "1.2", "1.8", "1.5"):
        firm.call("set_fx", currency="EUR", rate=Decimal(rate))
        gained = 100 * (Decimal(rate) - Decimal("1.5"))
        equities = [pnl(firm, scope)["equity"] for scope in ("A1", "A2", "D1")]
        assert equities == [10_150 + gained, 9_850 - gained, 20_000]
    peaks = [pnl(firm, scope)["peak_equity"] for scope in ("A1", "A2", "D1")]
    assert peaks == [10_180, 9_880, 20_000]


def test_cash_alone_makes_a_peak_by_its_rate(firm: Caller) -> None:
    firm.call("set_fx", currency="EUR", rate=Decimal("1.1"))
    for account in ("A1", "A2"):
        post(firm, account, 1000, "deposit", currency="EUR")
    for rate in ("1.3", "1.2"):
        firm.call("set_fx", currency="EUR", rate=Decimal(rate))
    assert money(firm, "D1", "equity", "peak_equity") == (2400, 2600)


def test_what_has_no_mark_follows_its_rate_too(firm: Caller) -> None:
    """Taken over at 40 EUR each, and carried at that: the rate makes currency P&L, no other."""
    firm.call("set_fx", currency="EUR", rate=Decimal("1.25"))
    trade(firm, "A1", "SAP", 10, 40, kind="opening")
    for rate in ("1.5", "1.1"):
        firm.call("set_fx", currency="EUR", rate=Decimal(rate))
        equity = 400 * Decimal(rate)
        shown = money(firm, "A1", "equity", "currency_pnl", "unrealized")
        assert shown == (equity, equity - 500, 0)
    firm.mark({"SAP": 41})
    assert money(firm, "A1", "equity", "currency_pnl", "unrealized") == (451, -60, 11)


def test_an_equity_of_0_or_less_is_drawn_down_entirely(firm: Caller) -> None:
    assert pnl(firm)["drawdown_pct"] == 100
    post(firm, "A1", 100, "deposit")
    trade(firm, "A1", "AAPL", 2, 100)
    firm.mark({"AAPL": 40})
    assert money(firm, "A1", "equity", "drawdown_pct") == (-20, 100)
    post(firm, "A1", 70, "deposit")
    assert money(firm, "A1", "equity", "peak_equity") == (50, 170)
