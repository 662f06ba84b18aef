"""What a client sees of an answer as it comes is what it gets of the whole one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import chat_templates
import pytest
import tokenizer_kinds

from local_backend.data.json_values import decode_json_at
from local_backend.inference.answer_preview import AnswerPreview
from local_backend.inference.answers import AnswerForm, CallMarks
from local_backend.inference.completion import Completion, Prompt, decode_completion
from local_backend.serving.answer_text import AnswerText

CHAT: Prompt = {"messages": [{"role": "user", "content": [{"text": "Hi"}]}]}
TOOLS: Prompt = {
    **CHAT,
    "toolConfig": {
        "tools": [{"toolSpec": {"name": "find", "inputSchema": {"json": {"type": "object"}}}}]
    },
}
TEXT: Prompt = {"text": "Hi"}


def load(kind: str, template: str) -> Any:
    """Return what an answer's text needs of a loaded model."""
    tokenizer = tokenizer_kinds.wrap(tokenizer_kinds.KINDS[kind](), template)
    end = tokenizer.eos_token
    return SimpleNamespace(tokenizer=tokenizer, stop_ids=[tokenizer.eos_token_id], stop_texts=[end])


def tokens(loaded: Any, *parts: str) -> list[int]:
    """Return the tokens of texts, one after another: a special token where a part is one."""
    return [i for part in parts for i in loaded.tokenizer(part, add_special_tokens=False).input_ids]


def letters(loaded: Any, text: str) -> list[int]:
    """Return the tokens of a text letter by letter: none of them is special."""
    return tokens(loaded, *text)


def served(loaded: Any, prompt: Prompt, ids: list[int]) -> tuple[tuple[str, str], Completion]:
    """Return the joined parts of text and reasoning as serve streams them, and the whole."""
    answer = AnswerText(loaded, prompt, ())
    parts = [answer.add(token) for token in ids if token not in loaded.stop_ids]
    answer.ids = list(ids)
    whole, last = answer.finish()
    parts.append(last)
    return ("".join(text for text, _ in parts), "".join(r for _, r in parts)), whole


def previewed(loaded: Any, prompt: Prompt, ids: list[int]) -> tuple[str, str]:
    """Return the joined parts as chat and the playground show them."""
    preview = AnswerPreview(loaded, prompt)
    kept = [token for token in ids if token not in loaded.stop_ids]
    parts = [preview.advance(kept[: end + 1]) for end in range(len(kept))]
    parts.append(preview.finish(decode_completion(loaded, prompt, ids)))
    return "".join(text for text, _ in parts), "".join(r for _, r in parts)


def in_parts_and_whole(loaded: Any, prompt: Prompt, ids: list[int]) -> tuple[str, str]:
    """Return text and reasoning of an answer, which are the same however they are read."""
    streamed, whole = served(loaded, prompt, ids)
    assert streamed == (whole["text"], whole["reasoning"])
    assert previewed(loaded, prompt, ids) == streamed
    return streamed


@pytest.mark.parametrize("kind", ["byte-level", "llama3", "tekken"])
@pytest.mark.parametrize("prompt", [CHAT, TOOLS], ids=["chat", "tools"])
def test_a_special_tokens_name_in_letters_is_a_part_of_the_answer(
    kind: str, prompt: Prompt
) -> None:
    loaded = load(kind, chat_templates.QWEN25)
    said = "It ends with <|im_end|> there."
    assert in_parts_and_whole(loaded, prompt, letters(loaded, said)) == (said, "")


def test_a_special_token_is_no_part_of_the_answer() -> None:
    loaded = load("byte-level", chat_templates.QWEN25)
    ids = tokens(loaded, "One", "<|im_start|>", " two")
    assert in_parts_and_whole(loaded, CHAT, ids) == ("One two", "")


def test_a_space_after_a_special_token_is_kept() -> None:
    loaded = load("llama2", chat_templates.QWEN25)
    ids = tokens(loaded, "parcel", "<|im_start|>", "parcel")  # each text with a space before it
    (text, _), whole = served(loaded, TEXT, ids)
    assert text == whole["text"] == "parcel parcel"


@pytest.mark.parametrize("prompt", [CHAT, TOOLS], ids=["chat", "tools"])
def test_a_thought_that_is_cut_off_is_reasoning(prompt: Prompt) -> None:
    loaded = load("byte-level", chat_templates.QWEN3)
    ids = tokens(loaded, "<think>\nThe parcel is")
    assert in_parts_and_whole(loaded, prompt, ids) == ("", "The parcel is")
    ended = [*ids, loaded.stop_ids[0]]
    streamed, whole = served(loaded, prompt, ended)
    assert streamed[0] == whole["text"] == "<think>\nThe parcel is", "it ended by itself: a text"


def test_an_answer_without_reasoning_is_a_text_where_the_prompt_opens_one() -> None:
    loaded = load("byte-level", chat_templates.QWEN3_THINKING)
    ids = [*tokens(loaded, "billing"), loaded.stop_ids[0]]
    streamed, whole = served(loaded, CHAT, ids)
    assert streamed[0] == whole["text"] == previewed(loaded, CHAT, ids)[0] == "billing"
    assert whole["reasoning"] == ""


WRITTEN = {
    "nested deeply": '{"a": ' + "[" * 50_000,
    "nested beyond what is walked through": '{"a": ' + "[" * 300 + "]" * 300 + "}",
    "not a number": '{"a": NaN}',
    "infinite": '{"a": 1e999}',
    "half a surrogate pair": r'{"a": "\ud83d"}',
    "half a pair as a key": r'{"\udc00": 1}',
    "cut off": '{"a": [1, 2',
}


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_arguments_that_are_no_json_to_pass_on_are_a_text(name: str) -> None:
    raw = '<call>{"name": "find", "arguments": ' + WRITTEN[name]
    form = AnswerForm(calls=CallMarks('<call>{"name": "', '{"name": "', '", "arguments": '))
    assert form.parse(raw) is None
    with pytest.raises(ValueError):
        decode_json_at(WRITTEN[name], 0)


def test_json_is_decoded_up_to_its_end() -> None:
    text = 'x {"a": [1, 2.5, null, "\u00fc"], "b": {}}</call>'
    assert decode_json_at(text, 2) == ({"a": [1, 2.5, None, "ü"], "b": {}}, text.index("</call>"))
