"""An account's quotas: read from Service Quotas, and compared with what exists now.

Service Quotas answers GetServiceQuota where it keeps an account's own value, and otherwise only
GetAWSDefaultServiceQuota (API reference, "GetServiceQuota"). Where neither can be read, the default
that AWS documents counts, and a finding says so once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from cloudft.aws.aws_cli import aws_cli_command
from cloudft.aws.client import Aws
from cloudft.backends.aws_base import account_checks
from cloudft.backends.aws_base.account_checks import MakeFinding
from cloudft.backends.capabilities import RecordsQuota
from cloudft.catalogue.quotas import SERVICE_CODE, Counted, Quota, find_quota, require_quota
from cloudft.errors import CloudRefused, CloudUnreachable, QuotaExceeded, ResourceNotFound
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding

LISTINGS: dict[str, tuple[str, str, dict[str, object]]] = {
    "custom-models": ("list_custom_models", "modelSummaries", {"isOwned": True}),
    "scheduled-jobs": (
        "list_model_customization_jobs",
        "modelCustomizationJobSummaries",
        {"statusEquals": "InProgress"},
    ),
    "deployments": ("list_custom_model_deployments", "modelDeploymentSummaries", {}),
    "imported-models": ("list_imported_models", "modelSummaries", {}),
    "import-jobs": (
        "list_model_import_jobs",
        "modelImportJobSummaries",
        {"statusEquals": "InProgress"},
    ),
}
"""What a quota counts -> the operation that lists it, the list's member, and its filter."""
PASSING = frozenset({"scheduled-jobs", "creating-deployments", "import-jobs"})
"""What ends by itself: who waits gets a place."""
ROOM: dict[str, str] = {
    "custom-models": "delete models that are not needed (`cloudft gc` lists them)",
    "scheduled-jobs": "submit with --queue, which waits until a job has ended",
    "deployments": "`cloudft undeploy` what is not needed (`cloudft ps` lists it)",
    "creating-deployments": "wait until one is ready (`cloudft ps` shows it)",
    "imported-models": "delete imported models that are not needed (`cloudft gc` lists them)",
    "import-jobs": "wait until the running import has ended",
}
"""How what a quota counts becomes less."""


@dataclass(frozen=True)
class AppliedQuota:
    """A quota of this account. `origin` is where its value is from.

    `account` is the account's own value, `default` AWS's by Service Quotas, `documented` AWS's by
    the catalogue, where Service Quotas could not be read.
    """

    quota: Quota
    value: float
    adjustable: bool
    origin: Literal["account", "default", "documented"]

    @property
    def title(self) -> str:
        """Return the quota's name, without the group that AWS puts before it, and its code."""
        name = self.quota.name.rpartition(") ")[2]
        return f"{name} ({self.quota.code})" if self.quota.code else name

    @property
    def limit(self) -> str:
        """Return the value, and where it is from if it is not this account's."""
        number = f"{self.value:,.0f}"
        words = {
            "account": number,
            "default": f"{number}, AWS's default",
            "documented": f"{number}, AWS's documented default, {self.quota.source}",
        }
        return words[self.origin]


class QuotaReader:
    """Reads quotas of one account and Region. `error` is why one could not be read, if so.

    After an outage no more are read: each call would wait for its deadline.
    """

    def __init__(self, aws: Aws) -> None:
        self._aws = aws
        self.error: CloudRefused | CloudUnreachable | None = None

    def read(self, quota: Quota) -> AppliedQuota:
        """Return the account's quota; the documented default where it can't be read."""
        documented = AppliedQuota(quota, quota.default, quota.adjustable, "documented")
        if quota.code is None or isinstance(self.error, CloudUnreachable):
            return documented
        for operation, origin in _OPERATIONS:
            try:
                answer = self._aws.call(
                    f"the quota {quota.code} can't be read",
                    "service-quotas",
                    operation,
                    ServiceCode=SERVICE_CODE,
                    QuotaCode=quota.code,
                )["Quota"]
            except ResourceNotFound:  # Service Quotas keeps no value of this account's own
                continue
            except (CloudRefused, CloudUnreachable) as error:
                self.error = error
                return documented
            if "Value" in answer:  # absent where Service Quotas itself got none (ErrorReason)
                adjustable = bool(answer.get("Adjustable", quota.adjustable))
                return AppliedQuota(quota, float(answer["Value"]), adjustable, origin)
        return documented


_OPERATIONS: tuple[tuple[str, Literal["account", "default"]], ...] = (
    ("get_service_quota", "account"),
    ("get_aws_default_service_quota", "default"),
)


def increase_remedy(aws: Aws, applied: AppliedQuota) -> str:
    """Return the command that requests twice the quota; or that it can't be raised."""
    if not applied.adjustable or applied.quota.code is None:
        return "this quota can't be raised"
    desired = f"{max(2 * applied.value, 1):.0f}"
    words = ("service-quotas", "request-service-quota-increase", "--service-code", SERVICE_CODE)
    arguments = (*words, "--quota-code", applied.quota.code, "--desired-value", desired)
    return f"raise the quota: `{aws_cli_command(aws, *arguments)}`"


def count_used(aws: Aws, counts: Counted) -> int:
    """Return how many there are of what a quota counts. Raise CloudRefused, CloudUnreachable."""
    operation, key, filters = LISTINGS[counts]
    failure = f"what the quota of {counts} counts can't be listed"
    return sum(1 for _ in aws.paginate(failure, "bedrock", operation, key, **filters))


def check_quotas(
    counted: tuple[Counted, ...], aws: Aws, finding: MakeFinding, field: str = "bedrock"
) -> Iterator[Finding]:
    """Yield a warning for each of these quotas that is used up, and one if none could be read.

    No errors: what is counted may be what an earlier submit of the same job made, and a submit that
    is run again must find it.
    """
    reader = QuotaReader(aws)
    for counts in counted:
        applied = reader.read(require_quota(counts))
        used = count_used(aws, counts)
        if used >= applied.value:
            message = f"{applied.title}: {used} of {applied.limit} are used"
            fix = f"{ROOM[counts]}; or {increase_remedy(aws, applied)}."
            if not applied.adjustable:
                fix = f"{ROOM[counts]}: {increase_remedy(aws, applied)}."
            yield finding("QuotaReached", field, message, fix, "warning")
    if reader.error is not None:
        what = "the account's quotas (AWS's documented defaults count instead)"
        yield account_checks.unchecked_finding(what, field, reader.error, finding)


def check_job_quotas(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    """Yield findings about the quotas that a customization job needs: a job, and its model."""
    jobs: tuple[Counted, ...] = () if job.spec.bedrock.via_stack else ("scheduled-jobs",)
    yield from check_quotas(("custom-models", *jobs), aws, finding)


def check_import_quotas(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    """Yield findings about the quotas that an import needs: an import job, and its model."""
    yield from check_quotas(("imported-models", "import-jobs"), aws, finding)


def require_deployment_quota(aws: Aws) -> None:
    """Raise CloudRefused or QuotaExceeded where AWS would refuse a deployment on demand.

    A quota that can't be read refuses nothing: AWS itself does.
    """
    reader = QuotaReader(aws)
    counted: tuple[Counted, ...] = ("deployments", "creating-deployments")
    read = [reader.read(require_quota(counts)) for counts in counted]
    known = [applied for applied in read if applied.origin != "documented"]
    if not known:
        return
    operation, key, _ = LISTINGS["deployments"]
    failure = "the deployments can't be listed"
    statuses = [found.get("status") for found in aws.paginate(failure, "bedrock", operation, key)]
    for applied in known:
        counts = applied.quota.counts
        used = len(statuses) if counts == "deployments" else statuses.count("Creating")
        if used >= applied.value:
            message = f"{applied.title}: {used} of {applied.limit} are used"
            fix = f"{ROOM[counts]}; or {increase_remedy(aws, applied)}."
            error = QuotaExceeded if counts in PASSING else CloudRefused
            raise error(message, fix=fix)


def read_records_quota(job: LoadedJob, aws: Aws) -> RecordsQuota | None:
    """Return how many records the account may train and validate with; None if no quota is known.

    None also where it can't be read: the limit of the catalogue holds then.
    """
    quota = find_quota("records", job.model.alias, job.spec.customization_type)
    applied = None if quota is None else QuotaReader(aws).read(quota)
    if applied is None or applied.origin == "documented":
        return None
    source = f"quota {applied.quota.code} of this account"
    if applied.origin == "default":
        source = f"quota {applied.quota.code}, AWS's default"
    return RecordsQuota(int(applied.value), source, increase_remedy(aws, applied))
