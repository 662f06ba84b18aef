"""`python -m local_backend.inference.generate JOB_DIR`: a child that loads a job's models once and answers.

Requests come as JSON lines on standard input:

    {"identities": true}
    {"count": [prompt, ...]}
    {"score": [{"prompt": prompt, "text": "..."}], "variants": [...]}
    {"texts": ["..."], "window": null, "variants": [...]}
    {"prompts": [{"messages": [{"role", "content"}, ...]} | {"text": "..."}],
     "variants": ["tuned", "base"], "maxNewTokens": 256, "temperature": 0.0, "topP": 1.0, "seed": 7}

Answers go as JSON lines to standard output: one `{"index", "variant", "text", "tokens",
"finishReason"}` a prompt and variant, then `{"done": true}`; or `{"error", "fix"}`. Of a count they
are `{"tokens"}` a prompt, of scores and texts `{"index", "variant", "logLikelihood", "tokens",
"greedy"}`, of identities `{"variant", "identity"}`.
`temperature` 0 decodes greedily. The prompt is rendered and tokenised just as it was for training.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from local_backend.data.chat_template import split_prompt
from local_backend.errors import TrainerError
from local_backend.inference.log_likelihood import (
    ScoredRow,
    TextScore,
    build_continuation_rows,
    build_window_rows,
    resolve_window,
    score_rows,
    tokenize_texts,
)
from local_backend.inference.model_variants import TUNED, ModelVariants
from local_backend.inference.prefix_cache import PrefixCache, shared_prefix_length
from local_backend.job_dir import JobDir
from local_backend.models.load_model import LoadedModel
from local_backend.process_exit import exit_now
from local_backend.progress import silence_libraries
from local_backend.settings import read_settings

GENERATE_BATCH = 32
"""Prompts answered in one batch."""


def encode_prompt(loaded: LoadedModel, prompt: dict[str, Any]) -> list[int]:
    """The tokens of one prompt: a conversation to answer, or raw text to go on with."""
    if "text" in prompt:
        pieces = [prompt["text"]]
    else:
        pieces = split_prompt(loaded.tokenizer, prompt["messages"], loaded.stop_texts)
    tokenised = loaded.tokenizer(pieces, add_special_tokens=False)["input_ids"]
    ids: list[int] = [token for piece in tokenised for token in piece]
    if not ids:
        raise TrainerError("The prompt is empty.", fix="give it some text.")
    room = loaded.context_length
    if len(ids) >= room:
        raise TrainerError(
            f"The prompt has {len(ids)} tokens; the model was made for {room}.",
            fix="shorten the prompt.",
        )
    return ids


def generate_batch(
    loaded: LoadedModel,
    prompts: Sequence[list[int]],
    request: dict[str, Any],
    prefix: PrefixCache | None = None,
) -> list[dict[str, Any]]:
    """Continue each prompt; all of them in one batch.

    Behind the tokens of `prefix`, which all of them begin with, rows are padded on the left.
    """
    longest, common = max(map(len, prompts)), prefix.length if prefix else 0
    pad = loaded.tokenizer.pad_token_id or 0
    rows = [[*ids[:common], *[pad] * (longest - len(ids)), *ids[common:]] for ids in prompts]
    mask = [
        [*[1] * common, *[0] * (longest - len(ids)), *[1] * (len(ids) - common)] for ids in prompts
    ]
    device = loaded.model.device
    with torch.inference_mode():
        output = loaded.model.generate(
            input_ids=torch.tensor(rows, device=device),
            attention_mask=torch.tensor(mask, device=device),
            generation_config=make_generation_config(loaded, request, longest),
            past_key_values=prefix.repeat(len(prompts)) if prefix else None,
        )
    return [decode_completion(loaded, row[longest:].tolist()) for row in output]


def make_generation_config(loaded: LoadedModel, request: dict[str, Any], prompt_length: int) -> Any:
    """How to decode: greedy at temperature 0, else by sampling."""
    from transformers import GenerationConfig

    room = loaded.context_length - prompt_length
    options: dict[str, Any] = {"do_sample": False}
    if request.get("temperature"):
        options = {
            "do_sample": True,
            "temperature": request["temperature"],
            "top_p": request.get("topP", 1.0),
            "top_k": 0,
        }
    return GenerationConfig(
        max_new_tokens=max(1, min(request.get("maxNewTokens", 256), room)),
        eos_token_id=loaded.stop_ids,
        pad_token_id=loaded.tokenizer.pad_token_id or 0,
        **options,
    )


def decode_completion(loaded: LoadedModel, ids: list[int]) -> dict[str, Any]:
    """The answer up to its end token."""
    ends = [i for i, token in enumerate(ids) if token in loaded.stop_ids]
    kept = ids[: ends[0]] if ends else ids
    return {
        "text": loaded.tokenizer.decode(kept, skip_special_tokens=True),
        "tokens": len(kept),
        "finishReason": "stop" if ends else "length",
    }


def answer_prompts(models: ModelVariants, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every answer that `request` asks for, prompts of like length together."""
    torch.manual_seed(request.get("seed", 0))
    for name in request.get("variants", [TUNED]):
        with models.variant(name) as loaded:
            prompts = [encode_prompt(loaded, p) for p in request["prompts"]]
            order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
            common = shared_prefix_length(prompts)
            prefix = PrefixCache(loaded, prompts[0][:common]) if common else None
            for at in range(0, len(order), GENERATE_BATCH):
                part = order[at : at + GENERATE_BATCH]
                replies = generate_batch(loaded, [prompts[i] for i in part], request, prefix)
                for index, reply in zip(part, replies, strict=True):
                    yield {"index": index, "variant": name, **reply}


def count_tokens(models: ModelVariants, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """How many tokens each prompt is."""
    for prompt in request["count"]:
        yield {"tokens": len(encode_prompt(models.tuned, prompt))}


def report_identities(models: ModelVariants, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What each variant is."""
    for name, identity in models.compute_identities().items():
        yield {"variant": name, "identity": identity}


def score_continuations(models: ModelVariants, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """How likely each variant holds each text behind its prompt."""
    for name in request["variants"]:
        with models.variant(name) as loaded:
            texts = tokenize_texts(loaded, [wanted["text"] for wanted in request["score"]])
            prompts = [encode_prompt(loaded, wanted["prompt"]) for wanted in request["score"]]
            rows = build_continuation_rows(loaded, list(zip(prompts, texts, strict=True)))
            yield from sum_rows(loaded, name, list(rows))


def score_texts(models: ModelVariants, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """How likely each variant holds each document."""
    for name in request["variants"]:
        with models.variant(name) as loaded:
            window = resolve_window(loaded, request.get("window"))
            documents = tokenize_texts(loaded, request["texts"])
            for index, ids in enumerate(documents):
                rows = list(build_window_rows(index, ids, window))
                yield from sum_rows(loaded, name, rows or [ScoredRow(index, (), 0)])


def sum_rows(loaded: LoadedModel, name: str, rows: Sequence[ScoredRow]) -> Iterator[dict[str, Any]]:
    """The rows' sums as replies, by index. A text without a token to predict is certain."""
    asked = [row for row in rows if row.target_count]
    found = score_rows(loaded, asked)
    for index in sorted({row.index for row in rows}):
        total = found.get(index, TextScore())
        yield {
            "index": index,
            "variant": name,
            "logLikelihood": total.log_likelihood,
            "tokens": total.tokens,
            "greedy": total.greedy,
        }


REQUEST_HANDLERS = {
    "identities": report_identities,
    "count": count_tokens,
    "score": score_continuations,
    "texts": score_texts,
    "prompts": answer_prompts,
}
"""What answers a request, by the key that it has."""


def main() -> int:
    """Answer until standard input ends. What libraries print goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=replies, flush=True)

    job_dir = JobDir(Path(sys.argv[1]))
    try:
        silence_libraries()
        models = ModelVariants(job_dir, read_settings(job_dir))
        say({"ready": True})
        for line in sys.stdin:
            request = json.loads(line)
            replies_of = next(way for key, way in REQUEST_HANDLERS.items() if key in request)
            for reply in replies_of(models, request):
                say(reply)
            say({"done": True})
    except TrainerError as error:
        say({"error": error.message, "fix": error.fix})
        return 1
    return 0


if __name__ == "__main__":
    exit_now(main())
