"""The demo's circuit breakers: defined, watched, and reset by an admin the day after."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import psycopg

from pgrisk.cli.demo_firm import FIRM

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import date
    from decimal import Decimal

    from pgrisk.cli.demo_broker import Connection

_VIX = {"indicator": "VIX"}
_SPX = {"indicator": "SPX", "reference": "prior_close", "direction": "down"}
_BREAKERS: tuple[tuple[str, str, str, float, str, Mapping[str, Any], str], ...] = (
    ("vix-30", "INCOME", "volatility_level", 30, "REDUCE_ONLY", _VIX, "session"),
    ("vix-40", FIRM, "volatility_level", 40, "HALT_AND_CANCEL", _VIX, "manual"),
    ("spx-3", "EQUITY", "price_move", 3, "REDUCE_ONLY", _SPX, "session"),
    ("spx-4", "EQUITY", "price_move", 4, "HALT_AND_CANCEL", _SPX, "manual"),
    ("loss-income", "INCOME", "daily_loss", 0.75, "REDUCE_ONLY", {}, "manual"),
    ("loss-equity", "EQUITY", "daily_loss", 0.75, "REDUCE_ONLY", {}, "manual"),
    ("loss-hedging", "HEDGING", "daily_loss", 4, "HALT_AND_CANCEL", {}, "manual"),
    ("loss-firm", FIRM, "daily_loss", 2, "HALT_AND_CANCEL", {}, "manual"),
)

_EVENTS = """
select e.event_id, e.event, e.at, e.breaker, e.scope, e.condition, e.value, e.threshold, e.data_at,
  e.action, e.reason, e.made_by
from risk.breaker_events as e
where e.event_id > %s and e.event in ('TRIPPED', 'RESET') order by e.event_id"""

_FIRST_REFUSAL = """
select min(d.decided_at) from risk.decisions as d
join risk.scopes as s on s.scope = d.account and %s = any (s.path)
where d.reason = 'CIRCUIT_BREAKER_TRIPPED' and d.decided_at > %s and exists (
  select from jsonb_array_elements(d.detail -> 'violations') as v
  where v ->> 'breaker' = any (%s))"""

# Orders of an account are decided one after the other, so what passes after its first refusal
# passes in spite of the breaker.
_FLOW = """
with refused as (
  select d.account, min(d.decided_at) as since, count(*) as orders from risk.decisions as d
  where d.reason = 'CIRCUIT_BREAKER_TRIPPED' and d.decided_at between %(since)s and %(until)s
    and d.detail -> 'violations' @> %(named)s::jsonb
  group by d.account
)
select coalesce(sum(r.orders), 0)::integer, coalesce(sum(p.orders), 0)::integer
from refused as r
cross join lateral (
  select count(*) as orders from risk.decisions as d
  where d.account = r.account and d.decision = 'ACCEPTED'
    and d.decided_at > r.since and d.decided_at < %(until)s
) as p"""


@dataclass
class Trip:
    """What became of one trip of a breaker."""

    day: date
    at: datetime
    breaker: str
    scope: str
    condition: str
    value: Decimal
    threshold: Decimal
    breached_at: datetime
    """When the value came, by the database's clock just before that was committed.

    Of a loss: when equity last moved before the breakers were evaluated.
    """
    action: str
    reason: str
    tripped_by: str
    refused_at: datetime | None = None
    reset_by: str = ""
    reset_on: date | None = None
    reset_at: datetime | None = None

    @property
    def milliseconds(self) -> float | None:
        """From the breach to the first order that was refused for it.

        So the commit, the evaluation, the trip and the wait for an order are all in it.
        """
        if self.refused_at is None:
            return None
        return (self.refused_at - self.breached_at).total_seconds() * 1000

    @property
    def cancel_reason(self) -> str:
        """What the cancel requests of it give as their reason."""
        return f"breaker {self.breaker}: {self.reason}"


def define(admin: Connection) -> None:
    """Define the circuit breakers of the firm and its desks."""
    for name, scope, condition, threshold, action, parameters, reset_policy in _BREAKERS:
        admin.execute(
            "call risk.define_breaker(name => %s, scope => %s, condition => %s, threshold => %s,"
            " action => %s, parameters => %s, reset_policy => %s, reason => 'the demo')",
            [name, scope, condition, str(threshold), action, json.dumps(parameters), reset_policy],
        )


class BreakerStory:
    """Follows the breakers as the worker trips them, and tells of it line by line."""

    def __init__(
        self, analyst: Connection, cancels: Mapping[str, int], tell: Callable[[str], None]
    ) -> None:
        self.trips: list[Trip] = []
        self._analyst = analyst
        self._cancels = cancels
        self._tell = tell
        self._seen = 0
        self._untold: list[tuple[datetime, Trip | str]] = []
        self._refused: set[tuple[str, date]] = set()

    def follow(self, day: date, is_close: bool) -> None:
        """Tell what happened since the last time.

        A trip is told with the first order that was refused for it, at the close at the latest.
        """
        rows = self._analyst.execute(_EVENTS, [self._seen]).fetchall()
        trips = {row[0]: Trip(day, *row[2:]) for row in rows if row[1] == "TRIPPED"}
        self.trips += trips.values()
        for trip in self.trips:
            if trip.refused_at is None and not trip.reset_by:
                trip.refused_at = self._first_refusal(trip)
        for event_id, event, at, breaker, scope, *_, reason, made_by in rows:
            self._seen = event_id
            if event == "TRIPPED":
                self._untold.append((at, trips[event_id]))
                continue
            self._untold.append((at, f"{breaker} reset on {scope} by {made_by}: {reason}"))
            for trip in self.trips:
                if trip.breaker == breaker and trip.at < at and not trip.reset_by:
                    trip.reset_by, trip.reset_on, trip.reset_at = made_by, day, at
        while self._untold and (is_close or _is_known(self._untold[0][1])):
            at, what = self._untold.pop(0)
            self._tell(f"{_time(at)}  {self._describe(what) if isinstance(what, Trip) else what}")

    def flow_of(self, trip: Trip) -> tuple[int, int]:
        """How many orders it refused, and how many of the same accounts passed meanwhile."""
        found = self._analyst.execute(
            _FLOW,
            {
                "since": trip.breached_at,
                "until": trip.reset_at or datetime.max.replace(tzinfo=UTC),
                "named": json.dumps([{"breaker": trip.breaker}]),
            },
        ).fetchone()
        return (found[0], found[1]) if found else (0, 0)

    def cancels_of(self, trip: Trip) -> int:
        """How many cancels it requested."""
        return self._cancels[trip.cancel_reason]

    def reset_what_is_over(self, admin: Connection, day: date) -> None:
        """What an admin does: reset the breakers of days before, where their value is clear."""
        for name, since in self._to_reset(day):
            try:
                admin.execute(
                    "call risk.reset_breaker(%s, %s)", [name, f"reviewed the trip of {since}"]
                )
            except psycopg.Error as error:
                if error.sqlstate != "RK409":
                    raise
                if (name, day) not in self._refused:
                    self._refused.add((name, day))
                    self._tell(f"{'':14}{error.diag.message_primary}")

    def _to_reset(self, day: date) -> list[tuple[str, date]]:
        policies = {name: policy for name, *_, policy in _BREAKERS}
        return [
            (trip.breaker, trip.day)
            for trip in self.trips
            if not trip.reset_by and trip.day < day and policies[trip.breaker] == "manual"
        ]

    def _describe(self, trip: Trip) -> str:
        ms, cancels = trip.milliseconds, self.cancels_of(trip)
        return (
            f"{trip.breaker} tripped on {trip.scope}: {trip.condition} "
            f"{trip.value:.2f} >= {trip.threshold:g}, {trip.action}"
            + (f"; first refusal after {ms:.0f} ms" if ms is not None else "")
            + (f", {cancels} cancels requested" if cancels else "")
        )

    def _first_refusal(self, trip: Trip) -> datetime | None:
        """When it first refused an order, or one that halts and tripped at the same moment did."""
        names = [trip.breaker] + [
            other.breaker
            for other in self.trips
            if other.at == trip.at and other.action.startswith("HALT")
        ]
        row = self._analyst.execute(
            _FIRST_REFUSAL, [trip.scope, trip.breached_at, names]
        ).fetchone()
        found: datetime | None = row[0] if row else None
        return found


def _is_known(what: Trip | str) -> bool:
    """Whether there is nothing to wait for any more before it is told."""
    return isinstance(what, str) or what.refused_at is not None


def _time(at: datetime) -> str:
    return f"{at:%H:%M:%S}.{at.microsecond // 1000:03}"
