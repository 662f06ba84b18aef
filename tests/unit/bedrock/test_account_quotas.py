"""The account's quotas in `check`, `submit` and `deploy`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from endpoint import AWS_KEYS, REGION, Endpoint, running_endpoint
from job_files import write_job_file

from cloudft.aws.client import Aws, AwsLocation
from cloudft.backends.bedrock import account_checks, preflight, service_quotas
from cloudft.backends.bedrock.backend import BedrockBackend
from cloudft.backends.bedrock.model_import import preflight as import_preflight
from cloudft.catalogue import load_models, quotas
from cloudft.errors import (
    CloudftError,
    CloudRefused,
    CloudUnreachable,
    PermissionDenied,
    QuotaExceeded,
    ResourceNotFound,
)
from cloudft.jobs import prepare
from cloudft.spec.load import LoadedJob, load_job
from cloudft.storage.home import Home
from cloudft.types import Finding

READS = ("get_service_quota", "get_aws_default_service_quota")
MISSING = ResourceNotFound("NoSuchResourceException: there is none")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast", "--seconds", "60") as made:
        yield made


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AWS_KEYS.items():
        monkeypatch.setenv(name, value)


class AccountWith(Aws):
    """An account with quotas of its own: a value, None for no such quota, or an error, by code.

    `lists` maps a list's operation to the number of its items.
    """

    def __init__(
        self, endpoint: Endpoint, values: Mapping[str, Any], lists: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(AwsLocation(region=REGION, endpoint_url=endpoint.url))
        self.values, self.lists, self.read = values, lists or {}, []  # type: ignore[var-annotated]

    def call(self, failure: str, service: str, operation: str, **parameters: Any) -> Any:
        if operation == "simulate_principal_policy":
            names = parameters["ActionNames"]
            allowed = [{"EvalActionName": one, "EvalDecision": "allowed"} for one in names]
            return {"EvaluationResults": allowed}
        if operation not in READS:
            return super().call(failure, service, operation, **parameters)
        self.read.append(operation)
        value = self.values.get(parameters["QuotaCode"], self.values.get("*", 1000))
        if isinstance(value, CloudftError):
            raise value
        if value is None and operation == "get_service_quota":
            raise MISSING
        return {"Quota": {"Value": 7.0 if value is None else value, "Adjustable": True}}

    def paginate(self, failure: str, service: str, operation: str, key: str, **more: Any) -> Any:
        if operation in self.lists:
            return iter([{"status": "Creating"}] * self.lists[operation])
        return super().paginate(failure, service, operation, key, **more)


def job_of(folder: Path, endpoint: Endpoint, records: int = 16) -> LoadedJob:
    section = {**endpoint.bedrock_section, "endpoint_url": endpoint.url}
    empty = {"hyperparameters": {}, "records": records}
    path = write_job_file(folder, Path("nova-micro"), bedrock=section, **empty)
    text = path.read_text()
    for setting in ("batchSize: 4", "learningRate: 0.01", "learningRateWarmupSteps: 0"):
        text = text.replace(setting, "")
    path.write_text(text)
    return load_job(path)


def findings(job: LoadedJob, aws: Aws) -> list[Finding]:
    return preflight.check_job(job, aws)


def test_each_quota_has_a_source_with_a_date_and_its_own_code() -> None:
    codes = [quota.code for quota in quotas.load_quotas() if quota.code]
    assert len(set(codes)) == len(codes) == 25
    aliases = {model.alias: model for model in load_models()}
    for quota in quotas.load_quotas():
        assert quota.source.url.startswith("https://") and quota.source.date
        assert quota.default > 0
        # Service Quotas can't be called without a code: only rates lack one, and can't be raised.
        assert quota.code or (not quota.adjustable and "per-minute" in quota.counts)
        if quota.counts == "records":
            model = aliases[str(quota.model)]
            assert quota.customization_type in model.customization_types
            limits = model.limits.get(str(quota.customization_type))
            if limits is not None and limits.records_max is not None:
                assert limits.records_max == quota.default, model.alias
    assert len({(q.counts, q.model, q.customization_type) for q in quotas.load_quotas()}) == len(
        quotas.load_quotas()
    )


def test_a_used_up_quota_names_code_value_use_and_how_to_raise_it(
    tmp_path: Path, endpoint: Endpoint
) -> None:
    aws = AccountWith(endpoint, {"L-CB5B847D": 150.0}, {"list_custom_models": 150})
    [finding] = findings(job_of(tmp_path, endpoint), aws)
    assert (finding.code, finding.severity) == ("QuotaReached", "warning")
    assert finding.message == "Custom models per account (L-CB5B847D): 150 of 150 are used"
    command = str(finding.fix).split("`")[-2]
    assert shlex.split(command)[:9] == [
        *("aws", "service-quotas", "request-service-quota-increase", "--service-code", "bedrock"),
        *("--quota-code", "L-CB5B847D", "--desired-value", "300"),
    ]
    assert REGION in command and endpoint.url in command
    free = AccountWith(endpoint, {"L-CB5B847D": 150.0}, {"list_custom_models": 149})
    assert findings(job_of(tmp_path, endpoint), free) == []


def test_what_passes_by_itself_is_a_warning(tmp_path: Path, endpoint: Endpoint) -> None:
    running = [{"jobName": f"job-{number}"} for number in range(10)]

    class Busy(AccountWith):
        def paginate(self, *arguments: Any, **more: Any) -> Any:
            if arguments[2] == "list_model_customization_jobs":
                return iter(running)
            return super().paginate(*arguments, **more)

    aws = Busy(endpoint, {"L-0406044C": 10.0})
    found = {f.code: f for f in findings(job_of(tmp_path, endpoint), aws)}
    assert found.keys() == {"AccountBusy", "QuotaReached"}
    assert found["QuotaReached"].severity == "warning"
    assert "--queue" in str(found["QuotaReached"].fix)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PermissionDenied("AccessDeniedException", fix="grant it."), "CouldNotCheck"),
        (CloudUnreachable("offline", fix="try again."), "CouldNotReach"),
    ],
)
def test_quotas_that_cannot_be_read_are_said_once_and_the_documented_default_counts(
    tmp_path: Path, endpoint: Endpoint, error: CloudftError, code: str
) -> None:
    aws = AccountWith(endpoint, {"*": error}, {"list_custom_models": 100})
    found = findings(job_of(tmp_path, endpoint), aws)
    assert [f.code for f in found] == ["QuotaReached", code]
    reached, unread = found
    assert reached.severity == unread.severity == "warning"
    assert "100 of 100, AWS's documented default, https://docs.aws.amazon.com" in reached.message
    assert "documented defaults count" in unread.message
    if code == "CouldNotReach":
        assert len(aws.read) == 1  # each further call would wait for its deadline


def test_an_account_without_a_value_of_its_own_has_aws_default(
    tmp_path: Path, endpoint: Endpoint
) -> None:
    aws = AccountWith(endpoint, {"L-CB5B847D": None}, {"list_custom_models": 7})
    [finding] = findings(job_of(tmp_path, endpoint), aws)
    assert "7 of 7, AWS's default" in finding.message and finding.severity == "warning"
    assert aws.read[:2] == list(READS)


def test_an_import_needs_a_place_for_its_model_and_for_its_job(
    tmp_path: Path, endpoint: Endpoint
) -> None:
    job = job_of(tmp_path, endpoint)
    lists = {"list_imported_models": 3, "list_model_import_jobs": 1}
    aws = AccountWith(endpoint, {"L-45B04988": 3.0, "L-5F098EFA": 1.0}, lists)
    found = [f for f in import_preflight.check_job(job, aws) if f.code == "QuotaReached"]
    assert [(f.severity, f.message.partition(":")[0]) for f in found] == [
        ("warning", "Imported models per account (L-45B04988)"),
        ("warning", "Concurrent model import jobs (L-5F098EFA)"),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(12.0, "the model takes 12 at most (quota L-EC6A6ABC of this account)"), (16.0, None)],
)
def test_the_accounts_own_limit_on_records_replaces_the_documented_one(
    tmp_path: Path, endpoint: Endpoint, value: float, expected: str | None
) -> None:
    job = job_of(tmp_path, endpoint, records=16)
    backend = BedrockBackend(Home(tmp_path), AccountWith(endpoint, {"L-EC6A6ABC": value}))
    report = prepare.check(job, backend)
    assert report.ok is (expected is None), report.findings
    if expected is not None:
        [finding] = report.findings
        assert expected in finding.message and "--desired-value 24" in str(finding.fix)


def test_a_raised_limit_on_records_lets_more_in(
    tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(tmp_path, endpoint, records=20_001)
    refused = BedrockBackend(Home(tmp_path), AccountWith(endpoint, {"L-EC6A6ABC": MISSING}))
    unread = prepare.check(job, refused)
    assert [f.code for f in unread.findings if f.severity == "error"] == ["TooMuchDataForModel"]
    raised = BedrockBackend(Home(tmp_path), AccountWith(endpoint, {"L-EC6A6ABC": 20_001.0}))
    assert prepare.check(job, raised).ok


@pytest.mark.parametrize(
    ("lists", "values", "error"),
    [
        ({"list_custom_model_deployments": 10}, {"L-1EF80F3E": 10.0}, CloudRefused),
        ({"list_custom_model_deployments": 2}, {"L-430C95DD": 2.0}, QuotaExceeded),
        ({"list_custom_model_deployments": 10}, {"*": PermissionDenied("no")}, None),
        ({"list_custom_model_deployments": 1}, {"L-430C95DD": 2.0}, None),
    ],
)
def test_a_deployment_that_aws_would_refuse(
    endpoint: Endpoint, lists: dict[str, int], values: dict[str, Any], error: Any
) -> None:
    aws = AccountWith(endpoint, values, lists)
    if error is None:
        service_quotas.require_deployment_quota(aws)
        return
    with pytest.raises(error) as caught:
        service_quotas.require_deployment_quota(aws)
    assert "request-service-quota-increase" in str(caught.value.fix)


def test_a_job_of_the_state_machine_is_not_counted_among_those_that_may_start(
    tmp_path: Path, endpoint: Endpoint
) -> None:
    section = SimpleNamespace(via_stack=True)
    job: Any = SimpleNamespace(spec=SimpleNamespace(bedrock=section))
    aws = AccountWith(endpoint, {}, {"list_model_customization_jobs": 2000})

    def finding(*arguments: Any) -> Any:
        return arguments

    assert list(service_quotas.check_job_quotas(job, aws, finding)) == []
    assert ("the quotas", "bedrock", service_quotas.check_job_quotas) in account_checks.CHECKS
