"""Check a large file on several cores: the report is that of one process, whatever is in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloudft.data.checks import parallel_check
from cloudft.data.checks.check import DataReport, check_data
from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.data.findings import Findings
from cloudft.data.sources import file_parts
from cloudft.data.sources.source_files import SourceResolver
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


def check(folder: Path, reported: list[int] | None = None) -> DataReport:
    data = DataSpec.model_validate({"train": "a.jsonl", "validation": 0.1})
    progress = reported.append if reported is not None else None
    return check_data(
        data, format="converse", base_dir=folder, progress=progress, limits=DatasetLimits()
    )


@pytest.mark.parametrize("name", FILES)
def test_the_report_is_that_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "a.jsonl").write_bytes(FILES[name])
    expected = check(tmp_path)
    results = []
    count = parallel_check.count_in_parallel

    def count_and_keep(*arguments: Any) -> Any:
        results.append(count(*arguments))
        return results[-1]

    monkeypatch.setattr(file_parts, "MIN_PART_BYTES", 50_000)
    monkeypatch.setattr("cloudft.data.checks.check.count_cores", lambda: 2)
    monkeypatch.setattr(parallel_check, "count_in_parallel", count_and_keep)
    reported: list[int] = []
    assert check(tmp_path, reported) == expected
    is_flawless = name in ("plain", "no newline at the end", "all the same", "chats")
    assert [counter is not None for counter in results] == [is_flawless]
    assert reported == sorted(reported) or not is_flawless
    if expected.volumes:
        assert reported[-1] == sum(v.records for v in expected.volumes.values())


def test_parts_are_whole_lines_and_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_parts, "MIN_PART_BYTES", 10)
    raw = b"".join(b"x" * (n % 97) + b"\n" for n in range(500))
    (tmp_path / "a.jsonl").write_bytes(raw)
    [source] = SourceResolver(tmp_path, Findings()).resolve("", ["a.jsonl"])
    for count in (2, 3, 7):
        parts = [part.open().read() for part in file_parts.split_file(source, count)]
        assert b"".join(parts) == raw and len(parts) == count
        assert all(part.endswith(b"\n") for part in parts)
