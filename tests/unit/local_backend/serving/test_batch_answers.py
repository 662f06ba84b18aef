"""Answers of a batch: the ones of `generate`, up to stop texts, constrained, reproducible."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
from trainer_run import TrainerRun, run_trainer

from local_backend.errors import PromptTooLong, TrainerError
from local_backend.inference.generate import answer_prompts
from local_backend.inference.model_variants import ModelVariants
from local_backend.job_dir import JobDir
from local_backend.serving.batch import Batch, RunningAnswer
from local_backend.serving.models import load_models
from local_backend.serving.plain_decoder import PlainDecoder
from local_backend.serving.requests import ServedJob
from local_backend.serving.schema_refs import find_circular_ref
from local_backend.settings import read_settings

PROMPTS = [
    *({"messages": [{"role": "user", "content": f"Where is parcel {n}?"}]} for n in range(4)),
    {"messages": [{"role": "user", "content": "Parcel " * 30}]},
    {"text": "In"},
    {"messages": [{"role": "system", "content": "Short."}, {"role": "user", "content": "Lyon"}]},
]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> TrainerRun:
    """A second job of the same base, which has learned other answers with fewer layers."""
    folder = tmp_path_factory.mktemp("other")
    records = [tiny.pair(f"Where is parcel {n}?", "Nowhere.") for n in range(8)]
    lora = {"r": 2, "alpha": 4, "dropout": 0.0, "target_modules": ["q_proj", "down_proj"]}
    tiny.write_job_dir(
        folder, tiny_model, {"train": records}, epochCount=40, learningRate=0.02, lora=lora
    )
    return run_trainer(folder)


@pytest.fixture(scope="module")
def jobs(tuned: TrainerRun, other: TrainerRun) -> list[ServedJob]:
    return [
        {"folder": str(tuned.path), "jobId": "one", "name": "one", "base": "base"},
        {"folder": str(other.path), "jobId": "two", "name": "two", "base": None},
    ]


@pytest.fixture(scope="module")
def batch(jobs: list[ServedJob]) -> Batch:
    return Batch(load_models({"jobs": jobs, "dtype": "float32"}), 8)


class Answers:
    """Requests to a batch, with what was replied to each."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.replies: list[list[dict[str, Any]]] = []

    def submit(self, model: str, prompt: Any, **settings: Any) -> RunningAnswer:
        replies: list[dict[str, Any]] = []
        self.replies.append(replies)
        request: Any = {"model": model, "prompt": prompt, "maxNewTokens": 24, **settings}
        return self.batch.submit(request, replies.append, time.monotonic())

    def run(self) -> list[dict[str, Any]]:
        """Return the last reply to each request, whose deltas must be its text."""
        while not self.batch.is_empty:
            self.batch.step()
            if self.batch.is_idle:
                time.sleep(0.001)  # a schema is compiled
        ends = []
        for replies in self.replies:
            *deltas, end = replies
            if "end" in end:
                assert "".join(one["delta"] for one in deltas) == end["end"]["text"]
                assert "".join(one["reasoning"] for one in deltas) == end["end"]["reasoning"]
            ends.append(end.get("end", end))
        return ends


def generated(run: TrainerRun, variant: str, prompts: Sequence[Any], **settings: Any) -> list[Any]:
    job_dir = JobDir(run.path)
    models = ModelVariants(job_dir, read_settings(job_dir))
    request: Any = {"prompts": prompts, "variants": [variant], "maxNewTokens": 24, **settings}
    return sorted(answer_prompts(models, request), key=lambda answer: answer["index"])


def test_two_adapters_and_their_base_answer_in_one_batch_as_each_by_itself(
    batch: Batch, tuned: TrainerRun, other: TrainerRun
) -> None:
    answers = Answers(batch)
    owners = [("one", tuned, "tuned"), ("base", tuned, "base"), ("two", other, "tuned")]
    for number, prompt in enumerate(PROMPTS):
        for name, _, _ in owners:
            answers.submit(name, prompt, maxNewTokens=24 - number)
        batch.step()  # so that they join at different times
    ends = answers.run()
    for at, (_, run, variant) in enumerate(owners):
        for number, own in enumerate(ends[at :: len(owners)]):
            limit = 24 - number
            [expected] = generated(run, variant, [PROMPTS[number]], maxNewTokens=limit)
            for key in ("text", "tokens", "finishReason", "promptTokens", "calls", "reasoning"):
                assert own[key] == expected[key], (number, variant, key)
    assert ends[0]["text"] == "In Lyon." != ends[2]["text"]
    assert batch.stats()["cachedTokens"] == 0


def test_random_numbers_are_those_of_the_requests_own_seed(batch: Batch) -> None:
    warm = {"temperature": 2.0, "topP": 0.98, "topK": 200}
    alone = Answers(batch)
    alone.submit("base", PROMPTS[0], **warm, seed=5)
    [expected] = alone.run()
    crowd = Answers(batch)
    for seed in (4, 5, 6, 5):
        crowd.submit("base", PROMPTS[0], **warm, seed=seed)
        batch.step()
    texts = [end["text"] for end in crowd.run()]
    assert texts[1] == texts[3] == expected["text"]
    assert len(set(texts)) == 3


def test_an_answer_ends_before_its_stop_text(batch: Batch) -> None:
    whole = Answers(batch)
    whole.submit("base", {"text": "In"}, maxNewTokens=40)
    [end] = whole.run()
    text = end["text"]
    for stop in (text[5:9], text[11:12], text[7:20]):
        cut = Answers(batch)
        cut.submit("base", {"text": "In"}, stop=["never there", stop], maxNewTokens=40)
        [stopped] = cut.run()
        assert stopped["text"] == text[: text.index(stop)]
        assert stopped["finishReason"] == "stop_sequence" and stopped["stopSequence"] == stop
        assert stopped["tokens"] < end["tokens"]
    half = Answers(batch)
    half.submit("base", {"text": "In"}, stop=[f"{text[-3:]}\0"], maxNewTokens=40)
    assert half.run()[0]["text"] == text, "what was held back comes at the end"


def test_logprobs_are_those_of_each_token(batch: Batch) -> None:
    answers = Answers(batch)
    answers.submit("one", PROMPTS[0], logprobs=3)
    answers.submit("one", PROMPTS[0], logprobs=0, temperature=1.0, seed=3)
    ends = answers.run()
    for number, (end, top) in enumerate(zip(ends, (3, 0), strict=True)):
        scored = [token for reply in answers.replies[number][:-1] for token in reply["logprobs"]]
        assert [token["token"] for token in scored] == end["ids"]
        assert all(len(token["top"]) == top and token["logprob"] <= 0 for token in scored)
        whole = b"".join(bytes(token["bytes"]) for token in scored)
        assert whole.decode("utf-8", "replace") == end["text"]
    first = answers.replies[0][0]["logprobs"][0]
    assert first["top"][0]["logprob"] == pytest.approx(first["logprob"])
    assert sum(math.exp(token["logprob"]) for token in first["top"]) <= 1.001


SCHEMAS: dict[str, dict[str, Any]] = {
    "a constant object": {"const": {"a": 1, "b": [True, None]}},
    "an enumeration": {"enum": ["red", "green", 3]},
    "an object": {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 3, "maximum": 5}},
        "required": ["n"],
        "additionalProperties": False,
    },
}


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_an_answer_keeps_its_schema(batch: Batch, name: str) -> None:
    pytest.importorskip("llguidance")
    answers = Answers(batch)
    for seed in range(3):
        settings = {"temperature": 1.0, "seed": seed, "maxNewTokens": 200}
        answers.submit("base", PROMPTS[0], jsonSchema=SCHEMAS[name], **settings)
    plain = answers.submit("base", PROMPTS[0])
    for end in answers.run()[:3]:
        if end["finishReason"] == "length":
            continue  # white space without end is allowed by every schema
        value = json.loads(end["text"])
        if "const" in SCHEMAS[name]:
            assert value == SCHEMAS[name]["const"]
        elif "enum" in SCHEMAS[name]:
            assert value in SCHEMAS[name]["enum"]
        else:
            assert value.keys() == {"n"} and 3 <= value["n"] <= 5
    assert plain.constraint is None


def test_a_schema_that_can_not_be_kept_is_refused(batch: Batch) -> None:
    pytest.importorskip("llguidance")
    answers = Answers(batch)
    answers.submit("base", PROMPTS[0], jsonSchema={"type": "array", "uniqueItems": True})
    [refused] = answers.run()
    assert refused["code"] == "schema" and "uniqueItems" in refused["error"]
    assert "leave uniqueItems out" in refused["fix"]


CIRCULAR: dict[str, dict[str, Any]] = {
    "itself": {"$ref": "#", "description": "a tree"},
    "one another": {
        "properties": {"a": {"$ref": "#/$defs/b"}},
        "$defs": {"b": {"$ref": "#/$defs/c"}, "c": {"$ref": "#/$defs/b"}},
    },
}


@pytest.mark.parametrize("name", sorted(CIRCULAR))
def test_a_reference_to_nothing_but_itself_is_refused(batch: Batch, name: str) -> None:
    pytest.importorskip("llguidance")
    answers = Answers(batch)
    answers.submit("base", PROMPTS[0], jsonSchema=CIRCULAR[name])
    [refused] = answers.run()
    assert re.search(r"its '\$ref' '#.*' leads back to itself", refused["error"])
    tree = {"type": "array", "items": {"$ref": "#"}}
    data = {"const": {"$ref": "#"}}
    assert find_circular_ref(tree) is find_circular_ref(data) is None


def test_an_answer_that_nothing_can_follow_fails_alone(batch: Batch) -> None:
    pytest.importorskip("llguidance")
    answers = Answers(batch)
    answers.submit("base", PROMPTS[0], jsonSchema={"anyOf": [{"$ref": "#"}]})
    answers.submit("one", PROMPTS[0])
    failure, kept = answers.run()
    assert failure["error"] == (
        "The JSON schema can't be kept any further: a part of it fits no value"
    )
    assert "isOwnFault" not in failure and kept["text"] == "In Lyon."
    assert not batch.running and batch.stats()["cachedTokens"] == 0


def test_a_failure_of_one_answers_choice_leaves_the_others(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Answers(batch)
    odd = answers.submit("base", PROMPTS[0], temperature=1.0)
    answers.submit("one", PROMPTS[0])
    monkeypatch.setattr(odd.sampling, "top_k", -2)
    failure, kept = answers.run()
    assert failure["code"] == "modelFailed" and kept["text"] == "In Lyon."


def test_a_request_that_fails_leaves_the_others_alone(batch: Batch) -> None:
    answers = Answers(batch)
    kept = answers.submit("one", PROMPTS[0])
    with pytest.raises(PromptTooLong, match="the model's context is 256"):
        Answers(batch).submit("one", {"text": "Where? " * 300})
    with pytest.raises(TrainerError, match="There is no model three"):
        Answers(batch).submit("three", PROMPTS[0])
    canceled = answers.submit("base", {"text": "In"}, maxNewTokens=200)
    for _ in range(4):
        batch.step()
    canceled.is_canceled = True
    ends = answers.run()
    assert kept.text.text == ends[0]["text"] == "In Lyon."
    assert ends[1]["finishReason"] == "canceled" and ends[1]["tokens"] < 6


def test_jobs_of_different_bases_are_refused(jobs: list[ServedJob], tmp_path: Path) -> None:
    model = tiny.build_model(tmp_path / "model")
    folder = tmp_path / "job"
    tiny.write_job_dir(folder, model, {"train": tiny.pairs(4)})
    third: ServedJob = {"folder": str(folder), "jobId": "three", "name": None, "base": "third"}
    with pytest.raises(TrainerError, match="one and three were tuned from different base models"):
        load_models({"jobs": [*jobs, third], "dtype": "float32"})


def test_a_model_that_the_batch_can_not_compute_answers_by_its_own_generate(tmp_path: Path) -> None:
    model = tiny.build_model(tmp_path / "model")
    # generate applies it, and no product of the batch does.
    settings = json.loads((model / "generation_config.json").read_text(encoding="utf-8"))
    (model / "generation_config.json").write_text(
        json.dumps({**settings, "repetition_penalty": 3.0})
    )
    folder = tiny.write_job_dir(tmp_path / "job", model, {"train": tiny.pairs(4)})
    job: ServedJob = {"folder": str(folder), "jobId": "job", "name": None, "base": "base"}
    batch = Batch(load_models({"jobs": [job], "dtype": "float32"}), 3)
    assert isinstance(batch.models["base"].decoder, PlainDecoder)
    answers = Answers(batch)
    for prompt in PROMPTS[:5]:
        answers.submit("base", prompt)
        batch.step()
    canceled = answers.submit("base", {"text": "In"}, maxNewTokens=200)
    for _ in range(3):
        batch.step()
    canceled.is_canceled = True
    *ends, last = answers.run()
    run = TrainerRun(folder, "")
    # One by one, because padding counts as repeated in a row of a batch.
    expected = [generated(run, "base", [prompt])[0]["text"] for prompt in PROMPTS[:5]]
    assert [end["text"] for end in ends] == expected
    assert last["finishReason"] == "canceled"
    assert batch.stats()["cachedTokens"] == 0


def test_an_answer_that_can_not_be_read_fails_alone(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Answers(batch)
    answers.submit("one", PROMPTS[0])
    odd = answers.submit("one", PROMPTS[1])
    canceled = answers.submit("one", PROMPTS[2])
    canceled.is_canceled = True

    def fail() -> None:
        raise RecursionError("in what the model wrote")

    monkeypatch.setattr(odd.text, "finish", fail)
    monkeypatch.setattr(canceled.text, "finish", fail)
    first, second, third = answers.run()
    assert first["text"]
    for failed in (second, third):
        assert "in what the model wrote" in failed["error"] and failed["code"] == "modelFailed"
    assert batch.is_idle and batch.stats()["running"] == 0
