"""Write the model card of a tuned model: README.md with metadata that the Hub reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloudft.errors import UsageError
from cloudft.publishing.facts import EvaluationFacts, ModelFacts, Score, describe_limits

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

ADAPTER, MERGED, GGUF, MLX = "adapter", "merged", "gguf", "mlx"
FORMATS = (MERGED, ADAPTER, GGUF)
"""What is made for the Hub. Of mlx-lm's folders, a quantized one is a format of its own there."""
RELATION = {ADAPTER: "adapter", MERGED: "finetune", GGUF: "finetune", MLX: "finetune"}
"""Format -> `base_model_relation` (Hub documentation, "Model Cards"). A GGUF file of a tuned model
is no mere quantization of its base."""
LIBRARY = {ADAPTER: "peft", MERGED: "transformers", GGUF: "gguf", MLX: "mlx"}
HUB_METRICS = {
    "accuracy": "accuracy",
    "macroF1": "f1",
    "microF1": "f1",
    "exactMatch": "exact_match",
    "rouge1": "rouge",
    "rouge2": "rouge",
    "rougeL": "rouge",
    "bleu": "bleu",
    "chrf": "chrf",
    "perplexity": "perplexity",
}
"""Metric -> its id on the Hub, where it has one."""
TAGS = {
    "PREFERENCE_OPTIMIZATION": "dpo",
    "REINFORCEMENT_FINE_TUNING": "grpo",
    "DISTILLATION": "distillation",
    "FINE_TUNING": "sft",
}
UNKNOWN_LICENSE = "unknown"


@dataclass(frozen=True)
class CardOptions:
    """What a card says besides the facts: where the model is, and in which format."""

    hub_id: str
    format: str = MERGED
    files: Sequence[str] = ()
    proof: Mapping[str, Any] = field(default_factory=dict)


def render_model_card(facts: ModelFacts, options: CardOptions) -> str:
    """Return the model card. The same facts give the same bytes.

    Raise UsageError when huggingface_hub is not installed.
    """
    sections = (
        _introduction(facts, options),
        _usage(facts, options),
        _scores(facts.evaluation),
        _limits(facts),
        _training(facts),
        _data(facts),
        _license(facts),
        _verification(options.proof),
        _versions(facts),
    )
    body = "\n\n".join("\n".join(lines) for lines in sections if lines)
    return f"---\n{_metadata(facts, options)}\n---\n\n{body}\n"


def _metadata(facts: ModelFacts, options: CardOptions) -> str:
    """Return the metadata as YAML, by huggingface_hub's own class."""
    try:
        from huggingface_hub import ModelCardData
    except ImportError as error:
        raise UsageError(
            "a model card needs huggingface_hub, which is not installed",
            fix="pip install 'cloudft[hub]'",
        ) from error

    more: dict[str, Any] = {}
    if facts.base.hub_id is not None:
        more["base_model"] = facts.base.hub_id
        more["base_model_relation"] = RELATION[options.format]
    license = facts.base.license
    if license is not None and not _is_hub_license(license.name):
        more |= {"license_name": license.name}
        more |= {"license_link": license.link} if license.link else {}
    results = list(_results(facts))
    card = ModelCardData(
        license=_hub_license(facts),
        library_name=LIBRARY[options.format],
        pipeline_tag="text-generation",
        tags=["cloudft", *filter(None, [TAGS.get(facts.customization_type), _lora_tag(facts)])],
        model_name=options.hub_id.partition("/")[2] or options.hub_id,
        eval_results=results or None,
        **more,
    )
    return str(card.to_yaml()).strip()


def _hub_license(facts: ModelFacts) -> str:
    """Return the license as the Hub writes it: in lower case, `other` for one it may not know."""
    if facts.base.license is None:
        return UNKNOWN_LICENSE
    name = facts.base.license.name
    return name.lower() if _is_hub_license(name) else "other"


def _is_hub_license(name: str) -> bool:
    """Return whether a name has the form of the Hub's license ids, such as apache-2.0."""
    return name.replace("-", "").replace(".", "").isalnum() and " " not in name


def _lora_tag(facts: ModelFacts) -> str | None:
    return "lora" if facts.method.lower().endswith("lora") else None


def _results(facts: ModelFacts) -> Iterator[EvalResult]:
    """Yield the tuned model's scores as the Hub's evaluation results."""
    from huggingface_hub import EvalResult

    found = facts.evaluation
    for score in found.scores if found else ():
        if found is None or score.tuned is None or score.name not in HUB_METRICS:
            continue
        yield EvalResult(
            task_type="text-generation",
            dataset_type=f"held-out-{found.data_sha256[:12]}",
            dataset_name=f"{found.records} held-out records (sha256 {found.data_sha256[:12]})",
            metric_type=HUB_METRICS[score.name],
            metric_name=score.label,
            metric_value=round(score.tuned, 4),
        )


def _introduction(facts: ModelFacts, options: CardOptions) -> list[str]:
    what = {
        ADAPTER: "a LoRA adapter for",
        MERGED: "tuned from",
        GGUF: "tuned from, as GGUF for llama.cpp and Ollama,",
        MLX: "tuned from, quantized for mlx-lm,",
    }[options.format]
    base = facts.base.hub_id or _plain(facts.base.title)
    lines = [
        f"# {_plain(options.hub_id.rpartition('/')[2])}",
        "",
        f"This model is {what} {base} by [cloudft](https://pypi.org/project/cloudft/)"
        f" ({facts.customization_type}, {facts.method or 'method unknown'}).",
    ]
    if facts.evaluation is not None:
        lines += ["", facts.evaluation.sentence]
    return lines


def _usage(facts: ModelFacts, options: CardOptions) -> list[str]:
    hub_id, base = options.hub_id, facts.base.hub_id or "BASE_MODEL"
    if options.format == GGUF:
        code = [
            "```sh",
            f"llama-server -hf {hub_id}",
            f"ollama run hf.co/{hub_id}",
            "```",
        ]
    elif options.format == MLX:
        code = ["```sh", f'mlx_lm.generate --model {hub_id} --prompt "..."', "```"]
    elif options.format == ADAPTER:
        code = [
            "```python",
            "from peft import PeftModel",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f'tokenizer = AutoTokenizer.from_pretrained("{hub_id}")',
            f'base = AutoModelForCausalLM.from_pretrained("{base}")',
            f'model = PeftModel.from_pretrained(base, "{hub_id}")',
            *_PROMPT,
            "```",
            "",
            "```sh",
            f"vllm serve {base} --enable-lora --lora-modules tuned={hub_id}",
            "```",
        ]
    else:
        code = [
            "```python",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            f'tokenizer = AutoTokenizer.from_pretrained("{hub_id}")',
            f'model = AutoModelForCausalLM.from_pretrained("{hub_id}")',
            *_PROMPT,
            "```",
            "",
            "```sh",
            f"vllm serve {hub_id}",
            "```",
        ]
    template = facts.chat_template
    used = ["", f"Chats are rendered by its chat template: {_plain(template)}."] if template else []
    return ["## How to run it", "", *code, *used]


_PROMPT = (
    'chat = [{"role": "user", "content": "..."}]',
    "prompt = tokenizer.apply_chat_template(",
    '    chat, add_generation_prompt=True, return_tensors="pt", return_dict=True',
    ")",
    "answer = model.generate(**prompt, max_new_tokens=128, do_sample=False)",
    'print(tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))',
)


def _scores(found: EvaluationFacts | None) -> list[str]:
    if found is None:
        return ["## Scores", "", "This model was not evaluated by cloudft."]
    engine = f" The tuned model was answered for by {_plain(found.engine)}." if found.engine else ""
    rows = [
        (
            score.label + (" (lower is better)" if score.lower_is_better else ""),
            _number(score.base) + _limits_text(score.base_interval),
            _number(score.tuned) + _limits_text(score.tuned_interval),
            _signed(score.difference),
            _interval_text(score),
        )
        for score in found.scores
    ]
    head = ("metric", "base", "tuned", "difference", "95 % interval of the difference")
    return [
        "## Scores",
        "",
        f"Base and tuned model on the same {found.records} held-out records"
        f" ({found.task}, {found.data_role} data, sha256 `{found.data_sha256}`), with greedy"
        f" decoding, on {found.evaluated_at[:10]}.{engine} {found.test}, p = {found.p_value:.2g}.",
        "",
        *_table(head, rows),
    ]


def _limits(facts: ModelFacts) -> list[str]:
    return ["## Limits", "", *(f"- {_plain(limit)}" for limit in describe_limits(facts))]


def _training(facts: ModelFacts) -> list[str]:
    rows = [("method", facts.method or "unknown"), *facts.settings]
    if facts.trained_parameters:
        rows.append(("trained parameters", f"{facts.trained_parameters:,}"))
    return ["## Training", "", *_table(("setting", "value"), rows)]


def _data(facts: ModelFacts) -> list[str]:
    rows = [(one.role, one.name, f"{one.records:,}", f"`{one.sha256}`") for one in facts.data]
    return [
        "## Data",
        "",
        "The data is not published. These are the digests of the files that were read, and"
        f" `{facts.data_sha256}` that of what was trained on.",
        "",
        *_table(("used for", "file", "records", "sha256"), rows),
    ]


def _license(facts: ModelFacts) -> list[str]:
    license = facts.base.license
    text = "The license of the base model is not known to cloudft: find it out before you use this."
    if license is not None:
        text = (
            f"The base model is under {_plain(license.name)} (by {license.source}); what is tuned"
            " from it is bound by that license."
        )
    return ["## License", "", text]


def _verification(proof: Mapping[str, Any]) -> list[str]:
    """Return how the export was compared with the tuned model."""
    if "maxLogitDifference" not in proof:
        return []
    what = f"The published weights ({proof['dtype']}) were loaded again and"
    if proof.get("quantization"):
        form = "GGUF file" if proof.get("format") == GGUF else "quantized weights"
        verb = "was" if proof.get("format") == GGUF else "were"
        what = f"The {form} ({proof['quantization']}) {verb} written from merged weights that were"
    return [
        "## Verification",
        "",
        f"{what} compared with the model that was trained: logits differ by at most"
        f" {proof['maxLogitDifference']:.2g}, and {proof['equalGreedyAnswers']} of"
        f" {proof['records']} greedy answers are equal.",
    ]


def _versions(facts: ModelFacts) -> list[str]:
    names = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    return ["## Made with", "", f"{names}. cloudft job `{facts.job_id}`."]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines]


def _plain(text: str) -> str:
    """Return a text as one line of a table: no bars, no markup that it could begin."""
    line = " ".join(str(text).split())
    return line.replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"


def _limits_text(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"


def _interval_text(score: Score) -> str:
    if score.interval is None:
        return ""
    return f"{score.interval[0]:+.3f} to {score.interval[1]:+.3f}"
