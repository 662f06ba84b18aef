"""A corpus of broken files, one fault each, and of good ones: every fault found, none invented."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudft import catalogue
from cloudft.data.checks.check import check_data
from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.spec.model import DataSpec
from cloudft.types import Finding

ROOT = Path(__file__).resolve().parents[3]
CORPUS = ROOT / "tests" / "corpus"
EXPECTED: dict[str, dict[str, Any]] = yaml.safe_load((CORPUS / "expected.yaml").read_text())
GOOD = sorted((CORPUS / "good").iterdir())
REAL = sorted((ROOT / "examples").glob("*/data/*.jsonl"))


def findings(
    path: Path, kind: str = "FINE_TUNING", base_model: str = "smollm2-135m", batch: int = 1
) -> tuple[Finding, ...]:
    """Return the findings of a check of this one file."""
    model = catalogue.find_model(base_model)
    rules = DatasetLimits.for_model(model, kind, batch)
    data = DataSpec.model_validate({"train": path.name})
    return check_data(data, format=model.formats[kind], base_dir=path.parent, limits=rules).findings


def test_the_table_and_the_files_are_the_same() -> None:
    assert EXPECTED.keys() == {path.name for path in (CORPUS / "broken").iterdir()}
    assert len(EXPECTED) >= 60


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.xfail(reason=f"waits for {case['waits']}")])
        if "waits" in case
        else name
        for name, case in EXPECTED.items()
    ],
)
def test_a_broken_file_has_its_one_fault(name: str) -> None:
    expected = EXPECTED[name]
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    found = findings(
        CORPUS / "broken" / name,
        expected.get("type", "FINE_TUNING"),
        expected.get("base_model", "smollm2-135m"),
        expected.get("batch", 1),
    )
    severity = expected.get("severity", "error")
    listed = [(f.severity, f.code, f.line) for f in found if f.severity != "note"]
    before = list(map(tuple, expected.get("before", ())))
    others = [(severity, code, line) for code, line in expected.get("more", ())]
    assert listed == [*before, (severity, expected["code"], expected["line"]), *others]
    assert "field" not in expected or found[0].field == expected["field"]
    assert all((f.fix or f.severity == "note") and f.message for f in found)


@pytest.mark.parametrize("path", [*GOOD, *REAL], ids=lambda path: path.name)
def test_a_good_file_has_no_fault(path: Path) -> None:
    unlabeled = ".cpt." in path.name or path.parent.parent.name == "aws-api-docs"
    kind = "CONTINUED_PRE_TRAINING" if unlabeled else "FINE_TUNING"
    model = "nova-lite" if ".nova-lite." in path.name else "smollm2-135m"
    assert all(f.severity == "note" for f in findings(path, kind, model))
