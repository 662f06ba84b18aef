"""The index of lines: any line of any file is the one that splitting the whole file gives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudft.data import record_index
from cloudft.data.record_index import FileChanged, RecordIndex

LINE = st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"")) | st.sampled_from(
    [b"", b"\r", b"x" * 300, b'{"text": "\\n"}', "日本".encode()]
)
FILES = st.builds(
    lambda lines, end, last: end.join(lines) + (end if last else b""),
    st.lists(LINE, max_size=30),
    st.sampled_from([b"\n", b"\r\n"]),
    st.booleans(),
)


def build(path: Path) -> RecordIndex:
    index = RecordIndex.of_file(path)
    with index.open() as handle:
        while not index.extend(handle):
            pass
    return index


def split(content: bytes) -> list[bytes]:
    """Return the lines of a file as the index must give them."""
    lines = content.split(b"\n")
    if lines[-1] == b"":
        ended, last = lines[:-1], []
    else:
        ended, last = lines[:-1], [lines[-1]]
    return [line.removesuffix(b"\r") for line in ended] + last


@settings(max_examples=150, deadline=None)
@given(
    content=FILES,
    step=st.sampled_from([1, 7, 16, 64]),
    pieces=st.integers(1, 3),
    first=st.integers(1, 32),
    count=st.integers(1, 32),
)
def test_any_lines_of_any_file(
    tmp_path_factory: pytest.TempPathFactory,
    content: bytes,
    step: int,
    pieces: int,
    first: int,
    count: int,
) -> None:
    path = tmp_path_factory.mktemp("index") / "any.jsonl"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record_index, "STEP_BYTES", step)
        index = RecordIndex.of_file(path)
        index.step = step
        with index.open() as handle:
            while not index.extend(handle, pieces):
                pass
        lines = index.read_lines(first, count, 1000)
    expected = split(content)
    assert index.line_count == len(expected)
    assert [line.raw for line in lines] == expected[first - 1 : first - 1 + count]
    assert [line.number for line in lines] == list(range(first, first + len(lines)))
    assert all(line.is_whole for line in lines)
    assert RecordIndex.from_bytes(index.to_bytes(), path) == index


def test_a_long_line_is_cut_and_the_next_one_found(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    long = b"x" * (3 * record_index.STEP_BYTES)
    path.write_bytes(long + b"\r\nshort\n")
    [first, second] = build(path).read_lines(1, 5, 100)
    assert (first.raw, first.size, first.is_whole) == (b"x" * 100, len(long), False)
    assert (second.raw, second.number, second.offset) == (b"short", 2, len(long) + 2)


def test_a_file_that_grows_is_indexed_on(tmp_path: Path) -> None:
    path = tmp_path / "grows.jsonl"
    path.write_bytes(b"1\n2")
    index = build(path)
    assert index.line_count == 2
    with path.open("ab") as file:
        file.write(b"2\n3\n")
    os.utime(path, ns=(1, 1))  # the time of its last change is another one, whatever the clock
    kept = RecordIndex.from_bytes(index.to_bytes(), path)
    for one in filter(None, (index, kept)):
        with one.open() as handle:
            assert one.extend(handle)
        assert one.line_count == 3
        assert [line.raw for line in one.read_lines(1, 9, 10)] == [b"1", b"22", b"3"]
    assert kept is not None


@pytest.mark.parametrize("change", ["edited", "replaced", "shorter", "rewritten longer"])
def test_another_file_is_noticed(tmp_path: Path, change: str) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes(b"".join(b"line %d\n" % n for n in range(1000)))
    index, before = build(path), path.stat()
    if change == "edited":  # of the same size
        with path.open("r+b") as file:
            file.write(b"LINE")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    elif change == "replaced":
        other = tmp_path / "other"
        other.write_bytes(path.read_bytes())
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.replace(path)
    elif change == "shorter":
        os.truncate(path, 100)
    else:
        path.write_bytes(b"".join(b"LINE %d\n" % n for n in range(2000)))
    with pytest.raises(FileChanged, match="replaced or changed"):
        index.read_lines(500, 1, 100)
    assert RecordIndex.from_bytes(index.to_bytes(), path) is None


def test_the_index_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_index, "STEP_BYTES", 64)
    monkeypatch.setattr(record_index, "MAX_ENTRIES", 20)
    path = tmp_path / "many.jsonl"
    path.write_bytes(b"".join(b"line %d\n" % n for n in range(5000)))
    index = build(path)
    index_of_last = index.read_lines(5000, 1, 100)
    assert len(index.numbers) <= 20
    assert [line.raw for line in index_of_last] == [b"line 4999"]


@pytest.mark.parametrize("damage", [b"", b"{}\n", b"no JSON", b'{"version": 99}\n'])
def test_a_damaged_index_is_built_again(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes(b"1\n2\n")
    assert RecordIndex.from_bytes(damage, path) is None
    assert RecordIndex.from_bytes(build(path).to_bytes()[:-1], path) is None
