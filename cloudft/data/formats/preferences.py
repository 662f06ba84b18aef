"""Preference data where one answer is to be learned, and records that no type trains on: refused.

Which answer is the better one is never guessed. Where a record says it (`chosen`), the remedies
train on both answers (preference_pairs.py) or on that one alone; where it does not, a person
decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from cloudft.data.formats.chat_messages import is_message_list
from cloudft.data.formats.columns_line import columns_line
from cloudft.data.formats.pairs import pair_columns
from cloudft.data.formats.record import BadRecord, Conversation, RawRecord
from cloudft.data.formats.record_format import Keys, RecordFormat, describe_keys

PROMPT_KEYS = ("prompt", "question", "instruction", "query", "input", "messages", "conversations")
FURTHER_KEYS = (*PROMPT_KEYS, "system", "context", "score", "history", "tools", "margin")


PAIR_TYPE = "to learn from both answers, set customization_type: PREFERENCE_OPTIMIZATION"
KTO_KEYS = ("label", "kto_tag")
"""Keys of a mark: trl's and LLaMA-Factory's."""


@dataclass(frozen=True)
class _PairKeys:
    """The keys of two answers. `better` is None where neither is marked as the better one."""

    keys: tuple[str, ...]
    better: str | None = None
    further: tuple[str, ...] = ()


_PAIRS = (
    _PairKeys(("chosen", "rejected"), "chosen", ("score_chosen", "score_rejected")),
    _PairKeys(("chosen_messages", "rejected_messages"), "chosen_messages"),
    _PairKeys(("chosen_response", "rejected_response"), "chosen_response"),
    _PairKeys(("response_chosen", "response_rejected"), "response_chosen"),
    _PairKeys(("chosen_answer", "rejected_answer"), "chosen_answer"),
    _PairKeys(("answer_chosen", "answer_rejected"), "answer_chosen"),
    _PairKeys(("preferred_output", "non_preferred_output"), "preferred_output"),
    _PairKeys(("preferred", "dispreferred"), "preferred"),
    _PairKeys(("preferred", "rejected"), "preferred"),
    _PairKeys(("winner_response", "loser_response"), "winner_response"),
    _PairKeys(("response_j", "response_k"), None),
    _PairKeys(("output_1", "output_2"), None, ("preference", "winner", "label")),
    _PairKeys(("completion_a", "completion_b"), None, ("preference", "winner", "label")),
    _PairKeys(("response_a", "response_b"), None, ("preference", "winner", "label")),
    _PairKeys(("response_0", "response_1"), None, ("better_response_id", "safer_response_id")),
    _PairKeys(("response_1", "response_2"), None, ("preference", "winner", "label")),
    _PairKeys(("answer_a", "answer_b"), None, ("preference", "winner", "label")),
    _PairKeys(("conversation_a", "conversation_b"), None, ("preference", "winner", "label")),
    _PairKeys(("generations", "ratings"), None, ("ratings",)),
    _PairKeys(("messages", "rejected_response"), "messages"),
)
"""The layouts of trl, OpenAI, LLaMA-Factory, axolotl, Alpaca, PKU-SafeRLHF and StackExchange."""


def _make_format(pair: _PairKeys) -> RecordFormat:
    return RecordFormat(
        name="preference-pairs" if pair is _PAIRS[0] else f"preference-pairs-{'-'.join(pair.keys)}",
        title="preference pairs",
        keys=Keys(pair.keys, (*FURTHER_KEYS, *pair.further)),
        parse=partial(_refuse_pair, pair),
        describe=describe_keys(*pair.keys),
        rewrite_as="messages",
        is_trained_on=False,
    )


def _refuse_pair(pair: _PairKeys, value: RawRecord) -> Conversation:
    names = " and ".join(map(repr, pair.keys))
    if pair.better is None:
        message = f"preference pairs ({names}), which do not say which answer is the better one"
        fix = f"{_pair_fix(pair, value)}; or write them as 'chosen' and 'rejected', for pairs"
    else:
        message = f"preference pairs ({names}): two answers, where one is to be learned"
        fix = f"{PAIR_TYPE}; {_pair_fix(pair, value)}"
    raise BadRecord("PreferencePairs", message, fix, pair.keys[0])


def _refuse_candidates(value: RawRecord) -> Conversation:
    message = (
        "preference pairs (Amazon Nova's 'candidates'): two answers, where one is to be learned"
    )
    fix = f"{PAIR_TYPE}; to learn the better answers alone, write chats that end with them"
    raise BadRecord("PreferencePairs", message, fix, "messages")


def _pair_fix(pair: _PairKeys, value: RawRecord) -> str:
    if pair.better is not None:
        columns = _columns_with(pair.better, value)
        if columns is None:
            return f"to learn the better answers alone, write chats that end with {pair.better!r}"
        return f"to learn the better answers alone: {columns_line(columns)}"
    by_key = [_columns_with(key, value) for key in pair.keys]
    lines = [columns_line(columns) for columns in by_key if columns]
    # A record that says which one won is another choice in each record, which no column makes.
    if len(lines) == len(pair.keys) and not any(key in value for key in pair.further):
        return f"decide which is to be learned in every record: {' or '.join(lines)}"
    return (
        "decide which answer is to be learned, and write it as 'completion' beside 'prompt':"
        " cloudft never picks a winner"
    )


def _columns_with(answer_key: str, value: RawRecord) -> dict[str, str] | None:
    """Return the columns that read an answer as the one to learn; None if they can't."""
    answer = value.get(answer_key)
    if answer_key == "messages" or (is_message_list(answer) and len(list(_items(answer))) > 1):
        return {"messages": answer_key}
    prompt = next((key for key in PROMPT_KEYS if value.get(key) not in (None, "", [])), None)
    texts = [value.get(prompt), answer] if prompt is not None else [None]
    if prompt is None or not all(isinstance(t, str) or is_message_list(t) for t in texts):
        return None
    if not all(isinstance(text, str) for text in texts):
        return {"prompt": prompt, "completion": answer_key}
    names = pair_columns(prompt, answer_key)
    return {name: key for key, name in names.items() if key in value}


def has_candidates(value: RawRecord) -> bool:
    """Return whether a record is Amazon Nova's pair: its last message has candidates."""
    messages = value.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    return isinstance(last, Mapping) and "candidates" in last


def _items(answer: object) -> Sequence[object]:
    return answer if isinstance(answer, list) else ()


def _is_kto(value: RawRecord) -> bool:
    """Return whether the label is true or false: whether the completion is a good one."""
    return any(isinstance(value.get(key), bool) for key in KTO_KEYS)


def _refuse_kto(value: RawRecord) -> Conversation:
    key = next(key for key in KTO_KEYS if isinstance(value.get(key), bool))
    message = (
        f"answers marked as good or bad ({key!r}: true or false, as KTO has them): no customization"
        " type here trains on them yet"
    )
    command = f"jq -c 'select(.{key}) | del(.{key})' FILE > GOOD.jsonl"
    fix = f"keep the records whose {key} is true, and take the key {key} out: {command}"
    raise BadRecord("UnpairedPreferences", message, fix, key)


def _make_kto(keys: Sequence[str], name: str) -> RecordFormat:
    return RecordFormat(
        name=name,
        title="answers marked as good or bad (KTO)",
        keys=Keys(tuple(keys), (*FURTHER_KEYS, "label", "kto_tag")),
        parse=_refuse_kto,
        recognizes=_is_kto,
        describe=describe_keys(*keys),
        is_trained_on=False,
    )


def _refuse_token_ids(value: RawRecord) -> Conversation:
    message = "token ids ('input_ids'), not texts: they fit one tokenizer alone, and hide the text"
    fix = "name the file that they were made from"
    raise BadRecord("TokenizedData", message, fix, "input_ids")


def _holds_numbers(key: str, value: Mapping[str, object]) -> bool:
    item = value[key]
    return isinstance(item, list) and bool(item) and all(isinstance(i, int) for i in item[:5])


CANDIDATES_FORMAT = RecordFormat(
    name="preference-candidates",
    title="preference pairs",
    keys=Keys(("messages",), ("system", "tools", "toolConfig", "schemaVersion")),
    parse=_refuse_candidates,
    recognizes=has_candidates,
    describe=describe_keys("messages"),
    rewrite_as="messages",
    is_trained_on=False,
)
"""Registered before the chats, whose keys it has."""
FORMATS = (
    *map(_make_format, _PAIRS),
    _make_kto(("prompt", "completion", "label"), "unpaired-preferences"),
    _make_kto(("messages", "label"), "unpaired-preferences-messages"),
    _make_kto(("messages", "kto_tag"), "unpaired-preferences-kto_tag"),
    _make_kto(("instruction", "output", "kto_tag"), "unpaired-preferences-alpaca"),
    _make_kto(("conversations", "kto_tag"), "unpaired-preferences-sharegpt"),
    RecordFormat(
        name="token-ids",
        title="token ids",
        keys=Keys(("input_ids",), ("attention_mask", "labels", "token_type_ids", "position_ids")),
        parse=_refuse_token_ids,
        recognizes=partial(_holds_numbers, "input_ids"),
        describe=describe_keys("input_ids"),
        is_trained_on=False,
    ),
)
