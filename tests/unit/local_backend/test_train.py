"""The training loop, run in this process on a tiny model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from trainer_run import RunTrainer, run_trainer

from local_backend import job_dir as names
from local_backend.packed import PackedLoss

FAST: dict[str, Any] = {"learningRate": 0.03}
CONTRARY = [tiny.pair(record["prompt"], "Nobody knows where it went.") for record in tiny.pairs(8)]
"""The prompts of the training data, with other answers: learning one set unlearns the other."""


def test_the_learning_rate_warms_up_and_decays_over_all_steps(train: RunTrainer) -> None:
    run = train(16, batchSize=4, epochCount=2, learningRate=0.1, learningRateWarmupSteps=3)
    rates = [point["learningRate"] for point in run.curve_points()]
    expected = [0.1 / 3, 0.2 / 3, 0.1, 0.1, 0.08, 0.06, 0.04, 0.02]
    assert rates == pytest.approx(expected)


def test_without_warm_up_the_first_step_has_the_full_rate(train: RunTrainer) -> None:
    run = train(8, batchSize=4, epochCount=2, learningRate=0.1, learningRateWarmupSteps=0)
    assert [point["learningRate"] for point in run.curve_points()] == pytest.approx(
        [0.1, 0.075, 0.05, 0.025]
    )


def test_learns_and_leaves_the_files_that_bedrock_leaves(train: RunTrainer) -> None:
    records = tiny.pairs(10)
    run = train(records, validation=records[:3], batchSize=4, epochCount=3, evalSteps=2, **FAST)
    assert run.status == "Completed", run.log
    losses = run.losses()
    assert losses[-1] < losses[0] - 1

    header, *rows = run.rows(names.TRAINING_CSV)
    assert tuple(header) == names.TRAINING_COLUMNS
    # 10 records in batches of 4: 3 steps an epoch. Both count from 0.
    assert [(row[0], row[1]) for row in rows] == [(str(s), str(s // 3)) for s in range(9)]
    assert [float(row[2]) for row in rows] == losses
    assert all(float(row[3]) == pytest.approx(math.exp(float(row[2]))) for row in rows)

    header, *rows = run.rows(names.VALIDATION_CSV)
    assert tuple(header) == names.VALIDATION_COLUMNS
    # Each second step and each epoch's end, once where they meet (after step 6).
    assert [int(row[0]) for row in rows] == [1, 2, 3, 5, 7, 8]
    assert [int(row[1]) for row in rows] == [0, 0, 1, 1, 2, 2]

    assert (run.path / "artifacts" / names.MANIFEST).read_bytes() == (
        run.path / "data" / "manifest.json"
    ).read_bytes()
    assert not (run.path / names.CHECKPOINTS).exists()
    assert not list(run.path.glob(".*")), "no temporary file is left"


def test_the_adapter_and_its_tokenizer_load_without_us(train: RunTrainer) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    run = train(8)
    model = AutoPeftModelForCausalLM.from_pretrained(str(run.model))
    assert model.peft_config["default"].r == 4
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    assert tokenizer.chat_template == tiny.CHATML
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)


def test_a_model_without_a_template_is_saved_with_the_one_it_was_trained_with(
    train: RunTrainer, plain_model: Path
) -> None:
    from transformers import AutoTokenizer

    run = train(8, model=plain_model)
    assert run.summary["chatTemplate"] == "plain"
    text = AutoTokenizer.from_pretrained(run.model).apply_chat_template(
        [{"role": "user", "content": "Where?"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "### Instruction:\nWhere?\n\n### Response:\n"


def test_the_loss_reported_for_the_tuned_model_is_the_saved_models(train: RunTrainer) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    records = tiny.pairs(6)
    run = train(records, validation=records[:4], epochCount=4)
    model = AutoPeftModelForCausalLM.from_pretrained(str(run.model)).eval()
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    total, count = 0.0, 0
    for record in records[:4]:
        prompt = f"<|im_start|>user\n{record['prompt']}<|im_end|>\n<|im_start|>assistant\n"
        ids = (
            tokenizer(prompt)["input_ids"],
            tokenizer(record["completion"] + tiny.END)["input_ids"],
        )
        both = torch.tensor([ids[0] + ids[1]])
        labels = torch.tensor([[-100] * len(ids[0]) + ids[1]])
        with torch.inference_mode():
            total += float(model(input_ids=both, labels=labels).loss) * len(ids[1])
        count += len(ids[1])
    assert run.summary["tuned"]["validationLoss"] == pytest.approx(total / count, abs=1e-5)
    assert run.summary["base"]["validationLoss"] > run.summary["tuned"]["validationLoss"]


def test_early_stopping_stops_and_keeps_the_best_weights(train: RunTrainer) -> None:
    patience = {"patience": 2, "threshold": 0.0}
    run = train(8, validation=CONTRARY, epochCount=30, learningRate=0.03, earlyStopping=patience)
    losses = run.losses("validation")
    best = min(range(len(losses)), key=losses.__getitem__)
    assert best == len(losses) - 1 - 2, "two validations without a gain, then the end"
    assert len(run.curve_points()) < run.summary["totalSteps"]
    assert run.summary["stoppedEarly"] is True
    assert run.summary["tuned"]["validationLoss"] == losses[best]
    assert run.summary["tuned"]["step"] == run.curve_points("validation")[best]["step"] + 1
    again = train(8, validation=CONTRARY, model=merged(run.model), epochCount=1, learningRate=0.0)
    assert again.summary["base"]["validationLoss"] == pytest.approx(losses[best], abs=1e-4)


def merged(adapter: Path) -> Path:
    """Merge base and adapter into a model beside them, and return its folder."""
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    out = adapter.parent / "merged"
    AutoPeftModelForCausalLM.from_pretrained(str(adapter)).merge_and_unload().save_pretrained(out)
    AutoTokenizer.from_pretrained(adapter).save_pretrained(out)
    return out


def test_a_gain_below_the_threshold_does_not_count(train: RunTrainer) -> None:
    records = tiny.pairs(8)
    run = train(
        records,
        validation=records,
        epochCount=20,
        learningRate=1e-4,
        earlyStopping={"patience": 3, "threshold": 1.0},
    )
    losses = run.losses("validation")
    assert losses == sorted(losses, reverse=True), "the loss falls all the time"
    assert len(losses) == 4, "the first one is a gain over nothing, three more are too small"


def test_the_same_seed_gives_the_same_losses_and_another_seed_does_not(train: RunTrainer) -> None:
    lora = {"r": 4, "alpha": 8, "dropout": 0.1, "target_modules": "all-linear"}
    first, second, other = (train(12, seed=seed, lora=lora) for seed in (7, 7, 8))
    assert first.losses() == second.losses()
    assert first.losses() != other.losses()


def test_micro_batches_do_not_change_the_losses(train: RunTrainer) -> None:
    whole = train(12, batchSize=6)
    parts = train(12, batchSize=6, microBatchSize=1)
    assert parts.losses() == pytest.approx(whole.losses(), abs=1e-4)


def test_when_memory_runs_out_smaller_parts_give_the_same_curve(
    train: RunTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    plenty = train(12, batchSize=6, validation=tiny.pairs(5))
    whole = PackedLoss.__call__
    rows = []

    def with_little_memory(self: PackedLoss, examples: Any) -> Any:
        if len(examples) > (2 if self.model.gradient_checkpointing else 0):
            raise torch.OutOfMemoryError("out of memory")
        rows.append(len(examples))
        return whole(self, examples)

    monkeypatch.setattr(PackedLoss, "__call__", with_little_memory)
    scarce = train(12, batchSize=6, validation=tiny.pairs(5))
    assert scarce.status == "Completed", scarce.log
    assert max(rows) == 1
    assert scarce.losses() == pytest.approx(plenty.losses(), abs=1e-4)
    assert scarce.losses("validation") == pytest.approx(plenty.losses("validation"), abs=1e-4)
    assert "out of memory: continuing with 1 sequences" in scarce.log
    assert "activations computed twice" in scarce.log


def test_memory_too_small_for_one_sequence_fails_with_a_remedy(
    train: RunTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(self: Any, examples: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(PackedLoss, "__call__", no_memory)
    message = train(4).message
    assert "one sequence at a time" in message
    assert "local.max_length" in message


def test_a_loss_that_diverges_fails_and_says_so(train: RunTrainer) -> None:
    message = train(8, method="full", learningRate=1e30).message
    assert "training has diverged" in message
    assert "lower the learningRate" in message


def test_full_fine_tuning_leaves_a_whole_model(train: RunTrainer) -> None:
    from transformers import AutoModelForCausalLM

    run = train(8, method="full", epochCount=4)
    assert run.status == "Completed", run.log
    assert run.losses()[-1] < run.losses()[0]
    model = AutoModelForCausalLM.from_pretrained(run.model)
    assert model.num_parameters() == run.summary["trainedParameters"]
    assert not (run.model / "adapter_config.json").exists()


def test_continued_pre_training_learns_raw_text(train: RunTrainer) -> None:
    run = train(
        tiny.texts(40),
        validation=tiny.texts(4),
        customizationType="CONTINUED_PRE_TRAINING",
        format="input",
        maxLength=32,
        epochCount=4,
        **FAST,
    )
    assert run.status == "Completed", run.log
    assert run.losses()[-1] < run.losses()[0] - 1
    assert run.summary["tuned"]["validationLoss"] < run.summary["base"]["validationLoss"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"method": "qlora"}, ["bitsandbytes is not installed", "method: lora"]),
        ({"method": "qlora", "fsdp": True}, ["shards no 4-bit weights", "method: lora"]),
        ({"fsdp": True}, ["the job has one", "raise local.processes"]),
        ({"maxLength": tiny.CONTEXT + 1}, [f"is {tiny.CONTEXT} tokens"]),
        (
            {"lora": {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": ["q_porj"]}},
            ["q_porj", "q_proj", "down_proj", "all-linear"],
        ),
        ({"model": {"name": "x", "weights": [{"kind": "folder", "path": "/no"}]}}, ["/no"]),
        ({"version": 2}, ["version 2", "reads version 1"]),
    ],
    ids=[
        *("qlora-without-its-package", "sharded-qlora", "nothing-to-shard-over"),
        *("longer-than-the-context", "unknown-modules", "no-weights", "version"),
    ],
)
def test_what_it_cannot_do_it_refuses_and_says_why(
    train: RunTrainer, changes: dict[str, Any], expected: list[str]
) -> None:
    run = train(4, **changes)
    assert not (run.path / "artifacts").exists()
    missing = [text for text in expected if text not in run.message]
    assert not missing, run.message


def test_a_staged_file_that_was_changed_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    folder = tiny.write_job_dir(tmp_path / "job", tiny_model, {"train": tiny.pairs(4)})
    with (folder / "data" / "train.jsonl").open("a") as file:
        file.write("\n")
    run = run_trainer(folder)
    assert "train.jsonl was changed after it was staged" in run.message
