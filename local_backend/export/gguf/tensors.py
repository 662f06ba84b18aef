"""Plan the tensors of a GGUF file: their names and shapes, and how each is made when it is written.

Names are looked up in the gguf library's table of llama.cpp's tensors. What has no name there has
no place in llama.cpp, and is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from local_backend.errors import TrainerError
from local_backend.export.gguf.checkpoint import Checkpoint
from local_backend.export.gguf.families import GgufFamily

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedConfig

_EXPERT = re.compile(r"^(?P<before>.*\.experts\.)(?P<number>\d+)\.(?P<after>.*)$")
_HEAD = "lm_head.weight"
EMBEDDING, HEAD = "token_embd.weight", "output.weight"
"""llama.cpp's names. A file without the second has its head tied to the first."""
OTHER_RUNTIME = (
    "run it in another runtime, for example `cloudft export JOB FOLDER --for transformers`."
)


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the file: `make` returns its values in float32."""

    name: str
    shape: tuple[int, ...]
    make: Callable[[], np.ndarray]


def plan_tensors(
    checkpoint: Checkpoint, config: PreTrainedConfig, family: GgufFamily
) -> list[PlannedTensor]:
    """Return the tensors of the file in order. Raise TrainerError for those it can't hold."""
    planned: list[PlannedTensor] = []
    unknown: list[str] = []
    names = TensorNames(family, int(config.num_hidden_layers))
    for name in _without_later_experts(checkpoint):
        if name == _HEAD and config.tie_word_embeddings:
            continue
        made = _split_fused_experts(checkpoint, name, names, family)
        if made is None:
            made = [_plan_one(checkpoint, name, names, config, family)]
        if None in made:
            unknown.append(name)
        planned += [tensor for tensor in made if tensor is not None]
    if family.copies_head and config.tie_word_embeddings:
        [embedding] = [tensor for tensor in planned if tensor.name == EMBEDDING]
        planned.append(replace(embedding, name=HEAD))
    unknown += _find_unread_biases(planned, family)
    if unknown:
        shown = ", ".join(unknown[:4]) + (f" and {len(unknown) - 4} more" * (len(unknown) > 4))
        raise TrainerError(
            f"llama.cpp's {family.architecture!r} has no place for weights of this model: {shown}.",
            fix=OTHER_RUNTIME,
        )
    return planned


class TensorNames:
    """llama.cpp's names of a model's tensors."""

    def __init__(self, family: GgufFamily, layers: int) -> None:
        """Look up the table of the family's architecture."""
        import gguf

        numbers = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
        self._table = gguf.get_tensor_name_map(numbers[family.architecture], layers)

    def find(self, name: str) -> str | None:
        """Return llama.cpp's name, or None if it has none."""
        found = self._table.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is not None and not found.endswith((".weight", ".bias")):
            found += ".weight"  # sinks are a bare parameter in transformers
        return found


def _without_later_experts(checkpoint: Checkpoint) -> Iterator[str]:
    """Yield the names in the file's order, of a block's routed experts only the first one's."""
    for name in checkpoint:
        match = _EXPERT.match(name)
        if match is None or match["number"] == "0":
            yield name


def _plan_one(
    checkpoint: Checkpoint,
    name: str,
    names: TensorNames,
    config: PreTrainedConfig,
    family: GgufFamily,
) -> PlannedTensor | None:
    match = _EXPERT.match(name)
    if match is not None:
        return _stack_experts(checkpoint, match, names)
    found = names.find(name)
    if found is None:
        return None
    shape = checkpoint.shape(name)
    make: Callable[[], np.ndarray] = partial(checkpoint.read, name)
    if family.rotates_pairs and re.search(r"\.attn_[qk]\.", found):
        heads = config.num_attention_heads
        if ".attn_k." in found:
            heads = getattr(config, "num_key_value_heads", None) or heads
        make = partial(_pair_rows, checkpoint, name, int(heads))
    elif family.norm_offset and found.endswith("norm.weight"):
        make = partial(_add, checkpoint, name, family.norm_offset)
    factor = query_factor(config) if family.folds_query_scale else 1.0
    if factor != 1.0 and re.search(_last_of_queries(config), found):
        make = partial(_multiply, make, factor)
    return PlannedTensor(found, shape, make)


def _pair_rows(checkpoint: Checkpoint, name: str, heads: int) -> np.ndarray:
    """Return a projection whose rows 0 and d/2, 1 and d/2+1, ... of each head are neighbors."""
    values = checkpoint.read(name)
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    paired: np.ndarray = halves.swapaxes(1, 2).reshape(values.shape)
    return paired


def _add(checkpoint: Checkpoint, name: str, offset: float) -> np.ndarray:
    return checkpoint.read(name) + offset


def query_factor(config: PreTrainedConfig) -> float:
    """Return what queries are multiplied by, beyond what llama.cpp divides their scores by.

    It knows the two models of 27 billion weights by their number of layers.
    """
    width = config.hidden_size / config.num_attention_heads
    head = getattr(config, "head_dim", None) or width
    if config.num_hidden_layers == {"gemma2": 46, "gemma3_text": 62}.get(config.model_type):
        head = width
    return float(math.sqrt(head / config.query_pre_attn_scalar))


def _last_of_queries(config: PreTrainedConfig) -> str:
    """Return the pattern of the weights that queries go through last before their positions."""
    has_norm = config.model_type == "gemma3_text"
    return r"attn_q_norm\.weight$" if has_norm else r"attn_q\.(weight|bias)$"


def _multiply(make: Callable[[], np.ndarray], factor: float) -> np.ndarray:
    values: np.ndarray = make() * factor
    return values


def _stack_experts(
    checkpoint: Checkpoint, match: re.Match[str], names: TensorNames
) -> PlannedTensor | None:
    """Return the tensor [experts, ...] of what a block's experts have as tensors of their own."""
    found = names.find(f"{match['before']}{match['after']}")
    if found is None:
        return None
    parts: list[str] = []
    while (part := f"{match['before']}{len(parts)}.{match['after']}") in checkpoint:
        parts.append(part)
    shape = (len(parts), *checkpoint.shape(parts[0]))
    return PlannedTensor(found, shape, partial(_stack, checkpoint, parts))


def _stack(checkpoint: Checkpoint, parts: list[str]) -> np.ndarray:
    import numpy as np

    stacked = np.empty((len(parts), *checkpoint.shape(parts[0])), np.float32)
    for at, part in enumerate(parts):
        stacked[at] = checkpoint.read(part)
    return stacked


def _split_fused_experts(
    checkpoint: Checkpoint, name: str, names: TensorNames, family: GgufFamily
) -> list[PlannedTensor | None] | None:
    """Return the parts of a tensor that holds several of llama.cpp's; None for any other tensor.

    granitemoe: [experts, gate then up, width]. gpt_oss: [experts, width, gate and up by turns], and
    [experts, middle, width]: the last two axes are transposed.
    """
    shape = checkpoint.shape(name)
    block = re.match(r"model\.layers\.(\d+)\.", name)
    if block is None:
        return None
    prefix = f"blk.{block[1]}."
    if family.experts == "granitemoe" and name.endswith(".input_linear.weight"):
        half = shape[1] // 2
        parts = {"ffn_gate_exps": slice(0, half), "ffn_up_exps": slice(half, None)}
        return [
            PlannedTensor(
                f"{prefix}{part}.weight",
                (shape[0], half, shape[2]),
                partial(_take, checkpoint, name, (slice(None), rows)),
            )
            for part, rows in parts.items()
        ]
    found = re.fullmatch(r".*\.experts\.(gate_up|down)_proj(_bias)?", name)
    if family.experts != "gpt_oss" or found is None:
        return None
    turns = {"ffn_gate_exps": slice(0, None, 2), "ffn_up_exps": slice(1, None, 2)}
    if found[1] == "down":
        turns = {"ffn_down_exps": slice(None)}
    planned: list[PlannedTensor | None] = []
    for part, columns in turns.items():
        width = shape[-1] // len(turns)
        is_bias = found[2] is not None
        made = partial(_take, checkpoint, name, (..., columns), transposed=not is_bias)
        new = (*shape[:-1], width) if is_bias else (shape[0], width, shape[1])
        planned.append(
            PlannedTensor(f"{prefix}{part}.{'bias' if is_bias else 'weight'}", new, made)
        )
    return planned


def _take(
    checkpoint: Checkpoint, name: str, where: tuple[Any, ...], *, transposed: bool = False
) -> np.ndarray:
    import numpy as np

    values = checkpoint.read(name)[where]
    return np.ascontiguousarray(values.swapaxes(-1, -2) if transposed else values)


def _find_unread_biases(planned: list[PlannedTensor], family: GgufFamily) -> list[str]:
    """Return the biases that llama.cpp has no place for in this architecture."""
    found = []
    for tensor in planned:
        match = re.fullmatch(r"blk\.\d+\.(?P<part>\w+)\.bias", tensor.name)
        if match and not match["part"].endswith("norm") and match["part"] not in family.biases:
            found.append(tensor.name)
    return found


def make_constant(name: str, values: Any) -> PlannedTensor:
    """Return a tensor that the folder has not: numbers computed from the configuration."""
    import numpy as np

    array = np.asarray(values, np.float32)
    return PlannedTensor(name, array.shape, lambda: array)
