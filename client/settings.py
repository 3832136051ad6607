"""Where the engine's database and the cache are."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from pgrisk.client import embedded

DATABASE = "pgrisk"
"""The name of the engine's database on the embedded server."""


class SettingsError(Exception):
    """The settings do not lead to a database; the message says what to do."""


def default_data_dir() -> Path:
    """Where the embedded server lives unless told otherwise, by the XDG convention."""
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "pgrisk"


def real_server_url() -> str | None:
    """PGRISK_DATABASE_URL, which names a real server to be used instead of the embedded one.

    Raises SettingsError when it is malformed. The message leaves the value out: it may hold a
    password.
    """
    url = os.environ.get("PGRISK_DATABASE_URL")
    if not url:
        return None
    try:
        psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise SettingsError(
            "PGRISK_DATABASE_URL is malformed: it should be like postgresql://user@host:5432/name"
        ) from None
    return url


def cache_url() -> str | None:
    """PGRISK_REDIS_URL: the Redis or Valkey to cache limits in, or None to do without.

    Raises SettingsError when it is malformed. The message leaves the value out: it may hold a
    password.
    """
    url = os.environ.get("PGRISK_REDIS_URL")
    if not url:
        return None
    if not _is_cache_url(url):
        raise SettingsError(
            "PGRISK_REDIS_URL is malformed: it should be like redis://host:6379/0, "
            "rediss://user:password@host:6379/0 or unix:///path/to/socket"
        )
    return url


def _is_cache_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        place = parts.path if parts.scheme == "unix" else parts.hostname
        return parts.scheme in ("redis", "rediss", "unix") and bool(place) and parts.port != 0
    except ValueError:
        return False


def database_url(data_dir: Path | None = None) -> str:
    """The URL of the engine's database: PGRISK_DATABASE_URL, else the embedded server's.

    Raises SettingsError when neither is there.
    """
    url = real_server_url()
    if url:
        return url
    data_dir = data_dir or default_data_dir()
    server = embedded.find(data_dir)
    if server is None:
        raise SettingsError(
            f"no server runs in {data_dir}: start one with `pgrisk up`, "
            "or set PGRISK_DATABASE_URL to use another"
        )
    return server.url(DATABASE)
