"""The answers of a teacher that are there before a job is submitted: of a file, or of Bedrock.

What Bedrock answered is kept in CLOUDFT_HOME/answers as it arrives, by model, settings and prompt,
so an interrupted or repeated submit pays for no prompt twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any

from cloudft.backends import make_backend
from cloudft.backends.answer_cache import AnswerCache, CachedResult, cache_key, prompt_to_json
from cloudft.backends.base import Backend, StagedJob
from cloudft.backends.capabilities import SupportsInference
from cloudft.backends.findings import FindingFactory
from cloudft.backends.observer import RunObserver
from cloudft.backends.teacher import find_bedrock_teacher, find_teacher, response_length, teacher_id
from cloudft.catalogue import Model
from cloudft.data.staging.answered import Message, complete, read_answers, unanswered_records
from cloudft.errors import CheckFailed
from cloudft.inference import FILTERED, GenerationConfig, InferenceSession, Prompt
from cloudft.spec.load import LoadedJob
from cloudft.storage.home import Home
from cloudft.types import Finding

AT_ONCE = 4
"""Prompts that are under way at a time: a kill loses the answers to these at most."""
NAMED_PROMPTS = 5


def check_given_answers(job: LoadedJob) -> tuple[Finding, ...]:
    """Return the errors in the files of `distillation.answers`."""
    try:
        _read_given(job)
    except CheckFailed as error:
        return tuple(error.findings)
    return ()


def _read_given(job: LoadedJob) -> dict[str, Message]:
    """Return the answers of `distillation.answers` by prompt. Raise CheckFailed."""
    section = job.spec.distillation
    if job.spec.customization_type != "DISTILLATION" or section is None or not section.answers:
        return {}
    columns = {str(name): column for name, column in job.spec.data.columns.items()}
    return read_answers(job.base_dir, section.answers, columns)


def use_given_answers(staged: StagedJob, home: Home) -> StagedJob:
    """Return the staged job with the answers of `distillation.answers`.

    Raise CheckFailed where a prompt has none and there is no teacher, and for faulty files.
    """
    job, answers = staged.job, _read_given(staged.job)
    if not answers:
        return staged
    staged = _completed(staged, answers, home)
    missing = list(unanswered_records(staged.folder, staged.manifest).values())
    if missing and find_teacher(job) is None:
        message = f"{len(missing)} prompts have no answer in distillation.answers"
        message += f" (the first: {missing[0].place})"
        fix = (
            "add their answers to the file, or name a distillation.teacher for them; a prompt must"
            " be the same text, system prompt included."
        )
        raise _failed(job, "PromptsUnanswered", "distillation.answers", message, fix)
    return staged


def count_missing(staged: StagedJob, backend: Backend) -> int:
    """Return how many prompts Bedrock's teacher has to answer before the job can start."""
    if backend.calls_teacher or find_bedrock_teacher(staged.job) is None:
        return 0
    return len(unanswered_records(staged.folder, staged.manifest))


def use_cached_answers(staged: StagedJob, backend: Backend, home: Home) -> StagedJob:
    """Return the staged job with the answers that Bedrock's teacher gave before. Call no model."""
    return staged if backend.calls_teacher else _with_answers(staged, home, None)


def collect_answers(staged: StagedJob, home: Home, observer: RunObserver) -> StagedJob:
    """Return the staged job with an answer to every prompt; let Bedrock answer those without.

    Raise CheckFailed for prompts that the teacher refuses, CloudRefused, CloudUnreachable. What was
    answered until then is kept.
    """
    return _with_answers(staged, home, observer)


def _with_answers(staged: StagedJob, home: Home, observer: RunObserver | None) -> StagedJob:
    teacher = find_bedrock_teacher(staged.job)
    unanswered = unanswered_records(staged.folder, staged.manifest)
    if teacher is None or not unanswered:
        return staged
    records = {key: one.record for key, one in unanswered.items()}
    config = _decoding(staged.job)
    with (
        closing(_open_teacher(staged.job, teacher, home)) as session,
        AnswerCache(home.answers, session.answer_keys()["base"]) as cache,
    ):
        if observer is not None:
            _answer_missing(session, list(records.values()), config, cache, observer)
        found = {key: cache.get(_cache_key(record, config)) for key, record in records.items()}
    known = {key: result for key, result in found.items() if result is not None}
    refused = [unanswered[key].place for key, one in known.items() if not _is_usable(one)]
    if refused:
        raise _refusal(staged.job, teacher, refused, len(known))
    answers = {key: _message(result) for key, result in known.items()}
    return _completed(staged, answers, home) if answers else staged


def _open_teacher(job: LoadedJob, teacher: Model, home: Home) -> InferenceSession:
    """Return the teacher on demand, called by the id that the job file has or its Region wants."""
    spec = job.spec.model_copy(update={"base_model": teacher_id(job, teacher)})
    other = replace(job, spec=spec, model=teacher)
    backend = make_backend("bedrock", home).for_job(other)
    assert isinstance(backend, SupportsInference)
    return backend.open_base_session(other)


def _decoding(job: LoadedJob) -> GenerationConfig:
    section = job.spec.distillation
    assert section is not None
    return GenerationConfig(response_length(job), section.temperature, 1.0, job.spec.seed)


def _to_prompt(record: Mapping[str, Any]) -> Prompt:
    system = [{"role": "system", "content": block["text"]} for block in record.get("system", ())]
    messages = [{"role": m["role"], "content": m["content"]} for m in record["messages"]]
    return Prompt(messages=(*system, *messages), tool_config=record.get("toolConfig"))


def _cache_key(record: Mapping[str, Any], config: GenerationConfig) -> str:
    return cache_key("answer", prompt_to_json(_to_prompt(record)), asdict(config))


def _answer_missing(
    session: InferenceSession,
    records: Sequence[Mapping[str, Any]],
    config: GenerationConfig,
    cache: AnswerCache,
    observer: RunObserver,
) -> None:
    """Send the prompts that are not cached, and keep each answer the moment it is there."""
    missing = [one for one in records if cache.get(_cache_key(one, config)) is None]

    def answer(record: Mapping[str, Any]) -> None:
        [reply] = session.generate([_to_prompt(record)], ["base"], config)
        result = CachedResult(reply.tokens, text=reply.text, finish_reason=reply.finish_reason)
        cache.put(_cache_key(record, config), result)

    pool = ThreadPoolExecutor(AT_ONCE)
    try:
        pending = [pool.submit(answer, record) for record in missing]
        for done, future in enumerate(as_completed(pending), 1):
            future.result()
            observer.on_progress("the teacher answers", done, len(missing))
    finally:
        # Those under way end and are kept: they are paid.
        pool.shutdown(wait=True, cancel_futures=True)


def _refusal(job: LoadedJob, teacher: Model, places: Sequence[str], answered: int) -> CheckFailed:
    """Return the error for answers that are empty or that a filter of Bedrock has replaced."""
    more = f" and {len(places) - NAMED_PROMPTS} more" if len(places) > NAMED_PROMPTS else ""
    message = (
        f"{teacher.alias} refused {len(places)} of {answered} prompts (its answer is empty or"
        f" filtered): {', '.join(places[:NAMED_PROMPTS])}{more}"
    )
    fix = (
        "give these prompts answers of your own (in the data or in distillation.answers), leave"
        " them out, or name another teacher; the other answers are kept and paid once."
    )
    return _failed(job, "TeacherRefuses", "distillation.teacher", message, fix)


def _is_usable(result: CachedResult) -> bool:
    return bool((result.text or "").strip()) and result.finish_reason != FILTERED


def _message(result: CachedResult) -> Message:
    return {"role": "assistant", "content": [{"text": result.text}]}


def _completed(staged: StagedJob, answers: Mapping[str, Message], home: Home) -> StagedJob:
    folder, manifest = complete(staged.folder, staged.manifest, answers, home.staged)
    return replace(staged, folder=folder, manifest=manifest)


def _failed(job: LoadedJob, code: str, field: str, message: str, fix: str) -> CheckFailed:
    found: Finding = FindingFactory(job)(code, field, message, fix)
    return CheckFailed(message, (found,))
