"""Limits on Greeks and exposure, as a trader would reckon them.

AAPL stands at 100. An option is on 100 shares: one C100 has a delta of 50 shares, a gamma of 2, a
dollar gamma of 200, a vega of 10 and loses 5 a day; C110, P100 and P90 likewise.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.orders import OPTIONS, PLENTY, Answer, Caller, item, open_firm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.databases import Database

# delta, gamma, vega, theta of each option
GREEKS = {
    "AAPL C100": (0.5, 0.02, 0.1, -0.05),
    "AAPL C110": (0.3, 0.015, 0.08, -0.04),
    "AAPL P100": (-0.5, 0.02, 0.1, -0.04),
    "AAPL P90": (-0.2, 0.01, 0.06, -0.03),
    "AAPL C100 LATE": (0.6, 0.01, 0.2, -0.02),
}
# What a limit must be for 10 C100, bought or sold, to fit exactly.
EXACT = {
    "delta": 500,
    "gamma": 20,
    "dollar_gamma": 2000,
    "vega": 100,
    "theta": 50,
    "gross_exposure": 50_000,
    "net_exposure": 50_000,
}
KEYS: dict[str, dict[str, str]] = {
    "all": {},
    "sector:Tech": {"sector": "Tech"},
    "underlying:AAPL": {"underlying": "AAPL"},
    "instrument:AAPL C100": {"symbol": "AAPL C100"},
}
PER_UNDERLYING = ("delta", "gamma")
STRADDLE = "buy 1 AAPL C100, buy 1 AAPL P100"


def mark(firm: Caller, spot: int = 100, **change: tuple[float, float, float, float] | None) -> None:
    """Marks the stock and all options; `change` has other Greeks by name, or None for unknown.

    Without Greeks, and at a price that no volatility gives, the engine cannot tell them either.
    """
    greeks = {s: change.get(s.removeprefix("AAPL ").replace(" ", "_"), g) for s, g in GREEKS.items()}
    prices = {"AAPL": spot} | {s: 5 if g else 500 for s, g in greeks.items()}
    columns = zip(*((None,) * 4, *(g or (None,) * 4 for g in greeks.values())), strict=True)
    names = ("deltas", "gammas", "vegas", "thetas")
    firm.mark(prices, **{n: list(c) for n, c in zip(names, columns, strict=True)})


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    with open_firm(db) as caller:
        mark(caller)
        yield caller
        assert caller.differences() == []


def used(firm: Caller, scope: str, limit_type: str) -> tuple[int | None, int | None, str]:
    """(used, worst_case, status) of the only limit of that type at a scope."""
    (row,) = firm.rows(
        """select used, worst_case, status from risk.limit_utilization
           where scope = %s and limit_type = %s""",
        scope,
        limit_type,
    )
    return row["used"], row["worst_case"], row["status"]


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
        refused = ask[way](f"no {number}", 11)
        assert refused.failed == {(limit_type, scope, dimension)}
        assert refused.reason == "RISK_LIMIT_EXCEEDED"
        assert refused.allowed_quantity == 10
        assert ask[way](f"below {number}", 9).is_accepted
        assert ask[way](f"equal {number}", 1).is_accepted
        assert not ask[way](f"above {number}", 1).is_accepted
        for name in ("below", "equal"):
            firm.call(
                "release_order",
                account="A1",
                client_order_id=f"{name} {number}",
                reason="cancelled",
            )
        firm.limit(scope, limit_type, PLENTY, **KEYS[dimension])
        assert used(firm, scope, limit_type) == (0, 0, "OK")
        firm.call("remove_limit", scope=scope, limit_type=limit_type, **KEYS[dimension])


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


@pytest.mark.parametrize("limit_type", ["delta", "net_exposure"])
def test_a_delta_neutral_straddle_passes_where_its_legs_would_not(
    firm: Caller, limit_type: str
) -> None:
    firm.limit("A1", limit_type, 30)
    for number, leg in enumerate(("AAPL C100", "AAPL P100")):
        refused = firm.check("A1", f"leg {number}", leg, "buy", 1)
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
    assert firm.replace("A1", "old", "too much", 11, 5).allowed_quantity == 10
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


def test_a_hedge_passes_while_the_other_side_is_breached(firm: Caller) -> None:
    firm.hold("A1", "AAPL C100", 10)
    firm.limit("A1", "delta", 100)
    assert used(firm, "A1", "delta") == (500, 500, "BREACH")
    assert not firm.check("A1", "worse", "AAPL", "buy", 1).is_accepted
    assert firm.check("A1", "puts", "AAPL P100", "buy", 4).is_accepted
    assert firm.check("A1", "stock", "AAPL", "sell", 300).is_accepted


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


# -- scopes and dimensions ---------------------------------------------------------------------


def test_parents_net_across_accounts(firm: Caller) -> None:
    firm.hold("A1", "AAPL C100", 10)
    firm.hold("A2", "AAPL", -500)
    firm.limit("D1", "delta", 100)
    assert used(firm, "D1", "delta") == (0, 0, "OK")
    assert firm.check("A1", "1", "AAPL", "buy", 100).is_accepted
    exit_ = firm.check("A2", "2", "AAPL", "buy", 101)
    assert exit_.failed == {("delta", "D1", "all")}
    assert exit_.allowed_quantity == 0


@pytest.mark.parametrize(("limit_type", "each"), [("delta", 10), ("gamma", 1)])
def test_delta_and_gamma_are_per_underlying_and_the_most_specific_row_wins(
    firm: Caller, limit_type: str, each: int
) -> None:
    firm.limit("A1", limit_type, 2 * each)
    firm.limit("A1", limit_type, 3 * each, sector="Tech")
    firm.limit("A1", limit_type, 4 * each, underlying="AAPL")
    firm.limit("F", "delta", 1000)
    if limit_type == "gamma":
        assert firm.check("A1", "0", "AAPL C100", "buy", 3).allowed_quantity == 2
        return
    for symbol, most in {"XOM": 20, "MSFT": 30, "AAPL": 40}.items():
        assert firm.check("A1", f"over {symbol}", symbol, "buy", most + 1).allowed_quantity == most
        assert firm.check("A1", f"at {symbol}", symbol, "buy", most).is_accepted
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
    firm.hold("A2", "AAPL C110", -2, 5)
    firm.limit("D1", "vega", 10_000, underlying="AAPL")
    assert used(firm, "D1", "vega") == (None, None, "BREACH")
    refused = firm.check("A1", "1", "AAPL C100", "buy", 1)
    assert (refused.reason, refused.allowed_quantity) == ("STALE_DATA", 0)
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


@pytest.mark.parametrize("greek", ["delta", "gamma", "vega", "theta"])
def test_even_a_nan_that_was_stored_somehow_refuses_the_order(firm: Caller, greek: str) -> None:
    firm.limit("F", "vega", PLENTY)
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


# -- marks, days -------------------------------------------------------------------------------


def test_limits_follow_the_marks(firm: Caller) -> None:
    firm.limit("F", "net_exposure", 60_000)
    firm.limit("F", "dollar_gamma", 5_000)
    firm.hold("A1", "AAPL C100", 10)
    assert firm.check("B1", "1", "AAPL C100", "buy", 1).is_accepted
    assert used(firm, "F", "net_exposure") == (50_000, 55_000, "OK")
    mark(firm, spot=120, C100=(0.7, 0.01, 0.1, -0.05))
    assert used(firm, "F", "net_exposure") == (84_000, 92_400, "BREACH")
    assert used(firm, "F", "dollar_gamma") == (1440, 1584, "OK")
    assert firm.check("B1", "2", "AAPL", "buy", 1).failed == {("net_exposure", "F", "all")}
    assert firm.check("B1", "3", "AAPL", "sell", 100).is_accepted
    firm.call("remark_underlying", symbol="AAPL", price=100)
    assert firm.differences() == []


def test_marks_that_move_reach_a_combo_as_one_order(firm: Caller) -> None:
    firm.limit("A1", "delta", 1000)
    assert firm.combo("A1", "straddle", STRADDLE, 10).is_accepted
    mark(firm, spot=110, C100=(0.7, 0.015, 0.1, -0.05), P100=(-0.3, 0.015, 0.1, -0.04))
    assert used(firm, "A1", "delta") == (0, 400, "OK")
    mark(firm, spot=90, C100=(0.2, 0.015, 0.1, -0.05), P100=(-0.8, 0.015, 0.1, -0.04))
    assert used(firm, "A1", "delta") == (0, 600, "OK")


def test_what_has_expired_has_no_greeks_any_more(firm: Caller) -> None:
    firm.call("open_day", day="2099-03-20")
    mark(firm)
    firm.hold("A1", "AAPL C100", 10)
    firm.hold("A1", "AAPL C100 LATE", 1)
    firm.limit("F", "delta", 100)
    assert used(firm, "F", "delta") == (560, 560, "BREACH")
    firm.call("open_day", day="2099-03-21")
    assert used(firm, "F", "delta") == (60, 60, "OK")
    assert firm.check("A1", "1", "AAPL", "buy", 40).is_accepted


def test_positions_of_before_count_from_the_first_limit_on(firm: Caller) -> None:
    firm.hold("A1", "AAPL C100", 10)
    assert firm.combo("A2", "straddle", STRADDLE, 3).is_accepted
    assert firm.check("B1", "1", "AAPL P100", "buy", 4).is_accepted
    for scope, (limit_type, exact) in itertools.product(("F", "D1"), EXACT.items()):
        firm.limit(scope, limit_type, 10 * exact)
    assert used(firm, "F", "delta") == (500, 500, "OK")
    assert used(firm, "F", "vega") == (100, 100 + 60 + 40, "OK")
    assert used(firm, "D1", "vega") == (100, 160, "OK")
    assert used(firm, "D1", "gross_exposure") == (50_000, 80_000, "OK")


def test_each_option_of_the_firm_has_greeks_here() -> None:
    assert set(GREEKS) == set(OPTIONS)
