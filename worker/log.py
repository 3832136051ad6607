"""One JSON line on standard output for each event worth a line."""

from __future__ import annotations

import sys
from typing import cast

import structlog


def create_log(holder: str) -> structlog.stdlib.BoundLogger:
    """A logger of its own, with no global settings behind it."""
    return cast(
        "structlog.stdlib.BoundLogger",
        structlog.wrap_logger(
            structlog.PrintLogger(sys.stdout),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(default=str),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(0),
            context_class=dict,
            worker=holder,
        ),
    )
