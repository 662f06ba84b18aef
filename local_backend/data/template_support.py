"""Render chats with a model's chat template, and find out which tools and reasoning it renders.

A template says nowhere what it supports: most ignore a key that they don't know, and the meaning
would be lost without an error. So `probe_template` renders made-up messages and looks for their
words in the text. What a record needs and its template lacks is an error before training.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import TemplateError, TemplateSyntaxError

from local_backend.data.chat_messages import Chat, JsonObject, Message
from local_backend.errors import TrainerError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FEATURE_NAMES = {
    "tools": "the list of tools",
    "calls": "tool calls",
    "text_with_calls": "a text before a tool call",
    "text_after_calls": "a text after a tool call in the same turn",
    "parallel_calls": "several tool calls in one turn",
    "results": "tool results",
    "reasoning": "reasoning",
    "reasoning_with_calls": "reasoning before a tool call",
    "reasoning_and_text_with_calls": "reasoning and a text before a tool call",
}
"""What a chat may need of a template, and how messages call it. cloudft has the same names."""
UNSUPPORTED_FIX = (
    "leave these records out, or choose a base model whose chat template renders it (most instruct"
    " models since Llama 3.1, Qwen 2.5 and Mistral 7B v0.3 have tools; fewer have reasoning)."
)
THINK_TAGS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))
"""Marks around reasoning of models whose templates know no field for it."""
REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
SHORT_ID = re.compile(r"[A-Za-z0-9]{9}")
"""What Mistral's templates take as the id of a call."""
RENDER_ERRORS = (
    *(TemplateError, TypeError, ValueError, LookupError, AttributeError),
    *(ArithmeticError, RecursionError, AssertionError),
)
"""What a template raises for messages that it was not written for."""
TEMPLATE_FIX = (
    "correct the chat template in the model's folder (chat_template.jinja, or chat_template in"
    " tokenizer_config.json), or choose another base model."
)


def render_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool,
    tools: Sequence[JsonObject] = (),
) -> str:
    """Return the chat template's text.

    With `add_generation_prompt` it ends where the answer begins. Raise TrainerError if the template
    refuses the messages.
    """
    try:
        text = tokenizer.apply_chat_template(
            list(messages),
            tools=list(tools) or None,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
        )
    except TemplateSyntaxError as error:
        raise TrainerError(
            f"The model's chat template is not valid: {error.message}.", fix=TEMPLATE_FIX
        ) from error
    except RENDER_ERRORS as error:
        raise TrainerError(
            f"The model's chat template refuses these messages: {error}.",
            fix="leave out what this model does not support (often the system message).",
        ) from error
    return str(text)


@dataclass(frozen=True)
class CallStyle:
    """How a template takes tool calls.

    `content` is that of a message with calls alone. Some templates want arguments as JSON text, and
    ids of 9 letters and digits.
    """

    content: str | None = None
    arguments_as_text: bool = False
    has_short_ids: bool = False


@dataclass(frozen=True)
class TemplateSupport:
    """What a template renders of tools and reasoning, and in which form it takes them.

    `think_tags` is set where it has no field for reasoning and its model writes it between tags.
    """

    features: frozenset[str] = frozenset()
    call_style: CallStyle = CallStyle()
    reasoning_key: str = REASONING_KEYS[0]
    think_tags: tuple[str, str] | None = None


def find_needs(chat: Chat) -> set[str]:
    """Return the features that a template must have to render all of a chat."""
    needs = {"tools"} if chat.tools else set()
    if chat.mixes_calls:
        needs.add("text_after_calls")
    for message in chat.messages:
        if message["role"] == "tool":
            needs.add("results")
        has_thought = "reasoning_content" in message
        calls = message.get("tool_calls") or ()
        if has_thought:
            needs.add("reasoning")
        if calls:
            needs.add("calls")
            needs |= {"parallel_calls"} if len(calls) > 1 else set()
            parts = ["reasoning"] * has_thought + ["text"] * bool(message["content"])
            needs |= {"_and_".join(parts) + "_with_calls"} if parts else set()
    return needs


def adapt_chat(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> tuple[Chat, TemplateSupport]:
    """Return the chat in the form that the template takes, and what the template supports.

    Raise TrainerError that names what the template would leave out.
    """
    needs = find_needs(chat)
    if not needs:
        return chat, TemplateSupport()
    support = probe_template(tokenizer, with_tools=bool(chat.tools))
    missing = needs - support.features
    if missing:
        raise TrainerError(
            f"The model's chat template leaves out {_names(missing)}, which a record has.",
            fix=UNSUPPORTED_FIX,
        )
    return replace(chat, messages=[_adapt(message, support) for message in chat.messages]), support


def _names(features: set[str]) -> str:
    """Return the names of features; without calls or reasoning, not those of their details too."""
    without = (
        {f for f in features if f.endswith("_calls") or f == "results"}
        if "calls" in features
        else set()
    )
    if "reasoning" in features:
        without |= {f for f in features if f.startswith("reasoning_")}
    names = [name for key, name in FEATURE_NAMES.items() if key in features - without]
    return " and ".join([", ".join(names[:-1])] * (len(names) > 1) + names[-1:])


def _adapt(message: Message, support: TemplateSupport) -> Message:
    style, message = support.call_style, dict(message)
    if "reasoning_content" in message and support.reasoning_key != "reasoning_content":
        message[support.reasoning_key] = message["reasoning_content"]
    if message.get("tool_calls"):
        message["content"] = message["content"] or style.content
        message["tool_calls"] = [_adapt_call(call, style) for call in message["tool_calls"]]
    if "tool_call_id" in message and style.has_short_ids:
        message["tool_call_id"] = _shorten_id(message["tool_call_id"])
    return message


def _adapt_call(call: JsonObject, style: CallStyle) -> JsonObject:
    function = dict(call["function"])
    if style.arguments_as_text:
        import json

        function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
    identifier = _shorten_id(call["id"]) if style.has_short_ids else call["id"]
    return {**call, "id": identifier, "function": function}


def _shorten_id(identifier: str) -> str:
    """Return an id of 9 letters and digits: itself, or one that follows from it."""
    if SHORT_ID.fullmatch(identifier):
        return identifier
    return hashlib.sha256(identifier.encode()).hexdigest()[:9]


_probed: dict[tuple[str, bool], TemplateSupport] = {}


def probe_template(tokenizer: PreTrainedTokenizerBase, *, with_tools: bool) -> TemplateSupport:
    """Return what the tokenizer's template renders, in a chat with or without a list of tools."""
    template = tokenizer.get_chat_template(tools=[{}] if with_tools else None)
    key = (template, with_tools)
    if key not in _probed:
        _probed[key] = _Probe(tokenizer, with_tools=with_tools).run()
    return _probed[key]


USER: Message = {"role": "user", "content": "qzquestion"}
TOOL: JsonObject = {
    "type": "function",
    "function": {
        "name": "qztool",
        "description": "qzdescription",
        "parameters": {
            "type": "object",
            "properties": {"qzkey": {"type": "string", "description": "qzdescription"}},
            "required": ["qzkey"],
        },
    },
}
RESULTS: list[Message] = [
    {"role": "tool", "tool_call_id": f"qzid{i}", "name": f"qzcall{i}", "content": f"qzresult{i}"}
    for i in range(2)
]


class _Probe:
    """Renders made-up chats. Every text in them is a word that no template has."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, with_tools: bool) -> None:
        self._tokenizer = tokenizer
        self._tools = [TOOL] if with_tools else []
        self._support = TemplateSupport()

    def run(self) -> TemplateSupport:
        """Return what was found."""
        style = next(filter(self._takes_calls, _call_styles()), None)
        self._support = TemplateSupport(call_style=style or CallStyle())
        has_reasoning = self._find_reasoning()
        found = {"reasoning"} if has_reasoning else set()
        if self._tools and self._renders([USER], "qztool", add_generation_prompt=True):
            found.add("tools")
        if style:
            found |= {"calls", *self._find_call_features(), *self._find_result_features()}
        if not has_reasoning:
            found -= {"reasoning_with_calls", "reasoning_and_text_with_calls"}
        return replace(self._support, features=frozenset(found))

    def _takes_calls(self, style: CallStyle) -> bool:
        self._support = TemplateSupport(call_style=style)
        text = self._render([USER, make_reply("", calls=1)])
        # Python's own form of a value shows that the template wants text, or another content.
        return "qzcall0" in text and "qzvalue0" in text and not re.search(r"'qzkey'|None", text)

    def _find_call_features(self) -> Iterator[str]:
        # Reasoning between tags is written by the trainer itself, whatever the template has.
        thought = [] if self._support.think_tags else ["qzthought"]
        if self._renders([USER, make_reply("qzanswer", calls=1)], "qzcall0", "qzanswer"):
            yield "text_with_calls"
        reply = make_reply("", thought="qzthought", calls=1)
        if self._renders([USER, reply], "qzcall0", *thought):
            yield "reasoning_with_calls"
        reply = make_reply("qzanswer", thought="qzthought", calls=1)
        if self._renders([USER, reply], "qzcall0", "qzanswer", *thought):
            yield "reasoning_and_text_with_calls"

    def _find_result_features(self) -> Iterator[str]:
        one = [USER, make_reply("", calls=1), RESULTS[0]]
        if self._renders(one, "qzresult0", add_generation_prompt=True):
            yield "results"
        two = [USER, make_reply("", calls=2)]
        if self._renders(two, "qzcall0", "qzcall1", "qzvalue1") and self._renders(
            [*two, *RESULTS], "qzresult0", "qzresult1", add_generation_prompt=True
        ):
            yield "parallel_calls"

    def _find_reasoning(self) -> bool:
        """Find the field that the template reads reasoning from, or the tags of its model."""
        for key in REASONING_KEYS:
            reply = {**make_reply("qzanswer"), key: "qzthought"}
            if self._renders([USER, reply], "qzthought", "qzanswer"):
                self._support = replace(self._support, reasoning_key=key)
                return True
        prompt = self._render([USER], add_generation_prompt=True)
        for opening, closing in THINK_TAGS:
            inline = make_reply(f"{opening}\nqzthought\n{closing}\n\nqzanswer")
            text = self._render([USER, inline])
            is_dropped = "qzanswer" in text and "qzthought" not in text
            if prompt.rstrip().endswith(opening) or is_dropped:
                self._support = replace(self._support, think_tags=(opening, closing))
                return True
        return False

    def _render(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
        """Return the text, "" if the template refuses the messages."""
        adapted = [_adapt(message, self._support) for message in messages]
        try:
            return render_chat(
                self._tokenizer,
                adapted,
                tools=self._tools,
                add_generation_prompt=add_generation_prompt,
            )
        except TrainerError:
            return ""

    def _renders(
        self, messages: Sequence[Message], *words: str, add_generation_prompt: bool = False
    ) -> bool:
        text = self._render(messages, add_generation_prompt=add_generation_prompt)
        return all(word in text for word in words)


def _call_styles() -> Iterator[CallStyle]:
    for has_short_ids, as_text, content in itertools.product(
        (False, True), (False, True), (None, "")
    ):
        yield CallStyle(content, as_text, has_short_ids)


def make_reply(content: str, *, thought: str | None = None, calls: int = 0) -> Message:
    """Return an answer with its reasoning, and calls of different tools."""
    reply: Message = {"role": "assistant", "content": content}
    if thought:
        reply["reasoning_content"] = thought
    if calls:
        reply["tool_calls"] = [
            {
                "id": f"qzid{i}",
                "type": "function",
                "function": {"name": f"qzcall{i}", "arguments": {"qzkey": f"qzvalue{i}"}},
            }
            for i in range(calls)
        ]
    return reply


def supported_features(tokenizer: PreTrainedTokenizerBase) -> Mapping[str, Any]:
    """Return the features of a tokenizer's template, in chats with a list of tools and without."""
    return {
        name: sorted(probe_template(tokenizer, with_tools=with_tools).features)
        for name, with_tools in (("withTools", True), ("withoutTools", False))
    }
