"""Render staged records as the text that the model sees, and mark which part carries loss.

Training, validation and generation use one rendering. `split_turns` splits a conversation into
segments, prompt and reply in turn, each with or without loss. They are tokenized by text_tokens.py,
so that at generation the prompt has exactly the tokens that it had at training.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from local_backend.data.chat_messages import Chat, Message
from local_backend.data.chat_skeletons import Skeletons
from local_backend.data.template_support import (
    THINK_TAGS,
    TemplateSupport,
    adapt_chat,
    render_chat,
)
from local_backend.data.text_tokens import Segment, text_tokenizer
from local_backend.errors import TrainerError

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

ANCHOR_LENGTH = 80
"""Characters at the end of a prompt by which it is found again in a longer text."""
NO_WORD = re.compile(r"(?:\\[bfnrt]|[\W_])+")
COMPARED_LENGTH = 20
"""Letters and digits at each end of a message by which it is found in the rendered text."""

WRITE_BOS = "{{ bos_token }}"
PLAIN_TEMPLATE = (
    WRITE_BOS + "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}\n\n"
    "{% elif message['role'] == 'user' %}### Instruction:\n{{ message['content'] }}\n\n"
    "{% else %}### Response:\n{{ message['content'] }}{{ eos_token }}\n\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
)
"""For base models without a chat template; saved with the tuned model."""


@dataclass
class RecordFormat:
    """What rendering a staged record needs: its format, the tokenizer, the stop tokens as text.

    `last_turn_only` counts rendered records of which the last answer alone carries loss, because
    the template rewrites earlier turns.
    """

    name: str
    tokenizer: PreTrainedTokenizerBase
    stop_texts: Sequence[str]
    last_turn_only: int = 0


def ensure_chat_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Set the plain template on `tokenizer` if it has none. Return True if it was set.

    It writes BOS where the tokenizer itself does. Others have one that their model has never seen
    at the start of a text (Qwen's names none, SmolLM2's is the mark of a turn).
    """
    if tokenizer.chat_template:
        return False
    has_bos = bool(text_tokenizer(tokenizer).own_marks[0])
    tokenizer.chat_template = PLAIN_TEMPLATE if has_bos else PLAIN_TEMPLATE.removeprefix(WRITE_BOS)
    return True


def split_turns(
    tokenizer: PreTrainedTokenizerBase, chat: Chat, stop_texts: Sequence[str]
) -> list[Segment]:
    """Split a conversation into segments: learned turns carry loss, their end marks included.

    Some templates rewrite earlier turns (for example, drop past reasoning). Then only the last
    learned turn carries loss, because only that one looks the same at generation as at training.
    Turns after it have no effect and are left out. Special tokens in the conversation's texts are
    marked (literal_text.py). Raise TrainerError for what the template lacks.
    """
    learned = [index for index in range(len(chat.messages)) if chat.is_learned(index)]
    if learned:
        chat = chat.up_to(learned[-1] + 1)
    texts = None
    if _is_plain(tokenizer, chat, stop_texts):
        template = tokenizer.get_chat_template()
        texts = _skeletons(tokenizer, template, tuple(stop_texts)).split(chat)
    if texts is None:
        texts = _Renderer.of(tokenizer, chat, stop_texts).split()
    replies = [index for index, m in enumerate(chat.messages) if m["role"] == "assistant"]
    loss = [chat.is_learned(index) for index in replies]
    if len(texts) != 2 * len(replies):
        loss = [bool(learned)]
    return [(text, bool(number % 2) and loss[number // 2]) for number, text in enumerate(texts)]


def split_prompt(
    tokenizer: PreTrainedTokenizerBase, chat: Chat, stop_texts: Sequence[str]
) -> list[str]:
    """Split a conversation that awaits its answer where `split_turns` would split it."""
    renderer = _Renderer.of(tokenizer, chat, stop_texts)
    prompt = renderer.prompt(len(chat.messages))
    earlier = renderer.split_all() or []
    rendered = "".join(earlier)
    return [*earlier, prompt[len(rendered) :]] if prompt.startswith(rendered) else [prompt]


def render_prompt(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> str:
    """Return a conversation as the text that an answer follows."""
    text = _Renderer.of(tokenizer, chat, ()).prompt(len(chat.messages))
    return text_tokenizer(tokenizer).literal.unmark(text)


def _is_plain(tokenizer: PreTrainedTokenizerBase, chat: Chat, stop_texts: Sequence[str]) -> bool:
    """Return whether a chat is text alone, with nothing in it that templates look for."""
    literal = text_tokenizer(tokenizer).literal
    return not chat.tools and all(
        len(message) == 2
        and not literal.has_mark_of_template(message["content"])
        and not any(stop in message["content"] for stop in stop_texts)
        for message in chat.messages
    )


@lru_cache(maxsize=8)
def _skeletons(
    tokenizer: PreTrainedTokenizerBase, template: str, stop_texts: tuple[str, ...]
) -> Skeletons:
    """Return the skeletons of a tokenizer's template."""
    return Skeletons(
        lambda chat: _Renderer.of(tokenizer, chat, stop_texts).split(),
        lambda chat: render_chat(tokenizer, chat.messages, add_generation_prompt=False),
    )


@dataclass(frozen=True)
class _Renderer:
    """Renders one chat up to any of its turns."""

    tokenizer: PreTrainedTokenizerBase
    chat: Chat
    support: TemplateSupport
    stop_texts: Sequence[str]

    @classmethod
    def of(
        cls, tokenizer: PreTrainedTokenizerBase, chat: Chat, stop_texts: Sequence[str]
    ) -> _Renderer:
        """Return the renderer of a chat. Raise TrainerError for what the template lacks."""
        chat, support = adapt_chat(tokenizer, chat)
        marked = text_tokenizer(tokenizer).literal.mark_chat(chat)
        return cls(tokenizer, marked, support, stop_texts)

    def split(self) -> list[str]:
        """Return prompts and replies in turn, of the last answer alone if others are rewritten."""
        texts = self.split_all()
        if texts is None:
            last = len(self.chat.messages) - 1
            prompt = self.prompt(last)
            texts = [prompt, self.reply(last, prompt)]
        self._require_all("".join(texts))
        return texts

    def _require_all(self, text: str) -> None:
        """Raise TrainerError if the template left a system or user message out of a text."""
        words = _words(text)
        for message in self.chat.messages:
            content = _words(str(message["content"] or ""))
            if message["role"] not in ("system", "user") or not content:
                continue
            # Both ends: a template may change what is between them.
            if content[:COMPARED_LENGTH] not in words and content[-COMPARED_LENGTH:] not in words:
                raise TrainerError(
                    f"The model's chat template leaves out a {message['role']} message.",
                    fix="leave out what this model does not support (often the system message).",
                )

    def split_all(self) -> list[str] | None:
        """Return prompts and replies in turn; None if the template rewrites one of them."""
        texts: list[str] = []
        rendered = ""
        for index, message in enumerate(self.chat.messages):
            if message["role"] != "assistant":
                continue
            prompt = self.prompt(index)
            if not prompt.startswith(rendered):
                return None
            reply = self.reply(index, prompt)
            texts += [prompt[len(rendered) :], reply]
            rendered = prompt + reply
        return texts

    def prompt(self, end: int) -> str:
        """Return the first `end` messages as the text that an answer follows."""
        return self._render(end, add_generation_prompt=True)

    def _render(self, end: int, *, add_generation_prompt: bool) -> str:
        return render_chat(
            self.tokenizer,
            self.chat.messages[:end],
            tools=self.chat.tools,
            add_generation_prompt=add_generation_prompt,
        )

    def reply(self, index: int, prompt: str) -> str:
        """Return what a model writes after `prompt` as the message at `index`, with its end mark.

        Raise TrainerError if the template renders it so that this is unknown.
        """
        message = self.chat.messages[index]
        full_text = self._render(index + 1, add_generation_prompt=False)
        reply = _text_after(full_text, prompt)
        if reply is None:
            reply = self._reply_in_thought(message, full_text, prompt)
        else:
            reply = self._with_thought(message, reply)
        return _cut_after_end(reply, message, self.stop_texts)

    def _reply_in_thought(self, message: Message, full_text: str, prompt: str) -> str:
        """Return the reply where the prompt opens the reasoning, and a past turn does not."""
        for opening, closing in THINK_TAGS:
            before, is_open, rest = prompt.rpartition(opening)
            reply = _text_after(full_text, before) if is_open and not rest.strip() else None
            if reply is None:
                continue
            if reply.lstrip().startswith(opening):
                return reply.lstrip().removeprefix(opening).lstrip()
            thought, _ = _split_thought(message)
            return f"{thought}\n{closing}\n\n" + reply.lstrip("\n")
        if message.get("tool_calls") or "reasoning_content" in message:
            raise TrainerError(
                "The model's chat template renders a turn with tool calls or reasoning so that it"
                " does not follow its prompt: what the model would write is unknown.",
                fix="leave these records out, or choose another base model.",
            )
        # A template may render a prompt and a past turn differently; then the content itself is all
        # that is known of the reply.
        return str(message["content"])

    def _with_thought(self, message: Message, reply: str) -> str:
        """Return the reply with its reasoning, which some templates leave out of past turns."""
        thought, tags = _split_thought(message)
        if not thought or (tags is not None and tags[1] in reply):
            return reply
        if tags is None and self.support.think_tags is None:
            if thought in reply:
                return reply
            raise TrainerError(
                "The model's chat template leaves the reasoning out of a turn that has it.",
                fix="leave these records out, or choose another base model.",
            )
        opening, closing = tags or self.support.think_tags or THINK_TAGS[0]
        return f"{opening}\n{thought}\n{closing}\n\n" + reply.lstrip("\n")


def _words(text: str) -> str:
    """Return a text's letters and digits alone: templates trim, escape and change case."""
    return NO_WORD.sub("", text).casefold()


def _text_after(full_text: str, prompt: str) -> str | None:
    """Return what follows `prompt` in a text that holds it, perhaps with a rewritten beginning."""
    if full_text.startswith(prompt):
        return full_text[len(prompt) :]
    anchor = prompt[-ANCHOR_LENGTH:]
    at = full_text.rfind(anchor) if len(prompt) > ANCHOR_LENGTH else -1
    return None if at < 0 else full_text[at + len(anchor) :]


def _split_thought(message: Message) -> tuple[str, tuple[str, str] | None]:
    """Return the reasoning of a message, "" if it has none, and the tags around it in a text."""
    if "reasoning_content" in message:
        return message["reasoning_content"].strip(), None
    content = (message["content"] or "").lstrip()
    for opening, closing in THINK_TAGS:
        if content.startswith(opening) and closing in content:
            return content.removeprefix(opening).partition(closing)[0].strip(), (opening, closing)
    return "", None


def _cut_after_end(reply: str, message: Message, stop_texts: Sequence[str]) -> str:
    """Return a reply up to its end mark, which is added if the template writes none.

    An end mark inside the message does not end it: so many are passed over.
    """
    if not stop_texts:
        return reply
    calls = message.get("tool_calls") or ()
    parts = [
        message.get("reasoning_content", ""),
        message["content"] or "",
        *(json.dumps(call["function"], ensure_ascii=False) for call in calls),
    ]
    inside = sum(part.count(stop) for part in parts for stop in stop_texts)
    ends = sorted(at + len(stop) for stop in stop_texts for at in _find_all(reply, stop))
    return reply[: ends[inside]] if len(ends) > inside else reply + stop_texts[0]


def _find_all(text: str, part: str) -> list[int]:
    positions, at = [], text.find(part)
    while at >= 0:
        positions.append(at)
        at = text.find(part, at + len(part))
    return positions


def find_stop_tokens(
    tokenizer: PreTrainedTokenizerBase, generation_config: GenerationConfig | None
) -> list[int]:
    """Return the token ids that end an answer, the tokenizer's own first.

    Raise TrainerError if there is none.
    """
    configured = generation_config.eos_token_id if generation_config else None
    others = configured if isinstance(configured, list) else [configured]
    ids = [i for i in [tokenizer.eos_token_id, *others] if i is not None]
    if not ids:
        raise TrainerError(
            "The model's tokenizer has no end-of-sequence token, so an answer could never end.",
            fix="set eos_token in the model's tokenizer_config.json.",
        )
    return list(dict.fromkeys(ids))
