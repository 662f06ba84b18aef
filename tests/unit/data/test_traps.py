"""Traps that train without an error: each is one warning a file, with lines and share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloudft.data.checks.check import check_data
from cloudft.data.checks.traps import TrapDetector
from cloudft.data.formats.fast_path import decode_batch
from cloudft.data.formats.recognizer import parse_record
from cloudft.spec.model import DataSpec
from cloudft.types import Finding


def check(folder: Path, records: list[dict[str, Any]], **options: Any) -> list[Finding]:
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(r, **options) + "\n" for r in records), encoding="utf-8")
    data = DataSpec(train=(str(path),))
    found = check_data(data, format="converse", base_dir=folder).findings
    return [finding for finding in found if finding.severity != "note"]


def pairs(prompt: str = "q", answer: str = "a", count: int = 300) -> list[dict[str, Any]]:
    return [{"prompt": f"{i} {prompt}", "completion": answer} for i in range(count)]


TRAPS = {
    "LostCharacters": pairs("caf\ufffd"),
    "DoubledEscapes": pairs("one", "First.\\nSecond."),
    "CompletionSeparators": pairs("text\n\n###\n\n", " label END"),
    "MediaPlaceholders": pairs("<image>\nWhat is it?"),
    "TemplatedTexts": pairs("[INST] q [/INST]", "a </s>"),
    "TemplatedTexts ": pairs("<\uff5cbegin\u2581of\u2581sentence\uff5c>q", "a"),  # DeepSeek's
    "ControlTokens": pairs("<|im_start|>user q<|im_end|>"),
    "TimesAsAnswers": pairs("when?", "1714521600000"),
    "NumbersAsAnswers": [{"prompt": f"q{i}", "completion": str(i % 3)} for i in range(300)],
}


@pytest.mark.parametrize("code", TRAPS)
@pytest.mark.parametrize("as_chats", [False, True])
def test_each_trap_is_one_warning(tmp_path: Path, code: str, as_chats: bool) -> None:
    records = TRAPS[code]
    if as_chats:
        records = [
            {
                "messages": [
                    {"role": "user", "content": r["prompt"]},
                    {"role": "assistant", "content": r["completion"]},
                ]
            }
            for r in records
        ]
    found = check(tmp_path, records)
    assert [(f.severity, f.code, f.line) for f in found] == [("warning", code.strip(), 1)]
    if code != "NumbersAsAnswers":
        assert found[0].message.startswith("300 of 300 records (lines 1, 2, 3, ...)")


@pytest.mark.parametrize("options", [{}, {"ensure_ascii": False}])
def test_one_lost_character_and_one_control_token_are_found_anywhere(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    records = pairs(count=20_000)
    records[17_000]["completion"] = "caf\ufffd"
    records[18_000]["prompt"] = "say <|eot_id|> now"
    found = {f.code: f for f in check(tmp_path, records, **options)}
    assert {code: f.line for code, f in found.items()} == {
        "LostCharacters": 17_001,
        "ControlTokens": 18_001,
    }
    assert "1 of 20000 records (lines 17001)" in found["LostCharacters"].message


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "\\nabla f, x \\neq 0, C:\\notes", "completion": "a\nb"},
        {"prompt": "print('a\\n')\nprint()", "completion": "x"},
        {"prompt": "a < b | c > d", "completion": "x -> y"},
        {"prompt": "<s>old</s> price", "completion": "in HTML"},
        {"prompt": "how many?", "completion": "5 of 1714521600"},
        {"prompt": "rate it", "completion": "5"},
        {"prompt": "think", "completion": "<think>Well.</think>\nYes."},
    ],
)
def test_what_is_no_trap(tmp_path: Path, record: dict[str, Any]) -> None:
    assert (
        check(tmp_path, [{**record, "prompt": f"{i} {record['prompt']}"} for i in range(9)]) == []
    )


def test_blocks_and_single_records_are_judged_alike() -> None:
    for code, records in TRAPS.items():
        raw = "".join(json.dumps(r) + "\n" for r in records).encode()
        batch = decode_batch("prompt-completion", raw, len(records))
        assert batch is not None
        whole, single = TrapDetector(), TrapDetector()
        whole.add_batch(batch, raw, range(1, len(batch) + 1))
        for line, record in enumerate(records, 1):
            single.add_record(parse_record(record, {}), line)
        assert list(whole.finish()) == list(single.finish())
        assert [trap.code for trap in whole.finish()] == [code.strip()]
