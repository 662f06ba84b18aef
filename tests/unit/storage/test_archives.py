"""Untrusted archives give plain files within limits, or nothing."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from cloudft.data.sources import byte_repair
from cloudft.data.sources.repair import JsonRepair
from cloudft.storage import archives
from cloudft.storage.archives import ArchiveLimits, BadArchive, unpack_tar_gz

LOW = ArchiveLimits(members=3, ratio=10, slack=100_000)


def member(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.size, made.type = size, kind
    return made


def packed(*members: tarfile.TarInfo, contents: Mapping[str, bytes] | None = None) -> io.BytesIO:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for one in members:
            content = (contents or {}).get(one.name, b"")
            one.size = len(content)
            archive.addfile(one, io.BytesIO(content))
    raw.seek(0)
    return raw


def test_plain_files_and_folders_come_out(tmp_path: Path) -> None:
    stream = packed(
        member("./", kind=tarfile.DIRTYPE),
        member("./a/b.txt"),
        member(f"{'long/' * 30}c"),
        contents={"./a/b.txt": b"text"},
    )
    unpack_tar_gz(stream, tmp_path, LOW)
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"text"
    assert (tmp_path / ("long/" * 30) / "c").read_bytes() == b""


BAD: dict[str, tuple[Callable[[], io.BytesIO], str]] = {
    "above": (lambda: packed(member("../x")), "a name outside its folder"),
    "absolute": (lambda: packed(member("/x")), "a name outside its folder"),
    "a link": (lambda: packed(member("x", kind=tarfile.SYMTYPE)), "no plain file"),
    "a hard link": (lambda: packed(member("x", kind=tarfile.LNKTYPE)), "no plain file"),
    "a device": (lambda: packed(member("x", kind=tarfile.CHRTYPE)), "no plain file"),
    "twice": (lambda: packed(member("x"), member("x")), "'x' twice"),
    "a file and a folder": (lambda: packed(member("x"), member("x/y")), "twice"),
    "many": (lambda: packed(*[member(str(n)) for n in range(4)]), "more than 3 files"),
    "large": (
        lambda: packed(member("x"), contents={"x": bytes(200_000)}),
        "more than 10 times its size",
    ),
    "a long name": (lambda: packed(member("n" * 70_000)), "a name that is too long"),
    "cut off": (
        lambda: io.BytesIO(packed(member("x"), contents={"x": bytes(9999)}).read()[:60]),
        "ended before",
    ),
    "damaged": (lambda: io.BytesIO(b"\x1f\x8bnothing of the kind"), "compression method"),
    "not packed": (lambda: io.BytesIO(b"plain text"), "Not a gzipped file"),
    "no tar": (lambda: io.BytesIO(gzip.compress(b"text" * 200)), "invalid header|bad checksum"),
}


@pytest.mark.parametrize("name", BAD)
def test_anything_else_is_refused(tmp_path: Path, name: str) -> None:
    make, why = BAD[name]
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(BadArchive, match=why):
        unpack_tar_gz(make(), folder, LOW)
    assert [p for p in tmp_path.rglob("*") if p.is_symlink()] == []
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    assert sum(p.stat().st_size for p in folder.rglob("*")) < 200_000


def test_weights_may_be_as_large_as_they_are() -> None:
    assert archives.DEFAULT_LIMITS.max_unpacked_bytes(30 * 2**30) > 1000 * 2**30


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_packed_records_are_bounded_too(
    monkeypatch: pytest.MonkeyPatch, pack: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setattr(byte_repair, "DEFAULT_LIMITS", ArchiveLimits(ratio=100, slack=1_000_000))
    few = pack(b'{"prompt": "a", "completion": "b"}\n' * 20_000)
    assert sum(len(line.records) for line in JsonRepair().read(io.BytesIO(few))) == 20_000
    much = pack(b'{"prompt": "a", "completion": "b"}\n' * 100_000)
    with pytest.raises(BadArchive, match="more than 100 times its size"):
        for _ in JsonRepair().read(io.BytesIO(much)):
            pass
