"""The bill of materials of a job: valid, the same each time, and without anything private."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import evaluated_job
import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from processes import Cli

from cloudft.errors import CloudftError
from cloudft.publishing import bill_of_materials
from cloudft.publishing.base_model import BaseModel
from cloudft.publishing.bill_of_materials import Materials, render_bom
from cloudft.publishing.facts import ModelFacts


@pytest.fixture
def job_home(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, home: Path) -> Path:
    root = evaluated_job.shared_root(tmp_path_factory.getbasetemp())
    shutil.copytree(evaluated_job.make_evaluated_home(root, tiny_model), home)
    return home


def properties(of: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["value"] for one in of["properties"]}


def test_the_bill_has_base_data_method_scores_and_versions_and_no_text(
    cli: Cli, job_home: Path, tmp_path: Path
) -> None:
    done = cli("report", "-", "--bom", "job.cdx.json", "--output", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["bom"] == "job.cdx.json"
    assert list(tmp_path.glob("*.html")) == []
    text = (tmp_path / "job.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = json.loads(text)
    assert Bom.from_json(bom).metadata.component is not None  # type: ignore[attr-defined]

    model = bom["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    [ancestor] = model["pedigree"]["ancestors"]
    assert ancestor["type"] == "machine-learning-model"
    weights = next(x for x in model["components"] if x["name"] == "adapter_model.safetensors")
    [file] = job_home.glob("jobs/*/artifacts/model/adapter_model.safetensors")
    assert weights["hashes"][0]["content"] == hashlib.sha256(file.read_bytes()).hexdigest()

    card = model["modelCard"]
    metrics = {one["type"]: one for one in card["quantitativeAnalysis"]["performanceMetrics"]}
    assert metrics["accuracy"]["value"] == "1"
    assert metrics["accuracy"]["confidenceInterval"] == {
        "lowerBound": "0.806392",
        "upperBound": "1",
    }
    difference = metrics["accuracy, tuned minus base"]["confidenceInterval"]
    assert float(difference["lowerBound"]) == pytest.approx(0.613, abs=1e-3)
    assert card["modelParameters"]["modelArchitecture"] == "LlamaForCausalLM"
    assert any("near duplicates" in one for one in card["considerations"]["technicalLimitations"])

    data = [one for one in bom["components"] if one["type"] == "data"]
    assert {properties(one)["cloudft:role"] for one in data} == {"train", "test"}
    assert {one["ref"] for one in card["modelParameters"]["datasets"]} == {
        one["bom-ref"] for one in data
    }
    libraries = {one["name"] for one in bom["components"] if one["type"] == "library"}
    assert {"cloudft", "torch", "transformers"} <= libraries
    assert properties(model)["cloudft:setting:learningRate"] == "0.02"
    for private in (str(job_home), str(tmp_path), "Where is parcel"):
        assert private not in text


def test_the_same_job_has_the_same_bytes_and_a_file_is_kept(
    cli: Cli, job_home: Path, tmp_path: Path
) -> None:
    for name in ("a.json", "b.json"):
        assert cli("report", "-", "--bom", name).returncode == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    refused = cli("report", "-", "--bom", "a.json")
    assert refused.returncode == 2 and "--force" in refused.stderr
    for force in ((), ("--force",)):
        nowhere = cli("report", "-", "--bom", "no-folder/a.json", *force)
        assert nowhere.returncode == 1
        assert "can't write the file" in nowhere.stderr and "no-folder/a.json" in nowhere.stderr
    both = cli("report", "-", "--bom", "a.json", "--out", "page.html", "--force")
    assert both.returncode == 0
    assert (tmp_path / "page.html").is_file()


def facts(**changes: Any) -> ModelFacts:
    values: dict[str, Any] = {
        "job_id": "router-12345678",
        "name": "router",
        "customization_type": "FINE_TUNING",
        "method": "LoRA",
        "backend": "local",
        "created_at": "2026-12-01T09:00:00.000+00:00",
        "ended_at": None,
        "base": BaseModel("org/base", "org/base"),
        "settings": (),
        "data": (),
        "data_sha256": "0" * 64,
        "evaluation": None,
        "versions": {"cloudft": "1"},
    }
    return ModelFacts(**values | changes)


def test_a_job_without_evaluation_and_license_has_a_valid_bill() -> None:
    bom = json.loads(render_bom(Materials(facts())))
    card = bom["metadata"]["component"]["modelCard"]
    assert "quantitativeAnalysis" not in card
    assert "licenses" not in bom["metadata"]["component"]


def test_what_the_schema_refuses_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bill_of_materials.APPROACHES, "FINE_TUNING", "by magic")
    with pytest.raises(CloudftError, match="does not fit the schema of CycloneDX"):
        render_bom(Materials(facts()))
