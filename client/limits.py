"""Limits, what is used of them, and trading states. Amounts are Decimals.

Amounts are in what the type of limit measures: shares or contracts, money in the firm's base
currency, orders, seconds, or percent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit in force. Without symbol, underlying and sector it is for all instruments."""

    scope: str
    limit_type: str
    symbol: str | None
    underlying: str | None
    sector: str | None
    limit_value: Decimal
    warn_pct: Decimal
    version: int
    valid_from: datetime
    valid_until: datetime | None


@dataclass(frozen=True, slots=True)
class Utilization:
    """What is used of a limit. `worst_case` counts open orders, and is what decisions compare.

    Both are None where nothing is used up, as with limits on single orders.
    """

    scope: str
    limit_type: str
    symbol: str | None
    underlying: str | None
    sector: str | None
    limit_value: Decimal
    used: Decimal | None
    worst_case: Decimal | None
    utilization_pct: Decimal | None
    status: str
    """OK, WARN (at or above the warning level) or BREACH (above the limit)."""
    version: int
    as_of: datetime


@dataclass(frozen=True, slots=True)
class TradingState:
    """The state of a scope, for one underlying or (None) for all: ACTIVE, REDUCE_ONLY or HALTED.

    Decisions go by `effective_state`, the most severe on the scope and above it.
    """

    scope: str
    underlying: str | None
    own_state: str
    effective_state: str
    since: datetime | None
    changed_by: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class HotLimit:
    """One limit of HotLimits, at `scope`, for `dimension` (all, sector:…, underlying:…, …)."""

    scope: str
    limit_type: str
    dimension: str
    limit_value: Decimal
    warn_pct: Decimal
    worst_case: Decimal | None
    utilization_pct: Decimal | None
    status: str
    version: int


@dataclass(frozen=True, slots=True)
class HotLimits:
    """Every limit that binds orders of `scope` in `symbol`, at the moment `as_of`.

    `version` grows with every change of limits, states and statuses. `changes_at` is when a limit
    next begins or ends by itself. For pre-screens and displays: only a decision decides.
    """

    version: int
    scope: str
    symbol: str | None
    underlying: str | None
    as_of: datetime
    changes_at: datetime | None
    state: str
    state_since: datetime | None
    state_reason: str | None
    instrument_status: str | None
    limits: tuple[HotLimit, ...]

    @classmethod
    def parse(cls, text: str | bytes) -> HotLimits:
        """From the JSON of risk.hot_limits.

        Raises ValueError for anything else.
        """
        try:
            document: dict[str, Any] = json.loads(text)
            return cls(
                int(document["version"]),
                str(document["scope"]),
                document["symbol"],
                document["underlying"],
                datetime.fromisoformat(document["as_of"]),
                _moment(document["changes_at"]),
                str(document["state"]),
                _moment(document["state_since"]),
                document["state_reason"],
                document["instrument_status"],
                tuple(_hot_limit(limit) for limit in document["limits"]),
            )
        except (KeyError, TypeError, AttributeError, InvalidOperation) as error:
            raise ValueError(f"not a document of risk.hot_limits: {error!r}") from error


def _hot_limit(limit: dict[str, Any]) -> HotLimit:
    worst_case, utilization = limit["worst_case"], limit["utilization_pct"]
    return HotLimit(
        limit["scope"],
        limit["limit_type"],
        limit["dimension"],
        Decimal(limit["limit_value"]),
        Decimal(limit["warn_pct"]),
        None if worst_case is None else Decimal(worst_case),
        None if utilization is None else Decimal(utilization),
        limit["status"],
        limit["version"],
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
