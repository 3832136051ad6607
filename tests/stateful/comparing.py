"""How engine and oracle are compared."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tests.model import RiskError

if TYPE_CHECKING:
    from collections.abc import Mapping

MILLIONTH = Decimal("0.000001")


def agree(what: str, engine: object, oracle: object) -> None:
    """Fails with both values where engine and oracle differ."""
    if engine != oracle:
        raise AssertionError(f"{what}\n  engine: {engine}\n  oracle: {oracle}")


def outcome(system: object, method: str, arguments: tuple[object, ...]) -> Any:
    """What a call returns, or the code of the error that it raises."""
    try:
        return getattr(system, method)(*arguments)
    except RiskError as error:
        return error.sqlstate


def agree_on_rows(
    what: str, engine: dict[Any, Any], oracle: dict[Any, Any], default: object
) -> None:
    """Compares row by row; a missing row counts as `default`."""
    for key in {*engine, *oracle}:
        agree(f"{what} {key}", engine.get(key, default), oracle.get(key, default))


def agree_on_amounts(
    what: str, engine: Mapping[Any, tuple[Decimal, ...]], oracle: Mapping[Any, tuple[Decimal, ...]]
) -> None:
    """Compares row by row, but for a millionth: averages and drawdowns are quotients.

    What one of them does not show is all zeros.
    """
    for key in {*engine, *oracle}:
        nothing = (Decimal(0),) * len(engine.get(key) or oracle[key])
        rows = engine.get(key, nothing), oracle.get(key, nothing)
        if any(a != b and abs(a - b) > MILLIONTH for a, b in zip(*rows, strict=True)):
            agree(f"{what} {key}", *rows)
