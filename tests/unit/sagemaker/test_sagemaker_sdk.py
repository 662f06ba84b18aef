"""What SageMaker's own SDK (sagemaker-core) says of images, machines and containers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from job_files import write_job_file

from cloudft import catalogue
from cloudft.aws.client import Aws, AwsLocation
from cloudft.aws.request_validation import load_service_model
from cloudft.backends.base import with_placeholder_data
from cloudft.backends.sagemaker import images, preflight
from cloudft.backends.sagemaker.backend import SageMakerBackend
from cloudft.endpoint.sagemaker.container import Container, Host
from cloudft.errors import UsageError
from cloudft.spec.load import load_job
from cloudft.storage.home import Home
from local_backend.container.environment import ContainerPaths, Machine, read_machine

REGION = "eu-west-1"
SDK_GPU = "ml.g5.2xlarge"


def test_it_names_the_stock_image() -> None:
    image = images.find_sdk_image(REGION, SDK_GPU, "2.8")
    assert image.partition("/")[2].startswith("pytorch-training:2.8.0-gpu-")
    newest = images.parse_ecr_uri(images.find_sdk_image(REGION, SDK_GPU, None))
    assert newest is not None and newest.torch_version is not None and not newest.is_torch_too_old
    assert (newest.region, newest.is_aws_image, newest.is_cpu_only) == (REGION, True, False)
    cpu = images.parse_ecr_uri(images.find_sdk_image(REGION, "ml.m5.xlarge", None))
    assert cpu is not None and cpu.is_cpu_only and cpu.torch_version == newest.torch_version


@pytest.mark.parametrize(
    ("region", "machine", "version", "why"),
    [
        (REGION, SDK_GPU, "1.99", "knows no PyTorch image"),
        (REGION, "ml.p2.xlarge", None, "no PyTorch .* for ml.p2.xlarge"),
        (REGION, "ml.trn1.2xlarge", None, "no PyTorch .* for ml.trn1.2xlarge"),
        ("eu-nowhere-1", SDK_GPU, None, "in eu-nowhere-1"),
    ],
)
def test_a_missing_image_is_reported_with_the_remedy(
    region: str, machine: str, version: str | None, why: str
) -> None:
    with pytest.raises(UsageError, match=why) as refused:
        images.find_sdk_image(region, machine, version)
    assert "image_uri" in str(refused.value.fix)


@pytest.mark.parametrize(
    ("section", "codes"),
    [
        ({}, set()),
        ({"pytorch_version": "1.13"}, {"ImageTooOld"}),
        ({"instance_type": "ml.p2.xlarge"}, {"NoImage"}),
    ],
)
def test_check_looks_at_the_stock_image_too(
    tmp_path: Path, tiny_model: Path, section: dict[str, Any], codes: set[str]
) -> None:
    base = {
        "region": REGION,
        "role_arn": "arn:aws:iam::123456789012:role/x",
        "s3_uri": "s3://some-bucket/x",
        "instance_type": SDK_GPU,
    }
    job = load_job(write_job_file(tmp_path / "job", tiny_model, sagemaker=base | section))
    aws = Aws(AwsLocation(region=REGION, endpoint_url="http://127.0.0.1:9"))
    backend = SageMakerBackend(Home(tmp_path), aws)
    found = preflight.check_job(
        job, aws, [], lambda: backend._job_inputs(with_placeholder_data(job), ())
    )
    assert {finding.code for finding in found if finding.severity == "error"} == codes


def test_the_accounts_of_its_images_are_those_that_we_know() -> None:
    from sagemaker.core import image_uris

    versions = image_uris.config_for_framework("pytorch")["training"]["versions"]
    found = {
        account
        for version, row in versions.items()
        if images._version_key(version) >= images._version_key(images.TORCH_MIN)
        for region, account in row["registries"].items()
        if "iso" not in region
    }
    assert found == set(images.AWS_ACCOUNTS.split())


def test_it_takes_the_same_machines_for_machines_with_gpus() -> None:
    from sagemaker.core import instance_types_gpu_info

    types = load_service_model("sagemaker").shape_for("TrainingInstanceType").enum
    families = {kind.split(".")[1]: kind for kind in types}
    looked_at = {f for f, kind in families.items() if Machine(instance_type=kind).has_gpu} - {"p2"}
    assert {"p3", "p5en", "g4dn", "g6e"} < looked_at
    for family in looked_at | {"m5", "c5n", "r5", "t3"}:
        image = images.find_sdk_image("us-east-1", families[family], "2.9")
        assert ("-gpu-" in image) == (family in looked_at), image
    known = catalogue.load_instances().by_name
    table = instance_types_gpu_info.retrieve("us-east-1")
    shared = {name: known[name] for name in table if name in known}
    assert len(shared) > 5
    for name, row in shared.items():
        each = table[name]["TotalGpuMemoryInMiB"] / table[name]["Count"] / 1024
        assert (row.gpus, row.gib) == (table[name]["Count"], int(each)), name


DRIVER = """
import json, sys
sys.path.insert(0, sys.argv[1])
import environment
read = [json.load(open(f"{sys.argv[2]}/{n}.json")) for n in
        ("resourceconfig", "inputdataconfig", "hyperparameters")]
environment.set_env(*read, output_file=sys.argv[3])
"""


def test_its_own_driver_reads_what_the_endpoint_gives_a_container(tmp_path: Path) -> None:
    """The SDK overrides the entrypoint as we do: its driver has the platform's files alone."""
    import sagemaker.core

    request = {
        "TrainingJobName": "x",
        "HyperParameters": {"epochCount": "2"},
        "InputDataConfig": [{"ChannelName": "train", "InputMode": "FastFile"}],
    }
    host = Host("algo-2", ["127.0.0.1", "algo-2"], 1)
    Container(request, tmp_path, None, print, host)._write_config_files()
    core = Path(str(sagemaker.core.__file__)).parent
    scripts = core / "modules" / "train" / "container_drivers" / "scripts"
    out = tmp_path / "env"
    config = tmp_path / "input" / "config"
    subprocess.run(
        [sys.executable, "-c", DRIVER, str(scripts), str(config), str(out)],
        env={"PATH": os.environ["PATH"], "TRAINING_JOB_NAME": "x"},
        check=True,
        capture_output=True,
    )
    lines = [line.removeprefix("export ") for line in out.read_text().splitlines()]
    reported = {
        name: value.strip("'") for name, _, value in (line.partition("=") for line in lines)
    }
    machine = read_machine(ContainerPaths(tmp_path, {}))
    assert machine.hosts == json.loads(reported["SM_HOSTS"]) == ["127.0.0.1", "algo-2"]
    assert machine.host == reported["SM_CURRENT_HOST"] == "algo-2"
    assert str(machine.rank) == reported["SM_CURRENT_HOST_RANK"] == "1"
    assert machine.interface == reported["SM_NETWORK_INTERFACE_NAME"]
    assert machine.instance_type == reported["SM_CURRENT_INSTANCE_TYPE"] == "local"
    assert reported["SM_CHANNELS"] == '["train"]' and reported["SM_HP_EPOCHCOUNT"] == "2"
