"""What each runtime does with settings that are not everyday: a table, measured.

`python tools/measure_runtimes.py` measures it: tiny models with one such setting, written as an
export writes them, scored by the runtime and by transformers. What llama.cpp and Ollama read is in
`gguf/families.py`, since it follows from how the GGUF file is written. Which families a runtime
knows is in `runtime_results.json` (`make test-runtimes`). A family that is in neither may be right
or wrong: nobody looked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MEASURED_ON = "2026-12-01"
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of vLLM's --max-lora-rank (vllm/config/lora.py)."""


@dataclass(frozen=True)
class Reading:
    """How a runtime takes a feature (`features.py`) that it does not simply read.

    `effect` is `drops` (silently another model), `changes` (the same, by a rule of its own),
    `refuses` (the runtime says so itself), or `default` (the weights are right; requests that don't
    say how to sample are answered otherwise).
    """

    feature: str
    effect: str
    families: frozenset[str] = frozenset()
    """Families to which it applies; all if empty."""
    formats: frozenset[str] = frozenset()
    """Formats to which it applies; all if empty."""


@dataclass(frozen=True)
class Runtime:
    """A runtime, the version that was measured, and what it does not read.

    `measured` has the families whose models of everyday settings gave transformers' answers, where
    `runtime_results.json` does not say so: their models there have other settings.
    """

    title: str
    version: str
    readings: tuple[Reading, ...] = ()
    commands: Mapping[str, str] = field(default_factory=dict)
    """Format -> the command that runs the folder DIR, or makes the runtime's own files of it."""
    measured: frozenset[str] = frozenset()
    computed_otherwise: frozenset[str] = frozenset()
    """Families that the runtime takes and silently computes as another model."""
    engine: str | None = None
    """The runtime's name in `runtime_results.json`."""
    source: str = f"tools/measure_runtimes.py, {MEASURED_ON}"


ADAPTER = frozenset({"adapter"})
SCALED = ("rope-linear", "rope-llama3", "rope-yarn")
MLX_WINDOWLESS = frozenset({"gemma2", "mistral", "phi3", "qwen2", "qwen3", "starcoder2"})
"""Families whose windows mlx-lm does not know."""
MLX_PLAIN_ROPES = frozenset({"cohere2", "gemma2", "starcoder2"})
"""Families whose scaled ropes mlx-lm does not know."""
ONNX_LLAMAS = frozenset({"llama"})
"""Families whose rope onnxruntime-genai's builder reads itself."""
ONNX_OTHERS = frozenset({"granite", "mistral", "phi3", "qwen2", "qwen3"})


def _drops(features: Iterable[str], families: frozenset[str] = frozenset()) -> tuple[Reading, ...]:
    return tuple(Reading(feature, "drops", families) for feature in features)


RUNTIMES: dict[str, Runtime] = {
    "transformers": Runtime("transformers", "5.24.0"),
    "vllm": Runtime(
        "vLLM",
        "0.32.0",
        (
            # One token longer: sliding_window + 1 (its commandr.py).
            Reading("sliding-window", "changes", frozenset({"cohere2"})),
            # By the long factors as soon as its own context is longer than the original length.
            Reading("rope-longrope", "changes"),
            Reading("greedy", "default", formats=ADAPTER),
            Reading("other-penalties", "default"),
            Reading("adapter-norms", "refuses", formats=ADAPTER),
            Reading("adapter-embedding", "refuses", formats=ADAPTER),
            Reading("adapter-bias", "refuses", formats=ADAPTER),
            Reading("dora", "refuses", formats=ADAPTER),
            Reading("lora-bias", "refuses", formats=ADAPTER),
            Reading("rank-above-512", "refuses", formats=ADAPTER),
        ),
        {
            "merged": "vllm serve DIR --dtype {dtype}",
            "adapter": "vllm serve {base} --dtype {dtype} --tokenizer DIR --enable-lora"
            " --max-lora-rank {rank} --lora-modules tuned=DIR",
        },
        engine="vllm",
    ),
    "llama.cpp": Runtime(
        "llama.cpp",
        "xllamacpp 2026.10.11549",
        commands={"gguf": "llama-server -m DIR/model.gguf"},
        source="gguf/families.py",
        engine="llama_cpp",
    ),
    "ollama": Runtime(
        "Ollama",
        "xllamacpp 2026.10.11549",
        commands={"gguf": "ollama create tuned -f DIR/Modelfile"},
        source="gguf/families.py",
        engine="llama_cpp",
    ),
    "mlx": Runtime(
        "mlx-lm",
        "0.32.2",
        (
            *_drops(("sliding-window",), MLX_WINDOWLESS),
            *_drops(SCALED, MLX_PLAIN_ROPES),
            *_drops(("rope-longrope",)),
            Reading("sampling", "default"),
            Reading("repetition-penalty", "default"),
            Reading("other-penalties", "default"),
        ),
        {"mlx": "mlx_lm.server --model DIR"},
        measured=frozenset({"gemma2"}),  # with a window that no context goes beyond
        engine="mlx_lm",
    ),
    "onnxruntime": Runtime(
        "onnxruntime-genai",
        "0.18.0",
        (
            *_drops(("rope-linear", "rope-yarn"), ONNX_LLAMAS),
            *_drops(("rope-longrope",)),
            Reading("rope-llama3", "refuses", ONNX_OTHERS),
            Reading("rope-yarn", "refuses", ONNX_OTHERS),
            Reading("sliding-window", "refuses", frozenset({"mistral", "phi3"})),
        ),
        {
            "merged": "python -m onnxruntime_genai.models.builder -m DIR -i DIR -o DIR-onnx"
            " -p fp32 -e cpu -c DIR-cache"
        },
        computed_otherwise=frozenset({"olmo"}),
        engine="onnxruntime_genai",
    ),
    "openvino": Runtime(
        "OpenVINO",
        "2026.4.1",
        _drops(("rope-longrope",)),
        commands={
            "merged": "optimum-cli export openvino --model DIR"
            " --task text-generation-with-past DIR-openvino"
        },
        measured=frozenset({"qwen2"}),  # with Qwen2's own tokenizer
        engine="openvino",
    ),
}
