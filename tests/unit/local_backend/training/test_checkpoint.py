"""Checkpoints: whole or not there, and one to fall back on."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from local_backend.training import checkpoint
from local_backend.training.checkpoint import Position


def made(steps: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a small model with one frozen layer, after some steps of its optimizer."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2, bias=False))
    model[1].requires_grad_(False)
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=0.1 * steps
    )
    for _ in range(steps):
        step(model, optimizer)
    return model, optimizer


def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Take one step over a fixed input."""
    optimizer.zero_grad()
    model(torch.ones(1, 3)).square().sum().backward()
    optimizer.step()


def same(one: Any, other: Any) -> bool:
    """Return True if the state of two optimizers, or models, is equal."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def test_a_restored_run_continues_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    model, optimizer = made(1)
    position = Position(step=12, metrics_bytes=99, best_loss=0.5, best_step=6, micro=[2, 64])
    checkpoint.write_checkpoint(tmp_path, model, optimizer, position)
    checkpoint.write_best_weights(tmp_path, model, position)
    other, other_optimizer = made(2)
    assert checkpoint.restore_newest(tmp_path, other, other_optimizer) == position
    assert same(dict(other[0].named_parameters()), dict(model[0].named_parameters()))
    (weights,) = tmp_path.glob(f"step-*/{checkpoint.TRAINED}")
    assert set(load_file(weights)) == {"0.weight", "0.bias"}, "what is frozen is not saved"
    assert same(other_optimizer.state_dict(), optimizer.state_dict())
    step(model, optimizer)
    step(other, other_optimizer)
    assert same(optimizer.state_dict()["state"], other_optimizer.state_dict()["state"])


def test_the_two_newest_are_kept(tmp_path: Path) -> None:
    model, optimizer = made(1)
    for number in (9, 10, 11):
        checkpoint.write_checkpoint(tmp_path, model, optimizer, Position(step=number))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000010", "step-00000011"]


@pytest.mark.parametrize("name", [checkpoint.TRAINED, checkpoint.OPTIMIZER, checkpoint.POSITION])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str
) -> None:
    model, optimizer = made(1)
    checkpoint.write_checkpoint(tmp_path, model, optimizer, Position(step=1))
    expected = {n: p.detach().clone() for n, p in model.named_parameters()}
    before = optimizer.state_dict()["state"][0]["exp_avg"].clone()
    step(model, optimizer)
    checkpoint.write_checkpoint(tmp_path, model, optimizer, Position(step=2))
    path = tmp_path / "step-00000002" / name
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        middle = len(content) // 2
        content[middle] ^= 0xFF
        path.write_bytes(content if damage == "changed" else content[:middle])

    position = checkpoint.restore_newest(tmp_path, model, optimizer)
    assert position == Position(step=1)
    assert same({n: p.detach() for n, p in model.named_parameters()}, expected)
    assert torch.equal(optimizer.state_dict()["state"][0]["exp_avg"], before)
    assert "step-00000002 is damaged" in capsys.readouterr().out


def test_with_every_checkpoint_damaged_it_starts_over(tmp_path: Path) -> None:
    model, optimizer = made(1)
    checkpoint.write_checkpoint(tmp_path, model, optimizer, Position(step=1))
    (tmp_path / "step-00000001" / checkpoint.POSITION).write_text("{")
    assert checkpoint.restore_newest(tmp_path, model, optimizer) is None


def test_damaged_checkpoints_of_later_steps_make_room_for_new_ones(tmp_path: Path) -> None:
    """A run that starts over keeps its own checkpoints, not those that it could not use."""
    model, optimizer = made(1)
    for number in (8, 9):
        checkpoint.write_checkpoint(tmp_path, model, optimizer, Position(step=number))
        (tmp_path / f"step-{number:08d}" / checkpoint.TRAINED).unlink()
    (tmp_path / "step-00000007").write_text("a file in a folder's place")
    assert checkpoint.restore_newest(tmp_path, model, optimizer) is None
    for number in (1, 2, 3):
        checkpoint.write_checkpoint(tmp_path, model, optimizer, Position(step=number))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]


def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, optimizer = made(1)
    checkpoint.write_checkpoint(tmp_path, model, optimizer, Position(step=1))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError):
        checkpoint.write_checkpoint(tmp_path, model, optimizer, Position(step=2))
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    assert checkpoint.restore_newest(tmp_path, model, optimizer) == Position(step=1)


def test_the_best_weights_come_back(tmp_path: Path) -> None:
    model, optimizer = made(1)
    best = model[0].weight.detach().clone()
    checkpoint.write_best_weights(tmp_path, model, Position(step=4, best_loss=0.1))
    step(model, optimizer)
    assert not torch.equal(model[0].weight, best)
    checkpoint.restore_best_weights(tmp_path, model)
    assert torch.equal(model[0].weight, best)


def test_a_job_that_began_with_peft_s_own_layers_resumes_with_ours(
    tiny_model: Path, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from local_backend.models import lora
    from local_backend.models.load_model import trainable_parameters
    from local_backend.settings import LoraSettings

    def optimizer_of(model: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(trainable_parameters(model).values(), lr=0.1)

    config = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")
    theirs = get_peft_model(AutoModelForCausalLM.from_pretrained(tiny_model), config)
    before, ids = optimizer_of(theirs), torch.tensor([[5, 9, 2, 7]])
    for _ in range(2):
        before.zero_grad()
        theirs(input_ids=ids, labels=ids).loss.backward()
        before.step()
    checkpoint.write_checkpoint(tmp_path, theirs, before, Position(step=2))
    ours = AutoModelForCausalLM.from_pretrained(tiny_model)
    lora.attach_adapters(ours, LoraSettings(2, 4, 0.0, "all-linear"), seed=1)
    after = optimizer_of(ours)
    assert checkpoint.restore_newest(tmp_path, ours, after) == Position(step=2)
    with torch.no_grad():
        assert torch.allclose(ours(ids).logits, theirs(ids).logits, atol=1e-6)
    for a, b in zip(
        trainable_parameters(ours).values(), trainable_parameters(theirs).values(), strict=True
    ):
        assert torch.equal(a, b)
        assert torch.equal(after.state[a]["exp_avg"], before.state[b]["exp_avg"])
