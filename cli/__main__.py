"""`python -m pgrisk.cli`."""

from __future__ import annotations

from pgrisk.cli.main import main

main(prog_name="pgrisk")
