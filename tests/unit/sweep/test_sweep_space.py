"""The section `sweep` of the job file: what it takes, and what its errors name."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudft.errors import SpecError
from cloudft.spec.checks import CheckContext
from cloudft.spec.load import LoadedJob, load_job
from cloudft.spec.serialize import to_portable_values
from cloudft.spec.validation_errors import SourceMap
from cloudft.sweep.space import SpaceParameter, read_space, space_size

JOB = "name: a\nbase_model: smollm2-135m\ndata: {train: a.jsonl}\n"


def load(folder: Path, space: str, more: str = "") -> LoadedJob:
    path = folder / "cloudft.yaml"
    path.write_text(f"{JOB}{more}sweep:\n  space:\n    {space}\n")
    return load_job(path)


def space_of(job: LoadedJob) -> tuple[SpaceParameter, ...]:
    assert job.spec.sweep is not None
    kind, values = job.spec.customization_type, to_portable_values(job)
    context = CheckContext(job.base_dir, SourceMap(None, {}, {}), kind, values, job.model)
    return read_space(job.spec.sweep.model_dump()["space"], context)


@pytest.mark.parametrize(
    ("text", "field", "kind"),
    [
        (
            "learningRate: {low: 1e-5, high: 1e-3, log: true}",
            "hyperparameters.learningRate",
            "float",
        ),
        ("epochCount: {low: 1, high: 4}", "hyperparameters.epochCount", "int"),
        ("local.lora.r: [8, 16]", "local.lora.r", "int"),
        ("local.lora.dropout: {low: 0, high: 0.3}", "local.lora.dropout", "float"),
        ("local.method: [lora, full]", "local.method", "other"),
        ("local.hyperparameters.batchSize: [2, 4]", "local.hyperparameters.batchSize", "int"),
        ("hyperparameters.batchSize: [2, 4]", "hyperparameters.batchSize", "int"),
    ],
)
def test_a_name_means_a_field_of_the_job_file(
    tmp_path: Path, text: str, field: str, kind: str
) -> None:
    [parameter] = space_of(load(tmp_path, text))
    assert (parameter.dotted, parameter.kind) == (field, kind)


def test_a_hyperparameter_that_is_set_under_local_is_searched_there(tmp_path: Path) -> None:
    """There it would win over any other value: a search elsewhere would train the same job."""
    own = "local: {hyperparameters: {learningRate: 1e-4}}\n"
    [parameter] = space_of(load(tmp_path, "learningRate: [1e-5, 1e-4]", own))
    assert parameter.dotted == "local.hyperparameters.learningRate"
    assert parameter.values == (1e-5, 1e-4)


@pytest.mark.parametrize(
    ("text", "code", "words", "fix"),
    [
        ("lr: [1e-5, 1e-4]", "UnknownParameter", "no parameter 'lr'", "learningRate"),
        ("learningrate: [1e-5, 1e-4]", "UnknownParameter", "no parameter", "mean learningRate?"),
        ("rank: [2, 4]", "UnknownParameter", "no parameter", "mean local.lora.r?"),
        ("dropout: [0.1, 0.2]", "UnknownParameter", "no parameter", "mean local.lora.dropout?"),
        ("local.device: [cpu, cuda]", "UnknownParameter", "changes the training", "name one of"),
        ("seed: [1, 2]", "UnknownParameter", "luckiest", "sweep.seeds"),
        ("name: [a, b]", "UnknownParameter", "no parameter", ""),
        ("learningRate: {low: 1e-3, high: 1e-5}", "BadValue", "not below high", "swap"),
        ("learningRate: {low: 1e-5, high: 7}", "OutOfRange", "high is 7", "1e-08 to 1"),
        ("epochCount: {low: 0, high: 3}", "OutOfRange", "low is 0", "1 to 1000"),
        ("batchSize: [1.5, 2]", "WrongType", "whole number", "write 2"),
        ("local.lora.r: [0, 8]", "OutOfRange", "local.lora.r is 0", "at least 1"),
        ("local.method: {low: 1, high: 2}", "WrongType", "no number", "list its values"),
        ("local.method: [lora, fool]", "BadValue", "'fool'", "full"),
        ("local.lora.dropout: {low: 0, high: 0.3, log: true}", "BadValue", "above 0", "raise low"),
        ("local.lora.r: [8]", "BadValue", "nothing to choose", "two values"),
        ("local.lora.r: [8, 8]", "BadValue", "twice", "remove one"),
        ("local.lora.r: {low: 8}", "BadValue", "low and high", "low: 1e-5"),
        ("local.lora.r: {low: 8, hihg: 16}", "UnknownKey", "'hihg'", "mean high?"),
    ],
)
def test_an_error_names_line_field_and_remedy(
    tmp_path: Path, text: str, code: str, words: str, fix: str
) -> None:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, text)
    [finding] = [f for f in caught.value.findings if f.code == code]
    assert words in finding.message and fix in (finding.fix or "")
    assert finding.line == 6 and (finding.field or "").startswith("sweep.space.")


def test_one_field_by_two_names_is_refused(tmp_path: Path) -> None:
    text = "learningRate: [1e-5, 1e-4]\n    hyperparameters.learningRate: [1e-5, 1e-3]"
    with pytest.raises(SpecError, match="the same field"):
        load(tmp_path, text)


def test_the_section_is_no_part_of_the_job(tmp_path: Path) -> None:
    """A job that was trained before is found again when a sweep is added to its file."""
    assert "sweep" not in to_portable_values(load(tmp_path, "local.lora.r: [8, 16]"))


def test_edges_are_those_of_the_parameters_scale() -> None:
    rate = SpaceParameter("lr", ("lr",), "float", 1e-5, 1e-3, log=True)
    assert [rate.edge(v) for v in (1e-5, 1.2e-5, 1e-4, 9e-4, 1e-3)] == [
        "low",
        "low",
        None,
        "high",
        "high",
    ]
    plain = SpaceParameter("d", ("d",), "float", 0.0, 1.0)
    assert [plain.edge(v) for v in (0.05, 0.06, 0.94, 0.95)] == ["low", None, None, "high"]
    ranks = SpaceParameter("r", ("r",), "int", values=(16, 8, 32))
    assert [ranks.edge(v) for v in (8, 16, 32)] == ["low", None, "high"]
    method = SpaceParameter("m", ("m",), "other", values=("lora", "full"))
    assert method.edge("lora") is None


def test_a_finite_space_knows_its_size() -> None:
    ranks = SpaceParameter("r", ("r",), "int", values=(8, 16, 32))
    epochs = SpaceParameter("e", ("e",), "int", 1, 4)
    rate = SpaceParameter("lr", ("lr",), "float", 1e-5, 1e-3)
    assert space_size((ranks, epochs)) == 12
    assert space_size((ranks, rate)) == float("inf")
