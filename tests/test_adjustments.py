"""Splits and adjusted options: worth and cost of positions stay, by numbers worked by hand."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.orders import Caller, Row, all_at_once, callers, open_firm
from tests.test_money import DAYS, code, pnl, position, post, trade

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

D = Decimal
GREEKS = ("delta", "gamma", "vega", "theta", "rho")


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    """A1 is long 100 AAPL @ 90 and short 2 C100 @ 4; A2 holds a put spread; S1 is short stock."""
    with open_firm(db) as caller:
        caller.call("open_day", day=DAYS[0])
        for account in ("A1", "A2", "S1"):
            post(caller, account, 100_000, "deposit")
        for scope, limit_type in (("F", "delta"), ("D1", "vega"), ("A1", "max_loss")):
            caller.limit(scope, limit_type, 10**9)
        caller.limit("F", "net_position", 10**9, underlying="AAPL")
        mark_greeks(caller)
        trade(caller, "A1", "AAPL", 100, 90)
        trade(caller, "A1", "AAPL C100", -2, 4)
        trade(caller, "A2", "AAPL P100", 3, 6)
        trade(caller, "A2", "AAPL P90", -3, 2)
        trade(caller, "S1", "AAPL", -60, 110)
        trade(caller, "S1", "XOM", 10, 80)
        yield caller
        assert caller.differences() == []
        for row in caller.rows("select * from risk.pnl"):
            parts = row["flows"] + row["realized"] - row["fees"] + row["income"]
            parts += row["currency_pnl"] + row["unrealized"] - row["start_unrealized"]
            assert row["equity"] - row["start_equity"] == parts, row["scope"]


def mark_greeks(firm: Caller) -> None:
    """Marks and quotes of AAPL and its options, with Greeks."""
    symbols = ["AAPL", "AAPL C100", "AAPL C110", "AAPL P100", "AAPL P90"]
    firm.call(
        "set_marks",
        symbols=symbols,
        prices=[D(100), D(6), D(3), D(8), D(2)],
        bids=[D(99), D(5), D(2), D(7), D(1)],
        asks=[D(101), D(7), D(4), D(9), D(3)],
        ivs=[None, 0.3, 0.3, 0.3, 0.3],
        deltas=[None, 0.5, 0.25, -0.5, -0.25],
        gammas=[None, 0.02, 0.02, 0.02, 0.02],
        vegas=[None, 0.2, 0.1, 0.2, 0.1],
        thetas=[None, -0.04, -0.02, -0.04, -0.02],
        rhos=[None, 0.1, 0.1, -0.1, -0.1],
    )


def adjust(firm: Caller, new: int, old: int, reference: str = "split", **rest: Any) -> None:
    firm.call(
        "adjust_instrument",
        **{"symbol": "AAPL", "reference": reference, "reason": "split"} | rest,
        new_shares=new,
        old_shares=old,
    )


def worth(firm: Caller) -> list[Row]:
    """What a split must leave as it is."""
    return [
        *firm.rows(
            """select scope, day, start_equity, equity, realized, unrealized, fees, daily_pnl,
               peak_equity, drawdown_pct, cash, flows, income from risk.pnl order by scope"""
        ),
        *firm.rows("select * from risk.cash order by account, currency"),
        *firm.rows(
            """select account, market_value, unrealized_pnl, realized_pnl_today, vega, theta, rho
               from risk.positions as p join risk_private.instruments as i using (symbol)
               order by account, i.instrument_id"""
        ),
        *firm.rows(
            """select scope, gross_notional, traded_notional, open_orders, open_positions
               from risk.exposure order by scope, underlying, sector, symbol"""
        ),
        *firm.rows(
            """select scope_id, dimension, key_id, max_loss, unlimited, cash_need
               from risk_private.obligations order by counter_id"""
        ),
        *firm.rows(
            """select dollar_delta, dollar_gamma, vega, theta, unknown
               from risk_private.exposures order by counter_id"""
        ),
    ]


def books(firm: Caller, account: str) -> list[Row]:
    """Everything that an account's history led to."""
    return [
        *firm.rows(
            """select symbol, quantity, average_price, market_value, unrealized_pnl,
               realized_pnl_today from risk.positions where account = %s order by 1""",
            account,
        ),
        *firm.rows(
            "select equity, cash, realized, unrealized, flows from risk.pnl where scope = %s",
            account,
        ),
    ]


def terms(firm: Caller, symbol: str) -> tuple[Any, ...]:
    row = firm.rows("select strike, multiplier from risk.instruments where symbol = %s", symbol)
    return tuple(row[0].values())


def test_a_whole_split_multiplies_contracts_and_divides_strikes(firm: Caller) -> None:
    before = worth(firm)
    adjust(firm, 4, 1)
    assert worth(firm) == before
    assert firm.position("A1", "AAPL") == (400, 0, 0)
    assert firm.position("A1", "AAPL C100") == (-8, 0, 0)
    assert firm.position("S1", "AAPL") == (-240, 0, 0)
    assert firm.position("S1", "XOM") == (10, 0, 0)
    assert terms(firm, "AAPL C100") == (25, 100)
    assert terms(firm, "AAPL C110") == (D("27.5"), 100)
    assert position(firm, "AAPL")["average_price"] == D("22.5")
    assert position(firm, "AAPL C100")["average_price"] == 1
    shown = firm.rows("select * from risk.marks where symbol = 'AAPL C100'")[0]
    assert [shown[name] for name in ("price", "bid", "ask")] == [D("1.5"), D("1.25"), D("1.75")]
    assert [shown[name] for name in GREEKS] == [0.5, 0.08, 0.05, -0.01, 0.025]
    assert position(firm, "AAPL C100")["delta"] == 4 * -100
    sides = "select bear from risk.same_side_positions where scope = 'A1' and underlying = 'AAPL'"
    assert firm.value(sides) == 8
    delta = """select e.delta from risk_private.exposures as e
      join risk_private.scopes as s using (scope_id)
      join risk_private.instruments as i on i.instrument_id = e.key_id
      where s.code = 'F' and e.dimension = 2 and i.symbol = 'AAPL'"""
    assert firm.value(delta) == 4 * (100 - 100 - 150 + 75 - 60)


def test_strikes_are_rounded_to_the_cent(firm: Caller) -> None:
    adjust(firm, 3, 1)
    assert terms(firm, "AAPL C110") == (D("36.67"), 100)
    assert firm.position("A2", "AAPL P90") == (-9, 0, 0)


def test_another_ratio_changes_what_a_contract_delivers(firm: Caller) -> None:
    """3-for-2: 100 shares at 90 are 150 at 60; a call of 100 on 100 shares is one of 66 2/3 on
    150, and the strike x multiplier stays 10,000 but for the eighth decimal."""
    before = firm.rows("select equity, unrealized, drawdown_pct from risk.pnl order by scope")
    adjust(firm, 3, 2)
    after = firm.rows("select equity, unrealized, drawdown_pct from risk.pnl order by scope")
    for was, now in zip(before, after, strict=True):
        assert [round(value, 12) for value in now.values()] == list(was.values())
    assert firm.position("A1", "AAPL") == (150, 0, 0)
    assert firm.position("A1", "AAPL C100") == (-2, 0, 0)
    assert terms(firm, "AAPL C100") == (D("66.66666667"), 150)
    assert position(firm, "AAPL")["average_price"] == 60
    assert position(firm, "AAPL C100")["average_price"] == D("2.666666666667")
    assert position(firm, "AAPL C100")["delta"] == -2 * 150 * 0.5
    assert position(firm, "AAPL C100")["vega"] == pytest.approx(-2 * 100 * 0.2)


def test_a_reverse_split_keeps_contracts_and_the_fraction_is_paid_in_cash(firm: Caller) -> None:
    """1-for-8: 100 shares at 90 are 12.5 at 720; for the half the broker pays 800 a share."""
    before = worth(firm)
    adjust(firm, 1, 8)
    assert worth(firm) == before
    assert firm.position("A1", "AAPL") == (D("12.5"), 0, 0)
    assert firm.position("S1", "AAPL") == (D("-7.5"), 0, 0)
    assert firm.position("A2", "AAPL P90") == (-3, 0, 0)
    assert terms(firm, "AAPL C100") == (800, D("12.5"))
    assert position(firm, "AAPL C100")["average_price"] == 32
    equity = pnl(firm)["equity"]
    trade(firm, "A1", "AAPL", "-0.5", 800, kind="cash_in_lieu")
    row = position(firm, "AAPL")
    assert (row["quantity"], row["average_price"]) == (12, 720)
    assert (row["realized_pnl_today"], pnl(firm)["equity"]) == (40, equity)


@pytest.mark.parametrize("ratio", [(4, 1), (3, 2), (1, 10)])
def test_executions_before_a_split_are_amended_as_it_made_them(
    firm: Caller, ratio: tuple[int, int]
) -> None:
    """A2 trades what is right, A1 the mistakes as well: flat before the split, or across zero."""
    new, old = ratio
    right = [("XOM", 100, 80), ("XOM", 20, 95), ("XOM", -60, 90), ("MSFT", 20, 50)]
    for symbol, quantity, price in right:
        trade(firm, "B1", symbol, quantity, price)
    first = trade(firm, "S2", "XOM", 120, 79)
    trade(firm, "S2", "XOM", 20, 95)
    trade(firm, "S2", "XOM", -60, 90)
    second = trade(firm, "S2", "XOM", -50, 91)
    trade(firm, "S2", "MSFT", 20, 50)
    third = trade(firm, "S2", "MSFT", -20, 60)
    for symbol in ("XOM", "MSFT"):
        adjust(firm, new, old, f"{symbol} split", symbol=symbol)
    for account in ("B1", "S2"):
        trade(firm, account, "XOM", -3, 33)
    arguments = {"account": "S2", "exec_id": first, "reason": "wrong"}
    firm.call("correct_fill", **arguments, quantity=100, price=80)
    for exec_id in (second, third):
        firm.call("bust_fill", account="S2", exec_id=exec_id, reason="erroneous")
    assert books(firm, "S2") == books(firm, "B1")
    adjustment = firm.rows("select exec_id from risk.fills where kind = 'adjustment'")[0]["exec_id"]
    assert code(firm, "bust_fill", account="B1", exec_id=adjustment, reason="why") == "RK409"


def test_a_split_is_made_once(firm: Caller) -> None:
    for _ in range(3):
        adjust(firm, 4, 1, new_symbols=Jsonb({"AAPL": "APPLE"}))
    assert firm.position("A1", "APPLE") == (400, 0, 0)
    assert len(firm.alerts("instrument_adjusted")) == 1
    known = {"symbol": "AAPL", "reference": "split", "reason": "split"}
    for other in ({"new_shares": 2}, {"symbol": "XOM", "new_shares": 4}):
        assert code(firm, "adjust_instrument", **(known | other)) == "RK409"
    adjust(firm, 2, 1, "another", symbol="APPLE")
    assert firm.position("A1", "APPLE") == (800, 0, 0)
    rows = firm.rows("select * from risk.adjustments where reference = 'split' order by old_symbol")
    assert [row["old_symbol"] for row in rows][:2] == ["AAPL", "AAPL C100"]
    assert (rows[0]["new_symbol"], rows[0]["position_factor"]) == ("APPLE", 4)
    assert (rows[1]["old_strike"], rows[1]["new_strike"]) == (100, 25)
    assert (rows[1]["reason"], rows[1]["adjusted_by"]) == ("split", "postgres")


def test_no_order_may_be_open_in_the_stock_or_its_options(firm: Caller) -> None:
    firm.check("A2", "1", "AAPL C110", "buy", 1, 3)
    firm.check("B1", "2", "AAPL", "buy", 5, 100)
    firm.check("B1", "3", "XOM", "buy", 5, 80)
    before = worth(firm)
    with pytest.raises(psycopg.Error) as caught:
        adjust(firm, 4, 1)
    assert caught.value.sqlstate == "RK409"
    assert "2 open orders in AAPL" in str(caught.value)
    assert "accounts: A2, B1" in (caught.value.diag.message_detail or "")
    assert "risk.cancel_orders" in (caught.value.diag.message_hint or "")
    assert worth(firm) == before
    for account, name in (("A2", "1"), ("B1", "2")):
        firm.call("release_order", account=account, client_order_id=name, reason="cancelled")
    adjust(firm, 4, 1)
    assert firm.check("B1", "4", "AAPL", "buy", 400, 25).is_accepted
    assert firm.position("B1", "XOM") == (0, 5, 0)


def test_symbols_follow_the_strikes_and_may_pass_from_one_to_the_next(firm: Caller) -> None:
    symbols = {"AAPL C100": "AAPL C50", "AAPL C110": "AAPL C55", "AAPL P100": "AAPL P50"}
    symbols["AAPL P90"] = "AAPL P100"
    version = firm.value("select version from risk.limit_cache()")
    adjust(firm, 2, 1, new_symbols=Jsonb(symbols))
    assert firm.position("A1", "AAPL C50") == (-4, 0, 0)
    assert firm.position("A2", "AAPL P50") == (6, 0, 0)
    assert firm.position("A2", "AAPL P100") == (-6, 0, 0)
    assert terms(firm, "AAPL P100") == (45, 100)
    assert firm.value("select version from risk.limit_cache()") > version
    assert code(firm, "set_instrument_status", symbol="AAPL P90", status="ACTIVE", reason="?") == (
        "RK404"
    )
    for wrong, expected in (
        ({"AAPL C50": "XOM"}, "RK409"),
        ({"AAPL C50": "AAPL C1", "AAPL C55": "AAPL C1"}, "RK409"),
        ({"XOM": "XOM1"}, "RK404"),
        ({"AAPL C50": " "}, "RK400"),
        ({"AAPL C50": 7}, "RK400"),
    ):
        arguments = {"symbol": "AAPL", "reference": "r", "reason": "r", "new_symbols": Jsonb(wrong)}
        assert code(firm, "adjust_instrument", **arguments) == expected


def test_a_special_dividend_lowers_every_strike(firm: Caller) -> None:
    trade(firm, "A2", "AAPL P90", -1, 2)
    need = """select o.cash_need from risk_private.obligations as o
      join risk_private.scopes as s using (scope_id) where s.code = 'A2' and o.dimension = 2"""
    firm.limit("A2", "buying_power", 0)
    assert firm.value(need) == 4 * 9000 - 3 * 10_000
    equity = pnl(firm, "F")["equity"]
    adjust(firm, 1, 1, strike_change=D("-12.5"))
    assert terms(firm, "AAPL C100") == (D("87.5"), 100)
    assert firm.position("A1", "AAPL") == (100, 0, 0)
    assert pnl(firm, "F")["equity"] == equity
    assert firm.value(need) == 4 * 7750 - 3 * 8750


def test_closes_and_watched_prices_are_put_to_the_new_level(firm: Caller) -> None:
    """The return over the split is that of the market, and no breaker takes it for a crash."""
    firm.call(
        "define_breaker",
        name="crash",
        scope="F",
        condition="price_move",
        threshold=10,
        action="HALT",
        parameters=Jsonb({"reference": "mean_5m", "symbol": "AAPL", "direction": "down"}),
    )
    firm.mark({"AAPL": 100})
    firm.call("load_closes", symbols=["AAPL"], days=["2026-02-27"], closes=[D(98)])
    adjust(firm, 4, 1, new_symbols=Jsonb({"AAPL": "APPLE"}))
    firm.mark({"APPLE": D("24.5")})
    firm.call("open_day", day=DAYS[1])
    firm.call("refresh_views")
    closes = firm.rows("select close, log_return from risk.return_history order by day")
    assert [row["close"] for row in closes] == [D("24.5"), D("24.5")]
    assert closes[1]["log_return"] == 0
    assert firm.value("select risk_private.evaluate_breakers()") == 0
    assert firm.value("select state from risk.breakers where name = 'crash'") == "ARMED"
    watched = "select parameters ->> 'symbol' from risk.breakers where name = 'crash'"
    assert firm.value(watched) == "APPLE"
    assert firm.value("select last_value from risk.breakers where name = 'crash'") == 2


def test_what_has_expired_is_settled_on_the_old_terms_first(firm: Caller) -> None:
    firm.call(
        "upsert_instruments",
        instruments=Jsonb(
            [
                {
                    "symbol": "AAPL WEEKLY",
                    "kind": "option",
                    "underlying": "AAPL",
                    "option_right": "call",
                    "strike": 95,
                    "expiry": DAYS[0],
                }
            ]
        ),
    )
    trade(firm, "A2", "AAPL WEEKLY", 1, 5)
    firm.call("open_day", day=DAYS[1])
    known = {"symbol": "AAPL", "reference": "split", "reason": "split", "new_shares": 2}
    assert code(firm, "adjust_instrument", **known) == "RK409"
    trade(firm, "A2", "AAPL WEEKLY", -1, 0, kind="exercise")
    trade(firm, "A2", "AAPL", 100, 95, kind="exercise")
    adjust(firm, 2, 1)
    assert firm.position("A2", "AAPL") == (200, 0, 0)
    assert terms(firm, "AAPL WEEKLY") == (95, 100)


def test_what_has_no_mark_or_no_rate_keeps_what_it_is_carried_at(firm: Caller) -> None:
    terms = {"symbol": "SAP", "kind": "stock", "currency": "EUR"}
    firm.call("upsert_instruments", instruments=Jsonb([terms, terms | {"symbol": "BMW"}]))
    trade(firm, "B1", "SAP", 10, 50)
    firm.call("set_fx", currency="EUR", rate=2)
    trade(firm, "B1", "BMW", 10, 70)
    before = firm.rows("select equity, realized from risk.pnl order by scope")
    for symbol in ("SAP", "BMW"):
        adjust(firm, 5, 1, symbol, symbol=symbol)
    assert firm.rows("select equity, realized from risk.pnl order by scope") == before
    assert position(firm, "SAP", "B1")["average_price"] == 10
    firm.mark({"SAP": 11})
    assert position(firm, "SAP", "B1")["unrealized_pnl"] == 100


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"symbol": "nothing"}, "RK404"),
        ({"symbol": "AAPL C100"}, "RK400"),
        ({"reference": None}, "RK400"),
        ({"reason": " "}, "RK400"),
        ({"new_shares": 0}, "RK400"),
        ({"new_shares": None}, "RK400"),
        ({"new_shares": D("1.5")}, "RK400"),
        ({"new_shares": D("NaN")}, "RK400"),
        ({"new_shares": 10**7}, "RK400"),
        ({"new_shares": 1}, "RK400"),
        ({"strike_change": D("Infinity")}, "RK400"),
        ({"strike_change": -25}, "RK400"),
        ({"new_symbols": Jsonb([])}, "RK400"),
    ],
)
def test_what_makes_no_sense_changes_nothing(
    firm: Caller, wrong: dict[str, Any], expected: str
) -> None:
    known = {"symbol": "AAPL", "reference": "split", "reason": "split", "new_shares": 4}
    before = worth(firm)
    assert code(firm, "adjust_instrument", **(known | wrong)) == expected
    assert worth(firm) == before
    assert firm.rows("select * from risk.adjustments") == []


def split_to_and_fro(firm: Caller) -> int:
    """How often no order was open."""
    done = 0
    for turn in range(60):
        try:
            adjust(firm, *((2, 1) if done % 2 else (1, 2)), reference=f"turn {turn}")
        except psycopg.Error as error:
            if error.sqlstate != "RK409":
                raise
        else:
            done += 1
    return done


def sell_and_release(firm: Caller) -> int:
    """How many orders were accepted and taken back."""
    done = 0
    for turn in range(60):
        name = f"sell {turn}"
        if firm.check("A1", name, "AAPL", "sell", 1, 100).is_accepted:
            firm.call("release_order", account="A1", client_order_id=name, reason="cancelled")
            done += 1
    return done


def mark_on(firm: Caller) -> int:
    for turn in range(60):
        firm.mark({"AAPL": 100 + turn, "AAPL C100": 5, "AAPL P90": 2})
    return 60


def trade_on(firm: Caller) -> int:
    for turn in range(60):
        trade(firm, "B1", ("AAPL", "XOM")[turn % 2], 2, 10)
    return 60


def test_nobody_decides_between_the_terms(firm: Caller, db: Database) -> None:
    """Orders, trades, marks and splits at once: none fails, and the books agree in the end."""
    firm.call("remove_limit", scope="A1", limit_type="max_loss", reason="sells")
    with callers(db, 4) as each:
        actions = (split_to_and_fro, sell_and_release, mark_on, trade_on)
        done = all_at_once([partial(act, one) for act, one in zip(actions, each, strict=True)])
    assert min(done) > 0
    assert firm.value("select count(*) from risk.fills where kind = 'adjustment'") > 0
