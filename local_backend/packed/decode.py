"""Decode several answers to each of several prompts with a model on the packed path.

A prompt goes through the model once. Its keys and values are read by all of its answers, which have
only their own tokens in caches of their own. The products are those of training, adapters included,
so that the probabilities which tokens are drawn from are those that the loss sees.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from local_backend.models.sampling import Sampled, Sampling, choose_tokens, draw_uniforms
from local_backend.packed.attention import (
    AttentionKind,
    apply_rotary,
    attend_long,
    softmax_with_sinks,
)
from local_backend.packed.block import PackedBlock
from local_backend.packed.layers import AttentionLayer
from local_backend.packed.model import PackedModel
from local_backend.packed.projections import FusedProjection, SeparateProjections

Angles = tuple[torch.Tensor, torch.Tensor]
"""cos and sin of rotary positions, [rows, 1, rotations] each."""


class FrozenProjection:
    """A projection of the packed path with its adapters as they are now, without gradients."""

    def __init__(self, projection: FusedProjection) -> None:
        self.weight, self.down, self.bias = projection.freeze()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs of all layers, concatenated: [rows, in] -> [rows, all outs]."""
        if self.down is not None:
            x = torch.cat([x, F.linear(x, self.down)], 1)
        return F.linear(x, self.weight, self.bias)


class FrozenProjections:
    """Projections that read one input and are computed one by one."""

    def __init__(self, projections: Sequence[FusedProjection]) -> None:
        self.projections = [FrozenProjection(one) for one in projections]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs of all layers, concatenated: [rows, in] -> [rows, all outs]."""
        return torch.cat([projection(x) for projection in self.projections], -1)


def freeze(
    projection: FusedProjection | SeparateProjections,
) -> FrozenProjection | FrozenProjections:
    """Return a projection as it is now."""
    if isinstance(projection, SeparateProjections):
        return FrozenProjections(projection.projections)
    return FrozenProjection(projection)


@dataclass
class LayerCache:
    """Keys and values of a layer: those of the prompts, and those of the answers so far.

    `prompt_keys` and `prompt_values` [prompts, kv_heads, longest prompt, size]; `keys` and `values`
    [prompts, samples, kv_heads, new tokens, size].
    """

    prompt_keys: torch.Tensor
    prompt_values: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor

    def keep(self, prompts: torch.Tensor, order: torch.Tensor, length: int) -> None:
        """Keep these prompts, and of each the answers in `order` [prompts, samples]."""
        self.prompt_keys = self.prompt_keys[prompts]
        self.prompt_values = self.prompt_values[prompts]
        rows = prompts[:, None]
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_empty((*order.shape, *old.shape[2:]))
            new[:, :, :, :length] = old[rows, order, :, :length]
            setattr(self, name, new)


class DecodedBlock:
    """One block of the model, for prompts as a whole and for one more token of each answer."""

    def __init__(self, block: PackedBlock, layer: AttentionLayer) -> None:
        self.parts, self.layer, self.kind = copy.copy(block.parts), layer, layer.kind
        self.heads, self.kv_heads = layer.kind.heads, layer.kind.kv_heads
        self.parts.set_projections([freeze(one) for one in block.projections])
        self.sinks = block.sinks

    def rotated(self, x: torch.Tensor, angles: Angles) -> torch.Tensor:
        """Return queries, keys and values of `x` [rows, width]: [rows, vectors, size]."""
        vectors = self.parts.project(x, self.kind)
        return apply_rotary(
            vectors.view(len(x), self.heads + 2 * self.kv_heads, -1), self.kind, *angles
        )

    def prefill(
        self, x: torch.Tensor, angles: Angles, prompts: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the output for prompts padded on the right, and their keys and values."""
        vectors = self.rotated(x, angles)
        vectors = vectors.view(prompts, -1, *vectors.shape[1:]).transpose(1, 2)
        q, k, v = vectors.split([self.heads, self.kv_heads, self.kv_heads], 1)
        longest, size = k.shape[2:]
        by_key = (prompts * self.kv_heads, -1, size)
        q, keys, values = (part.reshape(by_key) for part in (q, k, v))
        mixed = attend_long(q, keys, values, self.kind, self.sinks)
        mixed = mixed.view(prompts, self.heads, longest, size).transpose(1, 2).reshape(len(x), -1)
        return self.parts.finish(x, mixed), k.contiguous(), v.contiguous()

    def step(
        self,
        x: torch.Tensor,
        angles: Angles,
        cache: LayerCache,
        state: DecodingState,
        biases: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """Return the output for the newest token of each answer, and add it to the cache."""
        vectors = self.rotated(x, angles)
        size = vectors.shape[-1]
        vectors = vectors.view(state.prompts, state.samples, -1, size)
        q, k, v = vectors.split([self.heads, self.kv_heads, self.kv_heads], 2)
        cache.keys[:, :, :, state.length], cache.values[:, :, :, state.length] = k, v
        mixed = self._attend(q, cache, state, biases)
        return self.parts.finish(x, mixed)

    def _attend(
        self,
        q: torch.Tensor,
        cache: LayerCache,
        state: DecodingState,
        biases: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """Return the attention of each answer's newest token: [prompts x samples, width].

        The queries of all answers to a prompt meet its keys in one product.
        """
        prompts, samples, kv_heads, size = state.prompts, state.samples, self.kv_heads, q.shape[-1]
        group, known = self.heads // kv_heads, state.length + 1
        q = q.reshape(prompts, samples, kv_heads, group, size)
        by_prompt = q.transpose(1, 2).reshape(prompts * kv_heads, samples * group, size)
        prompt_bias, own_bias = biases
        prompt_keys = cache.prompt_keys.flatten(0, 1).transpose(1, 2)
        prompt_scores = _scores(by_prompt, prompt_keys, self.kind) + prompt_bias
        keys = cache.keys[..., :known, :].flatten(0, 2)
        own_scores = _scores(q.flatten(0, 2), keys.transpose(1, 2), self.kind) + own_bias
        own_scores = own_scores.view(prompts, samples, kv_heads, group, known).transpose(1, 2)
        own_scores = own_scores.reshape(prompts * kv_heads, samples * group, known)
        scores = torch.cat([prompt_scores, own_scores], -1)
        if self.sinks is None:
            weights = scores.softmax(-1)
        else:
            sinks = self.sinks.view(kv_heads, group).repeat(prompts, samples)
            weights = softmax_with_sinks(scores, sinks)
        prompt_weights, own_weights = weights.split([prompt_scores.shape[-1], known], -1)
        mixed = prompt_weights @ cache.prompt_values.flatten(0, 1)
        mixed = mixed.view(prompts, kv_heads, samples, group, size).transpose(1, 2)
        own_weights = own_weights.reshape(prompts, kv_heads, samples, group, known).transpose(1, 2)
        values = cache.values[..., :known, :].flatten(0, 2)
        own = own_weights.reshape(-1, group, known) @ values
        mixed_all: torch.Tensor = mixed.reshape(own.shape) + own
        return mixed_all.view(prompts * samples, -1)


@dataclass
class DecodingState:
    """What is known of the answers that are still decoded.

    `rows` [prompts, samples] has the number of each answer among all; `lengths` [prompts] the
    tokens of each prompt, of which the longest has `longest`; `length` counts the tokens in the
    answers' caches; `dtype` is that of the scores.
    """

    rows: torch.Tensor
    lengths: torch.Tensor
    longest: int
    dtype: torch.dtype
    length: int = 0

    @property
    def prompts(self) -> int:
        """Return the number of prompts."""
        return len(self.rows)

    @property
    def samples(self) -> int:
        """Return the number of answers to each prompt."""
        return self.rows.shape[1]

    def keep(self, prompts: torch.Tensor, order: torch.Tensor) -> None:
        """Keep these prompts, and of each the answers in `order`."""
        self.rows = self.rows[prompts[:, None], order]
        self.lengths = self.lengths[prompts]

    def biases(self, window: int | None, kv_heads: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is added to the newest token's scores: those of prompts, and of answers.

        -inf for padding, and for keys before the window: [prompts x kv_heads, 1, longest prompt]
        and [known tokens].
        """
        at = torch.arange(self.longest, device=self.lengths.device)
        hidden = at >= self.lengths[:, None]
        own = torch.arange(self.length + 1, device=self.lengths.device)
        is_old = torch.zeros_like(own, dtype=torch.bool)
        if window is not None:
            newest = (self.lengths + self.length)[:, None]
            hidden = hidden | (at <= newest - window)
            is_old = own <= self.length - window
        bias = torch.zeros(hidden.shape, dtype=self.dtype, device=hidden.device)
        bias = bias.masked_fill_(hidden, -torch.inf).repeat_interleave(kv_heads, 0)[:, None]
        own_bias = torch.zeros(len(own), dtype=self.dtype, device=own.device)
        return bias, own_bias.masked_fill_(is_old, -torch.inf)


def _scores(q: torch.Tensor, keys: torch.Tensor, kind: AttentionKind) -> torch.Tensor:
    """Return the scores of queries [batch, queries, size] and keys [batch, size, keys]."""
    scores = torch.bmm(q, keys).mul_(kind.scale)
    if kind.softcap is not None:
        scores = scores.div_(kind.softcap).tanh_().mul_(kind.softcap)
    return scores


class PackedDecoder:
    """Decodes with the weights that a packed model has now."""

    def __init__(self, model: PackedModel) -> None:
        self.model = model
        self.blocks = []
        for block, layer in zip(model.blocks, model.layers, strict=True):
            assert isinstance(block, PackedBlock)
            self.blocks.append(DecodedBlock(block, layer))
        head = model.head.weight
        assert isinstance(head, torch.Tensor)
        self.head, self.device = head.to(model.dtype), head.device

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        samples: int,
        sampling: Sampling,
        stop_ids: Collection[int],
    ) -> list[list[Sampled]]:
        """Return `samples` answers to each prompt, each up to one of `stop_ids`."""
        device = self.device
        stops = torch.tensor(sorted(stop_ids), device=device)
        uniforms = draw_uniforms(sampling, samples).flatten(0, 1).to(device)
        count, limit = len(prompts) * samples, sampling.max_new_tokens
        ids = torch.zeros((count, limit), dtype=torch.long)
        entropies = torch.zeros((count, limit))
        lengths, ended = torch.zeros(count, dtype=torch.long), torch.zeros(count, dtype=torch.bool)
        state, caches, logits = self._prefill(prompts, samples, limit)
        for at in range(limit):
            rows = state.rows.flatten()
            tokens, entropy = choose_tokens(logits, uniforms[rows, at], sampling)
            is_open = ~ended[rows]
            ids[rows[is_open], at] = tokens[is_open].cpu()
            entropies[rows[is_open], at] = entropy[is_open].cpu()
            lengths[rows[is_open]] += 1
            ended[rows] |= torch.isin(tokens, stops).cpu()
            if at + 1 == limit or bool(ended[rows].all()):
                break
            tokens = self._drop_ended(tokens.view(state.rows.shape), ended, state, caches)
            logits = self._step(tokens.flatten(), state, caches)
        answers = [
            Sampled(row[:n].tolist(), bool(end), float(entropy[:n].mean()))
            for row, n, end, entropy in zip(ids, lengths.tolist(), ended, entropies, strict=True)
        ]
        return [answers[i : i + samples] for i in range(0, count, samples)]

    def _prefill(
        self, prompts: Sequence[Sequence[int]], samples: int, limit: int
    ) -> tuple[DecodingState, list[LayerCache], torch.Tensor]:
        """Return the state after the prompts, the caches, and the logits of the first tokens."""
        device, model = self.device, self.model
        lengths = torch.tensor([len(ids) for ids in prompts], device=device)
        longest = int(lengths.max())
        rows = [[*ids, *[0] * (longest - len(ids))] for ids in prompts]
        ids = torch.tensor(rows, device=device)
        positions = torch.arange(longest, device=device).repeat(len(prompts))
        tables = model.rotary.tables(model.layers, positions, lengths.repeat_interleave(longest))
        x, caches = model.embed(ids.flatten()), []
        for block in self.blocks:
            x, keys, values = block.prefill(x, tables[block.layer.rotary], len(prompts))
            shape = (len(prompts), samples, block.kv_heads, limit, keys.shape[-1])
            caches.append(LayerCache(keys, values, keys.new_empty(shape), keys.new_empty(shape)))
        last = torch.arange(len(prompts), device=device) * longest + lengths - 1
        logits = self._logits(x[last]).repeat_interleave(samples, 0)
        numbers = torch.arange(len(prompts) * samples).view(len(prompts), samples)
        return DecodingState(numbers, lengths, longest, model.dtype), caches, logits

    def _step(
        self, tokens: torch.Tensor, state: DecodingState, caches: Sequence[LayerCache]
    ) -> torch.Tensor:
        """Return the logits after one more token of each answer, [answers, vocabulary]."""
        positions = (state.lengths + state.length).repeat_interleave(state.samples)
        tables = self.model.rotary.tables(self.model.layers, positions, positions + 1)
        windows = {(block.kind.window, block.kv_heads) for block in self.blocks}
        biases = {window: state.biases(window, kv_heads) for window, kv_heads in windows}
        x = self.model.embed(tokens)
        for block, cache in zip(self.blocks, caches, strict=True):
            angles, bias = tables[block.layer.rotary], biases[block.kind.window]
            x = block.step(x, angles, cache, state, bias)
        state.length += 1
        return self._logits(x)

    def _logits(self, x: torch.Tensor) -> torch.Tensor:
        logits = F.linear(self.model.head_input(x), self.head).float()
        softcap = self.model.logit_softcap
        return logits if softcap is None else softcap * torch.tanh(logits / softcap)

    def _drop_ended(
        self,
        tokens: torch.Tensor,
        ended: torch.Tensor,
        state: DecodingState,
        caches: Sequence[LayerCache],
    ) -> torch.Tensor:
        """Return the tokens [prompts, samples] of the answers that are decoded further.

        Prompts whose answers have all ended are left out, and where every prompt has few open
        answers, so are the others: a prompt with fewer than the rest keeps some that have ended.
        """
        is_open = ~ended[state.rows]
        counts = is_open.sum(1)
        prompts = counts.nonzero()[:, 0]
        width = int(counts.max())
        if len(prompts) * width > MAX_KEPT_SHARE * is_open.numel():
            return tokens
        order = is_open[prompts].sort(dim=1, descending=True, stable=True)[1][:, :width]
        for cache in caches:
            cache.keep(prompts, order, state.length)
        state.keep(prompts, order)
        return tokens[prompts[:, None], order]


MAX_KEPT_SHARE = 0.8
"""Caches are copied without the ended answers once at most this share of them is left."""
