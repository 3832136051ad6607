"""To which limits on Greeks an order is held, and what passes while a Greek is unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from tests.greeks import EXACT, mark, used
from tests.orders import PLENTY, Caller, item, open_firm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.databases import Database

PER_UNDERLYING = ("delta", "gamma")


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    with open_firm(db) as caller:
        mark(caller)
        yield caller
        assert caller.differences() == []


def test_parents_net_across_accounts(firm: Caller) -> None:
    firm.hold("A1", "AAPL C100", 10)
    firm.hold("A2", "AAPL", -500)
    firm.limit("D1", "delta", 100)
    assert used(firm, "D1", "delta") == (0, 0, "OK")
    assert firm.check("A1", "1", "AAPL", "buy", 100).is_accepted
    exit_ = firm.check("A2", "2", "AAPL", "buy", 101)
    assert exit_.failed == {("delta", "D1", "all")}
    assert exit_.allowed_quantity == 0


def test_delta_is_per_underlying_and_the_most_specific_row_wins(firm: Caller) -> None:
    firm.limit("A1", "delta", 20)
    firm.limit("A1", "delta", 30, sector="Tech")
    firm.limit("A1", "delta", 40, underlying="AAPL")
    firm.limit("F", "delta", 1000)
    for symbol, most in {"XOM": 20, "MSFT": 30, "AAPL": 40}.items():
        assert firm.check("A1", f"over-{symbol}", symbol, "buy", most + 1).allowed_quantity == most
        assert firm.check("A1", f"at-{symbol}", symbol, "buy", most).is_accepted
    rows = firm.rows(
        """select limit_value, worst_case, instrument from risk.limit_utilization
           where limit_type = 'delta' order by limit_value"""
    )
    assert [tuple(row.values()) for row in rows] == [
        (20, 20, "XOM"),
        (30, 30, "MSFT"),
        (40, 40, "AAPL"),
        (1000, 40, "AAPL"),
    ]


def test_a_row_for_the_underlying_may_allow_more_than_the_default(firm: Caller) -> None:
    firm.limit("A1", "gamma", 2)
    firm.limit("A1", "gamma", 6, underlying="AAPL")
    refused = firm.check("A1", "1", "AAPL C100", "buy", 4)
    assert refused.failed == {("gamma", "A1", "underlying:AAPL")}
    assert refused.allowed_quantity == 3


def test_a_combo_over_two_underlyings_is_judged_in_each(firm: Caller) -> None:
    firm.limit("A1", "delta", 10)
    refused = firm.combo("A1", "1", "buy 1 AAPL, sell 1 MSFT", 12)
    assert refused.failed == {("delta", "A1", "all")}
    assert len(refused.violations) == 2
    assert refused.allowed_quantity == 10
    firm.limit("A1", "delta", 100, underlying="AAPL")
    (violation,) = firm.combo("A1", "2", "buy 1 AAPL, sell 1 MSFT", 12).violations
    assert violation["dimension"] == "all"


def test_sums_apply_every_matching_row(firm: Caller) -> None:
    firm.limit("A1", "vega", 200)
    firm.limit("A1", "vega", 100, sector="Tech")
    firm.limit("A1", "vega", 80, underlying="AAPL")
    firm.limit("A1", "vega", 300, symbol="AAPL C100")
    refused = firm.check("A1", "1", "AAPL C100", "buy", 25)
    assert refused.failed == {("vega", "A1", d) for d in ("all", "sector:Tech", "underlying:AAPL")}
    assert refused.allowed_quantity == 8
    assert firm.check("A1", "2", "AAPL C100", "buy", 8).is_accepted


def test_net_exposure_nets_over_underlyings_and_delta_does_not(firm: Caller) -> None:
    firm.hold("A1", "AAPL", 100)
    firm.limit("A1", "net_exposure", 10_000)
    assert firm.check("A1", "1", "MSFT", "sell", 400).is_accepted
    assert firm.check("A1", "2", "XOM", "sell", 1).failed == {("net_exposure", "A1", "all")}


@pytest.mark.parametrize("limit_type", PER_UNDERLYING)
def test_what_is_per_underlying_has_no_limit_per_symbol(firm: Caller, limit_type: str) -> None:
    with pytest.raises(psycopg.Error, match="per underlying, not per symbol") as caught:
        firm.limit("A1", limit_type, 10, symbol="AAPL C100")
    assert caught.value.sqlstate == "RK400"


@pytest.mark.parametrize("limit_type", ["delta", "same_side"])
def test_the_sector_of_an_underlying_governs_all_that_is_on_it(
    db: Database, firm: Caller, limit_type: str
) -> None:
    """Whatever sector an option says it is in; also where only a time of day says so."""
    firm.call(
        "upsert_instruments",
        instruments="""[{"symbol": "ODD", "kind": "option", "underlying": "AAPL", "strike": 100,
                         "option_right": "call", "expiry": "2099-03-20", "sector": "Energy"}]""",
    )
    firm.mark({"ODD": 5}, deltas=[0.5], gammas=[0.02], vegas=[0.1], thetas=[-0.05])
    most = 100 if limit_type == "delta" else 2
    firm.limit("A1", limit_type, most, sector="Tech")
    firm.limit("A1", limit_type, 0, sector="Energy")
    assert firm.check("A1", "1", "ODD", "buy", 3).failed == {(limit_type, "A1", "sector:Tech")}
    assert firm.check("A1", "2", "ODD", "buy", 1).is_accepted
    assert firm.batch([item("A1", "3", "buy ODD", 1)])[0].is_accepted
    assert not firm.batch([item("A1", "4", "buy ODD", 1)])[0].is_accepted
    firm.call("remove_limit", scope="A1", limit_type=limit_type, sector="Energy")
    assert not firm.check("A1", "5", "ODD", "buy", 1).is_accepted


# -- what is not known -------------------------------------------------------------------------


@pytest.mark.parametrize("limit_type", EXACT)
def test_an_order_whose_greeks_are_unknown_is_refused(firm: Caller, limit_type: str) -> None:
    mark(firm, C110=None)
    firm.hold("B1", "AAPL C110", -2)
    firm.limit("A1", limit_type, PLENTY)
    for answer in (
        firm.check("A1", "1", "AAPL C110", "buy", 1, 500),
        firm.combo("A1", "2", "buy 1 AAPL C110, sell 1 AAPL C100", 1),
        firm.batch([item("A1", "3", "buy AAPL C110", 1)])[0],
    ):
        assert answer.reason == "STALE_DATA"
        assert answer.failed == {(limit_type, "A1", "all")}
    assert firm.check("A1", "4", "AAPL C100", "buy", 1).is_accepted
    assert firm.check("B1", "5", "AAPL C110", "buy", 1, 500).is_accepted


def test_while_greeks_of_anything_held_are_unknown_only_reducing_orders_pass(
    firm: Caller,
) -> None:
    mark(firm, C110=None)
    firm.hold("B1", "AAPL C100", 1)  # a first trade in an instrument is decided the long way
    firm.hold("A2", "AAPL C110", -2, 5)
    firm.limit("D1", "vega", 10_000, underlying="AAPL")
    assert used(firm, "D1", "vega") == (None, None, "BREACH")
    hot = firm.value("select risk.hot_limits('D1', 'AAPL C100')")["limits"]
    (shown,) = (limit for limit in hot if limit["limit_type"] == "vega")
    assert (shown["worst_case"], shown["status"]) == (None, "BREACH")
    for refused in (
        firm.check("A1", "1", "AAPL C100", "buy", 1, 5),
        firm.batch([item("A1", "b", "buy AAPL C100", 1)])[0],
    ):
        assert refused.reason == "STALE_DATA"
        assert refused.allowed_quantity == 0
    assert firm.check("A1", "2", "MSFT", "buy", 1).is_accepted
    assert firm.check("A2", "3", "AAPL C110", "buy", 3, 500).allowed_quantity == 2
    assert firm.check("A2", "4", "AAPL C110", "buy", 2, 500).is_accepted
    mark(firm)
    assert used(firm, "D1", "vega") == (16, 16, "OK")
    assert firm.check("A1", "5", "AAPL C100", "buy", 1).is_accepted


@pytest.mark.parametrize("greek", ["deltas", "gammas", "vegas", "thetas"])
@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_no_greek_that_is_no_number_is_stored(firm: Caller, greek: str, value: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        firm.mark({"AAPL C100": 5}, **{greek: [float(value)]})
    assert caught.value.sqlstate == "RK400"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_the_table_of_marks_holds_numbers_only(firm: Caller, value: str) -> None:
    """Whoever writes: not even the owner stores anything else."""
    numbers = firm.rows(
        """select a.attname as name from pg_attribute as a
           where a.attrelid = 'risk_private.marks'::regclass
             and a.atttypid in ('float8'::regtype, 'numeric'::regtype)"""
    )
    assert len(numbers) == 9
    for row in numbers:
        column = sql.Identifier(row["name"])
        with pytest.raises(psycopg.errors.CheckViolation):
            firm.connection.execute(
                sql.SQL("update risk_private.marks set {} = %s").format(column), [value]
            )


@pytest.mark.parametrize("greek", ["delta", "gamma", "vega", "theta"])
def test_even_a_nan_that_was_stored_somehow_refuses_the_order(firm: Caller, greek: str) -> None:
    firm.limit("F", "vega", PLENTY)
    firm.rows("alter table risk_private.marks drop constraint marks_are_numbers")
    firm.rows(f"update risk_private.marks set {greek} = 'NaN' where delta = 0.5")
    for way, ask in {"1": firm.check, "2": firm.check}.items():
        assert ask("A1", way, "AAPL C100", "buy", 1).reason == "STALE_DATA"
    assert firm.batch([item("A1", "3", "buy AAPL C100", 1)])[0].reason == "STALE_DATA"


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-1"])
def test_no_limit_that_makes_no_sense_is_set(firm: Caller, amount: str) -> None:
    for limit_type in EXACT:
        with pytest.raises(psycopg.Error) as caught:
            firm.limit("A1", limit_type, amount)
        assert caught.value.sqlstate == "RK400"
