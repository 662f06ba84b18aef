"""What Bedrock refuses of a job's data and settings, refused alike by both clocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloudft.backends.local.backend import LocalBackend
from cloudft.endpoint.training.job_settings import stand_in_settings
from cloudft.endpoint.training.loss_trend import describe_flat_loss
from cloudft.endpoint.training.run import RunStatus, TrainingRequest
from cloudft.endpoint.training.trainers import LocalTrainer, SimulatedTrainer, Trainer
from cloudft.endpoint.training.validation import find_refusal
from cloudft.storage.home import Home

NOVA, NOVA_2 = "amazon.nova-micro-v1:0:128k", "amazon.nova-2-lite-v1:0:256k"
LLAMA, TITAN = "meta.llama3-1-8b-instruct-v1:0:128k", "amazon.titan-text-express-v1:0:8k"
CLAUDE = "anthropic.claude-3-haiku-20240307-v1:0:200k"
URI = "s3://bucket/train.jsonl"
PAIR = {"prompt": "Where is {n}?", "completion": "At sea."}
CONVERSE = {
    "messages": [
        {"role": "user", "content": [{"text": "Where is {n}?"}]},
        {"role": "assistant", "content": [{"text": "At sea."}]},
    ]
}
OPENAI = {
    "messages": [
        {"role": "user", "content": "Where is {n}?"},
        {"role": "assistant", "content": "At sea."},
    ]
}
PROMPT = {"messages": CONVERSE["messages"][:1]}
GRADED = {"messages": OPENAI["messages"][:1], "reference_answer": "At sea."}
DOCUMENT = {"input": "Parcel {n} is at sea."}
FORMS = {
    (NOVA, "FINE_TUNING"): CONVERSE,
    (LLAMA, "FINE_TUNING"): PAIR,
    (TITAN, "FINE_TUNING"): PAIR,
    (TITAN, "CONTINUED_PRE_TRAINING"): DOCUMENT,
    (CLAUDE, "FINE_TUNING"): OPENAI,
    (NOVA, "DISTILLATION"): PROMPT,
    (NOVA_2, "REINFORCEMENT_FINE_TUNING"): GRADED,
}
"""What each model takes: Bedrock user guide, "Prepare your training datasets"."""


def request_of(
    folder: Path, records: list[Any], base: str, kind: str = "FINE_TUNING", **hyperparameters: str
) -> TrainingRequest:
    """Return the request of a job with these records."""
    data = folder / "train.jsonl"
    data.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    created: Any = {
        "baseModelIdentifier": base,
        "customizationType": kind,
        "trainingDataConfig": {"s3Uri": URI},
        "hyperParameters": hyperparameters,
    }
    return TrainingRequest("job-x", created, {"train": data}, "smollm2-135m", folder)


def numbered(record: dict[str, Any], count: int = 200) -> list[Any]:
    """Return distinct copies of a record."""
    return [json.loads(json.dumps(record).replace("{n}", str(n))) for n in range(count)]


@pytest.mark.parametrize(("base", "kind"), FORMS)
def test_a_model_takes_records_of_its_own_form_and_no_other(
    tmp_path: Path, base: str, kind: str
) -> None:
    own = numbered(FORMS[base, kind])
    assert find_refusal(request_of(tmp_path, own, base, kind)) is None
    for other in (PAIR, CONVERSE, OPENAI, PROMPT, DOCUMENT):
        if other in (FORMS[base, kind], PROMPT) or kind == "REINFORCEMENT_FINE_TUNING":
            continue
        if kind == "DISTILLATION" and other is CONVERSE:  # a prompt may have its answer
            continue
        mixed = [*own[:150], *numbered(other, 1), *own[150:]]
        refusal = find_refusal(request_of(tmp_path, mixed, base, kind))
        assert refusal is not None and refusal.startswith(f"Input data at {URI} must follow '")
        assert refusal.endswith("format. (line 151)"), (other, refusal)


@pytest.fixture(params=["fast", "real"])
def trainer(request: pytest.FixtureRequest, tmp_path: Path) -> Trainer:
    if request.param == "fast":
        return SimulatedTrainer()
    return LocalTrainer(LocalBackend(Home(tmp_path / "home")), lambda *_: (), {})


@pytest.mark.parametrize(
    ("base", "records", "hyperparameters", "words"),
    [
        (NOVA, numbered(PAIR), {}, 'must follow \'{"messages"'),
        (NOVA, numbered(CONVERSE, 5), {}, "the model takes 8 at least"),
        (NOVA, numbered(CONVERSE), {"batchSize": "8"}, "batchSize"),
        (NOVA, numbered(CONVERSE), {"learningRate": "0.5"}, "learningRate"),
        (NOVA, numbered(CONVERSE), {"epochCount": "many"}, "epochCount"),
        (TITAN, [[PAIR]], {}, "conform to JSONL format"),
    ],
)
def test_both_clocks_refuse_the_same_in_the_same_words(
    trainer: Trainer,
    tmp_path: Path,
    base: str,
    records: list[Any],
    hyperparameters: Any,
    words: str,
) -> None:
    run = trainer.start(request_of(tmp_path, records, base, **hyperparameters))
    status: RunStatus = run.poll()
    assert status.status == "Failed" and status.status_details == {"validationDetails": "Failed"}
    assert words in str(status.failure_message) and "--set" not in str(status.failure_message)


def test_nova_takes_the_batch_size_of_amazons_notebook(tmp_path: Path) -> None:
    """hyperParameters of aws-samples/amazon-nova-samples, nova-micro-text-to-sql-bedrock."""
    notebook = {"epochCount": "1", "batchSize": "1", "learningRate": "0.00001"}
    assert find_refusal(request_of(tmp_path, numbered(CONVERSE), NOVA, **notebook)) is None


def test_a_job_file_where_the_endpoint_was_started_changes_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cloudft.yaml").write_text("early_stopping: {patience: 1}\n")
    monkeypatch.chdir(tmp_path)
    assert find_refusal(request_of(tmp_path, numbered(CONVERSE), NOVA)) is None


@pytest.mark.parametrize(
    ("base", "given", "all_weights", "rate"),
    [
        (NOVA, {}, False, 2e-4),
        (NOVA, {"learningRate": "0.00001"}, False, 2e-4),
        (NOVA, {"learningRate": "0.00002"}, False, 4e-4),
        (NOVA, {}, True, 2e-5),
        (LLAMA, {"learningRate": "0.0001"}, False, 2e-4),
        (TITAN, {"learningRate": "0"}, False, 1e-8),
    ],
)
def test_a_stand_in_trains_at_its_own_rate(
    tmp_path: Path, base: str, given: Any, all_weights: bool, rate: float
) -> None:
    request = request_of(tmp_path, [], base, **given)
    settings = stand_in_settings(request, all_weights=all_weights)
    assert settings["local.hyperparameters.learningRate"] == pytest.approx(rate)


def test_a_loss_that_stays_where_it_was_is_named() -> None:
    assert "it learned nothing" in str(describe_flat_loss([7.7, 9.7, 8.0, 9.1, 7.9, 8.8, 7.8, 9.6]))
    assert describe_flat_loss([7.7, 7.2, 6.0, 5.1, 4.0]) is None
    assert describe_flat_loss([7.7, 7.7]) is None, "too short to say"
