"""Compare an exported model with the tuned one, on the job's held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import torch

from local_backend.errors import TrainerError
from local_backend.inference.completion import generate_batch
from local_backend.models.load_model import LoadedModel

PROOF_NEW_TOKENS = 32
TOLERANCE = {"float32": 1e-3, "bfloat16": 1.0, "float16": 0.1}
"""Largest allowed difference of a logit. Merging changes the order of float additions and, in the
shorter formats, rounds each weight; logits are of the order of 10.
"""


class Comparison(TypedDict):
    """How far the merged model is from the tuned one, on some records."""

    dtype: str
    records: int
    maxLogitDifference: float
    tolerance: float
    equalGreedyAnswers: int


class Proof(Comparison):
    """A comparison that passed, and the data role of its records.

    `differsInOlderReaders` names the keys of config.json (or `tokenizer`) that transformers 4, and
    tools that read its names, would take otherwise.
    """

    heldOut: str
    format: str
    differsInOlderReaders: list[str]


ModelOutputs = list[tuple[torch.Tensor, list[int]]]
"""For each prompt the logits at every position, and the tokens of the greedy answer."""


def run_prompts(loaded: LoadedModel, prompts: Sequence[list[int]]) -> ModelOutputs:
    """Return for each prompt the logits at every position, and the greedy answer."""
    loaded.model.eval()
    loaded.model.config.use_cache = True
    outputs = []
    for ids in prompts:
        with torch.inference_mode():
            logits = loaded.model(input_ids=torch.tensor([ids])).logits[0].float()
        [answer] = generate_batch(loaded, [ids], {"maxNewTokens": PROOF_NEW_TOKENS})
        outputs.append((logits, answer))
    return outputs


def compare_outputs(expected: ModelOutputs, exported: ModelOutputs, dtype: str) -> Comparison:
    """Return the proof as numbers. Raise TrainerError if merged and adapter model differ."""
    differences = [
        float((a - b).abs().max()) for (a, _), (b, _) in zip(expected, exported, strict=True)
    ]
    equal = sum(a == b for (_, a), (_, b) in zip(expected, exported, strict=True))
    worst, allowed = max(differences), TOLERANCE[dtype]
    finer = "float16" if dtype == "bfloat16" else "float32"
    if not worst <= allowed or equal < len(expected):
        raise TrainerError(
            f"The merged model is not the tuned one: logits differ by up to {worst:.2g} (allowed"
            f" {allowed:g}), greedy answers agree on {equal} of {len(expected)} records.",
            fix=f"keep more digits: `cloudft export` or `cloudft import` with --dtype {finer}."
            if dtype != "float32"
            else "please report this with the model's name; the adapter itself is unchanged.",
        )
    return {
        "dtype": dtype,
        "records": len(expected),
        "maxLogitDifference": worst,
        "tolerance": allowed,
        "equalGreedyAnswers": equal,
    }
