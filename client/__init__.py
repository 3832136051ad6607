"""What Python callers of the engine share."""

from __future__ import annotations
