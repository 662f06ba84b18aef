"""The engine's process is killed, its parent is killed, and requests that it can't answer."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from functools import partial, reduce
from pathlib import Path
from typing import Any

import pytest
import tiny
from processes import is_running, wait_until
from talking_jobs import never_end

from cloudft.backends.local.environment import trainer_environment
from cloudft.errors import EngineBusy, TrainerError, UsageError
from cloudft.inference import LocalGenerationConfig, Prompt
from cloudft.serving.engine import (
    EngineDelta,
    EngineEnd,
    EngineEvent,
    EngineFailure,
    EngineRequest,
    stream_events,
)
from cloudft.serving.engine_process import (
    EngineProcess,
    ServedJob,
    describe_base_model,
    open_engine,
)
from cloudft.storage.home import Home

TALK = EngineRequest("base", Prompt(text="In"), LocalGenerationConfig(max_new_tokens=4000))
SHORT = EngineRequest("base", Prompt(text="In"), LocalGenerationConfig(max_new_tokens=4))
JsonObject = dict[str, Any]
Open = Callable[..., EngineProcess]


@pytest.fixture
def job(tmp_path: Path) -> ServedJob:
    """A base model whose answers fill its context: the end token is never the likeliest one."""
    model = tiny.build_model(tmp_path / "model", context=4096)
    never_end(model)
    folder = tiny.write_job_dir(tmp_path / "job", model, {"train": tiny.pairs(2)})
    return ServedJob(folder, "job", None, "base")


@pytest.fixture
def open_it(job: ServedJob, home: Path) -> Iterator[Open]:
    opened: list[EngineProcess] = []

    def start(**options: int) -> EngineProcess:
        environment = trainer_environment(Home(home), hub=False)
        opened.append(open_engine([job], environment, dtype="float32", **options))
        return opened[-1]

    yield start
    for engine in opened:
        engine.close()


def submit(engine: EngineProcess, request: EngineRequest) -> queue.SimpleQueue[EngineEvent]:
    events: queue.SimpleQueue[EngineEvent] = queue.SimpleQueue()
    engine.submit(request, events.put)
    return events


def end_of(events: queue.SimpleQueue[EngineEvent]) -> EngineEnd | EngineFailure:
    while True:
        event = events.get(timeout=60)
        if not isinstance(event, EngineDelta):
            return event


def test_every_open_request_fails_when_the_process_is_killed(open_it: Open) -> None:
    engine = open_it(rows=2)
    streams = [submit(engine, TALK) for _ in range(5)]
    streams[0].get(timeout=60)
    os.kill(engine.pid, signal.SIGKILL)
    for events in streams:
        failure = end_of(events)
        assert isinstance(failure, EngineFailure)
        assert "the models' process exited" in str(failure.error)
    with pytest.raises(TrainerError, match="the models' process exited"):
        engine.submit(SHORT, lambda _: None)
    with pytest.raises(TrainerError, match="the models' process exited"):
        engine.count_tokens("base", SHORT.prompt)
    assert not engine.is_alive


def test_the_error_of_a_killed_process_names_the_signal_and_quotes_no_request(
    open_it: Open,
) -> None:
    engine = open_it()
    odd: Any = [{"role": "user", "content": [{"toolUse": {"nameless": "x"}}]}]
    failure = end_of(submit(engine, replace(SHORT, prompt=Prompt(odd))))
    assert isinstance(failure, EngineFailure)
    events = submit(engine, TALK)
    events.get(timeout=60)
    os.kill(engine.pid, signal.SIGKILL)
    failure = end_of(events)
    assert isinstance(failure, EngineFailure)
    assert failure.error.message == "the models' process exited: signal 9 (Killed)"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_no_request_waits_for_ever_when_a_reply_can_not_be_handed_over(open_it: Open) -> None:
    engine = open_it()
    events = submit(engine, TALK)

    def fail(event: EngineEvent) -> None:
        raise ZeroDivisionError

    engine.submit(SHORT, fail)
    assert isinstance(end_of(events), EngineFailure)
    assert not engine.is_alive


def test_open_requests_fail_when_the_engine_is_closed(open_it: Open) -> None:
    engine = open_it()
    events = submit(engine, TALK)
    events.get(timeout=60)
    engine.close()
    assert isinstance(end_of(events), EngineFailure)


def test_the_process_ends_with_its_parent(job: ServedJob, home: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from cloudft.serving.engine_process import ServedJob, open_engine\n"
        "import os\n"
        "job = ServedJob(Path(sys.argv[1]), 'job', None, 'base')\n"
        "engine = open_engine([job], dict(os.environ), dtype='float32')\n"
        "print(engine.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(job.folder)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    wait_until(lambda: not is_running(pid), "it ends without its parent")


def test_a_request_that_can_not_be_answered_fails_alone(open_it: Open) -> None:
    engine = open_it(rows=2, max_waiting=1)
    long_prompt = EngineRequest("base", Prompt(text="Where? " * 5000))
    failure = end_of(submit(engine, long_prompt))
    assert isinstance(failure, EngineFailure) and "context is 4096" in str(failure.error)
    with pytest.raises(UsageError, match="no model is called other here"):
        engine.submit(EngineRequest("other", Prompt(text="In")), lambda _: None)
    with pytest.raises(TrainerError, match="The prompt is empty"):
        engine.count_tokens("base", Prompt(text=""))
    *_, end = stream_events(engine, SHORT)
    assert isinstance(end, EngineEnd) and end.answer.tokens == 4


HOSTILE_SCHEMAS: dict[str, JsonObject] = {
    "nested": reduce(lambda inner, _: {"type": "array", "items": inner}, range(300), {}),
    "number": {"type": "integer", "maximum": 10**400},
    "pattern": {"type": "string", "pattern": "("},
    "surrogate": {"const": "\ud800"},
}
"""Schemas that llguidance's reader refuses, some of them by an exception of Python's."""


@pytest.mark.parametrize("name", sorted(HOSTILE_SCHEMAS))
def test_no_schema_ends_the_process(open_it: Open, name: str) -> None:
    engine = open_it()
    hostile = replace(SHORT, json_schema=HOSTILE_SCHEMAS[name])
    end = end_of(submit(engine, hostile))
    assert isinstance(end, EngineFailure)
    assert "The JSON schema can't be kept: " in str(end.error)
    *_, last = stream_events(engine, SHORT)
    assert isinstance(last, EngineEnd)


def test_a_schema_that_takes_seconds_to_compile_delays_no_other_answer(open_it: Open) -> None:
    engine = open_it()
    properties = {f"p{number}": {"type": "string"} for number in range(3000)}
    slow = replace(SHORT, json_schema={"type": "object", "properties": properties})
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()

    def note(name: str, event: EngineEvent) -> None:
        if isinstance(event, EngineEnd):
            ended.put(name)

    engine.submit(slow, partial(note, "slow"))
    engine.submit(SHORT, partial(note, "quick"))
    assert [ended.get(timeout=60) for _ in range(2)] == ["quick", "slow"]


def test_a_request_that_can_not_be_sent_takes_no_place(open_it: Open) -> None:
    engine = open_it(rows=1, max_waiting=0)
    nested: JsonObject = reduce(lambda inner, _: {"items": inner}, range(100_000), {})
    for _ in range(3):
        with pytest.raises(RecursionError):
            engine.submit(replace(SHORT, json_schema=nested), lambda _: None)
    *_, end = stream_events(engine, SHORT)
    assert isinstance(end, EngineEnd)


def test_what_no_check_foresaw_fails_alone(open_it: Open) -> None:
    engine = open_it()
    odd: Any = [{"role": "user", "content": {"not": "a text"}}]
    failure = end_of(submit(engine, replace(SHORT, prompt=Prompt(odd))))
    assert isinstance(failure, EngineFailure)
    *_, end = stream_events(engine, SHORT)
    assert isinstance(end, EngineEnd)


def test_a_full_queue_is_refused_and_canceled_answers_end(open_it: Open) -> None:
    engine = open_it(rows=2, max_waiting=1)
    events = [queue.SimpleQueue[EngineEvent]() for _ in range(3)]
    numbers = [engine.submit(TALK, one.put) for one in events]
    with pytest.raises(EngineBusy, match="3 requests are open already"):
        engine.submit(SHORT, lambda _: None)
    for one in events[:2]:
        one.get(timeout=60)  # until both answers are under way
    stats = engine.stats()
    assert stats.running == 2 and stats.waiting == 1 and stats.cached_tokens
    for number in numbers:
        engine.cancel(number)
    for one in events:
        end = end_of(one)
        assert isinstance(end, EngineEnd) and end.answer.finish_reason == "canceled"
    engine.cancel(numbers[0])
    stream = stream_events(engine, TALK)
    next(stream)
    assert isinstance(stream, Generator)
    stream.close()
    *_, last = stream_events(engine, SHORT)
    assert isinstance(last, EngineEnd) and engine.stats().running == 0


def test_a_model_that_can_not_be_loaded_is_one_clear_error(
    job: ServedJob, home: Path, tmp_path: Path
) -> None:
    environment = trainer_environment(Home(home), hub=False)
    tuned = ServedJob(job.folder, "job", "tuned", "base")
    with pytest.raises(TrainerError, match="job has no tuned model yet"):
        open_engine([tuned], environment)
    with pytest.raises(TrainerError, match="the models' process exited"):
        open_engine([ServedJob(tmp_path, "none", "none", "base")], environment)
    assert describe_base_model(job.folder).base == "tiny"
