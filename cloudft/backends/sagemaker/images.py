"""Find the container image: the job file's, or the one that the SageMaker SDK names.

The image is never guessed. The SDK's core (450 MB, seconds to import) is used for nothing else: its
ModelTrainer invents a name for each call, uploads while it builds the request and sends it by
itself, so that a request that is shown first and submitted once is impossible with it.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from typing import Any

from cloudft.errors import UsageError

FRAMEWORK, SCOPE = "pytorch", "training"
TORCH_MIN = "2.6"
"""The oldest PyTorch that the trainer runs on: that of the extra `local`, and of
local_backend/container/pip_requirements.py."""
ECR_URI = re.compile(
    r"(?P<account>\d{12})\.dkr[.-]ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.(?:amazonaws\.|on\.aws)"
    r"[^/]*/(?P<repository>[^:@]+)(?::(?P<tag>[^@]+))?(?:@.+)?"
)
"""The URI of an image in Amazon ECR."""
FRAMEWORKS = ("pytorch-training", "huggingface-pytorch-training")
"""Repositories of AWS's images whose tags begin with the version of PyTorch and name what they are
for: 2.8.0-gpu-py312-cu129-ubuntu22.04-sagemaker."""
AWS_ACCOUNTS = """
124382933778 204133271717 204538143572 217643126080 364406365360 380420809688 442386744353
446045086412 457447274322 503227376785 550225433462 590183813437 626614931356
633930458069 637423239942 692866216735 727897471807 763104351884 772153158452
780543022126 871362719292 907027046896 914824155844 975050140332
"""
"""The accounts of AWS's PyTorch training images, outside its isolated Regions (sagemaker-core
2.27.0, image_uri_config/pytorch.json)."""


@dataclass(frozen=True)
class EcrImage:
    """An image in ECR, by its URI."""

    account: str
    region: str
    repository: str
    tag: str = ""

    @property
    def is_aws_image(self) -> bool:
        """Return whether the image is one of AWS's own."""
        return self.account in AWS_ACCOUNTS.split()

    @property
    def torch_version(self) -> str | None:
        """Return the version of PyTorch in the tag of a framework's image, or None."""
        match = re.match(r"\d+\.\d+(\.\d+)?", self.tag)
        return match[0] if match and self.repository.split("/")[-1] in FRAMEWORKS else None

    @property
    def is_torch_too_old(self) -> bool:
        """Return whether the tag names a PyTorch older than TORCH_MIN."""
        return self.torch_version is not None and _version_key(self.torch_version)[
            :2
        ] < _version_key(TORCH_MIN)

    @property
    def is_cpu_only(self) -> bool:
        """Return whether the tag of a framework's image says that it has no CUDA."""
        return self.torch_version is not None and "cpu" in self.tag.split("-")


def parse_ecr_uri(uri: str) -> EcrImage | None:
    """Parse an image's URI; return None unless it is in ECR."""
    match = ECR_URI.fullmatch(uri)
    return EcrImage(**{k: v or "" for k, v in match.groupdict().items()}) if match else None


def is_sdk_installed() -> bool:
    """Return whether the extra `sagemaker` is installed."""
    try:
        return importlib.util.find_spec("sagemaker.core") is not None
    except ModuleNotFoundError:
        return False


def find_sdk_image(region: str, instance_type: str, version: str | None) -> str:
    """Return the SDK's PyTorch training image for that instance type.

    Raise UsageError where the SDK has none for that version, Region, or kind of instance.
    """
    from sagemaker.core import image_uris

    known: dict[str, Any] = image_uris.config_for_framework(FRAMEWORK)[SCOPE]["versions"]
    chosen = version or max(known, key=_version_key)
    full = [name for name in known if name == chosen or name.startswith(f"{chosen}.")]
    if not full:
        raise UsageError(
            f"the SageMaker SDK knows no PyTorch image {chosen}",
            fix=f"take one of {', '.join(list(known)[-5:])}, or name sagemaker.image_uri.",
        )
    exact = max(full, key=_version_key)
    try:
        image: str = image_uris.retrieve(
            FRAMEWORK,
            region,
            version=exact,
            py_version=known[exact]["py_versions"][-1],
            instance_type=instance_type,
            image_scope=SCOPE,
        )
    except ValueError as error:
        raise UsageError(
            f"the SageMaker SDK has no PyTorch {exact} image for {instance_type} in {region}:"
            f" {str(error)[:200]}",
            fix="take another machine, Region or pytorch_version, or name sagemaker.image_uri.",
        ) from error
    return image


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
