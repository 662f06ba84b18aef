"""Compare the settings of jobs: job files, hyperparameters in use, data digests, and versions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from cloudft.storage.store import JobRecord

Group = Literal["job file", "hyperparameters", "data", "run"]
GROUPS: tuple[Group, ...] = ("job file", "hyperparameters", "data", "run")
"""The groups of settings, in the order in which they are shown."""
SEED_FIELD = "seed"
DESCRIPTIVE_FIELDS = frozenset({"name", "tags", "budget_usd", "prices", "tracking", "evaluate"})
"""Fields of the job file that change nothing about the model that is trained."""
RUN_FIELDS = (
    *("model", "modelSource", "method", "chatTemplate", "device", "dtype", "trainedParameters"),
    *("maxLength", "processes", "fsdp", "packed", "adapters"),
)
"""What of a trainer's summary is a setting; the rest are results."""
MAX_ITEMS = 20
"""Items of a list that are compared one by one; a longer list is one value."""


@dataclass(frozen=True)
class SettingRow:
    """One setting of all jobs: `values` are in their order, None where a job does not have it."""

    group: Group
    name: str
    values: tuple[Any, ...]

    @property
    def differs(self) -> bool:
        """Return whether the jobs do not all have the same value. 1 and 1.0 are the same."""
        return any(value != self.values[0] for value in self.values[1:])


def compare_settings(
    records: Sequence[JobRecord], summaries: Sequence[Mapping[str, Any]] = ()
) -> list[SettingRow]:
    """Return every setting that one of the jobs has, by group and in the order of the job file.

    `summaries` are what the trainers wrote of their runs (JobState.summary): model, device, dtype.
    """
    padded = [*summaries, *({} for _ in records)][: len(records)]
    settings = [dict(_settings(*pair)) for pair in zip(records, padded, strict=True)]
    rows = [
        SettingRow(group, name, tuple(one.get((group, name)) for one in settings))
        for group, name in dict.fromkeys(key for one in settings for key in one)
    ]
    return sorted(rows, key=lambda row: GROUPS.index(row.group))


def group_repeats(records: Sequence[JobRecord]) -> list[list[JobRecord]]:
    """Return the jobs that differ in nothing but their seed together, in their order.

    A job without a repeat is a group of one.
    """
    groups: dict[str, list[JobRecord]] = {}
    for record in records:
        groups.setdefault(_digest_without_seed(record), []).append(record)
    return list(groups.values())


def _digest_without_seed(record: JobRecord) -> str:
    ignored = DESCRIPTIVE_FIELDS | {SEED_FIELD}
    spec = {name: value for name, value in record.spec.items() if name not in ignored}
    hyper = {name: value for name, value in record.hyper_parameters.items() if name != SEED_FIELD}
    # The data's digest is left out: the seed decides which records are held out.
    sources = sorted(
        (one.get("role", ""), one.get("sha256", ""), one.get("path", ""))
        for one in record.manifest.get("sources", ())
    )
    identity = [record.backend, record.base_model, record.customization_type, spec, hyper, sources]
    content = orjson.dumps(identity, option=orjson.OPT_SORT_KEYS, default=str)
    return hashlib.sha256(content).hexdigest()


def _settings(
    record: JobRecord, summary: Mapping[str, Any]
) -> Iterator[tuple[tuple[Group, str], Any]]:
    """Yield group, name and value of each setting of a job."""
    resolved = {
        "backend": record.backend,
        "base_model": record.base_model,
        "customization_type": record.customization_type,
    }
    spec = {**record.spec, **resolved}
    stated = spec.pop("hyperparameters", None) or {}
    for name, value in iter_leaves(spec):
        yield ("job file", name), value
    for name, value in iter_leaves({**stated, **record.hyper_parameters}):
        yield ("hyperparameters", name), value
    for name, value in _data_settings(record.manifest):
        yield ("data", name), value
    weights = (record.request.get("model") or {}).get("weights")
    run = {name: summary.get(name) for name in RUN_FIELDS}
    for name, value in iter_leaves({"weights": weights, **run}):
        yield ("run", name), value


def _data_settings(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what identifies the staged data: digests, records and tokens of each set."""
    for name in ("format", "tokenRule", "sha256"):
        if manifest.get(name) is not None:
            yield name, manifest[name]
    for role, file in manifest.get("files", {}).items():
        for name in ("records", "tokens", "sha256"):
            if file.get(name) is not None:
                yield f"{role}.{name}", file[name]


def iter_leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted names and values of nested mappings and lists; nothing for what is unset.

    A list of mappings has numbers in its names, from 1; any other list is one value.
    """
    for name, inner in value.items():
        dotted = f"{prefix}{name}"
        if isinstance(inner, Mapping):
            yield from iter_leaves(inner, f"{dotted}.")
        elif _is_list_of_mappings(inner):
            numbered = {str(number): one for number, one in enumerate(inner, 1)}
            yield from iter_leaves(numbered, f"{dotted}.")
        elif inner is not None and inner != [] and inner != ():
            yield dotted, inner


def _is_list_of_mappings(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and 0 < len(value) <= MAX_ITEMS
        and all(isinstance(one, Mapping) for one in value)
    )
