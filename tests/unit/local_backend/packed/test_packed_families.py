"""Every family of the packed path against transformers' own forward pass, record by record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from packed_variants import VARIANTS, VOCABULARY, build
from tiny import build_tokenizer

from local_backend.data.examples import Example
from local_backend.inference.sampler import make_sampler
from local_backend.models.load_model import LoadedModel
from local_backend.models.sampling import Sampling
from local_backend.packed import FAMILIES, PackedLoss, attention, layout, unsupported_reason
from local_backend.packed import kernels as kernels_module
from local_backend.packed.kernels import Kernels
from local_backend.packed.kernels.compile import compile_kernels
from local_backend.training.loss import make_loss
from local_backend.training.objectives import find_objective

CPU = torch.device("cpu")
OBJECTIVE = find_objective("FINE_TUNING")
HEAD = np.random.default_rng(5).integers(3, VOCABULARY, 20)


def example(length: int, first: int, seed: int, ids: Any = ()) -> Example:
    tokens = np.random.default_rng([length, first, seed]).integers(3, VOCABULARY, length)
    tokens[: len(ids)] = ids
    return Example(tokens.astype(np.int32), np.arange(length) >= first)


RECORDS = {
    "of all lengths": [example(n, 1 + n // 3, n) for n in (4, 9, 23, 30, 55)],
    "with a shared prefix": [example(n, 24, n, HEAD) for n in (27, 31, 49)],
}


def own_loss(model: Any, records: Sequence[Example]) -> torch.Tensor:
    """Return the summed loss by the model's own forward pass, of each record alone."""
    total = torch.zeros(())
    for record in records:
        ids = torch.tensor(record.ids.astype(np.int64))[None]
        logits = model(input_ids=ids).logits[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        total = total + losses[torch.tensor(record.loss_mask[1:])].sum()
    return total


def gradients(loss: torch.Tensor, model: Any) -> dict[str, torch.Tensor]:
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))


def test_every_family_of_the_table_is_tested() -> None:
    assert {name.split(",")[0] for name in VARIANTS} == set(FAMILIES)


@pytest.mark.parametrize("trained", ["full", "lora"])
@pytest.mark.parametrize("name", VARIANTS)
def test_losses_and_gradients_are_those_of_the_models_own_forward_pass(
    monkeypatch: pytest.MonkeyPatch, name: str, trained: str
) -> None:
    model = build(name, trained)
    if name == "gpt_oss" and trained == "full":
        model.model.layers.requires_grad_(False)  # sinks are not trained
        model.model.layers[0].self_attn.q_proj.requires_grad_(True)
    assert unsupported_reason(model) is None
    packed = PackedLoss(model, OBJECTIVE, torch.float32, CPU, reason="tested")
    for records in RECORDS.values():
        expected = own_loss(model, records)
        reference = gradients(expected, model)
        for dense in (layout.MAX_DENSE_ROW, 8):  # 8: long rows have attention of their own
            with monkeypatch.context() as patch:
                patch.setattr(layout, "MAX_DENSE_ROW", dense)
                patch.setattr(attention, "QUERY_CHUNK", 16)
                loss = packed(records)
            assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
            for part, gradient in gradients(loss, model).items():
                scale = float(reference[part].abs().max()) + 1e-6
                error = float((gradient - reference[part]).abs().max()) / scale
                assert error < 5e-5, (part, error, dense)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    """Return the compiled kernels."""
    folder = tmp_path_factory.mktemp("kernels") / "key"
    compile_kernels(folder)
    return Kernels(folder)


@pytest.mark.parametrize("name", VARIANTS)
def test_compiled_kernels_compute_every_family(
    monkeypatch: pytest.MonkeyPatch, name: str, kernels: Kernels
) -> None:
    model = build(name, "lora")
    packed = PackedLoss(model, OBJECTIVE, torch.float32, CPU, reason="tested")
    for records in RECORDS.values():
        expected = packed(records)
        reference = gradients(expected, model)
        with monkeypatch.context() as patch:
            patch.setattr(kernels_module, "_current", kernels)
            loss = packed(records)
            computed = gradients(loss, model)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        for part, gradient in computed.items():
            scale = float(reference[part].abs().max()) + 1e-6
            assert float((gradient - reference[part]).abs().max()) / scale < 5e-5, part


@pytest.mark.parametrize("name", ["gemma3_text", "qwen3_moe"])
def test_checkpointing_changes_no_gradient(name: str) -> None:
    model = build(name, "lora")
    packed = PackedLoss(model, OBJECTIVE, torch.float32, CPU, reason="tested")
    records = RECORDS["of all lengths"]
    expected = gradients(packed(records), model)
    packed.enable_gradient_checkpointing()
    torch.testing.assert_close(gradients(packed(records), model), expected)


def test_sinks_are_not_trained() -> None:
    assert "does not train the sinks" in (unsupported_reason(build("gpt_oss", "full")) or "")


@pytest.mark.parametrize("name", VARIANTS)
def test_sampled_answers_are_those_of_the_models_own_forward_pass(name: str) -> None:
    model = build(name, "lora")
    loaded = LoadedModel(model, build_tokenizer(), "", [2], False)
    answers = []
    for packed in (True, False):
        loss = make_loss(loaded, OBJECTIVE, packed, torch.float32, CPU)
        sampler = make_sampler(loaded, loss, torch.float32, CPU)
        prompts = [record.ids[:20].tolist() for record in RECORDS["of all lengths"][:4]]
        # Up to 38 tokens, because longrope changes its angles within an answer at 40.
        groups = sampler(prompts, 2, Sampling(18, (1, 2, 3, 4)))
        answers.append([answer.ids for group in groups for answer in group])
    assert answers[0] == answers[1]
