"""Preference optimization: its losses, its curves, and the reference that is kept."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import policy_cases
import preference_cases
import pytest
import tiny
import torch
from trainer_run import RunTrainer, run_trainer

from local_backend.data.batches import collate
from local_backend.data.examples import EncodedData, Example, flatten_rows
from local_backend.errors import TrainerError
from local_backend.job_dir import JobDir
from local_backend.packed import PackedLoss
from local_backend.settings import PreferenceSettings, read_settings
from local_backend.training.loss import forward_padded
from local_backend.training.memory_estimate import StepEstimator, encode_training_data
from local_backend.training.objectives import make_objective
from local_backend.training.objectives.preference_optimization import PreferenceOptimization
from local_backend.training.prepare_run import initial_micro_batch_limit
from local_backend.training.probe import probe

PAIRS = tiny.preferences(12)
JOB: dict[str, Any] = {"customizationType": "PREFERENCE_OPTIMIZATION", "format": "preference"}
METHODS = {
    "dpo": PreferenceSettings("dpo", 0.1, 0.1, 0.5),
    "orpo": PreferenceSettings("orpo", 2.0, 0.0, 0.5),
    "simpo": PreferenceSettings("simpo", 2.0, 0.0, 1.0),
}


def preference(method: str = "dpo") -> dict[str, Any]:
    return vars(METHODS[method])


@pytest.mark.parametrize("method", sorted(METHODS))
def test_pairs_are_learned_alike_on_both_paths(train: RunTrainer, method: str) -> None:
    packed, padded = (
        train(
            PAIRS,
            validation=PAIRS[:4],
            packed=path,
            microBatchSize=3,
            epochCount=4,
            learningRate=3e-3,
            preference=preference(method),
            **JOB,
        )
        for path in (True, False)
    )
    assert packed.status == padded.status == "Completed", packed.log + padded.log
    for split in ("train", "validation"):
        assert packed.losses(split) == pytest.approx(padded.losses(split), abs=1e-4)
    base, last = packed.summary["base"], packed.curve_points("validation")[-1]
    assert last["loss"] < base["validationLoss"]
    assert last["preferenceAccuracy"] > 0.9
    assert last["rewardMargin"] > base["rewardMargin"]
    assert last["rewardMargin"] == pytest.approx(last["chosenReward"] - last["rejectedReward"])
    tuned = packed.summary["tuned"]
    best = min(packed.curve_points("validation"), key=lambda point: point["loss"])
    assert tuned["rewardMargin"] == best["rewardMargin"]
    assert tuned["perplexity"] == best["perplexity"]
    if method == "dpo":  # before the first step the model is its reference
        assert base["rewardMargin"] == pytest.approx(0.0, abs=1e-6)
        assert packed.losses()[0] == pytest.approx(math.log(2.0), abs=1e-6)


def test_the_loss_is_the_mean_over_pairs_of_the_papers_formulas() -> None:
    generator = torch.Generator().manual_seed(3)
    rows = [3.0 * torch.rand(length, generator=generator) for length in (3, 5, 1, 7)]
    references = [(-4.0, -9.0), (-2.0, -11.0)]
    examples = [
        _pair(len(a), len(b), known)
        for a, b, known in zip(rows[::2], rows[1::2], references, strict=True)
    ]

    def expected(settings: PreferenceSettings) -> float:
        total = 0.0
        for chosen, rejected, known in zip(rows[::2], rows[1::2], references, strict=True):
            sums = [-float(row.double().sum()) for row in (chosen, rejected)]
            means = [value / len(row) for value, row in zip(sums, (chosen, rejected), strict=True)]
            if settings.method == "dpo":
                logit = settings.beta * ((sums[0] - known[0]) - (sums[1] - known[1]))
            elif settings.method == "simpo":
                logit = settings.beta * (means[0] - means[1]) - settings.simpo_gamma
            else:
                odds = [m - math.log1p(-math.exp(m)) for m in means]
                total += -means[0] + settings.beta * math.log1p(math.exp(odds[1] - odds[0]))
                continue
            smoothing = settings.label_smoothing
            total += (1 - smoothing) * math.log1p(math.exp(-logit))
            total += smoothing * math.log1p(math.exp(logit))
        return total

    for settings in METHODS.values():
        objective = PreferenceOptimization(settings)
        loss = objective.loss(examples, _Losses(rows))
        assert float(loss) == pytest.approx(expected(settings), abs=1e-5)
        assert objective.count(examples) == 2


class _Losses:
    def __init__(self, rows: list[torch.Tensor]) -> None:
        self.rows = rows

    def sum(self) -> torch.Tensor:
        return torch.cat(self.rows).sum()

    def by_row(self) -> list[torch.Tensor]:
        return self.rows


def _pair(chosen: int, rejected: int, known: tuple[float, ...] = ()) -> Example:
    lengths = (chosen + 1, rejected + 1)
    ids = torch.arange(sum(lengths)).numpy()
    mask = torch.ones(sum(lengths), dtype=torch.bool).numpy()
    mask[[0, lengths[0]]] = False
    return Example(ids, mask, row_lengths=lengths, reference=known)


def test_a_second_job_reuses_the_reference_and_another_model_or_other_pairs_do_not(
    tmp_path: Path, tiny_model: Path
) -> None:
    def run(name: str, records: list[dict[str, Any]] = PAIRS, **changes: Any) -> str:
        folder = tmp_path / name
        settings = {"preference": preference(), "epochCount": 1, **JOB, **changes}
        tiny.write_job_dir(folder, tiny_model, {"train": records}, **settings)
        done = run_trainer(folder)
        assert done.status == "Completed", done.log
        return done.log

    computing, kept = "computing the reference", "log-probabilities of 24 sequences are kept"
    assert computing in run("first")
    assert kept in run(
        "second", seed=9, lora={"r": 2, "alpha": 4, "dropout": 0.1, "target_modules": "all-linear"}
    )
    assert computing in run("other-pairs", PAIRS[1:])
    assert computing in run("other-path", packed=False)
    [values] = (tmp_path / "second" / "reference").glob("*/values.safetensors")
    first = tmp_path / "first" / "reference" / values.parent.name / values.name
    for path in (first, values):  # a damaged file counts as none
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    assert computing in run("after-damage")
    assert "reference" not in run("simpo", preference=preference("simpo"))


def test_a_pair_whose_answer_is_cut_off_or_that_is_equal_as_kept_is_left_out() -> None:
    data = EncodedData([], 3)
    long, short = (
        ([1, 2, 3, 4, 5], [False, False, False, True, True]),
        ([1, 2, 3, 9], [False, False, False, True]),
    )
    data.add_rows([long, short], 5)
    data.add_rows([long, short], 3)
    data.add_rows([long, ([1, 2, 3, 4, 6], long[1])], 4)
    assert [example.row_lengths for example in data.examples] == [(5, 4)]
    assert (data.masked, data.truncated, data.tokens, data.loss_tokens) == (2, 2, 9, 3)


def test_the_memory_estimate_and_the_probe_take_pairs(tmp_path: Path, tiny_model: Path) -> None:
    data = {"train": PAIRS, "validation": PAIRS[:4]}
    folder = tiny.write_job_dir(tmp_path / "job", tiny_model, data, preference=preference(), **JOB)
    settings = read_settings(JobDir(folder))
    config, encoded = encode_training_data(settings)
    device = torch.device("cpu")
    estimator = StepEstimator(config, settings, torch.float32, device)
    estimate = estimator.estimate(encoded.examples, initial_micro_batch_limit(settings, device))
    assert estimate.peak > estimate.persistent > 0
    replies: list[Any] = []
    probe(JobDir(folder), 2, replies.append)
    assert replies[-1]["took"]["records"] == len(PAIRS)
    assert replies[-1]["took"]["seconds"] > 0
    assert not (folder / "reference").exists()


def test_an_unknown_method_is_an_error_with_the_known_ones(
    tmp_path: Path, tiny_model: Path
) -> None:
    folder = tiny.write_job_dir(
        tmp_path / "job",
        tiny_model,
        {"train": PAIRS},
        preference={**preference(), "method": "ipo"},
        **JOB,
    )
    with pytest.raises(TrainerError, match=r"no preference method 'ipo'.*dpo or simpo or orpo"):
        make_objective(read_settings(JobDir(folder)))


TRL = json.loads(Path(__file__).with_name("trl_preference_losses.json").read_text())
"""TRL's losses and gradients, as tools/trl_preference_losses.py wrote them."""


def examples_of_cases(settings: PreferenceSettings) -> list[Example]:
    data = EncodedData([], len(preference_cases.PAIRS))
    for pair in preference_cases.PAIRS:
        answers = (pair["chosen"], pair["rejected"])
        masks = [[False] * len(pair["prompt"]) + [True] * len(answer) for answer in answers]
        rows = [([*pair["prompt"], *answer], m) for answer, m in zip(answers, masks, strict=True)]
        data.add_rows(rows, 64)
    if settings.method != "dpo":
        return data.examples
    known = [tuple(pair["reference"]) for pair in preference_cases.PAIRS]
    return [replace(e, reference=r) for e, r in zip(data.examples, known, strict=True)]


@pytest.mark.parametrize("path", ["packed", "padded"])
@pytest.mark.parametrize("name", sorted(preference_cases.CASES))
def test_loss_and_gradients_are_those_of_trl(name: str, path: str) -> None:
    settings = PreferenceSettings(**preference_cases.CASES[name])
    objective, model = PreferenceOptimization(settings), policy_cases.build_model()
    examples = examples_of_cases(settings)
    if path == "packed":
        packed = PackedLoss(model, objective, torch.float32, torch.device("cpu"), reason="tested")
        total = packed(examples)
    else:
        batch = collate(flatten_rows(examples), 0, torch.device("cpu"))
        total = objective.loss(examples, forward_padded(model, batch))
    mean = total / objective.count(examples)
    mean.backward()
    expected = TRL["cases"][name]
    assert mean.item() == pytest.approx(expected["loss"], abs=1e-5)
    found = policy_cases.summarize_gradients(model)
    assert found.keys() == expected["gradients"].keys()
    for weight, summary in expected["gradients"].items():
        assert found[weight] == pytest.approx(summary, abs=1e-5 * max(1.0, summary[0]), rel=1e-4)
