"""The installed botocore against what cloudft uses of it: see tools/service_model_diff.py."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TOOL = Path(__file__).parents[3] / "tools" / "service_model_diff.py"


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("service_model_diff", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def installed(tool: ModuleType) -> Any:
    with tool.open_models("installed") as models:
        return models


@pytest.fixture(scope="module")
def pins(tool: ModuleType) -> Any:
    return json.loads(tool.PINS.read_text())


@pytest.fixture
def some_pins(pins: Any) -> Any:
    """Return pins of one operation, to change."""
    name = "CreateModelCustomizationJob"
    operation = copy.deepcopy(pins["services"]["bedrock"][name])
    return {"services": {"bedrock": {name: operation}}}


def test_the_installed_botocore_has_what_cloudft_uses_as_it_was(
    tool: ModuleType, installed: Any, pins: Any
) -> None:
    changes = [str(change) for change in tool.compare_with_pins(pins, installed)]
    hint = (
        f"{installed.title} differs from the pinned {pins['botocore']} in what cloudft uses."
        " Read `python tools/service_model_diff.py OLD NEW`, change what is named there, and"
        " `python tools/service_model_diff.py --pin`."
    )
    assert changes == [], hint


def test_every_operation_that_cloudft_calls_is_pinned(
    tool: ModuleType, installed: Any, pins: Any
) -> None:
    hint = "`python tools/service_model_diff.py --pin` adds them."
    assert tool.unpinned_operations(pins, installed) == [], hint


@pytest.mark.parametrize(
    ("service", "operation"),
    [
        ("bedrock", "CreateModelCustomizationJob"),
        ("bedrock", "ListCustomModels"),
        ("bedrock-runtime", "Converse"),
        ("sagemaker", "CreateTrainingJob"),
        ("iam", "SimulatePrincipalPolicy"),
        ("s3", "PutObject"),
        ("sts", "GetCallerIdentity"),
        ("pricing", "GetProducts"),
        ("service-quotas", "GetServiceQuota"),
        ("kms", "DescribeKey"),
        ("ec2", "DescribeSubnets"),
        ("logs", "GetLogEvents"),
        ("stepfunctions", "StartExecution"),
        ("cloudformation", "CreateChangeSet"),
    ],
)
def test_calls_are_found_in_the_sources(pins: Any, service: str, operation: str) -> None:
    assert operation in pins["services"][service]


def test_members_that_cloudft_sends_or_reads_are_pinned_with_their_constraints(pins: Any) -> None:
    create = pins["services"]["bedrock"]["CreateModelCustomizationJob"]
    assert create["input"]["jobName"]["required"] and create["input"]["jobName"]["max"] == 63
    assert "FINE_TUNING" in create["input"]["customizationType"]["enum"]
    assert create["input"]["trainingDataConfig.s3Uri"]["pattern"].startswith("s3://")
    assert create["input"]["hyperParameters{}"] == {"type": "string"}
    assert create["input"]["validationDataConfig.validators[].s3Uri"]["required"]
    assert "ServiceQuotaExceededException" in create["errors"]
    listed = pins["services"]["bedrock"]["ListModelCustomizationJobs"]
    assert listed["paginator"]["result_key"] == "modelCustomizationJobSummaries"
    models = pins["services"]["bedrock"]["ListFoundationModels"]
    assert "modelSummaries[].modelLifecycle.endOfLifeTime" in models["output"]


@pytest.mark.parametrize(
    ("path", "change", "expected"),
    [
        (
            ("input", "customizationType", "enum"),
            ["FINE_TUNING"],
            "input customizationType: new values: CONTINUED_PRE_TRAINING, DISTILLATION, IMPORTED,"
            " REINFORCEMENT_FINE_TUNING",
        ),
        (("input", "jobName", "max"), 50, "input jobName: max 50 -> 63"),
        (("input", "jobName", "required"), False, "input jobName: required now"),
        (("input", "jobName", "type"), "list", "input jobName: type list -> string"),
        (("input", "invented"), {"type": "string"}, "input invented: the member is gone"),
        (("errors",), [], "error AccessDeniedException: new"),
        (("paginator",), {"more": 1}, 'paginator: {"more": 1} -> null'),
    ],
)
def test_a_difference_is_said_with_operation_and_member(
    tool: ModuleType,
    installed: Any,
    some_pins: Any,
    path: tuple[str, ...],
    change: Any,
    expected: str,
) -> None:
    place = some_pins["services"]["bedrock"]["CreateModelCustomizationJob"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = change
    changes = [str(found) for found in tool.compare_with_pins(some_pins, installed)]
    assert f"bedrock CreateModelCustomizationJob {expected}" in changes


def test_a_member_that_must_be_sent_now_is_a_difference_and_a_new_optional_one_is_none(
    tool: ModuleType, installed: Any, some_pins: Any
) -> None:
    members = some_pins["services"]["bedrock"]["CreateModelCustomizationJob"]["input"]
    del members["roleArn"], members["vpcConfig.subnetIds"], members["clientRequestToken"]
    changes = {str(found) for found in tool.compare_with_pins(some_pins, installed)}
    prefix = "bedrock CreateModelCustomizationJob input"
    assert changes == {
        f"{prefix} roleArn: new member, required",
        f"{prefix} vpcConfig.subnetIds: new member, required",
    }


def test_an_operation_that_is_gone(tool: ModuleType, installed: Any, some_pins: Any) -> None:
    gone = {"input": {}, "output": {}, "errors": [], "paginator": None}
    some_pins["services"]["bedrock"]["MakeItSo"] = gone
    [change] = tool.compare_with_pins(some_pins, installed)
    assert str(change) == "bedrock MakeItSo: the operation is gone"


def test_the_report_names_the_modules_and_tests(
    tool: ModuleType, installed: Any, tmp_path: Path
) -> None:
    model = json.loads(json.dumps(installed.loader.load_service_model("bedrock", "service-2")))
    del model["operations"]["GetCustomModel"]
    model["shapes"]["CustomizationType"]["enum"].append("PREFERENCE_TUNING")
    model["shapes"]["ListFoundationModelsRequest"]["members"]["byRegion"] = {"shape": "JobName"}
    folder = tmp_path / "bedrock" / "2023-04-20"
    folder.mkdir(parents=True)
    (folder / "service-2.json").write_text(json.dumps(model))
    with tool.open_models(str(tmp_path)) as new:
        text = "\n".join(tool.report(installed, new, ["bedrock"]))
    assert "- 1 operations are gone: GetCustomModel" in text
    section = text.partition("### CreateModelCustomizationJob")[2].partition("###")[0]
    assert "cloudft/backends/bedrock/preflight.py" in section
    assert "**input customizationType**: new values: PREFERENCE_TUNING" in section
    assert "- not used by cloudft: input byRegion (new member)" in text
    assert text.startswith(f"# {installed.title} -> {tmp_path}")
