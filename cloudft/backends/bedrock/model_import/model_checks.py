"""A merged model's folder against what Bedrock imports, before anything is sent.

Source of every rule: catalogue/custom-model-import.yaml, which names its own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from cloudft.backends.bedrock.model_import.convert_config import CONFIG, GENERATION, TOKENIZER
from cloudft.catalogue import ImportRules, load_import_rules
from cloudft.errors import UsageError
from cloudft.types import Finding, Severity

WEIGHTS = "*.safetensors"
IMPORTED_FILES = (
    *(WEIGHTS, "*.safetensors.index.json", CONFIG, GENERATION, "tokenizer*"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
)
"""What goes to Bedrock: the layout of Hugging Face. Our own proof stays here."""
MAX_HEADER_BYTES = 100_000_000
"""Bytes of a safetensors header at most (its format's own limit)."""
OTHER_MODEL_FIX = (
    "take another base_model, one of an architecture that Bedrock imports (docs/how-to/import-into-bedrock.md)."
)


def imported_files(folder: Path) -> list[Path]:
    """The files that go to Bedrock, by name."""
    return sorted(
        {path for pattern in IMPORTED_FILES for path in folder.glob(pattern) if path.is_file()}
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises UsageError."""
    try:
        found = orjson.loads(path.read_bytes())
        if isinstance(found, dict):
            return found
        reason = "it holds no JSON object"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise UsageError(f"{path} can't be read: {reason}", file=str(path), fix="export it anew.")


def check_model_folder(folder: Path, *, supervised: bool, region: str | None) -> list[Finding]:
    """Everything that Bedrock would refuse, or read otherwise. Raises UsageError."""
    rules = load_import_rules()
    missing = [name for name in rules.files if not (folder / name).is_file()]
    found = [_missing_file(folder, name, rules) for name in missing]
    if TOKENIZER not in missing:
        found += _check_tokenizer(folder, rules, supervised)
    if CONFIG not in missing:
        config = read_json(folder / CONFIG)
        found += check_architecture(config, str(folder / CONFIG), region)
        found += [*_check_eos_tokens(folder, config, rules), *_check_weights(folder, config, rules)]
    return found


def _missing_file(folder: Path, name: str, rules: ImportRules) -> Finding:
    message = f"{folder} has no {name}, and Bedrock imports no model without it ({rules.source})"
    return _finding("ImportFileMissing", message, "export the model with its tokenizer.", folder)


def _finding(
    code: str, message: str, fix: str, file: Path | str, severity: Severity = "error"
) -> Finding:
    return Finding(severity, code, message, fix, str(file))


def architecture_name(config: Mapping[str, Any]) -> str:
    """The architecture that config.json names."""
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else "none"


def check_architecture(
    config: Mapping[str, Any], file: str, region: str | None
) -> Iterator[Finding]:
    """What config.json says: architecture, context, rope, quantisation."""
    rules = load_import_rules()
    name = architecture_name(config)
    known = rules.architectures.get(name)
    if known is None:
        takes = ", ".join(rules.architectures)
        message = f"Bedrock imports no {name}; it takes {takes} ({rules.source})"
        yield _finding("ImportArchitecture", message, OTHER_MODEL_FIX, file)
    elif known.regions and region and region not in known.regions:
        message = f"{name} is imported in {', '.join(known.regions)} alone, not in {region}"
        yield _finding("ImportRegion", message, f"set bedrock.region: {known.regions[0]}.", file)
    if config.get("quantization_config"):
        message = "the weights are quantised, and Bedrock imports whole ones"
        yield _finding("ImportQuantised", message, "export the model merged, in float16.", file)
    yield from _check_context_length(config, file, rules)
    yield from _check_rope(config, file, rules)


def _check_context_length(
    config: Mapping[str, Any], file: str, rules: ImportRules
) -> Iterator[Finding]:
    longest = config.get("max_position_embeddings")
    if not isinstance(longest, int) or longest < rules.context_below:
        return
    message = f"the model was made for {longest} positions; Bedrock wants fewer than"
    message += f" {rules.context_below} ({rules.source})"
    fix = "lower max_position_embeddings in the base model's config.json, if your texts allow it."
    severity: Severity = "error" if longest > rules.context_below else "warning"
    yield _finding("ImportContext", message, fix, file, severity)


def _check_rope(config: Mapping[str, Any], file: str, rules: ImportRules) -> Iterator[Finding]:
    """Bedrock sets Llama 3's own scaling, whatever the model was trained with."""
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if config.get("model_type") != "llama" or scaling.get("rope_type") != "llama3":
        return
    other = {k: scaling.get(k) for k, v in rules.llama3_rope.items() if scaling.get(k) != v}
    if other:
        message = f"the model was trained with {other}, and Bedrock sets {dict(rules.llama3_rope)}"
        fix = "compare its answers on long texts before you rely on them."
        yield _finding("ImportRope", message, fix, file, "warning")


def _check_tokenizer(folder: Path, rules: ImportRules, supervised: bool) -> Iterator[Finding]:
    path = folder / TOKENIZER
    found = read_json(path)
    kind = found.get("tokenizer_class", "none")
    if kind not in rules.tokenizers:
        takes = ", ".join(rules.tokenizers)
        message = f"Bedrock reads no tokenizer of the class {kind}; it reads {takes}"
        yield _finding("ImportTokenizer", message, OTHER_MODEL_FIX, path)
    if supervised and not found.get("chat_template"):
        message = "the tokenizer has no chat template: the imported model takes no conversation"
        fix = "train again with a base model that has one."
        yield _finding("ImportNoTemplate", message, fix, path, "warning")


def _check_eos_tokens(
    folder: Path, config: Mapping[str, Any], rules: ImportRules
) -> Iterator[Finding]:
    """A GPT-OSS with fewer end tokens than its makers' newest file fails when it is asked."""
    path = folder / GENERATION
    if "GptOss" not in architecture_name(config) or not path.is_file():
        return
    ends = read_json(path).get("eos_token_id")
    if set(ends if isinstance(ends, list) else [ends]) != set(rules.gpt_oss_ends):
        message = f"generation_config.json ends answers at {ends}, not at {rules.gpt_oss_ends}"
        fix = f'write "eos_token_id": {list(rules.gpt_oss_ends)} there.'
        yield _finding("ImportEnds", message, fix, path)


def _check_weights(
    folder: Path, config: Mapping[str, Any], rules: ImportRules
) -> Iterator[Finding]:
    paths = sorted(folder.glob(WEIGHTS))
    if not paths:
        fix = "export the model as safetensors."
        yield _finding("ImportFileMissing", f"{folder} has no weights ({WEIGHTS})", fix, folder)
    for path in paths:
        other = sorted(tensor_dtypes(path) - set(rules.dtypes))
        if other:
            message = f"{path.name} holds {', '.join(other)}; Bedrock imports {rules.dtypes}"
            yield _finding("ImportDtype", message, "export with --dtype float16.", path)
    size = sum(path.stat().st_size for path in paths)
    known = rules.architectures.get(architecture_name(config))
    limit = rules.gigabytes_below["multimodal" if known and known.multimodal else "text"]
    if size >= limit * 10**9:
        message = f"the weights have {size / 1e9:.0f} GB; Bedrock takes less than {limit} GB"
        yield _finding("ImportTooLarge", message, "export with --dtype bfloat16.", folder)


def tensor_dtypes(path: Path) -> set[str]:
    """The formats of a file's tensors, from its header. Raises UsageError for a broken one."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > MAX_HEADER_BYTES:
                raise ValueError("its header is too long")
            header = orjson.loads(stream.read(length))
        return {row["dtype"] for name, row in header.items() if name != "__metadata__"}
    except (OSError, ValueError, struct.error, AttributeError, KeyError, TypeError) as error:
        message = f"{path} is no whole safetensors file ({type(error).__name__})"
        raise UsageError(message, file=str(path), fix="export the model anew.") from error
