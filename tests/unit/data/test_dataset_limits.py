"""The base models' rules: what passes at once has nothing to be said about singly."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudft import catalogue
from cloudft.catalogue.model import Limits, Source
from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.data.formats.fast_path import RecordBatch
from cloudft.data.formats.recognizer import parse_record
from cloudft.types import DataVolume, StagedFile

NOVA = DatasetLimits.for_model(catalogue.find_model("nova-lite"), "FINE_TUNING", 1)
TITAN = DatasetLimits.for_model(catalogue.find_model("titan-text-lite"), "FINE_TUNING", 4)
COMMAND = DatasetLimits.for_model(catalogue.find_model("command"), "FINE_TUNING", 1)
WORD = st.sampled_from(["user: ", "USER:", "bot", ":", "[eos]", "[", "EOS]", "<image", ">", "x"])
TEXT = st.lists(WORD, min_size=1, max_size=6).map("".join) | st.integers(1, 30_000).map(
    lambda n: "w" * n
)
LIMITS = Limits(Source("test", "https://example.org", "2026"))


@pytest.mark.parametrize("rules", [NOVA, TITAN, COMMAND, DatasetLimits()])
@given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3))
def test_a_block_that_fits_has_no_record_that_does_not(
    rules: DatasetLimits, pairs: list[tuple[str, str]]
) -> None:
    prompts, completions = [a for a, _ in pairs], [b for _, b in pairs]
    longest = max(map(len, prompts)) + max(map(len, completions))
    fits = rules.within_limits(
        RecordBatch(prompts, completions, sum(map(len, prompts + completions)), longest)
    )
    problems = [
        problem
        for a, b in pairs
        for problem in rules.check_record(parse_record({"prompt": a, "completion": b}, {}))
    ]
    assert not fits or problems == []


def test_titans_limit_depends_on_the_batch() -> None:
    record = parse_record({"prompt": "w" * 15_000, "completion": "x"}, {})
    model = catalogue.find_model("titan-text-lite")
    found = {
        batch: [
            p.severity
            for p in DatasetLimits.for_model(model, "FINE_TUNING", batch).check_record(record)
        ]
        for batch in (1, 2, 3, 6, 7)
    }
    assert found == {1: ["warning"], 2: ["warning"], 3: ["error"], 6: ["error"], 7: []}


def test_numbers_and_sizes_are_held_to_their_limits() -> None:
    limits = replace(LIMITS, records_min=8, records_max=20, validation_records_max=5)
    limits = replace(limits, train_bytes_max=100, unsure=("records_min",))

    def codes(train: int, validation: int, size: int = 1) -> list[tuple[str, str, str | None]]:
        file = StagedFile(train, 1, 1, "train.jsonl", "", size)
        volumes = {
            "train": file,
            "validation": DataVolume(validation, 1, 1),
            "test": DataVolume(99, 1, 1),
        }
        return [(p.severity, p.code, p.field) for p in DatasetLimits(limits).check_dataset(volumes)]

    many = "TooMuchDataForModel"
    assert codes(10, 5) == []
    assert codes(3, 2) == [("warning", "TooFewRecordsForModel", "data.train")]
    assert codes(10, 6) == [("error", many, "data.validation")]
    assert codes(16, 5) == [("error", many, "data.train")]
    assert codes(10, 5, size=101) == [("error", many, "data.train")]
    assert list(DatasetLimits().check_dataset({"train": DataVolume(0, 0, 0)})) == []
