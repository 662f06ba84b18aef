"""The model's own forward pass on rows in every form: the loss of each row alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_families
import torch
from hypothesis import given
from hypothesis import strategies as st
from trainer_run import RunTrainer

from local_backend.data.batches import MicroBatchLimit, collate, count_padded_tokens
from local_backend.data.examples import Example
from local_backend.models import family_support, family_table
from local_backend.models.load_model import LoadedModel
from local_backend.training import loss as loss_module
from local_backend.training.loss import choose_path, forward_padded, make_loss
from local_backend.training.memory_estimate import StepEstimator, runtime_overhead_bytes
from local_backend.training.objectives import find_objective
from local_backend.training.padding_free import count_line_tokens, fill_lines

CPU = torch.device("cpu")
OBJECTIVE = find_objective("FINE_TUNING")
FORMS = {
    "padding-free": family_table.PADDING_FREE,
    "padded": family_table.PADDED,
    "row-by-row": family_table.ROW_BY_ROW,
}


measured_version = pytest.mark.skipif(
    not family_support.is_measured_version(family_support.installed_version()),
    reason="the family table is not that of this transformers",
)


class PadToken:
    pad_token_id = tiny_families.PAD


def load(model: Any) -> LoadedModel:
    return LoadedModel(model, PadToken(), "", [0], False)  # type: ignore[arg-type]


def make_own_forward_loss(model: Any, packed: bool | str = "auto") -> Any:
    """Return the loss that a family off the packed path gets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loss_module, "unsupported_reason", lambda model: "tested")
        return make_loss(load(model), OBJECTIVE, packed, torch.float32, CPU)


@pytest.mark.parametrize("model_type", tiny_families.model_types())
def test_each_family_computes_rows_as_if_each_were_alone(model_type: str) -> None:
    if not any(model_type in families for families in FORMS.values()):
        assert not family_support.is_measured_version(family_support.installed_version())
        pytest.skip("a family of a transformers that is not measured")
    if model_type == "cohere_compass_text" and family_support.installed_version() < "5.21":
        pytest.skip("transformers 5.20 can't compute it")
    model = tiny_families.build_family(model_type)
    chosen = make_own_forward_loss(model)
    assert model_type in FORMS[chosen.name] or not family_support.is_measured_version(
        family_support.installed_version()
    )
    rows = tiny_families.ROWS
    losses = chosen.reduce(rows, lambda losses: losses)
    computed = tiny_families.losses_and_gradients(losses, model)
    assert tiny_families.is_equal(computed, tiny_families.losses_alone(model)), chosen.reason


def test_the_table_has_each_family_once() -> None:
    names = [name for families in FORMS.values() for name in families]
    assert len(names) == len(set(names)) and len(family_table.PADDING_FREE) > 90
    assert not set(names) & tiny_families.NOT_BUILT.keys()


def test_losses_without_padding_are_those_of_padded_rows() -> None:
    model, rows = tiny_families.build_family("gemma2"), tiny_families.ROWS
    chosen = make_own_forward_loss(model)
    with torch.no_grad():
        free = chosen.reduce(rows, lambda losses: losses)
        padded = forward_padded(model, collate(rows, 0, CPU))
        for losses, expected in zip(free.by_row(), padded.by_row(), strict=True):
            torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-5)
        assert free.sum().item() == pytest.approx(padded.sum().item(), rel=1e-5)
        assert chosen(rows).item() == pytest.approx(padded.sum().item(), rel=1e-5)
        constants = [torch.rand(len(losses), 2) for losses in free.by_row()]
        for temperature in (1.0, 0.7):
            arguments = (lambda nll, c: nll * c[:, 0] + c[:, 1], constants, temperature)
            mapped = free.map_sum(*arguments).item()
            assert mapped == pytest.approx(padded.map_sum(*arguments).item(), rel=1e-5)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_lines_hold_every_row_once_and_are_no_more_than_padded_rows(lengths: list[int]) -> None:
    taken = [
        (line, column)
        for (line, start), length in zip(fill_lines(lengths), lengths, strict=True)
        for column in range(start, start + length)
    ]
    assert len(set(taken)) == len(taken) == sum(lengths)
    assert max(column for _, column in taken) < max(lengths)
    rows = [Example(np.zeros(length, np.int32), np.ones(length, bool)) for length in lengths]
    assert sum(lengths) <= count_line_tokens(rows) <= count_padded_tokens(rows)


def reason_for(model: Any, **changes: Any) -> tuple[str, str]:
    for name, value in changes.items():
        setattr(model.config, name, value)
    form = family_support.choose_rows(model)
    return form.name, form.reason


def test_what_was_not_measured_is_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_families.build_family("qwen3")
    monkeypatch.setattr(family_support, "installed_version", lambda: family_table.VERSIONS[-1])
    assert reason_for(model)[0] == "padding-free"
    assert reason_for(model, _attn_implementation="flex_attention")[0] == "padded"
    assert reason_for(model, _attn_implementation="eager")[0] == "padding-free"
    assert reason_for(model, is_causal=False) == ("padded", "its attention is not causal")
    assert "not in the family table" in reason_for(model, model_type="new", is_causal=True)[1]
    monkeypatch.setattr(family_support, "installed_version", lambda: "5.99.1")
    name, reason = reason_for(model, model_type="qwen3")
    assert name == "padded" and "is not that of transformers 5.99.1" in reason


def test_packed_false_pads_where_padding_is_right() -> None:
    names = [
        choose_path(load(tiny_families.build_family(family)), False).name
        for family in ("qwen3", "gpt2", "cpmant")
    ]
    assert names == ["padded", "padded", "row-by-row"]


@pytest.fixture
def gpt2_folder(tiny_model: Path, tmp_path: Path) -> Path:
    """Return a model that the packed path does not know, with a tokenizer."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=256, n_embd=32, n_layer=2, n_head=4)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    return tmp_path / "gpt2"


@measured_version
def test_a_job_without_padding_learns_as_a_padded_one(train: RunTrainer, gpt2_folder: Path) -> None:
    runs = {
        packed: train(12, batchSize=6, packed=packed, model=gpt2_folder)
        for packed in ("auto", False)
    }
    assert "training on the padding-free path: the packed path can't" in runs["auto"].log
    assert "its rows are packed by position_ids (family table of" in runs["auto"].log
    assert "training on the padded path: local.packed is false" in runs[False].log
    assert [run.summary["packed"] for run in runs.values()] == [False, False]
    assert runs["auto"].losses() == pytest.approx(runs[False].losses(), abs=1e-4)
    assert runs["auto"].losses("validation") == pytest.approx(
        runs[False].losses("validation"), abs=1e-4
    )


@measured_version
def test_the_memory_of_rows_without_padding_is_estimated() -> None:
    config = tiny_families.build_family("gemma2").config
    peaks = {}
    for packed in ("auto", False):
        settings = SimpleNamespace(method="full", packed=packed, customization_type="FINE_TUNING")
        estimator = StepEstimator(config, settings, torch.float32, CPU)  # type: ignore[arg-type]
        peaks[packed] = estimator.estimate(
            [tiny_families.random_row(length, 0) for length in (900, *[300] * 7)],
            MicroBatchLimit(8, 10_000),
        ).peak - runtime_overhead_bytes(CPU)
    assert peaks["auto"] < 0.7 * peaks[False]
