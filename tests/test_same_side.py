"""Position limits on one side of the market, as FINRA 2360 and Cboe 8.30 count them."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.orders import Caller, callers, each_at_once, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

# FINRA 2360(b)(3)(A) and its supplementary material .03 of 2020: contracts on one side.
TIERS = {"25k": 25_000, "50k": 50_000, "75k": 75_000, "200k": 200_000, "250k": 250_000}
FUNDS = {"SPY": 3_600_000, "QQQ": 1_800_000, "IWM": 1_000_000, "TLT": 500_000, "DIA": 300_000}


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    with open_firm(db) as caller:
        yield caller
        assert caller.differences() == []


def load(firm: Caller, tiers: dict[str, int], underlyings: dict[str, str]) -> None:
    firm.call("load_position_limits", limits=Jsonb({"tiers": tiers, "underlyings": underlyings}))


def sides(firm: Caller, scope: str, underlying: str = "AAPL") -> tuple[int, int]:
    rows = firm.rows(
        "select bull, bear from risk.same_side_positions where scope = %s and underlying = %s",
        scope,
        underlying,
    )
    return (int(rows[0]["bull"]), int(rows[0]["bear"])) if rows else (0, 0)


# The examples of Cboe's circular on position limits, with its limit of 25,000: what the customer
# holds, what he may still do, and how much of it.
EXAMPLES = {
    "A: calls against calls": ({"AAPL C100": 25_000}, "sell", "AAPL C110", 25_000),
    "B: long calls and long puts": ({"AAPL C100": 25_000}, "buy", "AAPL P100", 25_000),
    "C: long calls and short puts": ({"AAPL C100": 20_000}, "sell", "AAPL P90", 5_000),
    "C: short calls and long puts": (
        {"AAPL C100": 20_000, "AAPL C110": -20_000},
        "buy",
        "AAPL P90",
        5_000,
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_published_examples(firm: Caller, name: str) -> None:
    held, side, symbol, room = EXAMPLES[name]
    load(firm, TIERS, {"AAPL": "25k"})
    firm.call("apply_position_limits", scope="F", reason="published")
    for held_symbol, quantity in held.items():
        firm.hold("A1", held_symbol, quantity)
    answer = firm.check("A1", "more", symbol, side, room + 1, 1)
    (violation,) = answer.violations
    assert violation["limit_type"] == "same_side"
    assert Decimal(violation["projected"]) == 25_001
    assert answer.allowed_quantity == room
    assert firm.check("A1", "fits", symbol, side, room, 1).is_accepted


def test_closing_always_passes_and_expiries_and_accounts_add_up(firm: Caller) -> None:
    firm.hold("A1", "AAPL C100", 60)
    firm.hold("B1", "AAPL C100 LATE", 30)
    firm.hold("S1", "AAPL P90", -20)
    firm.limit("F", "same_side", 100)
    firm.limit("A1", "same_side", 50)
    assert sides(firm, "F") == (110, 0)
    assert firm.check("A1", "a", "AAPL C100", "sell", 60, 5).is_accepted
    assert firm.check("S1", "b", "AAPL P90", "buy", 20, 5).is_accepted
    assert sides(firm, "F") == (110, 0)  # until they have filled
    assert {v["scope"] for v in firm.check("A1", "c", "AAPL P90", "sell", 1, 5).violations} == {
        "A1",
        "F",
    }
    # Beyond the position a sale of calls is bearish.
    refused = firm.check("B1", "d", "AAPL C100 LATE", "sell", 131, 5)
    assert refused.allowed_quantity == 130
    assert firm.check("B1", "e", "AAPL C100 LATE", "sell", 130, 5).is_accepted
    assert sides(firm, "F") == (110, 100)
    assert sides(firm, "B1") == (30, 100)


def test_open_orders_count_and_are_given_back(firm: Caller) -> None:
    firm.limit("F", "same_side", 10)
    assert firm.check("A1", "a", "AAPL C100", "buy", 6, 5).is_accepted
    assert firm.check("A2", "b", "AAPL P90", "sell", 4, 5).is_accepted
    assert not firm.check("B1", "c", "AAPL C110", "buy", 1, 5).is_accepted
    combo = "buy 1 AAPL C100, sell 1 AAPL C110, buy 1 AAPL P90"
    refused = firm.combo("B1", "d", combo, 1, 5)
    assert {v["projected"] for v in refused.violations} == {"11"}
    firm.call("release_order", account="A2", client_order_id="b", reason="cancelled")
    assert firm.combo("B1", "e", combo, 4, 5).is_accepted
    assert sides(firm, "F") == (10, 8)
    refused = firm.replace("A1", "a", "f", 7, 5)
    assert refused.reason == "RISK_LIMIT_EXCEEDED"
    assert refused.allowed_quantity == 6


def test_where_both_sides_fail_only_what_both_have_room_for_is_allowed(firm: Caller) -> None:
    """The bears, who are more, are shown; the bulls have less room."""
    firm.limit("F", "same_side", 10)
    firm.hold("A1", "AAPL C100", 9)
    combo = "buy 1 AAPL C110, buy 2 AAPL P90"
    refused = firm.combo("A1", "a", combo, 20, 20)
    assert [(v["current"], v["projected"]) for v in refused.violations] == [("0", "40")]
    assert refused.allowed_quantity == 1
    assert not firm.combo("A1", "b", combo, 2, 20).is_accepted
    assert firm.combo("A1", "c", combo, 1, 20).is_accepted


def test_minis_and_jumbos_count_by_their_shares(firm: Caller) -> None:
    terms = {"kind": "option", "underlying": "AAPL", "expiry": "2099-03-20", "strike": 100}
    sizes = (("MINI", 10), ("JUMBO", 1000))
    options = [
        {"symbol": symbol, "option_right": "call", "multiplier": size} | terms
        for symbol, size in sizes
    ]
    firm.call("upsert_instruments", instruments=Jsonb(options))
    firm.mark({"MINI": 5, "JUMBO": 5})
    firm.limit("F", "same_side", 21)
    firm.hold("A1", "AAPL C100", 1)
    assert firm.check("A1", "jumbo", "JUMBO", "buy", 1, 5).is_accepted
    refused = firm.check("A1", "mini", "MINI", "buy", 101, 5)
    assert refused.allowed_quantity == 100
    assert firm.check("A1", "fits", "MINI", "buy", 100, 5).is_accepted
    assert sides(firm, "F") == (21, 0)


def test_stock_is_on_no_side(firm: Caller) -> None:
    firm.limit("F", "same_side", 0)
    assert firm.check("A1", "a", "AAPL", "buy", 100, 100).is_accepted
    assert not firm.check("A1", "b", "AAPL P90", "buy", 1, 1).is_accepted


def test_within_a_scope_the_most_specific_limit_holds_for_an_underlying(firm: Caller) -> None:
    firm.limit("D1", "same_side", 5)
    firm.limit("D1", "same_side", 10, sector="Tech")
    assert firm.check("A1", "a", "AAPL C100", "buy", 10, 5).is_accepted
    firm.limit("D1", "same_side", 8, underlying="AAPL")
    (violation,) = firm.check("A1", "b", "AAPL C100", "buy", 1, 5).violations
    assert (violation["limit"], violation["dimension"]) == ("8", "underlying:AAPL")
    rows = firm.rows(
        """select sector, underlying, used, worst_case, status, instrument
           from risk.limit_utilization where limit_type = 'same_side' order by limit_value"""
    )
    assert [tuple(row.values()) for row in rows] == [
        (None, None, 0, 0, "OK", None),
        (None, "AAPL", 0, 10, "BREACH", "AAPL"),
        ("Tech", None, 0, 0, "OK", None),
    ]


# -- tiers ----------------------------------------------------------------------------------------


def limits(firm: Caller) -> dict[str, int]:
    rows = firm.rows("select underlying, limit_value from risk.limits where limit_type='same_side'")
    return {row["underlying"]: int(row["limit_value"]) for row in rows}


def test_tiers_are_loaded_and_set_on_a_scope(firm: Caller) -> None:
    funds = [{"symbol": symbol, "kind": "etf"} for symbol in FUNDS]
    firm.call("upsert_instruments", instruments=Jsonb(funds))
    load(firm, TIERS | FUNDS, {symbol: symbol for symbol in FUNDS} | {"AAPL": "250k"})
    assert limits(firm) == {}
    firm.call("apply_position_limits", scope="F", reason="daily file")
    assert limits(firm) == FUNDS | {"AAPL": 250_000}
    # The next file: one tier is wider, one underlying has moved. Nothing else is touched.
    load(firm, {"250k": 300_000}, {"DIA": "250k"})
    row = firm.call("apply_position_limits", scope="F", reason="next file")
    assert len(row["request_ids"]) == 1 + 1 - (FUNDS["DIA"] == 300_000)
    assert limits(firm) == FUNDS | {"AAPL": 300_000}
    shown = firm.rows("select * from risk.position_limits where underlying = 'DIA'")
    assert [(row["tier"], row["amount"]) for row in shown] == [("250k", 300_000)]
    firm.hold("A1", "AAPL C100", 240_000)
    (seen,) = firm.rows("select * from risk.same_side_positions where scope = 'F'")
    assert (seen["tier"], seen["status"], seen["utilization_pct"]) == ("250k", "WARN", 80)


@pytest.mark.parametrize(
    ("limits", "code", "told"),
    [
        ([], "RK400", "JSON object"),
        ({"tier": {}}, "RK400", "JSON object"),
        ({"tiers": []}, "RK400", "JSON object"),
        ({"tiers": {"a": "NaN"}}, "RK400", "tier 'a'"),
        ({"tiers": {"a": -1}}, "RK400", "tier 'a'"),
        ({"tiers": {"a": None}}, "RK400", "tier 'a'"),
        ({"underlyings": {"AAPL": "none"}}, "RK404", "unknown tier 'none'"),
        ({"tiers": {"a": 1}, "underlyings": {"NONE": "a"}}, "RK404", "unknown symbol"),
    ],
)
def test_a_load_that_makes_no_sense_leaves_nothing(
    firm: Caller, limits: Any, code: str, told: str
) -> None:
    with pytest.raises(psycopg.Error, match=told) as caught:
        firm.call("load_position_limits", limits=Jsonb(limits))
    assert caught.value.sqlstate == code
    assert firm.value("select count(*) from risk_private.position_limit_tiers") == 0


def test_accounts_share_a_limit_exactly(db: Database, firm: Caller) -> None:
    firm.limit("F", "same_side", 23)

    def run(caller: Caller) -> int:
        order: list[tuple[str, str, str]] = [
            ("A1", "AAPL C100", "buy"),
            ("B1", "AAPL P90", "sell"),
            ("S1", "AAPL C110", "buy"),
        ]
        return sum(
            caller.check(account, caller.new_name(), symbol, side, 1, 5).is_accepted
            for account, symbol, side in order * 3
        )

    with callers(db, 6) as clients:
        assert sum(each_at_once(clients, run)) == 23
    assert sides(firm, "F") == (23, 0)
