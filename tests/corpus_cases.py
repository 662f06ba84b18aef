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
import subprocess
from collections.abc import Callable, Mapping
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
BROKEN: dict[str, dict[str, Any]] = yaml.safe_load((CORPUS / "expected.yaml").read_text())
"""The files in tests/corpus/broken, one fault each."""
QUESTION, ANSWER = "Where does the ferry leave?", "From pier four."
"""The question and answer of a file's first record, unless the table says otherwise."""
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

    def stage(self, root: Path) -> Staged:
        """Stage the data below `root`."""
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
        sources = staged.manifest.sources
        left_out = dict.fromkeys(key for source in sources for key in source.left_out)
        return Staged(records, sources[0].shape, len(records), tuple(left_out))


@dataclass(frozen=True)
class Staged:
    """Staged training data. `format` is that of the first file."""

    records: list[Record]
    format: str
    count: int
    left_out: tuple[str, ...]


def open_case(name: str, folder: Path) -> Job:
    """Return the job of a file of the corpus, which is copied into `folder`."""
    case = TABLE.get(name) or BROKEN[Path(name).name]
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
    return replace(
        job,
        base_model=case.get("base_model", job.base_model),
        customization_type=case.get("customization_type", case.get("type", job.customization_type)),
    )


def prompt_of(record: Record) -> str:
    """Return the prompt of a record, with its system prompt and all turns before the answer."""
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
        reference = record.reference
        values = [*record.extra_fields.values()] if reference is None else [reference]
        return "\n".join(v if isinstance(v, str) else json.dumps(v) for v in values)
    last = record.turns[-1]
    return "\n".join(last.all_texts) if last.role == "assistant" else ""


def texts_of(record: Record) -> str:
    """Return all that a record says."""
    return f"{prompt_of(record)}\n{answer_of(record)}"


Edit = Callable[[Job, Finding], Job]


@dataclass(frozen=True)
class Remedy:
    """One way out that a finding offers. `apply` returns the job after it."""

    text: str
    apply: Edit
    is_edit: bool = False


_PASTED = re.compile(
    r"data\.columns: (?=\{)|customization_type: (\w+)|`(cloudft [^`]*)`"
    r"|data\.train: (\[[^\]]*\]|\"[^\"]*\"|\S+)|(jq -c '[^']*' \S+ > \S+\.jsonl)"
)


def remedies(finding: Finding) -> list[Remedy]:
    """Return the lines and commands that a finding's fix offers, or the edit of its code."""
    fix = finding.fix or ""
    found: list[Remedy] = []
    end = 0
    for match in _PASTED.finditer(fix):
        way = _remedy(fix, match)
        is_joined = fix[end : match.start()] == " with " and bool(found)
        found.append(_both(found.pop(), way) if is_joined else way)
        end = match.start() + len(way.text)
    if not found and finding.code in EDITS:
        found = [Remedy(f"edit: {finding.code}", EDITS[finding.code], is_edit=True)]
    return found


def _both(one: Remedy, other: Remedy) -> Remedy:
    """Return the remedy of two lines that are pasted together."""

    def apply(job: Job, finding: Finding) -> Job:
        return other.apply(one.apply(job, finding), finding)

    return Remedy(f"{one.text} with {other.text}", apply)


def _remedy(fix: str, match: re.Match[str]) -> Remedy:
    if match[1]:
        kind = match[1]
        return Remedy(match[0], lambda job, _: replace(job, customization_type=kind))
    if match[2]:
        words = shlex.split(match[2])[1:]
        return Remedy(match[0], lambda job, _: _run(words, job))
    if match[3]:
        train = yaml.safe_load(match[3])
        return Remedy(match[0], lambda job, _: replace(job, train=train))
    if match[4]:
        command = match[4]
        is_edit = shutil.which("jq") is None
        return Remedy(command, lambda job, _: _run_jq(command, job), is_edit=is_edit)
    line = fix[match.start() : _end_of_braces(fix, match.end())]
    pasted = yaml.safe_load(line)["data.columns"]
    return Remedy(line, lambda job, _: replace(job, data={**job.data, "columns": pasted}))


def _end_of_braces(text: str, start: int) -> int:
    """Return where the braces that open at `start` are closed; those in quotes do not count."""
    for part in re.finditer(r'"(?:[^"\\]|\\.)*"|\}', text[start:]):
        if part[0] == "}":
            return start + part.end()
    raise AssertionError(f"no closing brace in {text!r}")


def _run(words: list[str], job: Job) -> Job:
    """Run a command of cloudft on the job. `DIR` is a new folder, whose file replaces the data."""
    path = job.folder / "cloudft.yaml"
    path.write_text(yaml.safe_dump(job.spec()), encoding="utf-8")
    if words[0] == "data":
        done = CliRunner(env=dict(os.environ)).invoke(cloudft, words)
        assert done.exit_code == 0, f"{words}: {done.output} {done.exception!r}"
        return replace(job, train=words[words.index("--out") + 1])
    new = job.folder / f"fixed-{len(list(job.folder.iterdir()))}"
    words = [str(new) if word == "DIR" else word for word in words]
    if words[0] == "check":
        words.insert(1, str(path))
    done = CliRunner(env=dict(os.environ)).invoke(cloudft, words)
    assert new.is_dir(), f"{words}: {done.output} {done.exception!r}"
    # A file of several lists becomes one for each; the first is trained on.
    copy = next(p for p in sorted(new.iterdir(), reverse=True) if p.is_file())
    return replace(job, folder=new, train=copy.name)


def _run_jq(command: str, job: Job) -> Job:
    """Run a command of jq in the job's folder. The file that it writes replaces the data.

    Without jq here, the records are written by hand.
    """
    if shutil.which("jq") is None:
        return _new_file(job, _rewritten().encode(), "other.jsonl")
    subprocess.run(["bash", "-c", command], cwd=job.folder, check=True)
    return replace(job, train=command.rpartition(" > ")[2])


def _new_file(job: Job, content: bytes, name: str = "") -> Job:
    """Return the job with a file of this content instead of its own."""
    new = job.folder / f"edited-{len(list(job.folder.iterdir()))}"
    new.mkdir()
    (new / (name or job.train)).write_bytes(content)
    return replace(job, folder=new, train=name or job.train)


def take_out(job: Job, finding: Finding) -> Job:
    """Take the record at the finding's line out."""
    assert finding.line is not None, finding
    path = job.folder / job.train
    if path.suffix == ".parquet":
        return _new_file(job, corpus_parquet.without_row(path, finding.line))
    lines = path.read_bytes().splitlines(keepends=True)
    del lines[finding.line - 1]
    return _new_file(job, b"".join(lines))


def rewrite(job: Job, _: Finding) -> Job:
    """Write the records by hand, as a person does who knows what they say."""
    return _new_file(job, _rewritten().encode(), "rewritten.jsonl")


def _rewritten() -> str:
    pairs = [(QUESTION, ANSWER), ("When does the museum open?", "At nine on weekdays.")]
    return "".join([json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in pairs])


def name_another_file(job: Job, _: Finding) -> Job:
    """Name the file that these data were made from, which is not there."""
    return replace(job, train="original.jsonl")


def rename(job: Job, finding: Finding) -> Job:
    """Rename the file as the fix says."""
    assert finding.fix is not None
    old, new = shlex.split(finding.fix.partition("`mv ")[2].rstrip("`"))
    shutil.move(old, new)
    return replace(job, train=new)


def take_out_text(job: Job, finding: Finding) -> Job:
    """Take out the key beside a list of records that the fix names."""
    raw = json.loads((job.folder / job.train).read_bytes())
    named = re.findall(r"'(\w+)'", finding.message)[0]
    rest = {key: value for key, value in raw.items() if key != named}
    return _new_file(job, json.dumps(rest).encode())


def leave_out_columns(job: Job, _: Finding) -> Job:
    """Take data.columns out of the job file."""
    return replace(job, data={k: v for k, v in job.data.items() if k != "columns"})


def leave_out_held_out(job: Job, _: Finding) -> Job:
    """Take the held-out files out of the job file, as one does who has no others."""
    return replace(job, data={k: v for k, v in job.data.items() if k not in ("test", "validation")})


def save_as_utf8(job: Job, _: Finding) -> Job:
    """Save the file as UTF-8 with the line ends of Unix, as an editor does."""
    raw = (job.folder / job.train).read_bytes()
    encoding = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "cp1252"
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode(encoding, "replace")
    return _new_file(job, text.replace("\r\n", "\n").encode())


def choose_another_model(job: Job, finding: Finding) -> Job:
    """Choose the first base model that the fix names."""
    match = re.search(r"base_model that takes them: ([\w.-]+)|such as ([\w.-]+)", finding.fix or "")
    if match is None and "open-weight" not in (finding.fix or ""):
        return take_out(job, finding)
    named = (match[1] or match[2]) if match else "smollm2-135m"
    return replace(job, base_model=named)


def keep_as_it_is(job: Job, _: Finding) -> Job:
    """Do nothing: a person looks, and leaves it so if it is meant."""
    return job


EDITS: dict[str, Edit] = {
    **dict.fromkeys(
        (
            *("EmptyField", "WrongType", "BadTurns", "WrongToolCall", "WrongHistory"),
            *("WrongWeight", "NotAnObject", "BlankLine", "RepeatedKey"),
            *("BadJson", "Truncated", "TooDeep", "NotFinite", "LoneSurrogate", "SingleQuotes"),
            *("ControlCharacter", "TrailingComma", "ReservedWord"),
            *("OverTokenLimit", "LosesTurns", "WrongMedia", "MixedMedia", "TooManyMedia"),
            *("TooManyTexts", "SeveralAnswers", "WrongReasoning", "RepeatedHeader"),
            *("SecretsInTexts", "EqualAnswers", "NoPrompt", "TwoPrompts", "WrongLabel"),
        ),
        take_out,
    ),
    **dict.fromkeys(
        (
            *("WrongKeys", "WrongColumns", "PreferencePairs", "UnpairedPreferences", "UnusedKeys"),
            *("BadCsv", "NoRecords", "EmptyFile", "Compressed", "BadParquet", "JsonArray"),
        ),
        rewrite,
    ),
    **dict.fromkeys(("TokenizedData", "UnsupportedFileType"), name_another_file),
    **dict.fromkeys(("NotUtf8", "Bom", "CarriageReturns"), save_as_utf8),
    **dict.fromkeys(
        ("MixedShapes", "MixedTypes", "ColumnLeftOut", "NearTokenLimit"), keep_as_it_is
    ),
    "UnusedColumns": leave_out_columns,
    **dict.fromkeys(("LeakedTestSet", "LeakedValidationSet"), leave_out_held_out),
    "JsonInText": rename,
    **dict.fromkeys(("GitLfsPointer", "WrongFileType"), name_another_file),
    **dict.fromkeys(("WrongTable", "TruncatedCells"), rewrite),
    **dict.fromkeys(("UnsureContent", "NoHeader"), keep_as_it_is),
    **dict.fromkeys(("SeveralLabels", "DifferentAnswers"), keep_as_it_is),
    **dict.fromkeys(("NestedRecords", "MarkedTexts"), rewrite),
    **dict.fromkeys(("LostCharacters", "DoubledEscapes", "CompletionSeparators"), rewrite),
    **dict.fromkeys(("ControlTokens", "TemplatedTexts", "MediaPlaceholders"), rewrite),
    **dict.fromkeys(("TimesAsAnswers", "NumbersAsAnswers"), rewrite),
    **dict.fromkeys(("LosesContent", "MediaData", "UnsupportedContent"), choose_another_model),
}
"""What a person does where the fix requires a decision, by the finding's code."""
