"""Metrics and health over HTTP: /metrics, /healthz, /readyz."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgrisk.worker.metrics import Metrics

TURN_SECONDS = 10.0
"""A loop that has not turned for so long hangs."""
EVALUATION_SECONDS = 3.0
"""A leader whose last evaluation is older than this is of no use."""


@dataclass
class Status:
    """What the loop tells of itself; times are of the monotonic clock."""

    is_connected: bool = False
    epoch: int | None = None
    turned_at: float = 0.0
    evaluated_at: float = 0.0
    hears: bool = False

    def is_alive(self) -> bool:
        """Whether the loop turns, be it to connect again."""
        return time.monotonic() - self.turned_at < TURN_SECONDS

    def is_ready(self) -> bool:
        """Whether it evaluates breakers, or could take over at once."""
        evaluates = time.monotonic() - self.evaluated_at < EVALUATION_SECONDS
        return self.is_alive() and self.is_connected and (self.epoch is None or evaluates)

    def detail(self) -> dict[str, object]:
        """The answer to a probe, for people."""
        leads = self.epoch is not None
        now = time.monotonic()
        return {
            "connected": self.is_connected,
            "role": "leader" if leads else "stand-by",
            "epoch": self.epoch,
            "seconds_since_turn": round(now - self.turned_at, 3),
            "seconds_since_evaluation": round(now - self.evaluated_at, 3) if leads else None,
            "hears_notifications": self.hears,
        }


@contextmanager
def serve(host: str, port: int, status: Status, metrics: Metrics) -> Iterator[int]:
    """Answer requests on a thread while the block runs; gives the port, chosen when 0.

    Raises OSError when the port cannot be had.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, "text/plain; version=0.0.4; charset=utf-8", metrics.render())
            elif path in ("/healthz", "/readyz"):
                good = status.is_alive() if path == "/healthz" else status.is_ready()
                body = json.dumps({"ok": good, **status.detail()}).encode() + b"\n"
                self._answer(200 if good else 503, "application/json", body)
            else:
                self._answer(404, "text/plain", b"try /metrics, /healthz or /readyz\n")

        def _answer(self, code: int, content_type: str, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Probes come every few seconds: nothing to log."""

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, name="pgrisk-http", daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
