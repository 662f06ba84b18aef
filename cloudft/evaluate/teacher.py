"""Score the teacher of a distillation on the records that its student is evaluated on."""

from __future__ import annotations

from dataclasses import replace

from cloudft.backends.base import Backend
from cloudft.backends.capabilities import ProgressCallback, SupportsInference
from cloudft.backends.teacher import find_teacher
from cloudft.catalogue import DEFAULT_CUSTOMIZATION_TYPE
from cloudft.errors import CloudftError
from cloudft.evaluate import supervised
from cloudft.evaluate.held_out import HeldOutData
from cloudft.evaluate.inference.cached_inference import BASE, open_cached_inference
from cloudft.evaluate.metrics.tasks import Task
from cloudft.evaluate.results import EvaluationScores
from cloudft.inference import GenerationConfig
from cloudft.spec.load import LoadedJob, load_spec
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord


def score_teacher(
    record: JobRecord,
    backend: Backend,
    home: Home,
    held_out: HeldOutData,
    task: Task,
    config: GenerationConfig,
    scores: EvaluationScores,
    progress: ProgressCallback,
) -> dict[str, float | None] | None:
    """Return the metrics of a teacher on this machine, with the same decoding as both models.

    Return None for a job without one, and where the teacher is not here any more.
    """
    job = _teacher_job(record)
    if job is None or not isinstance(backend, SupportsInference):
        return None
    prompts = [example.prompt for example in held_out.examples]
    session = backend.open_base_session(job)
    with open_cached_inference(session, home, progress, variants=[BASE]) as models:
        answers = models.generate_answers("the teacher's answers", prompts, BASE, config)
    return supervised.score_answers(task, held_out, answers, scores["base"].keys())


def _teacher_job(record: JobRecord) -> LoadedJob | None:
    """Return a job whose base model is the teacher, if that is a model on this machine."""
    if record.customization_type != "DISTILLATION":
        return None
    try:
        job = load_spec(dict(record.spec))
        teacher = find_teacher(job)
    except CloudftError:
        return None
    if teacher is None or not teacher.is_open_weight:
        return None
    changes = {
        "base_model": teacher.alias,
        "customization_type": DEFAULT_CUSTOMIZATION_TYPE,
        "local": job.spec.local.model_copy(update={"model": None}),
    }
    return replace(job, spec=job.spec.model_copy(update=changes), model=teacher)
