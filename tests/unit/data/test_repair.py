"""check --fix: a repaired copy that passes, the original unchanged, and nothing made up."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import Cli, JobFile

from cloudft.data.formats.recognizer import parse_record
from cloudft.data.sources.repair import repair_lines

BROKEN = Path(__file__).resolve().parents[2] / "corpus" / "broken"
EXPECTED: dict[str, dict[str, Any]] = yaml.safe_load((BROKEN.parent / "expected.yaml").read_text())
MENDED = {
    "gzip.jsonl": 3,
    "bzip2.jsonl": 3,
    "xz.jsonl": 3,
    "utf-16.jsonl": 3,
    "latin-1.jsonl": 2,
    "byte-order-mark.jsonl": 3,
    "windows-line-ends.jsonl": 3,
    "blank-line.jsonl": 2,
    "tab-in-text.jsonl": 3,
    "trailing-comma.jsonl": 3,
    "comma-between-records.jsonl": 3,
    "single-quotes.jsonl": 3,
    "two-records-on-a-line.jsonl": 4,
    "lone-surrogate.jsonl": 3,
    "json-array.jsonl": 3,
    "indented.jsonl": 1,
    "misspelt-key.jsonl": 3,
    "extra-key.jsonl": 3,
    "a-number-for-a-completion.jsonl": 3,
    "role-human.jsonl": 2,
    "role-bot.jsonl": 2,
}
"""Files that lose nothing, and their records."""
LOST = {"cut-off.jsonl": "BadJson", "key-twice.jsonl": "RepeatedKey", "nan.jsonl": "WrongType"}
LOST |= {"empty-completion.jsonl": "EmptyField", "python-none.jsonl": "WrongType"}


def repair(raw: bytes) -> tuple[list[dict[str, Any]], list[tuple[int, str]]]:
    lines = list(repair_lines(io.BytesIO(raw)))  # type: ignore[arg-type]
    records = [record for line in lines for record in line.records]
    return records, [(line.line, line.error_code) for line in lines if line.error_code]


@pytest.mark.parametrize("name", MENDED)
def test_what_can_be_repaired_loses_no_record(name: str) -> None:
    records, lost = repair((BROKEN / name).read_bytes())
    assert (len(records), lost) == (MENDED[name], [])


@pytest.mark.parametrize("name", LOST)
def test_what_can_not_is_left_out_and_named(name: str) -> None:
    records, lost = repair((BROKEN / name).read_bytes())
    assert len(records) == 2
    assert lost == [(2, LOST[name])]


JSONISH = st.lists(
    st.sampled_from([b'{"prompt":', b'"a"', b",", b'"completion":', b"}", b"{", b"[", b"]", b"\n"])
    | st.binary(max_size=3),
    max_size=15,
).map(b"".join)


@settings(max_examples=300)
@given(JSONISH | st.sampled_from([(BROKEN / name).read_bytes() for name in EXPECTED]))
def test_whatever_is_kept_can_be_used(raw: bytes) -> None:
    records, _ = repair(raw)
    for record in records:
        parse_record(json.loads(json.dumps(record)), {})


@pytest.mark.parametrize("name", ["gzip.jsonl", "bzip2.jsonl", "xz.jsonl"])
def test_a_packed_file_that_is_cut_off_is_named(name: str) -> None:
    raw = (BROKEN / name).read_bytes()
    assert repair(raw[: len(raw) * 2 // 3])[1][-1] == (0, "Truncated")


def test_a_packed_file_that_is_damaged_is_named() -> None:
    assert repair(b'BZh{"prompt":')[1] == [(0, "Truncated")]


def test_the_command_writes_a_copy_that_passes(cli: Cli, job_file: JobFile) -> None:
    folder = job_file(records=8).parent
    raw = (folder / "train.jsonl").read_bytes()
    broken = raw + b'{"promt": "a", "completion": 3,}\n{"prompt": ""\n'
    (folder / "train.jsonl").write_bytes(broken)
    done = cli("check", "--fix", "mended", "--output", "json", cwd=folder)
    assert done.returncode == 3
    [fixed] = json.loads(done.stdout)["fixed"]
    assert (fixed["records"], fixed["leftOut"]) == (9, [{"line": 10, "code": "BadJson"}])
    assert "train.jsonl:10 (BadJson)" in done.stderr
    assert (folder / "train.jsonl").read_bytes() == broken
    spec = yaml.safe_load((folder / "cloudft.yaml").read_text())
    spec["data"]["train"] = "mended/train.jsonl"
    (folder / "cloudft.yaml").write_text(yaml.safe_dump(spec))
    assert cli("check", cwd=folder).returncode == 0
    spec["data"]["train"] = "train.jsonl"
    (folder / "cloudft.yaml").write_text(yaml.safe_dump(spec))
    again = cli("check", "--fix", "mended", cwd=folder)
    assert again.returncode == 2 and "exists already" in again.stderr
