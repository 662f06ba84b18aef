"""Record formats: detection, and what adding one takes (a module, and its line in registry.py)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
from click.testing import CliRunner
from processes import JobFile

from cloudft import catalogue
from cloudft.cli.main import cloudft
from cloudft.data.checks.check import check_data
from cloudft.data.formats.recognizer import detect_format
from cloudft.data.formats.record import Conversation, JsonObject, RawRecord, Record, Turn
from cloudft.data.formats.record_format import Keys, RecordFormat, get_text
from cloudft.data.formats.registry import (
    all_formats,
    convert_targets,
    get_format,
    register_format,
    registered_format,
)
from cloudft.data.staging.stage import stage_data
from cloudft.spec.model import DataSpec


def parse(value: RawRecord) -> Conversation:
    turns = (Turn("user", (get_text(value, "q"),)), Turn("assistant", (get_text(value, "a"),)))
    return Conversation("quiz", (), turns)


def write(record: Record) -> JsonObject:
    assert isinstance(record, Conversation)
    question, answer = (turn.text for turn in record.turns)
    return {"q": question, "a": answer}


def describe(values: Sequence[RawRecord]) -> str:
    return f"{len(values)} quiz questions"


QUIZ = RecordFormat("quiz", Keys(("q", "a"), ("level",)), parse, describe, write)
RECORDS = [{"q": f"Where is {n}?", "a": "here", "level": n} for n in range(12)]


@pytest.fixture
def quiz() -> Iterator[RecordFormat]:
    with registered_format(QUIZ):
        yield QUIZ


def data(*args: str | Path) -> Any:
    """Return the JSON of `cloudft data ...`; raise its error."""
    words = ["data", *map(str, args), "--output", "json"]
    done = CliRunner(env=dict(os.environ)).invoke(cloudft, words)
    if isinstance(done.exception, Exception):
        raise done.exception
    return json.loads(done.stdout)


def test_an_added_format_is_checked_and_staged(tmp_path: Path, quiz: RecordFormat) -> None:
    tiny.write_jsonl(tmp_path / "a.jsonl", RECORDS)
    spec = DataSpec.model_validate({"train": "a.jsonl"})
    report = check_data(spec, format="converse", base_dir=tmp_path)
    assert [finding.message for finding in report.findings] == ["read as quiz: 5 quiz questions"]
    assert report.volumes is not None and report.volumes["train"].records == 12
    staged = stage_data(
        spec,
        customization_type="FINE_TUNING",
        format="converse",
        seed=7,
        base_dir=tmp_path,
        root=tmp_path / "staged",
    )
    assert [source.shape for source in staged.manifest.sources] == ["quiz"]
    first = json.loads((staged.folder / "train.jsonl").read_bytes().splitlines()[0])
    assert first["messages"][0] == {"role": "user", "content": [{"text": "Where is 0?"}]}


def test_an_added_format_is_in_faults_and_detected(tmp_path: Path, quiz: RecordFormat) -> None:
    (tmp_path / "a.jsonl").write_text('{"q": "Where?", "aa": "x"}\n')
    spec = DataSpec.model_validate({"train": "a.jsonl"})
    [finding] = check_data(spec, format="converse", base_dir=tmp_path).findings
    lines = "data.columns: {prompt: q, completion: aa} or data.columns: {prompt: aa, completion: q}"
    assert (finding.code, finding.fix) == ("WrongKeys", lines)
    assert "'q' (text, 6 characters), 'aa' (text, 1 characters)" in finding.message
    detected = detect_format(RECORDS)
    assert detected is not None
    assert (detected.format, detected.evidence) == (quiz, "12 quiz questions")


def test_an_added_format_is_converted_and_previewed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quiz: RecordFormat,
    job_file: JobFile,
    preloaded_here: None,
) -> None:
    path = job_file(records=RECORDS)
    shown = data("preview", path)
    assert "Where is 0?" in "".join(piece["text"] for piece in shown["pieces"])
    monkeypatch.chdir(path.parent)
    data("convert", "train.jsonl", "--to", "messages", "--out", "chats.jsonl")
    [first, *_] = Path("chats.jsonl").read_text().splitlines()
    assert json.loads(first)["messages"][1] == {"role": "assistant", "content": "here"}
    data("dedupe", "train.jsonl", "--out", "unique.jsonl")
    assert json.loads(Path("unique.jsonl").read_text().splitlines()[0]) == {
        "q": "Where is 0?",
        "a": "here",
    }
    assert "quiz" in convert_targets()


def test_a_format_is_registered_once(quiz: RecordFormat) -> None:
    with pytest.raises(ValueError, match="registered already"):
        register_format(QUIZ)


def test_every_format_of_the_catalogue_can_be_written() -> None:
    models = catalogue.load_models()
    names = {name for model in models for name in model.formats.values()}
    assert names
    assert all(get_format(name).write is not None for name in names)


PAIR = {"prompt": "a", "completion": "b"}
CHAT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
BLOCKS = [{"role": m["role"], "content": [{"text": m["content"]}]} for m in CHAT]


@pytest.mark.parametrize(
    ("record", "name", "evidence"),
    [
        (PAIR, "prompt-completion", "records with the keys 'prompt' and 'completion'"),
        ({"input": "a", "output": "b"}, "input-output", "records with the keys 'input' and"),
        ({"instruction": "a", "input": "", "output": "b"}, "instruction", "'instruction' and"),
        ({"messages": CHAT}, "messages", "messages with the roles user, assistant"),
        ({"system": "s", "messages": CHAT}, "claude-messages", "'system' as a text"),
        ({"messages": BLOCKS}, "converse", "messages of text blocks with the roles user, assis"),
        ({"input": "a"}, "input", "records with the key 'input'"),
        ({"text": "a"}, "text", "records with the key 'text'"),
    ],
)
def test_a_format_is_detected_with_its_evidence(
    record: dict[str, Any], name: str, evidence: str
) -> None:
    detected = detect_format([record, {"x": 1}, record])
    assert detected is not None
    assert detected.format.name == name
    assert evidence in detected.evidence
    assert (detected.matched, detected.seen) == (2, 3)


def test_what_no_format_takes_is_not_detected() -> None:
    assert detect_format([]) is None
    assert detect_format([{"x": "y"}, {"prompt": {}, "completion": "b"}]) is None


def test_a_format_is_only_read_or_can_be_written() -> None:
    for format in all_formats():
        assert format.parse or format.parse_unanswered
        assert format.write or get_format(format.rewrite_as).write
