"""A chat template as the texts between messages, where it is no more than that.

The template itself is run on short chats. What it writes between one role's message and the next
one's must then make the prompts of longer chats too. Ollama's templates, which are Go's, are
written from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

Chat = Sequence[Mapping[str, str]]
Render = Callable[[Chat], str]
"""Renders a chat with the prompt for an answer. It may raise what the template raises."""
Turns = dict[tuple[str, str], str]
"""The text between two messages by their roles: START before the first, END after the last."""

START, END = "", "end"
SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
_CONTENTS = ("Sqrxy1", "Uvwzk2", "Ajbhe3", "Nmcfd4", "Bgplt5", "Ksdrw6")
"""What no template writes by itself, and none changes."""
_TESTED: tuple[tuple[str, ...], ...] = (
    (USER,),
    (USER, ASSISTANT, USER, ASSISTANT, USER),
    (SYSTEM, USER, ASSISTANT, USER),
    (SYSTEM, USER, ASSISTANT, USER, ASSISTANT, USER),
)


def find_turns(render: Render, bos: str | None) -> Turns | None:
    """Return the texts of a template; None if it does more than write them between messages.

    `bos` is left out at the beginning, where the reader of a prompt puts it. A template that
    refuses a system message has no texts beside one.
    """
    try:
        turns = _learn(render, (USER, ASSISTANT, USER), bos or "")
        turns |= _learn_system(render, bos or "")
        for shape in _TESTED if (START, SYSTEM) in turns else _TESTED[:2]:
            chat = _make_chat(shape)
            if render(chat).removeprefix(bos or "") != join_turns(turns, chat):
                return None
    except Exception:
        return None  # a template raises what it likes
    return turns


def _learn_system(render: Render, bos: str) -> Turns:
    try:
        return _learn(render, (SYSTEM, USER), bos)
    except Exception:
        return {}


def join_turns(turns: Turns, chat: Chat) -> str:
    """Return the prompt of a chat."""
    text, last = "", START
    for message in chat:
        text += turns[last, message["role"]] + message["content"]
        last = message["role"]
    return text + turns[last, END]


def keeps_blanks(render: Render, turns: Turns, bos: str | None) -> bool:
    """Return whether a template writes a message with the blanks around it."""
    chat = [{"role": USER, "content": f" {_CONTENTS[0]}\n"}]
    return render(chat).removeprefix(bos or "") == join_turns(turns, chat)


def _make_chat(roles: Sequence[str]) -> Chat:
    return [
        {"role": role, "content": content} for role, content in zip(roles, _CONTENTS, strict=False)
    ]


def _learn(render: Render, roles: Sequence[str], bos: str) -> Turns:
    """Return the texts between the messages of one chat. Raise ValueError if one is not there."""
    rest = render(_make_chat(roles)).removeprefix(bos)
    turns, last = {}, START
    for role, content in zip(roles, _CONTENTS, strict=False):
        text, found, rest = rest.partition(content)
        if not found:
            raise ValueError(content)
        turns[last, role], last = text, role
    turns[last, END] = rest
    return turns
