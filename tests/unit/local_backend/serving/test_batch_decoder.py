"""Sequences that come and go in one batch: each gets the logits that it gets alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from packed_variants import VARIANTS, VOCABULARY, build

from local_backend.models import lora
from local_backend.models.load_model import LoadedModel
from local_backend.serving import key_values
from local_backend.serving.adapter_set import NO_ADAPTER, AdapterSet
from local_backend.serving.decoder import BatchDecoder, unsupported_reason_with
from local_backend.serving.sequences import Decoded, NewTokens
from local_backend.settings import LoraSettings

TARGETS: Sequence[Any] = ("all-linear", ("o_proj",))
NEW_TOKENS = 14
TOLERANCE = 1e-3
"""Of logits up to 14 in float32, which are summed in another order: 3e-5 was seen."""


def with_adapters(name: str, folder: Path) -> tuple[LoadedModel, AdapterSet]:
    """Return a random model of a family, with two adapters of different shapes."""
    model = build(name, "full")
    tokenizer: Any = None
    loaded = LoadedModel(model, tokenizer, str(folder), [2], False)
    adapters = AdapterSet(model)
    for number, targets in enumerate(TARGETS):
        settings = LoraSettings(2 + number, 4, 0.0, targets)
        donor = build(name, "full")
        lora.attach_adapters(donor, settings, number)
        for _, layer in lora.lora_layers(donor):
            torch.nn.init.normal_(layer.lora_B, std=0.2)
        weights = {n: p for n, p in donor.named_parameters() if ".lora_" in n}
        lora.save_adapter(donor, settings, folder / str(number), "base", weights)
        adapters.load(folder / str(number))
    return loaded, adapters


def alone(
    loaded: LoadedModel, adapters: AdapterSet, prompt: Sequence[int], adapter: int
) -> tuple[list[int], torch.Tensor]:
    """Return what transformers decodes greedily, without a cache, and the logits of each token."""
    adapters.use(adapter)
    ids, rows = list(prompt), []
    with torch.inference_mode():
        for _ in range(NEW_TOKENS):
            logits = loaded.model(input_ids=torch.tensor([ids]), use_cache=False).logits
            rows.append(logits[0, -1])
            ids.append(int(rows[-1].argmax()))
    return ids[len(prompt) :], torch.stack(rows)


@pytest.mark.parametrize("name", VARIANTS)
def test_rows_that_come_and_go_get_the_logits_that_they_get_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """The next token of each is that which it got alone: the two likeliest may be all but equal."""
    monkeypatch.setattr(key_values, "SMALLEST_BLOCK", 8)
    loaded, adapters = with_adapters(name, tmp_path)
    assert unsupported_reason_with(loaded, adapters) is None
    lengths = (23, 5, 9, 44, 17, 38)
    prompts = [np.random.default_rng(n).integers(3, VOCABULARY, n).tolist() for n in lengths]
    owners = [0, NO_ADAPTER, 1, 0, 1, NO_ADAPTER]
    expected = [alone(loaded, adapters, p, a) for p, a in zip(prompts, owners, strict=True)]
    decoder = BatchDecoder(loaded, adapters)
    answers: dict[int, list[int]] = {}
    differences: list[float] = []
    rows: dict[int, tuple[Decoded, list[int]]] = {}
    waiting = list(range(len(prompts)))
    for step in range(200):
        if waiting and step % 3 == 0:
            number = waiting.pop(0)
            rows[number] = decoder.add(owners[number], prompts[number]), prompts[number][:]
        if not rows:
            break
        work, numbers = [], {}
        for number, (sequence, pending) in rows.items():
            if decoder.must_restart(sequence):
                pending[:] = prompts[number] + answers[number]
                decoder.restart(sequence, len(pending))
            part, rest = pending[:13], pending[13:]
            pending[:] = rest
            work.append(NewTokens(sequence, part, not rest))
            numbers[id(sequence)] = number
        complete, logits = decoder.step(work)
        for one, row in zip(complete, logits, strict=True):
            number = numbers[id(one.sequence)]
            answer = answers.setdefault(number, [])
            tokens, rows_alone = expected[number]
            differences.append(float((row - rows_alone[len(answer)]).abs().max()))
            token = tokens[len(answer)]
            answer.append(token)
            rows[number][1].append(token)
            if len(answers[number]) == NEW_TOKENS - number % 3:
                decoder.remove(rows.pop(number)[0])
    assert not decoder.values.blocks, "all places were given back"
    assert max(differences) < TOLERANCE
    assert len(answers) == len(prompts)
