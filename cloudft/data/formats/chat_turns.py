"""Make turns of a chat's messages: join them, pair tool calls with results, check the order.

Bedrock requires that turns alternate, the user's first and the assistant's last (user guide,
"Prepare your training datasets for fine-tuning"). Tool results count as the user's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cloudft.data.formats.chat_roles import ROLES
from cloudft.data.formats.record import BadRecord, Block, ToolCall, ToolResult, Turn


class ChatMessage(NamedTuple):
    """A message before turns are made of it. `role` is a key of ROLES."""

    role: str
    content: tuple[Block, ...]
    is_learned: bool
    written_role: str

    @property
    def is_call(self) -> bool:
        """Return whether the message is ShareGPT's turn of a tool call alone."""
        return self.written_role.lower() in ROLES["call"]


def to_turns(messages: Sequence[ChatMessage], key: str) -> list[Turn]:
    """Return the messages as turns: tool results that follow each other are one turn.

    A user's text right after tool results belongs to their turn, and a call right after an
    assistant's text to its turn, as Converse has them.
    """
    if all(m.role in ("user", "assistant") and not m.is_call for m in messages):
        return [Turn(m.role, m.content, m.is_learned) for m in messages]
    turns: list[Turn] = []
    last = None
    for index, message in enumerate(messages):
        if message.role == "system":
            text = f"{key}[{index}] has the role {message.written_role!r}, after other turns"
            fix = "keep one system message, the first; join later ones to it"
            raise BadRecord("BadTurns", text, fix, f"{key}[{index}]")
        role = "user" if message.role == "tool" else message.role
        joins = (message.role in ("tool", "user") and last == "tool") or (
            message.is_call and last in ("assistant", "call")
        )
        if joins and turns and turns[-1].role == role:
            before = turns.pop()
            turns.append(Turn(role, (*before.content, *message.content), before.is_learned))
        else:
            turns.append(Turn(role, message.content, message.is_learned))
        last = "tool" if message.role == "tool" else message.role
    return turns


def name_calls(turns: Iterable[Turn]) -> tuple[Turn, ...]:
    """Return the turns with an id for each call, and the same one for its result.

    Raises BadRecord for a result without its call, and for a call that the conversation leaves
    without a result. The last call may have none: it is what the model learns to write.
    """
    turns = tuple(turns)
    if not any(isinstance(block, (ToolCall, ToolResult)) for t in turns for block in t.content):
        return turns
    named: list[Turn] = []
    open_calls: list[ToolCall] = []
    count = 0
    for role, content, is_learned in turns:
        blocks: list[Block] = []
        for block in content:
            if isinstance(block, ToolCall):
                count += 1
                block = ToolCall(block.id or f"call_{count}", block.name, block.arguments)
                open_calls.append(block)
            elif isinstance(block, ToolResult):
                block = _answer_call(block, open_calls)
            blocks.append(block)
        if role == "user" and open_calls:
            # The APIs of OpenAI and Bedrock refuse such a conversation, too.
            message = f"the tool call {open_calls[0].name[:40]!r} has no result after it"
            fix = "put its result right after the call, with the call's id, or take the record out"
            raise BadRecord("BadTurns", message, fix)
        named.append(Turn(role, tuple(blocks), is_learned))
    return tuple(named)


def _answer_call(result: ToolResult, open_calls: list[ToolCall]) -> ToolResult:
    """Return a result with the id and name of its call: that of its id, else the first open one."""
    call = next((c for c in open_calls if result.id and c.id == result.id), None)
    if call is None and not result.id:
        call = next((c for c in open_calls if result.name in ("", c.name)), None)
    if call is None:
        what = repr(result.id[:40] or result.name[:40])
        fix = "put the assistant's tool call before its result, with the same id"
        raise BadRecord("BadTurns", f"the tool result {what} has no call before it", fix)
    open_calls.remove(call)
    return ToolResult(call.id, result.content, call.name, result.is_error)


_UNANSWERED_FIX = (
    "give it a question and its answer, or take the record out; a file of questions alone is for"
    " DISTILLATION, where a teacher answers, or REINFORCEMENT_FINE_TUNING, where a grader judges"
)


def check_order(turns: Sequence[Turn], key: str, *, allow_open_end: bool) -> None:
    """Raise BadRecord unless user and assistant alternate, and begin and end as they should."""
    for index, turn in enumerate(turns):
        expected = "assistant" if index % 2 else "user"
        if turn.role != expected:
            raise _wrong_turn(index, turn.role, key)
    if allow_open_end and turns:
        return
    if len(turns) < 2 or len(turns) % 2:
        message = f"{len(turns)} turns: the last one must be the assistant's"
        fix = "`cloudft check --fix DIR --turns cut` cuts what the user says last"
        if len(turns) < 2:
            message = "a question without an answer" if turns else "no turn of a user"
            fix = _UNANSWERED_FIX
        raise BadRecord("BadTurns", message, fix, key)


def _wrong_turn(index: int, role: str, key: str) -> BadRecord:
    if index == 0:
        message = f"the first turn is the {role}'s; a conversation begins with the user"
        fix = (
            "`cloudft check --fix DIR --turns move` moves it into the system prompt,"
            " `cloudft check --fix DIR --turns cut` leaves it out"
        )
    else:
        message = f"turn {index + 1} has the role {role!r}, as the turn before it"
        fix = "`cloudft check --fix DIR --turns join` joins the two"
    return BadRecord("BadTurns", message, fix, key)
