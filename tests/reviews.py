"""Sides of a review, made up."""

from __future__ import annotations

from cloudft.evaluate.compare import Side


def side(name: str, answer: str, count: int, prompt: str) -> Side:
    """A model that answers `count` records with `answer` and a number; `{}` in the prompt is it."""
    records = [
        {
            "key": f"k{n}",
            "prompt": prompt.format(n),
            "reference": f"R{n}",
            "tuned": {"text": f"{answer}{n}"},
        }
        for n in range(count)
    ]
    return Side(name, {"records": records}, "tuned")
