"""The worker: evaluates circuit breakers and keeps the engine's promises of time."""

from __future__ import annotations
