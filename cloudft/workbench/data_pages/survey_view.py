"""Describe what a survey found for a page: every line that it names is a link to its record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudft.evaluate.report.histogram_svg import draw_histogram
from cloudft.jobs.data_survey import RepeatedRecords, Survey
from cloudft.workbench.data_pages.choices import DataFile, DataSet
from cloudft.workbench.data_pages.records import ShownRecord

if TYPE_CHECKING:
    from markupsafe import Markup

MAX_LABELS = 50
LEVELS = {"error": "bad", "warning": "warning", "note": "soft"}


@dataclass(frozen=True)
class RecordLink:
    """A line of a file. `query` is that of its record's page, "" for a file that is not shown."""

    name: str
    query: str


@dataclass(frozen=True)
class FindingView:
    """A finding, where it is, and the records of its kind."""

    level: str
    severity: str
    code: str
    message: str
    fix: str
    field: str
    link: RecordLink | None
    all_query: str


@dataclass(frozen=True)
class PairView:
    """Two records that have to do with one another; `similarity` is 1.0 for the very same texts."""

    record: RecordLink
    other: RecordLink
    kind: str = ""
    similarity: float = 1.0


@dataclass(frozen=True)
class RoleView:
    """What was found in the files of one role.

    `repeated` records repeat an earlier one, `near` of them not to the letter.
    """

    role: str
    stats: Mapping[str, Any]
    histogram: Markup | None
    labels: list[tuple[str, int, str]]
    most: int
    repeated: int
    near: int
    duplicate_pairs: list[PairView]
    conflicts: list[PairView]
    leaks: RepeatedRecords | None
    leak_pairs: list[PairView]


@dataclass(frozen=True)
class SurveyView:
    """A survey as a page shows it."""

    roles: list[RoleView]
    findings: list[FindingView]
    notes: Sequence[str]


def view_survey(data: DataSet, survey: Survey) -> SurveyView:
    """Return the view of a survey of this data."""
    viewer = _Viewer(data)
    roles = [viewer.role(survey, role, number) for number, role in enumerate(survey.stats)]
    return SurveyView(roles, list(viewer.findings(survey.findings, survey)), survey.notes)


def finding_lines(survey: Survey, file: DataFile, code: str) -> list[int]:
    """Return the lines of a file that findings of one code name, in order."""
    lines = {
        one["line"]
        for one in survey.findings
        if one["code"] == code and one["file"] == file.name and one["line"]
    }
    return sorted(lines)


def findings_at(
    data: DataSet, survey: Survey, file: DataFile, shown: ShownRecord
) -> list[FindingView]:
    """Return what a survey found at the line of a record, without what reading it says anyway."""
    known = {finding.code for finding in shown.findings}
    here = [
        one
        for one in survey.findings
        if one["file"] == file.name and one["line"] == shown.line and one["code"] not in known
    ]
    return list(_Viewer(data).findings(here, survey))


class _Viewer:
    """Turns names of files into links."""

    def __init__(self, data: DataSet) -> None:
        self._files = {file.name: file for file in data.files}

    def role(self, survey: Survey, role: str, number: int) -> RoleView:
        stats = survey.stats[role]
        labels = stats["labels"] or {}
        first = next((file for file in self._files.values() if file.role == role), None)
        repeats = survey.duplicates.get(role, RepeatedRecords())
        leaks = survey.leaks.get(role)
        return RoleView(
            role,
            stats,
            _histogram(stats["tokens"], number),
            [
                (label, count, first.parameters(label=label) if first else "")
                for label, count in list(labels.items())[:MAX_LABELS]
            ],
            max(labels.values(), default=0),
            repeats.count,
            max(0, repeats.count - stats["duplicates"]),
            [self._pair(one) for one in repeats.first],
            [self._pair(one) for one in stats["conflicts"]["first"]],
            leaks,
            [self._leak(one) for one in leaks.first] if leaks else [],
        )

    def findings(
        self, findings: Iterable[Mapping[str, Any]], survey: Survey
    ) -> Iterator[FindingView]:
        for one in findings:
            file = self._files.get(one["file"] or "")
            link = self._link(one["file"], one["line"]) if one["file"] else None
            several = file is not None and len(finding_lines(survey, file, one["code"])) > 1
            yield FindingView(
                LEVELS[one["severity"]],
                one["severity"],
                one["code"],
                one["message"],
                one["fix"] or "",
                one["field"] or "",
                link,
                file.parameters(code=one["code"]) if file is not None and several else "",
            )

    def _pair(self, one: Mapping[str, Any]) -> PairView:
        record = self._link(one["file"], one["line"])
        other = self._link(one["ofFile"], one["ofLine"])
        return PairView(record, other, similarity=one.get("similarity", 1.0))

    def _leak(self, one: Mapping[str, Any]) -> PairView:
        record = self._link(one["file"], one["line"])
        other = self._link(one["trainFile"], one["trainLine"])
        return PairView(record, other, one["kind"], one["similarity"])

    def _link(self, name: str, line: int | None) -> RecordLink:
        file = self._files.get(name)
        shown = name if line is None else f"{name}:{line}"
        if file is None or line is None:
            return RecordLink(shown, "")
        return RecordLink(shown, file.parameters(line=line))


def _histogram(tokens: Mapping[str, Any], number: int) -> Markup | None:
    from markupsafe import Markup

    histogram = tokens.get("histogram")
    if not histogram:
        return None
    edges, counts = histogram["edges"], histogram["records"]
    # Safe without escaping: the drawing is made of numbers only.
    return Markup(draw_histogram(edges, counts, tokens["limit"], number))
