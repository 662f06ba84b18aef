"""Render prompts, generate their tokens, and read the answers from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypedDict

import torch

from local_backend.data.chat_messages import JsonObject, Turn, to_chat
from local_backend.data.chat_template import split_prompt
from local_backend.data.text_tokens import Segment, text_tokenizer
from local_backend.errors import PromptError, PromptTooLong
from local_backend.inference.answers import Answer, parse_answer
from local_backend.inference.prefix_cache import PrefixCache
from local_backend.models.load_model import LoadedModel

if TYPE_CHECKING:
    from transformers import GenerationConfig, StoppingCriteriaList

StepCallback = Callable[[torch.Tensor], bool]
"""Called after each step with all tokens so far [rows, tokens]; returns whether to stop there."""


class Prompt(TypedDict, total=False):
    """A conversation to answer, with the tools that it may call, or raw text to continue.

    Exactly one of `messages` and `text` is there. Turns are those of the format `converse`, and may
    be of the role `system`. With `ids` the text is these tokens, as they are, whatever it says.
    """

    messages: list[Turn]
    toolConfig: JsonObject
    text: str
    ids: list[int]


class ScoreItem(TypedDict, total=False):
    """A text to score after its prompt, or with `reply` that turn as the template writes it."""

    prompt: Prompt
    text: str
    reply: Turn


class GivenTokens(TypedDict):
    """A generated answer by its tokens, whose probabilities are requested."""

    prompt: Prompt
    ids: list[int]


class Request(TypedDict, total=False):
    """One line of standard input; generate.py has the keys that select what is done."""

    identities: bool
    features: bool
    count: list[Prompt]
    score: list[ScoreItem]
    texts: list[str]
    window: int | None
    prompts: list[Prompt]
    stream: Prompt
    cancel: bool
    describe: bool
    probabilities: GivenTokens
    top: int
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
    if "ids" in prompt:
        return _check_length(loaded, _check_tokens(loaded, prompt["ids"]))
    ids, _ = text_tokenizer(loaded.tokenizer).encode(split_request(loaded, prompt))
    return complete_prompt(loaded, prompt, ids)


def _check_tokens(loaded: LoadedModel, ids: list[int]) -> list[int]:
    """Return tokens of the model's vocabulary. Raise PromptError for any other."""
    size = len(loaded.tokenizer)
    wrong = next((token for token in ids if not 0 <= token < size), None)
    if wrong is not None:
        raise PromptError(
            f"The prompt has the token {wrong}; the model has the tokens 0 to {size - 1}.",
            fix="send tokens of this model's tokenizer, or the text.",
        )
    return ids


def complete_prompt(loaded: LoadedModel, prompt: Prompt, ids: list[int]) -> list[int]:
    """Return a prompt's tokens with BOS, for raw text where the tokenizer itself writes it.

    A text that has it already gets no second one. A chat's template has written its own. Raise
    TrainerError if the prompt is empty or fills the model's context.
    """
    begin = text_tokenizer(loaded.tokenizer).own_marks[0] if "text" in prompt and ids else []
    return _check_length(loaded, ids if ids[: len(begin)] == begin else [*begin, *ids])


def _check_length(loaded: LoadedModel, ids: list[int]) -> list[int]:
    """Return a prompt's tokens. Raise PromptError if there are none, or as many as fit."""
    if not ids:
        raise PromptError("The prompt is empty.", fix="add some text to it.")
    context = loaded.context_length
    if len(ids) >= context:
        raise PromptTooLong(
            f"The prompt has {len(ids)} tokens; the model's context is {context}.",
            fix="shorten the prompt.",
        )
    return ids


def generate_batch(
    loaded: LoadedModel,
    prompts: Sequence[list[int]],
    request: Request,
    prefix: PrefixCache | None = None,
    on_step: StepCallback | None = None,
) -> list[list[int]]:
    """Return the generated tokens for each prompt, generated in one batch.

    All prompts begin with the tokens of `prefix`; after them, rows are padded on the left. All rows
    end where `on_step` returns True.
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
            stopping_criteria=_stopping_criteria(on_step) if on_step else None,
        )
    return [row[longest:].tolist() for row in output]


def _stopping_criteria(on_step: StepCallback) -> StoppingCriteriaList:
    """Return what makes transformers call `on_step` after each token."""
    from transformers import StoppingCriteriaList

    def criterion(ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        return torch.full((len(ids),), on_step(ids), dtype=torch.bool, device=ids.device)

    return StoppingCriteriaList([criterion])


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
        answer = parse_answer(
            loaded.tokenizer,
            kept,
            loaded.stop_texts,
            with_tools=has_tools,
            is_cut_off=not ends,
        )
    return {
        "text": answer.text,
        "reasoning": answer.reasoning,
        "calls": list(answer.calls),
        "tokens": len(kept),
        "finishReason": "stop" if ends else "length",
    }
