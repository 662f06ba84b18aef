"""Generate answers for a page in the background, and keep them for its questions about them."""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloudft.errors import CloudftError, JobStateConflict, UsageError
from cloudft.inference import (
    CANCELED,
    AnswerDelta,
    GenerationConfig,
    InferenceSession,
    Prompt,
    SupportsStreaming,
    SupportsTokens,
    stream_or_generate,
)
from cloudft.jobs.conversation import Conversation
from cloudft.storage.store import JobRecord
from cloudft.workbench.model_pool import ModelPool

MAX_KEPT = 60
"""Runs of which a page may still ask something."""
ENDED = ("done", "failed")


@dataclass
class AnswerTask:
    """One answer: who gives it, to what, and what there is of it so far.

    `state` goes from `waiting` over `loading` and `answering` to `done` or `failed`.
    """

    record: JobRecord
    variant: str
    prompt: Prompt
    conversation: Conversation | None = None
    state: str = "waiting"
    text: str = ""
    reasoning: str = ""
    tokens: int = 0
    prompt_tokens: int = 0
    token_ids: Sequence[int] = ()
    finish: str = ""
    note: str = ""
    error: str = ""
    seconds: float = 0.0
    changes: int = 0

    def set(self, **values: Any) -> None:
        """Set attributes in one go, as followers see them."""
        for name, value in values.items():
            setattr(self, name, value)
        self.changes += 1

    def fail(self, error: CloudftError) -> None:
        """End with an error."""
        reason = f"{error.message}. Fix: {error.fix}" if error.fix else error.message
        self.set(error=reason, state="failed")


@dataclass
class AnswerRun:
    """Several answers under one id. The answers of one job are generated one after another."""

    tasks: Sequence[AnswerTask]
    decoding: GenerationConfig
    id: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    stopped: threading.Event = field(default_factory=threading.Event)
    sessions: dict[str, SupportsStreaming] = field(default_factory=dict)

    @property
    def has_ended(self) -> bool:
        """Return whether all answers are there, or will never be."""
        return all(task.state in ENDED for task in self.tasks)


class AnswerRuns:
    """The runs of one workbench, the last ones."""

    def __init__(self, models: ModelPool) -> None:
        self._models = models
        self._lock = threading.Lock()
        self._runs: OrderedDict[str, AnswerRun] = OrderedDict()

    def start(self, tasks: Sequence[AnswerTask], decoding: GenerationConfig) -> AnswerRun:
        """Begin to generate answers, each job's in a thread of its own."""
        run = AnswerRun(tasks, decoding)
        with self._lock:
            self._runs[run.id] = run
            for old in [key for key, one in self._runs.items() if one.has_ended][:-MAX_KEPT]:
                del self._runs[old]
        for job_id in dict.fromkeys(task.record.id for task in tasks):
            own = [task for task in tasks if task.record.id == job_id]
            threading.Thread(target=self._answer_all, args=(run, own), daemon=True).start()
        return run

    def get(self, run_id: str) -> AnswerRun:
        """Return a run. Raise UsageError for one that is not known any more."""
        with self._lock:
            run = self._runs.get(run_id)
        if run is None:
            raise UsageError(
                "this conversation is lost: the workbench was restarted, or it is too old",
                fix="begin a new one.",
            )
        return run

    def stop(self, run_id: str) -> None:
        """End the answers of a run: those under way within a token, others before they begin."""
        run = self.get(run_id)
        run.stopped.set()
        for session in list(run.sessions.values()):
            session.cancel()

    def rate_tokens(self, run_id: str, index: int, variants: Sequence[str]) -> Mapping[str, Any]:
        """Return the probability of each token of an answer, by each of its job's `variants`.

        Raise UsageError where the model gives none, or there is no such answer.
        """
        run = self.get(run_id)
        if not 0 <= index < len(run.tasks) or run.tasks[index].state != "done":
            raise UsageError("there is no such answer yet", fix="wait for its end.")
        task = run.tasks[index]
        with self._models.use(task.record) as session:
            if not isinstance(session, SupportsTokens):
                raise UsageError(
                    f"the service that answers for {task.record.id} gives no probabilities",
                    fix="look at those of a job on this machine.",
                )
            rated = session.token_probabilities(task.prompt, task.token_ids, variants)
        return {
            name: [
                {
                    "id": token.token_id,
                    "text": token.text,
                    "p": token.probability,
                    "rank": token.rank,
                    "top": [[other.token_id, other.text, other.probability] for other in token.top],
                }
                for token in tokens
            ]
            for name, tokens in rated.items()
        }

    def _answer_all(self, run: AnswerRun, tasks: Sequence[AnswerTask]) -> None:
        """Generate the answers of one job. Every task has ended when this returns."""
        record = tasks[0].record
        try:
            for task in tasks:
                task.set(state="loading")
            with self._models.use(record) as session:
                if isinstance(session, SupportsStreaming):
                    run.sessions[record.id] = session
                for task in tasks:
                    task.set(state="waiting")
                for task in tasks:
                    _answer(run, task, session)
        except CloudftError as error:
            _fail_rest(tasks, error)
        finally:
            run.sessions.pop(record.id, None)
            _fail_rest(tasks, JobStateConflict("the model was closed meanwhile", fix="send again."))


def _fail_rest(tasks: Sequence[AnswerTask], error: CloudftError) -> None:
    for task in tasks:
        if task.state not in ENDED:
            task.fail(error)


def _answer(run: AnswerRun, task: AnswerTask, session: InferenceSession) -> None:
    """Generate one answer. An error of its prompt ends this one only."""
    if run.stopped.is_set():
        task.set(state="done", finish=CANCELED)
        return
    began = time.monotonic()
    try:
        if task.conversation is not None and isinstance(session, SupportsTokens):
            context, room = session.describe().context, run.decoding.max_new_tokens
            dropped = task.conversation.drop_oldest(session, context, room)
            if dropped:
                task.prompt = task.conversation.to_prompt()
                task.note = f"{dropped} of the oldest questions were left out: the context is full"
        task.set(state="answering")
        for event in stream_or_generate(session, task.prompt, [task.variant], run.decoding):
            seconds = time.monotonic() - began
            if isinstance(event, AnswerDelta):
                task.set(
                    text=task.text + event.text,
                    reasoning=task.reasoning + event.reasoning,
                    tokens=event.tokens,
                    seconds=seconds,
                )
                if run.stopped.is_set() and isinstance(session, SupportsStreaming):
                    session.cancel()
            else:
                answer = event.answer
                task.set(
                    text=answer.text,
                    reasoning=answer.reasoning,
                    tokens=answer.tokens,
                    prompt_tokens=answer.prompt_tokens,
                    token_ids=event.token_ids,
                    finish=answer.finish_reason,
                    seconds=seconds,
                    state="done",
                )
    except CloudftError as error:
        task.fail(error)


class RunFollower:
    """Reports what has changed in a run since its last look: the ends of texts, not the whole."""

    def __init__(self, run: AnswerRun, models: Callable[[], object]) -> None:
        self._run, self._models = run, models
        self._seen = [-1] * len(run.tasks)
        self._sent = [("", "")] * len(run.tasks)
        self._last_models: object = None
        self._has_sent_all = False

    def look(self) -> dict[str, object] | None:
        """Return the events `answers` and `models` with what is new; None after the end."""
        if self._has_sent_all:
            return None
        has_ended = self._run.has_ended  # before the texts are read
        changed = [
            self._change(index, task)
            for index, task in enumerate(self._run.tasks)
            if task.changes != self._seen[index]
        ]
        events: dict[str, object] = {"answers": changed} if changed else {}
        models = self._models()
        if models != self._last_models or has_ended:
            events["models"] = self._last_models = models
        self._has_sent_all = has_ended
        return events

    def _change(self, index: int, task: AnswerTask) -> dict[str, object]:
        self._seen[index] = task.changes
        text, reasoning = task.text, task.reasoning
        before, thought = self._sent[index]
        at = len(before) if text.startswith(before) else 0
        thought_at = len(thought) if reasoning.startswith(thought) else 0
        self._sent[index] = (text, reasoning)
        return {
            "index": index,
            "state": task.state,
            "at": at,
            "text": text[at:],
            "thoughtAt": thought_at,
            "thought": reasoning[thought_at:],
            "tokens": task.tokens,
            "promptTokens": task.prompt_tokens,
            "seconds": round(task.seconds, 3),
            "finish": task.finish,
            "note": task.note,
            "error": task.error,
            "canRate": bool(task.token_ids),
        }


def turns_of(task: AnswerTask) -> list[Mapping[str, Any]]:
    """Return the turns of an answered task, with its answer, for the question after it."""
    turns = list(task.conversation.turns if task.conversation else task.prompt.messages)
    return [*turns, {"role": "assistant", "content": task.text}]


def interleave(parts: Sequence[Sequence[AnswerTask]]) -> list[AnswerTask]:
    """Return tasks so that each question is answered by all before the next one."""
    return list(itertools.chain.from_iterable(zip(*parts, strict=True)))
