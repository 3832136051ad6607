"""What the engine's views say of money, Greeks and obligations, in the oracle's terms."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from tests.stateful.calls import Calls

if TYPE_CHECKING:
    from tests.model.reports import Rows

# Per view the columns of the key, then amounts; what is unknown is -1 where it is told apart.
VIEWS = {
    "positions": (
        2,
        """select account, symbol, average_price, coalesce(unrealized_pnl, 0), realized_pnl_today
           from risk.positions where account = any(%s)""",
    ),
    "cash": (2, "select account, currency, amount from risk.cash where account = any(%s)"),
    "exposure": (
        1,
        """select scope, gross_position, gross_notional, traded_notional, open_orders,
             open_positions, coalesce(gross_exposure, 0), coalesce(net_exposure, 0),
             coalesce(net_exposure_up, 0), coalesce(net_exposure_down, 0)
           from risk.exposure
           where scope = any(%s) and num_nonnulls(symbol, underlying, sector) = 0""",
    ),
    "portfolio_greeks": (
        2,
        """select scope, underlying, coalesce(delta, 0), coalesce(gamma, 0), coalesce(vega, 0),
             coalesce(theta, 0), coalesce(dollar_delta, 0), coalesce(dollar_gamma, 0), unknown
           from risk.portfolio_greeks where scope = any(%s) and underlying is not null""",
    ),
    "concentration": (
        2,
        """select scope, coalesce(underlying, sector), coalesce(net_exposure, 0),
             coalesce(net_exposure_up, 0), coalesce(net_exposure_down, 0),
             coalesce(concentration_pct, -1)
           from risk.concentration where scope = any(%s)""",
    ),
    "same_side_positions": (
        2,
        """select scope, underlying, bull, bear, held_bull, held_bear
           from risk.same_side_positions where scope = any(%s)""",
    ),
}


class Reading(Calls):
    """Views of analysts."""

    def reports(self, scopes: list[str]) -> dict[str, Rows]:
        """Every view by its name: a key and amounts per row."""
        found: dict[str, Rows] = {}
        for view, (width, query) in VIEWS.items():
            found[view] = {}
            for row in self._tuples(query, scopes):
                amounts = (Decimal(str(amount)) for amount in row[width:])
                found[view][row[:width]] = tuple(amounts)
        return found
