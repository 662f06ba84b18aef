"""Write a model folder's configuration so that transformers 4 and 5 read the same model from it.

transformers 5 renamed what it writes: `rope_parameters` for `rope_theta` and `rope_scaling`,
`dtype` for `torch_dtype`, the tokenizer class `TokenizersBackend`, a list of
`extra_special_tokens`, chat templates as files. Older versions, and tools that read the older names
(mlx-lm, Bedrock's Custom Model Import), mostly do not refuse such a folder: they take their own
defaults, which is another model. Source of the names: the files that transformers 4.51.3, 4.57.6
and 5.23 write and read.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub.errors import StrictDataclassError

from local_backend.models.pretrained import UNREADABLE_ERRORS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

HfConfig = dict[str, Any]
"""A configuration file of Hugging Face: its keys differ by architecture and version."""
CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
SENTENCEPIECE_MODEL = "tokenizer.model"
TEMPLATE, TEMPLATE_FOLDER = "chat_template.jinja", "additional_chat_templates"
FAST_TOKENIZER = "PreTrainedTokenizerFast"
"""Class that takes tokenizer.json as it is, in every version. The named classes of transformers 4
(LlamaTokenizer, for example) replace a part of it by their own rules.
"""
NEWER_KEYS = ("rope_parameters", "dtype", "layer_types")
"""Keys of config.json that transformers 4.51 does not know."""
SLIDING_WINDOW_PATTERN = "sliding_window_pattern"
"""Older name for what `layer_types` says, where the layers alternate."""
ORIGINAL_LENGTH = "original_max_position_embeddings"
NEWER_TOKENIZER_KEYS = ("backend", "is_local", "local_files_only", "extra_special_tokens")
LAYER_THETAS = {"full_attention": "rope_theta", "sliding_attention": "rope_local_base_freq"}
"""Older names of the rope's base where kinds of layers have their own, as in Gemma 3."""
FAMILY_LAYER_THETAS = {
    "modernbert-decoder": {
        "full_attention": "global_rope_theta",
        "sliding_attention": "local_rope_theta",
    }
}
FAMILY_ROPE_NAMES = {
    "gpt_neox": {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}
}
"""Older names of rope settings in families that have their own."""


def write_portable_config(
    folder: Path, tokenizer: PreTrainedTokenizerBase, stop_ids: Sequence[int]
) -> None:
    """Rewrite the configuration files of a folder with the older names beside the newer ones.

    `stop_ids` are the tokens that end an answer. In a folder without a model (an adapter's), only
    the tokenizer's files are rewritten. Raise OSError and ValueError.
    """
    from transformers import AutoConfig

    end_tokens = {"eos_token_id": stop_ids[0] if len(stop_ids) == 1 else list(stop_ids)}
    if (folder / CONFIG).is_file():
        meant = AutoConfig.from_pretrained(folder)
        original = json.loads((folder / CONFIG).read_text(encoding="utf-8")) | end_tokens
        older_names = add_older_names(original, meant.attribute_map)
        rewrite_json(folder / CONFIG, lambda _: older_names)
        if not _says_the_same(meant.to_dict() | end_tokens, _read_config(folder)):
            # Families that no older version has may take an older name for something else.
            older_names = add_older_names(original, meant.attribute_map, with_rope=False)
            rewrite_json(folder / CONFIG, lambda _: older_names)
    if (folder / GENERATION_CONFIG).is_file():
        rewrite_json(folder / GENERATION_CONFIG, lambda config: config | end_tokens)
    if (folder / TOKENIZER).is_file():
        rewrite_json(
            folder / TOKENIZER_CONFIG, lambda config: add_older_tokenizer_names(config, tokenizer)
        )
        # The templates are in tokenizer_config.json now. In two places, one may be edited, and each
        # tool reads its own.
        (folder / TEMPLATE).unlink(missing_ok=True)
        shutil.rmtree(folder / TEMPLATE_FOLDER, ignore_errors=True)


def rewrite_json(path: Path, convert: Callable[[HfConfig], HfConfig]) -> None:
    """Replace a configuration file with what `convert` makes of it."""
    converted = convert(json.loads(path.read_text(encoding="utf-8")))
    text = json.dumps(converted, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _read_config(folder: Path) -> HfConfig:
    """Return what this transformers reads from config.json; nothing if it can't be read."""
    from transformers import AutoConfig

    try:
        with warnings.catch_warnings():
            # The newest families warn of `rope_scaling`, which is about to be left out for them.
            warnings.simplefilter("ignore", FutureWarning)
            read: HfConfig = AutoConfig.from_pretrained(folder).to_dict()
    except (*UNREADABLE_ERRORS, StrictDataclassError):
        return {}
    return read


def _says_the_same(meant: HfConfig, read: HfConfig) -> bool:
    """Return whether every value in `meant` is in `read`; `read` may have more of them."""
    for name, value in meant.items():
        other = read.get(name)
        if name == "rope_parameters" and isinstance(other, dict):
            # `type` is the older name of rope_type, and stays beside it.
            same = value == {key: part for key, part in other.items() if key != "type"}
        elif isinstance(value, dict) and isinstance(other, dict):
            same = _says_the_same(value, other)
        else:
            same = value == other
        if not same:
            return False
    return True


def add_older_names(
    config: HfConfig, aliases: Mapping[str, str], *, with_rope: bool = True
) -> HfConfig:
    """Return config.json with the older names, in nested configurations too.

    `aliases` is the configuration class's `attribute_map`: other names of the same values, some of
    which were the names in older versions.
    """
    converted: HfConfig = {
        name: add_older_names(value, {}, with_rope=with_rope)
        if _is_nested_config(name, value)
        else value
        for name, value in config.items()
    }
    for alias, name in aliases.items():
        if name in converted:
            converted.setdefault(alias, converted[name])
    if converted.get("dtype"):
        converted["torch_dtype"] = converted["dtype"]
    period = _sliding_window_period(converted.get("layer_types") or [])
    if period is not None:
        converted[SLIDING_WINDOW_PATTERN] = period
    if with_rope and converted.get("rope_parameters"):
        converted |= _older_rope_names(converted)
    return converted


def _is_nested_config(name: str, value: object) -> bool:
    return name.endswith("_config") and isinstance(value, dict) and "model_type" in value


def _sliding_window_period(layer_types: list[str]) -> int | None:
    """Return N if every Nth layer has full attention and all others a window; else None."""
    if {"full_attention", "sliding_attention"} != set(layer_types):
        return None
    period = layer_types.index("full_attention") + 1
    expected = ["sliding_attention"] * (period - 1) + ["full_attention"]
    is_periodic = all(kind == expected[i % period] for i, kind in enumerate(layer_types))
    return period if is_periodic else None


def _older_rope_names(config: HfConfig) -> HfConfig:
    """Return `rope_theta`, `rope_scaling` and the like for config.json's `rope_parameters`."""
    family, rope = str(config.get("model_type")), dict(config["rope_parameters"])
    if any(isinstance(value, dict) for value in rope.values()):
        names = FAMILY_LAYER_THETAS.get(family, LAYER_THETAS)
        older = {n: rope[kind].get("rope_theta") for kind, n in names.items() if rope.get(kind)}
        scaling = {k: v for k, v in (rope.get("full_attention") or {}).items() if k != "rope_theta"}
    else:
        moved = ("rope_theta", "partial_rotary_factor")
        older = {name: rope[name] for name in moved if name in rope}
        scaling = {name: value for name, value in rope.items() if name not in moved}
    own_names = FAMILY_ROPE_NAMES.get(family, {})
    older |= {own: older[name] for name, own in own_names.items() if name in older}
    if family == "phi3" and scaling.get("rope_type") == "longrope":
        # Older code takes these three keys and no other.
        factors = {name: scaling[name] for name in ("short_factor", "long_factor")}
        older |= {name: scaling[name] for name in (ORIGINAL_LENGTH,) if name in scaling}
        scaling = {"type": "longrope"} | factors
    is_default = scaling.get("rope_type") == "default"
    return older | {"rope_scaling": None if is_default else scaling}


def add_older_tokenizer_names(config: HfConfig, tokenizer: PreTrainedTokenizerBase) -> HfConfig:
    """Return tokenizer_config.json in words of every version, with the chat template in it."""
    converted = {name: value for name, value in config.items() if name not in NEWER_TOKENIZER_KEYS}
    extra = config.get("extra_special_tokens")
    if extra:  # in older versions that key has a mapping
        converted["additional_special_tokens"] = list(extra)
    templates: Any = tokenizer.chat_template
    if isinstance(templates, dict):
        templates = [{"name": name, "template": text} for name, text in templates.items()]
    # llama.cpp's converter looks up here what tokenizer.model lacks.
    added = {str(number): token.__getstate__() for number, token in _added_tokens(tokenizer)}
    return converted | {
        "added_tokens_decoder": added,
        "tokenizer_class": FAST_TOKENIZER,
        "chat_template": templates,
        # Defaults differ between versions and classes.
        "clean_up_tokenization_spaces": bool(tokenizer.clean_up_tokenization_spaces),
        "model_input_names": list(tokenizer.model_input_names),
        "padding_side": tokenizer.padding_side,
    }


def _added_tokens(tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, Any]]:
    """Return the tokens outside the vocabulary proper, as AddedToken, by their numbers."""
    return sorted(tokenizer.added_tokens_decoder.items())


def copy_sentencepiece_model(source: str, folder: Path) -> None:
    """Copy the tokenizer.model of a model folder or hub id, if it has one.

    transformers 5 no longer saves it, and llama.cpp converts no Gemma without it.
    """
    from transformers.utils.hub import cached_file

    path = cached_file(
        source,
        SENTENCEPIECE_MODEL,
        local_files_only=True,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if path is not None:
        shutil.copyfile(path, folder / SENTENCEPIECE_MODEL)


def older_reader_differences(
    folder: Path, tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]
) -> list[str]:
    """Return what a reader of the older names alone takes from the folder otherwise: key names.

    config.json is read by this transformers without NEWER_KEYS, since it knows the older names;
    `tokenizer` means that tokenizer.json by itself gives some of `texts` other tokens.
    """
    from tokenizers import Tokenizer

    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as older:
        older_names = {name: value for name, value in config.items() if name not in NEWER_KEYS}
        (Path(older) / CONFIG).write_text(json.dumps(older_names), encoding="utf-8")
        read, meant = _read_config(Path(older)), _read_config(folder)
    if read:
        differing = {name for name in {*read, *meant} if read.get(name) != meant.get(name)}
    else:
        differing = set(NEWER_KEYS) & config.keys()
    if (folder / TOKENIZER).is_file():
        inner = Tokenizer.from_file(str(folder / TOKENIZER))
        if any(inner.encode(text).ids != tokenizer(text)["input_ids"] for text in texts):
            differing.add("tokenizer")
    return sorted(differing - {"_name_or_path", SLIDING_WINDOW_PATTERN})
