"""Records on both sides of each of AWS's rules get AWS's verdict, or the difference is documented.

The rules are written here a second time, from AWS's guides and published validators (named at each
function; read in the copies of 2026-08 to 2026-10), over the records as AWS sees them. What cloudft
accepts must pass them as it is staged; what it refuses must break one, or be a row of the table in
docs/reference/model-limits.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloudft.catalogue import find_model
from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.data.formats.recognizer import parse_record
from cloudft.data.formats.record import BadRecord
from cloudft.data.formats.registry import encode_record
from cloudft.types import DataVolume

Json = dict[str, Any]
PAGE = Path(__file__).parents[2] / "docs" / "reference" / "model-limits.md"
DOCUMENTED = set(re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE.read_text(), re.MULTILINE))
PROPERTY = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


def ours(value: Json, model: str, kind: str) -> tuple[set[str], Json | None]:
    """Return the codes of our errors, and the record as it is staged."""
    row = find_model(model)
    limits = DatasetLimits.for_model(row, kind, 1)
    try:
        record = parse_record(value, {}, row.formats[kind])
        staged = json.loads(encode_record(record, row.formats[kind])[0])
    except BadRecord as bad:
        return {bad.code}, None
    errors = {v.code for v in limits.check_record(record) if v.severity == "error"}
    return errors, staged


def compare(value: Json, model: str, kind: str, rules: Any, differences: Any) -> None:
    """Hold our verdict against the rules'.

    `rules(value)` yields the broken ones, by the row's name where cloudft documents to be looser;
    `differences(value)` the rows by which it may be stricter.
    """
    errors, staged = ours(value, model, kind)
    named = set(differences(value))
    assert named <= DOCUMENTED
    if not errors:
        assert staged is not None
        assert set(rules(staged)) <= DOCUMENTED, "accepted, though AWS refuses it"
    elif not list(rules(value)):
        assert named, f"refused for {errors}, though AWS accepts it"


# Nova: nova_ft_dataset_validator.py (ConverseDatasetSample), and the guides' reserved words.
NOVA_WORDS = ("system:", "user:", "bot:", "assistant:", "<image>", "<video>", "<unk>")
IMAGES = {"nova-lite": ("jpeg", "png", "gif", "webp"), "nova-2-lite": ("png", "jpeg", "gif")}
VIDEOS = {"nova-lite": ("mov", "mkv", "mp4", "webm"), "nova-2-lite": ("mov", "mkv", "mp4")}


def has_word(text: str) -> bool:
    return any(word in text.lower() for word in NOVA_WORDS)


def nova_rules(model: str, value: Json) -> Iterator[str]:
    messages = value["messages"]
    roles = [m["role"] for m in messages]
    if len(roles) < 2 or roles != ["user", "assistant"] * (len(roles) // 2):
        yield "order"
    for block in value.get("system") or []:
        if has_word(block["text"]) or "[eos]" in block["text"].lower():
            yield "word"
    documents = 0
    for message in messages:
        blocks = message["content"]
        kinds = {key for block in blocks for key in block}
        documents += sum("document" in block for block in blocks)
        yield from nova_message(model, message["role"], blocks, kinds)
        yield from nova_media(model, blocks)
    if documents > 1:
        yield "documents"
    if value.get("toolConfig") is not None:
        yield from nova_tools(value)


def nova_message(model: str, role: str, blocks: list[Json], kinds: set[str]) -> Iterator[str]:
    texts = [block["text"] for block in blocks if "text" in block]
    others = kinds & {"image", "video", "document", "reasoningContent"}
    if not kinds & {"text", "image", "video", "document", "toolUse", "toolResult"}:
        yield "nothing"
    if texts and not others and not sum(map(len, texts)):
        yield "empty"
    reasoning = [
        block["reasoningContent"]["reasoningText"]["text"]
        for block in blocks
        if "reasoningContent" in block
    ]
    if any(map(has_word, [*texts, *reasoning])) or not all(reasoning):
        yield "word"
    if role == "user" and any("[eos]" in text.lower() for text in texts):
        yield "word"  # the guide's, of prompts
    if role == "assistant" and kinds & {"image", "video", "document", "toolResult"}:
        yield "side"
    if role == "user" and kinds & {"toolUse", "reasoningContent"}:
        yield "side"
    if "reasoningContent" in kinds and model != "nova-2-lite":
        yield "reasoning"
    if model == "nova-micro" and kinds & {"image", "video", "document"}:
        yield "micro"


def nova_media(model: str, blocks: list[Json]) -> Iterator[str]:
    media = [(kind, block[kind]) for block in blocks for kind in MEDIA if kind in block]
    counts = {kind: sum(name == kind for name, _ in media) for kind in MEDIA}
    if counts["image"] > 10 or counts["video"] > 1 or counts["document"] > 1:
        yield "count"
    if counts["video"] and (counts["image"] or counts["document"]):
        yield "mixed"
    formats = {"image": IMAGES, "video": VIDEOS}
    for kind, item in media:
        known = formats[kind].get(model, ()) if kind in formats else ("pdf",)
        if item["format"].lower() not in known:
            yield "format"
        uri = item["source"]["s3Location"]["uri"]
        if not uri.startswith("s3://") or not re.match(r"^[\w\-/\.]+$", uri.replace("s3://", "")):
            yield "uri"


def nova_tools(value: Json) -> Iterator[str]:
    specs = [tool["toolSpec"] for tool in value["toolConfig"]["tools"]]
    names = [spec["name"] for spec in specs]
    if not specs or len(set(names)) < len(names):
        yield "tools"
    if not all(spec.get("description", "").strip() and spec["name"].strip() for spec in specs):
        yield "tools"
    if not all("type" in spec["inputSchema"]["json"] for spec in specs):
        yield "tools"
    called: set[str] = set()
    answered: set[str] = set()
    for message in value["messages"]:
        for block in message["content"]:
            if "toolUse" in block:
                use = block["toolUse"]
                if use["name"] not in names or use["toolUseId"] in called:
                    yield "call"
                called.add(use["toolUseId"])
            if "toolResult" in block:
                identifier = block["toolResult"]["toolUseId"]
                if identifier not in called or identifier in answered:
                    yield "result"
                answered.add(identifier)


MEDIA = ("image", "video", "document")


def nova_differences(model: str, value: Json) -> Iterator[str]:
    blocks = [(m["role"], b) for m in value["messages"] for b in m["content"]]
    texts = [block["text"] for _, block in blocks if "text" in block]
    texts += [
        b["reasoningContent"]["reasoningText"]["text"] for _, b in blocks if "reasoningContent" in b
    ]
    systems = [block["text"] for block in value.get("system") or []]
    if any(not text.strip() for text in texts):
        yield "blank-text"
    if any("[eos]" in text.lower() for text in [*texts, *systems]):
        yield "eos-anywhere"
    has_tools = any("toolUse" in b or "toolResult" in b for _, b in blocks) or "toolConfig" in value
    if has_tools:
        yield "tools-nova-1" if model != "nova-2-lite" else "tool-order"
    counts = {kind: sum(kind in block for _, block in blocks) for kind in MEDIA}
    if counts["image"] > 10 or counts["video"] > 1 or counts["document"] > 1:
        yield "media-per-record"
    if sum(map(bool, counts.values())) > 1:
        yield "media-one-kind"
    if any(
        kind in block and not S3_OBJECT.fullmatch(block[kind]["source"]["s3Location"]["uri"])
        for _, block in blocks
        for kind in MEDIA
    ):
        yield "s3-key"


S3_OBJECT = re.compile(r"s3://[\w.-]+/[\w\-/.]+")
WORDS = ["User:", "x bot: y", "ASSISTANT:", "system:", "<Image>", "<video>", "[EOS]", "<unk>"]
ODD_TEXTS = st.sampled_from([*WORDS, "Thought: a", "", " ", "\n", "user", "[eos", "< image>"])
TEXTS = st.just("hi") | ODD_TEXTS


class Odds:
    """Draws what a record has: usual values, and now and then one odd one.

    Most records have one fault or none: with more, each would hide the others.
    """

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.faults = draw(st.sampled_from([0, 1, 1, 1, 1, 2]))
        self.has_plain_texts = draw(st.booleans())

    def pick(self, usual: st.SearchStrategy[Any], odd: st.SearchStrategy[Any]) -> Any:
        """Draw an odd value in one of five places, as long as there is a fault left."""
        if self.faults and self.draw(st.integers(0, 4)) == 0:
            self.faults -= 1
            return self.draw(odd)
        return self.draw(usual)

    def text(self) -> str:
        return "hi" if self.has_plain_texts else str(self.pick(st.just("hi"), ODD_TEXTS))

    def media(self, kind: str, usual: list[str], odd: list[str]) -> Json:
        uri = self.pick(
            st.just("s3://bucket/a.png"),
            st.sampled_from(["s3://b/c d.png", "http://x/a.png", "s3://bucket", "s3://b/\u00e9"]),
        )
        name = self.pick(st.sampled_from(usual), st.sampled_from(odd))
        return {kind: {"format": name, "source": {"s3Location": {"uri": uri}}}}

    def block(self, kind: str) -> Json:
        """Draw a block of a kind."""
        if kind == "image":
            return self.media(kind, ["png", "PNG", "gif"], ["webp", "bmp"])
        if kind == "video":
            return self.media(kind, ["mp4"], ["webm", "avi"])
        if kind == "document":
            return self.media(kind, ["pdf"], ["docx"])
        if kind == "reasoning":
            return {"reasoningContent": {"reasoningText": {"text": self.text()}}}
        if kind == "call":
            identifier = self.pick(st.just("1"), st.just("2"))
            name = self.pick(st.just("find"), st.just("other"))
            return {"toolUse": {"toolUseId": identifier, "name": name, "input": {"a": 1}}}
        if kind == "result":
            identifier = self.pick(st.just("1"), st.just("2"))
            return {"toolResult": {"toolUseId": identifier, "content": [{"text": "r"}]}}
        return {"text": self.text()}

    def roles(self) -> list[str]:
        """Draw the sides of the turns."""
        usual = st.sampled_from(["ua", "ua", "uaua"])
        odd = st.sampled_from(["u", "uau", "au", "uu", "aa", "uuaa", "uaa"])
        return [{"u": "user", "a": "assistant"}[side] for side in self.pick(usual, odd)]

    def system(self) -> list[str] | None:
        """Draw system texts."""
        if self.draw(st.integers(0, 3)):
            return None
        return [self.text() for _ in range(self.pick(st.just(1), st.just(2)))]


KINDS = ["image", "video", "document", "reasoning", "call", "result", "text"]
EXTRAS = {
    "none": ([], []),
    "image": (["image"], []),
    "images": (["image"] * 3, []),
    "video": (["video"], []),
    "document": (["document"], []),
    "reasoning": ([], ["reasoning"]),
    "tools": ([], []),
    "more tools": ([], []),
}
"""What records have besides texts, by the side of the turn."""


@st.composite
def conversations(draw: st.DrawFn, simple: bool = False) -> Json:
    """Draw a Converse record."""
    odds = Odds(draw)
    extra = "none" if simple else draw(st.sampled_from(list(EXTRAS)))
    value: Json = {"schemaVersion": "bedrock-conversation-2024"}
    system = odds.system()
    if system:
        value["system"] = [{"text": text} for text in system]
    value["messages"] = []
    for role in odds.roles():
        kinds = ["text", *EXTRAS[extra][role == "assistant"]]
        if not simple:
            kinds = odds.pick(
                st.just(kinds),
                st.sampled_from([*KINDS, "reasoning"]).map(lambda kind, kinds=kinds: [*kinds, kind])
                | st.sampled_from(KINDS).map(lambda kind: [kind]),
            )
        blocks = [odds.block(kind) for kind in kinds]
        if extra.startswith("image") and role == "user":
            count = odds.pick(st.just(1), st.sampled_from([8, 9, 10, 11]))
            blocks += [block for block in blocks if "image" in block][:1] * (count - 1)
        blocks += [{"text": "more"}] * odds.pick(st.just(0), st.just(1))
        value["messages"].append({"role": role, "content": blocks})
    if extra.endswith("tools"):
        add_tools(odds, value)
    return value


def add_tools(odds: Odds, value: Json) -> None:
    """Add tools to a record, and a call and its result between two answers."""
    tool = {
        "name": "find",
        "description": odds.pick(st.just("finds"), st.sampled_from(["", " "])),
        "inputSchema": {"json": odds.pick(st.just({"type": "object"}), st.just({"title": "x"}))},
    }
    count = odds.pick(st.just(1), st.just(2))
    if odds.draw(st.integers(0, 5)):
        value["toolConfig"] = {"tools": [{"toolSpec": tool}] * count}
    turns = [
        {"role": "assistant", "content": [odds.block("call")]},
        {"role": "user", "content": [odds.block("result")]},
    ]
    value["messages"][1:1] = turns * odds.pick(st.just(1), st.just(2))


@pytest.mark.parametrize("model", ["nova-micro", "nova-lite", "nova-2-lite"])
@given(value=conversations())
@PROPERTY
def test_nova(model: str, value: Json) -> None:
    compare(
        value,
        model,
        "FINE_TUNING",
        lambda v: nova_rules(model, v),
        lambda v: nova_differences(model, v),
    )


# Claude 3 Haiku: data_validation.py of AWS's sample (DataEntry and count_tokens).
CLAUDE_TEXTS = st.sampled_from(
    ["x\nHuman: y", "x\nassistant: y", "x\nAssistant:", "Human: z", "", "w" * 96_010, "w" * 200_000]
)


def haiku_rules(value: Json) -> Iterator[str]:
    roles = [m["role"] for m in value["messages"]]
    if len(roles) < 2 or roles[0] != "user" or roles[-1] != "assistant":
        yield "order"
    if any(a == b for a, b in pairwise(roles)):
        yield "order"
    texts = [value.get("system") or "", *(m["content"] for m in value["messages"])]
    if any(word in text for word in ("\nHuman:", "\nAssistant:") for text in texts):
        yield "word"
    if sum(len(text) // 3 for text in texts) > 32_000:
        yield "haiku-length"


def haiku_differences(value: Json) -> Iterator[str]:
    texts = [value.get("system") or "", *(m["content"] for m in value["messages"])]
    if any(not m["content"].strip() for m in value["messages"]):
        yield "blank-text"
    if sum(map(len, texts)) > 80_000:
        yield "haiku-length"


@st.composite
def claude_chats(draw: st.DrawFn) -> Json:
    """Draw a record of Claude's form."""
    odds = Odds(draw)
    messages = [
        {"role": role, "content": odds.pick(st.just("hi"), CLAUDE_TEXTS)} for role in odds.roles()
    ]
    system = odds.pick(st.sampled_from([None, "brief"]), CLAUDE_TEXTS)
    return {"messages": messages} | ({} if system is None else {"system": system})


@given(value=claude_chats())
@PROPERTY
def test_haiku(value: Json) -> None:
    compare(value, "claude-3-haiku", "FINE_TUNING", haiku_rules, haiku_differences)


# Llama: dataset_validation.py of AWS's sample (validate_system_prompt, validate_converse).
def llama_rules(has_eyes: bool, value: Json) -> Iterator[str]:
    if len(value.get("system") or []) > 1:
        yield "system"
    for message in value["messages"]:
        for block in message["content"]:
            if "image" in block:
                if message["role"] == "assistant" or not has_eyes:
                    yield "image"
            elif "text" not in block:
                yield "text"


def llama_differences(value: Json) -> Iterator[str]:
    roles = [m["role"] for m in value["messages"]]
    blocks = [block for m in value["messages"] for block in m["content"]]
    if roles != ["user", "assistant"] * (len(roles) // 2) or not roles:
        yield "alternation"
    if any(not block["text"].strip() for block in blocks if "text" in block):
        yield "blank-text"
    images = [block["image"] for block in blocks if "image" in block]
    if any(not S3_OBJECT.fullmatch(i["source"]["s3Location"]["uri"]) for i in images):
        yield "s3-key"
    if any(i["format"].lower() not in ("png", "jpeg", "gif", "webp") for i in images):
        yield "media-format"


@pytest.mark.parametrize("model", ["llama-3.3-70b", "llama-3.2-11b-vision"])
@given(value=conversations())
@PROPERTY
def test_llama_chats(model: str, value: Json) -> None:
    has_eyes = model == "llama-3.2-11b-vision"
    value.pop("toolConfig", None)  # the validator does not know it: it is no rule of its
    compare(value, model, "FINE_TUNING", lambda v: llama_rules(has_eyes, v), llama_differences)


@given(prompt=TEXTS | st.integers(0, 9), completion=TEXTS)
@PROPERTY
def test_llama_pairs(prompt: str | int, completion: str) -> None:
    value = {"prompt": prompt, "completion": completion}
    blank = any(not str(text).strip() for text in value.values())
    compare(
        value,
        "llama-3.1-8b",
        "FINE_TUNING",
        lambda v: () if {"prompt", "completion"} <= set(v) else ("keys",),
        lambda _: ["blank-text"] if blank else [],
    )


# Distillation: dataset_validator.py of AWS's sample (validate_alternating_messages), and the guide:
# "Llama models support only single-turn conversation prompts".
def distillation_rules(is_llama: bool, value: Json) -> Iterator[str]:
    roles = [m["role"] for m in value["messages"]]
    if any(role != ("user", "assistant")[i % 2] for i, role in enumerate(roles)):
        yield "order"
    if is_llama and roles.count("user") > 1:
        yield "turns"
    if len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()) > 16_384:
        yield "line"


def distillation_differences(value: Json) -> Iterator[str]:
    if not value["messages"]:
        yield "distillation-answer"
    blocks = [block for m in value["messages"] for block in m["content"]]
    if any(not block["text"].strip() for block in blocks):
        yield "blank-text"


@pytest.mark.parametrize("model", ["nova-micro", "llama-3.1-8b"])
@given(value=conversations(simple=True), length=st.sampled_from([0, 0, 0, 16_000, 17_000]))
@PROPERTY
def test_distillation(model: str, value: Json, length: int) -> None:
    value["messages"][0]["content"][0]["text"] += "w" * length
    is_llama = model.startswith("llama")
    compare(
        value,
        model,
        "DISTILLATION",
        lambda v: distillation_rules(is_llama, v),
        distillation_differences,
    )


# Reinforcement: nova_ft_dataset_validator.py (RFTDatasetSample); the guides make `tools` optional.
def rft_rules(value: Json) -> Iterator[str]:
    roles = [m["role"] for m in value["messages"]]
    if not roles or "user" not in roles or ("system" in roles and roles[0] != "system"):
        yield "order"
    if any(role not in ("system", "user", "assistant") for role in roles):
        yield "role"
    for message in value["messages"]:
        if not message["content"].strip() or has_word(message["content"]):
            yield "text"
    reference = value.get("reference_answer")
    if not isinstance(reference, (str, dict, type(None))):
        yield "rft-reference"
    elif reference is not None and not str(reference).strip("{} "):
        yield "reference"
    functions = [tool["function"] for tool in value.get("tools") or []]
    if not functions:
        yield "rft-tools-optional"
    if len({f["name"] for f in functions}) < len(functions):
        yield "tools"
    if not all(f["description"].strip() and f["name"].strip() for f in functions):
        yield "tools"
    if not all(
        f["parameters"].get("type") == "object" and isinstance(f["parameters"]["properties"], dict)
        for f in functions
    ):
        yield "tools"


def rft_differences(value: Json) -> Iterator[str]:
    roles = [m["role"] for m in value["messages"] if m["role"] != "system"]
    if roles[::2] != ["user"] * len(roles[::2]) or len(roles) % 2 == 0 or "assistant" in roles[::2]:
        yield "rft-turns"
    if any(role != "assistant" for role in roles[1::2]) or roles.count("system") > 1:
        yield "rft-turns"
    if [m["role"] for m in value["messages"]].count("system") > 1:
        yield "rft-turns"
    if any("[eos]" in m["content"].lower() for m in value["messages"]):
        yield "eos-anywhere"


@st.composite
def prompts(draw: st.DrawFn) -> Json:
    """Draw a reinforcement record."""
    odds = Odds(draw)
    roles = odds.pick(
        st.sampled_from(["u", "su", "suau"]),
        st.sampled_from(["uau", "ua", "us", "uu", "s", "ssu", "a"]),
    )
    names = {"u": "user", "a": "assistant", "s": "system"}
    value: Json = {"messages": [{"role": names[r], "content": odds.text()} for r in roles]}
    value["reference_answer"] = odds.pick(
        st.sampled_from([None, "4", {"x": 1}]), st.sampled_from([[1], 4, "", " ", {}])
    )
    if draw(st.booleans()):
        function = {
            "name": "find",
            "description": odds.pick(st.just("finds"), st.sampled_from(["", " "])),
            "parameters": odds.pick(
                st.just({"type": "object", "properties": {}}), st.just({"properties": {}})
            ),
        }
        count = odds.pick(st.just(1), st.just(2))
        value["tools"] = [{"type": "function", "function": function}] * count
    return value


@given(value=prompts())
@PROPERTY
def test_reinforcement(value: Json) -> None:
    compare(value, "nova-2-lite", "REINFORCEMENT_FINE_TUNING", rft_rules, rft_differences)


# Counts: the guides' tables, and the validators' own where the guide is silent.
COUNTS = {
    ("nova-micro", "FINE_TUNING"): (8, None, None, None, 20_000),
    ("nova-lite", "FINE_TUNING"): (8, None, None, None, 20_000),
    ("nova-2-lite", "FINE_TUNING"): (200, None, None, None, 20_000),
    ("nova-2-lite", "REINFORCEMENT_FINE_TUNING"): (100, None, None, None, 20_000),
    ("claude-3-haiku", "FINE_TUNING"): (32, 10_000, 32, 1_000, 10_000),
    ("llama-3.1-8b", "FINE_TUNING"): (None, 10_000, None, 1_000, 10_000),
    ("nova-micro", "DISTILLATION"): (None, None, None, None, 15_000),
    ("llama-3.1-8b", "DISTILLATION"): (None, None, None, None, 15_000),
}
MIN_SUM = {("llama-3.1-8b", "FINE_TUNING"): 100, "DISTILLATION": 100}
EDGES = [0, 1, 7, 8, 31, 32, 99, 100, 199, 200, 999, 1_000, 1_001]
EDGES += [9_000, 9_999, 10_000, 10_001, 14_999, 15_000, 15_001, 19_999, 20_000, 20_001]


@pytest.mark.parametrize("row", COUNTS)
def test_counts(row: tuple[str, str]) -> None:
    for train, validation in product(EDGES, [None, *EDGES]):
        hold_counts(row, train, validation)


def hold_counts(row: tuple[str, str], train: int, validation: int | None) -> None:
    """Hold the verdict on so many records against the rules'."""
    model, kind = row
    train_min, train_max, validation_min, validation_max, sum_max = COUNTS[row]
    sum_min = MIN_SUM.get(row, MIN_SUM.get(kind))
    total = train + (validation or 0)
    is_wrong = (
        bool(train_min and train < train_min)
        or bool(train_max and train > train_max)
        or total > sum_max
        or bool(sum_min and total < sum_min)
    )
    # What a validator alone demands is a warning here: documented differences.
    warned = validation is not None and (
        bool(validation_min and validation < validation_min)
        or (model != "claude-3-haiku" and bool(validation_max and validation > validation_max))
        or row == ("nova-2-lite", "FINE_TUNING")
    )
    if validation is not None and model == "claude-3-haiku" and validation > 1_000:
        is_wrong = True
    assert {"haiku-validation-min", "llama-validation-max", "nova-2-validation"} <= DOCUMENTED
    limits = DatasetLimits.for_model(find_model(model), kind, 1)
    volumes = {"train": DataVolume(train, 1, 1)}
    if validation is not None:
        volumes["validation"] = DataVolume(validation, 1, 1)
    found = {violation.severity for violation in limits.check_dataset(volumes)}
    assert ("error" in found) == is_wrong
    assert ("warning" in found) == warned
