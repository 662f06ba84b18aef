"""Rotary positions as llama.cpp reads them: base, rotated dimensions, scaling."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from local_backend.errors import TrainerError
from local_backend.export.gguf.families import GgufFamily
from local_backend.export.gguf.settings import head_size
from local_backend.export.gguf.tensors import OTHER_RUNTIME, PlannedTensor, make_constant

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedConfig

Rope = dict[str, Any]


def write_rope(
    writer: GGUFWriter, config: PreTrainedConfig, family: GgufFamily
) -> list[PlannedTensor]:
    """Write the rotary settings. Return the tensors that hold the rest of them.

    Raise TrainerError for a scaling that llama.cpp does not apply in this architecture.
    """
    rope, local = split_by_layer_type(config)
    kind = str(rope.get("rope_type", "default"))
    if kind not in family.rope_types:
        raise TrainerError(
            f"llama.cpp's {family.architecture!r} does not apply rope scaling of type {kind!r}.",
            fix=OTHER_RUNTIME,
        )
    dimensions = int(head_size(config) * float(rope.get("partial_rotary_factor") or 1.0))
    writer.add_rope_dimension_count(dimensions)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if local is not None:
        writer.add_rope_freq_base_swa(float(local["rope_theta"]))
    if kind == "linear":
        _write_scaling(writer, "linear", rope)
    elif kind == "yarn":
        _write_yarn(writer, rope, config)
    elif kind == "llama3":
        return [make_constant("rope_freqs.weight", llama3_divisors(rope, dimensions))]
    elif kind == "longrope":
        return _write_longrope(writer, rope, config)
    return []


def split_by_layer_type(config: PreTrainedConfig) -> tuple[Rope, Rope | None]:
    """Return the settings of full attention, and of windowed layers if they have their own."""
    rope = dict(config.rope_parameters)
    if "full_attention" not in rope:
        return rope, None
    full, local = dict(rope["full_attention"]), rope.get("sliding_attention")
    return full, dict(local) if local else None


def llama3_divisors(rope: Rope, dimensions: int) -> list[float]:
    """Return what divides each frequency (Llama 3.1): 1 for short waves, `factor` for long ones.

    Between the two it is interpolated, linearly in the inverse of the wavelength.
    """
    original = float(rope["original_max_position_embeddings"])
    factor = float(rope["factor"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    divisors = []
    for at in range(0, dimensions, 2):
        turns = original / (2 * math.pi * float(rope["rope_theta"]) ** (at / dimensions))
        if turns < low:
            divisors.append(factor)
        elif turns > high:
            divisors.append(1.0)
        else:
            share = (turns - low) / (high - low)
            divisors.append(1 / ((1 - share) / factor + share))
    return divisors


def _write_scaling(writer: GGUFWriter, kind: str, rope: Rope) -> None:
    from gguf import RopeScalingType

    writer.add_rope_scaling_type(RopeScalingType(kind))
    writer.add_rope_scaling_factor(float(rope["factor"]))


def _write_yarn(writer: GGUFWriter, rope: Rope, config: PreTrainedConfig) -> None:
    _write_scaling(writer, "yarn", rope)
    original = rope.get("original_max_position_embeddings") or config.max_position_embeddings
    writer.add_rope_scaling_orig_ctx_len(int(original))
    writer.add_rope_scaling_yarn_beta_fast(float(rope.get("beta_fast") or 32))
    writer.add_rope_scaling_yarn_beta_slow(float(rope.get("beta_slow") or 1))


def _write_longrope(
    writer: GGUFWriter, rope: Rope, config: PreTrainedConfig
) -> list[PlannedTensor]:
    from gguf import RopeScalingType

    original = int(rope["original_max_position_embeddings"])
    writer.add_rope_scaling_type(RopeScalingType.LONGROPE)
    writer.add_rope_scaling_orig_ctx_len(original)
    stretch = float(rope.get("factor") or config.max_position_embeddings / original)
    attention = rope.get("attention_factor")
    if attention is None:
        attention = math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0
    writer.add_rope_scaling_attn_factors(float(attention))
    return [
        make_constant("rope_factors_long.weight", rope["long_factor"]),
        make_constant("rope_factors_short.weight", rope["short_factor"]),
    ]
