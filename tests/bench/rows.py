"""The rows of the table that a run of the benchmarks gives."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measure beside what it must reach and what it aims for."""

    name: str
    must: float
    aim: float
    value: float
    at_most: bool = False
    unit: str = ""

    def cells(self) -> list[str]:
        """The row as text: measure, must, aim, measured, verdict."""
        sign = "≤" if self.at_most else "≥"
        met = [
            self.value <= goal if self.at_most else self.value >= goal
            for goal in (self.must, self.aim)
        ]
        verdict = "aim" if met[1] else "must" if met[0] else "missed"
        texts = [f"{sign} {goal:,g}{self.unit}" for goal in (self.must, self.aim)]
        return [self.name, *texts, f"{self.value:,.3g}{self.unit}", verdict]


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| measure | must | aim | measured | reached |", "|---|---|---|---|---|"]
    return "\n".join(lines + ["| " + " | ".join(row.cells()) + " |" for row in rows])
