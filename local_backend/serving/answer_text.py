"""The text of one answer as its tokens come: what is settled of it, and where a stop text is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from local_backend.inference.answer_preview import (
    INCOMPLETE,
    hold_back,
    new_ends,
    settled_parts,
)
from local_backend.inference.answers import Answer, AnswerForm, SpecialTexts, answer_form
from local_backend.inference.completion import Completion, Prompt, decode_completion

if TYPE_CHECKING:
    from local_backend.models.load_model import LoadedModel


class TokenText:
    """The decoded text of tokens that come one by one, without decoding all of them each time.

    A token is decoded with the few before it, because what it stands for may depend on them.
    """

    def __init__(self, loaded: LoadedModel, *, skip_special: bool) -> None:
        self.text = ""
        self._tokenizer, self._skip = loaded.tokenizer, skip_special
        self._ids: list[int] = []
        self._start = self._read = 0

    def add(self, token: int) -> None:
        """Append the text of a token, once it is one of whole characters."""
        self._ids.append(token)
        known, now = self._decode(self._read), self._decode(len(self._ids))
        if now.endswith(INCOMPLETE) or not now.startswith(known):
            return
        # The next token is decoded after one with a text: behind special tokens alone, which are
        # skipped, a tokenizer of SentencePiece takes it for the first, and drops its space.
        if now == known:
            return
        self.text += now[len(known) :]
        self._start, self._read = self._read, len(self._ids)

    def _decode(self, end: int) -> str:
        return str(
            self._tokenizer.decode(self._ids[self._start : end], skip_special_tokens=self._skip)
        )


class AnswerText:
    """One answer in the making, whose settled parts are never taken back."""

    def __init__(self, loaded: LoadedModel, prompt: Prompt, stop: Sequence[str]) -> None:
        self.ids: list[int] = []
        self.text = self.reasoning = ""
        self.stop_sequence: str | None = None
        self._loaded, self._prompt, self._stop = loaded, prompt, [text for text in stop if text]
        self._form: AnswerForm | None = None
        self._special = SpecialTexts(loaded.tokenizer)
        if "text" not in prompt:
            has_tools = bool(prompt.get("toolConfig"))
            self._form = answer_form(loaded.tokenizer, loaded.stop_texts, with_tools=has_tools)
        self._raw = TokenText(loaded, skip_special=self._form is None)
        self._cut = ""

    def add(self, token: int) -> tuple[str, str]:
        """Take a token, and return what is new and settled in text and reasoning."""
        self.ids.append(token)
        self._raw.add(token)
        self._special.add(token)
        raw = self._raw.text
        if self._stop:
            at, self.stop_sequence = self._find_stop(raw)
            if self.stop_sequence is not None:
                self._cut = raw[:at]
                return "", ""
            raw = min((hold_back(raw, stop) for stop in self._stop), key=len)
        return self._extend(*self._settle(raw))

    def _find_stop(self, raw: str) -> tuple[int, str | None]:
        """Return where the first stop text begins. In reasoning there is none."""
        begin = self._answer_begin(raw)
        found = [(raw.find(stop, begin), -len(stop), stop) for stop in self._stop]
        found = [one for one in found if one[0] >= 0]
        return (min(found)[0], min(found)[2]) if found else (len(raw), None)

    def _answer_begin(self, raw: str) -> int:
        """Return where the answer begins after its reasoning; the end while that goes on."""
        if self._form is None:
            return 0
        _, rest = self._form.split_thought(raw)
        if rest != raw:
            return len(raw) - len(rest)
        start = raw.lstrip()
        marks = [opening for opening, _ in self._form.thought_marks()]
        is_open = any(mark and start.startswith(mark) for mark in marks)
        is_open = is_open or ("" in marks and self._form.before_thought is not None)
        return len(raw) if is_open else 0

    def _settle(self, raw: str) -> tuple[str, str]:
        if self._form is None:
            return raw, ""
        text, reasoning = settled_parts(self._form, self._special.hold_back(raw))
        return self._special.remove(text), self._special.remove(reasoning)

    def finish(self) -> tuple[Completion, tuple[str, str]]:
        """Return the whole answer, and what it has beyond what was returned before."""
        if self.stop_sequence is None:
            completion = decode_completion(self._loaded, self._prompt, self.ids)
        else:
            completion = self._stopped_completion()
        return completion, self._extend(completion["text"], completion["reasoning"])

    def _stopped_completion(self) -> Completion:
        """Return the answer whose text ends before a stop text."""
        answer = self._form.parse(self._cut) if self._form else None
        if answer is None:
            answer = Answer(self._cut)
        return {
            "text": self._special.remove(answer.text),
            "reasoning": self._special.remove(answer.reasoning),
            "calls": list(answer.calls),
            "tokens": len(self.ids),
            "finishReason": "stop_sequence",
        }

    def _extend(self, text: str, reasoning: str) -> tuple[str, str]:
        """Return the new ends, and note what has been shown with them."""
        new = new_ends((self.text, self.reasoning), (text, reasoning))
        self.text, self.reasoning = self.text + new[0], self.reasoning + new[1]
        return new
