from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cloudft.errors import SpecError
from cloudft.spec import LoadedJob, build_job_schema, load_job, resolve_values
from cloudft.types import Finding

MINIMAL = "name: a\nbase_model: nova-lite\ndata:\n  train: x.jsonl\n"
OPEN = MINIMAL.replace("nova-lite", "smollm2-135m")
FULL = """\
name: ticket-router
base_model: nova-lite
data:
  train: [a.jsonl, b/]
  validation: 0.1
  mix:
    - {path: general.jsonl, share: 0.2}
  columns: {prompt: question}
hyperparameters: {epochCount: 3, learningRate: 1e-5}
tags: {team: support, country: no}
budget_usd: 50
bedrock:
  region: us-east-1
  role_arn: arn:aws:iam::123456789012:role/x
  s3_uri: s3://my-bucket/prefix
  kms_key_id: alias/key
  vpc: {subnet_ids: [subnet-1], security_group_ids: [sg-1]}
local:
  model: smollm2-135m
  lora: {alpha: 8, target_modules: [q_proj]}
  early_stopping: {patience: 2, threshold: 1e-2}
  max_length: 1e3
"""


def load(
    folder: Path,
    text: str | bytes,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> LoadedJob:
    path = folder / "job.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_job(path, flags=flags or {}, environ=environ or {})


def faults(folder: Path, text: str | bytes, **layers: Mapping[str, object]) -> list[Finding]:
    with pytest.raises(SpecError) as caught:
        load(folder, text, **layers)  # type: ignore[arg-type]
    found = [f for f in caught.value.findings if f.severity == "error"]
    assert found
    assert all(f.fix and f.code and f.message for f in found)
    assert caught.value.exit_code == 2
    return found


def test_a_full_job_file(tmp_path: Path):
    job = load(tmp_path, FULL)
    spec = job.spec
    assert spec.data.train == ("a.jsonl", "b/")
    assert spec.data.validation == 0.1
    assert spec.data.mix[0].path == ("general.jsonl",)
    assert spec.hyperparameters == {"epochCount": 3, "learningRate": 1e-5}
    assert spec.tags == {"team": "support", "country": "no"}
    assert spec.local.lora.target_modules == ("q_proj",)
    assert spec.local.early_stopping is not None
    assert spec.local.early_stopping.threshold == 0.01
    assert spec.local.max_length == 1000
    assert spec.bedrock.vpc is not None
    assert job.model.alias == "nova-lite"
    assert job.base_dir == tmp_path
    assert job.line_of("hyperparameters.learningRate") == 9
    assert job.line_of("data.mix.0.share") == 7
    assert job.line_of("bedrock.vpc.subnet_ids") == 17
    assert job.line_of("seed") is None
    assert job.findings == ()


@pytest.mark.parametrize(
    ("text", "code", "line", "field", "fix"),
    [
        (MINIMAL.replace("base_model", "base_modle"), "UnknownKey", 2, "base_modle", "base_model"),
        (MINIMAL + "train: y\n", "UnknownKey", 5, "train", "data.train"),
        (
            MINIMAL + "local:\n  seed: 3\n",
            "UnknownKey",
            6,
            "local.seed",
            "move seed to the top level",
        ),
        (MINIMAL + "local: {devise: cpu}\n", "UnknownKey", 5, "local.devise", "device"),
        (MINIMAL + "  columns: {promt: q}\n", "UnknownKey", 5, "data.columns.promt", "prompt"),
        (
            MINIMAL + "  mix:\n  - path: x\n    shar: 1\n",
            "UnknownKey",
            7,
            "data.mix.0.shar",
            "share",
        ),
        ("base_model: nova-lite\ndata: {train: x}\n", "MissingKey", None, "name", "name"),
        (MINIMAL + "local: {early_stopping: {patience: 1}}\n", "MissingKey", 5, None, "threshold"),
        (MINIMAL + "seed: yes\n", "WrongType", 5, "seed", "whole number"),
        (MINIMAL + "seed: 010\n", "WrongType", 5, "seed", "whole number"),
        (MINIMAL + "seed: 1:30\n", "WrongType", 5, "seed", "whole number"),
        (MINIMAL + 'seed: "7"\n', "WrongType", 5, "seed", "whole number"),
        (MINIMAL + "seed: 1.0\n", "WrongType", 5, "seed", "whole number"),
        (MINIMAL + "seed: true\n", "WrongType", 5, "seed", "whole number"),
        (MINIMAL + "seed:\n", "WrongType", 5, "seed", "remove the line"),
        (MINIMAL + "tags: {version: 1.0}\n", "WrongType", 5, "tags.version", '"1.0"'),
        (MINIMAL + "budget_usd: .nan\n", "WrongType", 5, "budget_usd", "finite"),
        (MINIMAL + "bedrock: us-east-1\n", "WrongType", 5, "bedrock", "mapping"),
        (MINIMAL.replace("x.jsonl", "3"), "WrongType", 4, "data.train", "path"),
        (MINIMAL + "seed: -1\n", "OutOfRange", 5, "seed", "at least 0"),
        (MINIMAL + "seed: 4294967296\n", "OutOfRange", 5, "seed", "at most"),
        (MINIMAL + "local: {max_length: 4}\n", "OutOfRange", 5, "local.max_length", "at least 8"),
        (MINIMAL + "  validation: 1\n", "OutOfRange", 5, "data.validation", "0.1"),
        (
            MINIMAL + "  mix: [{path: a, share: 0.5}, {path: b, share: 0.5}]\n",
            "OutOfRange",
            5,
            "data.mix",
            "less than 1",
        ),
        (MINIMAL + "local: {device: gpu}\n", "BadValue", 5, "local.device", "cpu"),
        (MINIMAL + "local: {fsdp: on}\n", "BadValue", 5, "local.fsdp", "one of these"),
        (MINIMAL.replace(": a", ": a_b", 1), "BadValue", 1, "name", "ticket-router"),
        (MINIMAL.replace(": a", ": " + "-" * 60, 1), "BadValue", 1, "name", "ticket-router"),
        (MINIMAL + "bedrock: {role_arn: x}\n", "BadValue", 5, "bedrock.role_arn", "arn:aws:iam"),
        (MINIMAL + "bedrock: {s3_uri: 's3://b/'}\n", "BadValue", 5, "bedrock.s3_uri", "s3://"),
        (
            MINIMAL + "bedrock: {s3_uri: 's3://buck/dt=1'}\n",
            "BadValue",
            5,
            "bedrock.s3_uri",
            "s3://",
        ),
        (MINIMAL + "tags: {'a,b': c}\n", "BadValue", 5, "tags.a,b", "team"),
        (MINIMAL + "hyperparameters: {epochCount: '3'}\n", "WrongType", 5, None, "number"),
        (
            MINIMAL + "customization_type: IMPORTED\n",
            "UnsupportedCustomizationType",
            5,
            "customization_type",
            "FINE_TUNING",
        ),
        (
            MINIMAL + "customization_type: CONTINUED_PRE_TRAINING\n",
            "UnsupportedCustomizationType",
            5,
            "customization_type",
            "--backend sagemaker --wait --import",
        ),
        (MINIMAL.replace("nova-lite", "nova-premier"), "UnsupportedCustomizationType", 2, None, ""),
        (MINIMAL.replace("nova-lite", "nova-lit"), "UnknownModel", 2, "base_model", "models"),
        (MINIMAL + "local: {model: nova-pro}\n", "NotOpenWeight", 5, "local.model", "smollm2"),
        (MINIMAL + "local: {model: ./x}\n", "UnknownModel", 5, "local.model", ""),
        (
            MINIMAL + "early_stopping: {patience: 2, threshold: 0.1}\n",
            "EarlyStoppingUnsupported",
            5,
            "early_stopping",
            "local",
        ),
        (
            MINIMAL.replace("nova-lite", "claude-3-haiku")
            + "early_stopping: {patience: 99, threshold: 0.1}\n",
            "OutOfRange",
            5,
            "early_stopping.patience",
            "1 to 10",
        ),
        (
            MINIMAL.replace("nova-lite", "claude-3-haiku")
            + "early_stopping: {patience: 2, threshold: 0.1}\n"
            + "hyperparameters: {earlyStoppingPatience: 2}\n",
            "BadValue",
            5,
            "early_stopping",
            "one of the two",
        ),
    ],
)
def test_a_fault_has_its_code_line_field_and_remedy(
    tmp_path: Path, text: str, code: str, line: int | None, field: str | None, fix: str
):
    [finding] = faults(tmp_path, text)
    assert (finding.code, finding.line) == (code, line)
    assert field in (None, finding.field)
    assert fix in (finding.fix or "")
    assert finding.file == str(tmp_path / "job.yaml")


def test_a_hyperparameter_fault_names_the_models_own_and_their_ranges(tmp_path: Path):
    text = MINIMAL + "hyperparameters:\n  batchSize: 2\n  epochCount: 6\n  learningRate: 1e-5\n"
    unknown, out = faults(tmp_path, text)
    assert (unknown.code, unknown.line) == ("UnknownHyperparameter", 6)
    assert "epochCount 1 to 5" in unknown.message
    assert (out.code, out.line) == ("OutOfRange", 7)
    assert "1 to 5 (https://docs.aws.amazon.com/bedrock/" in out.message


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("learningRateWarmupSteps", "remove it: other base models take it, llama-3.1-8b does not"),
        ("learningRateWarmup", "did you mean learningRate?"),
        ("learningrate", "did you mean learningRate?"),
        ("dropout", "remove it"),
    ],
)
def test_only_a_misspelled_hyperparameter_is_corrected(tmp_path: Path, name: str, fix: str):
    text = MINIMAL.replace("nova-lite", "llama-3.1-8b") + f"hyperparameters: {{{name}: 1}}\n"
    [finding] = faults(tmp_path, text)
    assert (finding.code, finding.fix) == ("UnknownHyperparameter", fix)


def test_an_assumed_range_only_warns(tmp_path: Path):
    text = MINIMAL.replace("nova-lite", "nova-2-lite") + "hyperparameters: {epochCount: 6}\n"
    [finding] = load(tmp_path, text).findings
    assert (finding.severity, finding.code) == ("warning", "OutOfRange")


def test_all_faults_come_at_once(tmp_path: Path):
    text = (
        "name: a_b\nbase_model: nova-lite\ndata: {train: 3}\nseed: x\n"
        "hyperparameters: {epochCount: 9, size: 1}\nlocal: {model: nova-pro, z: 1}\n"
    )
    codes = [(f.code, f.line) for f in faults(tmp_path, text)]
    assert codes == [
        ("BadValue", 1),
        ("WrongType", 3),
        ("WrongType", 4),
        ("OutOfRange", 5),
        ("UnknownHyperparameter", 5),
        ("UnknownKey", 6),
        ("NotOpenWeight", 6),
    ]


@pytest.mark.parametrize(
    ("raw", "code", "line"),
    [
        (b"", "EmptyFile", 1),
        (b"# nothing\n", "EmptyFile", 1),
        (b"- a\n", "NotAMapping", 1),
        (b"\n\nword\n", "NotAMapping", 3),
        (b"name: a\n\tseed: 3\n", "BadYaml", 2),
        (b"name: a\nseed: [1,\n", "BadYaml", 3),
        (b"name: a\nname: b\n", "DuplicateKey", 2),
        (b"data:\n  train: x\n  train: y\n", "DuplicateKey", 3),
        (b"name: a\n---\nname: b\n", "BadYaml", 2),
        (b"name: \xff\n", "NotUtf8", 1),
        ("name: a".encode("utf-16"), "NotUtf8", 1),
        (b"name: a\nx: \x00\n", "BadYaml", 2),
        (b"name: !!python/object:os.system x\n", "BadYaml", 1),
        (b"a: &a [*a]\n", "BadYaml", 1),
        (b"? [a, b]\n: c\n", "BadYaml", 1),
        (b"[" * 5000, "BadYaml", None),
        (b"a: " + b"x" * 300_000, "FileTooLarge", None),
    ],
)
def test_a_text_that_is_no_job_file(tmp_path: Path, raw: bytes, code: str, line: int | None):
    [finding] = faults(tmp_path, raw)
    assert (finding.code, finding.line) == (code, line)


def test_aliases_that_multiply_are_refused_quickly(tmp_path: Path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    [finding] = faults(tmp_path, "\n".join(lines))
    assert finding.code == "BadYaml"


def test_a_byte_order_mark_and_windows_line_ends_are_fine(tmp_path: Path):
    raw = b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode()
    assert load(tmp_path, raw).spec.name == "a"


def test_a_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for path, code in [(None, "FileNotFound"), (tmp_path, "FileUnreadable")]:
        with pytest.raises(SpecError) as caught:
            load_job(path)
        assert caught.value.findings[0].code == code
    (tmp_path / "cloudft.yaml").write_text(MINIMAL)
    assert load_job(None).path == Path("cloudft.yaml")


def test_flags_alone_can_make_a_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    job = load_job(None, flags={"name": "a", "base_model": "nova-lite", "data.train": "[a, b]"})
    assert job.path is None
    assert job.spec.data.train == ("a", "b")


def leaves(section: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each field of a section and below it that is no section, in each of its forms."""
    for name, documented in section["properties"].items():
        for form in documented.get("anyOf", [documented]):
            if "$ref" in form:
                below = build_job_schema()["$defs"][form["$ref"].rpartition("/")[2]]
                yield from leaves(below, f"{at}{name}.")
            else:
                yield f"{at}{name}", form


FORMS = {"boolean": lambda form: "true", "integer": lambda form: str(form.get("minimum", 1))}


def test_numbers_and_truths_may_be_given_by_flags():
    seen = set()
    for name, form in leaves(build_job_schema()):
        words = [FORMS[form["type"]](form)] if form.get("type") in FORMS else []
        for word in words + [str(v).lower() for v in form.get("enum", ()) if v is True]:
            flags = {"name": "a", "base_model": "nova-lite", "data.train": "a.jsonl", name: word}
            seen.add(name)
            try:
                load_job(None, flags=flags)
            except SpecError as error:
                wrong = [f for f in error.findings if f.code in ("WrongType", "BadValue")]
                assert not [f for f in wrong if f.field == name], (name, word, wrong)
    assert {"local.processes", "local.fsdp", "sagemaker.spot", "seed"} <= seen


def test_flag_over_file_over_environment_over_default(tmp_path: Path):
    environ = {
        "CLOUDFT_SEED": "1",
        "CLOUDFT_BUDGET_USD": "5",
        "cloudft_local__device": "cpu",
        "CLOUDFT_HYPERPARAMETERS__EPOCHCOUNT": "2",
        "CLOUDFT_HYPERPARAMETERS__LEARNINGRATE": "2e-5",
        "CLOUDFT_TAGS__team": "7",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "CLOUDFT_HOME": "/tmp/x",
    }
    text = MINIMAL + "seed: 2\nhyperparameters: {epochCount: 3}\n"
    flags = {"seed": "3", "tags.version": "1.0", "local.lora.r": 4}
    job = load(tmp_path, text, flags, environ)
    assert job.spec.seed == 3
    assert job.spec.budget_usd == 5
    assert job.spec.hyperparameters == {"epochCount": 3, "learningRate": 2e-5}
    assert job.spec.tags == {"team": "7", "version": "1.0"}
    assert job.spec.bedrock.region == "us-east-1"
    where = {name: (o.kind, o.where) for name, o in job.origins.items()}
    assert where["seed"] == ("flag", "--set seed")
    assert where["hyperparameters.epochCount"] == ("file", f"{tmp_path}/job.yaml:6")
    assert where["hyperparameters.learningRate"][1] == "CLOUDFT_HYPERPARAMETERS__LEARNINGRATE"
    assert where["bedrock.region"] == ("environment", "AWS_REGION")
    assert where["local.device"] == ("environment", "cloudft_local__device")
    assert where["local.lora.r"][0] == "flag"
    assert where["local.method"][0] == "default"
    assert where["hyperparameters.learningRateWarmupSteps"] == (
        "catalogue",
        "nova-lite (https://docs.aws.amazon.com/bedrock/latest/userguide/custom-models-hp.html,"
        " 2026-06)",
    )
    assert job.findings == ()


def test_a_bad_flag_or_variable_is_named_as_the_culprit(tmp_path: Path):
    found = faults(
        tmp_path,
        MINIMAL,
        flags={"local.devise": "cpu", "seed": "x"},
        environ={"CLOUDFT_LOCAL__MAX_LENGTH": "abc"},
    )
    said = {f.field: f.message for f in found}
    assert "--set seed" in said["seed"]
    assert "--set local.devise" in said["local.devise"]
    assert "CLOUDFT_LOCAL__MAX_LENGTH" in said["local.max_length"]
    assert all(f.file is None and f.line is None for f in found)


def test_an_unknown_variable_warns_and_names_the_nearest(tmp_path: Path):
    [finding] = load(tmp_path, MINIMAL, environ={"CLOUDFT_SEEED": "3", "OTHER": "x"}).findings
    assert (finding.severity, finding.code) == ("warning", "UnknownVariable")
    assert "CLOUDFT_SEED" in (finding.fix or "")


def test_an_empty_section_hides_nothing(tmp_path: Path):
    text = MINIMAL + "hyperparameters:\nlocal:\nbedrock: {}\n"
    environ = {"CLOUDFT_LOCAL__DEVICE": "cpu", "AWS_REGION": "us-east-1"}
    job = load(tmp_path, text, environ=environ)
    assert job.spec.local.device == "cpu"
    assert job.spec.bedrock.region == "us-east-1"


def test_a_lora_block_without_lora_warns(tmp_path: Path):
    [finding] = load(tmp_path, MINIMAL + "local: {method: full, lora: {r: 4}}\n").findings
    assert (finding.severity, finding.code, finding.line) == ("warning", "UnusedValue", 5)


def test_resolved_has_every_value_in_the_files_order(tmp_path: Path):
    values = resolve_values(load(tmp_path, FULL))
    fields = [value.field for value in values]
    assert fields[:4] == ["name", "customization_type", "base_model", "data.train"]
    assert fields.index("seed") < fields.index("tags.country") < fields.index("local.model")
    shown = {value.field: value.value for value in values}
    assert shown["data.train"] == ["a.jsonl", "b/"]
    assert shown["data.mix"] == [{"path": "general.jsonl", "share": 0.2, "by": "records"}]
    assert shown["hyperparameters.learningRateWarmupSteps"] == 10
    assert shown["bedrock.vpc.subnet_ids"] == ["subnet-1"]
    assert not any(field.startswith("sagemaker") for field in fields)


def test_a_section_that_nobody_gave_is_left_out(tmp_path: Path):
    fields = [value.field for value in resolve_values(load(tmp_path, OPEN))]
    assert not any(field.startswith(("bedrock", "sagemaker")) for field in fields)
    assert "local.device" in fields
    assert "hyperparameters.batchSize" in fields


def test_the_schema_describes_every_field():
    schema = build_job_schema()
    assert schema["$id"]
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["additionalProperties"] is False
    for section in (schema, *schema["$defs"].values()):
        assert all("description" in field for field in section["properties"].values())
    rows = schema["properties"]["hyperparameters"]["properties"]
    assert "nova-lite: 1 to 5" in rows["epochCount"]["description"]
