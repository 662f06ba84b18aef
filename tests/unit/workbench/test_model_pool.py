"""Models that are opened for a page, and closed again; answers that are generated for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from job_records import make_record
from processes import wait_until
from talking_parrot import Parrot

from cloudft.errors import JobStateConflict, TrainerError, UsageError
from cloudft.inference import (
    CANCELED,
    GenerationConfig,
)
from cloudft.jobs.conversation import Conversation
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord, Store
from cloudft.workbench.answer_runs import AnswerRuns, AnswerTask, RunFollower
from cloudft.workbench.model_pool import ModelPool

DECODING = GenerationConfig(8)


class Cage:
    """Opens parrots, and remembers them in their order."""

    def __init__(self) -> None:
        self.parrots: list[Parrot] = []

    def __call__(self, record: JobRecord, home: Home) -> Parrot:
        if record.name == "broken":
            raise TrainerError("no weights", fix="download them.")
        self.parrots.append(Parrot(record.id))
        return self.parrots[-1]

    @property
    def open(self) -> list[str]:
        return [one.name for one in self.parrots if not one.is_closed]


@pytest.fixture
def cage() -> Cage:
    return Cage()


@pytest.fixture
def job(tmp_path: Path) -> Callable[[str], JobRecord]:
    return lambda name: make_record(Store(tmp_path / "jobs"), f"{name}-0")


def make_pool(tmp_path: Path, cage: Cage, **options: float) -> ModelPool:
    return ModelPool(Home(tmp_path), opener=cage, **options)  # type: ignore[arg-type]


def test_a_third_model_closes_the_one_that_was_not_used_for_longest(
    tmp_path: Path, cage: Cage, job: Callable[[str], JobRecord]
) -> None:
    pool = make_pool(tmp_path, cage)
    for name in ("a", "b", "a", "c"):
        with pool.use(job(name)) as session:
            assert isinstance(session, Parrot) and not session.is_closed
    assert cage.open == ["a-0", "c-0"]
    with pool.use(job("a")), pool.use(job("c")):
        refused = pytest.raises(JobStateConflict, match="2 jobs are answering already")
        with refused, pool.use(job("b")):
            pass
    assert [one.state for one in pool.list_open()] == ["open", "open"]
    cage.parrots[0].is_alive = False  # killed, or out of memory
    with pool.use(job("a")) as again:
        assert again is cage.parrots[-1]
    pool.close()
    assert cage.open == []
    with pytest.raises(JobStateConflict, match="being stopped"), pool.use(job("a")):
        pass


def test_models_that_nobody_uses_are_closed(
    tmp_path: Path, cage: Cage, job: Callable[[str], JobRecord]
) -> None:
    pool = make_pool(tmp_path, cage, idle_s=0.2, check_s=0.02)
    with pool.use(job("a")):
        time.sleep(0.5)
        assert cage.open == ["a-0"], "in use"
    wait_until(lambda: not cage.open and not pool.list_open(), "it is closed", seconds=10)
    with pool.use(job("a")):
        assert cage.open == ["a-0"]
    wait_until(lambda: not cage.open, "it is closed again", seconds=10)


def test_one_that_can_t_be_opened_takes_no_room(
    tmp_path: Path, cage: Cage, job: Callable[[str], JobRecord]
) -> None:
    pool = make_pool(tmp_path, cage)
    with pytest.raises(TrainerError, match="no weights"), pool.use(job("broken")):
        pass
    assert pool.list_open() == []
    with pool.use(job("a")), pool.use(job("b")):
        assert cage.open == ["a-0", "b-0"]


def make_task(record: JobRecord, text: str, variant: str = "tuned") -> AnswerTask:
    conversation = Conversation.with_job(record)
    conversation.add("user", text)
    return AnswerTask(record, variant, conversation.to_prompt(), conversation)


def test_answers_are_followed_word_by_word_and_again_from_the_start(
    tmp_path: Path, cage: Cage, job: Callable[[str], JobRecord]
) -> None:
    runs = AnswerRuns(make_pool(tmp_path, cage))
    run = runs.start([make_task(job("a"), "one two"), make_task(job("a"), "fail")], DECODING)
    follower = RunFollower(run, list)
    wait_until(lambda: cage.parrots and run.tasks[0].state == "answering", "it begins")
    follower.look()
    cage.parrots[0].may_speak.release()
    wait_until(lambda: run.tasks[0].text, "a word")
    events = follower.look()
    assert events is not None
    [change] = events["answers"]  # type: ignore[misc]
    assert (change["at"], change["text"], change["state"]) == (0, "one ", "answering")  # type: ignore[index]
    cage.parrots[0].may_speak.release(2)
    wait_until(lambda: run.has_ended, "the end")
    events = follower.look()
    assert events is not None
    changes = events["answers"]
    assert [(c["at"], c["text"], c["state"]) for c in changes] == [  # type: ignore[attr-defined]
        (4, "two ", "done"),
        (0, "", "failed"),
    ]
    assert "do not" in run.tasks[1].error, "its error ends this answer alone"
    assert follower.look() is None
    whole = RunFollower(runs.get(run.id), list).look()
    assert whole is not None
    assert whole["answers"][0]["text"] == "one two "  # type: ignore[index]


def test_stop_ends_what_is_under_way_and_what_waits(
    tmp_path: Path, cage: Cage, job: Callable[[str], JobRecord]
) -> None:
    runs = AnswerRuns(make_pool(tmp_path, cage))
    run = runs.start([make_task(job("a"), "one two"), make_task(job("a"), "three")], DECODING)
    wait_until(lambda: cage.parrots and run.tasks[0].state == "answering", "it begins")
    cage.parrots[0].may_speak.release()
    wait_until(lambda: run.tasks[0].text, "a word")
    runs.stop(run.id)
    wait_until(lambda: run.has_ended, "the end", seconds=10)
    assert [(task.text, task.finish) for task in run.tasks] == [("one ", CANCELED), ("", CANCELED)]
    again = runs.start([make_task(job("a"), "four")], DECODING)
    cage.parrots[0].may_speak.release(2)
    wait_until(lambda: again.has_ended, "the session is usable after it")
    assert again.tasks[0].text == "four "
    with pytest.raises(UsageError, match="conversation is lost"):
        runs.stop("another")
    with pytest.raises(UsageError, match="gives no probabilities"):
        runs.rate_tokens(again.id, 0, ["tuned"])


def test_a_model_that_can_t_be_opened_fails_all_of_its_answers(
    tmp_path: Path, cage: Cage, job: Callable[[str], JobRecord]
) -> None:
    runs = AnswerRuns(make_pool(tmp_path, cage))
    run = runs.start([make_task(job("broken"), "x"), make_task(job("a"), "")], DECODING)
    wait_until(lambda: cage.parrots, "the other one")
    cage.parrots[0].may_speak.release()
    wait_until(lambda: run.has_ended, "the end")
    assert run.tasks[0].error == "no weights. Fix: download them."
    assert run.tasks[1].state == "done"
