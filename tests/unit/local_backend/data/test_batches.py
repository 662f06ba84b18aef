"""Records as token ids, and their order in batches."""

from __future__ import annotations

import hashlib
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from local_backend.data.batches import (
    IGNORE_INDEX,
    MicroBatchLimit,
    collate,
    count_padded_tokens,
    epoch_order,
    split_into_micro_batches,
    steps_per_epoch,
    take_batch,
)
from local_backend.data.encode import verify_digest
from local_backend.data.examples import EncodedData, Example
from local_backend.errors import TrainerError
from local_backend.job_dir import JobDir
from local_backend.models.load_model import LoadedModel
from local_backend.settings import DataFile, read_settings
from local_backend.training.objectives import find_objective

sizes = st.integers(1, 40)
limits = st.builds(MicroBatchLimit, st.integers(1, 8), st.integers(1, 100))


def example(length: int, first: int = 0) -> Example:
    """Return a sequence of that length; every other token carries loss."""
    return Example(np.arange(first, first + length, dtype=np.int32), np.arange(length) % 2 == 1)


def encoded(
    tmp_path: Path, records: list[dict[str, Any]], max_length: int, **job: Any
) -> EncodedData:
    """Return the records as the trainer encodes them with that longest sequence."""
    folder = tiny.write_job_dir(tmp_path / "job", tmp_path, {"train": records}, **job)
    settings = read_settings(JobDir(folder))
    tokenizer = tiny.build_tokenizer()
    loaded = LoadedModel(None, tokenizer, "", [tokenizer.eos_token_id], False)
    objective = find_objective(settings.customization_type)
    record_format = loaded.record_format(settings.format)
    return objective.encode(settings.data["train"], settings, record_format, max_length)


def epoch_batches(count: int, size: int, seed: int, epoch: int) -> list[list[int]]:
    """Return all batches of an epoch as the training loop takes them."""
    order = epoch_order(count, seed, epoch)
    return [take_batch(order, size, n) for n in range(steps_per_epoch(count, size))]


@given(count=st.integers(1, 200), size=sizes, seed=st.integers(0, 2**32 - 1))
def test_an_epoch_takes_every_example_once_in_an_order_of_seed_and_epoch_alone(
    count: int, size: int, seed: int
) -> None:
    batches = epoch_batches(count, size, seed, 3)
    order = np.random.default_rng([seed, 3]).permutation(count)  # that of every job so far
    assert list(chain.from_iterable(batches)) == order.tolist()
    assert sorted(chain.from_iterable(batches)) == list(range(count))
    assert all(len(batch) == size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= size
    assert len(batches) == steps_per_epoch(count, size)
    np.random.default_rng().permutation(count)  # other randomness in between
    assert epoch_batches(count, size, seed, 3) == batches


def test_epochs_and_seeds_differ_in_order() -> None:
    orders = [epoch_batches(50, 50, seed, epoch)[0] for seed in (1, 2) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert all(order != sorted(order) for order in orders)


@given(lengths=st.lists(sizes, min_size=1, max_size=30), limit=limits)
def test_micro_batches_hold_each_example_once_and_keep_within_any_limit(
    lengths: list[int], limit: MicroBatchLimit
) -> None:
    examples = [example(length, first=100 * i) for i, length in enumerate(lengths)]
    parts = list(split_into_micro_batches(examples, limit))
    assert sorted(int(e.ids[0]) for part in parts for e in part) == [
        100 * i for i in range(len(lengths))
    ]
    for part in parts:
        padded = max(len(e.ids) for e in part) * len(part)
        assert len(part) <= limit.sequences
        assert padded <= limit.tokens or len(part) == 1, "one sequence always goes through"


@given(limit=limits)
def test_a_limit_is_halved_down_to_one_sequence_at_a_time(limit: MicroBatchLimit) -> None:
    seen = []
    smaller: MicroBatchLimit | None = limit
    while smaller is not None:
        seen.append(smaller.sequences)
        smaller = smaller.halved()
    assert seen[-1] == 1
    assert seen == [limit.sequences // 2**i for i in range(len(seen))]


def test_a_batch_is_padded_on_the_right_and_labels_only_what_is_learned() -> None:
    batch = collate([example(3, first=10), example(1, first=20)], 9, torch.device("cpu"))
    assert batch["input_ids"].tolist() == [[10, 11, 12], [20, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORE_INDEX, 11, IGNORE_INDEX], [IGNORE_INDEX] * 3]


@pytest.mark.parametrize("length", [2, 7, 32])
def test_packing_loses_no_token_and_puts_the_end_between_documents(
    tmp_path: Path, length: int
) -> None:
    records = tiny.texts(9)
    tokenizer = tiny.build_tokenizer()
    packed = encoded(
        tmp_path, records, length, customizationType="CONTINUED_PRE_TRAINING", format="input"
    )
    expected = [
        token
        for record in records
        for token in [*tokenizer(record["input"])["input_ids"], tokenizer.eos_token_id]
    ]
    tokens = np.concatenate([e.ids for e in packed.examples]).tolist()
    # One token alone, the very last end mark, has nothing before it to be predicted from.
    assert tokens == expected[: len(tokens)]
    assert len(expected) - len(tokens) == (1 if len(expected) % length == 1 else 0)
    assert all(len(e.ids) == length for e in packed.examples[:-1])
    assert all(e.loss_mask.tolist() == [False] + [True] * (len(e.ids) - 1) for e in packed.examples)
    assert packed.tokens == len(tokens)
    assert packed.loss_tokens == len(tokens) - len(packed.examples)


def test_what_is_cut_is_counted_and_its_end_is_not_learned(tmp_path: Path) -> None:
    records = [tiny.pair("Where?", "In Lyon."), tiny.pair("Where?", "In Lyon. " * 20)]
    data = encoded(tmp_path, records, 40, maxTruncatedShare=0.5)
    assert (data.truncated, data.masked) == (1, 0)
    whole, cut = data.examples
    end = tiny.build_tokenizer().eos_token_id
    assert whole.ids[-1] == end
    assert len(cut.ids) == 40 and cut.ids[-1] != end and cut.loss_mask[-1]
    assert data.summary()["longestRecordTokens"] > 40


def test_a_record_that_loses_its_whole_answer_is_left_out_and_counted(tmp_path: Path) -> None:
    records = [tiny.pair("Where?", "In Lyon."), tiny.pair("Where? " * 30, "In Lyon.")]
    data = encoded(tmp_path, records, 40, maxTruncatedShare=0.5)
    assert (data.truncated, data.masked, len(data.examples)) == (1, 1, 1)


def test_more_cut_records_than_allowed_are_refused_with_the_numbers(tmp_path: Path) -> None:
    records = [*tiny.pairs(3), tiny.pair("Where?", "In Lyon. " * 20)]
    with pytest.raises(TrainerError) as refused:
        encoded(tmp_path, records, 60, maxTruncatedShare=0.2)
    assert "1 of 4 records of train.jsonl are longer than 60 tokens" in refused.value.message
    assert "max_truncated_share" in str(refused.value)
    assert encoded(tmp_path, records, 60, maxTruncatedShare=0.25).truncated == 1


def test_a_staged_file_is_taken_only_as_it_was_submitted(tmp_path: Path) -> None:
    path = tiny.write_jsonl(tmp_path / "train.jsonl", tiny.pairs(3))
    file = DataFile(path, hashlib.sha256(path.read_bytes()).hexdigest(), 3)
    verify_digest(file)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TrainerError, match="changed after it was staged"):
        verify_digest(file)
    path.unlink()
    with pytest.raises(TrainerError, match="can't be read: No such file"):
        verify_digest(file)


def test_the_sequences_of_one_example_stay_in_one_micro_batch() -> None:
    mask = np.array([False, True, True, False, True])
    pairs = [Example(np.arange(5) + 10 * i, mask, row_lengths=(3, 2)) for i in range(4)]
    first, second = pairs[1].rows()
    assert first.ids.tolist() == [10, 11, 12] and first.loss_mask.tolist() == [False, True, True]
    assert second.ids.tolist() == [13, 14] and second.loss_mask.tolist() == [False, True]
    parts = list(split_into_micro_batches(pairs, MicroBatchLimit(5, 1000)))
    assert [len(part) for part in parts] == [2, 2]
    assert count_padded_tokens(parts[0]) == 4 * 3
