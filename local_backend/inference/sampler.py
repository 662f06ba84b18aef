"""Sample several answers to each prompt from the model in training, reproducibly.

The random numbers of a prompt follow from its seed alone. A run that samples the same prompts in
the same batches with the same weights gets the same answers again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from local_backend.models.load_model import LoadedModel, autocast, eval_mode
from local_backend.models.sampling import Sampled, Sampling, choose_tokens, draw_uniforms
from local_backend.packed import PackedDecoder, PackedLoss

if TYPE_CHECKING:
    from local_backend.training.loss import LossFunction


class Sampler(Protocol):
    """Samples answers from the current weights of a model."""

    def __call__(
        self, prompts: Sequence[Sequence[int]], samples: int, sampling: Sampling
    ) -> list[list[Sampled]]:
        """Return `samples` answers to each prompt; `sampling` has a seed for each prompt."""


def make_sampler(
    loaded: LoadedModel, loss: LossFunction, dtype: torch.dtype, device: torch.device
) -> Sampler:
    """Return the sampler of the path on which `loss` trains."""
    if isinstance(loss, PackedLoss):
        return PackedSampler(loaded, loss)
    return PlainSampler(loaded, dtype, device)


@dataclass
class PackedSampler:
    """Samples on the packed path: the prompt's keys and values once for all of its answers."""

    loaded: LoadedModel
    loss: PackedLoss

    def __call__(
        self, prompts: Sequence[Sequence[int]], samples: int, sampling: Sampling
    ) -> list[list[Sampled]]:
        """Return `samples` answers to each prompt; `sampling` has a seed for each prompt."""
        limit = min(sampling.max_new_tokens, self.loaded.context_length - max(map(len, prompts)))
        with torch.inference_mode():
            # Made for each call: it copies the adapters, which the last optimizer step changed.
            decoder = PackedDecoder(self.loss.model)
            return decoder.sample(prompts, samples, sampling.cut(limit), self.loaded.stop_ids)


@dataclass
class PlainSampler:
    """Samples through the model's own forward pass, for models that the packed path lacks."""

    loaded: LoadedModel
    dtype: torch.dtype
    device: torch.device

    def __call__(
        self, prompts: Sequence[Sequence[int]], samples: int, sampling: Sampling
    ) -> list[list[Sampled]]:
        """Return `samples` answers to each prompt; `sampling` has a seed for each prompt."""
        limit = min(sampling.max_new_tokens, self.loaded.context_length - max(map(len, prompts)))
        chooser = _TokenChooser(sampling.cut(limit), samples, self.device)
        rows = [ids for ids in prompts for _ in range(samples)]
        answers = []
        for ids, entropy in zip(
            self._generate(rows, chooser), torch.stack(chooser.entropies, 1), strict=True
        ):
            ends = [i for i, token in enumerate(ids) if token in self.loaded.stop_ids]
            kept = ids[: ends[0] + 1] if ends else ids
            answers.append(Sampled(kept, bool(ends), float(entropy[: len(kept)].mean())))
        return [answers[i : i + samples] for i in range(0, len(answers), samples)]

    def _generate(self, rows: Sequence[Sequence[int]], chooser: _TokenChooser) -> list[list[int]]:
        """Return the new tokens of each row; rows are padded on the left."""
        from transformers import GenerationConfig, LogitsProcessorList

        longest, pad = max(map(len, rows)), self.loaded.pad_id
        ids = [[*[pad] * (longest - len(row)), *row] for row in rows]
        mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
        config = GenerationConfig(
            max_new_tokens=chooser.sampling.max_new_tokens,
            do_sample=False,
            use_cache=True,
            eos_token_id=self.loaded.stop_ids,
            pad_token_id=pad,
        )
        model = self.loaded.model
        with eval_mode(model), autocast(self.dtype, self.device):
            output = model.generate(  # type: ignore[operator]  # of a mixin that mypy misses
                input_ids=torch.tensor(ids, device=self.device),
                attention_mask=torch.tensor(mask, device=self.device),
                generation_config=config,
                logits_processor=LogitsProcessorList([chooser]),
            )
        return [row[longest:].tolist() for row in output]


class _TokenChooser:
    """Chooses the tokens in place of transformers, as one of its logits processors.

    It leaves one token of each row, which greedy decoding then takes. `entropies` has a tensor
    [rows] for each token.
    """

    def __init__(self, sampling: Sampling, samples: int, device: torch.device) -> None:
        self.sampling = sampling
        self.uniforms = draw_uniforms(sampling, samples).flatten(0, 1).to(device)
        self.entropies: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores that only the chosen token of each row has."""
        uniforms = self.uniforms[:, len(self.entropies)]
        tokens, entropy = choose_tokens(scores.float(), uniforms, self.sampling)
        self.entropies.append(entropy.cpu())
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)
