"""What keys of a record say by their names: which may be left out, and which carry meaning.

Keys that no format uses are left out when they identify, date or file a record, and are an error
when they may change what a model should learn. Names that are in neither list are judged by their
values: a number, a flag or a single word describes a record, a sentence or a list of texts may be
part of it.
"""

from __future__ import annotations

import re
from functools import lru_cache

DESCRIPTIVE_KEYS = frozenset(
    [
        "id",
        "ids",
        "idx",
        "index",
        "uuid",
        "guid",
        "uid",
        "key",
        "hash",
        "sha",
        "sha1",
        "sha256",
        "md5",
        "checksum",
        "row",
        "row_id",
        "line",
        "line_number",
        "source",
        "sources",
        "src",
        "url",
        "uri",
        "link",
        "origin",
        "dataset",
        "dataset_name",
        "corpus",
        "provider",
        "publisher",
        "file",
        "filename",
        "file_name",
        "path",
        "split",
        "subset",
        "fold",
        "partition",
        "lang",
        "language",
        "languages",
        "locale",
        "translated",
        "topic",
        "topics",
        "category",
        "categories",
        "domain",
        "subject",
        "field",
        "area",
        "tag",
        "tags",
        "keyword",
        "keywords",
        "task_type",
        "type",
        "kind",
        "difficulty",
        "level",
        "grade",
        "tier",
        "date",
        "time",
        "datetime",
        "timestamp",
        "ts",
        "created",
        "created_at",
        "created_on",
        "updated",
        "updated_at",
        "modified",
        "createdat",
        "updatedat",
        "inserted_at",
        "ingested_at",
        "year",
        "month",
        "author",
        "authors",
        "user_name",
        "username",
        "annotator",
        "annotators",
        "worker",
        "worker_id",
        "editor",
        "reviewer",
        "creator",
        "model",
        "model_name",
        "model_id",
        "generator",
        "generated_by",
        "engine",
        "temperature",
        "seed",
        "version",
        "schema",
        "schemaversion",
        "license",
        "licence",
        "copyright",
        "length",
        "len",
        "num_tokens",
        "tokens",
        "token_count",
        "n_tokens",
        "num_turns",
        "turn_count",
        "word_count",
        "char_count",
        "characters",
        "metadata",
        "meta",
        "_meta",
        "extra",
        "__index_level_0__",
        "level_0",
        "unnamed:_0",
        "_id",
        "$id",
        "status",
        "state",
        "title",
        "section",
        "chapter",
        "page",
        "page_number",
        "chunk",
        "chunk_id",
        "doc_id",
        "generationconfig",
        "generation_config",
        "inferenceconfig",
        "safetysettings",
        "top_p",
        "max_tokens",
    ]
)
"""Names, in lower case, of keys that say where a record is from, not what a model should learn."""

MEANINGFUL_KEYS = frozenset(
    [
        "system",
        "system_prompt",
        "system_message",
        "systemprompt",
        "context",
        "contexts",
        "passage",
        "document",
        "documents",
        "docs",
        "knowledge",
        "background",
        "evidence",
        "facts",
        "history",
        "chat_history",
        "conversation_history",
        "tools",
        "functions",
        "tool_calls",
        "toolconfig",
        "weight",
        "weights",
        "sample_weight",
        "example_weight",
        "loss_weight",
        "label",
        "labels",
        "class",
        "score",
        "scores",
        "rating",
        "ratings",
        "reward",
        "rewards",
        "preference",
        "winner",
        "chosen",
        "rejected",
        "preferred_output",
        "non_preferred_output",
        "better",
        "worse",
        "is_correct",
        "correct",
        "image",
        "images",
        "image_url",
        "image_path",
        "picture",
        "pictures",
        "video",
        "videos",
        "audio",
        "audios",
        "media",
        "reasoning",
        "reasoning_content",
        "thinking",
        "thought",
        "thoughts",
        "rationale",
        "explanation",
        "cot",
        "chain_of_thought",
        "accepted",
        "is_accepted",
        "approved",
        "liked",
        "upvoted",
        "desirable",
        "is_good",
        "quality",
        "feedback",
        "vote",
        "votes",
        "kto_tag",
        "reference",
        "reference_answer",
        "ground_truth",
        "solution",
        "choices",
        "options",
        "prompt",
        "completion",
        "completions",
        "candidates",
        "generations",
        "question",
        "questions",
        "answer",
        "answers",
        "a",
        "b",
        "c",
        "d",
        "e",
        "helpfulness",
        "harmlessness",
        "honesty",
        "correctness",
        "coherence",
        "complexity",
        "verbosity",
        "loss",
        "train",
        "contents",
        "query",
        "response",
        "instruction",
        "input",
        "output",
        "target",
        "text",
        "messages",
        "conversations",
        "conversation",
        "dialog",
        "dialogue",
        "turns",
    ]
)
"""Names, in lower case, of keys that may change what a model should learn."""

_ID_SUFFIX = re.compile(
    r".*(_|-|\.| )(id|ids|uuid|hash|index|idx|url|uri|source|lang|language|date|time|timestamp|at"
    r"|version|count|length|tokens)"
)
_CHOICE = re.compile(r"(option|choice|opt?|ending|distractor)_?[a-e0-9]")
_CAMEL_ID = re.compile(r".*[a-z](Id|Uuid|Hash|Index|Url|Date|Time|At|Count|Tokens)")
_WORD = re.compile(r"[\w.:/+@#%-]{0,40}")
_NAME_PARTS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
JUDGING_WORDS = frozenset(
    [
        *(
            "accepted",
            "approved",
            "bad",
            "correct",
            "desirable",
            "disliked",
            "downvoted",
            "feedback",
        ),
        *("good", "helpful", "incorrect", "liked", "passed", "preferred", "quality", "rank"),
        *("rating", "rejected", "reward", "right", "score", "stars", "thumb", "thumbs", "upvoted"),
        *("verdict", "vote", "votes", "weight", "wrong"),
        *("deleted", "excluded", "flagged", "hallucinated", "hallucination", "harmful", "invalid"),
        *("toxic", "toxicity", "unsafe", "valid"),
    ]
)
"""Words in the names of keys that say how good an answer is: `thumbs_up`, `userRating`."""


def is_descriptive(key: str) -> bool:
    """Return whether a key's name says that it describes a record: `id`, `topic`, `created_at`."""
    name = key.strip().lower()
    if is_meaningful(key):
        return False
    return (
        not name
        or name in DESCRIPTIVE_KEYS
        or name.startswith(("unnamed:", "__"))
        or bool(_ID_SUFFIX.fullmatch(name) or _CAMEL_ID.fullmatch(key.strip()))
    )


def is_meaningful(key: str) -> bool:
    """Return whether a key's name says that it may carry meaning: `system`, `label`, `images`."""
    name = key.strip().lower()
    return name in MEANINGFUL_KEYS or bool(_CHOICE.fullmatch(name)) or _judges(key)


@lru_cache(maxsize=4096)
def _judges(key: str) -> bool:
    """Return whether a key's name says how good an answer is: `thumbs_up`, `userRating`."""
    if _ID_SUFFIX.fullmatch(key.strip().lower()) or _CAMEL_ID.fullmatch(key.strip()):
        return False  # `vote_count`, `feedback_at`
    if "suggestion" in key.lower():
        return False  # Argilla's `label.suggestion.score`: of a model's answer, not of a person's
    return any(part.lower() in JUDGING_WORDS for part in _NAME_PARTS.findall(key))


def may_be_left_out(key: str, value: object) -> bool:
    """Return whether a record means the same without this key.

    Null and empty values say nothing. Unknown names are judged by their values: see the module.
    """
    if value is None or value in ("", [], {}):
        return True
    if is_meaningful(key):
        return False
    if is_descriptive(key):
        return True
    if _is_numbers(value):
        return True
    return isinstance(value, str) and bool(_WORD.fullmatch(value.strip()))


def _is_numbers(value: object) -> bool:
    """Return whether a value is a number, a flag, or lists of these: sizes, offsets, a vector."""
    if isinstance(value, list):
        return all(map(_is_numbers, value))
    return isinstance(value, (bool, int, float))
