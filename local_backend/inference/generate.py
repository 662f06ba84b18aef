"""Serve a job's models: `python -m local_backend.inference.generate JOB_DIR` loads them once.

Requests are JSON lines on standard input:

    {"identities": true}
    {"features": true}
    {"count": [prompt, ...]}
    {"score": [{"prompt": prompt, "text": "...", "reply"?: turn}], "variants": [...]}
    {"texts": ["..."], "window": null, "variants": [...]}
    {"prompts": [{"messages": [{"role", "content"}, ...], "toolConfig"?} | {"text": "..."}],
     "variants": ["tuned", "base"], "maxNewTokens": 256, "temperature": 0.0, "topP": 1.0,
     "topK"?: 0, "seed": 7}

Answers are JSON lines on standard output: one `{"index", "variant", "text", "reasoning", "calls",
"tokens", "promptTokens", "finishReason"}` for each prompt and variant, then `{"done": true}`; or
`{"error", "fix"}`. For features they are one `{"features"}`, what the chat template renders. For a
count they are `{"tokens"}` for each prompt, for scores and texts `{"index", "variant",
"logLikelihood", "tokens", "greedy"}`, for identities `{"variant", "identity", "answerKey"}`: the
digest of the weights, and of all that decides answers. `temperature` 0 decodes greedily. Prompts
are rendered and tokenized as they were for training.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import torch

from local_backend.data.chat_messages import JsonObject, Turn, to_chat
from local_backend.data.chat_template import split_prompt, split_turns
from local_backend.data.template_support import probe_template
from local_backend.data.text_tokens import Segment, text_tokenizer
from local_backend.errors import TrainerError
from local_backend.inference.answer_key import compute_answer_key
from local_backend.inference.answers import Answer, parse_answer
from local_backend.inference.log_likelihood import (
    ScoredRow,
    TextScore,
    build_continuation_rows,
    build_window_rows,
    resolve_window,
    score_rows,
    tokenize_documents,
)
from local_backend.inference.model_variants import TUNED, ModelVariants
from local_backend.inference.prefix_cache import PrefixCache, shared_prefix_length
from local_backend.job_dir import JobDir
from local_backend.lean_imports import allow_lean_imports, import_modeling
from local_backend.libraries import silence_libraries
from local_backend.models.load_model import LoadedModel
from local_backend.process_exit import exit_now
from local_backend.replies import ReplyWriter
from local_backend.settings import read_settings

if TYPE_CHECKING:
    from transformers import GenerationConfig

GENERATE_BATCH = 32
"""Prompts answered in one batch."""


class Prompt(TypedDict, total=False):
    """A conversation to answer, with the tools that it may call, or raw text to continue.

    Exactly one of `messages` and `text` is there. Turns are those of the format `converse`, and may
    be of the role `system`.
    """

    messages: list[Turn]
    toolConfig: JsonObject
    text: str


class ScoreItem(TypedDict, total=False):
    """A text to score after its prompt, or with `reply` that turn as the template writes it."""

    prompt: Prompt
    text: str
    reply: Turn


class Request(TypedDict, total=False):
    """One line of standard input; REQUEST_HANDLERS has the keys that select what is done."""

    identities: bool
    features: bool
    count: list[Prompt]
    score: list[ScoreItem]
    texts: list[str]
    window: int | None
    prompts: list[Prompt]
    variants: list[str]
    maxNewTokens: int
    temperature: float
    topP: float
    topK: int
    seed: int


class Completion(TypedDict):
    """A generated answer. `finishReason` is `stop`, or `length` without an end token.

    `text` has tool calls as JSON, and not the reasoning before it; `calls` are those calls alone.
    """

    text: str
    reasoning: str
    calls: list[JsonObject]
    tokens: int
    finishReason: str


def split_request(loaded: LoadedModel, prompt: Prompt) -> list[Segment]:
    """Return a prompt's text as training splits it. Raw text is one segment."""
    if "text" in prompt:
        return [(prompt["text"], False)]
    chat = to_chat(prompt, "converse")
    return [(text, False) for text in split_prompt(loaded.tokenizer, chat, loaded.stop_texts)]


def encode_prompt(loaded: LoadedModel, prompt: Prompt) -> list[int]:
    """Return the tokens of one prompt: a conversation to answer, or raw text to continue.

    Raise TrainerError if it is empty or fills the model's context.
    """
    ids, _ = text_tokenizer(loaded.tokenizer).encode(split_request(loaded, prompt))
    return complete_prompt(loaded, prompt, ids)


def complete_prompt(loaded: LoadedModel, prompt: Prompt, ids: list[int]) -> list[int]:
    """Return a prompt's tokens with BOS, for raw text where the tokenizer itself writes it.

    A text that has it already gets no second one. A chat's template has written its own. Raise
    TrainerError if the prompt is empty or fills the model's context.
    """
    begin = text_tokenizer(loaded.tokenizer).own_marks[0] if "text" in prompt and ids else []
    ids = ids if ids[: len(begin)] == begin else [*begin, *ids]
    if not ids:
        raise TrainerError("The prompt is empty.", fix="add some text to it.")
    context = loaded.context_length
    if len(ids) >= context:
        raise TrainerError(
            f"The prompt has {len(ids)} tokens; the model's context is {context}.",
            fix="shorten the prompt.",
        )
    return ids


def generate_batch(
    loaded: LoadedModel,
    prompts: Sequence[list[int]],
    request: Request,
    prefix: PrefixCache | None = None,
) -> list[list[int]]:
    """Return the generated tokens for each prompt, generated in one batch.

    All prompts begin with the tokens of `prefix`; after them, rows are padded on the left.
    """
    longest, common = max(map(len, prompts)), prefix.length if prefix else 0
    pad = loaded.pad_id
    # Padding on the left, so that all prompts end at the same column and are continued from there.
    rows = [[*ids[:common], *[pad] * (longest - len(ids)), *ids[common:]] for ids in prompts]
    mask = [
        [*[1] * common, *[0] * (longest - len(ids)), *[1] * (len(ids) - common)] for ids in prompts
    ]
    device = loaded.model.device
    with torch.inference_mode():
        output = loaded.model.generate(  # type: ignore[operator]  # of a mixin that mypy misses
            input_ids=torch.tensor(rows, device=device),
            attention_mask=torch.tensor(mask, device=device),
            generation_config=make_generation_config(loaded, request, longest),
            past_key_values=prefix.repeat(len(prompts)) if prefix else None,
        )
    return [row[longest:].tolist() for row in output]


def make_generation_config(
    loaded: LoadedModel, request: Request, prompt_length: int
) -> GenerationConfig:
    """Return the decoding settings: greedy at temperature 0, else sampling."""
    from transformers import GenerationConfig

    available = loaded.context_length - prompt_length
    sampling: dict[str, bool | float | int] = {"do_sample": False}
    if request.get("temperature"):
        sampling = {
            "do_sample": True,
            "temperature": request["temperature"],
            "top_p": request.get("topP", 1.0),
            # Without it, transformers' default of 50 would cut the distribution.
            "top_k": request.get("topK", 0),
        }
    return GenerationConfig(
        max_new_tokens=max(1, min(request.get("maxNewTokens", 256), available)),
        eos_token_id=loaded.stop_ids,
        pad_token_id=loaded.pad_id,
        **sampling,
    )


def decode_completion(loaded: LoadedModel, prompt: Prompt, ids: list[int]) -> Completion:
    """Return the answer to a prompt up to its end token."""
    ends = [i for i, token in enumerate(ids) if token in loaded.stop_ids]
    kept = ids[: ends[0]] if ends else ids
    if "text" in prompt:
        answer = Answer(str(loaded.tokenizer.decode(kept, skip_special_tokens=True)))
    else:
        has_tools = bool(prompt.get("toolConfig"))
        answer = parse_answer(loaded.tokenizer, kept, loaded.stop_texts, with_tools=has_tools)
    return {
        "text": answer.text,
        "reasoning": answer.reasoning,
        "calls": list(answer.calls),
        "tokens": len(kept),
        "finishReason": "stop" if ends else "length",
    }


Replies = Iterator[Mapping[str, object]]


def answer_prompts(models: ModelVariants, request: Request) -> Replies:
    """Yield every answer that `request` needs. Prompts of similar length share a batch."""
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
                for index, ids in zip(part, replies, strict=True):
                    completion = decode_completion(loaded, request["prompts"][index], ids)
                    prompt_tokens = len(prompts[index])
                    yield {
                        "index": index,
                        "variant": name,
                        "promptTokens": prompt_tokens,
                        **completion,
                    }


def count_tokens(models: ModelVariants, request: Request) -> Replies:
    """Yield how many tokens each prompt has."""
    for prompt in request["count"]:
        yield {"tokens": len(encode_prompt(models.tuned, prompt))}


def report_features(models: ModelVariants, request: Request) -> Replies:
    """Yield what the chat template renders besides texts, by the names of FEATURE_NAMES."""
    support = probe_template(models.tuned.tokenizer, with_tools=True)
    yield {"features": sorted(support.features)}


def report_identities(models: ModelVariants, request: Request) -> Replies:
    """Yield the identity of each variant's weights, and the key of its answers."""
    for name, identity in models.compute_identities().items():
        with models.variant(name) as loaded:
            key = compute_answer_key(loaded, identity)
        yield {"variant": name, "identity": identity, "answerKey": key}


def encode_scored(loaded: LoadedModel, item: ScoreItem) -> tuple[list[int], list[int]]:
    """Return the tokens of an item's prompt, and those of its text as they follow it.

    With `reply` the text is that turn without its end mark. Raise TrainerError for a prompt that
    can't be answered.
    """
    if "reply" in item:
        turns = {**item["prompt"], "messages": [*item["prompt"]["messages"], item["reply"]]}
        chat = to_chat(turns, "converse")
        *prompt, (text, _) = split_turns(loaded.tokenizer, chat, loaded.stop_texts)
        text = text.removesuffix(next((s for s in loaded.stop_texts if text.endswith(s)), ""))
    else:
        prompt = split_request(loaded, item["prompt"])
        text = text_tokenizer(loaded.tokenizer).literal.mark(item["text"])
    segments = [(before, False) for before, _ in prompt]
    ids, mask = text_tokenizer(loaded.tokenizer).encode([*segments, (text, True)])
    length = len(ids) - sum(mask)
    return complete_prompt(loaded, item["prompt"], ids[:length]), ids[length:]


def score_continuations(models: ModelVariants, request: Request) -> Replies:
    """Yield the log-likelihood of each text after its prompt, by variant."""
    for name in request["variants"]:
        with models.variant(name) as loaded:
            pairs = [encode_scored(loaded, item) for item in request["score"]]
            yield from sum_rows(loaded, name, list(build_continuation_rows(loaded, pairs)))


def score_texts(models: ModelVariants, request: Request) -> Replies:
    """Yield the log-likelihood of each document, by variant."""
    for name in request["variants"]:
        with models.variant(name) as loaded:
            window = resolve_window(loaded, request.get("window"))
            documents = tokenize_documents(loaded, request["texts"])
            for index, ids in enumerate(documents):
                rows = list(build_window_rows(index, ids, window))
                yield from sum_rows(loaded, name, rows or [ScoredRow(index, (), 0)])


def sum_rows(loaded: LoadedModel, name: str, rows: Sequence[ScoredRow]) -> Replies:
    """Yield the rows' scores by index. A text without a token to predict has log-likelihood 0."""
    scores = score_rows(loaded, [row for row in rows if row.target_count])
    for index in sorted({row.index for row in rows}):
        score = scores.get(index, TextScore())
        yield {
            "index": index,
            "variant": name,
            "logLikelihood": score.log_likelihood,
            "tokens": score.tokens,
            "greedy": score.greedy,
        }


REQUEST_HANDLERS: dict[str, Callable[[ModelVariants, Request], Replies]] = {
    "identities": report_identities,
    "features": report_features,
    "count": count_tokens,
    "score": score_continuations,
    "texts": score_texts,
    "prompts": answer_prompts,
}
"""Handlers by the key that a request has."""


def main() -> int:
    """Answer until standard input ends. Send the output of libraries to standard error."""
    with ReplyWriter() as reply:
        job_dir = JobDir(Path(sys.argv[1]))
        settings = read_settings(job_dir)
        import_modeling(settings)
        silence_libraries()
        models = ModelVariants(job_dir, settings)
        reply({"ready": True})
        for line in sys.stdin:
            request = json.loads(line)
            handler = next(handle for key, handle in REQUEST_HANDLERS.items() if key in request)
            for answer in handler(models, request):
                reply(answer)
            reply({"done": True})
    return reply.status


if __name__ == "__main__":
    allow_lean_imports()
    exit_now(main())
