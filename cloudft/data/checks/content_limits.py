"""What a base model takes besides texts: tools, reasoning, images, videos, documents.

Media are limited as AWS's guides and validators limit them. A format that has no such content at
all (prompt and completion) refuses it when a record is written.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from cloudft.catalogue.load import load_models
from cloudft.catalogue.model import Limits, MediaLimits, Model
from cloudft.data.checks.violation import LimitViolation
from cloudft.data.formats.chat_writers import FEATURE_NAMES
from cloudft.data.formats.record import (
    Conversation,
    Media,
    PromptWithReference,
    Reasoning,
    ToolCall,
    ToolResult,
    json_pointer,
)

MEDIA_KINDS = frozenset({"image", "video", "document", "audio"})
MAX_LISTED_OBJECTS = 100
"""Objects that are kept to be checked in the account."""
_S3_URI = re.compile(r"s3://([\w.-]+)/([\w\-/.]+)")
"""What Amazon's validator for Nova takes: letters, digits, `_`, `-`, `/` and `.`."""
_MEDIA_BLOCK = '{{"{kind}": {{"format": "{format}", "source": {{"s3Location": {{"uri": "s3://BUCKET/KEY"}}}}}}}}'


@dataclass(frozen=True)
class MediaObject:
    """An object in S3 that a record names. `line` is that of the first record that does."""

    kind: str
    uri: str


@dataclass
class MediaUse:
    """The media that a dataset names: the kinds, the buckets, and the first objects."""

    kinds: Counter[str] = field(default_factory=Counter)
    buckets: set[str] = field(default_factory=set)
    objects: dict[str, MediaObject] = field(default_factory=dict)

    def add(self, kind: str, uri: str, bucket: str) -> None:
        """Note one object."""
        self.kinds[kind] += 1
        self.buckets.add(bucket)
        if len(self.objects) < MAX_LISTED_OBJECTS:
            self.objects.setdefault(uri, MediaObject(kind, uri))


@dataclass(frozen=True)
class ContentLimits:
    """What records may have besides texts, of one model and customization type.

    `allowed` is None where nothing is known of a model. `unsure` is what sources disagree about.
    """

    name: str = ""
    allowed: frozenset[str] | None = None
    unsure: frozenset[str] = frozenset()
    is_open_weight: bool = False

    @classmethod
    def for_model(cls, model: Model, customization_type: str) -> ContentLimits:
        """Return what the catalogue has."""
        return cls(
            model.alias,
            frozenset(model.content.get(customization_type, ())),
            frozenset(model.content_unsure.get(customization_type, ())),
            model.is_open_weight,
        )

    def check_record(
        self, record: Conversation, limits: Limits | None, use: MediaUse
    ) -> Iterator[LimitViolation]:
        """Yield what a record has that the model does not take; note the media in `use`."""
        features = record.features()
        if self.allowed is None or not features:
            return
        for feature in sorted(features):
            if feature in self.unsure:
                yield self._unsure(feature, limits)
            elif feature not in self.allowed:
                yield self._refuse(feature)
        if self.is_open_weight:
            return
        taken = features & (self.allowed | self.unsure)
        if taken & MEDIA_KINDS and limits is not None:
            yield from _check_media(record, limits, use)
        if "reasoning" in taken:
            yield from _check_reasoning(record)
        if "tools" in taken:
            yield from _check_tools(record)

    def _refuse(self, feature: str) -> LimitViolation:
        name = FEATURE_NAMES[feature]
        if feature in MEDIA_KINDS:
            message = f"{name}: {self.name} is trained on texts alone, and would never see them"
            if self.allowed is not None and self.allowed & MEDIA_KINDS:
                taken = ", ".join(FEATURE_NAMES[kind] for kind in sorted(self.allowed))
                message = f"{name}: {self.name} takes none of these (it takes {taken})"
            fix = _other_models(feature) or "take the records out: no model here takes them"
            return LimitViolation("error", "MediaData", message, fix)
        message = f"{name}: {self.name} is not trained on these"
        # Not every open-weight model will do: smollm2's chat template has neither.
        fix = (
            "an open-weight one whose chat template renders them (an instruct model of Qwen, say,"
            " as a Hugging Face id or a folder)"
        )
        others = _other_models(feature)
        fix = f"{others}; or {fix}" if others else f"choose as base_model {fix}"
        if feature == "weights":
            message = f"{name}: {self.name} is trained on every answer, whatever its weight"
            fix = (
                "choose an open-weight base_model (such as smollm2-135m), or take the records out;"
                " a turn without a weight is trained on"
            )
        return LimitViolation("error", "UnsupportedContent", message, fix)

    def _unsure(self, feature: str, limits: Limits | None) -> LimitViolation:
        source = f" ({limits.source})" if limits else ""
        message = (
            f"{FEATURE_NAMES[feature]}: AWS's sources disagree whether a job of {self.name} takes"
            f" them{source}"
        )
        fix = "try it with few records first, or take these records out"
        return LimitViolation("warning", "UnsureContent", message, fix)


def _other_models(feature: str) -> str:
    """Return the remedy that names the living models with a feature, "" if there are none."""
    names = [
        model.alias
        for model in load_models()
        if model.lifecycle.state == "active"
        and not model.is_open_weight
        and feature in model.content.get("FINE_TUNING", ())
    ]
    return f"choose a base_model that takes them: {' or '.join(names)}" if names else ""


def _check_media(record: Conversation, limits: Limits, use: MediaUse) -> Iterator[LimitViolation]:
    """Yield what is wrong with the images, videos and documents of a record."""
    counts: Counter[str] = Counter()
    for index, turn in enumerate(record.turns):
        for block in turn.content:
            if isinstance(block, Media) and block.kind in limits.media:
                counts[block.kind] += 1
                pointer = json_pointer("messages", index)
                if turn.role != "user":
                    message = f"{FEATURE_NAMES[block.kind]} in an answer: only prompts have them"
                    fix = "move it into the user's turn, or take the record out"
                    yield LimitViolation("error", "WrongMedia", message, fix, pointer)
                yield from _check_block(block, limits.media[block.kind], use, pointer)
    if len(counts) > 1:
        message = f"{' and '.join(FEATURE_NAMES[kind] for kind in sorted(counts))} in one record"
        fix = "keep one kind in a dataset"
        yield LimitViolation("error", "MixedMedia", message, fix)
    for kind, count in counts.items():
        most = limits.media[kind].per_record_max
        if most is not None and count > most:
            message = f"{count} {FEATURE_NAMES[kind]}; a record has {most} at most"
            message += f" ({limits.source_of('media')})"
            fix = "split the record"
            yield LimitViolation("error", "TooManyMedia", message, fix)


def _check_block(
    block: Media, limits: MediaLimits, use: MediaUse, pointer: str
) -> Iterator[LimitViolation]:
    """Yield what is wrong with one block: its form, its format, its address."""
    inner = block.block.get(block.kind)
    source = inner.get("source") if isinstance(inner, dict) else None
    location = source.get("s3Location") if isinstance(source, dict) else None
    uri = location.get("uri") if isinstance(location, dict) else None
    example = _MEDIA_BLOCK.format(kind=block.kind, format=limits.formats[0])
    if not isinstance(inner, dict) or not isinstance(uri, str):
        message = f"one of the {FEATURE_NAMES[block.kind]} is no object in S3"
        fix = f"upload it to the bucket of the dataset, and write {example}"
        yield LimitViolation("error", "WrongMedia", message, fix, pointer)
        return
    match = _S3_URI.fullmatch(uri)
    if match is None:
        message = f"the address of one of the {FEATURE_NAMES[block.kind]} is no S3 address"
        message += " of letters, digits, '_', '-', '/' and '.'"
        yield LimitViolation("error", "WrongMedia", message, f"write {example}", pointer)
    else:
        use.add(block.kind, uri, match[1])
    format = inner.get("format")
    if not isinstance(format, str) or format.lower() not in limits.formats:
        shown = f"{format!r}"[:20]
        message = f"the format {shown} of {FEATURE_NAMES[block.kind]}"
        fix = f"convert it to one of: {', '.join(limits.formats)}"
        yield LimitViolation("error", "WrongMedia", message, fix, pointer)


def _check_reasoning(record: Conversation) -> Iterator[LimitViolation]:
    """Yield reasoning where Amazon's validator for Nova takes none."""
    for index, turn in enumerate(record.turns):
        if not any(isinstance(block, Reasoning) for block in turn.content):
            continue
        pointer = json_pointer("messages", index)
        if turn.role != "assistant":
            message = "reasoning in a prompt: only answers have it"
            fix = "move it into the assistant's turn"
            yield LimitViolation("error", "WrongReasoning", message, fix, pointer)
        elif all(isinstance(block, Reasoning) for block in turn.content):
            message = "reasoning without an answer"
            fix = "give the turn its answer, or take the record out"
            yield LimitViolation("error", "WrongReasoning", message, fix, pointer)


def _check_tools(record: Conversation) -> Iterator[LimitViolation]:
    """Yield what Amazon's validator for Nova refuses of tools and their calls."""
    names = [tool.name for tool in record.tools]
    for name, count in Counter(names).items():
        if count > 1:
            yield _wrong_tool(f"the tool {name[:40]!r} is listed twice", "list it once")
    for tool in record.tools:
        if not tool.description.strip() or not tool.name.strip():
            fix = "describe it: Bedrock's format needs name, description and inputSchema"
            yield _wrong_tool(f"the tool {tool.name[:40]!r} has no description", fix)
        if "type" not in tool.parameters:
            message = f"the schema of the tool {tool.name[:40]!r} has no 'type'"
            yield _wrong_tool(message, 'add "type": "object"')
    if isinstance(record, PromptWithReference):
        yield from _check_prompt_tools(record)
    else:
        yield from _check_calls(record, names)


def _check_prompt_tools(record: PromptWithReference) -> Iterator[LimitViolation]:
    """Yield what the validator refuses of the tools of a prompt that a grader judges."""
    for tool in record.tools:
        if not isinstance(tool.parameters.get("properties"), dict):
            message = f"the schema of the tool {tool.name[:40]!r} has no 'properties'"
            yield _wrong_tool(message, 'add "properties": {}')
    for index, turn in enumerate(record.turns):
        if any(isinstance(block, (ToolCall, ToolResult)) for block in turn.content):
            message = "a tool call or its result in a prompt: reinforcement takes texts alone"
            fix = "cut the conversation before the call, or take the record out"
            yield _wrong_tool(message, fix, json_pointer("messages", index))


def _check_calls(record: Conversation, names: list[str]) -> Iterator[LimitViolation]:
    identifiers: set[str] = set()
    for index, turn in enumerate(record.turns):
        pointer = json_pointer("messages", index)
        for block in turn.content:
            if isinstance(block, ToolResult) and turn.role == "assistant":
                message = "a tool's result in an answer: only prompts have them"
                yield _wrong_tool(message, "move it into the user's turn", pointer)
            if not isinstance(block, ToolCall):
                continue
            if turn.role != "assistant":
                message = "a tool call in a prompt: only answers have them"
                yield _wrong_tool(message, "move it into the assistant's turn", pointer)
            if record.tools and block.name not in names:
                message = f"a call of {block.name[:40]!r}, which is not among the tools"
                yield _wrong_tool(message, "list it in toolConfig", pointer)
            if block.id in identifiers:
                message = f"two tool calls have one id, {block.id[:40]!r}"
                yield _wrong_tool(message, "give each call an id of its own", pointer)
            identifiers.add(block.id)


def _wrong_tool(message: str, fix: str, field: str | None = None) -> LimitViolation:
    return LimitViolation("error", "WrongToolCall", message, fix, field)
