"""Every error that cloudft raises on purpose.

    CloudftError                      exit code 1
    ├── UsageError                    2   wrong flag or argument
    │   ├── SpecError                 2   the job file is bad (carries every finding)
    │   ├── UnknownModel              2   no such model in the catalogue
    │   ├── JobNotFound               2   no job by that id, prefix or name
    │   └── JobStateConflict          2   the job's state does not allow it (Bedrock's Conflict)
    ├── CheckFailed                   3   `check` found errors (carries every finding)
    ├── OverBudget                    6   the estimate is above budget_usd
    ├── StoreError                    1   CLOUDFT_HOME can't be read or written
    ├── BadDocument                   1   a document that was read back has the wrong shape
    │   └── DamagedJob                1   one job's folder can't be read; the others can
    ├── TrainerError                  1   the local trainer program failed
    │   ├── EngineFailed              1   what answers requests has ended, or ran out of memory
    │   └── RequestRefused            1   a request that no model here can answer as it is
    │       └── PromptTooLong         1   its prompt fills the model's context
    ├── EngineBusy                    1   too many requests wait for the models here
    ├── CloudRefused                  4   the cloud refused: credentials, permission, no resource
    │   ├── ResourceNotFound          4   the resource does not exist
    │   ├── PermissionDenied          4   this identity lacks the permission
    │   ├── NoSuchProfile             4   the AWS configuration has no profile of that name
    │   ├── ResourceConflict          4   a name is taken, or the resource's state forbids it
    │   ├── ClockSkewed               4   this machine's clock is wrong
    │   └── CredentialsExpired        4   log in again; a watched job continues
    ├── CloudUnreachable              5   throttled or unreachable: a retry may succeed
    │   └── QuotaExceeded             5   a quota of the account is used up for now
    ├── StackFailed                   1   a stack could not be created, changed or deleted
    ├── JobFailed                     1   a job ended in Failed while a command waited for it
    └── WaitTimeout                   124 `--wait` ran out of time; the job keeps running

Each class knows its exit code; the CLI turns an error into `error: WHAT (FILE:LINE, FIELD)` and
`  fix: REMEDY`, or into JSON of the same fields. The `code` strings are part of the JSON contract,
so those of the cloud's errors keep the names that they had when AWS was the only cloud.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from cloudft.types import Finding


class CloudftError(Exception):
    """An error that a person can act on: what is wrong, where, and how to fix it."""

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "Error"

    def __init__(
        self,
        message: str,
        *,
        fix: str | None = None,
        file: str | None = None,
        line: int | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix
        self.file = file
        self.line = line
        self.field = field


class UsageError(CloudftError):
    """A flag or an argument that can't be used."""

    exit_code = 2
    code = "Usage"


class _ErrorWithFindings(CloudftError):
    """An error with several findings; fix, file, line and field are those of the first error."""

    def __init__(self, message: str, findings: Iterable[Finding]) -> None:
        self.findings: Sequence[Finding] = tuple(findings)
        first = next((f for f in self.findings if f.severity == "error"), None)
        super().__init__(
            message,
            fix=first.fix if first else None,
            file=first.file if first else None,
            line=first.line if first else None,
            field=first.field if first else None,
        )


class SpecError(_ErrorWithFindings, UsageError):
    """The job file is bad. `findings` holds every fault, not only the first."""

    code = "BadJobFile"


class UnknownModel(UsageError):
    """No model of that name in the catalogue, no such folder."""

    code = "UnknownModel"


class JobNotFound(UsageError):
    """No job has that id, prefix or name."""

    code = "JobNotFound"


class JobStateConflict(UsageError):
    """The job's state does not allow the operation."""

    code = "Conflict"


class CheckFailed(_ErrorWithFindings):
    """`check` found errors; nothing was sent. `findings` holds them all."""

    exit_code = 3
    code = "CheckFailed"


class OverBudget(CloudftError):
    """The estimate is above the job file's budget_usd."""

    exit_code = 6
    code = "OverBudget"


class StoreError(CloudftError):
    """CLOUDFT_HOME can't be read or written: permission, a full or a read-only disk."""

    code = "Store"


class BadDocument(CloudftError):
    """A document that was read back is damaged, or of another version."""

    code = "BadDocument"


class DamagedJob(BadDocument):
    """One job's folder can't be read. The other jobs still list. `job` is the folder's name."""

    code = "DamagedJob"

    def __init__(
        self,
        message: str,
        *,
        job: str | None = None,
        fix: str | None = None,
        file: str | None = None,
        line: int | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(message, fix=fix, file=file, line=line, field=field)
        self.job = job


class TrainerError(CloudftError):
    """The local trainer program could not start, rejected its input, or crashed."""

    code = "Trainer"


class EngineFailed(TrainerError):
    """What answers has ended or ran out of memory: the request itself may be right."""

    code = "EngineFailed"


class RequestRefused(TrainerError):
    """A request that no model here can answer as it is. `field` is that of EngineRequest."""

    code = "RequestRefused"


class PromptTooLong(RequestRefused):
    """A prompt that fills the model's context."""

    code = "PromptTooLong"


class EngineBusy(CloudftError):
    """Too many requests wait for the models on this machine already."""

    code = "EngineBusy"


class CloudRefused(CloudftError):
    """The cloud refused the call: no credentials, no permission, no such bucket or object."""

    exit_code = 4
    code = "AwsRefused"


class CloudUnreachable(CloudftError):
    """The cloud throttles, fails or can't be reached. A retry may succeed."""

    exit_code = 5
    code = "AwsUnreachable"


class ResourceNotFound(CloudRefused):
    """The resource does not exist in the account."""

    code = "AwsNotFound"


class PermissionDenied(CloudRefused):
    """The identity lacks the permission for this call."""

    code = "AwsDenied"


class ResourceConflict(CloudRefused):
    """A name is taken, or the state of the resource does not allow the operation."""

    code = "AwsConflict"


class ClockSkewed(CloudRefused):
    """The clock of this machine differs too much from AWS's, so signatures are rejected."""

    code = "ClockSkewed"


class NoSuchProfile(CloudRefused):
    """The AWS configuration has no profile of that name."""

    code = "NoSuchProfile"


class CredentialsExpired(CloudRefused):
    """The credentials have expired. After a new login, running commands continue."""

    code = "CredentialsExpired"


class QuotaExceeded(CloudUnreachable):
    """A quota of the account is used up for now."""

    code = "AwsQuota"


class StackFailed(CloudftError):
    """A stack could not be created, changed or deleted; the message has the first reason."""

    code = "StackFailed"


class JobFailed(CloudftError):
    """A job ended in Failed (or Stopped) while a command waited for it."""

    code = "JobFailed"


class WaitTimeout(CloudftError):
    """`--wait` ran out of time. The job keeps running."""

    exit_code = 124
    code = "WaitTimeout"
