"""Area charts in characters, for a terminal or a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_ASCII = " .:|"  # for an output that cannot show blocks


def area(
    values: Sequence[float], height: int, low: float, high: float, is_unicode: bool = True
) -> list[str]:
    """The area below `values` in so many lines, from `high` at the top to `low` at the bottom.

    One column per value; what is beyond the range is cut off, and anything above `low` shows.
    """
    steps = _EIGHTHS if is_unicode else _ASCII
    full = len(steps) - 1
    span = (high - low) or 1
    filled = [
        min(height * full, max(round((value - low) / span * height * full), value > low))
        for value in values
    ]
    return [
        "".join(steps[min(full, max(0, column - line * full))] for column in filled)
        for line in reversed(range(height))
    ]
