"""Write a tuned model as a folder for mlx-lm, its matrices quantized if a quantization is named.

mlx-lm reads the files of a merged model as they are. Quantized, a matrix is three tensors in its
place: `weight`, `scales` and `biases`, by mlx's affine quantization, and config.json says so. The
three are bit for bit those of mlx itself (tests/runtimes/test_mlx_quantization.py), so mlx, which
few Linux machines have, is not needed to write them. mlx-lm takes what has no scales as it is.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from local_backend.errors import TrainerError
from local_backend.export.features import ModelFiles, find_features
from local_backend.export.merged import write_merged
from local_backend.export.options import MLX_BITS, ExportOptions
from local_backend.export.proof import Proof
from local_backend.export.tuned_model import TunedModel
from local_backend.models.portable_config import CONFIG, rewrite_json

if TYPE_CHECKING:
    import torch

GROUP = 64
"""Weights of a row that have one scale and one bias; mlx-lm's default."""
SMALLEST_SCALE = 1e-7
MERGED = ".merged"
INDEX = "model.safetensors.index.json"
_ROUTER = re.compile(r"\.(gate|router|router\.layer|shared_expert_gate)\.weight$")
"""Few weights, which decide which experts compute."""
QUANTIZED_EXPERTS = frozenset({"mixtral", "olmoe"})
"""Families of whose experts mlx-lm stacks the scales and biases as it stacks the weights."""
WITHOUT = "leave out --quantize and add --dtype float16, or use --for llama.cpp --quantize q8_0."
ROWS_AT_ONCE = 1 << 24
"""Weights that are quantized together: what bounds the memory beside the matrix itself."""


class MlxProof(Proof):
    """The proof of the merged model, and how its matrices were quantized after it."""

    quantization: str
    quantized: dict[str, int]
    """How many matrices are quantized, and how many are kept in the model's number format."""


def check_mlx(files: ModelFiles, quantization: str) -> None:
    """Raise TrainerError for a model that can't be quantized for mlx, by its config.json."""
    if quantization not in MLX_BITS:
        return
    size = files.text_config.get("hidden_size")
    if isinstance(size, int) and size % GROUP:
        raise TrainerError(
            f"mlx quantizes groups of {GROUP} weights, and the model's rows have {size}: next to"
            " nothing of it would be quantized.",
            fix=WITHOUT,
        )
    if "experts" in find_features(files) and files.family not in QUANTIZED_EXPERTS:
        raise TrainerError(
            f"mlx-lm does not read the quantized experts of the family {files.family}.", fix=WITHOUT
        )


def write_mlx(tuned: TunedModel, folder: Path, options: ExportOptions) -> Proof:
    """Write the merged model into `folder`, quantized if the options say so; return its proof.

    The proof is of the merged model before it was quantized. Raise TrainerError.
    """
    if options.quantization not in MLX_BITS:
        return write_merged(tuned, folder, options)
    merged = folder / MERGED
    merged.mkdir()
    proof = write_merged(tuned, merged, replace(options, format="merged"))
    counts = quantize_folder(merged, folder, MLX_BITS[options.quantization])
    shutil.rmtree(merged)
    quantized: MlxProof = {
        **proof,
        "format": options.format,
        "quantization": options.quantization,
        "quantized": counts,
    }
    return quantized


def quantize_folder(merged: Path, folder: Path, bits: int) -> dict[str, int]:
    """Write the model in `merged` to `folder` with its matrices quantized.

    One file of weights is in memory at a time. Return how many matrices are quantized, and kept.
    """
    from safetensors.torch import save_file

    places: dict[str, str] = {}
    size, counts = 0, {"quantized": 0, "kept": 0}
    for path in sorted(merged.iterdir()):
        if path.suffix != ".safetensors":
            if path.name != INDEX:
                shutil.copyfile(path, folder / path.name)
            continue
        tensors: dict[str, torch.Tensor] = {}
        for name, made in _quantize_file(path, bits):
            tensors |= made
            counts["quantized" if len(made) > 1 else "kept"] += made[name].ndim > 1
        places |= dict.fromkeys(tensors, path.name)
        size += sum(tensor.nbytes for tensor in tensors.values())
        save_file(tensors, folder / path.name, metadata={"format": "mlx"})
    if (merged / INDEX).is_file():
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(places.items()))}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    said = {"group_size": GROUP, "bits": bits, "mode": "affine"}
    # mlx-lm reads the first; by the second, transformers refuses the folder in its own words.
    both = {"quantization": said, "quantization_config": said}
    rewrite_json(folder / CONFIG, lambda config: config | both)
    return counts


def _quantize_file(path: Path, bits: int) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """Yield each tensor of a file by its name, with what takes its place."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  (it is no mapping)
            tensor = file.get_tensor(name)
            if not is_quantized(name, tuple(tensor.shape)):
                yield name, {name: tensor}
                continue
            before = name.removesuffix("weight")
            parts = zip(("weight", "scales", "biases"), quantize(tensor, bits), strict=True)
            yield name, {before + part: made for part, made in parts}


def is_quantized(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor is a matrix that is quantized, and no router."""
    is_matrix = len(shape) == 2 and name.endswith(".weight") and not _ROUTER.search(name)
    return is_matrix and shape[1] % GROUP == 0


def quantize(matrix: torch.Tensor, bits: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return mlx's `weight`, `scales` and `biases` of a matrix [rows, columns].

    The value w of a group is kept as an integer q of `bits` bits with w = scale * q + bias. The
    integers of neighbors are packed into uint32, the first in the lowest bits: [rows, columns *
    bits / 32]. Scales and biases, [rows, columns / 64], are in the matrix' number format.
    """
    import torch

    at_once = max(1, ROWS_AT_ONCE // matrix.shape[1])
    parts = [_quantize_rows(rows, bits) for rows in matrix.split(at_once)]
    packed, scales, biases = (torch.cat(part) for part in zip(*parts, strict=True))
    return packed, scales, biases


def _quantize_rows(
    rows: torch.Tensor, bits: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    import torch

    largest = (1 << bits) - 1
    groups = rows.float().reshape(-1, GROUP)
    low, high = groups.aminmax(dim=1)
    scale = ((high - low) / largest).clamp(min=SMALLEST_SCALE)
    # The end of the range that is farther from zero is met exactly, and so is zero itself.
    from_low = low.abs() > high.abs()
    scale = torch.where(from_low, scale, -scale)
    edge = torch.where(from_low, low, high)
    steps = (edge / scale).round()
    has_steps = steps != 0
    scale = torch.where(has_steps, edge / torch.where(has_steps, steps, 1), scale)
    bias = torch.where(has_steps, edge, 0)
    integers = ((groups - bias[:, None]) / scale[:, None]).round().clamp(0, largest)
    words = integers.to(torch.int64).reshape(len(rows), -1, 32 // bits)
    packed = (words << (torch.arange(32 // bits) * bits)).sum(-1)
    shape = (len(rows), -1)
    return (
        packed.to(torch.uint32),
        scale.reshape(shape).to(rows.dtype),
        bias.reshape(shape).to(rows.dtype),
    )
