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
TURNS = (32.0, 1.0)
"""Turns within the original length between which YaRN interpolates: the betas of the paper, and of
llama.cpp whatever a file says.
"""


def write_rope(
    writer: GGUFWriter, config: PreTrainedConfig, family: GgufFamily
) -> list[PlannedTensor]:
    """Write the rotary settings. Return the tensors that hold the rest of them.

    Raise TrainerError for a scaling that llama.cpp does not apply in this architecture.
    """
    rope, local = split_by_layer_type(config)
    kind = str(rope.get("rope_type", "default"))
    rotated = float(rope.get("partial_rotary_factor") or 1.0)
    if kind not in family.rope_types:
        raise _refusal(family, f"rope scaling of type {kind!r}")
    if rotated != 1 and not family.rotates_parts:
        raise _refusal(family, f"partial_rotary_factor {rotated:g}")
    dimensions = int(head_size(config) * rotated)
    writer.add_rope_dimension_count(dimensions)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if local is not None:
        if local.get("rope_type", "default") != "default":
            raise _refusal(family, "rope scaling of layers with a window")
        writer.add_rope_freq_base_swa(float(local["rope_theta"]))
    if kind == "linear":
        _write_scaling(writer, "linear", rope)
    elif kind in ("yarn", "llama3"):
        return _write_computed(writer, config, family, rope, dimensions)
    elif kind == "longrope":
        return _write_longrope(writer, rope, config)
    return []


def _refusal(family: GgufFamily, what: str) -> TrainerError:
    return TrainerError(
        f"llama.cpp's {family.architecture!r} does not apply {what}.", fix=OTHER_RUNTIME
    )


def _write_computed(
    writer: GGUFWriter,
    config: PreTrainedConfig,
    family: GgufFamily,
    rope: Rope,
    dimensions: int,
) -> list[PlannedTensor]:
    """Write the frequencies that transformers computes.

    By llama.cpp's YaRN where that computes the same; else by what divides each frequency, a tensor
    that some architectures read.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    kind = str(rope["rope_type"])
    layers = {"layer_type": "full_attention"} if "full_attention" in config.rope_parameters else {}
    frequencies, attention = ROPE_INIT_FUNCTIONS[kind](config, "cpu", **layers)
    exact = [float(frequency) for frequency in frequencies]
    if kind == "yarn":
        factor = _stretch(rope, config)
        theirs = yarn_frequencies(rope, config, dimensions)
        same = all(math.isclose(a, b, rel_tol=1e-4) for a, b in zip(theirs, exact, strict=True))
        if same:
            _write_scaling(writer, "yarn", rope | {"factor": factor})
            writer.add_rope_scaling_orig_ctx_len(_original_length(rope, config))
            # llama.cpp multiplies this by the factor of the paper.
            writer.add_rope_scaling_attn_factors(attention / (1 + 0.1 * math.log(factor)))
            return []
    if "llama3" not in family.rope_types:
        which = "a range of yarn that is not rounded (truncate: false)"
        rounds = kind == "yarn" and rope.get("truncate") is False
        raise _refusal(family, which if rounds else f"these settings of rope scaling {kind!r}")
    if attention != 1:
        writer.add_rope_scaling_attn_factors(float(attention))
    base = float(rope["rope_theta"])
    divisors = [base ** (-2 * at / dimensions) / value for at, value in enumerate(exact)]
    return [make_constant("rope_freqs.weight", divisors)]


def _stretch(rope: Rope, config: PreTrainedConfig) -> float:
    named = rope.get("factor")
    return float(named or config.max_position_embeddings / _original_length(rope, config))


def _original_length(rope: Rope, config: PreTrainedConfig) -> int:
    return int(rope.get("original_max_position_embeddings") or config.max_position_embeddings)


def yarn_frequencies(rope: Rope, config: PreTrainedConfig, dimensions: int) -> list[float]:
    """Return the frequencies of llama.cpp's YaRN.

    Of 32 turns and more within the original length, as they are; of one turn and less, divided;
    interpolated between the two dimensions at which that is, rounded outward. The betas of a file
    are not read (measured).
    """
    base, factor = float(rope["rope_theta"]), _stretch(rope, config)
    length = _original_length(rope, config)
    bounds = [
        dimensions * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(base))
        for turns in TURNS
    ]
    low = max(0, math.floor(bounds[0]))
    high = min(dimensions - 1, math.ceil(bounds[1]))
    frequencies = []
    for at in range(dimensions // 2):
        divided = min(1.0, max(0.0, (at - low) / max(0.001, high - low)))
        frequencies.append(base ** (-2 * at / dimensions) * (1 - divided + divided / factor))
    return frequencies


def split_by_layer_type(config: PreTrainedConfig) -> tuple[Rope, Rope | None]:
    """Return the settings of full attention, and of windowed layers if they have their own."""
    rope = dict(config.rope_parameters)
    if "full_attention" not in rope:
        return rope, None
    full, local = dict(rope["full_attention"]), rope.get("sliding_attention")
    return full, dict(local) if local else None


def _write_scaling(writer: GGUFWriter, kind: str, rope: Rope) -> None:
    from gguf import RopeScalingType

    writer.add_rope_scaling_type(RopeScalingType(kind))
    writer.add_rope_scaling_factor(float(rope["factor"]))


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
