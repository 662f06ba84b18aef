"""Texts that annotation tools marked up, and data of other tasks: named, and refused.

Spans, a label for each word, accepted and rejected labels, questions about passages and pairs for
a search model have no single answer in words, so none is made up. The remedy is a line that writes
pairs of them; a person decides whether that is what the model should learn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from cloudft.data.formats.nested_records import jq_command
from cloudft.data.formats.record import BadRecord, Conversation, RawRecord
from cloudft.data.formats.record_format import Keys, RecordFormat, describe_keys

DECISIONS = frozenset({"accept", "reject", "ignore"})
PRODIGY_KEYS = ("_input_hash", "_task_hash", "_view_id", "_session_id", "_timestamp")
FURTHER_KEYS = ("id", "meta", "metadata", "answer", "label", "labels", *PRODIGY_KEYS)
SPAN_KEYS = ("spans", "entities", "annotations", "annotation", "label", "labels")
WORD_KEYS = ("tokens", "words")
WORD_LABEL_KEYS = ("ner_tags", "ner", "tags", "labels", "bio_tags", "pos_tags", "pos")
RETRIEVAL_KEYS = (("query", "positive"), ("anchor", "positive"), ("query", "pos"))
LIST_KEYS = (("input", "output"), ("questions", "answers"), ("prompts", "responses"))


@dataclass(frozen=True)
class _Refusal:
    """What a record is, and the remedy that fits its keys."""

    code: str
    message: str
    fix: Callable[[RawRecord], str]
    field: str

    def refuse(self, value: RawRecord) -> Conversation:
        """Raise BadRecord."""
        raise BadRecord(self.code, self.message, self.fix(value), self.field)


def _make_format(
    name: str, title: str, keys: Keys, recognizes: Callable[[RawRecord], bool], refusal: _Refusal
) -> RecordFormat:
    return RecordFormat(
        name=name,
        title=title,
        keys=keys,
        parse=refusal.refuse,
        recognizes=recognizes,
        describe=describe_keys(*keys.required),
        is_trained_on=False,
    )


def _is_prodigy(value: Mapping[str, object]) -> bool:
    """Return whether a record is Prodigy's: a decision about a task, which it numbers."""
    return value.get("answer") in DECISIONS and any(key in value for key in PRODIGY_KEYS)


def _only_accepted(value: RawRecord) -> str:
    return 'select(.answer == "accept") | ' if _is_prodigy(value) else ""


def _is_span(item: object) -> bool:
    """Return whether an item marks a part of a text: by its offsets, under any tool's names."""
    if isinstance(item, list):
        return len(item) == 3 and all(isinstance(i, int) for i in item[:2])
    if not isinstance(item, dict):
        return False
    inner = item.get("points")
    if isinstance(inner, list) and inner:
        return _is_span(inner[0])
    return any(isinstance(item.get(key), int) for key in ("start", "start_offset"))


def _holds_spans(key: str, value: Mapping[str, object]) -> bool:
    items = value[key]
    if not isinstance(items, list):
        return False
    return all(map(_is_span, items)) if items else key == "spans" and _is_prodigy(value)


def _spans_fix(text: str, key: str, value: RawRecord) -> str:
    """Return the line that makes a list of labels and their texts the answer."""
    items = value[key]
    first = items[0] if isinstance(items, list) and items else {"start": 0, "label": ""}
    if isinstance(first, list):
        span = "{label: .[2], text: $t[.[0]:.[1]]}"
    elif "points" in first:
        span = "{label: .label[0], text: .points[0].text}"
    else:
        suffix = "_offset" if "start_offset" in first else ""
        label = next((name for name in ("label", "entity", "type") if name in first), "label")
        span = f"{{label: .{label}, text: $t[.start{suffix}:.end{suffix}]}}"
    program = (
        f"{_only_accepted(value)}.{text} as $t"
        f" | {{prompt: $t, completion: ([.{key}[] | {span}] | tojson)}}"
    )
    return f"to learn to list them: {jq_command(program)}"


def _make_spans(text: str, key: str) -> RecordFormat:
    message = (
        f"texts with marked parts ({key!r}: where each begins and ends): an annotation tool's"
        " export, not answers"
    )
    further = [name for name in ("tokens", "relations", *FURTHER_KEYS) if name != key]
    return _make_format(
        f"spans-{text}-{key}",
        "texts with marked parts",
        Keys((text, key), tuple(further)),
        partial(_holds_spans, key),
        _Refusal("MarkedTexts", message, partial(_spans_fix, text, key), key),
    )


def _holds_word_labels(words: str, labels: str, value: Mapping[str, object]) -> bool:
    first, second = value[words], value[labels]
    if not isinstance(first, list) or not isinstance(second, list) or len(first) != len(second):
        return False
    return all(isinstance(word, str) for word in first) and not any(
        isinstance(label, (dict, list)) for label in second
    )


def _make_word_labels(words: str, labels: str) -> RecordFormat:
    message = f"a label for each word ({words!r} and {labels!r}), not a text and its answer"
    joined = f'([.{words}, .{labels}] | transpose | map(join("\\t")) | join("\\n"))'
    program = f'{{prompt: (.{words} | join(" ")), completion: {joined}}}'
    fix = f"to learn to write a word and its label on each line: {jq_command(program)}"
    others = [key for key in WORD_LABEL_KEYS if key != labels]
    return _make_format(
        f"word-labels-{words}-{labels}",
        "texts with a label for each word",
        Keys((words, labels), ("id", *others)),
        partial(_holds_word_labels, words, labels),
        _Refusal("MarkedTexts", message, lambda _: fix, labels),
    )


def _holds_categories(value: Mapping[str, object]) -> bool:
    cats = value["cats"]
    return isinstance(cats, dict) and all(
        isinstance(share, (int, float)) for share in cats.values()
    )


def _categories_fix(value: RawRecord) -> str:
    chosen = '([.cats | to_entries[] | select(.value >= 0.5) | .key] | join(", "))'
    program = f"{_only_accepted(value)}{{prompt: .text, completion: {chosen}}}"
    return f"to learn the names of the categories that hold: {jq_command(program)}"


def _holds_tool_answers(key: str, value: Mapping[str, object]) -> bool:
    """Return whether annotations are answers in words: doccano's, without offsets."""
    items = value["annotations"]
    if not isinstance(items, list) or not items:
        return False
    return all(isinstance(i, dict) and isinstance(i.get(key), (str, int)) for i in items)


def _make_tool_answers(key: str, question: str | None) -> RecordFormat:
    message = f"an annotation tool's export: the answers are {key!r} in 'annotations'"
    prompt = '(.text + "\\n\\n" + .question)' if question else ".text"
    program = (
        f"select(.annotations | length == 1)"
        f" | {{prompt: {prompt}, completion: .annotations[0].{key}}}"
    )
    fix = f"to learn those of records with one answer: {jq_command(program)}"
    keys = ("text", question, "annotations") if question else ("text", "annotations")
    return _make_format(
        f"annotations-{key}",
        "annotated texts",
        Keys(keys, FURTHER_KEYS),
        partial(_holds_tool_answers, key),
        _Refusal("MarkedTexts", message, lambda _: fix, "annotations"),
    )


def _make_decisions(key: str, answer: str) -> RecordFormat:
    message = "Prodigy's decisions: 'answer' says whether the label was accepted, not what to learn"
    program = f'select(.answer == "accept") | {{prompt: .text, completion: {answer}}}'
    fix = f"to learn the accepted ones: {jq_command(program)}"
    further = [name for name in ("tokens", "spans", "options", *FURTHER_KEYS) if name != key]
    return _make_format(
        f"decisions-{key}",
        "Prodigy's decisions",
        Keys(("text", key, "answer"), tuple(k for k in further if k != "answer")),
        _is_prodigy,
        _Refusal("MarkedTexts", message, lambda _: fix, "answer"),
    )


def _is_list_of_texts(item: object) -> bool:
    return isinstance(item, list) and bool(item) and all(isinstance(text, str) for text in item)


def _fits_retrieval(keys: Sequence[str], value: Mapping[str, object]) -> bool:
    query, positive = (value[key] for key in keys)
    return isinstance(query, str) and (isinstance(positive, str) or _is_list_of_texts(positive))


def _retrieval_fix(keys: Sequence[str], value: RawRecord) -> str:
    query, positive = keys
    if isinstance(value[positive], str):
        line = f"data.columns: {{prompt: {query}, completion: {positive}}}"
    else:
        line = jq_command(f". as $r | .{positive}[] | {{prompt: $r.{query}, completion: .}}")
    return f"to learn to write {positive!r} from {query!r}: {line}"


def _make_retrieval(keys: tuple[str, str]) -> RecordFormat:
    message = (
        f"pairs for a search model ({keys[0]!r} and {keys[1]!r}): no customization type here trains"
        " embeddings"
    )
    further = ("negative", "negatives", "neg", "hard_negatives", "prompt", "type", "id")
    scores = ("pos_scores", "neg_scores", "pos_id", "neg_id")
    return _make_format(
        f"retrieval-{'-'.join(keys)}",
        "pairs for a search model",
        Keys(keys, (*further, *scores)),
        partial(_fits_retrieval, keys),
        _Refusal("RetrievalPairs", message, partial(_retrieval_fix, keys), keys[1]),
    )


def _fits_lists(keys: Sequence[str], value: Mapping[str, object]) -> bool:
    first, second = (value[key] for key in keys)
    if not (isinstance(first, list) and isinstance(second, list)):
        return False
    return _is_list_of_texts(first) and _is_list_of_texts(second) and len(first) == len(second)


def _make_lists(keys: tuple[str, str]) -> RecordFormat:
    first, second = keys
    both = f"[.{first}, .{second}] | transpose"
    turns = '{role: "user", content: .[0]}, {role: "assistant", content: .[1]}'
    chat = jq_command(f"{{messages: [{both}[] | {turns}]}}", "CHATS")
    pairs = jq_command(f"{both}[] | {{prompt: .[0], completion: .[1]}}")
    message = f"{first!r} and {second!r} are lists of texts: the turns of a chat, or several pairs"
    return _make_format(
        f"lists-{first}-{second}",
        "lists of prompts and of answers",
        Keys(keys, ("system", "id")),
        partial(_fits_lists, keys),
        _Refusal("WrongType", message, lambda _: f"{chat} for turns, or {pairs}", second),
    )


def _holds_instances(value: Mapping[str, object]) -> bool:
    items = value["instances"]
    return isinstance(items, list) and all(isinstance(i, dict) and "output" in i for i in items)


def _holds_paragraphs(key: str, value: Mapping[str, object]) -> bool:
    """Return whether a record is of a file in SQuAD's form, or all of it."""
    items = value[key]
    first = items[0] if isinstance(items, list) and items else None
    inner = "qas" if key == "paragraphs" else "paragraphs"
    return isinstance(first, dict) and isinstance(first.get(inner), list)


_MESSAGE_FIX = (
    'write each conversation as {"messages": [...]}, one a record; if all of a file are one:'
    " jq -cs '{messages: .}' FILE > CHATS.jsonl"
)


def _is_message(value: Mapping[str, object]) -> bool:
    return isinstance(value["role"], str) and isinstance(value["content"], (str, list))


_INSTANCES = "{instruction: $r.instruction, input, output}"
_INSTANCES_FIX = f"one record each: {jq_command(f'. as $r | .instances[] | {_INSTANCES}')}"
_SQUAD = (
    ".. | .paragraphs? | arrays | .[] | .context as $c | .qas[] | select(.answers[0])"
    " | {context: $c, question, answer: .answers[0].text}"
)
_SQUAD_FIX = f"one record for each question that has an answer: {jq_command(_SQUAD)}"


def _make_squad(key: str) -> RecordFormat:
    message = "questions about passages in SQuAD's form: 'paragraphs', each with its 'qas'"
    return _make_format(
        f"squad-{key}",
        "questions about passages (SQuAD)",
        Keys((key,), ("title", "version")),
        partial(_holds_paragraphs, key),
        _Refusal("NestedRecords", message, lambda _: _SQUAD_FIX, key),
    )


FORMATS = (
    *(_make_spans("text", key) for key in SPAN_KEYS),
    _make_spans("content", "annotation"),
    *(_make_word_labels(words, labels) for words in WORD_KEYS for labels in WORD_LABEL_KEYS),
    _make_format(
        "categories",
        "texts with categories (spaCy)",
        Keys(("text", "cats"), ("tokens", *FURTHER_KEYS)),
        _holds_categories,
        _Refusal(
            "MarkedTexts",
            "texts with a number for each category ('cats', as spaCy has them), not answers",
            _categories_fix,
            "cats",
        ),
    ),
    _make_tool_answers("response", "question"),
    _make_tool_answers("label", None),
    _make_decisions("label", ".label"),
    _make_decisions("accept", '(.accept | join(", "))'),
    *map(_make_retrieval, RETRIEVAL_KEYS),
    *map(_make_lists, LIST_KEYS),
    _make_format(
        "self-instruct",
        "instructions with instances (Self-Instruct)",
        Keys(("instruction", "instances"), ("id", "name", "is_classification")),
        _holds_instances,
        _Refusal(
            "NestedRecords",
            "an instruction with a list of inputs and outputs ('instances', as Self-Instruct has)",
            lambda _: _INSTANCES_FIX,
            "instances",
        ),
    ),
    _make_format(
        "single-messages",
        "one message a record",
        Keys(("role", "content"), ("name", "id", "tool_calls", "tool_call_id")),
        _is_message,
        _Refusal(
            "WrongKeys",
            "one message a record ('role' and 'content'), not a conversation",
            lambda _: _MESSAGE_FIX,
            "role",
        ),
    ),
    _make_squad("paragraphs"),
    _make_squad("data"),
)
