"""What others read about the model that was tuned."""

from __future__ import annotations

from pathlib import Path

from job_records import make_record

from cloudft.publishing.base_model import find_base_model
from cloudft.storage.store import Store


def test_the_base_of_a_job_that_was_trained_here_is_what_was_trained(tmp_path: Path) -> None:
    record = make_record(Store(tmp_path), "router-0", base_model="nova-lite")
    found = find_base_model(record, "smollm2-135m")
    assert found.title == found.hub_id == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert found.license is not None and found.license.name == "Apache-2.0"
    assert find_base_model(record).title == "nova-lite"
