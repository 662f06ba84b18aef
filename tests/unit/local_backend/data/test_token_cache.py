"""Tokens that are made once: as arrays they are the examples, and nothing stale is used."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from processes import wait_until
from trainer_run import RunTrainer, run_trainer

from local_backend.data import encode_pool, token_cache
from local_backend.data.encode import split_into_blocks
from local_backend.data.examples import EncodedData, Example, merge_data
from local_backend.data.token_arrays import (
    IDS,
    MASK,
    META,
    NARROW,
    WIDE,
    ArrayWriter,
    IdType,
    TokenArrays,
    open_arrays,
)
from local_backend.data.token_cache import TokenSource, load_tokens, token_key
from local_backend.errors import TrainerError
from local_backend.job_dir import JobDir
from local_backend.models.load_model import LoadedModel
from local_backend.models.load_tokenizer import load_tokenizer
from local_backend.settings import Settings, read_settings
from local_backend.training.memory_estimate import encode_training_data
from local_backend.training.objectives import find_objective

JOBS: dict[str, tuple[str, Any]] = {
    "FINE_TUNING": ("prompt-completion", tiny.pairs),
    "CONTINUED_PRE_TRAINING": ("input", tiny.texts),
    "PREFERENCE_OPTIMIZATION": ("preference", tiny.preferences),
}


def plain(examples: Sequence[Example]) -> list[tuple[list[int], list[bool], tuple[int, ...]]]:
    """Return examples as plain values."""
    return [(e.ids.tolist(), e.loss_mask.tolist(), e.row_lengths) for e in examples]


@st.composite
def blocks(draw: st.DrawFn) -> tuple[list[EncodedData], IdType]:
    """Draw blocks of examples, of one or of two sequences, and the type of their ids."""
    dtype = draw(st.sampled_from([NARROW, WIDE]))
    several = draw(st.booleans())
    tokens = st.lists(
        st.tuples(st.integers(0, int(np.iinfo(dtype).max)), st.booleans()), min_size=1, max_size=9
    )
    drawn = draw(st.lists(st.lists(st.tuples(tokens, tokens), max_size=6), max_size=4))
    made = []
    for records in drawn:
        data = EncodedData([], len(records), truncated=draw(st.integers(0, 9)))
        for first, second in records:
            pairs = [*first, *second] if several else first
            ids, mask = (np.array(column) for column in zip(*pairs, strict=True))
            lengths = (len(first), len(second)) if several else ()
            data.append(Example(ids.astype(np.int32), mask.astype(bool), row_lengths=lengths))
        made.append(data)
    return made, dtype


@hypothesis_settings(max_examples=40)
@given(drawn=blocks())
def test_arrays_are_the_list_of_examples(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[list[EncodedData], IdType]
) -> None:
    parts, dtype = drawn
    folder = tmp_path_factory.mktemp("arrays")
    writer = ArrayWriter(folder, dtype)
    for part in parts:
        writer.append(part)
    writer.close()
    listed, mapped = merge_data(parts), open_arrays(folder)
    assert mapped is not None
    assert plain(mapped.examples) == plain(listed.examples)
    assert mapped.summary() == listed.summary() and mapped.highest_id == listed.highest_id
    for example in mapped.examples:
        assert example.ids.dtype == np.int32 and example.loss_mask.dtype == bool
        assert example.ids.flags.writeable
    assert plain(mapped.examples[-3:-1]) == plain(listed.examples[-3:-1])


@hypothesis_settings(max_examples=40)
@given(lines=st.lists(st.text("ab\u2028é", max_size=5)), size=st.integers(1, 20))
def test_blocks_are_whole_lines_in_order(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], size: int
) -> None:
    path = tiny.write_jsonl(tmp_path_factory.mktemp("b") / "x", [{"input": x} for x in lines])
    parts = list(split_into_blocks(path, size))
    assert [record["input"] for part in parts for record in part.records()] == lines
    assert [part.first for part in parts] == [
        1 + sum(before.count for before in parts[:at]) for at in range(len(parts))
    ]


READ = """
import re, sys
from pathlib import Path
from local_backend.data.batches import epoch_order, take_batch
from local_backend.data.token_arrays import open_arrays
def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
before = anonymous()
data = open_arrays(Path(sys.argv[1]))
order = epoch_order(len(data.examples), 7, 0)
tokens = sum(len(data.examples[at].ids) for n in range(2000) for at in take_batch(order, 8, n))
print(anonymous() - before, tokens)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_two_million_examples_take_the_memory_of_their_order(tmp_path: Path) -> None:
    count, length = 2_000_000, 10
    writer = ArrayWriter(tmp_path, WIDE)
    ids, mask = np.arange(count * length, dtype=np.int32), np.full(count * length // 8, 0x55)
    ends = np.arange(1, count + 1, dtype=np.int64) * length
    arrays = TokenArrays(ids, mask.astype(np.uint8), ends, None)
    writer.append(EncodedData(arrays, count, tokens=count * length, highest_id=len(ids) - 1))
    writer.close()
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path)], capture_output=True, text=True, check=True
    )
    growth, tokens = map(int, done.stdout.split())
    assert tokens == 2000 * 8 * length
    assert growth < 4 * count + 8e6, "the tokens themselves are 98 MB"


@pytest.fixture
def source(tmp_path: Path, tiny_model: Path) -> Iterator[Any]:
    """Return a function that writes a job; it returns what its tokens are made with."""

    def make(
        records: list[dict[str, Any]],
        kind: str = "FINE_TUNING",
        max_length: int = 64,
        record_format_name: str | None = None,
    ) -> tuple[TokenSource, Settings]:
        job = {"customizationType": kind, "format": record_format_name or JOBS[kind][0]}
        folder = tmp_path / f"job-{len(list(tmp_path.glob('job-*')))}"
        tiny.write_job_dir(folder, tiny_model, {"train": records}, **job)
        settings = read_settings(JobDir(folder))
        tokenizer, is_plain = load_tokenizer(str(tiny_model))
        stops = [int(tokenizer.eos_token_id)]
        loaded = LoadedModel(None, tokenizer, "", stops, is_plain)  # type: ignore[arg-type]
        found = find_objective(kind)
        record_format = loaded.record_format(settings.format)
        return TokenSource(found, record_format, str(tiny_model), max_length), settings

    yield make


@pytest.mark.parametrize("kind", sorted(JOBS))
def test_several_processes_make_what_one_makes(
    source: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = source(JOBS[kind][1](50), kind)
    tokens, settings = made
    file = settings.data["train"]
    listed = tokens.objective.encode(file, settings, tokens.record_format, tokens.max_length)
    monkeypatch.setattr(encode_pool, "MANY_RECORDS", 1)
    monkeypatch.setattr(encode_pool, "usable_cores", lambda: 2)
    monkeypatch.setattr(encode_pool, "split_into_blocks", lambda path: split_into_blocks(path, 700))
    kept = load_tokens(tokens, file, settings)
    assert not kept.was_kept and kept.data.summary() == listed.summary()
    assert plain(kept.data.examples) == plain(listed.examples)
    monkeypatch.setattr(token_cache, "encode_blocks", None)  # it would be called to make them
    again = load_tokens(tokens, file, settings)
    assert again.was_kept and plain(again.data.examples) == plain(listed.examples)


def test_processes_that_refuse_records_name_the_first_line(
    source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(number: int) -> dict[str, Any]:
        turns = [{"role": role, "content": [{"text": "Hi"}]} for role in ("user", "assistant")]
        tool = {"toolSpec": {"name": "f", "inputSchema": {"json": {"type": "object"}}}}
        # The tiny model's template has no place for tools.
        return {"messages": turns} | ({"toolConfig": {"tools": [tool]}} if number >= 29 else {})

    made = source([record(number) for number in range(40)], record_format_name="converse")
    tokens, settings = made
    monkeypatch.setattr(encode_pool, "MANY_RECORDS", 1)
    monkeypatch.setattr(encode_pool, "usable_cores", lambda: 2)
    monkeypatch.setattr(encode_pool, "split_into_blocks", lambda path: split_into_blocks(path, 300))
    with pytest.raises(TrainerError, match=r"train.jsonl, line 30: "):
        load_tokens(tokens, settings.data["train"], settings)
    assert list(token_cache.token_cache().iterdir()) == []


def test_what_the_tokens_follow_from_is_in_the_key(source: Any, tmp_path: Path) -> None:
    records = tiny.pairs(5)
    tokens, settings = source(records)
    file = settings.data["train"]
    keys = [token_key(tokens, file)]
    assert token_key(source(records)[0], file) == keys[0], "another job has the same"
    keys.append(token_key(source(records, max_length=65)[0], file))
    keys.append(token_key(tokens, source(tiny.pairs(6))[1].data["train"]))
    tokens.record_format.tokenizer.chat_template += " "
    keys.append(token_key(tokens, file))
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in Path(tokens.folder).iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / ".git").mkdir()
    (copy / ".git" / "object").write_bytes(b"no tokenizer reads this")
    moved = TokenSource(tokens.objective, tokens.record_format, str(copy), 64)
    assert token_key(moved, file) == keys[-1], "the same model elsewhere"
    inner = json.loads((copy / "tokenizer.json").read_text())
    inner["model"]["merges"] = inner["model"]["merges"][:-1]
    (copy / "tokenizer.json").write_text(json.dumps(inner))
    keys.append(token_key(moved, file))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("damage", ["shorter", "other", "no-meta", "bad-meta"])
def test_damaged_tokens_are_made_again(source: Any, damage: str) -> None:
    tokens, settings = source(tiny.pairs(30))
    file = settings.data["train"]
    first = load_tokens(tokens, file, settings)
    folder = token_cache.token_cache() / str(first.key)
    path = folder / {"shorter": MASK, "other": IDS}.get(damage, META)
    raw = path.read_bytes()
    path.unlink()
    if damage != "no-meta":
        other = {"shorter": raw[:-1], "other": bytes([raw[0] ^ 1]) + raw[1:], "bad-meta": b"[]"}
        path.write_bytes(other[damage])
    second = load_tokens(tokens, file, settings)
    assert not second.was_kept
    assert plain(second.data.examples) == plain(first.data.examples)
    assert load_tokens(tokens, file, settings).was_kept


def test_kept_tokens_are_readable_by_their_owner_alone_and_narrow(source: Any) -> None:
    tokens, settings = source(tiny.pairs(30))
    kept = load_tokens(tokens, settings.data["train"], settings)
    folder = token_cache.token_cache() / str(kept.key)
    modes = {path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == {0o600}
    assert [p.stat().st_mode & 0o777 for p in (folder, folder.parent)] == [0o700] * 2
    assert (folder / IDS).stat().st_size == 2 * kept.data.tokens
    assert [path.name for path in folder.parent.iterdir()] == [folder.name], "no lock is left"


def test_a_disk_that_the_tokens_would_fill_is_refused_before(
    source: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, settings = source(tiny.pairs(60))
    monkeypatch.setattr(
        token_cache,
        "encode_blocks",
        lambda o, r, s, n, f: (
            (lines, o.encode_lines(lines, r, n)) for lines in split_into_blocks(f.path, 300)
        ),
    )
    facts = os.statvfs(Path(tokens.folder))
    full = os.statvfs_result((*facts[:4], 0, *facts[5:]))
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    with pytest.raises(TrainerError) as refused:
        load_tokens(tokens, settings.data["train"], settings)
    assert "The tokens of train.jsonl can't be written: they take about" in refused.value.message
    assert "cloudft gc --local" in str(refused.value.fix)
    assert list(token_cache.token_cache().iterdir()) == []


@pytest.mark.parametrize("at", ["folder", "lock"])
def test_a_disk_without_room_for_a_name_is_said_of_the_kept_tokens(
    source: Any, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    tokens, settings = source(tiny.pairs(8))
    cache = token_cache.token_cache()
    owner, name = (os, "mkdir") if at == "folder" else (os, "open")
    real = getattr(owner, name)

    def fill(path: Any, *args: Any, **more: Any) -> Any:
        if Path(path) == cache or str(path).endswith(".lock"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return real(path, *args, **more)

    monkeypatch.setattr(owner, name, fill)
    with pytest.raises(TrainerError) as refused:
        load_tokens(tokens, settings.data["train"], settings)
    assert f"can't be written: No space left on device ({cache};" in refused.value.message
    assert "cloudft gc --local" in str(refused.value.fix)


def test_a_resume_a_probe_and_another_job_use_the_kept_tokens(
    train: RunTrainer, tmp_path: Path
) -> None:
    first = train(12, validation=tiny.pairs(3))
    assert "tokens of train: made, 12 records" in first.log
    assert "tokens of validation: made, 3 records" in first.log
    second = train(12, validation=tiny.pairs(3), learningRate=1e-3)
    assert "tokens of train: kept, 12 records" in second.log
    assert "tokens of validation: kept, 3 records" in second.log
    assert first.summary["train"] == second.summary["train"]
    kept = sorted(path.name for path in token_cache.token_cache().iterdir())
    assert sorted(json.loads((second.path / "tokens.json").read_text()).values()) == kept
    encode_training_data(read_settings(JobDir(second.path)))  # what a probe begins with
    assert sorted(path.name for path in token_cache.token_cache().iterdir()) == kept


KILLED = """
import pathlib, signal, sys
sys.path.insert(0, sys.argv[2])
from local_backend.data import token_cache
read = token_cache.encode_blocks
def slow(*args):
    for lines, block in read(*args):
        yield lines, block
        signal.pause()
token_cache.encode_blocks = slow
from trainer_run import run_trainer
run_trainer(pathlib.Path(sys.argv[1]))
"""


def test_a_making_that_was_killed_starts_clean_and_two_at_once_make_one(
    tmp_path: Path, tiny_model: Path
) -> None:
    folders = [
        tiny.write_job_dir(tmp_path / f"job-{n}", tiny_model, {"train": tiny.pairs(8)})
        for n in range(3)
    ]
    cache = token_cache.token_cache()
    tests = str(Path(tiny.__file__).parent)
    killed = subprocess.Popen([sys.executable, "-c", KILLED, str(folders[0]), tests])
    try:
        wait_until(lambda: next(cache.glob(".*.cloudft-*"), None), "the folder that is written")
        waiting = subprocess.Popen(
            [sys.executable, "-m", "local_backend.train", str(folders[1])], stdout=subprocess.PIPE
        )
        wait_until(lambda: (folders[1] / "state.json").exists() or None, "the second trainer")
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    output, _ = waiting.communicate(timeout=120)
    assert b"tokens of train: made, 8 records" in output and waiting.returncode == 0
    assert "tokens of train: kept, 8 records" in run_trainer(folders[2]).log
    [kept] = cache.iterdir()
    assert open_arrays(kept) is not None
