"""Any section `sweep`: it is read, or every fault has a line and a remedy; a point lies inside."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("optuna")

from cloudft.errors import SpecError
from cloudft.spec.checks import CheckContext
from cloudft.spec.load import load_job
from cloudft.spec.serialize import to_portable_values
from cloudft.spec.validation_errors import SourceMap
from cloudft.sweep.space import read_space
from cloudft.sweep.study import Study

NAMES = st.sampled_from(
    [
        *("learningRate", "batchSize", "epochCount", "local.lora.r", "local.lora.dropout"),
        *("local.method", "local.hyperparameters.learningRate", "lr", "data.train", "local", ""),
    ]
) | st.text(max_size=12)
NUMBERS = st.integers(-3, 2000) | st.floats(-2, 2) | st.sampled_from([1e-5, 1e-4, 1e-3, 1e300])
SCALARS = NUMBERS | st.booleans() | st.sampled_from(["lora", "full", "1e-4", ""]) | st.none()
RANGES = st.fixed_dictionaries({"low": NUMBERS, "high": NUMBERS}, optional={"log": st.booleans()})
PARAMETERS = RANGES | st.lists(SCALARS, max_size=4) | SCALARS | st.just({"low": 1})


@settings(max_examples=60)
@given(st.dictionaries(NAMES, PARAMETERS, max_size=3), st.integers(-1, 30))
def test_any_space_is_read_or_refused_with_its_line(space: dict[str, object], trials: int) -> None:
    spec = {
        "name": "a",
        "base_model": "smollm2-135m",
        "data": {"train": "a.jsonl"},
        "sweep": {"space": space, "trials": trials},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "cloudft.yaml")
        path.write_text(yaml.safe_dump(spec, sort_keys=False))
        try:
            job = load_job(path)
        except SpecError as error:
            for finding in error.findings:
                assert finding.message and finding.fix and finding.line
            return
        assert job.spec.sweep is not None
        kind, values = job.spec.customization_type, to_portable_values(job)
        context = CheckContext(job.base_dir, SourceMap(None, {}, {}), kind, values, job.model)
        parameters = read_space(job.spec.sweep.model_dump()["space"], context)
        assert [one.name for one in parameters] == list(space)
        study = Study(Path(folder, "study.jsonl"), parameters, 7)
        for _ in range(3):
            record = study.ask()
            assert all(one.contains(record.values[one.name]) for one in parameters)
