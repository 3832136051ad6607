"""Greeks of the small firm's options, for examples that can be reckoned in the head.

AAPL stands at 100. An option is on 100 shares: one C100 has a delta of 50 shares, a gamma of 2, a
dollar gamma of 200, a vega of 10 and loses 5 a day; C110, P100 and P90 likewise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.orders import Caller

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
STRADDLE = "buy 1 AAPL C100, buy 1 AAPL P100"


def mark(firm: Caller, spot: int = 100, **change: tuple[float, float, float, float] | None) -> None:
    """Marks the stock and all options; `change` has other Greeks by name, or None for unknown.

    Without Greeks, and at a price that no volatility gives, the engine cannot tell them either.
    """
    greeks = {
        s: change.get(s.removeprefix("AAPL ").replace(" ", "_"), g) for s, g in GREEKS.items()
    }
    prices = {"AAPL": spot} | {s: 5 if g else 500 for s, g in greeks.items()}
    columns = zip(*((None,) * 4, *(g or (None,) * 4 for g in greeks.values())), strict=True)
    names = ("deltas", "gammas", "vegas", "thetas")
    firm.mark(prices, **{n: list(c) for n, c in zip(names, columns, strict=True)})


def used(firm: Caller, scope: str, limit_type: str) -> tuple[int | None, int | None, str]:
    """(used, worst_case, status) of the only limit of that type at a scope."""
    (row,) = firm.rows(
        """select used, worst_case, status from risk.limit_utilization
           where scope = %s and limit_type = %s""",
        scope,
        limit_type,
    )
    return row["used"], row["worst_case"], row["status"]
