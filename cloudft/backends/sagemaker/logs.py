"""Read a job's log in CloudWatch Logs: lines for people, and the trainer's points and states.

Only the first instance's streams are read: its trainer reports for all. A job that was resumed, or
whose spot instance was replaced, has several streams, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudft.aws.client import Aws
from cloudft.backends import trainer_documents as documents
from cloudft.errors import BadDocument, PermissionDenied, ResourceNotFound
from cloudft.types import LogLine, Metric

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
LINE_MARKER = "#cloudft "
"""Prefix of the trainer's protocol lines (local_backend/sagemaker.py; a test compares the two).

It may follow the beginning of another line: several processes write to one log."""
FIRST_HOST_INFIX = "/algo-1-"
"""Precedes the time at the end of a stream's name. Without the last hyphen, algo-10 matches too.
Source: SageMaker developer guide, "Amazon CloudWatch Logs for Amazon SageMaker AI"."""
TAIL_EVENTS = 200
"""How many of the newest events are searched for the trainer's newest state."""


@dataclass(frozen=True)
class Event:
    """One event of a log stream.

    `cursor` is the stream's position, the time in ms, and the event's position among those of that
    time.
    """

    stream: int
    time: int
    number: int
    text: str

    @property
    def cursor(self) -> str:
        """Return what `iter_log_lines(after=...)` takes."""
        return f"{self.stream}:{self.time}:{self.number}"


def iter_log_lines(aws: Aws, names: Sequence[str], after: str | None = None) -> Iterator[LogLine]:
    """Yield the lines for people, of these training jobs in order, behind the cursor `after`."""
    for event in iter_events(aws, names, after):
        text, mark, _ = event.text.partition(LINE_MARKER)
        if text or not mark:
            yield LogLine(event.cursor, text)


def iter_events(aws: Aws, names: Sequence[str], after: str | None = None) -> Iterator[Event]:
    """Yield every event; none where there is no log yet."""
    start, time, number = (int(part) for part in (after or "0:0:-1").split(":"))
    for position, stream in enumerate(list_streams(aws, names)):
        if position < start:
            continue
        since, known = (time, number) if position == start else (0, -1)
        for event in _iter_stream_events(aws, position, stream, since):
            if event.time > since or event.number > known:
                yield event


def list_streams(aws: Aws, names: Sequence[str]) -> list[str]:
    """Return the log streams of the first instance of each job, oldest first."""
    names_found: list[str] = []
    for name in names:
        what = f"the log of {name} can't be read"
        parameters = {"logGroupName": LOG_GROUP, "logStreamNamePrefix": f"{name}{FIRST_HOST_INFIX}"}
        try:
            listed = list(
                aws.paginate(what, "logs", "describe_log_streams", "logStreams", **parameters)
            )
        except ResourceNotFound:  # nothing was ever logged here
            continue
        listed.sort(key=lambda stream: (stream.get("creationTime", 0), stream["logStreamName"]))
        names_found += [stream["logStreamName"] for stream in listed]
    return names_found


def _iter_stream_events(aws: Aws, position: int, stream: str, since: int) -> Iterator[Event]:
    token: dict[str, str] = {}
    time, number = -1, -1
    while True:
        answer = _get_events(aws, stream, startFromHead=True, startTime=since, **token)
        for event in answer["events"]:
            number = number + 1 if event["timestamp"] == time else 0
            time = event["timestamp"]
            yield Event(position, time, number, event["message"].rstrip("\n"))
        following = answer.get("nextForwardToken")
        if not following or following == token.get("nextToken"):
            return
        token = {"nextToken": following}


def _get_events(aws: Aws, stream: str, **how: Any) -> Mapping[str, Any]:
    what = f"the log {stream} can't be read"
    return aws.call(
        what, "logs", "get_log_events", logGroupName=LOG_GROUP, logStreamName=stream, **how
    )


def read_newest_state(aws: Aws, name: str) -> documents.TrainerState | None:
    """Return the trainer's newest state; None before there is one, or where reading is denied."""
    try:
        stream_names = list_streams(aws, [name])
        if not stream_names:
            return None
        page = _get_events(aws, stream_names[-1], startFromHead=False, limit=TAIL_EVENTS)
    except (ResourceNotFound, PermissionDenied):
        return None
    for event in reversed(page["events"]):
        content = extract_marked(event["message"], "state")
        if content is not None:
            try:
                return documents.parse_state(content, name)
            except BadDocument:  # a line that was cut, or that is not the trainer's
                continue
    return None


def extract_marked(text: str, kind: str) -> str | None:
    """Return the JSON of a line of the trainer's protocol; None for any other line."""
    _, mark, content = text.partition(f"{LINE_MARKER}{kind} ")
    return content if mark else None


def read_metrics(aws: Aws, names: Sequence[str]) -> list[Metric]:
    """Return the curve, by step. A point that a resumed run repeats replaces what followed it."""
    curves: dict[tuple[str, str], dict[int, Metric]] = {}
    for event in iter_events(aws, names):
        content = extract_marked(event.text, "metric")
        if content is None:
            continue
        try:
            point = documents.parse_metric(content, "the log")
        except BadDocument:  # a line that was cut, or that is not the trainer's
            continue
        curve = curves.setdefault((point.split, point.validation_set or ""), {})
        for step in [step for step in curve if step >= point.step]:
            del curve[step]
        curve[point.step] = point
    points = [point for curve in curves.values() for point in curve.values()]
    return sorted(points, key=lambda p: (p.step, p.split, p.validation_set or ""))
