"""Check a merged model's folder against what Bedrock imports, before anything is sent.

Source of every rule: catalogue/custom-model-import.yaml, which names its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path

import orjson

from cloudft.backends.bedrock.model_import.model_files import (
    CONFIG,
    GENERATION,
    TOKENIZER,
    HfConfig,
)
from cloudft.catalogue import ImportRules, load_import_rules
from cloudft.errors import UsageError
from cloudft.storage.safetensors_header import read_safetensors_header
from cloudft.types import Finding, Severity

WEIGHTS, INDEX = "*.safetensors", "*.safetensors.index.json"
IMPORTED_FILES = (
    *(WEIGHTS, INDEX, CONFIG, GENERATION, "tokenizer*"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    *("chat_template.jinja", "chat_template.json"),
)
"""Files that are sent to Bedrock, in the layout of Hugging Face; cloudft's own proof is not."""
OTHER_MODEL_FIX = (
    "choose a base_model of an architecture that Bedrock imports"
    " (docs/how-to/import-into-bedrock.md)."
)


def imported_files(folder: Path) -> list[Path]:
    """Return the files that are sent to Bedrock, sorted by name."""
    return sorted(
        {path for pattern in IMPORTED_FILES for path in folder.glob(pattern) if path.is_file()}
    )


def read_json(path: Path) -> HfConfig:
    """Return the JSON object in a file. Raise UsageError where it has none."""
    try:
        content = orjson.loads(path.read_bytes())
        if isinstance(content, dict):
            return content
        reason = "it is not a JSON object"
    except (OSError, ValueError) as error:
        reason = str(error)
    raise UsageError(f"{path} can't be read: {reason}", file=str(path), fix="export it again.")


def check_model_folder(folder: Path, *, supervised: bool, region: str | None) -> list[Finding]:
    """Return a finding for all that Bedrock would refuse or load differently. Raise UsageError."""
    rules = load_import_rules()
    missing = [name for name in rules.files if not (folder / name).is_file()]
    findings = [_missing_file(folder, name, rules) for name in missing]
    if TOKENIZER not in missing:
        findings += _check_tokenizer(folder, rules, supervised)
    if CONFIG not in missing:
        config = read_json(folder / CONFIG)
        findings += check_architecture(config, str(folder / CONFIG), region)
        findings += _check_older_names(config, folder)
        findings += _check_eos_tokens(folder, config, rules)
        findings += _check_weights(folder, config, rules)
    return findings


def _missing_file(folder: Path, name: str, rules: ImportRules) -> Finding:
    message = f"{folder} has no {name}, and Bedrock imports no model without it ({rules.source})"
    return _finding("ImportFileMissing", message, "export the model with its tokenizer.", folder)


def _finding(
    code: str, message: str, fix: str, file: Path | str, severity: Severity = "error"
) -> Finding:
    return Finding(severity, code, message, fix, str(file))


def architecture_name(config: HfConfig) -> str:
    """Return the architecture in config.json; `none` where it has none."""
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else "none"


def check_architecture(config: HfConfig, file: str, region: str | None) -> Iterator[Finding]:
    """Check config.json: architecture, context length, rope, quantization."""
    rules = load_import_rules()
    name = architecture_name(config)
    architecture = rules.architectures.get(name)
    if architecture is None:
        supported = ", ".join(rules.architectures)
        message = f"Bedrock imports no {name}; it imports {supported} ({rules.source})"
        yield _finding("ImportArchitecture", message, OTHER_MODEL_FIX, file)
    elif architecture.regions and region and region not in architecture.regions:
        regions = ", ".join(architecture.regions)
        message = f"{name} is imported only in {regions}, not in {region}"
        fix = f"set bedrock.region: {architecture.regions[0]}."
        yield _finding("ImportRegion", message, fix, file)
    if config.get("quantization_config"):
        message = "the weights are quantized, and Bedrock imports only full ones"
        yield _finding("ImportQuantised", message, "export the model merged, in float16.", file)
    yield from _check_context_length(config, file, rules)
    yield from _check_rope(config, file, rules)


def _check_context_length(config: HfConfig, file: str, rules: ImportRules) -> Iterator[Finding]:
    longest = config.get("max_position_embeddings")
    if not isinstance(longest, int) or longest < rules.context_below:
        return
    message = f"the model has {longest} positions; Bedrock imports fewer than"
    message += f" {rules.context_below} ({rules.source})"
    fix = "lower max_position_embeddings in the base model's config.json, if your texts allow it."
    severity: Severity = "error" if longest > rules.context_below else "warning"
    yield _finding("ImportContext", message, fix, file, severity)


def _check_rope(config: HfConfig, file: str, rules: ImportRules) -> Iterator[Finding]:
    """Check Llama 3's rope scaling: Bedrock sets its own, whatever the model was trained with."""
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if config.get("model_type") != "llama" or scaling.get("rope_type") != "llama3":
        return
    differing = {k: scaling.get(k) for k, v in rules.llama3_rope.items() if scaling.get(k) != v}
    if differing:
        message = (
            f"the model was trained with {differing}, and Bedrock sets {dict(rules.llama3_rope)}"
        )
        fix = "compare its answers on long texts before you rely on them."
        yield _finding("ImportRope", message, fix, file, "warning")


def _check_older_names(config: HfConfig, folder: Path) -> Iterator[Finding]:
    """Check the names of transformers 4, without which Bedrock takes a default for the rope.

    A model that an earlier version of cloudft merged may lack them.
    """
    rope = config.get("rope_parameters")
    if rope and "rope_theta" not in config:
        message = f"{folder / CONFIG} has rope_parameters alone, which Bedrock's version ignores"
        fix = f"remove the folder {folder} and import again: the model is merged anew."
        yield _finding("ImportNewerNames", message, fix, folder / CONFIG)


def _check_tokenizer(folder: Path, rules: ImportRules, supervised: bool) -> Iterator[Finding]:
    path = folder / TOKENIZER
    config = read_json(path)
    name = config.get("tokenizer_class", "none")
    if name not in rules.tokenizers:
        supported = ", ".join(rules.tokenizers)
        message = f"Bedrock reads no tokenizer of the class {name}; it reads {supported}"
        yield _finding("ImportTokenizer", message, OTHER_MODEL_FIX, path)
    if supervised and not config.get("chat_template") and not _has_template_file(folder, rules):
        message = "the tokenizer has no chat template: the imported model takes no conversation"
        fix = "train again with a base model that has one."
        yield _finding("ImportNoTemplate", message, fix, path, "warning")


def _has_template_file(folder: Path, rules: ImportRules) -> bool:
    """Return whether the chat template is in a file of its own, which Bedrock reads first."""
    names = [name for name in rules.template_files if name != TOKENIZER]
    return any((folder / name).is_file() for name in names)


def _check_eos_tokens(folder: Path, config: HfConfig, rules: ImportRules) -> Iterator[Finding]:
    """Check a GPT-OSS's end tokens: with fewer than in the newest release, generation fails."""
    path = folder / GENERATION
    if "GptOss" not in architecture_name(config) or not path.is_file():
        return
    ends = read_json(path).get("eos_token_id")
    if set(ends if isinstance(ends, list) else [ends]) != set(rules.gpt_oss_ends):
        message = f"the eos_token_id of generation_config.json is {ends}, not {rules.gpt_oss_ends}"
        fix = f'write "eos_token_id": {list(rules.gpt_oss_ends)} in that file.'
        yield _finding("ImportEnds", message, fix, path)


def _check_weights(folder: Path, config: HfConfig, rules: ImportRules) -> Iterator[Finding]:
    paths = sorted(folder.glob(WEIGHTS))
    if not paths:
        fix = "export the model as safetensors."
        yield _finding("ImportFileMissing", f"{folder} has no weights ({WEIGHTS})", fix, folder)
    yield from _check_shards(folder, {path.name for path in paths})
    for path in paths:
        other = sorted(tensor_dtypes(path) - set(rules.dtypes))
        if other:
            message = f"{path.name} has {', '.join(other)}; Bedrock imports {rules.dtypes}"
            yield _finding("ImportDtype", message, "export with --dtype float16.", path)
    size = sum(path.stat().st_size for path in paths)
    architecture = rules.architectures.get(architecture_name(config))
    is_multimodal = architecture is not None and architecture.multimodal
    limit = rules.gigabytes_below["multimodal" if is_multimodal else "text"]
    if size >= limit * 10**9:
        message = f"the weights have {size / 1e9:.0f} GB; Bedrock imports less than {limit} GB"
        yield _finding("ImportTooLarge", message, "export with --dtype bfloat16.", folder)


def _check_shards(folder: Path, present: Set[str]) -> Iterator[Finding]:
    """Yield a finding where the index names files that are not there: a copy that was cut off."""
    for path in sorted(folder.glob(INDEX)):
        weights = read_json(path).get("weight_map")
        named = {str(name) for name in weights.values()} if isinstance(weights, dict) else set()
        missing = sorted(named - present)
        if missing:
            message = f"{path.name} names {len(missing)} files that are missing ({missing[0]})"
            yield _finding("ImportFileMissing", message, "copy or export the model again.", path)


def tensor_dtypes(path: Path) -> set[str]:
    """Return the dtypes of a file's tensors, from its header. Raise UsageError if it is broken."""
    try:
        return {tensor.dtype for tensor in read_safetensors_header(path).values()}
    except (OSError, ValueError) as error:
        message = f"{path} is no complete safetensors file ({type(error).__name__})"
        raise UsageError(message, file=str(path), fix="export the model again.") from error
