"""One evaluation from end to end: base and tuned model, the same records, the same scorer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cloudft.backends.base import Backend
from cloudft.backends.capabilities import (
    ProgressCallback,
    SupportsBatchInference,
    SupportsInference,
)
from cloudft.catalogue import is_text_only
from cloudft.errors import UsageError
from cloudft.evaluate import language_modeling, supervised
from cloudft.evaluate.diagnostics import run
from cloudft.evaluate.diagnostics.answer_format import qualify_verdict
from cloudft.evaluate.held_out import HeldOutData, spec_from_record
from cloudft.evaluate.inference.cached_inference import (
    BASE,
    TUNED,
    VARIANTS,
    CachedInference,
    open_cached_inference,
)
from cloudft.evaluate.inference.external_answers import load_external_answers
from cloudft.evaluate.metrics.tasks import Task, detect_task
from cloudft.evaluate.results import FORMAT_VERSION
from cloudft.inference import GenerationConfig, InferenceSession
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord, utc_now

FEW_RECORDS = 30
"""Below so many records an interval is wide, whatever the models do."""
MOSTLY_EMPTY_SHARE = 0.5
"""From this share of empty answers on, a model is as good as silent."""


def open_session(record: JobRecord, backend: Backend, *, batches: bool = False) -> InferenceSession:
    """The job's models. Raises UsageError for a backend that can't be asked, or not so."""
    job_id = record.backend_job_id or record.id
    if batches:
        if not isinstance(backend, SupportsBatchInference):
            raise UsageError(
                f"the models of a job on {record.backend} are not asked by batches",
                fix="leave --batch out.",
            )
        return backend.open_batch_session(job_id)
    if not isinstance(backend, SupportsInference):
        raise UsageError(
            f"the models of a job on {record.backend} can't be asked",
            fix="give answers made elsewhere: cloudft evaluate JOB --answers FILE",
        )
    return backend.open_session(job_id)


def detect_job_task(record: JobRecord, held: HeldOutData, requested: str | None) -> Task:
    """What kind of answers the records have, as the job file or the data say."""
    spec = spec_from_record(record)
    return detect_task(
        [item.reference for item in held.examples],
        [item.reference for item in held.train_examples],
        requested=requested or (spec.evaluate.task if spec else "auto"),
        labels=spec.evaluate.labels if spec else (),
    )


def job_generation_config(
    record: JobRecord, held: HeldOutData, max_new_tokens: int | None
) -> GenerationConfig:
    """Greedy, the same for both models."""
    spec = spec_from_record(record)
    wanted = max_new_tokens or (spec.evaluate.max_new_tokens if spec else None)
    return supervised.default_generation_config([item.reference for item in held.examples], wanted)


def evaluate_job(
    record: JobRecord,
    backend: Backend,
    home: Home,
    held: HeldOutData,
    *,
    task: str | None = None,
    max_new_tokens: int | None = None,
    answers: Path | None = None,
    batches: bool = False,
    options: run.DiagnosticOptions | None = None,
    progress: ProgressCallback = lambda what, done, total: None,
) -> dict[str, Any]:
    """The whole evaluation as JSON data, its records included. What was asked before is known.

    Raises JobStateConflict when both models are one, TrainerError, UsageError.
    """
    started, created = time.monotonic(), utc_now()
    options = options or run.DiagnosticOptions()
    if answers is not None:
        found = _evaluate_external_answers(record, held, answers, task)
    else:
        with open_cached_inference(
            open_session(record, backend, batches=batches), home, progress
        ) as asked:
            found = _evaluate_models(record, held, asked, task, max_new_tokens, options)
    pitfalls = run.run_curve_diagnostics(record, backend) if answers is None else {}
    found["pitfalls"] = run.diagnostics_to_json(pitfalls) | found.get("pitfalls", {})
    return {
        "version": FORMAT_VERSION,
        "job": record.id,
        "name": record.name,
        "backend": record.backend,
        "baseModel": record.base_model,
        "createdAt": created,
        "seconds": time.monotonic() - started,
        "data": {"files": list(held.files), "sha256": held.sha256, "role": held.role},
        **found,
        "warnings": [
            {"code": code, "message": message} for code, message in _find_warnings(held, found)
        ],
    }


def _evaluate_external_answers(
    record: JobRecord, held: HeldOutData, answers: Path, task: str | None
) -> dict[str, Any]:
    if is_text_only(record.customization_type):
        raise UsageError(
            "answers tell nothing of a model that was pre-trained further",
            fix="leave --answers out.",
        )
    said = load_external_answers(answers, len(held.examples))
    found = supervised.evaluate_supervised(detect_job_task(record, held, task), held, said, {})
    return {**found, "identities": dict.fromkeys(VARIANTS), "decoding": None}


def _evaluate_models(
    record: JobRecord,
    held: HeldOutData,
    asked: CachedInference,
    task: str | None,
    max_new_tokens: int | None,
    wanted: run.DiagnosticOptions,
) -> dict[str, Any]:
    spec = spec_from_record(record)
    kind: Task | None = None
    decoding: GenerationConfig | None = None
    if is_text_only(record.customization_type):
        found = language_modeling.evaluate_language_modeling(
            asked, held, run.load_general_texts(spec)
        )
    else:
        kind = detect_job_task(record, held, task)
        decoding = job_generation_config(record, held, max_new_tokens)
        said, likely = supervised.generate_all_answers(asked, held.examples, decoding)
        found = supervised.evaluate_supervised(kind, held, said, likely)
    pitfalls = dict(run.run_answer_diagnostics(asked, held, kind, spec, wanted, decoding))
    if "form" in pitfalls:
        told = found["significance"]
        found["significance"] = qualify_verdict(told, pitfalls["form"].to_json())
    return {
        **found,
        "identities": dict(asked.identities),
        "decoding": _config_to_json(decoding),
        "asked": dict(asked.generated_counts),
        "pitfalls": run.diagnostics_to_json(pitfalls),
    }


def _config_to_json(decoding: GenerationConfig | None) -> dict[str, Any] | None:
    if decoding is None:
        return None
    return {
        "maxNewTokens": decoding.max_new_tokens,
        "temperature": decoding.temperature,
        "topP": decoding.top_p,
        "seed": decoding.seed,
    }


def _find_warnings(held: HeldOutData, found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What makes the figures say less than they seem to."""
    yield from _data_warnings(held)
    if held.role == "validation":
        yield (
            "ValidationData",
            "the validation records chose the best weights in training, so the scores on them are"
            " too good; give records that nothing was chosen by (data.test, or --data)",
        )
    if len(held.examples) < FEW_RECORDS:
        yield (
            "FewRecords",
            f"{len(held.examples)} held-out records: what is not a large difference can't be told"
            " from chance",
        )
    yield from _answer_warnings(found)
    yield from _label_warnings(held, found)


def _data_warnings(held: HeldOutData) -> Iterator[tuple[str, str]]:
    if not held.has_train_data:
        yield "TrainUnknown", "the training records are gone, so no leak could be looked for"
    kinds = Counter(leak.kind for leak in held.leaks)
    exact = kinds["same record"] + kinds["same input"]
    if exact:
        first = next(leak for leak in held.leaks if leak.kind != "near input")
        yield (
            "LeakedTestSet",
            f"{exact} of {len(held.examples)} held-out records were trained on"
            f" ({first.file}:{first.line} is {first.train_file}:{first.train_line}): the scores"
            " on them tell nothing of new input. `cloudft data leakage` lists them",
        )
    if kinds["near input"]:
        yield (
            "NearlyLeaked",
            f"{kinds['near input']} of {len(held.examples)} held-out inputs are nearly the same as"
            " one that was trained on",
        )


def _answer_warnings(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in VARIANTS:
        if found[name].get("emptyShare", 0.0) >= MOSTLY_EMPTY_SHARE:
            share = found[name]["emptyShare"]
            yield (
                "EmptyAnswers",
                f"{share:.0%} of the {name} model's answers are nothing but white space",
            )
        if found[name].get("cutShare", 0.0) > 0.1 and name == TUNED:
            yield (
                "AnswersCut",
                f"{found[name]['cutShare']:.0%} of the tuned model's answers ran out of tokens;"
                " evaluate.max_new_tokens gives them more",
            )
    same = all(
        record[BASE].get("text") == record[TUNED].get("text") and "text" in record[BASE]
        for record in found["records"]
    )
    if same:
        yield "SameAnswers", "both models answer every record alike"


def _label_warnings(held: HeldOutData, found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if found["task"] != "classification":
        return
    there = {item.reference.strip() for item in held.examples}
    if len(there) == 1:
        yield (
            "OneLabel",
            f"every held-out record has the label {next(iter(there))[:40]!r}: a model that always"
            " says it would be right each time",
        )
    unseen = there - {item.reference.strip() for item in held.train_examples}
    if held.train_examples and unseen:
        some = ", ".join(repr(label[:40]) for label in sorted(unseen)[:3])
        yield "LabelsNeverSeen", f"{len(unseen)} held-out labels were never trained on: {some}"
