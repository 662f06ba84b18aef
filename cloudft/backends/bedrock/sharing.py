"""Share a custom model with another account by AWS RAM: one share for a model and an account.

Its name follows from both, and its tags show that cloudft made it. The client token follows from
the shares of that name that were deleted before: the same share can't be made twice, and a removed
one can be made again.

Source: Bedrock user guide, "Share a model for another account to use", read 2026-10.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cloudft.aws.arn import parse_arn
from cloudft.aws.client import Aws
from cloudft.aws.tags import JOB_TAG, from_tag_list, to_tag_list
from cloudft.backends.bedrock.api_shapes import CustomizationJob
from cloudft.backends.capabilities import SharesModels
from cloudft.backends.resources import ModelShare, ServingCall
from cloudft.catalogue import find_catalogue_model, load_copy_rules
from cloudft.errors import JobStateConflict, ResourceConflict
from cloudft.types import Finding

ENDED_STATUSES = ("DELETED", "DELETING")
FAILED = "FAILED"


def check_share(model: str) -> list[Finding]:
    """Return a warning for a model that AWS's table does not list: RAM itself decides."""
    rules, arn = load_copy_rules(), parse_arn(model)
    base = find_catalogue_model(model)
    if base is not None and arn.region in rules.share_from.get(base.alias, ()):
        return []
    listed = ", ".join(rules.share_from)
    message = (
        f"AWS's table of models that can be shared has {listed} and no"
        f" {base.alias if base else 'model of SageMaker'} in {arn.region} ({rules.share_source})"
    )
    fix = "train it in the other account; a share that is refused costs nothing."
    return [Finding("warning", "ShareNotSupported", message, fix)]


def plan_share(aws: Aws, model: str, job: str, account: str) -> ModelShare:
    """Return the share as it would be made, or the one that exists.

    Raise ResourceConflict for a share of that name that cloudft did not make.
    """
    name = f"cloudft-{job}-{account}"
    shares = [share for share in _list_shares(aws) if share.get("name") == name]
    ended = [str(s["resourceShareArn"]) for s in shares if s["status"] in ENDED_STATUSES]
    content = "\n".join([model, account, name, *sorted(ended)])
    call: ServingCall = {
        "service": "ram",
        "operation": "create_resource_share",
        "parameters": {
            "name": name,
            "resourceArns": [model],
            "principals": [account],
            # The user guide shares models within one organization alone.
            "allowExternalPrincipals": False,
            "tags": to_tag_list({JOB_TAG: job}),
            "clientToken": hashlib.sha256(content.encode()).hexdigest()[:32],
        },
    }
    existing = next((share for share in shares if share["status"] not in ENDED_STATUSES), None)
    if existing is None:
        return ModelShare(model, account, name, call)
    arn = str(existing["resourceShareArn"])
    if from_tag_list(existing.get("tags", ())).get(JOB_TAG) != job:
        raise ResourceConflict(
            f"a resource share {name} exists, and cloudft did not make it ({arn})",
            fix="remove it with the tool that created it.",
        )
    return ModelShare(model, account, name, call, arn, str(existing["status"]))


def _list_shares(aws: Aws) -> list[Mapping[str, Any]]:
    failure, key = "the resource shares can't be listed", "resourceShares"
    return list(aws.paginate(failure, "ram", "get_resource_shares", key, resourceOwner="SELF"))


def create_share(aws: Aws, share: ModelShare) -> ModelShare:
    """Make the share, unless it exists; return it with its ARN and status.

    Raise JobStateConflict for one that failed: nobody has the model by it.
    """
    if share.status == FAILED:
        raise JobStateConflict(
            f"the resource share {share.name} failed ({share.arn})",
            fix="`cloudft share JOB --with ACCOUNT --stop` removes it; then share the model again.",
        )
    if share.arn is not None:
        return share
    failure = f"{share.model} can't be shared"
    response = aws.call(failure, "ram", share.call["operation"], **share.call["parameters"])
    made = response["resourceShare"]
    return replace(share, arn=str(made["resourceShareArn"]), status=str(made["status"]))


def delete_share(aws: Aws, share: ModelShare) -> None:
    """Remove the share, if it exists. What the other account has copied stays there."""
    if share.arn is not None:
        failure = f"the resource share {share.name} can't be removed"
        aws.call(failure, "ram", "delete_resource_share", resourceShareArn=share.arn)


class SharesBedrockModels(SharesModels):
    """Shares the custom models of Bedrock's jobs."""

    aws: Aws

    @abstractmethod
    def _require_completed(self, job_id: str) -> CustomizationJob:
        """Return the job. Raise JobStateConflict before it has a model."""

    def plan_share(self, job_id: str, account: str) -> tuple[ModelShare, list[Finding]]:
        """Return the share of a job's model, as it would be made or as it exists, and warnings."""
        job = self._require_completed(job_id)
        model = str(job["outputModelArn"])
        return plan_share(self.aws, model, job["jobName"], account), check_share(model)

    def share(self, share: ModelShare) -> ModelShare:
        """Make the share, unless it exists."""
        return create_share(self.aws, share)

    def unshare(self, share: ModelShare) -> None:
        """Remove the share, if it exists."""
        delete_share(self.aws, share)
