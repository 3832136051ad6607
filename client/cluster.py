"""The cluster behind the embedded server: its files, the account and the process that serve it."""

from __future__ import annotations

import os
import pwd
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import psutil

from pgrisk.client.binaries import (
    EmbeddedServerError,
    can_reach,
    major_version,
    reachable_binaries,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SUPERUSER = "postgres"
START_SECONDS = 120

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": ".",  # the cluster's own directory, which nobody else may enter
    "max_connections": "300",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}
_OUR_FILES = {"lock", "password", "port", "postgresql", "postgresql.new"}
_MARKER = "pgrisk.data_dir"
_NEVER_A_PID = "2147483647"


@dataclass(frozen=True)
class Postmaster:
    """What `postmaster.pid` says of a server process that was seen to be alive."""

    pid: int
    port: int
    is_ready: bool


class Cluster:
    """The PostgreSQL cluster of one data directory of ours, whether it exists yet or not."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.path = data_dir / "postgresql"
        self._pid_file = self.path / "postmaster.pid"

    def exists(self) -> bool:
        return self.path.exists()

    def postmaster(self) -> Postmaster | None:
        """The process that serves this cluster now.

        The process id alone proves nothing: after a crash another process may have got it. So the
        server carries the directory on its command line.
        """
        try:
            lines = self._pid_file.read_text().splitlines()
            pid = int(lines[0])
            marked = any(
                word == f"--{_MARKER}={self.data_dir}" for word in psutil.Process(pid).cmdline()
            )
        except (OSError, ValueError, IndexError, psutil.Error):
            return None
        if not marked:
            return None
        is_ready = len(lines) >= 8 and lines[7].strip() == "ready"
        return Postmaster(pid, int(lines[3]) if is_ready else 0, is_ready)

    def password(self) -> str:
        """The superuser's password; made, readable by its owner alone, when there is none yet."""
        file = self.data_dir / "password"
        try:
            if not file.exists():
                descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "w") as new:
                    new.write(secrets.token_urlsafe(24))
            return file.read_text()
        except PermissionError as error:
            raise EmbeddedServerError(f"{file} belongs to another user") from error

    def require_ours(self) -> None:
        """Raises EmbeddedServerError for a directory that holds something else."""
        if not self.exists() and {entry.name for entry in self.data_dir.iterdir()} - _OUR_FILES:
            raise EmbeddedServerError(
                f"{self.data_dir} holds other files: choose an empty directory or a new one"
            )

    def server_account(self) -> pwd.struct_passwd | None:
        """The account the server must run as when it is not our own, because we are root."""
        owner = self.path.stat().st_uid if self.exists() else None
        if os.geteuid() != 0:
            if owner not in (None, os.geteuid()):
                raise EmbeddedServerError(f"{self.data_dir} belongs to another user")
            return None
        try:
            return pwd.getpwuid(owner) if owner else pwd.getpwnam("nobody")
        except KeyError as error:
            raise EmbeddedServerError(
                "PostgreSQL does not run as root, and this system has no account for it: "
                "run as an ordinary user"
            ) from error

    def disarm_stale_locks(self) -> None:
        """Lets the server start although another process has the pid that a crash left behind.

        The files stay: one also names the shared memory by which the server sees whether orphans
        of the crash still write to the cluster.
        """
        for lock in (*self.path.glob("postmaster.pid"), *self.path.glob(".s.PGSQL.*.lock")):
            _, *rest = lock.read_text().splitlines() or [""]
            lock.write_text("\n".join([_NEVER_A_PID, *rest]) + "\n")


class Launcher:
    """Runs PostgreSQL's programs on a cluster, as the account that must own it."""

    def __init__(self, cluster: Cluster, binaries: Path) -> None:
        self._cluster = cluster
        self._account = cluster.server_account()
        self._major = major_version(binaries)
        self._binaries = reachable_binaries(binaries, self._account) if self._account else binaries

    def initialise(self, sync: bool) -> None:
        """Makes the cluster under another name first: one that is half made is never started."""
        unfinished = self._cluster.data_dir / "postgresql.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if self._account:
            os.chown(unfinished, self._account.pw_uid, self._account.pw_gid)
        locale = ["--locale=C"]
        if self._major >= 17:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        settings = [f"--set={name}={value}" for name, value in _SETTINGS.items()]
        with tempfile.TemporaryFile() as password:
            password.write(self._cluster.password().encode())
            password.seek(0)
            if self._account:
                os.fchown(password.fileno(), self._account.pw_uid, self._account.pw_gid)
            answer = self._run(
                unfinished,
                ["initdb", "-D", self._name_for_account(unfinished), f"--username={SUPERUSER}"],
                ["--auth=scram-sha-256", "--pwfile=/dev/stdin", "--encoding=UTF8"],
                ["--data-checksums", "--no-instructions", *locale, *settings],
                [] if sync else ["--no-sync"],
                stdin=password,
                stderr=subprocess.PIPE,
            )
        if answer.returncode != 0:
            reason = answer.stderr.decode(errors="replace").strip().splitlines() or ["no reason"]
            raise EmbeddedServerError(f"initdb failed in {self._cluster.data_dir}: {reason[0]}")
        unfinished.rename(self._cluster.path)

    def require_version(self) -> None:
        made_by = int((self._cluster.path / "PG_VERSION").read_text())
        if made_by != self._major:
            raise EmbeddedServerError(
                f"{self._cluster.data_dir} is of PostgreSQL {made_by}, but PostgreSQL "
                f"{self._major} was found: set PGRISK_PG_BIN to the bin folder of "
                f"PostgreSQL {made_by}, or choose another directory"
            )

    def launch(self, settings: Mapping[str, str]) -> None:
        """Starts the server and waits until it accepts connections."""
        deadline = time.monotonic() + START_SECONDS
        self._cluster.disarm_stale_locks()
        while reason := self._try_launch(settings):
            orphans = "shared memory block" in reason
            if not orphans or time.monotonic() > deadline:
                log = self._cluster.path / "server.log"
                raise EmbeddedServerError(f"PostgreSQL did not start: {reason} (see {log})")
            time.sleep(0.1)  # processes of a killed server are about to notice and leave

    def _try_launch(self, settings: Mapping[str, str]) -> str | None:
        """None when the server is up, else why not."""
        options = {**settings, _MARKER: str(self._cluster.data_dir)}
        arguments = shlex.join(f"--{name}={value}" for name, value in options.items())
        log = self._cluster.path / "server.log"
        written = log.stat().st_size if log.exists() else 0
        answer = self._run(
            self._cluster.path,
            ["pg_ctl", "start", "-D", self._name_for_account(self._cluster.path)],
            ["--log=server.log", "--silent", f"--timeout={START_SECONDS}", "-o", arguments],
        )
        if answer.returncode == 0:
            return None
        with log.open("rb") as file:
            file.seek(written)
            lines = file.read().decode(errors="replace").splitlines()
        reasons = [line.split(":  ", 1)[-1] for line in lines if "FATAL:" in line]
        return reasons[-1] if reasons else f"no answer within {START_SECONDS} s"

    def _name_for_account(self, directory: Path) -> str:
        """`directory`, or a name for it that also works below a folder closed to the account.

        Every program starts in that directory, and the server never leaves it.
        """
        if not self._account or can_reach(self._account, directory):
            return str(directory)
        if sys.platform == "linux":
            return "/proc/self/cwd"
        raise EmbeddedServerError(
            f"the account {self._account.pw_name} cannot reach {directory.parent}: "
            "choose a directory that others may enter, or run as an ordinary user"
        )

    def _run(
        self,
        directory: Path,
        *arguments: list[str],
        stdin: int | IO[bytes] = subprocess.DEVNULL,
        stderr: int = subprocess.DEVNULL,
    ) -> subprocess.CompletedProcess[bytes]:
        program, *rest = [word for group in arguments for word in group]
        return subprocess.run(
            [self._binaries / program, *rest],
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            cwd=directory,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            umask=0o077,
            user=self._account.pw_uid if self._account else None,
            group=self._account.pw_gid if self._account else None,
            extra_groups=[] if self._account else None,
            check=False,
        )
