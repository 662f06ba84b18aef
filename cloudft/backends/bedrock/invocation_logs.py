"""Invocation logs as a job's training data: read them to say what the job will train on.

Bedrock itself reads the logs where they are; nothing is downloaded for the job. What is read here
is read once for a check or an estimate, and kept nowhere.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cloudft.aws.aws_cli import aws_cli_command
from cloudft.aws.client import Aws
from cloudft.aws.s3 import list_objects, read_object, s3_uri, split_s3_uri
from cloudft.backends.aws_base.account_checks import MakeFinding
from cloudft.backends.bedrock.account_helpers import bucket_parameters
from cloudft.data.checks.check import DataReport
from cloudft.data.checks.dataset_limits import DatasetLimits
from cloudft.data.checks.record_counter import RecordCounter
from cloudft.data.formats.record import BadRecord
from cloudft.data.invocation_logs import (
    LOG_KEY,
    OTHER_METADATA,
    LogCounts,
    Selection,
    select_records,
)
from cloudft.data.token_estimate import estimate_tokens
from cloudft.spec.invocation_logs import InvocationLogs
from cloudft.spec.load import LoadedJob
from cloudft.types import DataVolume, Finding

LOGS = "data.invocation_logs"
"""The job file's field."""
LOGGED_TYPES = ("DISTILLATION", "REINFORCEMENT_FINE_TUNING")
"""Customization types that Bedrock trains from logs. Source: Bedrock user guide, "Customize a model
with distillation" and "Prepare data for reinforcement fine-tuning"."""
MAX_BYTES = 64 * 1024 * 1024
"""Compressed bytes that are read; of more, an even sample of the files."""
READ_AT_ONCE = 16
"""Objects that are read in parallel."""


@dataclass(frozen=True)
class _LogFiles:
    """The log files to read. `share` is how much of all bytes they are."""

    keys: Sequence[str]
    total: int
    share: float


def check_type(job: LoadedJob, finding: MakeFinding) -> Iterator[Finding]:
    """Yield a finding for a customization type that can't train on logs."""
    kind = job.spec.customization_type
    if job.spec.data.invocation_logs is not None and kind not in LOGGED_TYPES:
        message = f"Bedrock trains {' and '.join(LOGGED_TYPES)} on invocation logs, not {kind}"
        fix = (
            f"set customization_type: {LOGGED_TYPES[0]}; or bring the logs here and name them as"
            " data.train."
        )
        yield finding("LogsNotSupported", LOGS, message, fix)


def check_logging(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    """Yield a finding where calls are not logged to the place that the job reads."""
    logs = job.spec.data.invocation_logs
    if logs is None:
        return
    failure = "the configuration of invocation logging can't be read"
    operation = "get_model_invocation_logging_configuration"
    config = aws.call(failure, "bedrock", operation).get("loggingConfig") or {}
    s3_config = config.get("s3Config")
    if s3_config is None or config.get("textDataDeliveryEnabled") is False:
        what = "S3" if s3_config is None else "texts"
        message = f"invocation logging to {what} is off in this Region: no new logs are added"
        fix = "leave it if the logs are complete; else turn it on in Bedrock's settings."
        yield finding("LoggingOff", LOGS, message, fix, "warning")
        return
    prefix = str(s3_config.get("keyPrefix") or "").strip("/")
    own = f"{s3_uri(s3_config['bucketName'], prefix).rstrip('/')}/"
    named = f"{logs.s3_uri.rstrip('/')}/"
    if not named.startswith(own) and not own.startswith(named):
        message = f"calls in this Region are logged to {own}, and the job reads {logs.s3_uri}"
        fix = f"correct {LOGS}.s3_uri, or leave it if these are the logs you mean."
        yield finding("OtherLogs", LOGS, message, fix, "warning")


def read_logs(
    job: LoadedJob,
    aws: Aws,
    finding: MakeFinding,
    limits: DatasetLimits,
    progress: Callable[[int], None],
) -> DataReport:
    """Return what the job trains on of its logs. Raise CloudRefused and CloudUnreachable."""
    logs = job.spec.data.invocation_logs
    assert logs is not None
    files = _list_logs(job, aws, logs)
    if not files.keys:
        listing = aws_cli_command(aws, "s3", "ls", logs.s3_uri)
        message = f"there are no invocation logs at {logs.s3_uri}"
        fix = f"`{listing}` lists what is there; AWS's logs end in .json.gz."
        return DataReport((finding("NoLogs", LOGS, message, fix),), None)
    counts, violations = LogCounts(), _Violations()
    counter = RecordCounter("distillation")
    bucket = split_s3_uri(logs.s3_uri)[0]
    for key, content in _read(files.keys, aws, bucket_parameters(job, bucket)):
        selected = select_records(io.BytesIO(content), key, selection_of(job, logs), counts)
        for record in selected:
            try:
                counter.add_record(record)
            except BadRecord as bad:  # converted by Bedrock itself, in a way that is not published
                violations.add(bad.code, bad.message)
            for violation in limits.check_record(record):
                violations.add(violation.code, violation.message)
        progress(counts.read)
    volume = _scale(counter.estimate_volume(), files.share)
    findings = [
        *_describe(logs, files, counts, volume, finding),
        *violations.findings(finding),
        *_check_counts(limits, volume, counts, finding),
    ]
    has_errors = any(one.severity == "error" for one in findings)
    return DataReport(tuple(findings), None if has_errors else {"train": volume})


def selection_of(job: LoadedJob, logs: InvocationLogs) -> Selection:
    """Return what the job uses of its logs."""
    distillation = job.spec.distillation
    teacher = None if distillation is None else distillation.teacher
    filters = None if logs.filters is None else logs.filters.to_api()
    return Selection(filters, logs.use_prompt_response, teacher)


def _list_logs(job: LoadedJob, aws: Aws, logs: InvocationLogs) -> _LogFiles:
    """List the log files, and choose an even sample of them where they are large."""
    bucket, prefix = split_s3_uri(logs.s3_uri)
    objects = list_objects(aws, bucket_parameters(job, bucket), prefix)
    found = [(key, size) for key, size in objects if size and LOG_KEY.fullmatch(key)]
    total = sum(size for _, size in found)
    step = max(1, -(-total // MAX_BYTES))
    chosen = found[::step]
    share = sum(size for _, size in chosen) / total if total else 1.0
    return _LogFiles([key for key, _ in chosen], len(found), share)


def _read(keys: Sequence[str], aws: Aws, bucket: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    """Yield each file's name and content, in order, some of them read at once."""
    aws.client("s3")  # made here: the threads share it
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        for start in range(0, len(keys), READ_AT_ONCE):
            part = keys[start : start + READ_AT_ONCE]
            yield from zip(part, pool.map(lambda k: read_object(aws, bucket, k), part), strict=True)


def _scale(volume: DataVolume, share: float) -> DataVolume:
    """Return the volume of all files, from that of a share of them."""
    if share >= 1:
        return volume
    characters = round(volume.characters / share)
    return DataVolume(round(volume.records / share), characters, estimate_tokens(characters))


def _describe(
    logs: InvocationLogs,
    files: _LogFiles,
    counts: LogCounts,
    volume: DataVolume,
    finding: MakeFinding,
) -> Iterator[Finding]:
    """Yield what was read, what of it is used, and why the rest is not."""
    what = "prompts with their answers" if logs.use_prompt_response else "prompts"
    read = f"{len(files.keys)} of {files.total}" if files.share < 1 else f"{files.total}"
    message = f"{counts.used} of {counts.read} log records in {read} files are used, as {what}"
    if files.share < 1:
        message += f"; about {volume.records} in all files"
    yield finding("LogsRead", LOGS, message, "", "note")
    for reason, sentence in zip(
        dict(counts.ignored.most_common()), counts.describe_ignored(), strict=True
    ):
        is_meant = reason == OTHER_METADATA
        fix = "" if is_meant else "leave it if the job does not need them."
        yield finding("LogsIgnored", LOGS, sentence, fix, "note" if is_meant else "warning")
    if counts.cut:
        what = "1 answer was" if counts.cut == 1 else f"{counts.cut} answers were"
        message = f"{what} cut at their token limit: the student learns to stop"
        fix = "raise maxTokens in the calls that you log, or mark such calls in their metadata."
        yield finding("LogsCut", LOGS, f"{message} there", fix, "warning")
    if counts.by_profile:
        message = (
            f"{counts.by_profile} answers are of the teacher by another id of it (a profile or an"
            " ARN): AWS does not say whether it takes these"
        )
        fix = "set distillation.teacher to the id that is in the logs."
        yield finding("LogsByProfile", LOGS, message, fix, "warning")


def _check_counts(
    limits: DatasetLimits, volume: DataVolume, counts: LogCounts, finding: MakeFinding
) -> Iterator[Finding]:
    if not counts.used:
        models = ", ".join(f"{m} ({n})" for m, n in counts.models.most_common(3))
        message = f"none of {counts.read} log records can be used; the models in them: {models}"
        fix = "correct the filters, distillation.teacher or s3_uri."
        yield finding("NoRecords", LOGS, message, fix)
        return
    for violation in limits.check_dataset({"train": volume}):
        message, fix = violation.message, violation.fix
        yield finding(violation.code, LOGS, message, fix, violation.severity)


class _Violations:
    """Records beyond the base model's limits: how many of each kind, and the first one."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, code: str, message: str) -> None:
        """Count one."""
        count, first = self._found.get(code, (0, message))
        self._found[code] = (count + 1, first)

    def findings(self, finding: MakeFinding) -> Iterator[Finding]:
        """Yield a warning for each kind: Bedrock leaves out the records that it can't use."""
        for code, (count, first) in self._found.items():
            message = f"{count} of the log records are beyond a limit of the model: {first}"
            fix = "leave it if the job does not need them: Bedrock leaves such records out."
            yield finding(code, LOGS, message, fix, "warning")
