"""One grader's file: the same rewards here, in jobs of the endpoint, and as Lambda would run it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from endpoint import BUCKET, REGION, ROLE, SAGEMAKER_ROLE, Endpoint, running_endpoint
from grader_jobs import EXACT_GRADER, FAULTY_GRADER, prompts, write_grader_job
from processes import Cli, wait_until

from cloudft.backends.aws_base.grader_package import HANDLERS, GraderPackage, pack_grader
from local_backend.grading import shapes
from local_backend.grading.grader import Grader, GraderSettings, Sample
from local_backend.grading.reply_checks import read_grades

JSON = ("--output", "json")
NAMED, SLOW, FAULTY, WRONG, MISSING = (
    f"arn:aws:lambda:{REGION}:123456789012:function:{name}"
    for name in ("tickets", "slow", "faulty", "wrong", "missing")
)
SLOW_GRADER = "import time\n\n\ndef lambda_handler(event, context):\n    time.sleep(60)\n"
WRONG_GRADER = "def lambda_handler(event, context):\n    return [0.5 for _ in event]\n"
HYPERPARAMETERS: dict[str, Any] = {
    "epochCount": 1,
    "batchSize": 16,
    "learningRate": 1e-3,
    "trainingSamplePerPrompt": 2,
    "inferenceMaxTokens": 4,
}
SAMPLES = [
    Sample(
        id=f"s{number}",
        messages=[
            {"role": "user", "content": f"say {number}"},
            {"role": "assistant", "content": answer},
        ],
        metadata={"reference_answer": str(number), "lang": "é"},
    )
    for number, answer in enumerate(["0", "no", "", "3 or 4", "five"])
]
RUNNER = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
module, _, name = sys.argv[2].rpartition(".")
handler = getattr(importlib.import_module(module), name)
print(json.dumps(handler(json.load(sys.stdin), None)))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graders")


@pytest.fixture(scope="module")
def endpoint(folder: Path, tiny_model: Path) -> Iterator[Endpoint]:
    """Yield an endpoint that grades by files, and keeps its jobs in `folder`."""
    files = {NAMED: EXACT_GRADER, SLOW: SLOW_GRADER, FAULTY: FAULTY_GRADER, WRONG: WRONG_GRADER}
    words = ["--state", str(folder / "state"), "--stand-in", str(tiny_model)]
    for arn, code in files.items():
        path = folder / f"{arn.rpartition(':')[2]}.py"
        path.write_text(code, encoding="utf-8")
        words += ["--grader", f"{arn}={path}"]
    with running_endpoint(*words, "--set", "reinforcement.timeout_seconds=1") as made:
        yield made


@pytest.fixture(autouse=True)
def keys(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in endpoint.environ.items():
        monkeypatch.setenv(name, value)


def create_job(endpoint: Endpoint, name: str, arn: str | None, **more: Any) -> Any:
    """Start a job with 100 prompts, and return the response."""
    body = "".join(f"{json.dumps(record)}\n" for record in prompts(100)).encode()
    endpoint.client("s3").put_object(Bucket=BUCKET, Key="prompts.jsonl", Body=body)
    grader = {"graderConfig": {"lambdaGrader": {"lambdaArn": arn}}} if arn else {}
    config = {"rftConfig": {**grader, "hyperParameters": HYPERPARAMETERS}}
    return endpoint.client("bedrock").create_model_customization_job(
        **{
            "jobName": name,
            "customModelName": name,
            "roleArn": ROLE,
            "baseModelIdentifier": "amazon.nova-2-lite-v1:0:256k",
            "customizationType": "REINFORCEMENT_FINE_TUNING",
            "customizationConfig": config,
            "trainingDataConfig": {"s3Uri": f"s3://{BUCKET}/prompts.jsonl"},
            "outputDataConfig": {"s3Uri": f"s3://{BUCKET}/{name}"},
            **more,
        }
    )


def wait_for_job(endpoint: Endpoint, name: str) -> Any:
    def ended() -> Any:
        job = endpoint.client("bedrock").get_model_customization_job(jobIdentifier=name)
        return job if job["status"] not in ("InProgress", "Stopping") else None

    return wait_until(ended, f"{name} has ended", seconds=120)


def rewards_of(settings: GraderSettings) -> list[float]:
    with Grader(settings) as grader:
        return [grade.reward for grade in grader.grade(SAMPLES)]


def call_package(package: GraderPackage, folder: Path, event: Any) -> Any:
    """Return what the handler of an unpacked package returns, in a process of its own."""
    with zipfile.ZipFile(io.BytesIO(package.content)) as archive:
        archive.extractall(folder)
    done = subprocess.run(
        [sys.executable, "-I", "-c", RUNNER, str(folder), package.handler],
        input=json.dumps(event),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_a_reinforcement_job_trains_and_gives_this_machine_s_rewards(
    endpoint: Endpoint, folder: Path, tmp_path: Path
) -> None:
    here = rewards_of(GraderSettings(folder / "tickets.py"))
    assert len(set(here)) == len(here), "each answer has its own reward"
    create_job(endpoint, "rewarded", NAMED)
    job = wait_for_job(endpoint, "rewarded")
    assert job["status"] == "Completed", job.get("failureMessage")
    assert job["customizationConfig"]["rftConfig"]["hyperParameters"] == HYPERPARAMETERS
    keys = [key for key in endpoint.object_keys() if key.startswith("rewarded/")]
    [curve] = [key for key in keys if key.endswith("step_wise_training_metrics.csv")]
    table = endpoint.client("s3").get_object(Bucket=BUCKET, Key=curve)["Body"].read().decode()
    assert "critic/rewards/mean" in table.partition("\n")[0] and table.count("\n") >= 6
    [copied] = (folder / "state").rglob("grader.py")
    assert copied.read_bytes() == (folder / "tickets.py").read_bytes()
    assert rewards_of(GraderSettings(copied)) == here

    service = endpoint.client("lambda")
    for platform in sorted(HANDLERS):
        package = pack_grader(copied.read_bytes(), platform)
        event = shapes.to_event(SAMPLES)
        if platform != "bedrock":
            event = shapes.to_sagemaker_event(SAMPLES)
        reply = call_package(package, tmp_path / platform, event)
        assert ("body" in reply) == (platform == "sagemaker-open-weight")
        ids = [sample["id"] for sample in SAMPLES]
        assert [grade.reward for grade in read_grades(reply, ids)] == here, platform
        service.create_function(
            FunctionName=platform,
            Runtime="python3.13",
            Handler=package.handler,
            Role=ROLE,
            Code={"ZipFile": package.content},
        )
        answer = service.invoke(FunctionName=platform, Payload=json.dumps(event))
        assert json.loads(answer["Payload"].read()) == reply, platform
        stored = service.get_function(FunctionName=platform)["Configuration"]
        assert stored["CodeSha256"] == package.code_sha256


ENDS = {
    SLOW: "takes longer than 1 s",
    FAULTY: "KeyError",
    MISSING: f"The grader function {MISSING} does not exist",
}


def test_a_grader_that_can_t_grade_fails_the_job_with_its_reason(endpoint: Endpoint) -> None:
    for arn in sorted(ENDS):
        name = arn.rpartition(":")[2]
        create_job(endpoint, name, arn)
        job = wait_for_job(endpoint, name)
        assert job["status"] == "Failed" and ENDS[arn] in job["failureMessage"], job
        assert not [m for m in endpoint.client("bedrock").list_custom_models()["modelSummaries"]
                    if m["modelName"] == name]  # fmt: skip
    reply = endpoint.client("lambda").invoke(FunctionName=FAULTY, Payload=b"[]")
    assert reply["FunctionError"] == "Unhandled"
    assert json.loads(reply["Payload"].read())["errorType"] == "KeyError"


INVOKED = {
    NAMED: set(),
    FAULTY: {"GraderFailed"},
    WRONG: {"GraderReply"},
    MISSING: {"GraderNotThere"},
}


def test_a_check_invokes_the_function_once_and_compares_its_rewards(
    cli: Cli, endpoint: Endpoint, tmp_path: Path
) -> None:
    path = write_grader_job(tmp_path / "job", bedrock=endpoint.bedrock_section)
    words = ("check", path, "--backend", "bedrock", "--invoke-grader", *JSON)

    def codes(arn: str) -> set[str]:
        done = cli(*words, "--set", f"reinforcement.lambda_arn={arn}")
        assert "say 0" not in done.stdout + done.stderr, "no prompt is quoted"
        return {one["code"] for one in json.loads(done.stdout)["findings"]}

    calls = len(endpoint.calls("Invoke"))
    for arn, expected in sorted(INVOKED.items()):
        if arn not in (NAMED, MISSING):  # the deployed code is compared before it is invoked
            code = FAULTY_GRADER if arn == FAULTY else WRONG_GRADER
            (path.parent / "graders" / "tickets.py").write_text(code, encoding="utf-8")
        assert codes(arn) - {"GraderInOtherAccount"} == expected, arn
        (path.parent / "graders" / "tickets.py").write_text(EXACT_GRADER, encoding="utf-8")
    assert len(endpoint.calls("Invoke")) == calls + 3, "a function that is missing is not invoked"
    local = cli("check", path, "--invoke-grader", *JSON)
    assert local.returncode == 2 and "--invoke-grader" in local.stderr


REFUSED: dict[str, dict[str, Any]] = {
    "requires customizationConfig.rftConfig": {"customizationConfig": {"rftConfig": {}}},
    "is not supported for FINE_TUNING": {"customizationType": "FINE_TUNING"},
    "hyperParameters is not supported": {"hyperParameters": {"epochCount": "2"}},
    "epochCount": {
        "customizationConfig": {
            "rftConfig": {
                "graderConfig": {"lambdaGrader": {"lambdaArn": NAMED}},
                "hyperParameters": {"epochCount": 51},
            }
        }
    },
}


@pytest.mark.parametrize("message", sorted(REFUSED))
def test_a_request_that_bedrock_refuses_is_refused(endpoint: Endpoint, message: str) -> None:
    client = endpoint.client("bedrock")
    with pytest.raises(client.exceptions.ValidationException, match=message):
        create_job(endpoint, "refused", NAMED, **REFUSED[message])


def test_a_job_file_trains_on_sagemaker_with_its_grader(
    cli: Cli, endpoint: Endpoint, tmp_path: Path, tiny_model: Path
) -> None:
    given = {"lambda_arn": NAMED, "hyperparameters": HYPERPARAMETERS}
    path = write_grader_job(
        tmp_path / "job",
        name="both",
        model=tiny_model,
        records=16,
        reinforcement=given,
        sagemaker={
            "region": REGION,
            "role_arn": SAGEMAKER_ROLE,
            "s3_uri": f"s3://{BUCKET}/team",
            "image_uri": "pytorch-training:any",
            "instance_type": "ml.m5.xlarge",
        },
    )
    done = cli("submit", path, "--backend", "sagemaker", "--wait", *JSON)
    assert done.returncode == 0, done.stderr + done.stdout
    job = json.loads(done.stdout)
    assert job["status"] == "Completed"
    points = json.loads(cli("metrics", job["id"], *JSON).stdout)
    assert points and all(point["reward"] is not None for point in points)
    [sent] = [key for key in endpoint.object_keys() if key.endswith("/input/grader.py")]
    body = endpoint.client("s3").get_object(Bucket=BUCKET, Key=sent)["Body"].read()
    assert body == (path.parent / "graders" / "tickets.py").read_bytes()

    spec = yaml.safe_load(path.read_text())
    del spec["reinforcement"]["grader"]
    path.write_text(yaml.safe_dump(spec))
    found = json.loads(cli("check", path, "--backend", "sagemaker", *JSON).stdout)["findings"]
    assert ("MissingValue", "reinforcement.grader") in [(f["code"], f["field"]) for f in found]
