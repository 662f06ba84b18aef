from __future__ import annotations

import json
import shutil
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudft.data.mix import chosen, counts, interleave
from cloudft.data.split import held_out_up_to, key_of
from cloudft.data.stage import Staged, examine, stage
from cloudft.spec.models import DataSpec

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


def staged(base: Path, seed: int, **data: object) -> Staged:
    spec = DataSpec.model_validate({"train": "x.jsonl", **data})
    return stage(
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
    st.sampled_from([("FINE_TUNING", "converse"), ("CONTINUED_PRE_TRAINING", "input")]),
)
def test_any_bytes_give_records_or_findings(raw: bytes, suffix: str, task: tuple[str, str]):
    with folder() as base:
        (base / f"x.{suffix}").write_bytes(raw)
        data = DataSpec.model_validate({"train": f"x.{suffix}"})
        kind, target = task
        examined = examine(data, customization_type=kind, format=target, seed=1, base_dir=base)
    errors = [f for f in examined.findings if f.severity == "error"]
    assert (examined.manifest is None) == bool(errors)
    assert examined.manifest is None or examined.manifest.files["train"].records > 0


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
def test_the_split_loses_and_invents_nothing_and_keeps_twins_together(
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


@given(st.lists(st.integers(0, 2**64 - 1), min_size=2, unique=True), st.floats(0.001, 0.9))
def test_without_twins_the_share_is_exact(keys: list[int], share: float):
    cut = held_out_up_to(array("Q", keys), share)
    wanted = max(1, round(share * len(keys)))
    if wanted < len(keys):
        assert cut is not None
        assert sum(key <= cut for key in keys) == wanted


@given(st.lists(st.integers(0, 5), min_size=1), st.integers(0, 50))
def test_chosen_marks_as_many_as_it_should(keys: list[int], count: int):
    marks = chosen(array("Q", keys), count)
    assert sum(marks) == min(count, len(keys))


@given(st.integers(1, 10_000), st.lists(st.floats(0.01, 0.3), min_size=1, max_size=3))
def test_shares_are_of_the_resulting_set(records: int, shares: list[float]):
    taken = counts(records, shares)
    total = records + sum(taken)
    for count, share in zip(taken, shares, strict=True):
        assert abs(count - share * total) <= 1 + len(shares)


@given(st.lists(st.lists(st.integers()), max_size=4))
def test_interleaving_keeps_every_item_and_each_order(streams: list[list[int]]):
    labelled = [[(which, item) for item in items] for which, items in enumerate(streams)]
    merged = list(interleave([(len(items), iter(items)) for items in labelled]))
    for which, items in enumerate(labelled):
        assert [entry for entry in merged if entry[0] == which] == items


def test_seed_and_purpose_change_the_key():
    assert len({key_of(b"x", 1, "split"), key_of(b"x", 2, "split"), key_of(b"x", 1, "mix")}) == 3
