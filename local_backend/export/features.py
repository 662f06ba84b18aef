"""Settings of a model and of an adapter that not every runtime reads, found in their JSON files.

The names are those of the table in `runtimes.py`. Nothing is loaded: `check` looks before a day is
spent training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

JsonObject = Mapping[str, Any]
EXPERT_COUNTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
PLAIN_TARGETS = ("embed_tokens", "wte", "embed_in", "word_embeddings")
"""Last parts of the names that embeddings have."""
HEADS = ("lm_head", "embed_out", "output_layer")
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
PENALTIES = ("no_repeat_ngram_size", "encoder_repetition_penalty", "bad_words_ids")


@dataclass(frozen=True)
class ModelFiles:
    """What the files of a model say: config.json, generation_config.json, adapter_config.json.

    `adapter` is None where a model is exported with its adapter merged, or has none.
    """

    config: JsonObject
    generation: JsonObject = field(default_factory=dict)
    adapter: JsonObject | None = None

    @property
    def family(self) -> str:
        """Return the `model_type` of the language model."""
        return str(self.text_config.get("model_type", ""))

    @property
    def text_config(self) -> JsonObject:
        """Return the configuration of the language model, which may be nested."""
        nested = self.config.get("text_config")
        return nested if isinstance(nested, Mapping) else self.config

    @property
    def context(self) -> int | None:
        """Return the context length in tokens, None if no file says it."""
        length = self.text_config.get("max_position_embeddings")
        return length if isinstance(length, int) else None


def find_features(files: ModelFiles) -> dict[str, str]:
    """Return what is not everyday in a model: name of the feature -> what it is, for people."""
    found = dict(_rope_features(files))
    for name, find in (FINDERS | (ADAPTER_FINDERS if files.adapter is not None else {})).items():
        text = find(files)
        if text:
            found[name] = text
    return found


def rope_types(config: JsonObject) -> dict[str, JsonObject]:
    """Return the rope settings by their type; those of kinds of layers together."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    parts = [part for part in rope.values() if isinstance(part, Mapping)] or [rope]
    return {str(part.get("rope_type") or part.get("type") or "default"): part for part in parts}


def _rope_features(files: ModelFiles) -> Iterator[tuple[str, str]]:
    for kind, rope in rope_types(files.text_config).items():
        if kind != "default":
            factor = rope.get("factor")
            yield f"rope-{kind}", f"rope scaling {kind}" + (f" by {factor:g}" if factor else "")


def _find_window(files: ModelFiles) -> str:
    """Return the sliding window, if a context of the model's length goes beyond it."""
    config = files.text_config
    window = config.get("sliding_window")
    kinds = config.get("layer_types")
    is_off = config.get("use_sliding_window") is False
    if not isinstance(window, int) or is_off or (kinds and "sliding_attention" not in kinds):
        return ""
    if files.context is not None and files.context <= window:
        return ""
    return f"a sliding window of {window} tokens"


def _find_mixed_layers(files: ModelFiles) -> str:
    """Return that layers with and without a window alternate otherwise than its family's do."""
    kinds = files.text_config.get("layer_types") or []
    named = set(kinds) & {"sliding_attention", "full_attention"}
    return "layers with and without a sliding window" if len(named) > 1 else ""


def _find_ends(files: ModelFiles) -> str:
    ends = files.generation.get("eos_token_id", files.config.get("eos_token_id"))
    return f"{len(ends)} end tokens" if isinstance(ends, list) and len(ends) > 1 else ""


def _find_greedy(files: ModelFiles) -> str:
    """Return that the model answers greedily unless a request says otherwise."""
    return "" if files.generation.get("do_sample") else "greedy answers (do_sample: false)"


def _find_sampling(files: ModelFiles) -> str:
    """Return how the model samples unless a request says otherwise."""
    named = [f"{name} {files.generation[name]}" for name in SAMPLING if files.generation.get(name)]
    return f"sampling ({', '.join(named)})" if files.generation.get("do_sample") else ""


def _find_penalty(files: ModelFiles) -> str:
    penalty = files.generation.get("repetition_penalty")
    return f"repetition_penalty {penalty:g}" if penalty not in (None, 1, 1.0) else ""


def _find_other_penalties(files: ModelFiles) -> str:
    return ", ".join(name for name in PENALTIES if files.generation.get(name))


def _find_experts(files: ModelFiles) -> str:
    config = files.text_config
    count = next((config[name] for name in EXPERT_COUNTS if config.get(name)), 0)
    return f"{count} experts" if isinstance(count, int) and count > 1 else ""


FINDERS: dict[str, Callable[[ModelFiles], str]] = {
    "sliding-window": _find_window,
    "mixed-windows": _find_mixed_layers,
    "second-end-token": _find_ends,
    "greedy": _find_greedy,
    "sampling": _find_sampling,
    "repetition-penalty": _find_penalty,
    "other-penalties": _find_other_penalties,
    "experts": _find_experts,
}


def _adapter(files: ModelFiles) -> JsonObject:
    assert files.adapter is not None
    return files.adapter


def _saved_modules(files: ModelFiles) -> list[str]:
    return [str(name) for name in _adapter(files).get("modules_to_save") or ()]


def _targets(files: ModelFiles) -> list[str]:
    targets = _adapter(files).get("target_modules") or ()
    names = [targets] if isinstance(targets, str) else targets
    return [str(name).rpartition(".")[2] for name in names]


def _find_saved_norms(files: ModelFiles) -> str:
    others = [name for name in _saved_modules(files) if name not in (*PLAIN_TARGETS, *HEADS)]
    return f"trained {', '.join(others)} (modules_to_save)" if others else ""


def _find_saved_embedding(files: ModelFiles) -> str:
    adapter = _adapter(files)
    named = [name for name in (*_saved_modules(files), *_targets(files)) if name in PLAIN_TARGETS]
    if adapter.get("trainable_token_indices"):
        named.append("trainable_token_indices")
    return f"a trained embedding ({', '.join(named)})" if named else ""


def _find_adapted_head(files: ModelFiles) -> str:
    named = [name for name in (*_targets(files), *_saved_modules(files)) if name in HEADS]
    return f"an adapter on the output layer ({named[0]})" if named else ""


def _find_tied_head(files: ModelFiles) -> str:
    is_tied = files.text_config.get("tie_word_embeddings")
    return "an output layer that is tied to the embedding, and adapted alone" * bool(
        is_tied and _find_adapted_head(files)
    )


def _find_bias(files: ModelFiles) -> str:
    bias = _adapter(files).get("bias", "none")
    return f"trained biases (bias: {bias})" if bias not in ("none", None) else ""


def _find_adapted_experts(files: ModelFiles) -> str:
    named = _adapter(files).get("target_parameters") or ()
    return f"adapters on experts ({', '.join(map(str, named))})" if named else ""


def _find_rank_pattern(files: ModelFiles) -> str:
    adapter = _adapter(files)
    named = [name for name in ("rank_pattern", "alpha_pattern") if adapter.get(name)]
    return " and ".join(named)


def _find_large_rank(files: ModelFiles) -> str:
    rank = _adapter(files).get("r", 0)
    return f"rank {rank}" if isinstance(rank, int) and rank > 512 else ""


def _flag(name: str, text: str) -> Callable[[ModelFiles], str]:
    return lambda files: text if _adapter(files).get(name) else ""


ADAPTER_FINDERS: dict[str, Callable[[ModelFiles], str]] = {
    "adapter-norms": _find_saved_norms,
    "adapter-embedding": _find_saved_embedding,
    "adapter-head": _find_adapted_head,
    "adapter-tied-head": _find_tied_head,
    "adapter-bias": _find_bias,
    "adapter-experts": _find_adapted_experts,
    "dora": _flag("use_dora", "DoRA's magnitudes (use_dora)"),
    "lora-bias": _flag("lora_bias", "biases of the adapter (lora_bias)"),
    "rslora": _flag("use_rslora", "rank-stabilized scaling (use_rslora)"),
    "rank-pattern": _find_rank_pattern,
    "rank-above-512": _find_large_rank,
}
