"""How the demo's desks fared: samples of their equity, taken as the days go by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgrisk.cli.demo_firm import DESKS, FIRM

if TYPE_CHECKING:
    from datetime import date

    from pgrisk.cli.demo_broker import Connection

_SAMPLE = """
select p.scope, p.equity::double precision, p.daily_pnl::double precision,
  p.drawdown_pct::double precision
from risk.pnl as p where p.scope = any (%s)"""


@dataclass(frozen=True)
class Sample:
    """A desk, or the firm, at one moment."""

    day: date
    scope: str
    equity: float
    pnl: float
    drawdown: float


class History:
    """Samples in the order in which they were taken."""

    def __init__(self, analyst: Connection) -> None:
        self._analyst = analyst
        self.samples: list[Sample] = []

    def sample(self, day: date) -> None:
        """Read where the firm and its desks stand."""
        rows = self._analyst.execute(_SAMPLE, [[FIRM, *DESKS]]).fetchall()
        self.samples += [Sample(day, *row) for row in rows]

    def of(self, scope: str) -> list[Sample]:
        """All samples of a scope."""
        return [sample for sample in self.samples if sample.scope == scope]

    def closes(self, scope: str) -> list[Sample]:
        """The last sample of each day."""
        return list({sample.day: sample for sample in self.of(scope)}.values())
