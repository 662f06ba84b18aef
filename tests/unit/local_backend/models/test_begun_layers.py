"""A job that is resumed keeps the adapted layers that it began with."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from safetensors import safe_open
from trainer_run import TrainerRun, run_to_checkpoint, run_trainer

from local_backend.models import lora
from local_backend.models.target_modules import Selection, select_targets, without_stacked_experts
from local_backend.settings import LoraSettings

DATA = {"train": tiny.pairs(8)}


def select_as_before(model: object, settings: LoraSettings) -> Selection:
    """Select what an earlier version selected: no stacked experts."""
    return without_stacked_experts(model, select_targets(model, settings))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def experts_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny Mixtral, whose experts are stacked."""
    from transformers import MixtralConfig, MixtralForCausalLM

    folder, tokenizer = tmp_path_factory.mktemp("mixtral"), tiny.build_tokenizer()
    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.3,
    )
    MixtralForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def adapted(run: TrainerRun) -> set[str]:
    """Return the tensors of the saved adapter."""
    with safe_open(run.model / lora.ADAPTER_WEIGHTS, "pt") as opened:
        return set(opened.keys())


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "down_proj"]])
@pytest.mark.parametrize("by_another_version", [True, False])
def test_a_resumed_job_trains_the_layers_that_it_began_with(
    by_another_version: bool,
    targets: str | list[str],
    experts_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes = {"lora": {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": targets}}
    folders = [
        tiny.write_job_dir(tmp_path / name, experts_model, DATA, **changes)
        for name in ("whole", "resumed")
    ]
    with monkeypatch.context() as patch:
        if by_another_version:
            patch.setattr(lora, "select_targets", select_as_before)
        whole = run_trainer(folders[0])
        run_to_checkpoint(folders[1], 2)
    resumed = run_trainer(folders[1])
    assert "resuming after step 2 of 4" in resumed.log
    assert resumed.losses() == whole.losses()
    assert adapted(resumed) == adapted(whole)
    assert any("experts" in name for name in adapted(whole)) != by_another_version
