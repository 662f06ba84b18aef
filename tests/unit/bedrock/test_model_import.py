"""A merged folder for Bedrock's import, held against Bedrock's rules."""

from __future__ import annotations

import io
import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudft.aws.client import Aws, AwsLocation
from cloudft.backends.bedrock.model_import import model_checks, model_files, stored_model
from cloudft.catalogue import load_import_rules
from cloudft.errors import UsageError
from local_backend.models.portable_config import write_portable_config

INDEX = "model.safetensors.index.json"
VERSION = load_import_rules().transformers


@pytest.fixture
def merged(tmp_path: Path, tiny_model: Path) -> Path:
    """Return a model folder as export writes it."""
    from transformers import AutoTokenizer

    folder: Path = shutil.copytree(tiny_model, tmp_path / "merged")
    change(folder, "config.json", rope_parameters={"rope_theta": 50.0, "rope_type": "default"})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    write_portable_config(folder, tokenizer, [tokenizer.eos_token_id])
    return folder


def change(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def codes(folder: Path, **options: Any) -> list[str]:
    found = model_checks.check_model_folder(
        folder, **{"supervised": True, "region": "us-east-1"} | options
    )
    return [f.code for f in found]


def test_an_exported_model_passes_and_names_bedrocks_version(merged: Path) -> None:
    length = read(merged, "tokenizer_config.json")["model_max_length"]
    for _ in range(2):
        model_files.write_transformers_version(merged, VERSION)
        for name in ("config.json", "generation_config.json"):
            assert read(merged, name)["transformers_version"] == VERSION
    assert codes(merged) == []
    assert read(merged, "config.json")["rope_theta"] == 50.0
    assert read(merged, "tokenizer_config.json")["model_max_length"] == length


def test_a_model_in_newer_names_alone_is_refused(merged: Path) -> None:
    """An earlier version of cloudft may have merged it."""
    path = merged / "config.json"
    newer = {name: value for name, value in read(merged, path.name).items() if name != "rope_theta"}
    path.write_text(json.dumps(newer))
    assert codes(merged) == ["ImportNewerNames"]


@pytest.mark.parametrize(
    ("name", "values", "code"),
    [
        ("config.json", {"architectures": ["GemmaForCausalLM"]}, "ImportArchitecture"),
        ("config.json", {"architectures": None}, "ImportArchitecture"),
        ("config.json", {"quantization_config": {"bits": 4}}, "ImportQuantised"),
        ("config.json", {"max_position_embeddings": 131072}, "ImportContext"),
        ("config.json", {"rope_scaling": {"rope_type": "llama3", "factor": 32.0}}, "ImportRope"),
        ("tokenizer_config.json", {"tokenizer_class": "GemmaTokenizer"}, "ImportTokenizer"),
        ("tokenizer_config.json", {"chat_template": None}, "ImportNoTemplate"),
    ],
)
def test_each_fault_is_named(merged: Path, name: str, values: dict[str, Any], code: str) -> None:
    change(merged, name, **values)
    assert codes(merged) == [code]


@pytest.mark.parametrize("name", ["chat_template.jinja", "chat_template.json"])
def test_a_chat_template_in_a_file_of_its_own_is_one(merged: Path, name: str) -> None:
    """Bedrock user guide, "Custom chat templates and tokenizers", read in October 2026."""
    change(merged, "tokenizer_config.json", chat_template=None)
    (merged / name).write_text('{"chat_template": "{{ messages }}"}')
    assert codes(merged) == []
    assert name in [path.name for path in model_checks.imported_files(merged)]


def test_an_index_that_names_missing_weights_is_a_model_that_was_cut_off(merged: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (merged / INDEX).write_text(json.dumps(index))
    assert codes(merged) == ["ImportFileMissing"]
    index["weight_map"]["b"] = "model.safetensors"
    (merged / INDEX).write_text(json.dumps(index))
    assert codes(merged) == []


class StoredFiles(Aws):
    """S3 with the files of a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(AwsLocation("us-east-1"))
        self.folder = folder

    def paginate(self, *words: str, **parameters: object) -> Iterator[Any]:
        for path in sorted(self.folder.iterdir()):
            yield {"Key": f"run/{path.name}", "Size": path.stat().st_size, "ETag": path.name}

    def call(self, *words: str, **parameters: Any) -> Any:
        content = (self.folder / str(parameters["Key"]).rpartition("/")[2]).read_bytes()
        if "Range" in parameters:
            first, last = map(int, parameters["Range"].removeprefix("bytes=").split("-"))
            content = content[first : last + 1]
        return {"Body": io.BytesIO(content), "ContentLength": len(content)}


def test_a_model_in_s3_is_checked_as_a_folder_with_its_template_and_index(merged: Path) -> None:
    model_files.write_transformers_version(merged, VERSION)
    change(merged, "tokenizer_config.json", chat_template=None)
    (merged / "chat_template.jinja").write_text("{{ messages }}")
    index = {"weight_map": {"a": "model-00002-of-00002.safetensors"}}
    (merged / INDEX).write_text(json.dumps(index))
    aws, uri = StoredFiles(merged), "s3://bucket/run/"
    files = stored_model.list_model_files(aws, uri, None)
    options = {"supervised": True, "region": "us-east-1"}
    [missing] = stored_model.check_stored_model(aws, uri, None, files, options)
    assert missing.code == "ImportFileMissing" and missing.file == f"{uri}{INDEX}"


def test_missing_files_and_other_formats_are_named(merged: Path) -> None:
    (merged / "tokenizer.json").unlink()
    header = json.dumps({"w": {"dtype": "I8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (merged / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0")
    assert codes(merged) == ["ImportFileMissing", "ImportDtype"]
    (merged / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UsageError, match="no complete safetensors file"):
        codes(merged)
    (merged / "model.safetensors").unlink()
    (merged / "config.json").unlink()
    assert codes(merged) == ["ImportFileMissing"] * 2


def test_gpt_oss_is_imported_in_one_region_and_with_its_three_ends(merged: Path) -> None:
    change(merged, "config.json", architectures=["GptOssForCausalLM"])
    assert codes(merged, region="us-west-2") == ["ImportRegion", "ImportEnds"]
    change(merged, "generation_config.json", eos_token_id=[200002, 199999, 200012])
    assert codes(merged) == []
