"""Build what the playground shows and sends: its speakers, their questions, their test cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import orjson

from cloudft.backends import running_here
from cloudft.errors import UsageError
from cloudft.evaluate.inference.cached_inference import BASE, TUNED
from cloudft.inference import GenerationConfig
from cloudft.jobs.case_sets import CaseSets
from cloudft.jobs.conversation import Conversation
from cloudft.jobs.lifecycle import backend_for
from cloudft.storage.store import JobRecord
from cloudft.workbench.answer_runs import AnswerTask, interleave, turns_of

if TYPE_CHECKING:
    from cloudft.workbench.workbench import Workbench

MAX_JOBS = 2
MAX_NEW_TOKENS = 32_768


@dataclass(frozen=True)
class Speaker:
    """A model that has a pane of the page."""

    record: JobRecord
    variant: str
    is_billed: bool

    @property
    def title(self) -> str:
        """Return what the pane is called."""
        return f"{self.record.id}, {self.variant}"


def list_speakers(workbench: Workbench, references: Sequence[str]) -> list[Speaker]:
    """Return base and tuned model of one job, or the tuned models of two.

    Raise JobNotFound, UsageError.
    """
    names = list(dict.fromkeys(one for one in references if one))
    if len(names) > MAX_JOBS:
        raise UsageError(f"the playground has room for {MAX_JOBS} jobs", fix="leave one out.")
    records = [workbench.store.find_by_reference(name) for name in names]
    billed = [backend_for(record, workbench.home).inference_is_billed for record in records]
    if len(records) == 1:
        return [Speaker(records[0], variant, billed[0]) for variant in (BASE, TUNED)]
    return [Speaker(r, TUNED, is_billed) for r, is_billed in zip(records, billed, strict=True)]


def list_training(workbench: Workbench) -> list[str]:
    """Return the jobs that are training on this machine now: answers slow them down."""
    store = workbench.store
    return [job_id for job_id in store.job_ids() if running_here(store.jobs / job_id)]


def read_decoding(request: Mapping[str, Any]) -> GenerationConfig:
    """Return the decoding that a page has sent. Raise UsageError."""
    try:
        config = GenerationConfig(
            int(request["maxNewTokens"]),
            float(request["temperature"]),
            float(request["topP"]),
            int(request["seed"]),
        )
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise UsageError("the decoding is not made of numbers", fix="correct it.") from error
    fits = (
        1 <= config.max_new_tokens <= MAX_NEW_TOKENS
        and 0 <= config.temperature <= 2
        and 0 < config.top_p <= 1
        and 0 <= config.seed < 2**32
    )
    if not fits:
        raise UsageError(
            "the decoding is out of range",
            fix=f"use 1 to {MAX_NEW_TOKENS:,} tokens, a temperature of 0 to 2, top-p above 0 and up"
            " to 1, and a seed from 0.",
        )
    return config


def read_request(text: str) -> Mapping[str, Any]:
    """Return what a script has posted as JSON. Raise UsageError."""
    try:
        value = orjson.loads(text)  # which refuses half a surrogate pair: no file could hold it
    except ValueError as error:
        raise UsageError(f"the request is no JSON: {error}", fix="reload the page.") from error
    if not isinstance(value, dict):
        raise UsageError("the request is no JSON object", fix="reload the page.")
    return value


def read_jobs(request: Mapping[str, Any]) -> list[str]:
    """Return the jobs that a request names. Raise UsageError."""
    jobs = request.get("jobs", [])
    if not isinstance(jobs, list) or not all(isinstance(one, str) for one in jobs):
        raise UsageError("the jobs of the request are not a list of ids", fix="reload the page.")
    return jobs


def read_index(request: Mapping[str, Any]) -> int:
    """Return the number of the answer that a request is about. Raise UsageError."""
    index = request.get("index", 0)
    if not isinstance(index, int):
        raise UsageError("the answer has no number", fix="reload the page.")
    return index


def check_billing(workbench: Workbench, speakers: Sequence[Speaker], *, is_confirmed: bool) -> None:
    """Raise UsageError where answers would be billed that nobody has confirmed, or may confirm."""
    for speaker in speakers:
        if not speaker.is_billed:
            continue
        if workbench.read_only:
            raise UsageError(
                f"answers of {speaker.record.id} are billed, and this workbench is read-only",
                fix="start `cloudft ui` without --read-only.",
            )
        if not is_confirmed:
            raise UsageError(
                f"answers of {speaker.record.id} are billed", fix="confirm their price first."
            )


def make_tasks(
    workbench: Workbench, speakers: Sequence[Speaker], request: Mapping[str, Any]
) -> list[AnswerTask]:
    """Return the tasks of a question: of each speaker, after its own turns in the run `after`.

    Raise UsageError.
    """
    text, system = str(request.get("text", "")), str(request.get("system", ""))
    if not text.strip():
        raise UsageError("the prompt is empty", fix="write one.")
    before: Sequence[AnswerTask] = ()
    if request.get("after"):
        before = workbench.answers.get(str(request["after"])).tasks
        same = [(task.record.id, task.variant) for task in before]
        if same != [(one.record.id, one.variant) for one in speakers]:
            raise UsageError("this conversation is with other models", fix="begin a new one.")
    tasks = []
    for index, speaker in enumerate(speakers):
        conversation = Conversation.with_job(speaker.record, system)
        if before:
            conversation.turns = turns_of(before[index])
        conversation.add("user", text)
        prompt = conversation.to_prompt()
        tasks.append(AnswerTask(speaker.record, speaker.variant, prompt, conversation))
    return tasks


def make_case_tasks(
    workbench: Workbench, speakers: Sequence[Speaker], set_name: str
) -> tuple[list[str], list[AnswerTask]]:
    """Return the keys of a set's usable cases, and their tasks: case by case, each speaker.

    Raise UsageError for a set without cases.
    """
    found = CaseSets(workbench.home).load(set_name)
    cases = [case for case in found.cases if not case.problem]
    if not cases:
        raise UsageError(f"the set {set_name} has no test cases", fix="save one first.")
    parts = [
        [AnswerTask(one.record, one.variant, case.prompt) for case in cases] for one in speakers
    ]
    return [case.key for case in cases], interleave(parts)


def as_greedy(config: GenerationConfig) -> GenerationConfig:
    """Return the decoding of test cases: greedy, so that their answers can be compared."""
    return replace(config, temperature=0.0)
