"""The names that tools give the roles of a chat, and which role each is read as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloudft.data.formats.record import RawRecord

ROLES = {
    "user": ("user", "human", "prompter", "customer", "client"),
    "assistant": ("assistant", "gpt", "chatgpt", "bot", "chatbot", "model", "ai", "agent"),
    "system": ("system", "developer"),
    "tool": ("tool", "function", "observation", "tool_response", "function_response", "ipython"),
    "call": ("function_call", "tool_call"),
}
"""The names that tools give each role, in lower case. `call` is ShareGPT's turn of a tool call."""
ROLE_ALIASES = {alias: role for role, aliases in ROLES.items() for alias in aliases}
ROLE_KEYS = ("role", "from")
_ROLES_SEEN = 100


def _find_roles(values: Sequence[RawRecord], key: str) -> dict[str, str]:
    """Return the roles as they are written, and what each is read as."""
    roles: dict[str, str] = {}
    for value in values[:_ROLES_SEEN]:
        messages = value.get(key)
        for message in messages if isinstance(messages, list) else ():
            written = (
                next((message[k] for k in ROLE_KEYS if isinstance(message.get(k), str)), None)
                if isinstance(message, Mapping)
                else None
            )
            if written is not None:
                role = ROLE_ALIASES.get(written.lower(), "?")
                roles[written] = "assistant" if role == "call" else role
    return roles


def describe_renamed_roles(values: Sequence[RawRecord], key: str) -> str:
    """Return which role is read as which: "human -> user, gpt -> assistant"."""
    roles = _find_roles(values, key)
    return ", ".join(
        written if written == role else f"{written} -> {role}" for written, role in roles.items()
    )
