"""Compare a folder that cloudft quantized with what mlx-lm makes of the same model.

`PYTHON compare_mlx_quantization.py MODEL QUANTIZED`, in an interpreter that has mlx-lm. The last
line of standard output has the number of tensors that are `equal` to the bit, the names of
`differing` ones, and of the layers that are quantized `onlyByMlx`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Print the comparison."""
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.utils import load_model, quantize_model

    plain, quantized = map(Path, sys.argv[1:])
    ours, config = load_model(quantized)
    is_quantized = {name for name, module in ours.named_modules() if hasattr(module, "scales")}
    theirs, plain_config = load_model(plain)
    can_be = {name for name, module in theirs.named_modules() if hasattr(module, "to_quantized")}
    settings = config["quantization"]
    small = {
        name
        for name, module in theirs.named_modules()
        if name in can_be and module.weight.shape[-1] % settings["group_size"]
    }

    def choose(path: str, module: Any) -> bool:
        return path in is_quantized

    theirs, _ = quantize_model(
        theirs, plain_config, settings["group_size"], settings["bits"], quant_predicate=choose
    )
    expected, found = dict(tree_flatten(theirs.parameters())), dict(tree_flatten(ours.parameters()))
    assert expected.keys() == found.keys(), expected.keys() ^ found.keys()
    differing = [
        name
        for name, tensor in expected.items()
        if tensor.dtype != found[name].dtype or not mx.array_equal(tensor, found[name]).item()
    ]
    result = {
        "equal": len(expected) - len(differing),
        "differing": differing,
        "onlyByMlx": sorted(can_be - small - is_quantized),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
