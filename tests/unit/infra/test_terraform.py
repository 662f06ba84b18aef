"""infra/terraform: its modules say what the templates say. Both are parsed, and compared."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hcl2
import pytest

from cloudft.infra import template as templates

FOLDER = templates.CHECKOUT / "terraform"
TERRAFORM = shutil.which("terraform")
both = pytest.mark.parametrize("name", ["base", "jobs"])
needs_terraform = pytest.mark.skipif(TERRAFORM is None, reason="no terraform on this machine")


def blocks(path: Path, kind: str) -> dict[str, Mapping[str, Any]]:
    """The blocks `KIND "NAME" { ... }` of a file, by name; text without its quotes."""
    parsed = hcl2.loads(path.read_text())
    return {
        key.strip('"'): plain(body) for one in parsed.get(kind, ()) for key, body in one.items()
    }


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k.strip('"'): plain(v) for k, v in value.items() if not k.startswith("__")}
    if isinstance(value, list):
        return [plain(item) for item in value]
    quoted = isinstance(value, str) and value.startswith('"')
    return json.loads(value) if quoted else value


def template(name: str) -> dict[str, Any]:
    return templates.parse_template(templates.load_template_text(name))


def stack(name: str) -> Mapping[str, Any]:
    [kind] = blocks(FOLDER / name / "main.tf", "resource").values()
    return dict(kind[name])


def variables_of(name: str) -> dict[str, str]:
    """Parameter -> the variable that it is given."""
    given = stack(name)["parameters"]
    return {key: re.search(r"var\.(\w+)", text)[1] for key, text in given.items()}  # type: ignore[index]


@both
def test_every_parameter_is_a_variable_with_the_same_rules(name: str) -> None:
    parameters = template(name)["Parameters"]
    variables, names = blocks(FOLDER / name / "variables.tf", "variable"), variables_of(name)
    assert names.keys() == parameters.keys()
    assert variables.keys() == {*names.values(), "name"}
    for key, reported in parameters.items():
        variable = variables[names[key]]
        assert variable["description"] == reported["Description"].strip()
        default = variable.get("default")
        assert ("" if default == [] else default) == reported.get("Default"), key
        rules = " ".join(rule["condition"] for rule in variable.get("validation", ()))
        for bound in ("MinValue", "MaxValue"):
            assert str(reported.get(bound, "")) in rules, key
        for allowed in reported.get("AllowedValues", ()):
            assert re.search(rf"\b{allowed}\b", rules), key
        if "AllowedPattern" in reported and reported["Type"] == "String":
            pattern = re.search(r'regex\((".*"), var\.', rules)
            assert pattern, key
            allowed = f"^(?:{reported['AllowedPattern']})$"
            assert json.loads(pattern[1]).replace("$${", "${") == allowed


@both
def test_every_output_is_an_output(name: str) -> None:
    outputs = blocks(FOLDER / name / "outputs.tf", "output")
    taken = {re.search(r'outputs, "(\w+)"', reported["value"])[1] for reported in outputs.values()}  # type: ignore[index]
    wanted = template(name)["Outputs"]
    assert taken == wanted.keys()
    assert sorted(reported["description"] for reported in outputs.values()) == sorted(
        reported["Description"] for reported in wanted.values()
    )


@both
def test_the_template_itself_is_deployed(name: str) -> None:
    reported = stack(name)
    relative = reported["template_body"].split('"')[1].replace("${path.module}", ".")
    text, sent = (
        templates.load_template_text(name),
        (FOLDER / name / relative).resolve().read_text(),
    )
    assert sent.rstrip("\n") == templates.format_request_body(text).rstrip("\n"), (
        f"cloudft infra synth --template {name} --compact > infra/{name}.json"
    )
    assert reported["capabilities"] == ["CAPABILITY_IAM"]


KNOWN = {
    *(
        "base_model_identifier",
        "custom_model_kms_key_id",
        "custom_model_name",
        "customization_type",
    ),
    *("hyperparameters", "job_name", "output_data_config", "role_arn", "tags"),
    *("training_data_config", "validation_data_config", "vpc_config"),
}
"""Arguments of aws_bedrock_custom_model (the provider's documentation)."""


def test_a_custom_model_has_what_its_resource_needs_and_is_not_lost_by_a_plan() -> None:
    folder = FOLDER / "custom-model"
    [kind] = blocks(folder / "main.tf", "resource").values()
    model = kind["model"]
    assert model["lifecycle"] == [{"prevent_destroy": True}]
    assert model.keys() - {"lifecycle", "dynamic"} <= KNOWN
    used = set(re.findall(r"var\.(\w+)", (folder / "main.tf").read_text()))
    assert used == blocks(folder / "variables.tf", "variable").keys()


def terraform(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
    command = [str(TERRAFORM), f"-chdir={folder}", *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


@needs_terraform
def test_the_modules_are_in_form() -> None:
    assert terraform(FOLDER, "fmt", "-check", "-recursive").stdout == ""


NEEDED = {
    "data_bucket_name": "team-data",
    "output_bucket_name": "team-output",
    "key_arn": "arn:aws:kms:us-east-1:123456789012:key/0a1b",
    "bedrock_role_arn": "arn:aws:iam::123456789012:role/bedrock",
    "job_topic_arn": "arn:aws:sns:us-east-1:123456789012:topic",
}


@needs_terraform
@both
def test_terraform_gives_the_parameters_that_the_template_takes(name: str, tmp_path: Path) -> None:
    shutil.copy(FOLDER / name / "variables.tf", tmp_path)
    text = (FOLDER / name / "main.tf").read_text()
    found = re.search(r"^  parameters = (\{.*?^  \})", text, re.DOTALL | re.MULTILINE)
    assert found
    (tmp_path / "main.tf").write_text(f'output "parameters" {{\n  value = {found[1]}\n}}\n')
    given = NEEDED if name == "jobs" else {}
    (tmp_path / "terraform.tfvars.json").write_text(json.dumps(given))
    assert terraform(tmp_path, "init").returncode == 0
    done = terraform(tmp_path, "apply", "-auto-approve")
    assert done.returncode == 0, done.stderr
    parameters = json.loads(terraform(tmp_path, "output", "-json", "parameters").stdout)
    names = variables_of(name)
    for key, reported in template(name)["Parameters"].items():
        assert parameters[key] == given.get(names[key], str(reported.get("Default"))), key
    refused = terraform(tmp_path, "apply", "-auto-approve", "-var", "prefix=Not/A/Prefix")
    assert refused.returncode == 1 and "1 to 63 lowercase letters" in refused.stderr
