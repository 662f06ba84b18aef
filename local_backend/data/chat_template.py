"""From a staged record to the text the model sees, and which part of it is learned.

One rendering serves training, validation and generation: `turns` cuts a conversation into pieces of
text, each marked as learned or not, and each piece is tokenised by itself, so that at generation
the prompt has the very tokens it had at training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from local_backend.errors import TrainerError

Message = dict[str, str]
Segment = tuple[str, bool]
"""A piece of text, and whether its tokens carry loss."""

PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}\n\n"
    "{% elif message['role'] == 'user' %}### Instruction:\n{{ message['content'] }}\n\n"
    "{% else %}### Response:\n{{ message['content'] }}{{ eos_token }}\n\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
)
"""For base models that come without a chat template; saved with the tuned model."""


def ensure_chat_template(tokenizer: Any) -> bool:
    """Give `tokenizer` the plain template if it has none. True if it was given."""
    if tokenizer.chat_template:
        return False
    tokenizer.chat_template = PLAIN_TEMPLATE
    return True


def to_messages(record: Mapping[str, Any], format: str) -> list[Message]:
    """A canonical supervised record as plain chat messages, the system's first."""
    if format == "prompt-completion":
        return [
            {"role": "user", "content": record["prompt"]},
            {"role": "assistant", "content": record["completion"]},
        ]
    system = content_text(record.get("system") or [])
    head = [{"role": "system", "content": system}] if system else []
    return head + [
        {"role": turn["role"], "content": content_text(turn["content"])}
        for turn in record["messages"]
    ]


def content_text(content: str | Sequence[Mapping[str, Any]]) -> str:
    """The text of a content field: a string, or Bedrock's list of text blocks."""
    return content if isinstance(content, str) else "\n".join(block["text"] for block in content)


def render_chat(tokenizer: Any, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
    """The chat template's text; with `reply_next` it ends where the assistant begins."""
    try:
        text: str = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except TemplateError as error:
        raise TrainerError(
            f"The model's chat template refuses these messages: {error}.",
            fix="leave out what this model does not know (often the system message).",
        ) from error
    return text


def split_turns(tokenizer: Any, messages: Sequence[Message], stops: Sequence[str]) -> list[Segment]:
    """The conversation as pieces: every assistant turn learned, up to and including its end mark.

    A template that rewrites earlier turns (some drop past reasoning) leaves only the last assistant
    turn to learn, because only that one is seen at generation as it was at training.
    """
    pieces: list[Segment] = []
    done = ""
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = render_chat(tokenizer, messages[:index], add_generation_prompt=True)
        if not prompt.startswith(done):
            return split_last_turn(tokenizer, messages, stops)
        reply = render_reply(tokenizer, messages[: index + 1], prompt, stops)
        pieces += [(prompt[len(done) :], False), (reply, True)]
        done = prompt + reply
    return pieces


def split_prompt(tokenizer: Any, messages: Sequence[Message], stops: Sequence[str]) -> list[str]:
    """A conversation that waits for its answer, cut where `turns` cuts it."""
    earlier = [text for text, _ in split_turns(tokenizer, messages, stops)]
    prompt = render_chat(tokenizer, messages, add_generation_prompt=True)
    done = "".join(earlier)
    return [*earlier, prompt[len(done) :]] if prompt.startswith(done) else [prompt]


def split_last_turn(
    tokenizer: Any, messages: Sequence[Message], stops: Sequence[str]
) -> list[Segment]:
    """The whole conversation as prompt, its last turn learned."""
    prompt = render_chat(tokenizer, messages[:-1], add_generation_prompt=True)
    return [(prompt, False), (render_reply(tokenizer, messages, prompt, stops), True)]


def render_reply(
    tokenizer: Any, messages: Sequence[Message], prompt: str, stops: Sequence[str]
) -> str:
    """What the template writes for the last message, cut behind its end mark."""
    content = messages[-1]["content"]
    whole = render_chat(tokenizer, messages, add_generation_prompt=False)
    reply = whole[len(prompt) :] if whole.startswith(prompt) else content
    ends = [at + len(stop) for stop in stops if (at := reply.find(stop, len(content.strip()))) >= 0]
    return reply[: min(ends)] if ends else reply + stops[0]


def find_stop_tokens(tokenizer: Any, generation_config: Any) -> list[int]:
    """The token ids that end an answer, the tokenizer's own first."""
    configured = generation_config.eos_token_id if generation_config else None
    more = configured if isinstance(configured, list) else [configured]
    ids = [i for i in [tokenizer.eos_token_id, *more] if i is not None]
    if not ids:
        raise TrainerError(
            "The model's tokenizer has no end-of-sequence token, so an answer could never end.",
            fix="set eos_token in the model's tokenizer_config.json.",
        )
    return list(dict.fromkeys(ids))
