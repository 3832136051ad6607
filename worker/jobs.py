"""What the leader does in the background, each with how often and how much of its time at most."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg
    import structlog

    from pgrisk.worker.metrics import Metrics


@dataclass(frozen=True)
class Context:
    """What a job works with."""

    connection: psycopg.Connection
    epoch: int
    log: structlog.stdlib.BoundLogger
    metrics: Metrics
    evaluate_soon: Callable[[], None]
    """For jobs that change what breakers judge."""

    def value(self, function: str, *arguments: object) -> Any:
        """The result of one of the worker's functions, called with the epoch first."""
        marks = "".join(", %s" for _ in arguments)
        row = self.connection.execute(
            f"select risk_private.{function}(%s{marks})".encode(), [self.epoch, *arguments]
        ).fetchone()
        return row[0] if row else None

    def rest(self, seconds: float) -> None:
        """Leave the processors to others; it ends when the job is cancelled."""
        self.connection.execute("select pg_sleep(%s)", [seconds])


@dataclass(frozen=True)
class Job:
    """A job, every so many seconds; longer where it would take more than its share of the time."""

    name: str
    interval: float
    run: Callable[[Context], None] = field(repr=False)
    share: float = 0.02
    at_once: bool = True
    """Whether a new leader does it first of all; else after the first interval."""


def lapsed_limits(context: Context) -> None:
    """Alert temporary limits whose time has ended."""
    count = context.value("tell_lapsed_limits")
    if count:
        context.log.info("limits_lapsed", count=count)


def warnings(context: Context) -> None:
    """Alert limits that came near."""
    count = context.value("tell_warnings")
    if count:
        context.log.info("limits_near", count=count)


def day(context: Context) -> None:
    """Open the day that is due, account by account; go on with one that was interrupted."""
    rows = context.connection.execute(
        "select day, account_ids from risk_private.begin_due_day(%s)", [context.epoch]
    ).fetchall()
    for opened, account_ids in rows:
        for account_id in account_ids:
            context.value("roll_account_at", account_id, opened)
        if account_ids:
            context.value("refresh_view", "daily_summary")
            context.log.info("day_opened", day=opened, accounts=len(account_ids))


def reconciliation(context: Context) -> None:
    """Recount all that is summed, part by part; what differs halts its scope and stays as it is."""
    count = 0
    for part in context.connection.execute(
        "select unnest(risk_private.parts_to_recount())"
    ).fetchall():
        began = time.monotonic()
        count += context.value("reconcile", *part)
        context.rest(time.monotonic() - began)
    if count:
        context.log.error("drift", differences=count)


def cancels(context: Context) -> None:
    """Request the cancels of halts; accounts that somebody has locked are left to the next time."""
    context.connection.execute("call risk_private.cancel_halted(%s)", [context.epoch])


def revaluation(context: Context) -> None:
    """Let positions follow marks that have moved."""
    owed = None
    while owed != 0 and context.value("has_unfollowed"):  # who owes nothing found nothing to do
        (owed,) = context.connection.execute(
            "call risk_private.revalue_sparingly(0.5, null)"
        ).fetchone() or (0,)
        context.evaluate_soon()
        context.rest(owed)


def breaches(context: Context) -> None:
    """Count exceeded limits for the breakers on them, where there are too many to do it there."""
    if context.value("count_breaches"):
        context.evaluate_soon()


def views(context: Context) -> None:
    """Refresh the materialized views, without holding up their readers."""
    row = context.connection.execute("select risk_private.views_to_refresh()").fetchone()
    for name in row[0] if row else []:
        context.value("refresh_view", name)


def queues(context: Context) -> None:
    """Measure the queues, and archive what nobody came for."""
    rows = context.connection.execute(
        "select queue, length, coalesce(oldest_age, 0) from risk.queue_status"
    ).fetchall()
    for queue, length, age in rows:
        context.metrics.queue_length.labels(queue).set(length)
        context.metrics.queue_age.labels(queue).set(age)
    archived = context.value("bound_queues")
    if archived:
        context.log.warning("queue_bounded", archived=archived)


BACKGROUND = (
    (Job("cancels", 10, cancels, share=0.5),),
    (Job("revaluation", 10, revaluation, share=1),),
    (Job("breaches", 1, breaches, share=0.25),),
    (
        Job("lapsed_limits", 1, lapsed_limits),
        Job("warnings", 2, warnings, share=0.005),
        Job("day", 5, day, share=1),
        Job("queues", 10, queues),
        Job("reconciliation", 60, reconciliation, at_once=False),
        Job("views", 60, views, share=0.05, at_once=False),
    ),
)
"""Jobs that share a thread and a connection, and so may wait for each other. The leader wakes the
first two when there is something to do."""
