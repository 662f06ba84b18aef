"""How many short jobs are trained at once: two where that is known to pay, and changes no digit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from job_files import write_job_file

from cloudft.backends.local import jobs_at_once as module
from cloudft.backends.local.jobs_at_once import jobs_at_once, threads_of_each
from cloudft.spec.load import load_job


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set four cores, 16 GiB, bfloat16 and no GPU."""
    monkeypatch.setattr(module, "_cores", lambda: 4)
    monkeypatch.setattr(module, "_free_bytes", lambda: 2**34)
    monkeypatch.setattr(module, "_has_bfloat16", lambda dtype: dtype != "float32")
    monkeypatch.setattr(module, "GPU_DEVICES", ())
    monkeypatch.setattr(module, "can_start_warm", lambda _: True)


def count(folder: Path, model: Path, **local: Any) -> int:
    job = write_job_file(folder, model, local={"device": "auto", "dtype": "auto"} | local)
    return jobs_at_once(load_job(job))


def test_adapters_of_a_small_model_are_trained_two_at_once(
    tmp_path: Path, tiny_model: Path
) -> None:
    assert count(tmp_path, tiny_model) == 2
    assert [threads_of_each(jobs) for jobs in (1, 2, 3, 8)] == [4, 2, 1, 1]


@pytest.mark.parametrize(
    "local", [{"dtype": "float32"}, {"method": "full"}, {"packed": False}, {"device": "mps"}]
)
def test_what_computes_other_digits_with_half_of_the_cores_is_alone(
    tmp_path: Path, tiny_model: Path, local: dict[str, Any]
) -> None:
    assert count(tmp_path, tiny_model, **local) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_cores", lambda: 1),
        ("_free_bytes", lambda: 2**30),
        ("count_parameters", lambda _: None),
        ("count_parameters", lambda _: 8_000_000_000),
        ("can_start_warm", lambda _: False),
        ("GPU_DEVICES", ("/dev/null",)),
    ],
)
def test_a_machine_or_a_model_for_one_at_a_time(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any
) -> None:
    monkeypatch.setattr(module, name, value)
    assert count(tmp_path, tiny_model) == 1


def test_a_job_that_shares_the_cores_decides_as_one_that_has_them_all() -> None:
    torch = pytest.importorskip("torch")
    device = pytest.importorskip("local_backend.device")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        device.share_cores(2)
        assert (torch.get_num_threads(), device.count_all_threads()) == (2, 4)
    finally:
        device._all_threads = None
        torch.set_num_threads(before)
