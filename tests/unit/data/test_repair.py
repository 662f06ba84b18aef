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

from cloudft.data.checks.check import check_data
from cloudft.data.formats.recognizer import parse_record
from cloudft.data.sources.repair import JsonRepair, RecordRules
from cloudft.data.sources.turn_edits import TurnEdit
from cloudft.spec.model import DataSpec

CORPUS = Path(__file__).resolve().parents[2] / "corpus"
BROKEN, GOOD = CORPUS / "broken", CORPUS / "good"
EXPECTED: dict[str, dict[str, Any]] = yaml.safe_load((CORPUS / "expected.yaml").read_text())
REPAIRED = {
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
    "lone-surrogate.jsonl": 3,
    "array-without-a-comma.json": 2,
    "array-comma-at-the-end.json": 2,
    "two-lists.json": 2,
}
"""Files that lose nothing, and their records."""
LOST = {
    "cut-off.jsonl": "Truncated",
    "key-twice.jsonl": "RepeatedKey",
    "nan.jsonl": "NotFinite",
    "empty-completion.jsonl": "EmptyField",
    "bad-escape.jsonl": "BadJson",
    "misspelt-key.jsonl": "WrongKeys",
    "a-list.jsonl": "NotAnObject",
}
"""Files that lose their second record, and why."""


def repair(
    raw: bytes, rules: RecordRules | None = None
) -> tuple[list[dict[str, Any]], list[tuple[int, str]]]:
    values = list(JsonRepair(rules).read(io.BytesIO(raw)))
    records = [json.loads(record) for value in values for record in value.records]
    return records, [(value.line, value.error_code) for value in values if value.error_code]


@pytest.mark.parametrize("name", REPAIRED)
def test_what_can_be_repaired_loses_no_record(name: str) -> None:
    records, lost = repair((BROKEN / name).read_bytes())
    assert (len(records), lost) == (REPAIRED[name], [])


@pytest.mark.parametrize("name", LOST)
def test_what_can_not_is_left_out_and_named(name: str) -> None:
    records, lost = repair((BROKEN / name).read_bytes())
    assert len(records) == 2
    assert lost == [(2, LOST[name])]


@pytest.mark.parametrize("path", sorted(GOOD.glob("*.jsonl")), ids=lambda path: path.name)
def test_a_good_file_has_nothing_to_repair(path: Path) -> None:
    work = JsonRepair()
    values = list(work.read(io.BytesIO(path.read_bytes())))
    is_several = path.name.startswith(("two-records", "old-mac"))
    assert work.changes == {} and not any(value.error_code for value in values)
    assert is_several or not any(value.changed for value in values)


JSONISH = st.lists(
    st.sampled_from([b'{"prompt":', b'"a"', b",", b'"completion":', b"}", b"{", b"[", b"]", b"\n"])
    | st.binary(max_size=3),
    max_size=15,
).map(b"".join)
FILES = [
    path.read_bytes() for name in EXPECTED if (path := BROKEN / name).suffix in (".json", ".jsonl")
]


@settings(max_examples=300, deadline=None)
@given(JSONISH | st.sampled_from(FILES))
def test_whatever_is_kept_can_be_used(raw: bytes) -> None:
    records, _ = repair(raw)
    for record in records:
        parse_record(record if isinstance(record, dict) else {"messages": record}, {})


@pytest.mark.parametrize("name", [n for n in EXPECTED if n.endswith((".json", ".jsonl"))])
def test_a_remedy_that_names_fix_is_true(name: str, tmp_path: Path) -> None:
    raw = (BROKEN / name).read_bytes()
    (tmp_path / name).write_bytes(raw)
    data = DataSpec.model_validate({"train": name})
    report = check_data(data, format="converse", base_dir=tmp_path)
    _, lost = repair(raw)
    for finding in report.findings:
        # A file that is cut off has a copy of what is before.
        if "--fix DIR` writes" in (finding.fix or "") and finding.code != "Truncated":
            assert (finding.line, finding.code) not in lost


CUT_OFF = b'[\n{"prompt": "a", "completion": "b"},\n{"prompt": "c", "completion": "d"},\n{"pro'


def test_an_array_that_is_cut_off_keeps_its_whole_records() -> None:
    records, lost = repair(CUT_OFF)
    assert (len(records), lost) == (2, [(4, "Truncated")])
    broken = CUT_OFF.replace(b'"c", ', b'"c, ') + b'mpt": "e", "completion": "f"}\n]'
    records, lost = repair(broken)
    assert [record["prompt"] for record in records] == ["a", "e"]
    assert lost == [(3, "BadJson")]


def test_records_are_written_as_they_were() -> None:
    kept = b'{"prompt": "a", "completion": 1.50, "n": 123456789012345678901234567890, "id": null}'
    [first, second] = JsonRepair().read(
        io.BytesIO(kept + b"\r\n{'prompt': 'a', 'completion': 'b',}")
    )
    assert first.records == (kept,) and not first.changed
    assert second.records == (b'{"prompt": "a", "completion": "b"}',) and second.changed
    comma = b'{"prompt": "a ,} b", "completion": "b ,]",}'
    assert repair(comma)[0] == [{"prompt": "a ,} b", "completion": "b ,]"}]


@pytest.mark.parametrize(
    "raw",
    [
        "Wo ist das Büro? Größe".encode("cp1252"),
        "caf\u00e9 \u201cquoted\u201d".encode("cp1252"),
    ],
)
def test_windows_1252_is_written_as_utf8(raw: bytes) -> None:
    line = b'{"prompt": "' + raw + b'", "completion": "x"}'
    [record], lost = repair(line)
    assert record["prompt"] == raw.decode("cp1252") and lost == []


@pytest.mark.parametrize(
    "raw",
    [
        "Где посылка?".encode("cp1251"),
        "包裹在哪里".encode("gbk"),
        "荷物はどこですか".encode("shift-jis"),
        b"caf\xc3",
        "é and \xff".encode()[:-1] + b"\xff",
        b"\xed\xa0\x80",
    ],
)
def test_another_encoding_is_left_out_and_not_guessed(raw: bytes) -> None:
    assert repair(b'{"prompt": "' + raw + b'", "completion": "x"}') == ([], [(1, "NotUtf8")])


def test_columns_and_groups_of_the_job_are_known() -> None:
    line = b'{"q": "a", "a": "b", "customer": "c1", "extra": "A whole sentence."}'
    rules = RecordRules({"prompt": "q", "completion": "a"}, "converse", "customer")
    records, lost = repair(line + b"\n" + line.replace(b"customer", b"client") + b"\n\n", rules)
    assert (records, lost) == ([json.loads(line)], [(2, "WrongKeys")])


def chat(key: str, *turns: tuple[str, object], **more: object) -> dict[str, object]:
    names = ("from", "value") if key == "conversations" else ("role", "content")
    return {key: [dict(zip(names, turn, strict=True)) for turn in turns], **more}


@pytest.mark.parametrize(
    ("edit", "before", "after"),
    [
        (
            "cut",
            chat("messages", ("user", "q"), ("assistant", "a"), ("user", "z"), ("user", "y")),
            chat("messages", ("user", "q"), ("assistant", "a")),
        ),
        (
            "cut",
            chat("conversations", ("gpt", "Hi"), ("human", "q"), ("gpt", "a"), id=7),
            chat("conversations", ("human", "q"), ("gpt", "a"), id=7),
        ),
        (
            "join",
            chat("messages", ("user", "q"), ("user", "r"), ("assistant", "a"), topic="x"),
            chat("messages", ("user", "q\n\nr"), ("assistant", "a"), topic="x"),
        ),
        (
            "join",
            chat("messages", ("user", [{"text": "q"}]), ("user", [{"text": "r"}]))
            | {
                "messages": [
                    {"role": "user", "content": [{"text": "q"}]},
                    {"role": "user", "content": [{"text": "r"}]},
                    {"role": "assistant", "content": [{"text": "a"}]},
                ]
            },
            {
                "messages": [
                    {"role": "user", "content": [{"text": "q"}, {"text": "r"}]},
                    {"role": "assistant", "content": [{"text": "a"}]},
                ]
            },
        ),
        (
            "move",
            chat("messages", ("assistant", "Hi"), ("user", "q"), ("assistant", "a")),
            chat("messages", ("system", "Hi"), ("user", "q"), ("assistant", "a")),
        ),
        (
            "move",
            chat("conversations", ("gpt", "Hi"), ("human", "q"), ("gpt", "a"), system="Be brief."),
            chat("conversations", ("human", "q"), ("gpt", "a"), system="Be brief.\n\nHi"),
        ),
        (
            "move",
            chat(
                "messages",
                ("system", "Be brief."),
                ("assistant", "Hi"),
                ("assistant", "!"),
                ("user", "q"),
                ("assistant", "a"),
            ),
            chat("messages", ("system", "Be brief.\n\nHi\n\n!"), ("user", "q"), ("assistant", "a")),
        ),
        (
            "move",
            {
                "messages": [
                    {"role": "assistant", "content": [{"text": "Hi"}]},
                    {"role": "user", "content": [{"text": "q"}]},
                    {"role": "assistant", "content": [{"text": "a"}]},
                ]
            },
            {
                "messages": [
                    {"role": "user", "content": [{"text": "q"}]},
                    {"role": "assistant", "content": [{"text": "a"}]},
                ],
                "system": [{"text": "Hi"}],
            },
        ),
        (
            "cut",
            {
                "prompt": [{"role": "user", "content": "q"}],
                "completion": [
                    {"role": "assistant", "content": "a"},
                    {"role": "user", "content": "z"},
                ],
            },
            {
                "prompt": [{"role": "user", "content": "q"}],
                "completion": [{"role": "assistant", "content": "a"}],
            },
        ),
    ],
)
def test_turns_are_edited_on_demand(
    edit: TurnEdit, before: dict[str, object], after: dict[str, object]
) -> None:
    raw = json.dumps(before).encode()
    assert repair(raw) == ([], [(1, "BadTurns")])
    assert repair(raw, RecordRules(turns=(edit,))) == ([after], [])


def test_turns_that_hold_more_than_texts_are_not_joined() -> None:
    first = {"role": "assistant", "content": "a", "weight": 0}
    messages = [{"role": "user", "content": "q"}, first, {**first, "weight": 1}]
    raw = json.dumps({"messages": messages}).encode()
    assert repair(raw, RecordRules(turns=("join",))) == ([], [(1, "BadTurns")])


@pytest.mark.parametrize("name", ["gzip.jsonl", "bzip2.jsonl", "xz.jsonl"])
def test_a_packed_file_that_is_cut_off_is_named(name: str) -> None:
    raw = (BROKEN / name).read_bytes()
    assert repair(raw[: len(raw) * 2 // 3])[1][-1] == (0, "Truncated")


def test_a_packed_file_that_is_damaged_is_named() -> None:
    assert repair(b'BZh{"prompt":')[1] == [(0, "Truncated")]


def test_the_command_writes_a_copy_that_passes(cli: Cli, job_file: JobFile) -> None:
    folder = job_file(records=8).parent
    raw = (folder / "train.jsonl").read_bytes()
    broken = raw + b'{"prompt": "a", "completion": 3,}\n{"prompt": ""\n'
    (folder / "train.jsonl").write_bytes(broken)
    done = cli("check", "--fix", "repaired", "--output", "json", cwd=folder)
    assert done.returncode == 3
    [fixed] = json.loads(done.stdout)["fixed"]
    assert (fixed["records"], fixed["leftOut"]) == (9, [{"line": 10, "code": "Truncated"}])
    assert "train.jsonl:10 (Truncated)" in done.stderr
    assert (folder / "train.jsonl").read_bytes() == broken
    train_on(folder, "repaired/train.jsonl")
    assert cli("check", cwd=folder).returncode == 0
    train_on(folder, "train.jsonl")
    again = cli("check", "--fix", "repaired", cwd=folder)
    assert again.returncode == 2 and "exists already" in again.stderr


def train_on(folder: Path, *names: str) -> None:
    spec = yaml.safe_load((folder / "cloudft.yaml").read_text())
    spec["data"] = {"train": list(names)}
    (folder / "cloudft.yaml").write_text(yaml.safe_dump(spec))


def test_the_command_edits_turns_and_says_what_it_does_not_repair(
    cli: Cli, job_file: JobFile
) -> None:
    folder = job_file(records=8).parent
    open_end = chat("messages", ("user", "q"), ("assistant", "a"), ("user", "z"))
    pairs = b'{"prompt": "a", "completion": "b"}'
    files = {
        "chats.jsonl": json.dumps(open_end).encode(),
        "lists.json": b'{"train": [' + pairs + b'], "test": [' + pairs + b"]}",
        "latin.csv": "prompt,completion\ncafé,b\n".encode("cp1252"),
        "empty.csv": b"prompt,completion\na,\n",
        "wrong.jsonl": b'{"prompt": "a", "completion": ""}\n',
    }
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    train_on(folder, *files)
    assert cli("check", "--turns", "cut", cwd=folder).returncode == 2
    done = cli("check", "--fix", "out", "--turns", "cut", "--output", "json", cwd=folder)
    fixed = {(one["file"], one["copy"]): one for one in json.loads(done.stdout)["fixed"]}
    assert fixed["chats.jsonl", "out/chats.jsonl"]["turns"] == {"cut": 1}
    assert ("lists.json", "out/lists.train.jsonl") in fixed
    assert ("lists.json", "out/lists.test.jsonl") in fixed
    assert "Windows-1252" in fixed["latin.csv", "out/latin.csv"]["changes"][0]
    assert "by hand" in fixed["empty.csv", None]["reason"]
    assert "EmptyField" in fixed["wrong.jsonl", None]["reason"]
    assert (folder / "out" / "latin.csv").read_text("utf-8") == "prompt,completion\ncafé,b\n"
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        *("chats.jsonl", "latin.csv", "lists.test.jsonl", "lists.train.jsonl"),
    ]
