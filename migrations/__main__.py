"""`python -m pgrisk.migrations freeze REVISION`: copy sql/ into an unreleased revision."""

from __future__ import annotations

import sys
from pathlib import Path

from pgrisk.sql import sources


def main(arguments: list[str], versions: Path) -> str | None:
    """Write the revision's frozen SQL; the message returned is an error."""
    match arguments:
        case ["freeze", revision] if (versions / f"{revision}.py").exists():
            text = "\n".join(f"-- {name}\n{text}" for name, text in sources().items())
            (versions / f"{revision}.sql").write_text(text)
            return None
        case ["freeze", revision]:
            return f"there is no revision {revision} in {versions}"
        case _:
            return "usage: python -m pgrisk.migrations freeze REVISION"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).parent / "versions"))
