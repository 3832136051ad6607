"""What the worker counts, for Prometheus. The names are documented in docs/operations.md."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """One worker's metrics, in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        self.leader = Gauge(
            "pgrisk_worker_leader", "1 while this worker leads, else 0.", registry=registry
        )
        self.epoch = Gauge(
            "pgrisk_worker_epoch", "Epoch of its lease, the last one it had.", registry=registry
        )
        self.connected = Gauge(
            "pgrisk_worker_connected", "1 while it is connected, else 0.", registry=registry
        )
        self.reconnects = Counter(
            "pgrisk_worker_connections_lost", "Sessions that ended in an error.", registry=registry
        )
        self.evaluations = Counter(
            "pgrisk_worker_evaluations", "Evaluations of all breakers.", registry=registry
        )
        self.evaluation_seconds = Histogram(
            "pgrisk_worker_evaluation_seconds",
            "Time that one took.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.last_evaluation = Gauge(
            "pgrisk_worker_last_evaluation_timestamp_seconds",
            "When the last one ended, in Unix time.",
            registry=registry,
        )
        self.trips = Counter(
            "pgrisk_worker_breakers_tripped",
            "Breakers that its evaluations tripped.",
            registry=registry,
        )
        self.events = Counter(
            "pgrisk_worker_events",
            "Messages of risk_events: handled, raised (and to be tried again) or buried.",
            ["kind", "outcome"],
            registry=registry,
        )
        self.jobs = Counter(
            "pgrisk_worker_jobs",
            "Runs of background jobs: done or failed.",
            ["job", "outcome"],
            registry=registry,
        )
        self.job_seconds = Counter(
            "pgrisk_worker_job_seconds",
            "Time that background jobs took.",
            ["job"],
            registry=registry,
        )
        self.queue_length = Gauge(
            "pgrisk_queue_length",
            "Messages in a queue, as the leader saw it.",
            ["queue"],
            registry=registry,
        )
        self.queue_age = Gauge(
            "pgrisk_queue_oldest_age_seconds",
            "Age of its oldest message, 0 for none.",
            ["queue"],
            registry=registry,
        )

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)
