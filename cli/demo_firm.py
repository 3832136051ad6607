"""The demo's firm: three desks, eleven agents, and the limits on every level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pgrisk.cli.demo_scenarios import STOCKS

FIRM = "FIRM"
DESKS = ("INCOME", "EQUITY", "HEDGING")
CAPITAL = 1_000_000  # of each agent
_ACCOUNTS = {"SPREADS": "INCOME", "TREND": "EQUITY"}  # accounts that hold strategies


@dataclass(frozen=True)
class Agent:
    """A strategy agent: its name, and the scope that it trades."""

    name: str
    parent: str

    @property
    def account(self) -> str:
        """The code of its scope: a strategy below an account, or an account of its own."""
        return self.name.upper()

    @property
    def kind(self) -> str:
        """What kind of scope that is."""
        return "strategy" if self.parent in _ACCOUNTS else "account"

    @property
    def desk(self) -> str:
        """The desk above it."""
        return _ACCOUNTS.get(self.parent, self.parent)


AGENTS = (
    Agent("iron-condor", "SPREADS"),
    Agent("put-spread", "SPREADS"),
    Agent("call-spread", "SPREADS"),
    Agent("cash-secured-put", "INCOME"),
    Agent("covered-call", "INCOME"),
    Agent("momentum", "TREND"),
    Agent("mean-reversion", "TREND"),
    Agent("pairs", "EQUITY"),
    Agent("tail-hedge", "HEDGING"),
    Agent("collar", "HEDGING"),
    Agent("straddle", "HEDGING"),
)


def scopes() -> list[tuple[str, str, str | None]]:
    """Code, kind and parent of every scope, parents first."""
    return [
        (FIRM, "firm", None),
        *((desk, "desk", FIRM) for desk in DESKS),
        *((account, "account", desk) for account, desk in _ACCOUNTS.items()),
        *((agent.account, agent.kind, agent.parent) for agent in AGENTS),
    ]


def limits() -> list[dict[str, Any]]:
    """The limits, as `risk.set_limits` takes them."""
    levels: list[tuple[str, dict[str, float]]] = [
        (
            FIRM,
            {
                "gross_notional": 26_000_000,
                "traded_notional": 30_000_000,
                "price_collar_pct": 10,
                "open_orders": 900,
                "net_exposure": 5_000_000,
                "vega": 8_000,
            },
        ),
        (
            "INCOME",
            {
                "gross_notional": 9_000_000,
                "net_exposure": 5_000_000,
                "dollar_gamma": 1_000_000,
                "vega": 4_000,
                "same_side": 150,
            },
        ),
        (
            "EQUITY",
            {
                "gross_notional": 8_000_000,
                "net_exposure": 1_500_000,
                "price_collar_pct": 3,
                "net_position": 18_000,
            },
        ),
        ("HEDGING", {"net_exposure": 1_500_000, "vega": 6_000, "theta": 3_500}),
        ("SPREADS", {"order_quantity": 100, "max_loss": 1_500_000}),
        ("TREND", {"gross_notional": 6_500_000, "self_cross": 1}),
        ("MOMENTUM", {"order_notional": 140_000, "net_position": 9_000, "daily_loss": 8_000}),
        ("MEAN-REVERSION", {"order_notional": 140_000, "net_position": 9_000, "order_rate": 18}),
        ("PAIRS", {"order_notional": 80_000, "net_position": 9_000, "short_position": 6_000}),
        ("COVERED-CALL", {"traded_notional": 250_000, "drawdown_pct": 6}),
        ("CASH-SECURED-PUT", {"short_position": 60, "buying_power": 500_000}),
        ("TAIL-HEDGE", {"long_position": 120, "order_notional": 25_000}),
        ("STRADDLE", {"gross_notional": 3_500_000, "delta": 4_000, "open_positions": 200}),
    ]
    found = [_limit(scope, *limit) for scope, limits in levels for limit in limits.items()]
    found += [_limit(agent.account, "duplicate_window", 1) for agent in AGENTS]
    for agent in AGENTS:
        if agent.desk != "EQUITY":  # so many contracts of an option, so many shares of a stock
            found.append(_limit(agent.account, "net_position", 100))
            found += [_limit(agent.account, "net_position", 6_000, symbol=s) for s in STOCKS]
    found.append(_limit("EQUITY", "gross_notional", 500_000, sector="Technology"))
    found.append(_limit("INCOME", "gross_notional", 250_000, underlying="AAPL"))
    return found


def _limit(scope: str, limit_type: str, amount: float, **dimension: str) -> dict[str, Any]:
    return {
        "scope": scope,
        "limit_type": limit_type,
        "amount": str(amount),
        "warn_pct": 95,
        **dimension,
    }
