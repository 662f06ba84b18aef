"""Files as people's tools write them: read as meant, or refused with a remedy that works.

tests/corpus/formats.yaml says for each file what it is read as, or why it is refused and where
each way out of its fix leads.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import corpus_cases
import pytest
from click.testing import CliRunner, Result
from corpus_cases import (
    ANSWER,
    BROKEN,
    CORPUS,
    EDITS,
    QUESTION,
    TABLE,
    Job,
    Remedy,
    open_case,
    remedies,
)

from cloudft.cli.main import cloudft
from cloudft.data.formats.record import Conversation
from cloudft.errors import CheckFailed, UsageError
from cloudft.types import Finding

ROOT = Path(__file__).resolve().parents[3]
READ = [name for name, case in TABLE.items() if "read_as" in case]
REFUSED = [name for name, case in TABLE.items() if "refused" in case]
MAX_RECORDS = 12
"""Records of a file that an edit is made in."""


def open_or_skip(name: str, folder: Path) -> Job:
    if name.startswith("parquet/") or name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    return open_case(name, folder)


def errors(findings: tuple[Finding, ...]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "error"]


def test_the_table_has_every_file_and_many_of_them() -> None:
    folders = {path.name for path in CORPUS.iterdir() if path.is_dir()} - {
        "good",
        "broken",
        "tools",
    }
    files = {
        str(path.relative_to(CORPUS)) for name in folders for path in (CORPUS / name).iterdir()
    }
    assert files == {name for name in TABLE if not name.startswith("parquet/")}
    assert len(TABLE) >= 250


@pytest.mark.parametrize("name", READ)
def test_a_file_is_read_as_it_is_meant(name: str, tmp_path: Path) -> None:
    case, job = TABLE[name], open_or_skip(name, tmp_path)
    findings = job.check()
    assert errors(findings) == []
    assert [f.code for f in findings if f.severity == "warning"] == case.get("warned", [])
    notes = dict.fromkeys(f.code for f in findings if f.severity == "note")
    assert [code for code in notes if code != "ReadAs"] == case.get("noted", [])
    staged = job.stage(tmp_path / "staged")
    assert (staged.format, staged.count) == (case["read_as"], case.get("records", 2))
    assert list(staged.left_out) == case.get("left_out", [])
    first = staged.records[0]
    prompt, answer = corpus_cases.prompt_of(first), corpus_cases.answer_of(first)
    if "holds" not in case:
        assert prompt == case.get("prompt", QUESTION)
    assert all(text in prompt for text in [case.get("prompt", QUESTION), *case.get("holds", [])])
    if "holds_answer" not in case:
        assert answer == case.get("answer", ANSWER)
    assert all(
        text in answer for text in [case.get("answer", ANSWER), *case.get("holds_answer", [])]
    )
    if isinstance(first, Conversation):
        assert [tool.name for tool in first.tools] == case.get("tools", [])
        untrained = [turn.text for turn in first.turns if not turn.is_learned]
        assert untrained == case.get("not_learned", [])


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_has_a_remedy_that_leads_on(name: str, tmp_path: Path) -> None:
    case, job = TABLE[name], open_or_skip(name, tmp_path)
    found = errors(job.check())
    assert {finding.code for finding in found} == codes_of(case)
    first = next((finding for finding in found if case["fix"] in (finding.fix or "")), None)
    assert first is not None, found
    ways = remedies(first)
    assert len(ways) == len(case["after"]), ways
    for way, expected in zip(ways, case["after"], strict=True):
        after = follow(way, job, first)
        left = errors(after.check())
        assert (left[0].code if left else "ok") == expected, (way.text, left)
        if not left and not way.is_edit:
            assert_says_the_same(name, after, tmp_path)


def codes_of(case: Mapping[str, Any]) -> set[str]:
    """Return the codes of the errors that a file is refused with."""
    refused = case.get("refused", ())
    return {refused} if isinstance(refused, str) else set(refused)


def follow(way: Remedy, job: Job, finding: Finding) -> Job:
    """Return the job after a remedy; an edit of records is made for each that has the fault."""
    after = way.apply(job, finding)
    for _ in range(MAX_RECORDS if way.is_edit else 0):
        again = [other for other in after.check() if is_same(other, finding)]
        if not again or EDITS[finding.code] is corpus_cases.keep_as_it_is:
            break
        after = way.apply(after, again[0])
    return after


def is_same(one: Finding, other: Finding) -> bool:
    """Return whether two findings of different files say the same."""
    return (one.code, one.message) == (other.code, other.message)


ALL_CASES = [*TABLE, *(f"broken/{name}" for name in BROKEN)]


@pytest.mark.parametrize("name", ALL_CASES)
def test_the_remedy_of_every_finding_leads_on(name: str, tmp_path: Path) -> None:
    job = open_or_skip(name, tmp_path)
    for finding in job.check():
        if finding.fix is None:  # a note, or how many findings there are
            continue
        ways = remedies(finding)
        assert ways, f"{finding.code} has no remedy to apply: {finding.fix}"
        for way in ways:
            after = follow(way, job, finding)
            left = after.check()
            if EDITS.get(finding.code) is not corpus_cases.keep_as_it_is or not way.is_edit:
                assert not any(is_same(finding, other) for other in left), (way.text, left)
            if not errors(left) and not way.is_edit:
                assert_says_the_same(name, after, tmp_path)


def assert_says_the_same(name: str, job: Job, folder: Path) -> None:
    """Assert that the question and the answer are in the staged records."""
    case = TABLE.get(name, {"prompt": "", "answer": ""})
    staged = job.stage(folder / f"staged-{len(list(folder.iterdir()))}")
    texts = "\n".join(map(corpus_cases.texts_of, staged.records))
    kept = {"prompt": case.get("prompt", QUESTION), "answer": case.get("answer", ANSWER)}
    kept.pop(case.get("may_lose"), None)
    assert all(text in texts for text in kept.values()), texts


@pytest.mark.parametrize(
    "name",
    [
        *("pairs/text-label.jsonl", "pairs/passage-beside.jsonl", "pairs/names-with-spaces.jsonl"),
        *("pairs/premise-hypothesis-target.jsonl", "preferences/trl-chats.jsonl"),
        *("preferences/question-chosen-system.jsonl", "tables/dialogue-note.csv"),
    ],
)
@pytest.mark.parametrize("command", ["data convert --to messages", "data split --test 0.5"])
def test_a_command_without_a_job_file_has_options_in_its_remedy(
    name: str, command: str, tmp_path: Path
) -> None:
    words = [*command.split(), str(CORPUS / name)]
    refused = run([*words, "--out", str(tmp_path / "none")])
    assert isinstance(refused.exception, CheckFailed) and not (tmp_path / "none").exists()
    fix = refused.exception.findings[0].fix or ""
    ways = re.findall(r"(?:--column (?:\S*'[^']*'|\S+) ?)+", fix)
    assert "data.columns" not in fix and ways
    for number, options in enumerate(ways):
        done = run([*words, *shlex.split(options), "--out", str(tmp_path / str(number))])
        assert done.exit_code == 0, (options, done.exception)


def run(words: list[str]) -> Result:
    return CliRunner(env=dict(os.environ)).invoke(cloudft, words)


@pytest.mark.parametrize(
    "name", ["pairs/documents-beside.jsonl", "pairs/other-languages-names.jsonl"]
)
def test_init_says_the_whole_command(name: str, tmp_path: Path) -> None:
    refused = run(["init", "--data", str(CORPUS / name), str(tmp_path / "job")])
    assert isinstance(refused.exception, UsageError)
    commands = re.findall(r"`cloudft (init [^`]*)`", refused.exception.fix or "")
    assert len(commands) == 2 and not (tmp_path / "job").exists()
    assert run(shlex.split(commands[0])).exit_code == 0
    assert (tmp_path / "job" / "cloudft.yaml").is_file()


def test_a_note_says_what_a_file_was_read_as(tmp_path: Path) -> None:
    notes = open_case("chats/sharegpt-id-source.jsonl", tmp_path).check()
    assert [note.code for note in notes] == ["ReadAs"]
    for text in ("ShareGPT", "human -> user", "gpt -> assistant", "left out: id, source, category"):
        assert text in notes[0].message


CLASS = re.compile(r"^class (\w+)", re.MULTILINE)
CODE = re.compile(r'"([A-Z][a-z0-9]+(?:[A-Z][a-z0-9]*)+)"')
TESTED_ELSEWHERE = {
    *("FileNotFound", "FileTwice", "FileUnreadable", "IgnoredFiles"),  # test_row_reader.py
    *("RecordTooLong", "ParquetUnavailable", "TooFewRecords"),  # test_row_reader.py, test_stage.py
    *("TooFewRecordsForModel", "TooMuchDataForModel"),  # test_corpus.py, test_dataset_limits.py
    *("SpreadsheetFormula",),  # test_spreadsheet_csv.py
    *("NotInTemplate", "TemplateNotHere"),  # of a model, not of a file
    *("ValidationNotUsed",),  # test_dataset_limits.py
    *("NotWritable",),  # test_dataset_transform.py
    *("NoAnswer", "SeveralAnswers", "SeveralLabels", "DifferentAnswers"),  # test_tool_exports.py
    *("ReadAs",),  # test_a_note_says_what_a_file_was_read_as
}
"""Codes that no file alone can bring about."""


def test_every_code_of_the_data_has_a_file(tmp_path: Path) -> None:
    sources = [p.read_text() for p in (ROOT / "cloudft" / "data").rglob("*.py")]
    raised = {code for source in sources for code in CODE.findall(source)}
    found = {code for case in TABLE.values() for code in codes_of(case)}
    for key in ("warned", "noted"):
        found |= {code for case in TABLE.values() for code in case.get(key, [])}
    found |= {str(case["code"]) for case in BROKEN.values()}
    no_codes = {name for source in sources for name in CLASS.findall(source)} | {
        "ShareGPT",
        "BatchRecord",
        "ClassLabel",
        "ModelInvocationLog",
        "StructT",
    }
    assert raised - found - TESTED_ELSEWHERE - no_codes == set()
