r"""Measure which settings of a model other runtimes read, drop or refuse.

    python tools/measure_runtimes.py mlx_lm VENV/bin/python [CASE ...]

VENV has the runtime. Each case is a tiny random model in float32 with one setting that is not
everyday (a rope scaling, a sliding window). It is written as `cloudft export` writes it, scored by
the runtime on one row, and compared with transformers: `reads` if the log-probabilities are equal,
`drops` if they are those of the model without the setting, `differs` if neither, and what the
runtime says if it refuses the model. The results are in local_backend/export/runtimes.py.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import tiny
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from local_backend.models.portable_config import write_portable_config

PROGRAM = Path(__file__).parents[1] / "local_backend" / "export" / "engines" / "run.py"
FAMILIES = (
    *("llama", "qwen2", "qwen3", "mistral", "smollm3", "granite", "phi3", "olmo2", "gemma3_text"),
    *("gemma2", "ministral", "starcoder2", "cohere2", "olmo3", "gpt_oss", "exaone4"),
)
WINDOWED = (
    *("mistral", "qwen2", "qwen3", "phi3", "gemma2", "gemma3_text", "ministral", "starcoder2"),
    *("cohere2", "olmo3", "gpt_oss", "exaone4", "smollm3"),
)
LENGTH = 48
SIZES: dict[str, Any] = {
    "hidden_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "query_pre_attn_scalar": 32,
    "layer_types": None,
}
THETA = 5000.0
ROPES: dict[str, dict[str, Any]] = {
    "theta": {},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    "yarn-betas": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 4096,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
    },
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
}
LAYERS = {"gemma3_text": 6, "cohere2": 4, "olmo3": 4, "exaone4": 4}
"""Families whose pattern of layers with and without a window some runtimes take for granted."""
SAME = 5e-3


def build(family: str, setting: str) -> Any:
    """Return a tiny random model of a family with a setting; the weights depend on neither."""
    known = AutoConfig.for_model(family).to_dict()
    sizes = {name: value for name, value in SIZES.items() if name in known}
    sizes |= {"num_hidden_layers": LAYERS[family]} if family in LAYERS else {}
    config = AutoConfig.for_model(family, **sizes, vocab_size=len(tiny.build_tokenizer()))
    windowed = setting.startswith("window")
    if hasattr(config, "original_max_position_embeddings"):  # Phi-3: else its rope is another
        config.original_max_position_embeddings = SIZES["max_position_embeddings"]
    if setting in ROPES:
        set_rope(config, {"rope_type": "default", "rope_theta": THETA} | ROPES[setting])
    if "sliding_window" in known:
        config.sliding_window = 8 if windowed else 128
    layers = config.num_hidden_layers
    if setting == "window" and getattr(config, "layer_types", None) and family not in LAYERS:
        config.layer_types = ["sliding_attention"] * layers
    if setting == "window-mixed" and getattr(config, "layer_types", None):
        config.layer_types = ["sliding_attention", "full_attention"] * (layers // 2)
    if windowed and hasattr(config, "use_sliding_window"):
        config.use_sliding_window = True
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(config, name, 0)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def set_rope(config: Any, rope: dict[str, Any]) -> None:
    """Set rope settings, of each kind of layer where kinds have their own."""
    nested = any(isinstance(value, dict) for value in (config.rope_parameters or {}).values())
    if nested:
        # Published models scale the rope of their layers without a window alone.
        plain = {"rope_type": "default", "rope_theta": rope["rope_theta"]}
        config.rope_parameters = {
            kind: copy.deepcopy(plain if kind == "sliding_attention" else rope)
            for kind in config.rope_parameters
        }
    else:
        config.rope_parameters = dict(config.rope_parameters or {}) | rope


def score(model: Any, ids: list[int]) -> torch.Tensor:
    """Return the log-probability of each token after the first by transformers."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].float()
    return logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def score_in_runtime(python: str, runtime: str, folder: Path, ids: list[int]) -> list[float] | str:
    """Return the runtime's log-probabilities, or its error."""
    request = json.dumps({"do": "score", "ids": ids, "start": 1})
    command = [python, str(PROGRAM), runtime, str(folder)]
    done = subprocess.run(command, input=request, capture_output=True, text=True, check=False)
    replies = [json.loads(line) for line in done.stdout.splitlines()]
    last = replies[-1] if replies else {"error": f"exit status {done.returncode}"}
    return str(last["error"]) if "error" in last else last["logProbabilities"]


def measure(python: str, runtime: str, family: str, setting: str) -> str:
    """Return how a runtime takes one setting of one family."""
    is_scaled = setting in ROPES and setting != "theta"
    model, plain = build(family, setting), build(family, "theta" if is_scaled else "plain")
    plain.load_state_dict(model.state_dict())
    ids = [5 + (7 * n * n + 3 * n) % 60 for n in range(LENGTH)]
    tokenizer = tiny.build_tokenizer()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_portable_config(folder, tokenizer, [0])
        got = score_in_runtime(python, runtime, folder, ids)
    if isinstance(got, str):
        return f"refuses: {got[:400]}"
    scores = torch.tensor(got)
    ours = float((scores - score(model, ids)).abs().max())
    without = float((scores - score(plain, ids)).abs().max())
    if ours < SAME:
        return f"reads ({ours:.1g}; without it {without:.2g})"
    return f"{'drops' if without < SAME else 'differs'} ({ours:.2g}; without it {without:.2g})"


def main() -> int:
    """Print one line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runtime")
    parser.add_argument("python")
    parser.add_argument("cases", nargs="*", help="FAMILY or SETTING; all if none")
    args = parser.parse_args()
    cases = [(family, setting) for family in FAMILIES for setting in ("plain", *ROPES)]
    cases += [(family, kind) for family in WINDOWED for kind in ("window", "window-mixed")]
    for family, setting in cases:
        if args.cases and not {family, setting} & set(args.cases):
            continue
        try:
            found = measure(args.python, args.runtime, family, setting)
        except Exception as error:
            found = f"can't be built: {error!r:.120}"
        print(f"{args.runtime} {family} {setting}: {found}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
