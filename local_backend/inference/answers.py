"""Separate what a model wrote into its reasoning, its answer and its tool calls.

The marks around them differ from template to template. They are learned from the template itself:
it renders made-up replies, and the text around their words is the marks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local_backend.data.chat_messages import Chat, JsonObject
from local_backend.data.chat_template import split_turns
from local_backend.data.json_values import decode_json_at
from local_backend.data.template_support import (
    THINK_TAGS,
    TOOL,
    USER,
    make_reply,
    probe_template,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NAME = r"([\w.:/-]+)"
"""The name of a tool, as a pattern."""


@dataclass(frozen=True)
class Answer:
    """What a model wrote: its answer with tool calls as JSON, and its reasoning, "" if none.

    `calls` are the tool calls by themselves, each with the keys `name` and `arguments`.
    """

    text: str
    reasoning: str = ""
    calls: tuple[JsonObject, ...] = ()


@dataclass(frozen=True)
class CallMarks:
    """The marks of a tool call: before the first one, before each name, and up to the arguments."""

    before: str
    before_name: str
    after_name: str

    def beginnings(self) -> tuple[str, str]:
        """Return what the first call may begin with: some models leave out what is around it."""
        return self.before, self.before_name

    def find(self, text: str, start: int = 0) -> re.Match[str] | None:
        """Return the next call in a text, its name as the first group."""
        pattern = _flexible(self.before_name) + NAME + _flexible(self.after_name)
        return re.compile(pattern).search(text, start)


@dataclass(frozen=True)
class AnswerForm:
    """How a template writes replies. The marks begin right after the generation prompt."""

    before_text: str = ""
    before_thought: str | None = None
    after_thought: str = ""
    calls: CallMarks | None = None

    def parse(self, raw: str, *, is_cut_off: bool = False) -> Answer | None:
        """Return the parts of a reply with its marks; None if it is a text without any.

        Of one that was cut off in its reasoning there is nothing else.
        """
        thought, rest = self.split_thought(raw)
        if is_cut_off and rest == raw:
            open_thought = self.open_thought(raw)
            if open_thought is not None:
                return Answer("", open_thought.strip())
        calls, text = self._take_calls(rest)
        text = remove_prefix(text, self.before_text)
        if not calls and text == raw:
            return None
        whole = _join_answer(text.strip() if calls else text, calls)
        return Answer(whole, thought.strip(), tuple(calls))

    def thought_marks(self) -> list[tuple[str, str]]:
        """Return the marks that reasoning may be between, the template's own first."""
        if self.before_thought is None:
            return [*THINK_TAGS]
        return [(self.before_thought.strip(), self.after_thought.strip()), *THINK_TAGS]

    def split_thought(self, raw: str) -> tuple[str, str]:
        """Return the reasoning of a reply and the rest; none where it does not end."""
        for opening, closing in self.thought_marks():
            if raw.lstrip().startswith(opening) and closing in raw:
                thought, _, rest = raw.lstrip().removeprefix(opening).partition(closing)
                return thought, rest.lstrip("\n")
        return "", raw

    def open_thought(self, raw: str) -> str | None:
        """Return the reasoning that a reply begins with and has not ended; None if there is none.

        Where the prompt itself opens the reasoning, a model that was tuned without any may answer
        at once: without a mark of its own, a reply is taken for a text.
        """
        for opening, closing in self.thought_marks():
            if opening and raw.lstrip().startswith(opening) and closing not in raw:
                return raw.lstrip().removeprefix(opening)
        return None

    def _take_calls(self, text: str) -> tuple[list[JsonObject], str]:
        """Return the tool calls of a reply, and the text before them."""
        calls: list[JsonObject] = []
        first = match = self.calls.find(text) if self.calls else None
        while match and self.calls:
            try:
                arguments, end = decode_json_at(text, match.end())
            except ValueError:
                break
            if not isinstance(arguments, dict):
                break
            calls.append({"name": match[1], "arguments": arguments})
            match = self.calls.find(text, end)
        if not calls or first is None or self.calls is None:
            return [], text
        wrapper = self.calls.before.removesuffix(self.calls.before_name).strip()
        return calls, text[: first.start()].rstrip().removesuffix(wrapper)


def learn_answer_form(
    tokenizer: PreTrainedTokenizerBase, stop_texts: Sequence[str], *, with_tools: bool
) -> AnswerForm:
    """Return how the tokenizer's template writes replies, in chats with or without tools."""
    features = probe_template(tokenizer, with_tools=with_tools).features
    tools = [TOOL] if "tools" in features else []

    def reply(text: str, thought: str | None = None, calls: int = 0) -> str:
        chat = Chat([USER, make_reply(text, thought=thought, calls=calls)], tools)
        return split_turns(tokenizer, chat, stop_texts)[-1][0]

    form = AnswerForm()
    if "reasoning" in features:
        before, _, rest = reply("qzanswer", "qzthought").partition("qzthought")
        after = rest.partition("qzanswer")[0]
        if "reasoning_with_calls" in features:
            with_call = reply("", "qzthought", 1).partition("qzthought")[2]
            after = _common_prefix(after, with_call)
        form = AnswerForm(before_thought=before, after_thought=after)
    if "calls" in features:
        second = reply("", calls=2) if "parallel_calls" in features else ""
        calls = _learn_call_marks(form, reply("", calls=1), second)
        form = AnswerForm("", form.before_thought, form.after_thought, calls)
    _, text = form.split_thought(reply("qzanswer"))
    before_text = text.partition("qzanswer")[0]
    return AnswerForm(before_text, form.before_thought, form.after_thought, form.calls)


def _learn_call_marks(form: AnswerForm, one: str, two: str) -> CallMarks | None:
    """Return the marks of calls; None if the template writes their arguments not as JSON."""
    _, text = form.split_thought(one)
    before, _, rest = text.partition("qzcall0")
    after_name = _before_arguments(rest, "qzvalue0")
    if after_name is None:
        return None
    between = two.partition("qzvalue0")[2].partition("qzcall1")[0]
    shared = _common_prefix(before[::-1], between[::-1])[::-1]
    return CallMarks(before, shared.strip() or before, after_name)


def _common_prefix(a: str, b: str) -> str:
    length = next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )
    return a[:length]


def _before_arguments(text: str, value: str) -> str | None:
    """Return what precedes the JSON object of that value in a text; None if there is none."""
    for match in re.finditer(r"\{", text):
        try:
            arguments, _ = json.JSONDecoder().raw_decode(text, match.start())
        except ValueError:
            continue
        if arguments == {"qzkey": value}:
            return text[: match.start()]
    return None


def _flexible(mark: str) -> str:
    """Return a pattern of a mark with any or no white space where it has some, and at its ends."""
    return r"\s*" + r"\s*".join(map(re.escape, mark.split())) + r"\s*"


def remove_prefix(text: str, prefix: str) -> str:
    """Return a text without the mark that it begins with, whatever white space is around it."""
    if text.startswith(prefix):
        return text[len(prefix) :]
    stripped = prefix.strip()
    if not stripped or not text.lstrip().startswith(stripped):
        return text
    return text.lstrip().removeprefix(stripped)


def _join_answer(text: str, calls: Sequence[JsonObject]) -> str:
    """Return an answer as text, as cloudft writes references (data/formats/record.py)."""
    if not calls:
        return text
    dumped = json.dumps(calls if len(calls) > 1 else calls[0], ensure_ascii=False)
    return f"{text}\n{dumped}" if text else dumped


_learned: dict[tuple[str, tuple[str, ...], bool], AnswerForm] = {}


def answer_form(
    tokenizer: PreTrainedTokenizerBase, stop_texts: Sequence[str], *, with_tools: bool
) -> AnswerForm:
    """Return how the tokenizer's template writes replies; learned at its first use."""
    template = tokenizer.get_chat_template(tools=[{}] if with_tools else None)
    key = (template, tuple(stop_texts), with_tools)
    if key not in _learned:
        _learned[key] = learn_answer_form(tokenizer, stop_texts, with_tools=with_tools)
    return _learned[key]


def parse_answer(
    tokenizer: PreTrainedTokenizerBase,
    ids: list[int],
    stop_texts: Sequence[str],
    *,
    with_tools: bool,
    is_cut_off: bool = False,
) -> Answer:
    """Return the parts of a generated reply to a chat, without special tokens."""
    form = answer_form(tokenizer, stop_texts, with_tools=with_tools)
    raw = str(tokenizer.decode(ids, skip_special_tokens=False))
    parsed = form.parse(raw, is_cut_off=is_cut_off)
    special = SpecialTexts(tokenizer, ids)
    if parsed is None:
        return Answer(special.remove(raw))
    return Answer(special.remove(parsed.text), special.remove(parsed.reasoning), parsed.calls)


class SpecialTexts:
    """The texts of the special tokens that an answer has, which are no part of it.

    The same text in other tokens is one that the model means: it explains a template, say.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ids: Iterable[int] = ()) -> None:
        added = tokenizer.added_tokens_decoder.items()
        self._all = {number: token.content for number, token in added if token.special}
        self._texts: list[str] = []
        self._beginnings: set[str] = set()
        self._longest = 0
        for token in ids:
            self.add(token)

    def add(self, token: int) -> None:
        """Take a token of the answer."""
        text = self._all.get(token)
        if text is not None and text not in self._texts:
            self._texts.append(text)
            self._beginnings |= {text[:end] for end in range(1, len(text))}
            self._longest = max(map(len, self._beginnings), default=0)

    def remove(self, text: str) -> str:
        """Return a text without them."""
        for part in self._texts:
            text = text.replace(part, "")
        return text

    def hold_back(self, text: str) -> str:
        """Return a text without an end that may be the beginning of one of them."""
        for length in range(min(len(text), self._longest), 0, -1):
            if text[-length:] in self._beginnings:
                return text[:-length]
        return text
