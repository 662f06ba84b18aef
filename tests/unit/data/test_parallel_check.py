"""A large file on several cores: the same answer as in one go, whatever is in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloudft.data.checks import parallel_check
from cloudft.data.checks.check import DataReport, check_data
from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.spec.model import DataSpec

PAIR = b'{"prompt": "Where is it?", "completion": "shipping"}\n'
OTHER = b'{"input": "Where is it?", "output": "shipping"}\n'
TEXT, BLOCKS = (
    json.dumps({"messages": [{"role": "user", "content": c}, {"role": "assistant", "content": c}]})
    for c in ("a", [{"type": "text", "text": "a"}])
)
FILES = {
    "plain": PAIR * 3000 + PAIR.replace(b"Where", b"When"),
    "no newline at the end": (PAIR * 3000)[:-1],
    "all the same": PAIR * 3000,
    "a fault at the end": PAIR * 3000 + b'{"prompt": ""\n',
    "a fault in each half": PAIR + b"\n" + PAIR * 3000 + b'{"prompt": ""}\n',
    "two shapes, one a half": PAIR * 1500 + OTHER * 1600,
    "Windows in the second half": PAIR * 2000 + PAIR.replace(b"\n", b"\r\n") * 100,
    "chats": (TEXT.encode() + b"\n") * 3000,
    "chats of two types": (TEXT.encode() + b"\n") * 1500 + (BLOCKS.encode() + b"\n") * 900,
    "an array in the second half": PAIR * 2000 + b"[1]\n" + PAIR * 1999,
}


def look(folder: Path, told: list[int] | None = None) -> DataReport:
    data = DataSpec.model_validate({"train": "a.jsonl", "validation": 0.1})
    progress = told.append if told is not None else None
    return check_data(
        data, format="converse", base_dir=folder, progress=progress, limits=DatasetLimits()
    )


@pytest.mark.parametrize("name", FILES)
def test_it_says_what_one_process_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "a.jsonl").write_bytes(FILES[name])
    alone = look(tmp_path)
    started = []
    check = parallel_check.count_in_parallel
    monkeypatch.setattr(parallel_check, "MIN_PART_BYTES", 50_000)
    monkeypatch.setattr(parallel_check, "count_cores", lambda: 2)
    monkeypatch.setattr(
        parallel_check, "count_in_parallel", lambda *a: started.append(check(*a)) or started[-1]
    )
    told: list[int] = []
    assert look(tmp_path, told) == alone
    flawless = name in ("plain", "no newline at the end", "all the same", "chats")
    assert [whole is not None for whole in started] == [flawless]
    assert told == sorted(told) or not flawless
    if alone.volumes:
        assert told[-1] == sum(v.records for v in alone.volumes.values())


def test_parts_are_whole_lines_and_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloudft.data.findings import Findings
    from cloudft.data.sources.source_files import SourceResolver

    monkeypatch.setattr(parallel_check, "MIN_PART_BYTES", 10)
    raw = b"".join(b"x" * (n % 97) + b"\n" for n in range(500))
    (tmp_path / "a.jsonl").write_bytes(raw)
    [source] = SourceResolver(tmp_path, Findings()).resolve("", ["a.jsonl"])
    for count in (2, 3, 7):
        found = [part.open().read() for part in parallel_check.split_file(source, count)]
        assert b"".join(found) == raw and len(found) == count
        assert all(part.endswith(b"\n") for part in found)
