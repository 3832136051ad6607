"""Limits and trading states from the database, typed and pooled."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Self, TypeVar

from pgrisk.client.connection import Pool
from pgrisk.client.limits import HotLimits, Limit, TradingState, Utilization

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

T = TypeVar("T")


class LimitReader:
    """Reads limits and states at `url`; for all threads of a process to share.

    Raises a RiskError where that fails: NotAllowed, NotFound, EngineFault or Unavailable. What
    `timeout` and `attempts` mean is told at RiskClient.
    """

    def __init__(
        self,
        url: str,
        *,
        min_size: int = 1,
        max_size: int = 10,
        timeout: float = 5.0,
        attempts: int = 4,
    ) -> None:
        if timeout <= 0 or attempts < 1 or not 0 <= min_size <= max_size or max_size < 1:
            raise ValueError("timeout, attempts and max_size must be above 0, min_size within it")
        self.url = url
        self._pool = Pool(
            url, min_size=min_size, max_size=max_size, timeout=timeout, attempts=attempts
        )
        self._pool.open()

    def close(self) -> None:
        """Close all connections; calls after this raise Unavailable."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def limits(self, scope: str | None = None) -> list[Limit]:
        """The limits in force now, of one scope or of all; not those above it."""
        source = "risk.limits where %s::text is null or scope = %s"
        return self._read(Limit, source, [scope, scope])

    def utilization(self, scope: str | None = None) -> list[Utilization]:
        """What is used of every limit in force, of one scope or of all, worst first."""
        source = "risk.limit_utilization where %s::text is null or scope = %s"
        return self._read(Utilization, source, [scope, scope])

    def trading_states(self, scope: str | None = None) -> list[TradingState]:
        """Trading states, of one scope or of all, each for an underlying or for all of them."""
        source = "risk.trading_states where %s::text is null or scope = %s"
        return self._read(TradingState, source, [scope, scope])

    def hot_limits(self, scope: str, symbol: str | None = None) -> HotLimits:
        """The limits on the whole chain of a scope that bind orders in `symbol`, with their use.

        Always from the database; LimitCache.get gives the same from Redis where it can.
        """
        return HotLimits.parse(self.hot_limits_document(scope, symbol))

    def hot_limits_document(self, scope: str, symbol: str | None) -> str:
        """The same as JSON text."""
        question = b"select risk.hot_limits(%s, %s)::text as document"
        (row,) = self._pool.ask(question, [scope, symbol], changes=False)
        document: str = row["document"]
        return document

    def _read(self, kind: type[T], source: str, arguments: Sequence[object]) -> list[T]:
        columns = ", ".join(field.name for field in fields(kind))  # type: ignore[arg-type]
        statement = f"select {columns} from {source}"  # noqa: S608
        rows: list[Any] = self._pool.ask(statement.encode(), arguments, changes=False)
        return [kind(**row) for row in rows]
