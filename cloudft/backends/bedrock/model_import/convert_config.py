"""Convert a model folder of transformers 5 to the version that Bedrock reads it with.

Bedrock does not refuse what transformers 5 writes differently; it loads another model. Without a
top-level `rope_theta`, older code uses its default, and the import succeeds with garbage for
answers. Source of the version: catalogue/custom-model-import.yaml; of the keys: the files that both
versions write.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cloudft.storage.atomic_files import atomic_write

HfConfig = Mapping[str, Any]
"""A configuration file of Hugging Face: its keys differ by architecture and version."""
CONFIG, TOKENIZER = "config.json", "tokenizer_config.json"
GENERATION, TEMPLATE = "generation_config.json", "chat_template.jinja"
FAST_TOKENIZER = "PreTrainedTokenizerFast"
"""Class that reads any tokenizer.json; transformers 5 calls it `TokenizersBackend`."""
TRANSFORMERS_5_KEYS = ("backend", "is_local", "local_files_only")
"""Keys of a tokenizer's configuration that older versions do not know."""


def convert_folder(folder: Path, version: str) -> None:
    """Convert the folder's configuration files; converting twice has no effect.

    Raise OSError and ValueError.
    """
    _rewrite_json(folder / CONFIG, lambda config: convert_config(config, version))
    template = folder / TEMPLATE
    text = template.read_text(encoding="utf-8") if template.is_file() else None
    _rewrite_json(folder / TOKENIZER, lambda config: convert_tokenizer(config, text))
    with contextlib.suppress(FileNotFoundError):
        _rewrite_json(
            folder / GENERATION, lambda config: {**config, "transformers_version": version}
        )
    template.unlink(missing_ok=True)


def _rewrite_json(path: Path, convert: Callable[[HfConfig], HfConfig]) -> None:
    """Replace a JSON file by its conversion."""
    # Not by orjson: a tokenizer's `model_max_length` is an integer that it would round.
    config = json.loads(path.read_bytes())
    atomic_write(path, json.dumps(convert(config), indent=2, ensure_ascii=False).encode())


def convert_config(config: HfConfig, version: str) -> HfConfig:
    """Return config.json with `rope_theta`, `rope_scaling` and `torch_dtype`.

    Raise ValueError for rope parameters that older versions can't express.
    """
    converted = {name: value for name, value in config.items() if name != "rope_parameters"}
    rope = dict(config.get("rope_parameters") or {})
    if any(isinstance(value, Mapping) for value in rope.values()):
        raise ValueError("rope_parameters differ between layers; older code has one for all")
    if rope:
        converted |= {k: rope.pop(k) for k in ("rope_theta", "partial_rotary_factor") if k in rope}
        is_default = rope.get("rope_type", "default") == "default"
        converted["rope_scaling"] = None if is_default else rope
    if config.get("dtype"):
        converted["torch_dtype"] = config["dtype"]
    return converted | {"transformers_version": version}


def convert_tokenizer(config: HfConfig, template: str | None) -> HfConfig:
    """Return tokenizer_config.json with the class's old name, and with the chat template in it."""
    converted = {name: value for name, value in config.items() if name not in TRANSFORMERS_5_KEYS}
    if converted.get("tokenizer_class") in (None, "TokenizersBackend"):
        converted["tokenizer_class"] = FAST_TOKENIZER
    extra = converted.get("extra_special_tokens")
    if isinstance(extra, list):  # in older versions that key has a mapping
        del converted["extra_special_tokens"]
        additional = converted.get("additional_special_tokens", ())
        converted["additional_special_tokens"] = [*additional, *extra]
    if template is not None:
        converted["chat_template"] = template
    return converted
