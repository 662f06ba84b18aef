"""Compute the key under which a model's answers may be cached: all that decides them but a request.

Equal weights answer differently with another tokenizer, chat template, stop token, configuration
(`rope_theta` is no weight), precision or version of the libraries. Our own code renders prompts and
parses answers, so it belongs to the key as well.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import local_backend
from local_backend.models.load_model import LoadedModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ENGINE = ("torch", "transformers", "tokenizers", "jinja2")
"""Distributions that render, tokenize and run the model."""
INCIDENTAL = frozenset({"_name_or_path", "transformers_version", "_commit_hash"})
"""Keys of configurations that say where a model came from."""
CALL_STATE = ("truncation", "padding")
"""Keys of a fast tokenizer that its last call has set."""


def compute_answer_key(loaded: LoadedModel, identity: str) -> str:
    """Return the SHA-256 of what decides a model's answers; `identity` is that of its weights."""
    model = loaded.model
    parts = {
        "weights": identity,
        "tokenizer": hash_tokenizer(loaded.tokenizer),
        "stop": loaded.stop_ids,
        "context": loaded.context_length,
        "config": _without_incidental(model.config.to_dict()),
        # transformers fills in from it what a call leaves open, a repetition penalty for example.
        "generation": _without_incidental(model.generation_config.to_dict())
        if model.generation_config
        else None,
        "attention": model.config._attn_implementation,
        "precision": [str(model.dtype), model.device.type],
        "engine": {name: metadata.version(name) for name in ENGINE},
        "code": hash_code(),
    }
    content = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def _without_incidental(values: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if name not in INCIDENTAL}


def hash_tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 of a tokenizer: vocabulary, steps, special tokens and chat templates."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    steps = json.loads(backend.to_str()) if backend is not None else sorted(tokenizer.get_vocab())
    if isinstance(steps, dict):
        steps = {name: value for name, value in steps.items() if name not in CALL_STATE}
    parts = {
        "class": type(tokenizer).__name__,
        "steps": steps,
        "special": tokenizer.special_tokens_map,
        "added": {str(i): repr(token) for i, token in tokenizer.added_tokens_decoder.items()},
        "templates": tokenizer.chat_template,
        "cleanUp": getattr(tokenizer, "clean_up_tokenization_spaces", None),
    }
    content = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


@lru_cache(maxsize=1)
def hash_code() -> str:
    """Return the SHA-256 of this package's sources."""
    root = Path(local_backend.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
