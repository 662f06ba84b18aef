from __future__ import annotations

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudft.data.checks.check import check_data
from cloudft.data.formats.fast_path import can_encode, decode_batch, encode_batch
from cloudft.data.formats.recognizer import parse_record
from cloudft.data.formats.registry import encode_record
from cloudft.data.staging.mix import general_record_counts, interleave, select_lowest_keys
from cloudft.data.staging.split import compute_selection_keys, hold_out
from cloudft.data.staging.stage import StagedData, stage_data
from cloudft.spec.model import DataSpec

TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)
RECORDS = st.lists(
    st.fixed_dictionaries({"prompt": TEXT, "completion": TEXT}), min_size=2, max_size=30
).filter(lambda records: len({json.dumps(r, sort_keys=True) for r in records}) > 1)
PIECES = [
    b'{"prompt":"a","completion":"b"}',
    b'{"messages":[{"role":"user"}]}',
    b'{"messages":[[],{}]}',
    b'{"text":"x"}',
    b'{"input":null,"output":1}',
    b"prompt,completion",
    b'"messages":',
    b"\xef\xbb\xbf",
    *(bytes([i]) for i in b'\n\r\t\0{}[]",:\xff'),
]
JSONISH = st.lists(st.sampled_from(PIECES), max_size=20).map(b"".join)


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def staged(base: Path, seed: int, **data: object) -> StagedData:
    spec = DataSpec.model_validate({"train": "x.jsonl", **data})
    return stage_data(
        spec,
        customization_type="FINE_TUNING",
        format="prompt-completion",
        seed=seed,
        base_dir=base,
        root=base / "root",
    )


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]


def key(record: dict[str, str]) -> str:
    return json.dumps(record, sort_keys=True)


def write(path: Path, records: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@settings(max_examples=150, deadline=None)
@given(
    st.binary(max_size=100) | JSONISH,
    st.sampled_from(["jsonl", "json", "csv", "tsv", "txt", "md"]),
    st.sampled_from(["converse", "input"]),
)
def test_any_bytes_give_records_or_findings(raw: bytes, suffix: str, target: str):
    with folder() as base:
        (base / f"x.{suffix}").write_bytes(raw)
        data = DataSpec.model_validate({"train": f"x.{suffix}"})
        examined = check_data(data, format=target, base_dir=base)
    errors = [f for f in examined.findings if f.severity == "error"]
    assert (examined.volumes is None) == bool(errors)
    assert examined.volumes is None or examined.volumes["train"].records > 0


KEYS = ["prompt", "completion", "input", "output", "text", "\\u0074ext"]
STRING = st.text(max_size=6) | st.sampled_from(
    ["", " ", '"', "\\", '\\"', "prompt", "\u00a0", "\x00"]
)
MEMBER = st.tuples(st.sampled_from(KEYS), STRING | st.none() | st.integers(0, 9), st.booleans())
"""A key, its value, and whether it is written in ASCII alone."""


def as_json(members: list[tuple[str, object, bool]]) -> bytes:
    """Return an object with these members in this order, even if a key is repeated."""
    parts = [
        f'"{key}":{json.dumps(value, ensure_ascii=ascii)}'.encode("utf-8", "surrogatepass")
        for key, value, ascii in members
    ]
    return b"{" + b", ".join(parts) + b"}"


GOOD_LINE = st.tuples(TEXT, TEXT, st.booleans()).map(
    lambda v: as_json([("prompt", v[0], v[2]), ("completion", v[1], v[2])])
)
ANY_LINE = st.lists(MEMBER, max_size=4).map(as_json) | st.binary(max_size=8)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["prompt-completion", "input-output", "input", "text"]),
    st.lists(GOOD_LINE, max_size=3),
    st.lists(ANY_LINE, max_size=2),
    st.sampled_from([b"\n", b"\r\n", b"\n\n"]),
    st.sampled_from(["prompt-completion", "converse", "claude-messages", "input"]),
)
def test_a_block_at_once_says_what_line_by_line_says(
    shape: str, good: list[bytes], other: list[bytes], end: bytes, target: str
):
    raw = end.join([*good, *other]) + b"\n"
    columns = decode_batch(shape, raw, raw.count(b"\n"))
    if columns is None or not can_encode(columns, target):
        return
    values = [json.loads(line, object_pairs_hook=once) for line in raw.splitlines()]
    slow = [encode_record(parse_record(value, {}), target) for value in values]
    assert encode_batch(columns, target).splitlines(keepends=True) == [line for line, _ in slow]
    assert columns.record_lengths() == [size for _, size in slow]
    assert columns.characters == sum(columns.record_lengths())
    assert columns.max_characters >= max(columns.record_lengths())


CONTENT = STRING | st.lists(st.fixed_dictionaries({"text": STRING}), max_size=2) | st.none()
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "human"]), "content": CONTENT},
    optional={"weight": st.sampled_from([0, 1, None])},
)
GOOD_TURNS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=2).map(
    lambda pairs: [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]
)


def as_blocks(messages: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{**message, "content": [{"text": message["content"]}]} for message in messages]


CHAT = st.fixed_dictionaries(
    {"messages": GOOD_TURNS | GOOD_TURNS.map(as_blocks) | st.lists(MESSAGE, max_size=3)},
    optional={
        "system": st.lists(st.fixed_dictionaries({"text": STRING}), max_size=2) | STRING,
        "schemaVersion": st.sampled_from(["bedrock-conversation-2024", None]),
        "id": st.integers(0, 9),
    },
)


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(["messages", "converse"]),
    st.lists(CHAT, min_size=1, max_size=3),
    st.sampled_from(["converse", "messages", "claude-messages"]),
    st.booleans(),
)
def test_a_block_of_chats_at_once_says_what_line_by_line_says(
    shape: str, chats: list[dict[str, object]], target: str, ascii: bool
):
    raw = "".join(json.dumps(chat, ensure_ascii=ascii) + "\n" for chat in chats).encode(
        "utf-8", "surrogatepass"
    )
    batch = decode_batch(shape, raw, len(chats))
    if batch is None or not can_encode(batch, target):
        return
    records = [parse_record(chat, {}) for chat in chats]
    slow = [encode_record(record, target) for record in records]
    assert {record.format for record in records} == {shape}
    assert not any(record.left_out for record in records)
    assert encode_batch(batch, target).splitlines(keepends=True) == [line for line, _ in slow]
    assert batch.record_lengths() == [size for _, size in slow]
    assert batch.characters == sum(batch.record_lengths())
    assert batch.max_characters == max(batch.record_lengths())
    assert batch.completions == [record.answer for record in records]


@given(st.lists(GOOD_TURNS, min_size=1, max_size=4), st.booleans())
def test_plain_chats_take_the_fast_path(chats: list[list[dict[str, object]]], blocks: bool):
    turns = [as_blocks(chat) if blocks else chat for chat in chats]
    raw = "".join(json.dumps({"messages": chat}) + "\n" for chat in turns).encode()
    assert decode_batch("converse" if blocks else "messages", raw, len(chats)) is not None


def test_a_repeated_key_in_a_chat_leaves_the_fast_path():
    line = b'{"messages":[{"role":"user","role":"user","content":"q"},'
    line += b'{"role":"assistant","content":"a"}]}\n'
    assert decode_batch("messages", line, 1) is None
    assert decode_batch("messages", line.replace(b'"role":"user",', b"", 1), 1) is not None


def once(members: list[tuple[str, object]]) -> dict[str, object]:
    assert len(dict(members)) == len(members)
    return dict(members)


@given(st.lists(GOOD_LINE, min_size=1, max_size=5))
def test_plain_records_take_the_fast_path(good: list[bytes]):
    raw = b"\n".join(good) + b"\n"
    assert decode_batch("prompt-completion", raw, len(good)) is not None


@settings(max_examples=25, deadline=None)
@given(RECORDS, st.integers(0, 2**32 - 1), st.floats(0.01, 0.99))
def test_staging_twice_gives_the_same_bytes_from_any_folder(
    records: list[dict[str, str]], seed: int, share: float
):
    with folder() as base:
        write(base / "x.jsonl", records)
        first = staged(base, seed, validation=share)
        shutil.copytree(base, base / "else" / "where", ignore=shutil.ignore_patterns("root"))
        other = staged(base / "else" / "where", seed, validation=share)
        assert first.manifest == other.manifest
        for name in ("train.jsonl", "validation.jsonl"):
            assert (first.folder / name).read_bytes() == (other.folder / name).read_bytes()


@settings(max_examples=40, deadline=None)
@given(RECORDS, st.integers(0, 2**32 - 1), st.floats(0.01, 0.99))
def test_the_split_loses_and_invents_nothing_and_keeps_duplicates_together(
    records: list[dict[str, str]], seed: int, share: float
):
    with folder() as base:
        write(base / "x.jsonl", records)
        result = staged(base, seed, validation=share)
        train, held = (lines(result.folder / f"{role}.jsonl") for role in ("train", "validation"))
        write(base / "x.jsonl", records[::-1])
        turned_held = lines(staged(base, seed, validation=share).folder / "validation.jsonl")
    assert Counter(map(key, train)) + Counter(map(key, held)) == Counter(map(key, records))
    assert not set(map(key, train)) & set(map(key, held))
    assert [r for r in records if r in train] == train
    assert held[::-1] == turned_held
    biggest = max(Counter(map(key, records)).values())
    wanted = min(max(1, round(share * len(records))), len(records) - 1)
    assert abs(len(held) - wanted) < biggest


KEYED = st.lists(st.tuples(st.integers(0, 2**64 - 1) | st.integers(0, 5), st.integers(0, 3)))


@given(KEYED, st.floats(0.001, 0.9), st.booleans())
def test_groups_stay_whole_and_every_label_gives_its_share(
    records: list[tuple[int, int]], share: float, stratify: bool
):
    keys = np.array([key for key, _ in records], np.uint64)
    labels = np.array([label for _, label in records], np.int64) if stratify else None
    held = hold_out(keys, share, labels)
    groups = Counter(keys.tolist())
    if held is None:
        assert len(groups) < 2
        return
    assert 0 < held.sum() < len(keys)
    sides = Counter((key, bool(side)) for key, side in zip(keys.tolist(), held, strict=True))
    assert len(sides) == len(groups), "no group is on both sides"
    if not stratify:
        wanted = min(max(1, round(share * len(keys))), len(keys) - 1)
        assert abs(int(held.sum()) - wanted) <= max(groups.values())
    turned = hold_out(keys[::-1], share, None if labels is None else labels[::-1])
    assert turned is not None and (turned[::-1] == held).all()


@given(st.lists(st.integers(0, 2), min_size=40, max_size=200), st.floats(0.1, 0.5))
def test_each_label_is_held_out_in_its_share(labels: list[int], share: float):
    codes = np.array(labels)
    held = hold_out(
        np.array(
            list(compute_selection_keys(map(str.encode, map(str, range(len(codes)))), 7, "")),
            np.uint64,
        ),
        share,
        codes,
    )
    assert held is not None
    for label in set(labels):
        of_it = codes == label
        if round(share * of_it.sum()) >= 1:
            assert abs(held[of_it].sum() - share * of_it.sum()) <= 0.5 + 1e-9


@given(st.lists(st.integers(0, 5), min_size=1), st.integers(0, 50))
def test_chosen_marks_as_many_as_it_should(keys: list[int], count: int):
    marks = select_lowest_keys(np.array(keys, np.uint64), count)
    assert marks.sum() == min(count, len(keys))
    assert sorted(keys)[:count] == sorted(np.array(keys)[marks].tolist())


@given(st.integers(1, 10_000), st.lists(st.floats(0.01, 0.3), min_size=1, max_size=3))
def test_shares_are_of_the_resulting_set(records: int, shares: list[float]):
    taken = general_record_counts(records, shares)
    total = records + sum(taken)
    for count, share in zip(taken, shares, strict=True):
        assert abs(count - share * total) <= 1 + len(shares)


@given(st.lists(st.lists(st.integers()), max_size=4))
def test_interleaving_keeps_every_item_and_each_order(streams: list[list[int]]):
    labeled = [[(which, item) for item in items] for which, items in enumerate(streams)]
    merged = list(interleave([(len(items), iter(items)) for items in labeled]))
    for which, items in enumerate(labeled):
        assert [entry for entry in merged if entry[0] == which] == items


def test_seed_and_purpose_change_the_key():
    keys = [compute_selection_keys([b"x"], *by) for by in ((1, "split"), (2, "split"), (1, "mix"))]
    assert len({next(key) for key in keys}) == 3
