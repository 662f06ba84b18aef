"""Asking the tuned model and its base."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import preloaded
import pytest
import tiny
from trainer_run import RunTrainer, TrainerRun

from local_backend.errors import TrainerError
from local_backend.inference.generate import answer_prompts
from local_backend.inference.model_variants import ModelVariants
from local_backend.job_dir import JobDir
from local_backend.settings import read_settings

PROMPTS = [
    {"messages": [{"role": "user", "content": f"Where is parcel {n}?"}]}
    for n in range(len(tiny.CITIES))
]
REPLIES = [f"In {city}." for city in tiny.CITIES]


@pytest.fixture(scope="module")
def models(tuned: TrainerRun) -> ModelVariants:
    job_dir = JobDir(tuned.path)
    return ModelVariants(job_dir, read_settings(job_dir))


def texts(models: ModelVariants, prompts: list[dict[str, Any]], **request: Any) -> list[str]:
    """Return the answers in the order of the prompts."""
    replies = list(answer_prompts(models, {"prompts": prompts, "maxNewTokens": 16, **request}))
    return [reply["text"] for reply in sorted(replies, key=lambda reply: reply["index"])]


def test_speaks_json_lines_and_answers_one_request_after_another(tuned: TrainerRun) -> None:
    requests = [
        {"prompts": PROMPTS[:2], "variants": ["tuned", "base"], "maxNewTokens": 16},
        {"prompts": PROMPTS[5:6], "maxNewTokens": 1},
        {"prompts": [{"messages": [{"role": "user", "content": "Where? " * tiny.CONTEXT}]}]},
    ]
    done = subprocess.run(
        [preloaded.interpreter_path(), "-m", "local_backend.inference.generate", str(tuned.path)],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        check=False,
    )
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    assert replies[0] == {"ready": True}
    first = {(reply["index"], reply["variant"]): reply for reply in replies[1:5]}
    assert replies[5] == {"done": True}
    assert [first[i, "tuned"]["text"] for i in (0, 1)] == REPLIES[:2]
    assert all(first[i, "tuned"]["finishReason"] == "stop" for i in (0, 1))
    assert all(first[i, "base"]["text"] != REPLIES[i] for i in (0, 1))
    assert replies[6]["finishReason"] == "length" and replies[6]["tokens"] == 1
    assert replies[7] == {"done": True}
    assert "the model's context is 256" in replies[8]["error"]
    assert replies[8]["fix"]
    assert len(replies) == 9
    assert done.returncode == 1


def test_answers_of_a_batch_are_those_of_single_questions(models: ModelVariants) -> None:
    prompts = [
        *PROMPTS,
        {"messages": [{"role": "user", "content": "Parcel " * 20}]},
        {"text": "In"},
    ]
    for variant in ("tuned", "base"):
        together = texts(models, prompts, variants=[variant])
        alone = [texts(models, [prompt], variants=[variant])[0] for prompt in prompts]
        assert together == alone
    assert texts(models, PROMPTS) == REPLIES


def test_the_base_is_as_it_was_before_training(models: ModelVariants, tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    ids = tokenizer("In Lyon", return_tensors="pt")["input_ids"]
    output = AutoModelForCausalLM.from_pretrained(tiny_model).generate(
        ids, max_new_tokens=16, do_sample=False, pad_token_id=0
    )
    expected = tokenizer.decode(output[0][ids.shape[1] :], skip_special_tokens=True)
    texts(models, [{"text": "In Lyon"}], variants=["tuned"])
    assert texts(models, [{"text": "In Lyon"}], variants=["base"]) == [expected]


def test_sampling_follows_its_seed(models: ModelVariants) -> None:
    warm = {"temperature": 2.0, "variants": ["base"]}
    first, again, other = (texts(models, PROMPTS, **warm, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_an_answer_ends_where_the_context_ends(models: ModelVariants) -> None:
    ids = models.tuned.tokenizer("Parcel " * 200, add_special_tokens=False)["input_ids"]
    text = models.tuned.tokenizer.decode(ids[: tiny.CONTEXT - 3])
    (reply,) = answer_prompts(
        models, {"prompts": [{"text": text}], "variants": ["base"], "maxNewTokens": 50}
    )
    assert reply["tokens"] <= 3


def test_an_empty_prompt_is_an_error(models: ModelVariants) -> None:
    with pytest.raises(TrainerError, match="The prompt is empty"):
        texts(models, [{"text": ""}])


def test_a_fully_tuned_model_is_served_beside_its_untouched_base(train: RunTrainer) -> None:
    records = [tiny.pair(f"Where is parcel {n}?", reply) for n, reply in enumerate(REPLIES)]
    run = train(records, method="full", epochCount=30, learningRate=0.01)
    job_dir = JobDir(run.path)
    both = ModelVariants(job_dir, read_settings(job_dir))
    assert texts(both, PROMPTS) == REPLIES
    assert texts(both, PROMPTS, variants=["base"]) != REPLIES
