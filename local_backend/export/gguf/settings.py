"""A model's configuration as llama.cpp reads it: sizes, norms, scales, windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from local_backend.errors import TrainerError
from local_backend.export.gguf.families import GgufFamily
from local_backend.export.gguf.tensors import OTHER_RUNTIME

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedConfig


def write_settings(writer: GGUFWriter, config: PreTrainedConfig, family: GgufFamily) -> list[str]:
    """Write the model's settings. Return what is worth knowing of the file, as sentences.

    Raise TrainerError for a setting that llama.cpp would silently compute otherwise.
    """
    check_settings(config, family)
    notes = []
    heads = int(config.num_attention_heads)
    writer.add_vocab_size(int(config.vocab_size))
    writer.add_embedding_length(int(config.hidden_size))
    writer.add_block_count(int(config.num_hidden_layers))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(getattr(config, "num_key_value_heads", None) or heads))
    writer.add_key_length(head_size(config))
    writer.add_value_length(head_size(config))
    _write_norms(writer, config)
    _write_feed_forward(writer, config, family)
    for setting, key in family.scales.items():
        value = getattr(config, setting, None)
        if value is not None:
            writer.add_float32(f"{family.architecture}.{key}", float(value))
    write_windows(writer, config, family)
    context, reason = right_context(config, family)
    if reason:
        notes.append(
            f"the file says {context} tokens of context, not {config.max_position_embeddings}:"
            f" {reason}, so longer texts would get other answers than the tuned model's."
        )
    writer.add_context_length(context)
    return notes


def check_settings(config: PreTrainedConfig, family: GgufFamily) -> None:
    """Raise TrainerError naming every setting that llama.cpp can't compute."""
    faults = [*_find_other_settings(config, family), *_find_other_shapes(config, family)]
    if faults:
        raise TrainerError(
            f"llama.cpp's {family.architecture!r} does not compute what this model does:"
            f" {', '.join(faults)}.",
            fix=OTHER_RUNTIME,
        )


def _find_other_settings(config: PreTrainedConfig, family: GgufFamily) -> Iterator[str]:
    activation = getattr(config, "hidden_activation", None) or config.hidden_act
    if activation not in family.activations:
        yield f"the activation {activation!r}"
    for setting, right in family.must_be.items():
        value = getattr(config, setting, right)
        if value != right:
            yield f"{setting} {value!r}"
    for name in sorted(family.must_have):
        if not getattr(config, name, None):
            yield f"no {name}"


def _find_other_shapes(config: PreTrainedConfig, family: GgufFamily) -> Iterator[str]:
    heads, layers = int(config.num_attention_heads), int(config.num_hidden_layers)
    if heads * head_size(config) != config.hidden_size and not family.takes_any_head_size:
        yield f"heads of {head_size(config)} dimensions"
    grouped = int(getattr(config, "num_key_value_heads", None) or heads)
    if grouped != heads and not family.takes_grouped_heads:
        yield f"num_key_value_heads {grouped}"
    windowed = windowed_layers(config)
    if family.windows_need_layers not in (None, layers) and getattr(config, "sliding_window", None):
        yield f"sliding windows in a model of {layers} layers"
    if family.windows == "period" and any(windowed) and _find_period(windowed) is None:
        yield f"layer_types {config.layer_types}"
    if family.needs_windows and not any(windowed):
        yield "layers without a window alone"
    every = family.positions_but_every
    if every is not None:
        expected = [int((at + 1) % every != 0) for at in range(layers)]
        if list(config.no_rope_layers) != expected:
            yield f"no_rope_layers {config.no_rope_layers}"


def head_size(config: PreTrainedConfig) -> int:
    """Return the dimensions of an attention head."""
    named = getattr(config, "head_dim", None)
    return int(named or config.hidden_size // config.num_attention_heads)


def _write_norms(writer: GGUFWriter, config: PreTrainedConfig) -> None:
    root_mean_square = getattr(config, "rms_norm_eps", None)
    if root_mean_square is not None:
        writer.add_layer_norm_rms_eps(float(root_mean_square))
        return
    names = ("layer_norm_eps", "norm_epsilon", "norm_eps")
    centered = next((getattr(config, name) for name in names if hasattr(config, name)), 1e-5)
    writer.add_layer_norm_eps(float(centered))


def _write_feed_forward(writer: GGUFWriter, config: PreTrainedConfig, family: GgufFamily) -> None:
    writer.add_feed_forward_length(int(config.intermediate_size))
    if family.experts is None:
        return
    experts = _first(config, "num_local_experts", "num_experts")
    writer.add_expert_count(int(experts))
    writer.add_expert_used_count(int(config.num_experts_per_tok))
    width = _first(config, "moe_intermediate_size", "intermediate_size")
    writer.add_expert_feed_forward_length(int(width))
    shared = getattr(config, "shared_expert_intermediate_size", None)
    if shared:
        writer.add_expert_shared_feed_forward_length(int(shared))


def _first(config: PreTrainedConfig, *names: str) -> Any:
    return next(getattr(config, name) for name in names if getattr(config, name, None) is not None)


def right_context(config: PreTrainedConfig, family: GgufFamily) -> tuple[int, str]:
    """Return the number of tokens up to which llama.cpp computes what the model does, and why.

    The reason is empty where that is all of its context.
    """
    context, windowed = int(config.max_position_embeddings), windowed_layers(config)
    limit, reason = context, ""
    if any(windowed) and family.windows is None:
        limit = int(config.sliding_window)
        reason = f"llama.cpp knows no sliding window for {config.model_type}"
    rope = config.rope_parameters
    if rope.get("rope_type") == "longrope" and rope["original_max_position_embeddings"] < limit:
        limit = int(rope["original_max_position_embeddings"])
        reason = "llama.cpp takes one set of rope factors for all texts"
    return (limit, reason) if limit < context else (context, "")


def write_windows(writer: GGUFWriter, config: PreTrainedConfig, family: GgufFamily) -> None:
    """Write which layers have a sliding window."""
    windowed = windowed_layers(config)
    if family.windows == "list" and any(windowed):
        writer.add_sliding_window(int(config.sliding_window))
        writer.add_sliding_window_pattern(windowed)
    period = _find_period(windowed)
    if family.windows == "period" and any(windowed) and period is not None:
        writer.add_sliding_window(int(config.sliding_window))
        writer.add_sliding_window_pattern(period)


def windowed_layers(config: PreTrainedConfig) -> list[bool]:
    """Return for each layer whether its attention has a sliding window."""
    layers = int(config.num_hidden_layers)
    if not getattr(config, "sliding_window", None):
        return [False] * layers
    if getattr(config, "use_sliding_window", True) is False:
        return [False] * layers
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return [True] * layers
    return [kind == "sliding_attention" for kind in kinds]


def _find_period(windowed: Sequence[bool]) -> int | None:
    """Return n if just the last of every n layers has no window; None for another pattern."""
    for period in range(2, len(windowed) + 2):
        if all(has == ((at + 1) % period != 0) for at, has in enumerate(windowed)):
            return period
    return None
