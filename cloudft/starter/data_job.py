"""Write a job file for a person's own data: `cloudft init --data FILE`.

The data decides the customization type, the columns, the split and the hyperparameters; each choice
comes with its reason, which is a comment in the job file. The job trains an open-weight model, so
that it runs on this machine as it is.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cloudft import catalogue
from cloudft.catalogue import is_labeled, is_text_only
from cloudft.data.detect import TEXT_TARGET, FileDetection, detect_file
from cloudft.data.findings import Findings
from cloudft.data.formats.columns_line import for_command
from cloudft.data.formats.record import Conversation
from cloudft.data.records import read_records
from cloudft.data.sources.file_start import FIX_COMMAND
from cloudft.data.sources.remedy_commands import complete_commands
from cloudft.data.sources.source_files import SourceFile, SourceResolver
from cloudft.data.token_estimate import estimate_tokens
from cloudft.errors import CheckFailed, CloudftError, UsageError
from cloudft.starter import JOB_FILE, refuse_to_overwrite
from cloudft.storage.atomic_files import as_store_error

DEFAULT_MODEL = "smollm2-135m"
"""The model that is downloaded if no open-weight model is on this machine."""
VALIDATION_SHARE = 0.1
MIN_RECORDS_TO_SPLIT = 20
"""Fewer records than this are all trained on: a tenth of them says nothing about the model."""
MAX_LABELS = 50
BATCH_SIZES = (8, 4, 2)
"""The largest that leaves ten optimizer steps an epoch is taken; 1 if none does."""
EPOCHS_BY_RECORDS = ((500, 4), (5_000, 2))
"""(fewer records than, epochs), else one epoch. Small sets need several passes."""
LEARNING_RATES = {"FINE_TUNING": 5e-4, "CONTINUED_PRE_TRAINING": 3e-4}
"""The rates of the starter jobs, which train adapters (LoRA) on the default model."""
PACKED_LENGTH = 512
"""Tokens of a training example of continued pre-training: long ones are slow on a CPU."""
SEED = 7
LINE_WIDTH = 40
"""Column at which the comments of the job file begin."""

FieldValue = str | int | float | Mapping[str, str]


@dataclass(frozen=True)
class FieldChoice:
    """A field of the job file (dotted), its value, and why it has this value."""

    field: str
    value: FieldValue
    reason: str


@dataclass
class DataSummary:
    """Counts of the records of all files."""

    records: int = 0
    characters: int = 0
    answers: Counter[str] | None = field(default_factory=Counter)
    """Distinct answers; None from 50 on, where they are no labels."""
    errors: int = 0

    def labels(self) -> int | None:
        """Return the number of labels, or None if the answers are free text."""
        answers = self.answers
        if not answers or len(answers) < 2 or self.records < 2 * len(answers):
            return None
        return len(answers)


@dataclass(frozen=True)
class DataJob:
    """A job file for somebody's data."""

    source: Path
    choices: tuple[FieldChoice, ...]
    errors: int
    """Records with errors, which `cloudft check` lists."""
    problem: CloudftError | None = None
    """Why nothing could be read, where `cloudft check --fix` repairs it: the fields are guesses."""

    def to_yaml(self) -> str:
        """Return the job file, each field with its reason as a comment."""
        lines = [
            f"# Written by `cloudft init --data {self.source}`.",
            "# Run: cloudft check && cloudft submit --wait",
        ]
        section = ""
        for choice in self.choices:
            prefix, _, name = choice.field.rpartition(".")
            if prefix != section:
                section = prefix
                lines += [f"{prefix}:"] if prefix else []
            text = f"{'  ' if prefix else ''}{name}: {format_value(choice.value)}"
            lines.append(f"{text:<{LINE_WIDTH}}  # {choice.reason}" if choice.reason else text)
        return "\n".join(lines) + "\n"


def plan_data_job(
    data: Path,
    folder: Path,
    *,
    customization_type: str | None = None,
    columns: Mapping[str, str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> DataJob:
    """Choose the fields of a job for `data`, a file or a folder of files.

    `folder` is where the job file will be. Raise CheckFailed for files that can't be read,
    UsageError for records in no known format, or of another kind than `customization_type`.
    """
    if not data.exists():
        fix = "name an existing file or folder; the path is relative to the current folder."
        raise UsageError(f"there is no file {data}", file=str(data), fix=fix)
    findings = Findings()
    sources = SourceResolver(Path.cwd(), findings).resolve("--data", [str(data)])
    _raise_on_errors(findings)
    try:
        detection = _detect(sources[0], columns or {}, customization_type, folder)
    except (CheckFailed, UsageError) as error:
        if FIX_COMMAND.rstrip("`") not in (error.fix or ""):
            raise
        # The repair needs a job file: an error here would lead in a circle.
        return _plan_unread_job(data, folder, customization_type, columns or {}, error)
    kind = _customization_type(detection, customization_type, sources[0])
    target = TEXT_TARGET if is_text_only(kind) else ""
    summary = _summarize(sources, detection.columns, progress, target)
    choices = (
        FieldChoice("name", _job_name(data), ""),
        FieldChoice("customization_type", kind, detection.evidence),
        _choose_model(),
        *_choose_data(data, folder, detection, summary),
        *_choose_hyperparameters(kind, summary, _count_examples(kind, summary)),
        FieldChoice("seed", SEED, "for the split and the order of the records"),
        *_choose_local(kind),
    )
    return DataJob(data, choices, summary.errors)


def _plan_unread_job(
    data: Path,
    folder: Path,
    customization_type: str | None,
    columns: Mapping[str, str],
    problem: CloudftError,
) -> DataJob:
    """Choose the fields of a job for data that `cloudft check --fix` has to repair first."""
    is_text = data.suffix in (".txt", ".md")
    kind = customization_type or ("CONTINUED_PRE_TRAINING" if is_text else "FINE_TUNING")
    choices = [
        FieldChoice("name", _job_name(data), ""),
        FieldChoice("customization_type", kind, "a guess: the data has to be repaired first"),
        _choose_model(),
        FieldChoice("data.train", _relative_path(data, folder), "not read yet"),
    ]
    if columns:
        choices.append(FieldChoice("data.columns", dict(columns), "your columns, by our names"))
    return DataJob(data, tuple(choices), 1, problem)


def write_data_job(job: DataJob, folder: Path) -> list[Path]:
    """Write the job file into `folder`, and return its path. Raise UsageError if one exists."""
    refuse_to_overwrite(folder, [Path(JOB_FILE)])
    with as_store_error(f"{folder} can't be written", folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / JOB_FILE).write_text(job.to_yaml(), encoding="utf-8")
    return [folder / JOB_FILE]


def _raise_on_errors(findings: Findings) -> None:
    if findings.count_errors():
        listed = findings.all()
        raise CheckFailed(next(f.message for f in listed if f.severity == "error"), listed)


def _detect(
    source: SourceFile, columns: Mapping[str, str], kind: str | None, folder: Path
) -> FileDetection:
    """Return what the file holds, with the columns that the user names or that are unmistakable.

    Raise CheckFailed when nothing can be read, UsageError for records in no known format.
    """
    findings = Findings()
    wants_answers = kind is None or is_labeled(kind)
    found = detect_file(source, findings, columns, is_labeled=wants_answers)
    if isinstance(found, FileDetection):
        return found
    if found is None:
        _raise_on_errors(findings)
        raise UsageError(f"{source.display_name} has no records", file=source.display_name)
    type_words = ["--type", kind] if kind else []
    words = ["cloudft", "init", str(folder), "--data", source.display_name, *type_words]
    raise UsageError(
        str(found),
        file=source.display_name,
        fix=for_command(complete_commands(found.fix, source), shlex.join(words), "--type"),
    )


def _customization_type(detection: FileDetection, requested: str | None, source: SourceFile) -> str:
    detected = "FINE_TUNING" if detection.format.is_labeled else "CONTINUED_PRE_TRAINING"
    if requested in (None, detected):
        return detected
    needs = "prompts with answers" if is_labeled(requested) else "text without answers"
    raise UsageError(
        f"{requested} needs {needs}; this is {detected} data ({detection.evidence})",
        file=source.display_name,
        fix=f"leave out --type, or name other data: --type {detected} fits this file.",
    )


def _summarize(
    sources: list[SourceFile],
    columns: Mapping[str, str],
    progress: Callable[[int], None] | None,
    target: str,
) -> DataSummary:
    """Read all records once, and count them."""
    findings = Findings()
    summary = DataSummary()
    for located in read_records(sources, findings, columns, progress, target):
        summary.records += 1
        record = located.record
        if isinstance(record, Conversation):
            answer = record.answer
            summary.characters += sum(len(t) for turn in record.turns for t in turn.all_texts)
            if summary.answers is not None:
                summary.answers[answer] += 1
                if len(summary.answers) > MAX_LABELS:
                    summary.answers = None
        else:
            summary.characters += len(record.text)
    summary.errors = findings.count_errors()
    if not summary.records:
        _raise_on_errors(findings)
    return summary


def _job_name(data: Path) -> str:
    """Return the file's name as a job name: letters, digits and single hyphens."""
    name = re.sub(r"[^a-zA-Z0-9]+", "-", data.name.split(".")[0]).strip("-")
    return name[:40].strip("-") or "my-job"


def _choose_model() -> FieldChoice:
    """Choose an open-weight model that is on this machine, the smallest first."""
    for model in sorted(
        (m for m in catalogue.load_models() if m.is_open_weight), key=lambda m: m.parameters or 0
    ):
        if any(present for _, present, _ in catalogue.find_weights(model)):
            return FieldChoice("base_model", model.alias, f"{model.title}: on this machine")
    reason = "a small open-weight model; it is downloaded on first use"
    return FieldChoice("base_model", DEFAULT_MODEL, reason)


def _choose_data(
    data: Path, folder: Path, detection: FileDetection, summary: DataSummary
) -> Iterator[FieldChoice]:
    tokens = estimate_tokens(summary.characters)
    labels = summary.labels()
    answers = f"; {labels} labels" if labels else ""
    size = f"{_count(summary.records, 'record')}, about {tokens:,} tokens{answers}"
    yield FieldChoice("data.train", _relative_path(data, folder), size)
    if detection.columns:
        yield FieldChoice("data.columns", dict(detection.columns), "your columns, by our names")
    if summary.records >= MIN_RECORDS_TO_SPLIT:
        count = round(summary.records * VALIDATION_SHARE)
        reason = f"a share of train: about {count:,} records that are never trained on"
        yield FieldChoice("data.validation", VALIDATION_SHARE, reason)


def _relative_path(data: Path, folder: Path) -> str:
    """Return the path from the job file's folder; absolute if that is not below a near parent."""
    path = Path(os.path.relpath(data.absolute(), folder.absolute()))
    return str(data.absolute()) if path.parts[:4] == ("..",) * 4 else path.as_posix()


def _count_examples(kind: str, summary: DataSummary) -> int:
    """Return the training examples: records, or the pieces into which texts are packed."""
    if is_text_only(kind):
        return math.ceil(estimate_tokens(summary.characters) / PACKED_LENGTH)
    return summary.records


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _choose_hyperparameters(
    kind: str, summary: DataSummary, examples: int
) -> Iterator[FieldChoice]:
    epochs = next((e for limit, e in EPOCHS_BY_RECORDS if examples < limit), 1)
    passes = "1 pass" if epochs == 1 else f"{epochs} passes"
    yield FieldChoice(
        "hyperparameters.epochCount", epochs, f"{passes} over {_count(summary.records, 'record')}"
    )
    batch = next((size for size in BATCH_SIZES if examples >= 10 * size), 1)
    yield FieldChoice("hyperparameters.batchSize", batch, "examples per optimizer step")
    rate = LEARNING_RATES[kind]
    yield FieldChoice("hyperparameters.learningRate", rate, "usual for LoRA on a small model")
    steps = math.ceil(examples / batch) * epochs
    warmup = min(100, steps // 20)
    reason = f"about 5 % of {_count(steps, 'step')}"
    yield FieldChoice("hyperparameters.learningRateWarmupSteps", warmup, reason)


def _choose_local(kind: str) -> Iterator[FieldChoice]:
    if is_text_only(kind):
        reason = "tokens per example; texts are joined and cut into these"
        yield FieldChoice("local.max_length", PACKED_LENGTH, reason)


def format_value(value: FieldValue) -> str:
    """Return the value as YAML. JSON's quoting is valid YAML, and safe for every text."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {format_value(v)}" for k, v in value.items()) + "}"
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z_./][\w./-]*", value)
        return value if plain else json.dumps(value, ensure_ascii=False)
    return f"{value:.6f}".rstrip("0") if isinstance(value, float) else str(value)
