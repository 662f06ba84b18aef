"""Serve a job's models: `python -m local_backend.inference.generate JOB_DIR` loads them once.

Requests are JSON lines on standard input:

    {"identities": true}
    {"features": true}
    {"describe": true}
    {"count": [prompt, ...]}
    {"score": [{"prompt": prompt, "text": "...", "reply"?: turn}], "variants": [...]}
    {"texts": ["..."], "window": null, "variants": [...]}
    {"prompts": [{"messages": [{"role", "content"}, ...], "toolConfig"?} | {"text": "..."}],
     "variants": ["tuned", "base"], "maxNewTokens": 256, "temperature": 0.0, "topP": 1.0,
     "topK"?: 0, "seed": 7}
    {"stream": prompt, ...}, with the settings of "prompts"
    {"cancel": true}
    {"probabilities": {"prompt": prompt, "ids": [token, ...]}, "top": 5, "variants": [...]}

Answers are JSON lines on standard output: one `{"index", "variant", "text", "reasoning", "calls",
"tokens", "promptTokens", "finishReason"}` for each prompt and variant, then `{"done": true}`; or
`{"error", "fix"}`. For features they are one `{"features"}`, what the chat template renders. For a
count they are `{"tokens"}` for each prompt, for scores and texts `{"index", "variant",
"logLikelihood", "tokens", "greedy"}`, for identities `{"variant", "identity", "answerKey"}`: the
digest of the weights, and of all that decides answers. `temperature` 0 decodes greedily. Prompts
are rendered and tokenized as they were for training.

A stream has the replies of stream.py. `cancel` ends the stream that is under way within one token;
otherwise it is ignored. For probabilities they are `{"variant", "token", "text", "probability",
"rank", "top": [{"token", "text", "probability"}]}`, one for each token and variant. After an error
in a stream, in probabilities or in a count the program goes on; after any other it ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from local_backend.data.chat_messages import to_chat
from local_backend.data.chat_template import split_turns
from local_backend.data.template_support import probe_template
from local_backend.data.text_tokens import text_tokenizer
from local_backend.errors import TrainerError
from local_backend.grading.resident_memory import resident_bytes
from local_backend.inference.answer_key import compute_answer_key
from local_backend.inference.answer_preview import INCOMPLETE
from local_backend.inference.completion import (
    Request,
    ScoreItem,
    complete_prompt,
    decode_completion,
    encode_prompt,
    generate_batch,
    split_request,
)
from local_backend.inference.log_likelihood import (
    ScoredRow,
    TextScore,
    build_continuation_rows,
    build_window_rows,
    resolve_window,
    score_rows,
    score_tokens,
    tokenize_documents,
)
from local_backend.inference.model_variants import BASE, TUNED, ModelVariants
from local_backend.inference.prefix_cache import PrefixCache, shared_prefix_length
from local_backend.inference.request_lines import RequestLines
from local_backend.inference.stream import stream_answers
from local_backend.job_dir import JobDir
from local_backend.lean_imports import allow_lean_imports, import_modeling
from local_backend.libraries import silence_libraries
from local_backend.models.load_model import LoadedModel
from local_backend.process_exit import exit_now
from local_backend.replies import ReplyWriter
from local_backend.settings import read_settings

GENERATE_BATCH = 32
"""Prompts answered in one batch, where a batch stays together."""
MIN_BATCHED = 4
"""Fewer prompts are not worth the copy of the weights that the batch decodes with."""


Replies = Iterator[Mapping[str, object]]


def answer_prompts(models: ModelVariants, request: Request) -> Replies:
    """Yield every answer that `request` needs. Prompts of similar length share a batch."""
    torch.manual_seed(request.get("seed", 0))
    for name in request.get("variants", [TUNED]):
        with models.variant(name) as loaded:
            prompts = [encode_prompt(loaded, p) for p in request["prompts"]]
            for index, ids in _generate_all(models, name, loaded, prompts, request):
                yield {
                    "index": index,
                    "variant": name,
                    "promptTokens": len(prompts[index]),
                    **decode_completion(loaded, request["prompts"][index], ids),
                }


def _generate_all(
    models: ModelVariants,
    name: str,
    loaded: LoadedModel,
    prompts: Sequence[list[int]],
    request: Request,
) -> Iterator[tuple[int, list[int]]]:
    """Yield each prompt's position and generated tokens, by the variant `name` in `loaded`."""
    batched = None
    if not request.get("temperature") and len(prompts) >= MIN_BATCHED:
        batched = models.batched_answers(name)
    if batched is not None:
        most = request.get("maxNewTokens", 256)
        limits = [max(1, min(most, loaded.context_length - len(ids))) for ids in prompts]
        is_tuned = name == TUNED and models.has_tuned_model
        yield from batched.decode(prompts, limits, loaded.stop_ids, with_adapter=is_tuned)
        return
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    common = shared_prefix_length(prompts)
    prefix = PrefixCache(loaded, prompts[0][:common]) if common else None
    for at in range(0, len(order), GENERATE_BATCH):
        part = order[at : at + GENERATE_BATCH]
        replies = generate_batch(loaded, [prompts[i] for i in part], request, prefix)
        yield from zip(part, replies, strict=True)


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


def describe_models(models: ModelVariants, request: Request) -> Replies:
    """Yield the models' context length in tokens, and their size and place in memory."""
    loaded = models.tuned
    yield {
        "context": loaded.context_length,
        "parameters": sum(tensor.numel() for tensor in loaded.model.parameters()),
        "device": loaded.model.device.type,
        "residentBytes": resident_bytes(os.getpid()),
        "variants": [BASE, TUNED] if models.has_tuned_model else [BASE],
    }


def rate_tokens(models: ModelVariants, request: Request) -> Replies:
    """Yield the probability of each token of a generated answer, and the likeliest there."""
    given = request["probabilities"]
    for name in request["variants"]:
        with models.variant(name) as loaded:
            prompt = encode_prompt(loaded, given["prompt"])
            texts = token_texts(loaded, given["ids"])
            scores = score_tokens(loaded, prompt, given["ids"], request.get("top", 5))
            for text, score in zip(texts, scores, strict=True):
                yield {
                    "variant": name,
                    "token": score.token,
                    "text": text,
                    "probability": score.probability,
                    "rank": score.rank,
                    "top": [
                        {"token": token, "text": decode_token(loaded, token), "probability": p}
                        for token, p in score.top
                    ],
                }


def token_texts(loaded: LoadedModel, ids: Sequence[int]) -> list[str]:
    """Return what each token adds to the text; "" for one that is a part of a character.

    The last token of a character has all of it. Joined they are the decoded text.
    """
    texts, shown = [], ""
    for count in range(1, len(ids) + 1):
        text = str(loaded.tokenizer.decode(list(ids[:count]), skip_special_tokens=False))
        if count < len(ids):
            text = text.rstrip(INCOMPLETE)
        texts.append(text[len(shown) :])
        shown = shown if len(text) < len(shown) else text
    return texts


def decode_token(loaded: LoadedModel, token: int) -> str:
    """Return a token by itself, for people: a part of a character as its bytes."""
    text = str(loaded.tokenizer.decode([token], skip_special_tokens=False))
    if INCOMPLETE not in text:
        return text
    return str(loaded.tokenizer.convert_ids_to_tokens(token))


REQUEST_HANDLERS: dict[str, Callable[[ModelVariants, Request], Replies]] = {
    "identities": report_identities,
    "features": report_features,
    "describe": describe_models,
    "count": count_tokens,
    "score": score_continuations,
    "texts": score_texts,
    "prompts": answer_prompts,
    "probabilities": rate_tokens,
}
"""Handlers by the key that a request has."""
SURVIVED = frozenset({"stream", "probabilities", "count"})
"""Requests of a conversation: one that can't be answered is no reason to load the models again."""


def main() -> int:
    """Answer until standard input ends. Send the output of libraries to standard error."""
    with ReplyWriter() as reply:
        job_dir = JobDir(Path(sys.argv[1]))
        settings = read_settings(job_dir)
        import_modeling(settings)
        silence_libraries()
        models = ModelVariants(job_dir, settings)
        reply({"ready": True})
        lines = RequestLines()
        for request in lines:
            try:
                answer_request(models, request, lines, reply)
            except TrainerError as error:
                if SURVIVED.isdisjoint(request):
                    raise
                reply({"error": error.message, "fix": error.fix})
    return reply.status


def answer_request(
    models: ModelVariants, request: Request, lines: RequestLines, reply: ReplyWriter
) -> None:
    """Write all replies to one request. Raise TrainerError."""
    if "stream" in request:
        stream_answers(models, request, reply, lines.is_canceled)
    else:
        handler = next(handle for key, handle in REQUEST_HANDLERS.items() if key in request)
        for answer in handler(models, request):
            reply(answer)
    reply({"done": True})


if __name__ == "__main__":
    allow_lean_imports()
    exit_now(main())
