"""Service Quotas: the quotas of Bedrock that the endpoint enforces, with their raised values.

Codes, names and defaults are those of cloudft's catalogue. An increase is granted at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from cloudft.catalogue.quotas import SERVICE_CODE, Counted, Quota, load_quotas, require_quota
from cloudft.endpoint.protocols.messages import Response, ServiceError
from cloudft.endpoint.state import ACCOUNT, State, new_id, now

SERVICE_NAME = "Amazon Bedrock"
PAGE_SIZE = 100
NO_SUCH_QUOTA = "The request failed because the specified service quota does not exist."
WORDS: Mapping[str, str] = {
    "custom-models": "custom models",
    "scheduled-jobs": "scheduled customization jobs",
    "deployments": "custom model deployments",
    "creating-deployments": "custom model deployments in progress",
    "imported-models": "imported models",
    "import-jobs": "model import jobs in progress",
}
"""What each quota counts, in the words of an error."""


class QuotaRequest(TypedDict, total=False):
    """A quota, by the codes of its service and of itself, and the value that it shall have."""

    ServiceCode: str
    QuotaCode: str
    DesiredValue: float


class ListQuotasRequest(TypedDict, total=False):
    """A service, one of its quotas, and the page of the list."""

    ServiceCode: str
    QuotaCode: str
    MaxResults: int
    NextToken: str


def require_quota_for(state: State, counts: Counted, used: int) -> None:
    """Raise ServiceError (ServiceQuotaExceededException) where `used` is all that is allowed."""
    quota = require_quota(counts)
    value = applied_value(state, quota)
    if used >= value:
        message = f"You have {used} {WORDS[counts]}; the quota is {value:.0f} ({quota.name})."
        raise ServiceError("ServiceQuotaExceededException", message)


def applied_value(state: State, quota: Quota) -> float:
    """Return the value of a quota: as it was raised, else the default."""
    return state.quotas.get(quota.code or "", quota.default)


class ServiceQuotas:
    """Operations of Service Quotas on the quotas of Bedrock."""

    def __init__(self, state: State) -> None:
        self.state = state

    def get_service_quota(self, request: QuotaRequest) -> Response:
        """Return a quota with its value here."""
        quota = self._find(request)
        return {"Quota": self._response(quota, applied_value(self.state, quota))}

    def get_aws_default_service_quota(self, request: QuotaRequest) -> Response:
        """Return a quota with AWS's default."""
        quota = self._find(request)
        return {"Quota": self._response(quota, quota.default)}

    def list_service_quotas(self, request: ListQuotasRequest) -> Response:
        """Return the quotas with their values here, paginated."""
        values = [(quota, applied_value(self.state, quota)) for quota in self._listed(request)]
        return self._page(values, request)

    def list_aws_default_service_quotas(self, request: ListQuotasRequest) -> Response:
        """Return the quotas with AWS's defaults, paginated."""
        return self._page([(quota, quota.default) for quota in self._listed(request)], request)

    def request_service_quota_increase(self, request: QuotaRequest) -> Response:
        """Raise a quota, at once. Raises IllegalArgumentException for one that can't be raised."""
        quota, desired = self._find(request), float(request["DesiredValue"])
        with self.state.lock:
            current = applied_value(self.state, quota)
            if not quota.adjustable or quota.code is None:
                raise ServiceError("IllegalArgumentException", f"{quota.name} is not adjustable")
            if desired <= current:
                message = f"The desired value {desired:.0f} is not above {current:.0f}"
                raise ServiceError("IllegalArgumentException", message)
            self.state.quotas[quota.code] = desired
            self.state.save()
        response = self._response(quota, desired)
        names = ("ServiceCode", "ServiceName", "QuotaCode", "QuotaName", "QuotaArn", "GlobalQuota")
        requested = {name: response[name] for name in (*names, "Unit")}
        times = {"Created": now(), "LastUpdated": now()}
        own = {"Id": new_id(), "Status": "APPROVED", "DesiredValue": desired, "Requester": "{}"}
        return {"RequestedQuota": {**requested, **times, **own}}

    def _find(self, request: QuotaRequest) -> Quota:
        """Return the quota of a code. Raises ServiceError (NoSuchResourceException)."""
        code = request["QuotaCode"]
        found = [quota for quota in self._of(request["ServiceCode"]) if quota.code == code]
        if not found:
            raise ServiceError("NoSuchResourceException", NO_SUCH_QUOTA)
        return found[0]

    def _of(self, service: str) -> Sequence[Quota]:
        """Return the quotas that have a code. Raises ServiceError for another service."""
        if service != SERVICE_CODE:
            message = f"{service}: this endpoint has the quotas of bedrock alone"
            raise ServiceError("NoSuchResourceException", message)
        return [quota for quota in load_quotas() if quota.code is not None]

    def _listed(self, request: ListQuotasRequest) -> Sequence[Quota]:
        code = request.get("QuotaCode")
        quotas = self._of(request["ServiceCode"])
        return [quota for quota in quotas if code in (None, quota.code)]

    def _page(self, values: Sequence[tuple[Quota, float]], request: ListQuotasRequest) -> Response:
        token = request.get("NextToken", "0")
        if not token.isdecimal():
            message = "The pagination token is invalid."
            raise ServiceError("InvalidPaginationTokenException", message)
        start, size = int(token), request.get("MaxResults", PAGE_SIZE)
        shown = values[start : start + size]
        more = start + size < len(values)
        return {
            "Quotas": [self._response(quota, value) for quota, value in shown],
            "NextToken": str(start + size) if more else None,
        }

    def _response(self, quota: Quota, value: float) -> Response:
        return {
            "ServiceCode": SERVICE_CODE,
            "ServiceName": SERVICE_NAME,
            "QuotaArn": f"arn:aws:servicequotas:{self.state.region}:{ACCOUNT}:"
            f"{SERVICE_CODE}/{quota.code}",
            "QuotaCode": quota.code,
            "QuotaName": quota.name,
            "Value": value,
            "Unit": "None",
            "Adjustable": quota.adjustable,
            "GlobalQuota": False,
            "QuotaAppliedAtLevel": "ACCOUNT",
        }
