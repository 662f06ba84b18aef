"""Read the corpus of tests/corpus/formats.yaml: files, their jobs, the remedies of their findings.

A remedy is applied as its reader would: a line is pasted into the job file, a command is run, and
what only a person can decide is one of the edits of `EDITS`.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import corpus_parquet
import yaml
from click.testing import CliRunner

from cloudft.cli.main import cloudft
from cloudft.data.checks.check import check_data
from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.data.formats.recognizer import parse_record
from cloudft.data.formats.record import Document, PromptWithReference, Record
from cloudft.data.staging.stage import stage_data
from cloudft.errors import SpecError
from cloudft.spec.load import LoadedJob, load_spec
from cloudft.types import Finding

CORPUS = Path(__file__).resolve().parent / "corpus"
TABLE: dict[str, dict[str, Any]] = yaml.safe_load((CORPUS / "formats.yaml").read_text())
QUESTION, ANSWER = "Where does the ferry leave?", "From pier four."
"""What the first record of a file asks and answers, unless the table says otherwise."""
RECORD_COUNTS = frozenset({"TooFewRecordsForModel"})
"""Codes about how many records there are: the files of the corpus are small."""


@dataclass(frozen=True)
class Job:
    """A job file with one file of the corpus as its training data."""

    folder: Path
    train: str
    base_model: str = "smollm2-135m"
    customization_type: str = "FINE_TUNING"
    data: Mapping[str, Any] = field(default_factory=dict)

    def spec(self) -> dict[str, Any]:
        """Return what the job file says."""
        return {
            "name": "corpus",
            "base_model": self.base_model,
            "customization_type": self.customization_type,
            "data": {"train": self.train, **self.data},
        }

    def load(self) -> LoadedJob:
        """Return the checked job. Raises SpecError."""
        return load_spec(self.spec())

    def check(self) -> tuple[Finding, ...]:
        """Return the findings of the job file, or else those of its data."""
        try:
            job = self.load()
        except SpecError as error:
            return error.findings
        kind = job.spec.customization_type
        limits = DatasetLimits.for_model(job.model, kind, batch_size=1)
        format = job.model.formats[kind]
        report = check_data(job.spec.data, format=format, base_dir=self.folder, limits=limits)
        return tuple(f for f in report.findings if f.code not in RECORD_COUNTS)

    def stage(self, root: Path) -> tuple[list[Record], str, int]:
        """Return the staged records, the format of the first file, and the number of records."""
        job = self.load()
        kind = job.spec.customization_type
        target = job.model.formats[kind]
        staged = stage_data(
            job.spec.data,
            customization_type=kind,
            format=target,
            seed=7,
            base_dir=self.folder,
            root=root,
        )
        lines = (staged.folder / "train.jsonl").read_text().splitlines()
        records = [parse_record(json.loads(line), {}, target) for line in lines]
        return records, staged.manifest.sources[0].shape, staged.manifest.files["train"].records


def open_case(name: str, folder: Path) -> Job:
    """Return the job of a file of the corpus, which is copied into `folder`."""
    case = TABLE[name]
    copy = folder / Path(name).name
    if name.startswith("parquet/"):
        corpus_parquet.write(copy)
    elif (CORPUS / name).is_dir():
        shutil.copytree(CORPUS / name, copy)
    else:
        shutil.copyfile(CORPUS / name, copy)
    data = {**case.get("data", {})}
    if "columns" in case:
        data["columns"] = case["columns"]
    job = Job(folder, copy.name, data=data)
    given = {key: case[key] for key in ("base_model", "customization_type") if key in case}
    return replace(job, **given)


def prompt_of(record: Record) -> str:
    """Return what a record asks, with its system prompt and all turns before the answer."""
    if isinstance(record, Document):
        return ""
    is_answered = not isinstance(record, PromptWithReference) and answer_of(record)
    turns = record.turns[:-1] if is_answered else record.turns
    return "\n".join([*record.system, *(text for turn in turns for text in turn.all_texts)])


def answer_of(record: Record) -> str:
    """Return what a record answers: its last turn, the reference for a grader, or the text."""
    if isinstance(record, Document):
        return record.text
    if isinstance(record, PromptWithReference):
        values = [record.reference, *record.extra_fields.values()]
        return "\n".join(v if isinstance(v, str) else json.dumps(v) for v in values)
    last = record.turns[-1]
    return "\n".join(last.all_texts) if last.role == "assistant" else ""


def texts_of(record: Record) -> str:
    """Return all that a record says."""
    return f"{prompt_of(record)}\n{answer_of(record)}"


@dataclass(frozen=True)
class Remedy:
    """One way out that a finding offers. `apply` returns the job after it."""

    text: str
    apply: Callable[[Job, Finding], Job]


_PASTED = re.compile(r"data\.columns: (?=\{)|customization_type: (\w+)|`(cloudft [^`]*)`")


def remedies(finding: Finding) -> list[Remedy]:
    """Return the lines and commands that a finding's fix offers, or the edit of its code."""
    fix = finding.fix or ""
    found = [_remedy(fix, match) for match in _PASTED.finditer(fix)]
    if not found and finding.code in EDITS:
        found = [Remedy(f"edit: {finding.code}", EDITS[finding.code])]
    return found


def _remedy(fix: str, match: re.Match[str]) -> Remedy:
    if match[1]:
        kind = match[1]
        return Remedy(match[0], lambda job, _: replace(job, customization_type=kind))
    if match[2]:
        words = shlex.split(match[2])[1:]
        return Remedy(match[0], lambda job, _: _run(words, job))
    line = fix[match.start() : _end_of_braces(fix, match.end())]
    pasted = yaml.safe_load(line)["data.columns"]
    return Remedy(line, lambda job, _: replace(job, data={**job.data, "columns": pasted}))


def _end_of_braces(text: str, start: int) -> int:
    """Return where the braces that open at `start` are closed; those in quotes do not count."""
    _, end = json.JSONDecoder().raw_decode('"a"'), start
    for part in re.finditer(r'"(?:[^"\\]|\\.)*"|\}', text[start:]):
        if part[0] == "}":
            return start + part.end()
    raise AssertionError(f"no closing brace in {text!r} after {end}")


def _run(words: list[str], job: Job) -> Job:
    """Run a command of cloudft on the job. `DIR` is a new folder, whose file replaces the data."""
    path = job.folder / "cloudft.yaml"
    path.write_text(yaml.safe_dump(job.spec()), encoding="utf-8")
    new = job.folder / f"fixed-{len(list(job.folder.iterdir()))}"
    words = [str(new) if word == "DIR" else word for word in words]
    if words[0] == "check":
        words.insert(1, str(path))
    done = CliRunner(env=dict(os.environ)).invoke(cloudft, words)
    assert new.is_dir(), f"{words}: {done.output} {done.exception!r}"
    [copy] = [p for p in new.iterdir() if p.is_file()]
    return replace(job, folder=new, train=copy.name)


def _change_lines(job: Job, change: Callable[[list[str]], list[str]]) -> Job:
    """Return the job with a changed copy of its file."""
    path = job.folder / job.train
    new = job.folder / f"edited-{len(list(job.folder.iterdir()))}"
    new.mkdir()
    lines = change(path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True))
    (new / job.train).write_text("".join(lines), encoding="utf-8")
    return replace(job, folder=new)


def take_out(job: Job, finding: Finding) -> Job:
    """Take the record at the finding's line out."""
    line = finding.line
    assert line is not None
    return _change_lines(job, lambda lines: lines[: line - 1] + lines[line:])


def rewrite(job: Job, _: Finding) -> Job:
    """Write each record as a prompt and a completion, as a person does who knows what it says."""
    pairs = [(QUESTION, ANSWER), ("When does the museum open?", "At nine on weekdays.")]
    records = [json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in pairs]
    changed = _change_lines(job, lambda _: records)
    (changed.folder / job.train).rename(changed.folder / "rewritten.jsonl")
    return replace(changed, train="rewritten.jsonl")


def rename_file(job: Job, _: Finding) -> Job:
    """Name the file that the data were made from, which is not there yet."""
    return replace(job, train="original.jsonl")


def leave_out_columns(job: Job, _: Finding) -> Job:
    """Take data.columns out of the job file."""
    return replace(job, data={k: v for k, v in job.data.items() if k != "columns"})


def save_as_utf8(job: Job, _: Finding) -> Job:
    """Save the file as UTF-8, as an editor does."""
    path = job.folder / job.train
    text = path.read_bytes().decode("cp1252")
    path.write_text(text, encoding="utf-8")
    return job


EDITS: dict[str, Callable[[Job, Finding], Job]] = {}
"""What a person does where the fix asks for a decision, by the finding's code."""


def iter_errors(findings: tuple[Finding, ...]) -> Iterator[Finding]:
    """Yield the findings that are errors."""
    return (finding for finding in findings if finding.severity == "error")
