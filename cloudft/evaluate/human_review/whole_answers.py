"""Continue answers that an evaluation's token limit cut, so that both sides of a review end alike.

The limit of an evaluation leaves room for the references. A tuned model ends its answers as they
do, and its base is cut in the middle of a sentence: a reviewer would see which is which.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from cloudft.backends.capabilities import ProgressCallback
from cloudft.evaluate.compare import ModelResult
from cloudft.evaluate.held_out import load_held_out_data
from cloudft.evaluate.inference.cached_inference import Variant, open_cached_inference
from cloudft.evaluate.results import Evaluation, ScoredAnswer
from cloudft.inference import GenerationConfig, InferenceSession, Prompt
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord

MAX_NEW_TOKENS = 128
"""Tokens of an answer that is continued, where the evaluation's own limit is lower."""
CUT = "length"
"""Why an answer ended that the token limit cut."""
SENTENCE_END = re.compile(
    r"(?:(?<!\d)\.|[!?\u2026\u061f])[\"'\u2019\u201d)\]]*(?=\s|$)|[\u3002\uff01\uff1f]|\n"
)
"""The end of a sentence (also in Arabic, Chinese and Japanese) or of a line.

The point after a number is none: it may be the next item of a list.
"""


def is_cut(answer: ScoredAnswer) -> bool:
    """Return whether the token limit ended an answer."""
    return answer.get("finishReason") == CUT


def token_limit(*results: ModelResult) -> int | None:
    """Return the tokens of an answer of a review at most: the same for both sides.

    None where answers come from another tool, whose limit is unknown.
    """
    configs = [result.evaluation.get("decoding") for result in results]
    limits = [config["maxNewTokens"] for config in configs if config]
    return max(MAX_NEW_TOKENS, *limits) if len(limits) == len(results) else None


def load_prompts(
    record: JobRecord, home: Home, evaluation: Evaluation, keys: Collection[str]
) -> dict[str, Prompt]:
    """Return the prompts of an evaluation's records with these keys.

    Those that the held-out data no longer has are left out. Raises CloudftError when it can't be
    read.
    """
    data = evaluation["data"]
    given = Path(data["files"][0]) if data["role"] == "given" and data.get("files") else None
    held_out = load_held_out_data(record, home, given)
    return {x.key: x.prompt for x in held_out.examples if x.key in keys}


def generate_whole_answers(
    session: InferenceSession,
    home: Home,
    variant: Variant,
    prompts: Mapping[str, Prompt],
    max_new_tokens: int,
    progress: ProgressCallback,
) -> dict[str, str]:
    """Return one model's answer to each prompt, without an unfinished end. Closes the session."""
    config = GenerationConfig(max_new_tokens)
    with open_cached_inference(session, home, progress, variants=[variant]) as models:
        answers = models.generate_answers("answers", list(prompts.values()), variant, config)
    return {
        key: remove_unfinished_end(answer.text) if answer.finish_reason == CUT else answer.text
        for key, answer in zip(prompts, answers, strict=True)
    }


def remove_unfinished_end(text: str) -> str:
    """Return a cut text up to the end of its last sentence or line, or else of its last word."""
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    if ends and text[: ends[-1]].strip():
        return text[: ends[-1]].rstrip()
    return text.rsplit(None, 1)[0] if len(text.split()) > 1 else text
