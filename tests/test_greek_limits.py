"""Limits on Greeks and exposure, as a trader would reckon them: see tests/greeks.py."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from tests.greeks import EXACT, GREEKS, STRADDLE, mark, used
from tests.orders import OPTIONS, PLENTY, Answer, Caller, item, open_firm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.databases import Database

KEYS: dict[str, dict[str, str]] = {
    "all": {},
    "sector:Tech": {"sector": "Tech"},
    "underlying:AAPL": {"underlying": "AAPL"},
    "instrument:AAPL C100": {"symbol": "AAPL C100"},
}
PER_UNDERLYING = ("delta", "gamma")


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    with open_firm(db) as caller:
        mark(caller)
        yield caller
        assert caller.differences() == []


# -- the boundary ------------------------------------------------------------------------------


@pytest.mark.parametrize("limit_type", EXACT)
@pytest.mark.parametrize("side", ["buy", "sell"])
@pytest.mark.parametrize("way", ["single", "combo", "batch"])
def test_equal_passes_and_one_contract_more_does_not(
    firm: Caller, limit_type: str, side: str, way: str
) -> None:
    ask: dict[str, Callable[[str, int], Answer]] = {
        "single": lambda name, n: firm.check("A1", name, "AAPL C100", side, n, 5),
        "combo": lambda name, n: firm.combo("A1", name, f"{side} 1 AAPL C100", n),
        "batch": lambda name, n: firm.batch([item("A1", name, f"{side} AAPL C100", n)])[0],
    }
    exact = EXACT[limit_type]
    keys = [k for k in KEYS if limit_type not in PER_UNDERLYING or "symbol" not in KEYS[k]]
    for number, (scope, dimension) in enumerate(itertools.product(("A1", "D1", "F"), keys)):
        firm.limit(scope, limit_type, exact, **KEYS[dimension])
        refused = ask[way](f"no-{number}", 11)
        assert refused.failed == {(limit_type, scope, dimension)}
        assert refused.reason == "RISK_LIMIT_EXCEEDED"
        assert refused.allowed_quantity == 10
        assert ask[way](f"below-{number}", 9).is_accepted
        assert ask[way](f"equal-{number}", 1).is_accepted
        assert not ask[way](f"above-{number}", 1).is_accepted
        for name in ("below", "equal"):
            firm.call(
                "release_order",
                account="A1",
                client_order_id=f"{name}-{number}",
                reason="cancelled",
            )
        firm.limit(scope, limit_type, PLENTY, **KEYS[dimension])
        assert used(firm, scope, limit_type) == (0, 0, "OK")
        firm.call("remove_limit", scope=scope, limit_type=limit_type, **KEYS[dimension])


@pytest.mark.parametrize("limit_type", ["delta", "net_exposure", "gross_exposure"])
@pytest.mark.parametrize("side", ["buy", "sell"])
def test_shares_are_bound_by_the_delta_that_they_move(
    firm: Caller, limit_type: str, side: str
) -> None:
    firm.limit("D1", limit_type, EXACT[limit_type])
    assert firm.check("A1", "no", "AAPL", side, 501, 100).failed == {(limit_type, "D1", "all")}
    assert firm.check("A1", "below", "AAPL", side, 300, 100).is_accepted
    assert used(firm, "D1", limit_type) == (0, 3 * EXACT[limit_type] // 5, "OK")
    assert firm.check("A2", "no", "AAPL", side, 201, 100).allowed_quantity == 200
    assert firm.check("A2", "equal", "AAPL", side, 200, 100).is_accepted
    assert not firm.check("A1", "above", "AAPL", side, 1, 100).is_accepted


def test_shares_show_warnings_of_greeks_that_they_do_not_move(firm: Caller) -> None:
    firm.limit("D1", "gamma", 20, warn_pct=80)
    assert firm.check("A1", "1", "AAPL C100", "buy", 7, 5).warnings == ()
    assert firm.check("A1", "2", "AAPL", "buy", 100, 100).warnings == ()
    assert firm.check("A1", "3", "AAPL C100", "buy", 1, 5).is_accepted
    loud = firm.check("A1", "4", "AAPL", "buy", 100, 100)
    assert loud.is_accepted
    assert [w["limit_type"] for w in loud.warnings] == ["gamma"]


def test_zero_permits_nothing_that_moves_the_greek(firm: Caller) -> None:
    firm.limit("A1", "vega", 0)
    assert firm.check("A1", "1", "AAPL", "buy", 100).is_accepted
    assert firm.check("A1", "2", "AAPL C100", "buy", 1).failed == {("vega", "A1", "all")}
    assert firm.check("A1", "3", "AAPL C100", "sell", 1).allowed_quantity == 0


def test_a_refusal_tells_the_side_that_fails_with_its_numbers(firm: Caller) -> None:
    firm.hold("A1", "AAPL C100", -4)
    firm.limit("A1", "delta", 250)
    (violation,) = firm.check("A1", "1", "AAPL C100", "sell", 3).violations
    told = {name: violation[name] for name in ("limit", "current", "projected")}
    assert {name: float(number) for name, number in told.items()} == {
        "limit": 250,
        "current": 200,
        "projected": 350,
    }
    assert violation["allowed_quantity"] == "1"


# -- open orders and combos --------------------------------------------------------------------


def test_open_orders_do_not_net(firm: Caller) -> None:
    firm.limit("A1", "delta", 100)
    assert firm.check("A1", "long", "AAPL C100", "buy", 2).is_accepted
    assert firm.check("A1", "short", "AAPL C100", "sell", 2).is_accepted
    assert used(firm, "A1", "delta") == (0, 100, "WARN")
    assert not firm.check("A1", "more", "AAPL", "buy", 1).is_accepted
    assert not firm.check("A1", "less", "AAPL", "sell", 1).is_accepted
    firm.fill("A1", "long", "e", 2, 5)
    assert used(firm, "A1", "delta") == (100, 100, "WARN")
    assert firm.check("A1", "hedge", "AAPL", "sell", 100).is_accepted


def test_exposure_shows_both_sides(firm: Caller) -> None:
    firm.limit("D1", "delta", PLENTY)
    firm.limit("D1", "vega", PLENTY, symbol="AAPL C100")
    firm.hold("A1", "AAPL C100", 10)
    assert firm.check("A2", "1", "AAPL C100", "sell", 2).is_accepted
    assert firm.combo("A2", "2", "buy 100 AAPL, sell 1 AAPL C100", 1).is_accepted
    rows = firm.rows(
        """select symbol, underlying, delta_up, delta_down, net_exposure_up, net_exposure_down,
             vega_up, vega_down, gross_exposure, unknown_greeks
           from risk.exposure where scope = 'D1' and vega_up <> 0 order by symbol"""
    )
    assert [tuple(row.values()) for row in rows] == [
        ("AAPL C100", None, None, None, 50_000, 35_000, 100, 70, 65_000, 0),
        (None, "AAPL", 550, 400, 55_000, 40_000, 100, 70, 75_000, 0),
    ]


@pytest.mark.parametrize("limit_type", ["delta", "net_exposure"])
def test_a_delta_neutral_straddle_passes_where_its_legs_would_not(
    firm: Caller, limit_type: str
) -> None:
    firm.limit("A1", limit_type, 30)
    for number, leg in enumerate(("AAPL C100", "AAPL P100")):
        refused = firm.check("A1", f"leg-{number}", leg, "buy", 1)
        assert refused.failed == {(limit_type, "A1", "all")}
        assert refused.allowed_quantity == 0
    assert firm.combo("A1", "straddle", STRADDLE, 1000).is_accepted
    assert used(firm, "A1", limit_type) == (0, 0, "OK")


def test_a_combo_is_netted_until_all_its_legs_are_filled(firm: Caller) -> None:
    firm.limit("A1", "delta", 500)
    assert firm.combo("A1", "straddle", STRADDLE, 10).is_accepted
    firm.fill("A1", "straddle", "calls", 6, 5, symbol="AAPL C100")
    # 300 are held; the rest, 4 calls and 10 puts, is -300 once more.
    assert used(firm, "A1", "delta") == (300, 300, "OK")
    firm.fill("A1", "straddle", "puts", 10, 5, symbol="AAPL P100")
    assert used(firm, "A1", "delta") == (200, 200, "OK")
    firm.fill("A1", "straddle", "rest", 4, 5, symbol="AAPL C100")
    assert used(firm, "A1", "delta") == (0, 0, "OK")


def test_gross_exposure_nets_nothing(firm: Caller) -> None:
    firm.limit("D1", "gross_exposure", 100_000)
    assert firm.combo("A1", "straddle", STRADDLE, 10).is_accepted
    assert used(firm, "D1", "gross_exposure") == (0, 100_000, "WARN")
    assert firm.check("A2", "1", "AAPL", "sell", 1).failed == {("gross_exposure", "D1", "all")}
    firm.fill("A1", "straddle", "calls", 10, 5, symbol="AAPL C100")
    assert used(firm, "D1", "gross_exposure") == (50_000, 100_000, "WARN")
    assert firm.check("A1", "close", "AAPL C100", "sell", 10).is_accepted


def test_an_order_enlarges_gross_exposure_only_by_what_worsens_the_worst_case(
    firm: Caller,
) -> None:
    firm.hold("A1", "AAPL C100", 10)
    firm.limit("A1", "gross_exposure", 50_000)
    refused = firm.check("A1", "1", "AAPL C100", "sell", 25)
    assert refused.allowed_quantity == 20
    assert firm.check("A1", "2", "AAPL C100", "sell", 20).is_accepted


def test_a_replace_is_judged_as_the_increment(firm: Caller) -> None:
    firm.limit("A1", "vega", 100)
    assert firm.check("A1", "old", "AAPL C100", "buy", 6, 5).is_accepted
    assert firm.replace("A1", "old", "too-much", 11, 5).allowed_quantity == 10
    assert firm.replace("A1", "old", "new", 10, 5).is_accepted
    assert used(firm, "A1", "vega") == (0, 100, "WARN")
    firm.call("reject_replace", account="A1", new_client_order_id="new")
    assert used(firm, "A1", "vega") == (0, 60, "OK")


def test_an_over_fill_counts_in_full(firm: Caller) -> None:
    firm.limit("A1", "vega", 100)
    assert firm.check("A1", "1", "AAPL C100", "buy", 10, 5).is_accepted
    firm.fill("A1", "1", "e", 12, 5)
    assert used(firm, "A1", "vega") == (120, 120, "BREACH")
    assert firm.check("A1", "2", "AAPL C110", "buy", 1).failed == {("vega", "A1", "all")}
    assert firm.check("A1", "3", "AAPL C110", "sell", 1).is_accepted


# -- judged by change --------------------------------------------------------------------------


@pytest.mark.parametrize(("held", "worse", "hedge"), [(10, "buy", "sell"), (-10, "sell", "buy")])
def test_a_hedge_passes_while_the_other_side_is_breached(
    firm: Caller, held: int, worse: str, hedge: str
) -> None:
    firm.hold("A1", "AAPL C100", held)
    firm.limit("A1", "delta", 100)
    assert used(firm, "A1", "delta") == (500, 500, "BREACH")
    assert not firm.check("A1", "worse", "AAPL", worse, 1).is_accepted
    assert firm.check("A1", "puts", "AAPL P100", worse, 4).is_accepted
    assert firm.check("A1", "stock", "AAPL", hedge, 300).is_accepted


def test_an_order_that_crosses_zero_is_judged_on_the_far_side(firm: Caller) -> None:
    firm.hold("A1", "AAPL C100", 10)
    firm.limit("A1", "delta", 100)
    refused = firm.check("A1", "1", "AAPL", "sell", 700)
    assert refused.failed == {("delta", "A1", "all")}
    assert refused.allowed_quantity == 600
    assert firm.check("A1", "2", "AAPL", "sell", 600).is_accepted


def test_a_reducing_order_may_be_refused_for_what_it_does_to_the_greeks(firm: Caller) -> None:
    """Closing the puts of a straddle uncovers the delta of its calls."""
    firm.hold("A1", "AAPL C100", 10)
    firm.hold("A1", "AAPL P100", 10)
    firm.limit("A1", "delta", 200)
    refused = firm.check("A1", "1", "AAPL P100", "sell", 10)
    assert refused.failed == {("delta", "A1", "all")}
    assert refused.allowed_quantity == 4
    assert firm.combo("A1", "2", "sell 1 AAPL C100, sell 1 AAPL P100", 10).is_accepted


def test_a_limit_lowered_below_present_use_only_stops_increases(firm: Caller) -> None:
    firm.limit("F", "vega", 1000)
    assert firm.check("A1", "1", "AAPL C100", "buy", 50, 5).is_accepted
    firm.limit("F", "vega", 100)
    assert used(firm, "F", "vega") == (0, 500, "BREACH")
    assert not firm.check("B1", "2", "AAPL C100", "buy", 1).is_accepted
    assert firm.check("B1", "3", "AAPL C100", "sell", 10).is_accepted


# -- warnings and what is allowed --------------------------------------------------------------


@pytest.mark.parametrize("side", ["buy", "sell"])
def test_warnings_begin_at_warn_pct(firm: Caller, side: str) -> None:
    firm.limit("F", "delta", 500, warn_pct=80)
    quiet = firm.check("A1", "1", "AAPL C100", side, 7)
    assert quiet.is_accepted
    assert quiet.warnings == ()
    loud = firm.check("A1", "2", "AAPL C100", side, 1)
    assert loud.is_accepted
    assert [w["limit_type"] for w in loud.warnings] == ["delta"]
    assert used(firm, "F", "delta") == (0, 400, "WARN")


@pytest.mark.parametrize("limit_type", EXACT)
@pytest.mark.parametrize(
    "legs",
    [
        "buy 1 AAPL C100, sell 2 AAPL C110",
        "sell 1 AAPL C100, sell 1 AAPL P90",
        "buy 100 AAPL, sell 1 AAPL C100",
        "buy 3 AAPL P90, sell 1 AAPL C100 LATE",
    ],
)
def test_the_allowed_quantity_passes_and_one_more_does_not(
    firm: Caller, limit_type: str, legs: str
) -> None:
    firm.hold("A1", "AAPL C110", -3)
    firm.hold("A2", "AAPL P90", 7)
    assert firm.check("A2", "open", "AAPL C100 LATE", "sell", 5).is_accepted
    firm.limit("D1", limit_type, PLENTY)
    _, worst_case, _ = used(firm, "D1", limit_type)
    firm.limit("D1", limit_type, (worst_case or 0) + 7 * EXACT[limit_type] // 10)
    refused = firm.combo("A1", "1", legs, 1000)
    assert refused.failed == {(limit_type, "D1", "all")}
    allowed = refused.allowed_quantity
    assert 0 < allowed < 1000
    assert not firm.combo("A1", "2", legs, allowed + 1).is_accepted
    assert firm.combo("A1", "3", legs, allowed).is_accepted


def test_each_option_of_the_firm_has_greeks_here() -> None:
    assert set(GREEKS) == set(OPTIONS)
