"""Pairs of answers to one prompt, the better one marked: what preference optimization learns.

Read from the shapes of trl (a prompt beside the answers, or two conversations that begin alike),
OpenAI (`input`, `preferred_output`, `non_preferred_output`: developer guide, "Direct preference
optimization"), Amazon Nova (a last turn of `candidates`: SageMaker developer guide, "DPO"), and of
tools that name the answers otherwise. All are written as one canonical record: the turns before
both answers, then each answer's, as Converse has them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile

from cloudft.data.formats.chat_messages import (
    SYSTEM_KEYS,
    TOOL_KEYS,
    is_message_list,
    parse_messages,
)
from cloudft.data.formats.chat_roles import ROLES
from cloudft.data.formats.chat_writers import (
    converse_message,
    converse_tool_config,
    openai_messages,
    openai_tool,
    refuse_features,
    require_texts_only,
)
from cloudft.data.formats.converse import SCHEMA_VERSION
from cloudft.data.formats.key_roles import may_be_left_out
from cloudft.data.formats.preferences import has_candidates
from cloudft.data.formats.record import (
    BadRecord,
    Conversation,
    JsonObject,
    PreferencePair,
    RawRecord,
    Record,
    Turn,
    require_text,
)
from cloudft.data.formats.record_format import Keys, RecordFormat, describe_keys

NAME, TRL_NAME, OPENAI_NAME, NOVA_NAME = (
    *("preference", "trl-preference", "openai-preference", "nova-preference"),
)
ANSWER_KEYS = (
    ("chosen", "rejected"),
    ("preferred_output", "non_preferred_output"),
    ("chosen_messages", "rejected_messages"),
    ("chosen_response", "rejected_response"),
    ("response_chosen", "response_rejected"),
    ("chosen_answer", "rejected_answer"),
    ("answer_chosen", "answer_rejected"),
    ("preferred", "dispreferred"),
    ("preferred", "rejected"),
    ("winner_response", "loser_response"),
    ("messages", "rejected_response"),
)
"""Keys of the better and the worse answer (trl, OpenAI, LLaMA-Factory, axolotl, ms-swift)."""
PROMPT_KEYS = ("prompt", "question", "instruction", "query", "input", "messages", "conversations")
FEATURES = frozenset({"tools", "reasoning"})
LABELS = ("preferred", "non-preferred")
"""Nova's labels of the two candidates."""
OPENAI_KEYS = ("preferred_output", "non_preferred_output")
UNMARKED_KEYS = frozenset({"completion", "response", "output", "answer"})
"""Keys of one answer: a record with one of them is labeled, whatever else it has."""
_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_JOINED = "conversation"
"""Where the messages of a whole conversation are while it is parsed."""
UNUSED_KEYS = frozenset(
    {"score", "margin", "score_chosen", "score_rejected", "chosen_score", "rejected_score"}
    | {"parallel_tool_calls"}
)
"""Keys beside a pair that say nothing to the model."""


@dataclass(frozen=True)
class _Said:
    """A message, and the field of the record that it is at. A text has no fields of its own."""

    message: object
    field: str
    is_text: bool = False


@dataclass(frozen=True)
class _Side:
    """A whole conversation with one of the answers, which is at `key`."""

    key: str
    said: tuple[_Said, ...]


def parse_unanswered(value: RawRecord) -> PreferencePair | None:
    """Parse a pair in any of the shapes; None for a record that is no marked pair. Raise BadRecord.

    `parse_record` calls it for every record that is staged for preference optimization.
    """
    if has_candidates(value):
        left_out = _left_out(value, {"messages"})
        return replace(_join(value, *_candidate_sides(value)), format=NOVA_NAME, left_out=left_out)
    keys = next((pair for pair in ANSWER_KEYS if set(pair) <= value.keys()), None)
    if keys is None:
        halves = [key for pair in ANSWER_KEYS for key in pair if key != "messages"]
        half = next((key for key in halves if key in value), None)
        if half is not None and not UNMARKED_KEYS & value.keys():
            raise _missing_answer(half)
        return None
    value, joined = _with_one_prompt(value)
    prompts = [key for key in PROMPT_KEYS if value.get(key) not in (None, "", [], {})]
    # UltraFeedback repeats the chosen conversation under `messages`.
    prompts = [key for key in prompts if value[key] != value[keys[0]]]
    if len(prompts) > 1:
        names = " and ".join(map(repr, prompts))
        fix = "keep one of them: what both answers follow"
        raise BadRecord("TwoPrompts", f"two prompts: {names}", fix, prompts[1])
    repeated = [key for key in PROMPT_KEYS if key in value and value[key] == value[keys[0]]]
    left_out = _left_out(value, {*keys, *prompts, *joined, *repeated})
    sides = _answer_sides(value, keys, next(iter(prompts), None))
    name = OPENAI_NAME if keys == OPENAI_KEYS else TRL_NAME
    return replace(_join(value, *sides), format=name, left_out=left_out)


def _with_one_prompt(value: RawRecord) -> tuple[RawRecord, tuple[str, ...]]:
    """Return a record with Alpaca's `input` after the instruction, and the keys that are joined."""
    instruction, further = value.get("instruction"), value.get("input")
    texts = [text for text in (instruction, further) if isinstance(text, str) and text.strip()]
    if len(texts) < len(("instruction", "input")):
        return value, ()
    rest = {key: item for key, item in value.items() if key != "input"}
    return {**rest, "instruction": "\n\n".join(texts)}, ("input",)


def _missing_answer(key: str) -> BadRecord:
    other = next(b if a == key else a for a, b in ANSWER_KEYS if key in (a, b))
    message = f"{key!r} without {other!r}: a pair has a better and a worse answer"
    return BadRecord("WrongKeys", message, f"add {other!r}, or take the record out", key)


def _left_out(value: RawRecord, used: Set[str]) -> tuple[str, ...]:
    """Return the keys beside a pair that say nothing. Raise BadRecord for one that may."""
    read = {*used, *SYSTEM_KEYS, *TOOL_KEYS, "schemaVersion"}
    others = [k for k, item in value.items() if k not in read and item not in (None, "", [], {})]
    for key in others:
        if key not in UNUSED_KEYS and not may_be_left_out(key, value[key]):
            message = f"the key {key[:40]!r} beside a pair may carry meaning"
            fix = f"move what {key[:40]!r} says into the prompt, or take the key out"
            raise BadRecord("UnusedKeys", message, fix, key)
    return tuple(others)


def _answer_sides(value: RawRecord, keys: tuple[str, str], prompt: str | None) -> list[_Side]:
    """Return both conversations: the prompt beside the answers, or at the beginning of each."""
    for key in keys:
        _require_answer(value[key], key)
    if keys[0] == "messages":  # ms-swift's: a chat, and another answer to its last question
        chat = _messages(value, "messages", "user")
        return [_Side(keys[0], chat), _Side(keys[1], (*chat[:-1], *_answer(value, keys[1])))]
    if prompt is not None:
        before = _prompt_messages(value, prompt)
        if _role(before[-1].message) in ROLES["assistant"]:
            message = f"{before[-1].field} is an answer, before the two to compare"
            fix = "end the prompt with the user's turn"
            raise BadRecord("BadTurns", message, fix, before[-1].field)
        return [_Side(k, (*before, *_without_prompt(_answer(value, k), before))) for k in keys]
    texts = [key for key in keys if not is_message_list(value[key])]
    transcripts = {key: _read_transcript(value[key], key) for key in texts}
    if len(texts) == len(keys) and all(transcripts.values()):
        return [_Side(key, said) for key, said in transcripts.items()]
    if texts:
        message = f"no prompt beside {keys[0]!r} and {keys[1]!r}, which are texts"
        fix = "write what both answer as 'prompt'"
        raise BadRecord("NoPrompt", message, fix, texts[0])
    return [_Side(key, _answer(value, key)) for key in keys]


def _read_transcript(text: object, key: str) -> tuple[_Said, ...]:
    """Return the turns of a text as Anthropic's hh-rlhf has them; () for another text."""
    parts = _SPEAKER.split(text) if isinstance(text, str) else []
    if len(parts) < len(("before", "Human", "text")) or parts[0].strip():
        return ()
    return tuple(
        [
            _Said({"role": role.lower(), "content": said.strip()}, key, is_text=True)
            for role, said in zip(parts[1::2], parts[2::2], strict=True)
        ]
    )


def _require_answer(answer: object, key: str) -> None:
    if isinstance(answer, str):
        require_text(answer, repr(key), key)
    elif answer in (None, [], {}):
        message = f"{key!r} is empty: a pair has two answers"
        raise BadRecord("EmptyField", message, "give it text, or take the record out", key)


def _answer(value: RawRecord, key: str) -> tuple[_Said, ...]:
    return _messages(value, key, "assistant")


def _prompt_messages(value: RawRecord, key: str) -> tuple[_Said, ...]:
    """Return the messages that both answer; OpenAI's are within `input`."""
    inner = value[key]
    if not isinstance(inner, Mapping):
        return _messages(value, key, "user")
    if "messages" not in inner:
        raise BadRecord("WrongKeys", f"{key!r} has no 'messages'", "add 'messages'", key)
    said = _messages(inner, "messages", "user")
    return tuple([replace(one, field=f"{key}.{one.field}") for one in said])


def _messages(value: RawRecord, key: str, role: str) -> tuple[_Said, ...]:
    """Return a text, a message or a list of them as messages. Raise BadRecord."""
    said = value[key]
    if isinstance(said, Mapping):
        return (_Said(said, key),)
    if isinstance(said, str) and is_message_list(said):
        import json

        said = json.loads(said)
    if isinstance(said, list) and said:
        return tuple([_Said(message, f"{key}[{at}]") for at, message in enumerate(said)])
    if said == []:
        fix = "give it messages, or take the record out"
        raise BadRecord("EmptyField", f"{key!r} has no messages", fix, key)
    if not isinstance(said, str):
        message = f"{key!r} is neither a text nor a list of messages"
        raise BadRecord("WrongType", message, "write a text, or a list of messages", key)
    text = require_text(said, repr(key), key)
    return (_Said({"role": role, "content": text}, key, is_text=True),)


def _role(message: object) -> object:
    return message.get("role", message.get("from")) if isinstance(message, Mapping) else None


def _without_prompt(answer: tuple[_Said, ...], before: tuple[_Said, ...]) -> tuple[_Said, ...]:
    """Return an answer without the prompt, which some tools (UltraFeedback's) repeat before it."""
    begin = [said.message for said in answer[: len(before)]]
    repeats = len(answer) > len(before) and begin == [said.message for said in before]
    return answer[len(before) :] if repeats else answer


def _candidate_sides(value: RawRecord) -> list[_Side]:
    """Return both conversations of Nova's record: its last turn has two labeled candidates."""
    said = _messages(value, "messages", "user")
    where, last = f"{said[-1].field}.candidates", said[-1].message
    candidates = last["candidates"] if isinstance(last, Mapping) else None
    if not isinstance(candidates, list) or len(candidates) != len(LABELS):
        fix = "write two: one with the preferenceLabel preferred, one non-preferred"
        raise BadRecord("WrongKeys", f"{where} are not two answers", fix, where)
    if _role(last) not in ROLES["assistant"]:
        message = f"{said[-1].field} has candidates, and the role {str(_role(last))[:40]!r}"
        raise BadRecord("BadTurns", message, "write the role assistant", f"{said[-1].field}.role")
    labels = [c.get("preferenceLabel") if isinstance(c, Mapping) else None for c in candidates]
    if sorted(map(str, labels)) != sorted(LABELS):
        message = f"{where} have the preferenceLabels {', '.join(map(repr, labels))}"[:200]
        fix = "give one the preferenceLabel preferred and the other non-preferred"
        raise BadRecord("WrongLabel", message, fix, where)
    sides = []
    for label in LABELS:
        key = f"{where}[{labels.index(label)}]"
        content = candidates[labels.index(label)].get("content")
        if content in (None, "", []):
            raise BadRecord("EmptyField", f"{key} is empty", "give it text", f"{key}.content")
        sides.append(
            _Side(key, (*said[:-1], _Said({"role": "assistant", "content": content}, key)))
        )
    return sides


def _join(value: RawRecord, better: _Side, worse: _Side) -> PreferencePair:
    """Return two conversations as a pair: what they begin with alike is the prompt."""
    inner = value.get("input")
    beside = {**value, **inner} if isinstance(inner, Mapping) else value
    beside = {k: beside[k] for k in (*SYSTEM_KEYS, *TOOL_KEYS) if beside.get(k) is not None}
    chosen, rejected = (_parse_side(side, beside) for side in (better, worse))
    if chosen.turns == rejected.turns and chosen.system == rejected.system:
        message = f"{better.key} and {worse.key} are equal: there is nothing to prefer"
        fix = "write a worse answer, or take the record out"
        raise BadRecord("EqualAnswers", message, fix, worse.key)
    pairs = zip(chosen.turns, rejected.turns, strict=False)
    shared = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
    # Both answers begin with the assistant's turn, at the latest where one conversation ends.
    shared = min(shared, len(chosen.turns) - 1, len(rejected.turns) - 1)
    shared -= shared % 2 == 0
    if chosen.system != rejected.system or shared < 1:
        message = f"{better.key} and {worse.key} do not begin alike: they have no common prompt"
        fix = "let both answer the same prompt, or write it as 'prompt'"
        raise BadRecord("NoPrompt", message, fix, worse.key)
    for side, conversation in ((better, chosen), (worse, rejected)):
        if not all(turn.is_learned for turn in conversation.turns[shared:]):
            message = f"{side.key} has a turn with the weight 0: answers are compared whole"
            raise BadRecord("WrongWeight", message, "take the key 'weight' out", side.key)
    prompt = [turn._replace(is_learned=True) for turn in chosen.turns[:shared]]
    return PreferencePair(
        NAME,
        chosen.system,
        (*prompt, *chosen.turns[shared:]),
        rejected=rejected.turns[shared:],
        prompt_length=shared,
        tools=chosen.tools,
    )


def _parse_side(side: _Side, beside: RawRecord) -> Conversation:
    """Return a conversation. Raise BadRecord with the field as the record has it."""
    try:
        messages = [said.message for said in side.said]
        record = parse_messages({**beside, _JOINED: messages}, NAME, key=_JOINED)
    except BadRecord as bad:
        raise _at_own_place(bad, side) from None
    return record


def _at_own_place(bad: BadRecord, side: _Side) -> BadRecord:
    """Return an error about a message of the joined list at its place in the record."""
    parts = (bad.field or "").split("/")[1:]
    if not parts or parts[0] != _JOINED:
        return bad
    message = bad.message.replace(f"{_JOINED}[", f"{side.key}[")
    if len(parts) == 1 or not parts[1].isdigit():
        return BadRecord(bad.code, message, bad.fix, side.key)
    said = side.said[int(parts[1])]
    message = bad.message.replace(f"{_JOINED}[{parts[1]}]", said.field)
    placed = BadRecord(bad.code, message, bad.fix, said.field)
    if not said.is_text:
        placed.field = "/".join([str(placed.field), *parts[2:]])
    return placed


def write(record: Record) -> JsonObject:
    """Return the canonical pair. Raise BadRecord (WrongTask) for a record with one answer."""
    pair = _require_pair(record)
    value: JsonObject = {}
    if pair.system:
        value["system"] = [{"text": text} for text in pair.system]
    for name, turns in zip(("prompt", "chosen", "rejected"), _parts(pair), strict=True):
        value[name] = [converse_message(turn) for turn in turns]
    if pair.tools:
        value["toolConfig"] = converse_tool_config(pair.tools)
    return value


def _require_pair(record: Record) -> PreferencePair:
    if isinstance(record, PreferencePair):
        return record
    message = "one answer: preference optimization learns from a better and a worse one"
    fix = "set customization_type: FINE_TUNING, or give each prompt 'chosen' and 'rejected'"
    raise BadRecord("WrongTask", message, fix)


def _parts(pair: PreferencePair) -> tuple[tuple[Turn, ...], ...]:
    """Return the turns of the prompt, of the chosen answer and of the rejected one."""
    at = pair.prompt_length
    return pair.turns[:at], pair.turns[at:], pair.rejected


def _openai_parts(pair: PreferencePair, target: str) -> list[list[JsonObject]]:
    refuse_features(pair, target, FEATURES)
    parts = [openai_messages(Conversation(target, (), turns)) for turns in _parts(pair)]
    if pair.system:
        parts[0].insert(0, {"role": "system", "content": "\n".join(pair.system)})
    return parts


def write_trl(record: Record) -> JsonObject:
    """Return the pair as trl's DPOTrainer takes it: messages, with the prompt beside them."""
    pair = _require_pair(record)
    prompt, chosen, rejected = _openai_parts(pair, TRL_NAME)
    value: JsonObject = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    return {**value, "tools": [openai_tool(t) for t in pair.tools]} if pair.tools else value


def write_openai(record: Record) -> JsonObject:
    """Return the pair as OpenAI's fine-tuning API takes it."""
    pair = _require_pair(record)
    prompt, chosen, rejected = _openai_parts(pair, OPENAI_NAME)
    said: JsonObject = {"messages": prompt}
    if pair.tools:
        said["tools"] = [openai_tool(tool) for tool in pair.tools]
    return {"input": said, "preferred_output": chosen, "non_preferred_output": rejected}


def write_nova(record: Record) -> JsonObject:
    """Return the pair as Amazon Nova takes it on SageMaker: texts, one turn an answer."""
    pair = _require_pair(record)
    require_texts_only(pair, NOVA_NAME)
    prompt, *answers = _parts(pair)
    if any(len(turns) != 1 for turns in answers):
        message = "an answer of several turns does not fit into one candidate"
        raise BadRecord("LosesTurns", message, "end both conversations with their first answer")
    value: JsonObject = {"schemaVersion": SCHEMA_VERSION}
    if pair.system:
        value["system"] = [{"text": text} for text in pair.system]
    candidates = [
        {"content": converse_message(turns[0])["content"], "preferenceLabel": label}
        for turns, label in zip(answers, LABELS, strict=True)
    ]
    last = {"role": "assistant", "candidates": candidates}
    return {**value, "messages": [*map(converse_message, prompt), last]}


_COLUMNS = {**{key: key for key in ("prompt", "chosen", "rejected")}, "system": "system"}
_make_format = partial(RecordFormat, parse=None, parse_unanswered=parse_unanswered)

FORMATS = (
    _make_format(
        name=NAME,
        title="pairs of answers",
        keys=Keys(("prompt", "chosen", "rejected"), ("system", "toolConfig")),
        canonical_columns=_COLUMNS,
        describe=describe_keys("prompt", "chosen", "rejected"),
        write=write,
    ),
    _make_format(
        name=TRL_NAME,
        title="pairs of answers (trl)",
        keys=Keys(("chosen", "rejected"), ("prompt", "tools")),
        describe=describe_keys("chosen", "rejected"),
        write=write_trl,
    ),
    _make_format(
        name=OPENAI_NAME,
        title="pairs of answers (OpenAI)",
        keys=Keys(("input", *OPENAI_KEYS)),
        describe=describe_keys(*OPENAI_KEYS),
        write=write_openai,
    ),
    _make_format(
        name=NOVA_NAME,
        title="pairs of answers (Amazon Nova)",
        keys=Keys(("messages",), ("system", "schemaVersion")),
        describe=describe_keys("messages"),
        write=write_nova,
    ),
)
