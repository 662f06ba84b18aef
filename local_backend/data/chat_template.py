"""Render staged records as the text that the model sees, and mark which part carries loss.

Training, validation and generation use one rendering. `split_turns` splits a conversation into
segments, each with or without loss, and each segment is tokenized by itself. So at generation the
prompt has exactly the tokens that it had at training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict, cast

from jinja2.exceptions import TemplateError

from local_backend.errors import TrainerError

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase

Record = Mapping[str, object]
"""A canonical record, as JSON has it."""
Message = dict[str, str]
"""A chat message: `role` and `content`."""
Segment = tuple[str, bool]
"""A piece of text, and whether its tokens carry loss."""

PLAIN_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}\n\n"
    "{% elif message['role'] == 'user' %}### Instruction:\n{{ message['content'] }}\n\n"
    "{% else %}### Response:\n{{ message['content'] }}{{ eos_token }}\n\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
)
"""For base models without a chat template; saved with the tuned model."""


class TextBlock(TypedDict):
    """A content block of Bedrock's Converse API."""

    text: str


class Turn(TypedDict):
    """A message of the Converse API; some formats have a string as its content."""

    role: str
    content: str | list[TextBlock]


class Conversation(TypedDict, total=False):
    """A canonical supervised record in the format `converse`."""

    system: list[TextBlock]
    messages: list[Turn]


@dataclass(frozen=True)
class RecordFormat:
    """What rendering a staged record needs: its format, the tokenizer, the stop tokens as text."""

    name: str
    tokenizer: PreTrainedTokenizerBase
    stop_texts: Sequence[str]


def ensure_chat_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Set the plain template on `tokenizer` if it has none. Return True if it was set."""
    if tokenizer.chat_template:
        return False
    tokenizer.chat_template = PLAIN_TEMPLATE
    return True


def to_messages(record: Record, format_name: str) -> list[Message]:
    """Return a canonical supervised record as chat messages, the system message first."""
    if format_name == "prompt-completion":
        return [
            {"role": "user", "content": str(record["prompt"])},
            {"role": "assistant", "content": str(record["completion"])},
        ]
    conversation = cast(Conversation, record)
    system = content_text(conversation.get("system") or [])
    messages = [{"role": "system", "content": system}] if system else []
    return messages + [
        {"role": turn["role"], "content": content_text(turn["content"])}
        for turn in conversation["messages"]
    ]


def content_text(content: str | Sequence[TextBlock]) -> str:
    """Return the text of a content field: a string, or Bedrock's list of text blocks."""
    return content if isinstance(content, str) else "\n".join(block["text"] for block in content)


def render_chat(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool,
) -> str:
    """Return the chat template's text.

    With `add_generation_prompt` it ends where the answer begins. Raise TrainerError if the template
    refuses the messages.
    """
    try:
        text = tokenizer.apply_chat_template(
            list(messages), tokenize=False, add_generation_prompt=add_generation_prompt
        )
    except TemplateError as error:
        raise TrainerError(
            f"The model's chat template refuses these messages: {error}.",
            fix="leave out what this model does not support (often the system message).",
        ) from error
    return str(text)


def split_turns(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], stop_texts: Sequence[str]
) -> list[Segment]:
    """Split a conversation into segments: every assistant turn carries loss, its end mark included.

    Some templates rewrite earlier turns (for example, drop past reasoning). Then only the last
    assistant turn carries loss, because only that one looks the same at generation as at training.
    """
    segments: list[Segment] = []
    rendered = ""
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        prompt = render_chat(tokenizer, messages[:index], add_generation_prompt=True)
        if not prompt.startswith(rendered):  # the template has rewritten an earlier turn
            return split_last_turn(tokenizer, messages, stop_texts)
        reply = render_reply(tokenizer, messages[: index + 1], prompt, stop_texts)
        segments += [(prompt[len(rendered) :], False), (reply, True)]
        rendered = prompt + reply
    return segments


def split_prompt(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], stop_texts: Sequence[str]
) -> list[str]:
    """Split a conversation that awaits its answer where `split_turns` would split it."""
    earlier = [text for text, _ in split_turns(tokenizer, messages, stop_texts)]
    prompt = render_chat(tokenizer, messages, add_generation_prompt=True)
    rendered = "".join(earlier)
    return [*earlier, prompt[len(rendered) :]] if prompt.startswith(rendered) else [prompt]


def split_last_turn(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], stop_texts: Sequence[str]
) -> list[Segment]:
    """Return the whole conversation as prompt, with loss on its last turn only."""
    prompt = render_chat(tokenizer, messages[:-1], add_generation_prompt=True)
    return [(prompt, False), (render_reply(tokenizer, messages, prompt, stop_texts), True)]


def render_reply(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    prompt: str,
    stop_texts: Sequence[str],
) -> str:
    """Return what the template writes for the last message, cut after its end mark."""
    content = messages[-1]["content"]
    full_text = render_chat(tokenizer, messages, add_generation_prompt=False)
    # A template may render a prompt and a past turn differently; then the content itself is all
    # that is known of the reply.
    reply = full_text[len(prompt) :] if full_text.startswith(prompt) else content
    # An end mark inside the answer does not end it, so the search begins after the content.
    first = len(content.strip())
    ends = [at + len(stop) for stop in stop_texts if (at := reply.find(stop, first)) >= 0]
    return reply[: min(ends)] if ends else reply + stop_texts[0]


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
