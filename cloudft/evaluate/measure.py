"""One evaluation from end to end: base and tuned model, the same records, the same scorer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cloudft.backends.base import Asks, Backend, Decoding, Opens, OpensBatches, Progress
from cloudft.errors import UsageError
from cloudft.evaluate import hazards, language, supervised
from cloudft.evaluate.ask import BASE, TUNED, VARIANTS, Models, models
from cloudft.evaluate.evaluation import VERSION
from cloudft.evaluate.given import given_answers
from cloudft.evaluate.held_out import HeldOut, spec_of
from cloudft.evaluate.pitfalls.form import beyond_form
from cloudft.evaluate.tasks import Task, task_of
from cloudft.home import Home
from cloudft.store import Record, utc_now

FEW = 30
"""Below so many records an interval is wide, whatever the models do."""
SILENT = 0.5
"""From this share of empty answers on, a model is as good as silent."""


def open_models(record: Record, backend: Backend, *, batches: bool = False) -> Asks:
    """The job's models. Raises UsageError for a backend that can't be asked, or not so."""
    job_id = record.backend_job_id or record.id
    if batches:
        if not isinstance(backend, OpensBatches):
            raise UsageError(
                f"the models of a job on {record.backend} are not asked by batches",
                fix="leave --batch out.",
            )
        return backend.open_batches(job_id)
    if not isinstance(backend, Opens):
        raise UsageError(
            f"the models of a job on {record.backend} can't be asked",
            fix="give answers made elsewhere: cloudft evaluate JOB --answers FILE",
        )
    return backend.open(job_id)


def task_for(record: Record, held: HeldOut, wanted: str | None) -> Task:
    """What kind of answers the records have, as the job file or the data say."""
    spec = spec_of(record)
    return task_of(
        [item.reference for item in held.items],
        [item.reference for item in held.train],
        wanted=wanted or (spec.evaluate.task if spec else "auto"),
        labels=spec.evaluate.labels if spec else (),
    )


def decoding_of(record: Record, held: HeldOut, max_new_tokens: int | None) -> Decoding:
    """Greedy, the same for both models."""
    spec = spec_of(record)
    wanted = max_new_tokens or (spec.evaluate.max_new_tokens if spec else None)
    return supervised.decoding_for([item.reference for item in held.items], wanted)


def evaluate(
    record: Record,
    backend: Backend,
    home: Home,
    held: HeldOut,
    *,
    task: str | None = None,
    max_new_tokens: int | None = None,
    answers: Path | None = None,
    batches: bool = False,
    wanted: hazards.Wanted | None = None,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """The whole evaluation as JSON data, its records included. What was asked before is known.

    Raises JobStateConflict when both models are one, TrainerError, UsageError.
    """
    started, created = time.monotonic(), utc_now()
    wanted = wanted or hazards.Wanted()
    if answers is not None:
        found = _given(record, held, answers, task)
    else:
        with models(open_models(record, backend, batches=batches), home, progress) as asked:
            found = _asked(record, held, asked, task, max_new_tokens, wanted)
    pitfalls = hazards.from_curves(record, backend) if answers is None else {}
    found["pitfalls"] = hazards.as_json(pitfalls) | found.get("pitfalls", {})
    return {
        "version": VERSION,
        "job": record.id,
        "name": record.name,
        "backend": record.backend,
        "baseModel": record.base_model,
        "createdAt": created,
        "seconds": time.monotonic() - started,
        "data": {"files": list(held.files), "sha256": held.sha256, "role": held.role},
        **found,
        "warnings": [
            {"code": code, "message": message} for code, message in _warnings(held, found)
        ],
    }


def _given(record: Record, held: HeldOut, answers: Path, task: str | None) -> dict[str, Any]:
    if record.customization_type == "CONTINUED_PRE_TRAINING":
        raise UsageError(
            "answers tell nothing of a model that was pre-trained further",
            fix="leave --answers out.",
        )
    said = given_answers(answers, len(held.items))
    found = supervised.judged(task_for(record, held, task), held, said, {})
    return {**found, "identities": dict.fromkeys(VARIANTS), "decoding": None}


def _asked(
    record: Record,
    held: HeldOut,
    asked: Models,
    task: str | None,
    max_new_tokens: int | None,
    wanted: hazards.Wanted,
) -> dict[str, Any]:
    spec = spec_of(record)
    kind: Task | None = None
    decoding: Decoding | None = None
    if record.customization_type == "CONTINUED_PRE_TRAINING":
        found = language.judged(asked, held, hazards.general_texts(spec))
    else:
        kind = task_for(record, held, task)
        decoding = decoding_of(record, held, max_new_tokens)
        said, likely = supervised.ask_all(asked, held.items, decoding)
        found = supervised.judged(kind, held, said, likely)
    pitfalls = dict(hazards.from_questions(asked, held, kind, spec, wanted, decoding))
    if "form" in pitfalls:
        told = found["significance"]
        found["significance"] = beyond_form(told, pitfalls["form"].to_json())
    return {
        **found,
        "identities": dict(asked.identities),
        "decoding": _decoding(decoding),
        "asked": dict(asked.asked),
        "pitfalls": hazards.as_json(pitfalls),
    }


def _decoding(decoding: Decoding | None) -> dict[str, Any] | None:
    if decoding is None:
        return None
    return {
        "maxNewTokens": decoding.max_new_tokens,
        "temperature": decoding.temperature,
        "topP": decoding.top_p,
        "seed": decoding.seed,
    }


def _warnings(held: HeldOut, found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What makes the figures say less than they seem to."""
    yield from _of_the_data(held)
    if held.role == "validation":
        yield (
            "ValidationData",
            "the validation records chose the best weights in training, so the scores on them are"
            " too good; give records that nothing was chosen by (data.test, or --data)",
        )
    if len(held.items) < FEW:
        yield (
            "FewRecords",
            f"{len(held.items)} held-out records: what is not a large difference can't be told"
            " from chance",
        )
    yield from _of_the_answers(found)
    yield from _of_the_labels(held, found)


def _of_the_data(held: HeldOut) -> Iterator[tuple[str, str]]:
    if not held.train_known:
        yield "TrainUnknown", "the training records are gone, so no leak could be looked for"
    kinds = Counter(leak.kind for leak in held.leaks)
    exact = kinds["same record"] + kinds["same input"]
    if exact:
        first = next(leak for leak in held.leaks if leak.kind != "near input")
        yield (
            "LeakedTestSet",
            f"{exact} of {len(held.items)} held-out records were trained on"
            f" ({first.file}:{first.line} is {first.train_file}:{first.train_line}): the scores"
            " on them tell nothing of new input. `cloudft data leakage` lists them",
        )
    if kinds["near input"]:
        yield (
            "NearlyLeaked",
            f"{kinds['near input']} of {len(held.items)} held-out inputs are nearly the same as"
            " one that was trained on",
        )


def _of_the_answers(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in VARIANTS:
        if found[name].get("emptyShare", 0.0) >= SILENT:
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


def _of_the_labels(held: HeldOut, found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if found["task"] != "classification":
        return
    there = {item.reference.strip() for item in held.items}
    if len(there) == 1:
        yield (
            "OneLabel",
            f"every held-out record has the label {next(iter(there))[:40]!r}: a model that always"
            " says it would be right each time",
        )
    unseen = there - {item.reference.strip() for item in held.train}
    if held.train and unseen:
        some = ", ".join(repr(label[:40]) for label in sorted(unseen)[:3])
        yield "LabelsNeverSeen", f"{len(unseen)} held-out labels were never trained on: {some}"
