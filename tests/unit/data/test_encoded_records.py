"""Blocks of plain records are encoded at once, to the same lines as one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloudft.data import encoded_records
from cloudft.data.encoded_records import read_encoded
from cloudft.data.findings import Findings
from cloudft.data.formats.record import BadRecord
from cloudft.data.formats.registry import encode_record
from cloudft.data.records import read_records
from cloudft.data.sources.source_files import SourceResolver

PAIRS = [{"prompt": f"How is {n}?" * 40, "completion": f"Fine, {n} é."} for n in range(6000)]
CHATS = [
    {"messages": [{"role": "user", "content": "x" * 300}, {"role": "assistant", "content": str(n)}]}
    for n in range(6000)
]


def one_by_one(folder: Path, target: str) -> list[tuple[str, int, bytes]]:
    sources = SourceResolver(folder, Findings()).resolve("data.train", ("train.jsonl",))
    found = []
    for located in read_records(sources, Findings(), {}, None, target):
        try:
            raw = encode_record(located.record, target)[0]
        except BadRecord:
            continue
        found.append((located.file, located.line, raw))
    return found


@pytest.mark.parametrize(
    ("rows", "in_blocks"),
    [
        (PAIRS, True),
        (CHATS, True),
        ([*PAIRS[:3000], *CHATS[:3000], *PAIRS[3000:]], True),
        ([*PAIRS[:4000], {"prompt": "No answer?"}, {"text": "?"}, *PAIRS[4000:]], True),
        ([{**row, "system": "Be brief."} for row in PAIRS[:50]], False),
    ],
)
@pytest.mark.parametrize("target", ["converse", "prompt-completion"])
def test_the_lines_are_those_of_single_records(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[dict[str, Any]],
    in_blocks: bool,
    target: str,
) -> None:
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "train.jsonl").write_text(text, encoding="utf-8")
    sources = SourceResolver(tmp_path, Findings()).resolve("data.train", ("train.jsonl",))
    encoded_at_once: list[int] = []
    encode = encoded_records.encode_batch

    def counted(batch: Any, to: str) -> bytes:
        encoded_at_once.append(len(batch))
        return encode(batch, to)

    monkeypatch.setattr(encoded_records, "encode_batch", counted)
    found = [
        (records.file, line, raw)
        for records in read_encoded(sources, {}, target)
        for line, raw in zip(records.lines, records.raw.splitlines(keepends=True), strict=True)
    ]
    assert found == one_by_one(tmp_path, target)
    # Blocks of chats are never written as pairs.
    assert bool(encoded_at_once) == (in_blocks and (rows is not CHATS or target == "converse"))
