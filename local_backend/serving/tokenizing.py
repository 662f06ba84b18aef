"""Show a model's tokens to clients that count or choose them: texts to tokens and back."""

from __future__ import annotations

from typing import Any

from local_backend.data.text_tokens import encode_texts, text_tokenizer
from local_backend.errors import PromptError
from local_backend.serving.models import ServedModel
from local_backend.serving.requests import DetokenizeRequest, TokenizeRequest, Values


def tokenize(model: ServedModel, request: TokenizeRequest) -> list[int]:
    """Return the tokens of a prompt as the model gets it, or of a text of any length.

    Special tokens in a text are what they say. Raise PromptError for a prompt it can't take.
    """
    if "prompt" in request:
        return model.encode(request["prompt"])
    tokenizer = model.loaded.tokenizer
    [ids] = encode_texts(tokenizer, [request["text"]])
    begin = text_tokenizer(tokenizer).own_marks[0] if request.get("special", True) else []
    return ids if ids[: len(begin)] == begin else [*begin, *ids]


def detokenize(model: ServedModel, request: DetokenizeRequest) -> str:
    """Return the text of tokens, special ones among it. Raise PromptError for unknown ones."""
    tokenizer = model.loaded.tokenizer
    wrong = next((token for token in request["ids"] if not 0 <= token < len(tokenizer)), None)
    if wrong is not None:
        raise PromptError(
            f"There is no token {wrong}; the model has the tokens 0 to {len(tokenizer) - 1}.",
            fix="send tokens of this model's tokenizer.",
        )
    return str(tokenizer.decode(request["ids"], skip_special_tokens=False))


def describe_tokenizer(model: ServedModel) -> Values:
    """Return the special tokens, and the chat template."""
    tokenizer: Any = model.loaded.tokenizer
    return {
        "bos": tokenizer.bos_token,
        "eos": tokenizer.eos_token,
        "pad": tokenizer.pad_token,
        "template": tokenizer.chat_template,
    }
