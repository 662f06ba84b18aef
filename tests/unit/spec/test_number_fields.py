"""Every number of a job file has a range: stated in the schema, checked when the file is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudft.errors import SpecError
from cloudft.spec import build_job_schema, load_job

BASE: dict[str, Any] = {
    "name": "a",
    "base_model": "nova-lite",
    "data": {"train": "x.jsonl"},
    "local": {"model": "smollm2-135m"},
}
NEEDED = {
    "distillation": {"teacher": "amazon.nova-pro-v1:0"},
    "reinforcement": {"lambda_arn": "arn:aws:lambda:us-east-1:123456789012:function:grade"},
    "early_stopping": {"patience": 2, "threshold": 0.01},
    "prices": {"source": "an offer", "date": "2026-11-29"},
    "local.early_stopping": {"patience": 2, "threshold": 0.01},
}
OUT = [float("nan"), float("inf"), -float("inf"), 1e300, 10**12, -(10**12), "1e12", -1]
SCHEMA = build_job_schema()
Path_ = tuple[str, ...]


def numbers(part: Mapping[str, Any], at: Path_ = ()) -> Iterator[tuple[Path_, Mapping[str, Any]]]:
    """Yield every numeric part of the schema, with the path of its field."""
    if "$ref" in part:
        part = SCHEMA["$defs"][part["$ref"].rpartition("/")[2]]
    if part.get("type") in ("number", "integer"):
        yield at, part
    for option in part.get("anyOf", ()):
        yield from numbers(option, at)
    for name, inner in part.get("properties", {}).items():
        yield from numbers(inner, (*at, name))
    for name in ("items", "prefixItems", "additionalProperties"):
        if isinstance(part.get(name), Mapping):
            yield from numbers(part[name], (*at, "*" if name == "additionalProperties" else "0"))


FIELDS = list(numbers(SCHEMA))
PLAIN = sorted({at for at, _ in FIELDS if "*" not in at})


@pytest.mark.parametrize(
    ("at", "part"), FIELDS, ids=lambda value: ".".join(value) if isinstance(value, tuple) else ""
)
def test_the_schema_states_both_ends(at: Path_, part: Mapping[str, Any]) -> None:
    assert part.keys() & {"minimum", "exclusiveMinimum"}, at
    assert part.keys() & {"maximum", "exclusiveMaximum"}, at


def refused(folder: Path, at: Path_, value: object) -> list[str]:
    """Return the fields of findings about a job with `value` at this path; none if it is taken."""
    spec = yaml.safe_load(yaml.safe_dump(BASE))
    inner = spec
    for depth, name in enumerate(at[:-1]):
        given = NEEDED.get(".".join(at[: depth + 1]))
        if name == "mix":
            inner["mix"] = [{"path": "g.jsonl", "share": 0.1}]
            inner = inner["mix"]
        elif isinstance(inner, list):
            inner = inner[0]
        else:
            inner = inner.setdefault(name, dict(given or {}))
    inner[at[-1]] = value
    (folder / "job.yaml").write_text(yaml.safe_dump(spec))
    try:
        load_job(folder / "job.yaml")
    except SpecError as error:
        assert all(f.fix and f.line for f in error.findings)
        return [f.field or "" for f in error.findings if f.severity == "error"]
    return []


@pytest.mark.parametrize("at", [at for at in PLAIN if at[0] != "hyperparameters"], ids=".".join)
def test_no_field_takes_nan_infinity_or_an_absurd_number(tmp_path: Path, at: Path_) -> None:
    for value in OUT:
        assert ".".join(at) in refused(tmp_path, at, value), value


@pytest.mark.parametrize("section", ["hyperparameters", "local.hyperparameters"])
def test_no_hyperparameter_does(tmp_path: Path, section: str) -> None:
    for name in ("epochCount", "batchSize", "learningRate", "learningRateWarmupSteps"):
        for value in OUT:
            at = (*section.split("."), name)
            assert ".".join(at) in refused(tmp_path, at, value), value
    at = ("reinforcement", "hyperparameters", "learningRate")
    for value in (float("nan"), float("inf"), 1e300, -(10**12), "1e12"):
        assert ".".join(at) in refused(tmp_path, at, value), value
    words = refused(tmp_path, ("reinforcement", "hyperparameters", "reasoningEffort"), "high")
    assert not any(field.startswith("reinforcement") for field in words)
