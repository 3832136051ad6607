"""Limits on Greeks while marks move, days roll, and many trade at once."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest

from tests.greeks import EXACT, GREEKS, STRADDLE, mark, used
from tests.orders import LEAVES, PLENTY, Answer, Caller, Row, callers, each_at_once, item, open_firm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.databases import Database

CLIENTS = 32
ROOM = 37
ACCEPTED = "select count(*) from risk_private.orders where decision = 'ACCEPTED'"


@pytest.fixture
def firm(db: Database) -> Iterator[Caller]:
    with open_firm(db) as caller:
        mark(caller)
        yield caller
        assert caller.differences() == []


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
    """Whichever of its legs they are of: 10 straddles, 70 - 50 shares each, then 20 - 50."""
    firm.limit("A1", "delta", 1000)
    assert firm.combo("A1", "straddle", STRADDLE, 10).is_accepted
    for delta, worst_case in ((0.7, 200), (0.2, 300)):
        greeks = {"gammas": [0.02], "vegas": [0.1], "thetas": [-0.05]}
        firm.mark({"AAPL C100": 5}, deltas=[delta], **greeks)
        assert used(firm, "A1", "delta") == (0, worst_case, "OK")


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


# -- many at once ------------------------------------------------------------------------------


WAYS: dict[str, Callable[[Caller, str], Answer]] = {
    "single": lambda c, account: c.check(account, c.new_name(), "AAPL C100", "buy", 1),
    "combo": lambda c, account: c.combo(account, c.new_name(), "buy 1 AAPL C100, sell 10 AAPL", 1),
    "batch": lambda c, account: c.batch([item(account, c.new_name(), "buy AAPL C100", 1)])[0],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("scope", "rest"),
    [("F", {}), ("F", {"sector": "Tech", "warn_pct": 50}), ("F", {"symbol": "AAPL C100"})],
)
def test_exactly_the_capacity_is_accepted(
    db: Database, firm: Caller, way: str, scope: str, rest: dict[str, Any]
) -> None:
    firm.limit(scope, "vega", 10 * ROOM, **rest)

    def until_refused(caller: Caller) -> int:
        accepted = 0
        while WAYS[way](caller, LEAVES[(caller.number + accepted) % len(LEAVES)]).is_accepted:
            accepted += 1
        return accepted

    with callers(db, CLIENTS) as clients:
        assert sum(each_at_once(clients, until_refused)) == ROOM
    assert firm.value(ACCEPTED) == ROOM
    assert used(firm, scope, "vega") == (0, 10 * ROOM, "WARN")


def trade(caller: Caller) -> None:
    """Orders of every kind in every account, some filled, some released, some replaced."""
    symbols = [*GREEKS, "AAPL", "MSFT"]
    for number in range(40):
        account, name = LEAVES[(caller.number + number) % len(LEAVES)], caller.new_name()
        if number % 4 == 3:
            caller.combo(account, name, STRADDLE, 2)
            caller.fill(account, name, name, 1, 5, symbol="AAPL P100")
        elif number % 7 == 5:
            caller.batch([item(account, name, "sell AAPL C110", 3)])
        else:
            symbol = symbols[(number + caller.number) % len(symbols)]
            caller.check(account, name, symbol, "sell" if number % 3 else "buy", 2, 5)
            caller.fill(account, name, name, 1, 5)
            caller.replace(account, name, f"{name}-new", 4, 5)
        if number % 5:
            caller.call("release_order", account=account, client_order_id=name, reason="cancelled")


def test_limits_on_greeks_that_begin_while_orders_flow_and_marks_move_are_exact(
    db: Database, firm: Caller
) -> None:
    drift: list[Row] = []

    def limit_everything(admin: Caller) -> None:
        for scope, limit_type, key in itertools.product(
            ("F", "D1", "B2", "A1"), ("delta", "vega"), ({"sector": "Tech"}, {"underlying": "AAPL"})
        ):
            admin.limit(scope, limit_type, PLENTY, **key)
            admin.limit(scope, "gross_exposure", PLENTY, symbol="AAPL C100")
            drift.extend(admin.differences())

    def move(feed: Caller) -> None:
        for spot in range(80, 120):
            delta = spot / 200
            mark(feed, spot=spot, C100=(delta, 0.02, delta / 5, -0.05))

    with callers(db, 8) as clients:
        acts = [limit_everything, move, *[trade] * 6]
        each_at_once(clients, lambda client: acts[client.number](client))
    assert drift == []
    firm.call("revalue")
    held = firm.value(
        """select sum(p.quantity) from risk_private.positions as p
           join risk_private.instruments as i using (instrument_id) where i.symbol = 'AAPL C100'"""
    )
    mark(firm)
    firm.limit("F", "vega", PLENTY, symbol="AAPL C100")
    (row,) = firm.rows(
        "select used from risk.limit_utilization where symbol = 'AAPL C100'"
        " and scope = 'F' and limit_type = 'vega'"
    )
    assert row["used"] == abs(held) * 10
