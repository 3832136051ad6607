"""How the demo's desks fared, read from the views as the days go by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgrisk.cli.demo_firm import DESKS, FIRM

if TYPE_CHECKING:
    from datetime import date

    from pgrisk.cli.demo_broker import Connection

_EQUITY = """
select p.scope, p.equity::double precision, p.daily_pnl::double precision,
  p.drawdown_pct::double precision
from risk.pnl as p where p.scope = any (%s)"""

_RISK = """
select g.scope, g.dollar_delta, g.dollar_gamma, g.vega, g.theta, c.underlying,
  abs(c.dollar_delta) / p.equity::double precision * 100
from risk.portfolio_greeks as g
join risk.pnl as p on p.scope = g.scope
cross join lateral (
  select u.underlying, u.dollar_delta
  from risk.portfolio_greeks as u
  where u.scope = g.scope and u.underlying is not null
  order by abs(u.dollar_delta) desc limit 1
) as c
where g.scope = any (%s) and g.underlying is null"""


@dataclass(frozen=True)
class Equity:
    """What a desk, or the firm, was worth at one moment."""

    day: date
    scope: str
    equity: float
    pnl: float
    """Of the day so far."""
    drawdown: float
    """Below the peak, in percent."""


@dataclass(frozen=True)
class Risk:
    """The Greeks of a desk, or the firm, at a close, in money."""

    day: date
    scope: str
    dollar_delta: float
    dollar_gamma: float
    vega: float
    theta: float
    largest: str
    """The underlying with the largest net exposure."""
    concentration: float
    """That exposure in percent of equity."""


class History:
    """What was read, in the order in which it was."""

    def __init__(self, analyst: Connection) -> None:
        self._analyst = analyst
        self.equities: list[Equity] = []
        self.risks: list[Risk] = []

    def sample(self, day: date) -> None:
        """Read what the firm and its desks are worth now."""
        rows = self._analyst.execute(_EQUITY, [[FIRM, *DESKS]]).fetchall()
        self.equities += [Equity(day, *row) for row in rows]

    def close(self, day: date) -> None:
        """Read the Greeks that they go into the night with."""
        rows = self._analyst.execute(_RISK, [[FIRM, *DESKS]]).fetchall()
        self.risks += [Risk(day, *row) for row in rows]

    def of(self, scope: str) -> list[Equity]:
        """All samples of a scope."""
        return [sample for sample in self.equities if sample.scope == scope]

    def closes(self, scope: str) -> list[Equity]:
        """The last sample of each day."""
        return list({sample.day: sample for sample in self.of(scope)}.values())
