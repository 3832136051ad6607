"""The embedded server: what it offers, what it survives, and how it refuses."""

from __future__ import annotations

import json
import os
import pwd
import resource
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

from pgrisk.client import binaries, embedded
from tests.databases import FAST, TEST_MAJOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.conftest import DurableServer

OTHER_MAJOR = 16 if TEST_MAJOR == 18 else 18
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the account")


def start(
    data_dir: Path, port: int | None = None, settings: Mapping[str, str] = FAST
) -> embedded.Server:
    return embedded.start(
        data_dir, port, binaries=embedded.find_binaries(TEST_MAJOR), settings=settings
    )


def ask(server: embedded.Server, question: str) -> object:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        row = connection.execute(question.encode()).fetchone()
    assert row is not None
    return row[0]


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("data_checksums", "on"),
        ("server_encoding", "UTF8"),
        ("listen_addresses", "127.0.0.1"),
        ("password_encryption", "scram-sha-256"),
        ("TimeZone", "UTC"),
    ],
)
def test_a_server_is_durable_and_private_unless_told_otherwise(
    plain_server: embedded.Server, setting: str, value: str
) -> None:
    assert ask(plain_server, f"select current_setting('{setting}')") == value


@pytest.fixture(scope="module")
def plain_server() -> Iterator[embedded.Server]:
    with tempfile.TemporaryDirectory(prefix="pgrisk-") as folder:
        server = embedded.start(Path(folder, "data"), binaries=embedded.find_binaries(TEST_MAJOR))
        yield server
        server.stop()


def test_the_suite_runs_on_the_version_it_was_asked_for(server: embedded.Server) -> None:
    version = ask(server, "select current_setting('server_version_num')::int / 10000")
    assert version == TEST_MAJOR


def test_two_hundred_connections_fit(plain_server: embedded.Server) -> None:
    maximum = ask(plain_server, "select current_setting('max_connections')::int")
    assert isinstance(maximum, int)
    assert maximum >= 200


def test_text_sorts_by_code_point(plain_server: embedded.Server) -> None:
    assert ask(
        plain_server, "select array_agg(x order by x) from unnest('{b,A,a,B}'::text[]) x"
    ) == [
        "A",
        "B",
        "a",
        "b",
    ]


def test_the_socket_works_like_tcp(plain_server: embedded.Server) -> None:
    with psycopg.connect(
        host=str(plain_server.socket_dir),
        port=plain_server.port,
        user="postgres",
        password=plain_server.password,
        dbname="postgres",
    ) as connection:
        row = connection.execute("select inet_client_addr() is null").fetchone()
    assert row == (True,)


@pytest.mark.parametrize("host", ["tcp", "socket"])
def test_nobody_enters_without_the_password(plain_server: embedded.Server, host: str) -> None:
    address = "127.0.0.1" if host == "tcp" else str(plain_server.socket_dir)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(
            host=address,
            port=plain_server.port,
            user="postgres",
            password="wrong",
            dbname="postgres",
        )


def test_the_password_is_for_its_owner_alone(plain_server: embedded.Server) -> None:
    file = plain_server.data_dir / "password"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert plain_server.password == file.read_text()
    assert len(plain_server.password) >= 32
    assert plain_server.password not in repr(plain_server)
    postmaster = psutil.Process(plain_server.pid)
    for process in (postmaster, *postmaster.children()):
        assert plain_server.password not in " ".join(process.cmdline())


def test_starting_again_finds_the_running_server(data_dir: Path) -> None:
    server = start(data_dir)
    assert start(data_dir) == server
    assert embedded.find(data_dir) == server


def test_simultaneous_starts_find_one_server(data_dir: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        servers = set(pool.map(lambda _: start(data_dir), range(4)))
    assert len(servers) == 1


def test_data_port_and_password_outlive_a_stop(data_dir: Path) -> None:
    first = start(data_dir)
    ask(first, "select lo_from_bytea(4711, 'kept')")
    first.stop()
    assert not first.is_running()
    assert embedded.find(data_dir) is None
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(first.url())
    again = start(data_dir)
    assert ask(again, "select lo_get(4711)") == b"kept"
    assert again.url("a/b c") == first.url("a/b c")
    assert again.url("a/b c").endswith("/a%2Fb%20c")


def test_stopping_twice_is_no_error(data_dir: Path) -> None:
    server = start(data_dir)
    server.stop("immediate")
    server.stop()
    assert not server.is_running()


def test_a_stop_leaves_a_later_server_alone(data_dir: Path) -> None:
    first = start(data_dir)
    first.stop()
    second = start(data_dir)
    first.stop()
    assert second.is_running()


def test_committed_work_survives_kill_9(durable_server: Callable[..., DurableServer]) -> None:
    durable = durable_server()
    ask(durable.server, "select lo_from_bytea(4711, 'kept')")
    durable.kill()
    assert not durable.server.is_running()
    assert ask(durable.start(), "select lo_get(4711)") == b"kept"


def test_a_stale_pid_of_another_process_does_not_matter(data_dir: Path) -> None:
    server = start(data_dir)
    cluster = server.socket_dir
    owner = cluster.stat()
    pid_file = (cluster / "postmaster.pid").read_text()
    server.stop()
    other = subprocess.Popen(
        ["sleep", "600"],
        user=owner.st_uid if os.geteuid() == 0 else None,
        extra_groups=[] if os.geteuid() == 0 else None,
    )
    try:
        _, *rest = pid_file.splitlines()
        stale = cluster / "postmaster.pid"
        stale.write_text("\n".join([str(other.pid), *rest]) + "\n")
        os.chown(stale, owner.st_uid, owner.st_gid)
        assert embedded.find(data_dir) is None
        assert start(data_dir).is_running()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("content", ["", "not a number\n", "1\n", "4194303\n/nowhere\n"])
def test_a_damaged_pid_file_does_not_matter(data_dir: Path, content: str) -> None:
    server = start(data_dir)
    server.stop()
    damaged = server.socket_dir / "postmaster.pid"
    damaged.write_text(content)
    owner = server.socket_dir.stat()
    os.chown(damaged, owner.st_uid, owner.st_gid)
    assert ask(start(data_dir), "select 1") == 1


def test_an_interrupted_first_start_does_not_matter(data_dir: Path) -> None:
    unfinished = data_dir / "postgresql.new"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    assert ask(start(data_dir), "select 1") == 1
    assert not unfinished.exists()


def test_a_port_can_be_chosen_and_is_remembered(data_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = start(data_dir, port)
    assert server.port == port
    server.stop()
    assert start(data_dir).port == port


def test_a_taken_port_is_refused(data_dir: Path, taken_port: int) -> None:
    with pytest.raises(embedded.EmbeddedServerError, match=f"port {taken_port} is taken"):
        start(data_dir, taken_port)
    assert ask(start(data_dir), "select 1") == 1


def test_another_port_is_refused_while_the_server_runs(data_dir: Path) -> None:
    server = start(data_dir)
    with pytest.raises(embedded.EmbeddedServerError, match=f"already runs on port {server.port}"):
        start(data_dir, server.port + 1)


def test_a_directory_with_other_files_is_left_alone(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "thesis.txt").write_text("mine")
    with pytest.raises(embedded.EmbeddedServerError, match="holds other files"):
        start(data_dir)
    assert [entry.name for entry in data_dir.iterdir()] == ["thesis.txt"]


def test_a_file_is_no_directory(data_dir: Path) -> None:
    data_dir.write_text("mine")
    with pytest.raises(embedded.EmbeddedServerError, match=r"cannot be written: File exists"):
        start(data_dir)


def test_another_major_version_is_refused(data_dir: Path) -> None:
    start(data_dir).stop()
    with pytest.raises(
        embedded.EmbeddedServerError,
        match=f"is of PostgreSQL {TEST_MAJOR}, but PostgreSQL {OTHER_MAJOR} was found",
    ):
        embedded.start(data_dir, binaries=embedded.find_binaries(OTHER_MAJOR))


def test_a_setting_the_server_refuses_is_named(data_dir: Path) -> None:
    with pytest.raises(embedded.EmbeddedServerError, match=r"did not start: .*work_mem"):
        start(data_dir, settings={"work_mem": "much"})


def test_settings_reach_the_server_whatever_they_hold(data_dir: Path) -> None:
    server = start(data_dir, settings={"pgrisk.note": 'it\'s $HOME; `true` & "more"'})
    assert ask(server, "select current_setting('pgrisk.note')") == 'it\'s $HOME; `true` & "more"'


def test_orphans_of_a_killed_server_are_waited_for(data_dir: Path) -> None:
    server = start(data_dir)
    log = server.socket_dir / "server.log"
    with psycopg.connect(server.url()) as connection:
        orphan = psutil.Process(connection.info.backend_pid)
        orphan.suspend()
        postmaster = psutil.Process(server.pid)
        postmaster.kill()
        postmaster.wait(60)  # until then it counts as running
        with ThreadPoolExecutor(1) as pool:
            again = pool.submit(start, data_dir)
            deadline = time.monotonic() + 60
            while "pre-existing shared memory block" not in log.read_text():
                assert time.monotonic() < deadline
                time.sleep(0.02)
            orphan.kill()
            assert again.result().is_running()


def test_a_server_that_is_neither_up_nor_down_is_reported(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid_file = start(data_dir).socket_dir / "postmaster.pid"
    up = pid_file.read_text()
    pid_file.write_text(up.replace("ready", "stopping"))
    assert embedded.find(data_dir) is None
    monkeypatch.setattr(embedded, "START_SECONDS", 0)
    with pytest.raises(embedded.EmbeddedServerError, match="neither up nor down after 0 s"):
        start(data_dir)
    pid_file.write_text(up)


def test_a_smart_stop_waits_for_clients(data_dir: Path) -> None:
    server = start(data_dir)
    with (
        psycopg.connect(server.url()),
        pytest.raises(embedded.EmbeddedServerError, match=r"did not stop within 0\.1 s"),
    ):
        server.stop("smart", timeout=0.1)
    server.stop("smart")
    assert not server.is_running()


def test_a_failed_first_start_leaves_no_half_made_cluster(data_dir: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(embedded.EmbeddedServerError, match="initdb failed in"):
            start(data_dir)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ask(start(data_dir), "select 1") == 1


# Which programs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("major", [16, 18])
def test_the_wanted_major_version_is_found(major: int) -> None:
    assert binaries.major_version(embedded.find_binaries(major)) == major


def test_the_newest_packaged_version_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGRISK_PG_BIN", raising=False)
    assert binaries.major_version(embedded.find_binaries()) == 18


def test_named_programs_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    named = embedded.find_binaries(16)
    monkeypatch.setenv("PGRISK_PG_BIN", str(named))
    assert embedded.find_binaries() == named
    assert binaries.major_version(embedded.find_binaries(18)) == 18


def test_named_programs_must_be_postgresql(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> None:
    monkeypatch.setenv("PGRISK_PG_BIN", str(data_dir))
    with pytest.raises(
        embedded.EmbeddedServerError, match=r"PGRISK_PG_BIN=.* is not the bin folder"
    ):
        embedded.find_binaries()
    with pytest.raises(embedded.EmbeddedServerError, match="holds no PostgreSQL"):
        embedded.start(data_dir, binaries=data_dir)


def test_a_missing_version_is_explained() -> None:
    with pytest.raises(embedded.EmbeddedServerError, match="no PostgreSQL 9 was found: install"):
        embedded.find_binaries(9)


# Accounts -----------------------------------------------------------------------------------------

AS_NOBODY = """
import json, os, sys
from pathlib import Path
from pgrisk.client import embedded
import psycopg
uid, gid, data_dir, binaries = json.loads(sys.argv[1])
os.setgroups([])
os.setresgid(gid, gid, 0)
os.setresuid(uid, uid, 0)
try:
    server = embedded.start(Path(data_dir), binaries=Path(binaries))
    with psycopg.connect(server.url()) as connection:
        print(connection.execute("select 40 + 2").fetchone()[0])
    server.stop()
except embedded.EmbeddedServerError as error:
    print(error)
finally:
    os.setresuid(0, 0, 0)  # so that coverage can be saved
"""


def as_nobody(data_dir: Path, programs: Path) -> str:
    nobody = pwd.getpwnam("nobody")
    arguments = [nobody.pw_uid, nobody.pw_gid, str(data_dir), str(programs)]
    answer = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, json.dumps(arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return answer.stdout.strip()


@pytest.fixture
def open_dir(data_dir: Path) -> Path:
    """A directory that everybody may write to."""
    data_dir.parent.chmod(0o755)
    data_dir.mkdir()
    data_dir.chmod(0o777)
    return data_dir


@pytest.fixture
def open_programs(open_dir: Path) -> Path:
    """The programs where everybody can reach them, wherever this checkout is."""
    nobody = pwd.getpwnam("nobody")
    return binaries.reachable_binaries(embedded.find_binaries(TEST_MAJOR), nobody)


@as_root
def test_an_ordinary_user_has_a_server(open_dir: Path, open_programs: Path) -> None:
    assert as_nobody(open_dir, open_programs) == "42"
    assert (open_dir / "postgresql").owner() == "nobody"


@as_root
def test_root_serves_the_directory_of_an_ordinary_user(open_dir: Path, open_programs: Path) -> None:
    assert as_nobody(open_dir, open_programs) == "42"
    assert ask(start(open_dir), "select 1") == 1


@as_root
def test_a_directory_of_another_user_is_refused(open_dir: Path, open_programs: Path) -> None:
    start(open_dir).stop()
    shutil.chown(open_dir / "postgresql", "daemon")
    (open_dir / "lock").chmod(0o666)
    assert as_nobody(open_dir, open_programs) == f"{open_dir} belongs to another user"


@as_root
def test_a_directory_that_cannot_be_written_is_refused(open_dir: Path, open_programs: Path) -> None:
    open_dir.chmod(0o755)
    assert "cannot be written: Permission denied" in as_nobody(open_dir, open_programs)


@as_root
def test_a_password_of_another_user_is_refused(open_dir: Path, open_programs: Path) -> None:
    (open_dir / "password").write_text("secret")
    (open_dir / "password").chmod(0o600)
    answer = as_nobody(open_dir, open_programs)
    assert answer == f"{open_dir / 'password'} belongs to another user"


@as_root
def test_a_system_without_nobody_is_told_so(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_account(name: str) -> pwd.struct_passwd:
        raise KeyError(name)

    monkeypatch.setattr(pwd, "getpwnam", no_account)
    with pytest.raises(embedded.EmbeddedServerError, match="run as an ordinary user"):
        start(data_dir)


@as_root
def test_root_may_use_a_directory_closed_to_others(data_dir: Path) -> None:
    assert stat.S_IMODE(data_dir.parent.stat().st_mode) == 0o700
    server = start(data_dir)
    assert psutil.Process(server.pid).username() == "nobody"
    assert start(data_dir) == server
    server.stop()
    assert ask(start(data_dir), "select 1") == 1


@pytest.fixture
def closed_programs(data_dir: Path) -> Path:
    """The programs in a folder closed to others, laid out as a wheel has them."""
    prefix = embedded.find_binaries(TEST_MAJOR).parent
    package = prefix.parent
    closed = data_dir.parent / "closed"
    shutil.copytree(prefix, closed / package.name / prefix.name, symlinks=True)
    libraries = package.with_name(package.name + ".libs")
    if libraries.exists():
        shutil.copytree(libraries, closed / libraries.name, symlinks=True)
    return closed / package.name / prefix.name / "bin"


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pgrisk-") as folder:
        Path(folder).chmod(0o755)
        monkeypatch.setattr(binaries, "_COPIES", Path(folder) / "copies")
        yield Path(folder) / "copies"


def test_programs_closed_to_others_are_copied_once(closed_programs: Path, copies: Path) -> None:
    other = pwd.getpwnam("daemon")
    assert not binaries.can_reach(other, closed_programs)
    with ThreadPoolExecutor(2) as pool:
        found = set(
            pool.map(
                lambda programs: binaries.reachable_binaries(programs, other), [closed_programs] * 2
            )
        )
    (copied,) = found
    assert copied.is_relative_to(copies)
    assert binaries.can_reach(other, copied / "postgres")
    assert binaries.major_version(copied) == TEST_MAJOR
    assert binaries.reachable_binaries(copied, other) == copied
    assert len(list(copies.iterdir())) == 1


def test_programs_that_cannot_be_copied_are_reported(
    closed_programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "_COPIES", closed_programs / "postgres")
    with pytest.raises(embedded.EmbeddedServerError, match=r"cannot reach .* and a copy in"):
        binaries.reachable_binaries(closed_programs, pwd.getpwnam("daemon"))


def test_one_s_own_files_can_be_reached_by_oneself(data_dir: Path) -> None:
    account = pwd.getpwuid(os.geteuid())
    data_dir.mkdir(mode=0o100)
    assert binaries.can_reach(account, data_dir)
    data_dir.chmod(0o011)
    assert not binaries.can_reach(account, data_dir)
    data_dir.chmod(0o700)


@as_root
def test_root_serves_with_copied_programs(
    data_dir: Path, closed_programs: Path, copies: Path
) -> None:
    server = embedded.start(data_dir, binaries=closed_programs, settings=FAST)
    assert ask(server, "select 1") == 1
    assert Path(psutil.Process(server.pid).exe()).is_relative_to(copies)
