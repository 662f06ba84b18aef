"""An unusable home is an error with its remedy, never a home without jobs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudft.errors import StoreError
from cloudft.storage.home import Home


def a_file(folder: Path) -> Path:
    (folder / "file").write_text("mine")
    return folder / "file"


def below_a_file(folder: Path) -> Path:
    return a_file(folder) / "home"


def a_dangling_link(folder: Path) -> Path:
    (folder / "link").symlink_to(folder / "unmounted")
    return folder / "link"


def below_a_dangling_link(folder: Path) -> Path:
    return a_dangling_link(folder) / "home"


def a_loop(folder: Path) -> Path:
    (folder / "loop").symlink_to(folder / "loop")
    return folder / "loop"


def too_long(folder: Path) -> Path:
    return folder / ("x" * 5000)


def relative(_: Path) -> Path:
    return Path("home")


def of_nobody(_: Path) -> Path:
    return Path("~nobody-of-this-name/home")


BAD = [
    (a_file, "is a file, not a folder"),
    (below_a_file, "is a file, not a folder"),
    (a_dangling_link, "is a link to a missing file"),
    (below_a_dangling_link, "is a link to a missing file"),
    (a_loop, "too many levels of symbolic links"),
    (too_long, "file name too long"),
    (relative, "a relative path depends on the folder"),
    (of_nobody, "there is no such user"),
]


@pytest.mark.parametrize("variable", ["CLOUDFT_HOME", "CLOUDFT_MODEL_CACHE"])
@pytest.mark.parametrize(("bad", "why"), BAD, ids=lambda value: getattr(value, "__name__", ""))
def test_a_damaged_home_is_one_clear_error(
    tmp_path: Path, bad: Callable[[Path], Path], why: str, variable: str
) -> None:
    environ = {"CLOUDFT_HOME": str(tmp_path / "home")} | {variable: str(bad(tmp_path))}
    with pytest.raises(StoreError) as refused:
        Home.from_environ(environ)
    assert why in refused.value.message and refused.value.message.startswith(f"{variable} can't")
    assert f"set {variable} to a folder" in str(refused.value.fix)
    assert refused.value.exit_code == 1


def test_a_home_that_may_not_be_read_is_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # for root there is no such folder
    with pytest.raises(StoreError, match="you may not read"):
        Home.from_environ({"CLOUDFT_HOME": str(tmp_path / "home")})


def test_what_may_be_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Home.from_environ({"CLOUDFT_HOME": "~/jobs"}).path == tmp_path / "jobs"
    assert Home.from_environ({"CLOUDFT_HOME": ""}).path == tmp_path / ".cloudft"
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    assert Home.from_environ({"CLOUDFT_HOME": str(tmp_path / "link")}).path == tmp_path / "link"
    home = Home.from_environ({"CLOUDFT_MODEL_CACHE": "~/models"})
    assert home.models == tmp_path / "models"
