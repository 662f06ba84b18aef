"""Lines are appended whole by several writers, and read back whole whatever a crash has left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cloudft.storage.append_log import LogReader, append_line, append_lines

WRITER = """
import sys
from pathlib import Path
from cloudft.storage.append_log import append_line
for number in range(150):
    append_line(Path(sys.argv[1]), f"{sys.argv[2]}-{number}-{'x' * 3000}".encode())
"""


def test_half_a_line_spoils_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append_line(path, b"one")
    with path.open("ab") as file:
        file.write(b'{"torn')
    append_line(path, b"two")
    assert path.read_bytes() == b'one\n{"torn\ntwo\n'
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_reader_gets_each_line_once_and_waits_for_the_end_of_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    reader = LogReader(path)
    assert list(reader.read_new_lines()) == []
    append_lines(path, [b"one", b"two"])
    assert list(reader.read_new_lines()) == [(0, b"one"), (4, b"two")]
    with path.open("ab") as file:
        file.write(b"thr")
    assert list(reader.read_new_lines()) == []
    with path.open("ab") as file:
        file.write(b"ee\n")
    assert list(reader.read_new_lines()) == [(8, b"three")]
    path.write_bytes(b"new\n")
    assert list(reader.read_new_lines()) == [(0, b"new")]


def test_a_line_longer_than_a_piece_is_read(tmp_path: Path) -> None:
    path, long = tmp_path / "log", b"x" * 3_000_000
    append_lines(path, [b"a", long, b"b"])
    assert [line for _, line in LogReader(path).read_new_lines()] == [b"a", long, b"b"]


def test_two_processes_lose_no_line_of_each_other(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), name], env=os.environ)
        for name in ("a", "b")
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    lines = [line for _, line in LogReader(path).read_new_lines()]
    assert {len(line) > 3000 for line in lines} == {True}
    for name in (b"a", b"b"):
        own = [line.split(b"-")[1] for line in lines if line.startswith(name)]
        assert own == [str(number).encode() for number in range(150)]
