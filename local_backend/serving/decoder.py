"""Compute the next tokens of many sequences at once, with a model on the packed path.

The sequences of a step have lengths and adapters of their own. Some have one new token, others a
part of their prompt: all tokens go through the matrix products together, and each sequence attends
to its own keys and values.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from local_backend.models.load_model import LoadedModel
from local_backend.packed import (
    AttentionLayer,
    FusedProjection,
    ModelFamily,
    PackedBlock,
    PackedModel,
    find_family,
    unsupported_reason,
)
from local_backend.serving.adapter_set import NO_ADAPTER, AdapterSet
from local_backend.serving.attention import (
    PromptPart,
    SingleTokens,
    attend_prompt,
    attend_singles,
    single_tokens,
)
from local_backend.serving.kept_prefixes import (
    KEPT_BYTES,
    MIN_SHARED,
    KeptPrefix,
    KeptPrefixes,
    common_prefix,
)
from local_backend.serving.key_values import KeyValues, groups_by_block
from local_backend.serving.products import (
    AdaptedProduct,
    Product,
    RowAdapters,
    Update,
    join_updates,
)
from local_backend.serving.rotations import Angles, rotate
from local_backend.serving.sequences import Decoded, NewTokens

if TYPE_CHECKING:
    from local_backend.models.lora import LoraLinear

SCORED_AT_ONCE = 32
"""Tokens of a prompt whose logits are in memory together."""


class Step:
    """The tokens of one step, sorted: single ones by block, then the parts of prompts."""

    def __init__(self, work: Sequence[NewTokens], device: torch.device) -> None:
        singles = [one for one in work if len(one.ids) == 1 and one.sequence.length]
        others = [one for one in work if not (len(one.ids) == 1 and one.sequence.length)]
        places = [one.sequence.place for one in singles]
        self.order: list[NewTokens] = []
        self.singles: list[SingleTokens] = []
        for indices in groups_by_block(places).values():
            self.singles.append(single_tokens(places, indices, len(self.order), device))
            self.order += [singles[index] for index in indices]
        first = len(self.order)
        self.parts: list[PromptPart] = []
        for one in others:
            last = first + len(one.ids)
            self.parts.append(PromptPart(one.sequence.place, first, last, one.sequence.length))
            self.order.append(one)
            first = last
        self.ids = torch.tensor([i for one in self.order for i in one.ids], device=device)
        self.positions = torch.tensor(
            [one.sequence.length + at for one in self.order for at in range(len(one.ids))],
            device=device,
        )
        lengths = [
            max(one.sequence.length + len(one.ids), one.sequence.prompt_tokens)
            for one in self.order
        ]
        counts = torch.tensor([len(one.ids) for one in self.order], device=device)
        self.lengths = torch.tensor(lengths, device=device).repeat_interleave(counts)
        ends = counts.cumsum(0) - 1
        complete = [at for at, one in enumerate(self.order) if one.is_complete]
        self.scored: list[tuple[NewTokens, int]] = []
        """Those whose logits are all requested, each with the index of its first token."""
        at = 0
        for one in self.order:
            if one.on_logits is not None:
                self.scored.append((one, at))
            at += len(one.ids)
        self.predicted = ends[torch.tensor(complete, dtype=torch.long, device=device)]
        self.adapters = [one.sequence.adapter for one in self.order for _ in one.ids]
        self._masks: dict[tuple[int, int | None], torch.Tensor | None] = {}
        self._biases: dict[tuple[int, int | None], torch.Tensor | None] = {}

    def mask(self, number: int, window: int | None) -> torch.Tensor | None:
        """Return the mask of a part of a prompt for layers with this window."""
        key = (number, window)
        if key not in self._masks:
            self._masks[key] = self.parts[number].mask(window, self.ids.device)
        return self._masks[key]

    def bias(self, number: int, window: int | None, dtype: torch.dtype) -> torch.Tensor | None:
        """Return the bias of single tokens for layers with this window; None: all is seen."""
        key = (number, window)
        if key not in self._biases:
            self._biases[key] = self.singles[number].bias(window, dtype)
        return self._biases[key]


class ServedBlock:
    """One block of the model with its weights in the engine's layout."""

    def __init__(
        self,
        number: int,
        block: PackedBlock,
        layer: AttentionLayer,
        projections: Sequence[AdaptedProduct],
    ) -> None:
        self.number, self.layer, self.kind = number, layer, layer.kind
        self.parts, self.sinks = copy.copy(block.parts), block.sinks
        self.parts.freeze_norms()
        self.parts.set_projections(list(projections))
        self.heads, self.kv_heads = layer.kind.heads, layer.kind.kv_heads

    def __call__(
        self, x: torch.Tensor, delta: torch.Tensor | None, angles: Angles, step: Step
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return the residual stream and what is still to be added; keep keys and values."""
        x, normalized = self.parts.start(x, delta)
        vectors = self.parts.project_normalized(normalized, self.kind)
        vectors = vectors.view(len(x), self.heads + 2 * self.kv_heads, -1)
        q, k, v = rotate(vectors, self.kind, angles)
        outputs = [self._attend_singles(at, q, k, v, step) for at in range(len(step.singles))]
        outputs += [self._attend_part(at, q, k, v, step) for at in range(len(step.parts))]
        mixed = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
        return self.parts.finish_but_add(x, mixed)

    def _attend_singles(
        self, at: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, step: Step
    ) -> torch.Tensor:
        group = step.singles[at]
        here = slice(group.first, group.last)
        memory = group.block.memory[self.number]
        if group.last - group.first == 1:  # the copy of a slice is a fifth of an indexed one's time
            one = memory[:, group.places - 1, :, group.longest - 1]
            one[0], one[1] = k[group.first], v[group.first]
        else:
            memory[0][group.numbers, :, group.positions] = k[here]
            memory[1][group.numbers, :, group.positions] = v[here]
        keys, values = memory
        queries = q[here]
        if not group.is_dense:
            shape = (group.places, *queries.shape[1:])
            queries = q.new_zeros(shape).index_copy_(0, group.numbers, queries)
        mixed = attend_singles(
            queries,
            keys[: group.places, :, : group.longest],
            values[: group.places, :, : group.longest],
            step.bias(at, self.kind.window, q.dtype),
            self.kind,
            self.sinks,
        )
        return mixed if group.is_dense else mixed.index_select(0, group.numbers)

    def _attend_part(
        self, at: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, step: Step
    ) -> torch.Tensor:
        part = step.parts[at]
        here, end = slice(part.first, part.last), part.start + part.last - part.first
        keys, values = part.place.block.memory[self.number, :, part.place.number]
        keys[:, part.start : end] = k[here].transpose(0, 1)
        values[:, part.start : end] = v[here].transpose(0, 1)
        mask = step.mask(at, self.kind.window)
        return attend_prompt(q[here], keys[:, :end], values[:, :end], mask, self.kind, self.sinks)


class SwitchedModule:
    """A module of the model that runs for the rows of each adapter with that adapter in it."""

    def __init__(
        self, block: nn.Module, name: str, adapters: AdapterSet, rows: RowAdapters
    ) -> None:
        self._block, self._name = block, name
        self._adapters, self._rows = adapters, rows

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the module's output for `x` [1, rows, width]."""
        groups = self._rows.rows
        if not groups:
            active = self._rows.active
            return self._run(active[0] if active else NO_ADAPTER, x)
        out = torch.empty_like(x)
        for number, at in groups:
            out[:, at] = self._run(number, x[:, at]).to(out.dtype).view(1, len(at), -1)
        return out

    def _run(self, adapter: int, x: torch.Tensor) -> torch.Tensor:
        self._adapters.use(adapter)
        out = self._block.get_submodule(self._name)(x)
        result: torch.Tensor = out[0] if isinstance(out, tuple) else out
        return result


class BatchDecoder:
    """Decodes sequences that come and go. Use it where `unsupported_reason` is None."""

    splits_prompts = True

    def __init__(
        self,
        loaded: LoadedModel,
        adapters: AdapterSet,
        *,
        release_weights: bool = False,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        family = find_family(loaded.model)
        assert family is not None, "unsupported_reason() refuses other models"
        adapters.use(NO_ADAPTER)
        self.model = PackedModel(loaded.model, family, loaded.model.dtype)
        self.adapters, self.rows = adapters, RowAdapters()
        self.dtype = self.model.dtype
        head = self.model.head.weight
        assert isinstance(head, torch.Tensor)
        self.device = head.device
        self.head, self.vocabulary = Product(head.detach().to(self.dtype)), len(head)
        layered = [adapters.linear_layers(number) for number in range(len(adapters))]
        self.blocks = [
            self._serve_block(number, loaded.model, family, layered)
            for number in range(len(self.model.blocks))
        ]
        if release_weights:
            self._release(loaded.model, family)
        kind = self.model.layers[0].kind
        self.values = KeyValues(
            len(self.blocks), kind.kv_heads, self._vector_size, self.dtype, self.device
        )
        self._live: set[Decoded] = set()
        self._kept = KeptPrefixes(kept_bytes)

    def _serve_block(
        self,
        number: int,
        model: nn.Module,
        family: ModelFamily,
        layered: Sequence[dict[nn.Module, LoraLinear]],
    ) -> ServedBlock:
        block, layer = self.model.blocks[number], self.model.layers[number]
        assert isinstance(block, PackedBlock)
        projections: list[AdaptedProduct] = []
        for projection, linears in zip(
            block.projections, family.projections(block.block), strict=True
        ):
            assert isinstance(projection, FusedProjection)
            weight, _, bias = projection.freeze()
            heights = [int(linear.out_features) for linear in linears]  # type: ignore[arg-type]
            updates: dict[int, Update] = {}
            for adapter, found in enumerate(layered):
                update = join_updates([found.get(one) for one in linears], heights, self.dtype)
                if update is not None:
                    updates[adapter] = update
            if not projections:
                self._vector_size = len(weight) // (layer.kind.heads + 2 * layer.kind.kv_heads)
            projections.append(AdaptedProduct(Product(weight, bias), updates, self.rows))
        served = ServedBlock(number, block, layer, projections)
        if family.own_mlp:
            name = f"{family.decoder}.{family.blocks}.{number}.{family.own_mlp}"
            if any(self.adapters.adapts_within(n, name) for n in range(len(self.adapters))):
                module: Any = SwitchedModule(block.block, family.own_mlp, self.adapters, self.rows)
                served.parts.own_mlp = module
        return served

    def _release(self, model: nn.Module, family: ModelFamily) -> None:
        """Give back the memory of weights that are here in another layout."""
        for block in self.model.blocks:
            assert isinstance(block, PackedBlock)
            for projection in block.projections:
                if isinstance(projection, FusedProjection):
                    projection.fused_weight = None
            for linear in family.linear_layers(block.block):
                weight = linear.weight
                assert isinstance(weight, torch.Tensor)
                weight.data = weight.data.new_empty(0)

    @property
    def cached_tokens(self) -> int:
        """Return how many tokens have their keys and values in memory."""
        return self.values.tokens

    def add(self, adapter: int, prompt: Sequence[int], *, reuse: bool = True) -> Decoded:
        """Return a sequence for a prompt. Its `length` is how much of it is known already."""
        length, source = self._find_prefix(adapter, prompt) if reuse else (0, None)
        place = self.values.add(len(prompt) + 1)
        sequence = Decoded(adapter, len(prompt), place, list(prompt[:length]))
        if isinstance(source, Decoded):
            self.values.copy_prefix(source.place, place, length)
        elif source is not None:
            self.values.copy_in(place, source.stored, length)
        self._live.add(sequence)
        return sequence

    def known_prefix(self, adapter: int, prompt: Sequence[int]) -> int:
        """Return how many tokens of a prompt `add` would find computed already."""
        return self._find_prefix(adapter, prompt)[0]

    def _find_prefix(
        self, adapter: int, prompt: Sequence[int]
    ) -> tuple[int, Decoded | KeptPrefix | None]:
        """Return the longest known beginning of a prompt, and what has its keys and values."""
        best: tuple[int, Decoded | KeptPrefix | None] = (0, None)
        sources: list[Decoded | KeptPrefix] = [*self._live, *self._kept.prefixes]
        for source in sources:
            same_angles = self.model.rotary.have_equal_angles([len(prompt), source.prompt_tokens])
            if source.adapter == adapter and same_angles:
                # The last token of a prompt goes through the model in any case.
                length = min(common_prefix(source.tokens, prompt), len(prompt) - 1)
                if length >= MIN_SHARED and length > best[0]:
                    best = (length, source)
        return best

    def must_restart(self, sequence: Decoded) -> bool:
        """Return whether the next token changes the angles of all tokens before it (longrope)."""
        limit = self.model.rotary.long_above
        return limit is not None and sequence.length == limit >= sequence.prompt_tokens

    def restart(self, sequence: Decoded, tokens: int) -> None:
        """Forget the keys and values of a sequence, whose `tokens` tokens go through again."""
        sequence.place.length, sequence.prompt_tokens, sequence.tokens = 0, tokens, []

    def remove(self, sequence: Decoded) -> None:
        """Forget a sequence, but for what a later prompt may begin with."""
        self._live.discard(sequence)
        self._kept.keep(sequence, self.values)
        self.values.remove(sequence.place)

    def step(self, work: Sequence[NewTokens]) -> tuple[list[NewTokens], torch.Tensor]:
        """Return the complete ones of `work`, and the logits [ones, vocabulary] after them."""
        for one in work:
            self.values.make_room(one.sequence.place, one.sequence.length + len(one.ids))
        with torch.inference_mode():
            step = Step(work, self.device)
            self.rows.choose(step.adapters, self.device, self.dtype)
            angles = self.model.rotary.tables(self.model.layers, step.positions, step.lengths)
            tables = {name: Angles(*each) for name, each in angles.items()}
            x, delta = self.model.embed(step.ids), None
            for block in self.blocks:
                x, delta = block(x, delta, tables[block.layer.rotary], step)
            for one in step.order:
                one.sequence.place.length += len(one.ids)
                one.sequence.tokens += one.ids
            for one, first in step.scored:
                self._report_logits(one, x, delta, first)
            complete = [one for one in step.order if one.is_complete]
            if not complete:
                return [], x.new_empty((0, self.vocabulary))
            return complete, self._logits(x, delta, step.predicted)

    def _report_logits(
        self, one: NewTokens, x: torch.Tensor, delta: torch.Tensor | None, first: int
    ) -> None:
        """Hand over the logits after each token of `one`, of which `first` is the first in `x`."""
        assert one.on_logits is not None
        last = first + len(one.ids)
        for start in range(first, last, SCORED_AT_ONCE):
            end = min(start + SCORED_AT_ONCE, last)
            rows = torch.arange(start, end, device=self.device)
            one.on_logits(self._logits(x, delta, rows))

    def _logits(
        self, x: torch.Tensor, delta: torch.Tensor | None, rows: torch.Tensor
    ) -> torch.Tensor:
        """Return the logits, float32 [rows, vocabulary], after some tokens of a step."""
        x = x.index_select(0, rows)
        if delta is not None:
            x = self.blocks[-1].parts.add(x, delta.index_select(0, rows))
        logits = self.head(self.model.head_input(x)).float()
        cap = self.model.logit_softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)


def unsupported_reason_with(loaded: LoadedModel, adapters: AdapterSet) -> str | None:
    """Return why the engine can't compute a model with all of these adapters; None if it can."""
    for number in (*range(len(adapters)), NO_ADAPTER):
        adapters.use(number)
        reason = unsupported_reason(loaded.model)
        if reason is not None:
            return reason
    return None
