"""Sampling several answers to each prompt: both paths draw the same tokens from one seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from local_backend.inference.sampler import PackedSampler, PlainSampler, make_sampler
from local_backend.models import lora
from local_backend.models.load_model import LoadedModel, load_model
from local_backend.models.sampling import Sampled, Sampling, choose_tokens, keep_top
from local_backend.packed import decode
from local_backend.settings import LoraSettings
from local_backend.training.loss import make_loss
from local_backend.training.objectives import find_objective

CPU = torch.device("cpu")
PROMPTS = ((5, 6, 7, 8, 9, 10, 11), (40, 41), (5, 6, 7, 20, 21, 22), (90,))
SEEDS = (11, 12, 13, 14)


def load(folder: Path, trained: str) -> LoadedModel:
    loaded = load_model(str(folder), torch.float32, CPU)
    if trained != "full":
        targets = "all-linear" if trained == "lora" else ("q_proj", "v_proj", "down_proj")
        lora.attach_adapters(loaded.model, LoraSettings(4, 8, 0.0, targets), 1)
        for _, layer in lora.lora_layers(loaded.model):
            torch.nn.init.normal_(layer.lora_B, std=0.05)
    loaded.model.train()
    return loaded


def sample(loaded: LoadedModel, packed: bool, sampling: Sampling, count: int = 5) -> Any:
    loss = make_loss(loaded, find_objective("FINE_TUNING"), packed, torch.float32, CPU)
    sampler = make_sampler(loaded, loss, torch.float32, CPU)
    assert isinstance(sampler, PackedSampler if packed else PlainSampler)
    return sampler(PROMPTS, count, sampling)


def flat(answers: Sequence[Sequence[Sampled]]) -> list[Sampled]:
    return [answer for group in answers for answer in group]


@pytest.mark.parametrize("kept_share", [0.8, 1.0], ids=["caches cut late", "caches cut at once"])
@pytest.mark.parametrize("trained", ["full", "lora", "some"])
def test_both_paths_draw_the_same_answers(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, trained: str, kept_share: float
) -> None:
    monkeypatch.setattr(decode, "MAX_KEPT_SHARE", kept_share)
    loaded = load(tiny_model, trained)
    # Half of the vocabulary ends an answer in this test, so that answers end at all lengths.
    loaded.stop_ids = list(range(0, 60))
    sampling = Sampling(24, SEEDS)
    packed, plain = (flat(sample(loaded, is_packed, sampling)) for is_packed in (True, False))
    assert [a.ids for a in packed] == [a.ids for a in plain]
    assert [a.ended for a in packed] == [a.ended for a in plain]
    assert [a.entropy for a in packed] == pytest.approx([a.entropy for a in plain], rel=1e-3)
    assert len({len(a.ids) for a in packed}) > 5 and any(a.ended for a in packed)
    assert loaded.model.training


def test_answers_follow_from_the_seed_of_their_prompt(tiny_model: Path) -> None:
    loaded = load(tiny_model, "lora")
    loaded.stop_ids = []
    first, again = (sample(loaded, True, Sampling(8, SEEDS)) for _ in range(2))
    other = sample(loaded, True, Sampling(8, (11, 12, 99, 14)))
    assert first == again
    assert [a == b for a, b in zip(first, other, strict=True)] == [True, True, False, True]
    assert len({tuple(answer.ids) for answer in first[0]}) == 5


def test_without_temperature_answers_are_the_best_tokens(tiny_model: Path) -> None:
    loaded = load(tiny_model, "lora")
    loaded.stop_ids = []
    greedy = sample(loaded, True, Sampling(6, SEEDS, temperature=0), 1)
    for prompt, [answer] in zip(PROMPTS, greedy, strict=True):
        ids = list(prompt)
        for _ in range(6):
            with torch.no_grad():
                ids.append(int(loaded.model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert answer.ids == ids[len(prompt) :] and not answer.ended


def test_tokens_are_drawn_with_the_models_probabilities() -> None:
    logits = torch.tensor([2.0, 0.0, -1.0, 1.0, -30.0])
    uniforms = 1 - torch.rand(20_000, generator=torch.Generator().manual_seed(3))
    for temperature in (1.0, 0.5):
        sampling = Sampling(1, (0,), temperature)
        tokens, entropy = choose_tokens(logits.expand(20_000, -1), uniforms, sampling)
        expected = (logits.double() / temperature).softmax(-1)
        counts = torch.bincount(tokens, minlength=5)
        assert chisquare(counts[:4], expected[:4] / expected[:4].sum() * 20_000).pvalue > 0.001
        assert counts[4] == 0
        assert entropy[0].item() == pytest.approx(
            -(expected * expected.log()).sum().item(), rel=1e-5
        )
    # The largest number reaches the last token that has a probability, never one beyond it.
    last, _ = choose_tokens(logits[None], torch.ones(1), Sampling(1, (0,)))
    assert last.item() < 5


def test_top_k_and_top_p_keep_the_best_tokens() -> None:
    logits = torch.tensor([[0.1, 0.5, 0.3, 0.06, 0.04]]).log()

    def kept(top_k: int, top_p: float) -> list[int]:
        return (keep_top(logits, top_k, top_p)[0] > -1e29).nonzero()[:, 0].tolist()

    assert kept(2, 1.0) == [1, 2]
    assert kept(0, 0.79) == [1, 2]
    assert kept(0, 0.85) == [0, 1, 2]
    assert kept(0, 0.01) == [1]
    assert kept(4, 0.9) == [0, 1, 2]
    tokens, entropy = choose_tokens(
        logits.expand(50, -1), torch.linspace(0.01, 1, 50), Sampling(1, (0,), top_k=2)
    )
    assert set(tokens.tolist()) == {1, 2}
    expected = torch.tensor([0.5, 0.3]) / 0.8
    assert entropy[0].item() == pytest.approx(-(expected * expected.log()).sum().item(), rel=1e-4)
