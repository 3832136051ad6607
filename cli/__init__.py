"""The `pgrisk` command."""

from __future__ import annotations
