"""Models suggest in the background, say how sure they are, and never hold up a key."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
import tiny
from job_records import make_record
from label_projects import LABELS, make_project, tickets
from processes import Cli, JobFile

from cloudft.errors import TrainerError
from cloudft.evaluate.inference.cached_inference import open_cached_inference
from cloudft.inference import (
    Answer,
    GenerationConfig,
    InferenceSession,
    Likelihood,
    Prompt,
    ScoringRequest,
    SupportsLogLikelihood,
)
from cloudft.labeling.project import LabelProject, open_project
from cloudft.labeling.queue import LabelQueue
from cloudft.labeling.settings import Kind
from cloudft.labeling.suggestions import (
    ModelSuggester,
    Suggester,
    mean_probability,
    normalize_likelihoods,
)
from cloudft.labeling.worker import SuggestionWorker
from cloudft.storage.home import Home
from cloudft.storage.store import Store


class Session(InferenceSession, SupportsLogLikelihood):
    """Finds the label at the prompt's length likeliest when tuned, the first one as base."""

    closed = False

    def model_identities(self) -> Mapping[str, str]:
        return {"base": "b" * 64, "tuned": "t" * 64}

    def answer_keys(self) -> Mapping[str, str]:
        return self.model_identities()

    def generate(
        self, prompts: Sequence[Prompt], variants: Sequence[str], decoding: GenerationConfig
    ) -> Iterator[Answer]:
        for number, prompt in enumerate(prompts):
            text = f"about {prompt.messages[-1]['content'][:8]}"
            yield Answer(number, variants[0], text, 4, "stop")

    def loglikelihood(
        self, requests: Sequence[ScoringRequest], variants: Sequence[str]
    ) -> Iterator[Likelihood]:
        for number, request in enumerate(requests):
            best = LABELS[favorite(request.prompt) if variants == ["tuned"] else 0]
            value = math.log(0.6) if request.text == best else math.log(0.2)
            yield Likelihood(number, variants[0], value, 2, False)

    def loglikelihood_rolling(
        self, texts: Sequence[str], variants: Sequence[str], *, window: int | None = None
    ) -> Iterator[Likelihood]:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


def favorite(prompt: Prompt) -> int:
    """Return the number of the label that the tuned model prefers."""
    return len(prompt.messages[-1]["content"]) % len(LABELS)


def worker_of(
    project: LabelProject, home: Path, session: Session, gate: threading.Event | None = None
) -> SuggestionWorker:
    """Return a worker that suggests with a session; with `gate` it waits before each batch."""

    class Gated(ModelSuggester):
        def suggest(self, records):  # type: ignore[no-untyped-def]
            assert gate is None or gate.wait(60)
            return super().suggest(records)

    @contextlib.contextmanager
    def opener(project: LabelProject, home: Home) -> Iterator[Suggester]:
        settings = project.settings
        variants = ("base", "tuned") if settings.kind == "labels" else ("tuned",)
        with open_cached_inference(session, home, lambda *_: None, variants=variants) as models:
            yield Gated(models, settings.kind, settings.labels)

    return SuggestionWorker(project, Home(home), opener)


def test_shares_are_likelihoods_normalized_over_the_labels() -> None:
    shares = normalize_likelihoods([math.log(0.02), math.log(0.06), math.log(0.02)])
    assert shares == pytest.approx((0.2, 0.6, 0.2))
    assert normalize_likelihoods([-5000.0, -5000.0]) == (0.5, 0.5)
    assert normalize_likelihoods([-math.inf, -math.inf]) == (0.5, 0.5)
    assert normalize_likelihoods([-1.0, -math.inf]) == (1.0, 0.0)
    assert normalize_likelihoods([-1.0, math.nan]) == (1.0, 0.0)
    assert normalize_likelihoods([math.nan, -1.0]) == (0.0, 1.0)


def test_the_confidence_of_a_text_is_its_tokens_mean() -> None:
    assert mean_probability(Likelihood(0, "tuned", math.log(0.25), 2, True)) == pytest.approx(0.5)
    assert mean_probability(None) is None
    assert mean_probability(Likelihood(0, "tuned", 0.0, 0, True)) is None
    assert mean_probability(Likelihood(0, "tuned", math.nan, 3, True)) is None


def test_labels_are_suggested_by_both_models_and_order_the_records(tmp_path: Path) -> None:
    project = make_project(tmp_path, tickets(40), job="job-1")
    session = Session()
    worker = worker_of(project, tmp_path, session)
    worker.wake()
    worker.join(60)
    assert (worker.state, worker.message, session.closed) == ("done", "", True)
    assert set(project.suggestions) == set(project.records.keys)
    for key, one in project.suggestions.items():
        number = favorite(project.records.get(key).prompt)
        assert one.text == LABELS[number] and one.confidence == pytest.approx(0.6)
        assert one.base == LABELS[0] and sum(one.shares) == pytest.approx(1)
    first = LabelQueue(project).next_records("ada", 1)[0]
    assert first.reason == "disagreement" and first.suggestion is not None
    assert first.suggestion.text != LABELS[0]
    assert open_project(tmp_path / "labels", "tickets").suggestions == project.suggestions


@pytest.mark.parametrize(("kind", "confidence"), [("text", 0.2**0.5), ("check", 0.2**0.5)])
def test_answers_are_suggested_or_judged(tmp_path: Path, kind: Kind, confidence: float) -> None:
    records = tickets(5, "an answer" if kind == "check" else None)
    project = make_project(tmp_path, records, kind=kind, job="job-1")
    worker = worker_of(project, tmp_path, Session())
    worker.wake()
    worker.join(60)
    assert worker.state == "done", worker.message
    for key, one in project.suggestions.items():
        expected = "an answer" if kind == "check" else f"about {project.records.get(key).text[:8]}"
        assert one.text == expected and one.confidence == pytest.approx(confidence)


def test_no_key_waits_for_a_suggestion(tmp_path: Path) -> None:
    project = make_project(tmp_path, tickets(60), job="job-1")
    gate = threading.Event()
    worker = worker_of(project, tmp_path, Session(), gate)
    worker.wake()
    queue = LabelQueue(project)
    started = time.monotonic()
    shown = [queue.next_records("ada", 3) for _ in range(10)]
    assert time.monotonic() - started < 5 and all(len(batch) == 3 for batch in shown)
    assert shown[0][0].suggestion is None and "No suggestion yet" in shown[0][0].why
    gate.set()
    worker.join(60)
    assert queue.next_records("ada", 1)[0].suggestion is not None


def test_suggestions_survive_a_kill_and_only_the_missing_ones_are_made(tmp_path: Path) -> None:
    project = make_project(tmp_path, tickets(20), job="job-1")
    worker = worker_of(project, tmp_path, Session())
    worker.wake()
    worker.join(60)
    path = project.folder / "suggestions.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    again = open_project(tmp_path / "labels", "tickets")
    before = dict(again.suggestions)
    assert 5 <= len(before) < 20
    worker = worker_of(again, tmp_path, Session())
    worker.wake()
    worker.join(60)
    assert set(again.suggestions) == set(again.records.keys)
    assert before.items() <= again.suggestions.items()


def test_a_model_that_fails_leaves_labeling_as_it_is(tmp_path: Path) -> None:
    class Broken(Session):
        def loglikelihood(self, requests, variants):  # type: ignore[no-untyped-def]
            raise TrainerError("out of memory", fix="choose a smaller job.")

    project = make_project(tmp_path, tickets(5), job="job-1")
    worker = worker_of(project, tmp_path, Broken())
    worker.wake()
    worker.join(60)
    assert (worker.state, worker.message) == ("failed", "out of memory")
    worker.wake()  # by a key: not tried again
    assert worker.state == "failed"
    assert len(LabelQueue(project).next_records("ada", 3)) == 3


def test_suggestions_that_would_be_billed_are_refused(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs")
    with store.create(make_record(store, "job-20260101-000000-abcd", backend="bedrock")):
        pass
    project = make_project(tmp_path, tickets(5), job="job-20260101-000000-abcd")
    worker = SuggestionWorker(project, Home(tmp_path))
    worker.wake()
    worker.join(60)
    assert worker.state == "failed" and "billed" in worker.message
    assert worker.fix == "name a job of this machine."


def test_a_real_tuned_model_suggests(
    cli: Cli, home: Path, job_file: JobFile, tmp_path: Path
) -> None:
    path = job_file(
        records=tiny.pairs(16), hyperparameters={"epochCount": 1}, validation=tiny.pairs(2)
    )
    done = cli("submit", "--wait", cwd=path.parent, timeout=200)
    assert done.returncode == 0, done.stderr
    [job] = Store(Home.from_environ().jobs).job_ids()
    prompts = [{"prompt": record["prompt"]} for record in tiny.pairs(10)]
    project = make_project(home, prompts, job=job, labels=tiny.CITIES)
    worker = SuggestionWorker(project, Home.from_environ())
    worker.wake()
    worker.join(200)
    assert worker.state == "done", worker.message
    assert len(project.suggestions) == len(project.records.keys) == 10
    for one in project.suggestions.values():
        assert sum(one.shares) == pytest.approx(1) and len(one.shares) == len(tiny.CITIES)
        assert one.text == tiny.CITIES[one.shares.index(max(one.shares))]
        assert one.confidence == max(one.shares) and one.base in tiny.CITIES
    assert {len(one.model) for one in project.suggestions.values()} == {64}
