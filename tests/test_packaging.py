"""The wheel holds every file of the packages, and works where there is no checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.databases import Database

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS: dict[str, str] = PYPROJECT["tool"]["setuptools"]["package-dir"]


def tracked_files() -> list[Path]:
    """The files of the next commit: what is committed or new, and not ignored."""
    answer = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    names = [Path(name) for name in answer.stdout.split("\0") if name]
    return [name for name in names if (ROOT / name).is_file() or (ROOT / name).is_symlink()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in a copy of the tracked files, so that no leftover of an earlier build gets in."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in tracked_files():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name, follow_symlinks=False)
    built = tmp_path_factory.mktemp("wheel")
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(built)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=checkout, check=True, capture_output=True)
    (found,) = built.glob("*.whl")
    return found


def test_the_wheel_holds_exactly_the_packages(wheel: Path) -> None:
    expected = {
        f"{package.replace('.', '/')}/{name.relative_to(folder).as_posix()}"
        for name in tracked_files()
        for package, folder in FOLDERS.items()
        if name.is_relative_to(folder) and name.suffix != ".md"
    }
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith("/0001_decision_engine.sql") for name in expected)


def test_every_package_is_typed() -> None:
    for folder in FOLDERS.values():
        assert (ROOT / folder / "py.typed").exists()


def test_the_wheel_works_outside_the_checkout(
    wheel: Path, tmp_path: Path, empty_db: Database
) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    script = "import pgrisk.cli.main as m; assert m.__file__.startswith({!r}), m.__file__; m.main()"
    answer = subprocess.run(
        [sys.executable, "-c", script.format(str(tmp_path)), "db", "migrate"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PGRISK_DATABASE_URL": empty_db.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    with empty_db.connect() as connection:
        row = connection.execute("select count(*) from risk.positions").fetchone()
    assert row == (0,)


def test_pins_are_exact_and_name_no_address() -> None:
    for file in ("runtime.txt", "dev.txt"):
        lines = (ROOT / "requirements" / file).read_text().splitlines()
        assert lines
        for line in lines:
            requirement = line.split(";")[0].strip()
            assert requirement.count("==") == 1, line
            assert "//" not in line


def test_development_pins_are_those_of_production() -> None:
    runtime, development = (
        set((ROOT / "requirements" / file).read_text().splitlines())
        for file in ("runtime.txt", "dev.txt")
    )
    assert runtime <= development


def test_every_direct_dependency_is_pinned() -> None:
    pinned = (ROOT / "requirements" / "runtime.txt").read_text()
    for requirement in PYPROJECT["project"]["dependencies"]:
        name = requirement.split(">")[0].split("[")[0]
        assert f"\n{name}==" in f"\n{pinned}"
