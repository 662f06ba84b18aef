"""Make up evaluation results of models."""

from __future__ import annotations

from cloudft.evaluate.compare import ModelResult


def make_model_result(name: str, answer: str, count: int, prompt: str) -> ModelResult:
    """Return the result of a model that answers `count` records with `answer` and their number.

    `{}` in the prompt is the number.
    """
    records = [
        {
            "key": f"k{n}",
            "prompt": prompt.format(n),
            "reference": f"R{n}",
            "tuned": {"text": f"{answer}{n}"},
        }
        for n in range(count)
    ]
    return ModelResult(name, {"records": records}, "tuned")
