"""A model folder of transformers 5 in the words of the version that Bedrock reads it with.

What transformers 5 writes otherwise is not an error there but another model: without a top-level
`rope_theta` older code takes its default, and the import succeeds with answers that are garbage.
Source of the version: catalogue/custom-model-import.yaml; of the words: both versions' own files.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloudft.storage.atomic_files import atomic_write

CONFIG, TOKENIZER = "config.json", "tokenizer_config.json"
GENERATION, TEMPLATE = "generation_config.json", "chat_template.jinja"
FAST_TOKENIZER = "PreTrainedTokenizerFast"
"""The class that reads any tokenizer.json: what `TokenizersBackend` was called."""
TRANSFORMERS_5_KEYS = ("backend", "is_local", "local_files_only")
"""Of a tokenizer's configuration; unknown before."""


def convert_folder(folder: Path, version: str) -> None:
    """Rewrite the folder's small files. Twice is once. Raises OSError, ValueError."""
    _rewrite_json(folder / CONFIG, lambda found: convert_config(found, version))
    template = folder / TEMPLATE
    text = template.read_text(encoding="utf-8") if template.is_file() else None
    _rewrite_json(folder / TOKENIZER, lambda found: convert_tokenizer(found, text))
    with contextlib.suppress(FileNotFoundError):
        _rewrite_json(folder / GENERATION, lambda found: {**found, "transformers_version": version})
    template.unlink(missing_ok=True)


def _rewrite_json(path: Path, change: Any) -> None:
    """Not by orjson: a tokenizer's `model_max_length` is a number that it would round."""
    found = json.loads(path.read_bytes())
    atomic_write(path, json.dumps(change(found), indent=2, ensure_ascii=False).encode())


def convert_config(config: Mapping[str, Any], version: str) -> dict[str, Any]:
    """config.json with `rope_theta`, `rope_scaling` and `torch_dtype`. Raises ValueError."""
    made = {name: value for name, value in config.items() if name != "rope_parameters"}
    rope = dict(config.get("rope_parameters") or {})
    if any(isinstance(value, Mapping) for value in rope.values()):
        raise ValueError("rope_parameters differ from layer to layer: older code knows one of all")
    if rope:
        made |= {k: rope.pop(k) for k in ("rope_theta", "partial_rotary_factor") if k in rope}
        made["rope_scaling"] = None if rope.get("rope_type", "default") == "default" else rope
    if config.get("dtype"):
        made["torch_dtype"] = config["dtype"]
    return made | {"transformers_version": version}


def convert_tokenizer(config: Mapping[str, Any], template: str | None) -> dict[str, Any]:
    """tokenizer_config.json with its class by an old name, and the chat template within."""
    made = {name: value for name, value in config.items() if name not in TRANSFORMERS_5_KEYS}
    if made.get("tokenizer_class") in (None, "TokenizersBackend"):
        made["tokenizer_class"] = FAST_TOKENIZER
    extra = made.get("extra_special_tokens")
    if isinstance(extra, list):  # before, that name was a mapping's
        del made["extra_special_tokens"]
        made["additional_special_tokens"] = [*made.get("additional_special_tokens", ()), *extra]
    if template is not None:
        made["chat_template"] = template
    return made
