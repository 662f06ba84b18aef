"""Preference data, and other records that no customization type here trains on: named, refused.

Which answer is the better one is never guessed. Where a record says it (`chosen`), the remedy
trains on that answer alone; where it does not, a person decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from cloudft.data.formats.record import BadRecord, Conversation, RawRecord
from cloudft.data.formats.record_format import Keys, RecordFormat, describe_keys

PROMPT_KEYS = ("prompt", "question", "instruction", "query", "input", "messages", "conversations")
FURTHER_KEYS = (*PROMPT_KEYS, "system", "context", "score", "history", "tools", "margin")


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
    message = f"preference pairs ({names}): no customization type here trains on them yet"
    raise BadRecord("PreferencePairs", message, _pair_fix(pair, value), pair.keys[0])


def _pair_fix(pair: _PairKeys, value: RawRecord) -> str:
    if pair.better is None:
        return (
            "decide which answer is to be learned, and write it as 'completion' beside 'prompt':"
            " cloudft never picks a winner"
        )
    answer = value.get(pair.better)
    prompt = next((key for key in PROMPT_KEYS if value.get(key) not in (None, "", [])), None)
    if isinstance(answer, list) and len(answer) > 1:
        columns = f"messages: {pair.better}"
    elif prompt is None or not isinstance(value.get(prompt), str) or not isinstance(answer, str):
        return f"to learn the better answers alone, write chats that end with {pair.better!r}"
    else:
        columns = f"prompt: {prompt}, completion: {pair.better}"
    return f"to learn the better answers alone: data.columns: {{{columns}}}"


def _is_kto(value: RawRecord) -> bool:
    """Return whether the label is true or false: whether the completion is a good one."""
    return any(isinstance(value.get(key), bool) for key in ("label", "kto_tag"))


def _refuse_kto(value: RawRecord) -> Conversation:
    message = (
        "answers marked as good or bad ('label': true or false, as KTO has them): no customization"
        " type here trains on them yet"
    )
    fix = "keep the records whose label is true, and take the label out"
    raise BadRecord("UnpairedPreferences", message, fix, "label")


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
