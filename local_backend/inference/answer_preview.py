"""Find out how much of an answer is settled while it is still being generated.

What has been shown must not change when more tokens follow. So what may turn out to be a mark (of
reasoning, of a tool call, or a part of a character) is held back until it is decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from local_backend.inference.answers import (
    AnswerForm,
    SpecialTexts,
    answer_form,
    remove_prefix,
)
from local_backend.inference.completion import Completion, Prompt

if TYPE_CHECKING:
    from local_backend.models.load_model import LoadedModel

INCOMPLETE = "\N{REPLACEMENT CHARACTER}"
"""What a tokenizer decodes the first bytes of a character to."""


def settled_parts(form: AnswerForm, raw: str) -> tuple[str, str]:
    """Return the text and the reasoning that a reply which begins with `raw` has in any case."""
    thought, rest = form.split_thought(raw)
    if rest == raw:
        start = raw.lstrip()
        for opening, closing in form.thought_marks():
            if start.startswith(opening):
                inner = start.removeprefix(opening)
                return "", hold_back(inner, closing).strip()
            if opening.startswith(start):
                return "", ""
    return settled_text(form, rest), thought.strip()


def settled_text(form: AnswerForm, text: str) -> str:
    """Return the settled beginning of a reply's text, without marks and tool calls."""
    mark, start = form.before_text.strip(), text.lstrip()
    if len(text) < len(form.before_text) and form.before_text.startswith(text):
        return ""
    if len(start) < len(mark) and mark.startswith(start):
        return ""
    text = remove_prefix(text, form.before_text)
    if form.calls is None:
        return text
    # Before a call, white space is removed at both ends.
    if text[:1].isspace():
        return ""
    for mark in {head for before in form.calls.beginnings() for head in before.split()[:1]}:
        text = hold_back(text.partition(mark)[0], mark)
    return text.rstrip()


def hold_back(text: str, mark: str) -> str:
    """Return a text without an end that may be the beginning of `mark`."""
    for length in range(min(len(text), len(mark) - 1), 0, -1):
        if mark.startswith(text[-length:]):
            return text[:-length]
    return text


def new_ends(shown: tuple[str, str], now: tuple[str, str]) -> tuple[str, str]:
    """Return what text and reasoning have beyond what was shown of each.

    One that does not continue what was shown has nothing new. What was shown as reasoning may turn
    out to be the text: where the prompt opens the reasoning and the answer ends without any.
    """
    text, reasoning = (
        new[len(old) :] if new.startswith(old) else "" for old, new in zip(shown, now, strict=True)
    )
    return text, reasoning


class AnswerPreview:
    """The settled parts of one answer, as its tokens come."""

    def __init__(self, loaded: LoadedModel, prompt: Prompt) -> None:
        self.text = self.reasoning = ""
        self._tokenizer = loaded.tokenizer
        self._form: AnswerForm | None = None
        if "text" not in prompt:
            has_tools = bool(prompt.get("toolConfig"))
            self._form = answer_form(loaded.tokenizer, loaded.stop_texts, with_tools=has_tools)

    def advance(self, ids: Sequence[int]) -> tuple[str, str]:
        """Return what is new in text and reasoning, after all tokens so far."""
        raw = str(self._tokenizer.decode(list(ids), skip_special_tokens=self._form is None))
        raw = raw.rstrip(INCOMPLETE)
        if self._form is None:
            return self._extend(raw, "")
        special = SpecialTexts(self._tokenizer, ids)
        text, reasoning = settled_parts(self._form, special.hold_back(raw))
        return self._extend(special.remove(text), special.remove(reasoning))

    def finish(self, completion: Completion) -> tuple[str, str]:
        """Return what the whole answer has beyond what was returned before."""
        return self._extend(completion["text"], completion["reasoning"])

    def _extend(self, text: str, reasoning: str) -> tuple[str, str]:
        """Return the new ends, and note what has been shown with them."""
        new = new_ends((self.text, self.reasoning), (text, reasoning))
        self.text, self.reasoning = self.text + new[0], self.reasoning + new[1]
        return new
