"""Name the version of transformers that Bedrock reads a merged model's folder with.

The folder itself is written for that version too (local_backend/models/portable_config.py). Source
of the version: catalogue/custom-model-import.yaml.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloudft.storage.atomic_files import atomic_write

HfConfig = Mapping[str, Any]
"""A configuration file of Hugging Face: its keys differ by architecture and version."""
CONFIG, TOKENIZER, GENERATION = "config.json", "tokenizer_config.json", "generation_config.json"


def write_transformers_version(folder: Path, version: str) -> None:
    """Write `transformers_version` into the folder's configuration files, where they exist.

    Raise OSError and ValueError.
    """
    for path in (folder / CONFIG, folder / GENERATION):
        if path.is_file():
            # Not by orjson: it rounds integers that are longer than 64 bits.
            config = json.loads(path.read_bytes()) | {"transformers_version": version}
            atomic_write(path, json.dumps(config, indent=2, ensure_ascii=False).encode())
