"""Evaluate one job: base and tuned model, the same records, the same scorer."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cloudft.backends.base import Backend
from cloudft.backends.capabilities import (
    ProgressCallback,
    SupportsBatchInference,
    SupportsExport,
    SupportsInference,
)
from cloudft.backends.export_options import ExportOptions
from cloudft.catalogue import is_preference, is_text_only
from cloudft.errors import UsageError
from cloudft.evaluate import language_modeling, reward_scores, supervised
from cloudft.evaluate.diagnostics.answer_format import qualify_verdict
from cloudft.evaluate.diagnostics.run import (
    DiagnosticOptions,
    diagnostics_to_json,
    load_general_texts,
    run_answer_diagnostics,
    run_curve_diagnostics,
)
from cloudft.evaluate.held_out import HeldOutData, spec_from_record
from cloudft.evaluate.inference.cached_inference import (
    VARIANTS,
    CachedInference,
    open_cached_inference,
)
from cloudft.evaluate.inference.external_answers import load_external_answers
from cloudft.evaluate.metrics.labels import normalize_text
from cloudft.evaluate.metrics.tasks import Task, detect_task
from cloudft.evaluate.preference import evaluate_preferences
from cloudft.evaluate.results import (
    FORMAT_VERSION,
    DiagnosticResult,
    EngineSummary,
    Evaluation,
    EvaluationScores,
    EvaluationWarning,
    GenerationSummary,
    InferenceFields,
    ScoredAnswer,
)
from cloudft.evaluate.teacher import score_teacher
from cloudft.grading import GraderConfig
from cloudft.inference import GenerationConfig, InferenceSession
from cloudft.runtimes.engines import EngineChoice, open_engine_session
from cloudft.runtimes.session import RuntimeSession
from cloudft.spec import JobSpec
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord, utc_now

DEFAULT_BETA = 0.1
"""Weight of a reward where the job file names none (preference.beta)."""
FEW_RECORDS = 30
"""With fewer records, intervals are wide whatever the models do."""
MOSTLY_EMPTY_SHARE = 0.5
"""From this share of empty answers, a model is reported as silent."""
TRUNCATED_SHARE = 0.1
"""Above this share of truncated answers, there is a warning."""
SHOWN_LABELS = 3


@dataclass(frozen=True)
class EvaluationOptions:
    """What to evaluate, and how.

    `task` and `max_new_tokens` override the job file; `answers` is a file with answers of another
    tool, which replaces inference; `batches` uses batch inference. `engine` answers for the tuned
    model instead of the job's own backend.
    """

    task: str | None = None
    max_new_tokens: int | None = None
    answers: Path | None = None
    batches: bool = False
    diagnostics: DiagnosticOptions = field(default_factory=DiagnosticOptions)
    engine: EngineChoice | None = None


def open_session(record: JobRecord, backend: Backend, *, batches: bool = False) -> InferenceSession:
    """Open the job's models. Raises UsageError for a backend without this kind of inference."""
    job_id = record.backend_job_id or record.id
    if batches:
        if not isinstance(backend, SupportsBatchInference):
            raise UsageError(
                f"jobs on {record.backend} have no batch inference",
                fix="omit --batch.",
            )
        return backend.open_batch_session(job_id)
    if not isinstance(backend, SupportsInference):
        raise UsageError(
            f"jobs on {record.backend} have no inference",
            fix="use answers of another tool: cloudft evaluate JOB --answers FILE",
        )
    return backend.open_session(job_id)


def open_models(
    record: JobRecord, backend: Backend, home: Home, options: EvaluationOptions
) -> InferenceSession:
    """Open what answers for the job's models by the options. Raise UsageError, TrainerError."""
    if options.engine is None:
        return open_session(record, backend, batches=options.batches)
    check_engine_task(record)

    def export(folder: Path, how: ExportOptions) -> object:
        if not isinstance(backend, SupportsExport):
            raise UsageError(
                f"a job on {record.backend} has no weights to export",
                fix="serve the model yourself and name its address: --engine openai:URL",
            )
        return backend.export(record.backend_job_id or record.id, folder, how)

    return open_engine_session(
        options.engine, record, home, lambda: open_session(record, backend), export
    )


def check_engine_task(record: JobRecord) -> None:
    """Raise UsageError for a job that is evaluated by log-likelihoods alone."""
    if is_text_only(record.customization_type) or is_preference(record.customization_type):
        raise UsageError(
            f"{record.id} is evaluated by the log-likelihoods of given texts"
            f" ({record.customization_type}), which OpenAI-compatible servers don't return",
            fix="omit --engine: the job's own backend computes them.",
        )


def summarize_engine(session: InferenceSession) -> EngineSummary | None:
    """Return what answers instead of the job's own backend; None where nothing does."""
    if not isinstance(session, RuntimeSession):
        return None
    model = session.served["tuned"]
    return {
        "name": session.engine,
        "version": model.version,
        "model": model.title,
        "place": model.place,
        "variants": sorted(session.served),
    }


def detect_job_task(record: JobRecord, held_out: HeldOutData, requested: str | None) -> Task:
    """Return the requested task, or that of the job file, or the one that the data shows."""
    spec = spec_from_record(record)
    return detect_task(
        [example.reference for example in held_out.examples],
        [example.reference for example in held_out.train_examples],
        requested=requested or (spec.evaluate.task if spec else "auto"),
        labels=spec.evaluate.labels if spec else (),
    )


def job_generation_config(
    record: JobRecord, held_out: HeldOutData, max_new_tokens: int | None
) -> GenerationConfig:
    """Return greedy decoding, the same for both models."""
    spec = spec_from_record(record)
    limit = max_new_tokens or (spec.evaluate.max_new_tokens if spec else None)
    if limit is None and spec is not None and spec.reinforcement is not None:
        limit = _rollout_length(spec)
    return supervised.default_generation_config(held_out.examples, limit)


def _rollout_length(spec: JobSpec) -> int | None:
    """Return how many tokens the answers had in training, as far as an evaluation samples."""
    assert spec.reinforcement is not None
    given = {**spec.reinforcement.hyperparameters, **spec.local.hyperparameters}
    named = given.get("inferenceMaxTokens")
    return min(int(named), supervised.MAX_NEW_TOKENS) if isinstance(named, int | float) else None


def find_grader(record: JobRecord, requested: str | None) -> GraderConfig | None:
    """Return the grader that the answers are scored by; None where a task is requested instead."""
    spec = spec_from_record(record)
    named = requested or (spec.evaluate.task if spec else "auto")
    return reward_scores.job_grader(record) if named == "auto" else None


def count_missing_answers(
    record: JobRecord,
    backend: Backend,
    home: Home,
    held_out: HeldOutData,
    options: EvaluationOptions,
) -> int:
    """Return how many answers `evaluate_job` would have models generate. Nothing is generated."""
    if options.answers is not None or is_preference(record.customization_type):
        return 0
    config = job_generation_config(record, held_out, options.max_new_tokens)
    prompts = [example.prompt for example in held_out.examples]
    session = open_models(record, backend, home, options)
    with open_cached_inference(session, home, lambda label, done, total: None) as models:
        return sum(models.count_missing_answers(prompts, name, config) for name in VARIANTS)


def evaluate_job(
    record: JobRecord,
    backend: Backend,
    home: Home,
    held_out: HeldOutData,
    options: EvaluationOptions,
    progress: ProgressCallback = lambda label, done, total: None,
) -> Evaluation:
    """Return the whole evaluation, including its records. Cached answers are not generated again.

    Raises JobStateConflict when both models are the same, TrainerError, UsageError.
    """
    started, created = time.monotonic(), utc_now()
    scores: EvaluationScores
    inference: InferenceFields
    diagnostics: dict[str, DiagnosticResult] = {}
    if options.answers is not None:
        scores = _score_external_answers(record, held_out, home, options)
        inference = {"identities": dict.fromkeys(VARIANTS), "decoding": None}
    else:
        session = open_models(record, backend, home, options)
        engine = summarize_engine(session)
        with open_cached_inference(session, home, progress) as models:
            grader = find_grader(record, options.task)
            if grader is None:
                scores, inference = _run_models(record, held_out, models, options)
            else:
                scores, inference = _run_graded(record, held_out, models, options, (grader, home))
        if engine is not None:
            inference["engine"] = engine
            _leave_out_unknown(scores, engine)
        _add_teacher(record, backend, home, held_out, options, scores, progress)
        diagnostics = diagnostics_to_json(run_curve_diagnostics(record, backend))
    diagnostics |= inference.get("pitfalls", {})
    return {
        "version": FORMAT_VERSION,
        "job": record.id,
        "name": record.name,
        "backend": record.backend,
        "baseModel": record.base_model,
        "createdAt": created,
        "seconds": time.monotonic() - started,
        "data": {"files": list(held_out.files), "sha256": held_out.sha256, "role": held_out.role},
        **scores,
        **inference,
        "pitfalls": diagnostics,
        "warnings": list(find_warnings(held_out, scores)),
    }


def _leave_out_unknown(scores: EvaluationScores, engine: EngineSummary) -> None:
    """Leave out the metrics that need what servers don't return, or count otherwise."""
    omitted = scores.setdefault("omitted", [])
    name = "the server" if engine["name"] == "openai" else engine["name"]
    reason = f"{name} returns no log-probabilities of given texts"
    omitted.append({"metric": "referenceLoss", "reason": reason})
    if "base" not in engine["variants"] and "answerTokens" in scores["base"]:
        for figures in (scores["base"], scores["tuned"], scores["delta"]):
            figures.pop("answerTokens", None)
        reason = "servers count the end token too, so the two models' numbers don't compare"
        omitted.append({"metric": "answerTokens", "reason": reason})


def _add_teacher(
    record: JobRecord,
    backend: Backend,
    home: Home,
    held_out: HeldOutData,
    options: EvaluationOptions,
    scores: EvaluationScores,
    progress: ProgressCallback,
) -> None:
    """Add a teacher's figures to the scores of a distillation whose teacher is on this machine."""
    if record.customization_type != "DISTILLATION":
        return
    task = detect_job_task(record, held_out, options.task)
    config = job_generation_config(record, held_out, options.max_new_tokens)
    found = score_teacher(record, backend, home, held_out, task, config, scores, progress)
    if found is not None:
        scores["teacher"] = found


def _score_external_answers(
    record: JobRecord, held_out: HeldOutData, home: Home, options: EvaluationOptions
) -> EvaluationScores:
    if is_preference(record.customization_type):
        raise UsageError(
            "answers can't evaluate a model after preference optimization: both answers of each"
            " pair are given, and the models say which is likelier",
            fix="omit --answers.",
        )
    assert options.answers is not None
    if is_text_only(record.customization_type):
        raise UsageError(
            "answers can't evaluate a model after continued pre-training",
            fix="omit --answers.",
        )
    answers = load_external_answers(options.answers, len(held_out.examples))
    grader = find_grader(record, options.task)
    if grader is not None:
        return reward_scores.evaluate_rewards(
            held_out, answers, grader, home, lambda label, done, total: None
        )
    task = detect_job_task(record, held_out, options.task)
    return supervised.evaluate_supervised(task, held_out, answers, {})


def _run_graded(
    record: JobRecord,
    held_out: HeldOutData,
    models: CachedInference,
    options: EvaluationOptions,
    grading: tuple[GraderConfig, Home],
) -> tuple[EvaluationScores, InferenceFields]:
    """Run both models, have the job's grader score their answers, and run the diagnostics."""
    config = job_generation_config(record, held_out, options.max_new_tokens)
    prompts = [example.prompt for example in held_out.examples]
    answers = {name: models.generate_answers("answers", prompts, name, config) for name in VARIANTS}
    scores = reward_scores.evaluate_rewards(held_out, answers, *grading, models.progress)
    spec = spec_from_record(record)
    # Without a task: what an answer should be is the grader's to say.
    found = run_answer_diagnostics(models, held_out, None, spec, options.diagnostics, None)
    return scores, {
        "identities": {**models.identities},
        "decoding": _config_to_json(config),
        "asked": dict(models.generated_counts),
        "pitfalls": diagnostics_to_json(dict(found)),
    }


def _run_models(
    record: JobRecord, held_out: HeldOutData, models: CachedInference, options: EvaluationOptions
) -> tuple[EvaluationScores, InferenceFields]:
    """Run both models, score their answers and run the diagnostics."""
    spec = spec_from_record(record)
    task: Task | None = None
    config: GenerationConfig | None = None
    if is_text_only(record.customization_type):
        scores = language_modeling.evaluate_language_modeling(
            models, held_out, load_general_texts(spec)
        )
    elif is_preference(record.customization_type):
        beta = spec.preference.beta if spec and spec.preference else DEFAULT_BETA
        scores = evaluate_preferences(models, held_out, beta)
        return scores, {
            "identities": {**models.identities},
            "decoding": None,
            "asked": dict(models.generated_counts),
            "pitfalls": {},
        }
    else:
        task = detect_job_task(record, held_out, options.task)
        config = job_generation_config(record, held_out, options.max_new_tokens)
        answers, likelihoods = supervised.generate_all_answers(models, held_out.examples, config)
        scores = supervised.evaluate_supervised(task, held_out, answers, likelihoods)
    diagnostics = dict(
        run_answer_diagnostics(models, held_out, task, spec, options.diagnostics, config)
    )
    if "form" in diagnostics:
        scores["significance"] = qualify_verdict(
            scores["significance"], diagnostics["form"].to_json()
        )
    return scores, {
        "identities": {**models.identities},
        "decoding": _config_to_json(config),
        "asked": dict(models.generated_counts),
        "pitfalls": diagnostics_to_json(diagnostics),
    }


def _config_to_json(config: GenerationConfig | None) -> GenerationSummary | None:
    if config is None:
        return None
    return {
        "maxNewTokens": config.max_new_tokens,
        "temperature": config.temperature,
        "topP": config.top_p,
        "seed": config.seed,
    }


def find_warnings(held_out: HeldOutData, scores: EvaluationScores) -> Iterator[EvaluationWarning]:
    """Yield the reasons why the figures may be misleading."""
    yield from find_data_warnings(held_out)
    if held_out.role == "validation":
        yield {
            "code": "ValidationData",
            "message": "training selected the best weights by the validation records, so their"
            " scores are too good; use records that were not used for selection (data.test, or"
            " --data)",
        }
    if len(held_out.examples) < FEW_RECORDS:
        yield {
            "code": "FewRecords",
            "message": f"with {len(held_out.examples)} held-out records, only large differences"
            " are statistically significant",
        }
    yield from _answer_warnings(scores)
    yield from _label_warnings(held_out, scores)


def find_data_warnings(held_out: HeldOutData) -> Iterator[EvaluationWarning]:
    """Yield what is wrong with the held-out records themselves: known before any inference."""
    if not held_out.has_train_data:
        message = "the training records were deleted, so leakage could not be checked"
        yield {"code": "TrainUnknown", "message": message}
    kinds = Counter(leak.kind for leak in held_out.leaks)
    exact = kinds["same record"] + kinds["same input"]
    if exact:
        first = next(leak for leak in held_out.leaks if leak.kind != "near input")
        yield {
            "code": "LeakedTestSet",
            "message": f"{exact} of {len(held_out.examples)} held-out records are training records"
            f" ({first.file}:{first.line} is {first.train_file}:{first.train_line}): their scores"
            " say nothing about new input. `cloudft data leakage` lists them",
        }
    if kinds["near input"]:
        yield {
            "code": "NearlyLeaked",
            "message": f"{kinds['near input']} of {len(held_out.examples)} held-out inputs are near"
            " duplicates of training inputs",
        }


def _answer_warnings(scores: EvaluationScores) -> Iterator[EvaluationWarning]:
    for name in VARIANTS:
        empty = scores[name].get("emptyShare") or 0.0
        if empty >= MOSTLY_EMPTY_SHARE:
            message = f"{empty:.0%} of the {name} model's answers are empty"
            yield {"code": "EmptyAnswers", "message": message}
    truncated = scores["tuned"].get("cutShare") or 0.0
    if truncated > TRUNCATED_SHARE:
        yield {
            "code": "AnswersCut",
            "message": f"{truncated:.0%} of the tuned model's answers were truncated at the token"
            " limit; increase evaluate.max_new_tokens",
        }
    if all(_is_same_text(record["base"], record["tuned"]) for record in scores["records"]):
        yield {"code": "SameAnswers", "message": "both models give the same answer to every record"}


def _is_same_text(base: ScoredAnswer, tuned: ScoredAnswer) -> bool:
    return "text" in base and base.get("text") == tuned.get("text")


def _label_warnings(held_out: HeldOutData, scores: EvaluationScores) -> Iterator[EvaluationWarning]:
    if scores["task"] != "classification":
        return
    labels = {normalize_text(example.reference) for example in held_out.examples}
    if len(labels) == 1:
        yield {
            "code": "OneLabel",
            "message": f"every held-out record has the label {next(iter(labels))[:40]!r}: a model"
            " that always answers it would be right each time",
        }
    unseen = labels - {normalize_text(example.reference) for example in held_out.train_examples}
    if held_out.train_examples and unseen:
        some = ", ".join(repr(label[:40]) for label in sorted(unseen)[:SHOWN_LABELS])
        yield {
            "code": "LabelsNeverSeen",
            "message": f"{len(unseen)} held-out labels do not occur in the training data: {some}",
        }
