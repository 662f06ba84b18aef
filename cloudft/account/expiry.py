"""What ends by itself: deployments, commitments, files, and base models at their end of life."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from cloudft.backends.resources import CloudResource
from cloudft.catalogue import find_catalogue_model
from cloudft.storage.store import JobRecord

DEPLOYED_KINDS = frozenset({"deployment", "provisioned-throughput"})


@dataclass(frozen=True)
class Expiry:
    """One end: `at` is ISO 8601, a time or a day; `effect` is what is true from then on.

    `source` is where a date comes from that is not the account's own.
    """

    at: str
    what: str
    effect: str
    is_over: bool
    source: str = ""


def list_resource_expiries(
    resources: Iterable[CloudResource], now: datetime | None = None
) -> list[Expiry]:
    """Return the ends of resources in the account, the next one first."""
    now = now or datetime.now(timezone.utc)
    found = [one for resource in resources for one in _resource_expiries(resource, now)]
    return sorted(found, key=lambda one: one.at)


def _resource_expiries(resource: CloudResource, now: datetime) -> Iterator[Expiry]:
    name = f"{resource.kind} {resource.name}"
    ends = _parse_time(resource.expires_at)
    if ends is not None:
        removes = resource.kind in DEPLOYED_KINDS
        effect = "gc removes it; until then it is billed" if removes else "gc removes it"
        yield Expiry(ends.isoformat(), name, effect, ends <= now)
    committed = _parse_time(resource.committed_until)
    if committed is not None:
        effect = f"its commitment ({resource.commitment}) ends, and it can be removed"
        yield Expiry(committed.isoformat(), name, effect, committed <= now)


def _parse_time(text: str | None) -> datetime | None:
    """Return a time in UTC; None for a tag, which anybody may have written, that is no time."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment.astimezone(timezone.utc) if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def list_model_expiries(records: Sequence[JobRecord], now: datetime | None = None) -> list[Expiry]:
    """Return the ends of base models that jobs use, as the catalogue knows them; no call is made.

    A model without a date, or that is active without one, is not in the list.
    """
    today = (now or datetime.now(timezone.utc)).date().isoformat()
    jobs: dict[str, int] = {}
    for record in records:
        jobs[record.base_model] = jobs.get(record.base_model, 0) + 1
    found = []
    for name, count in jobs.items():
        model = find_catalogue_model(name)
        if model is None:
            continue
        users = f"base of {count} {'job' if count == 1 else 'jobs'}"
        life = model.lifecycle
        steps = ((life.legacy, "Legacy: it takes no new job"), (life.date, "end of life on AWS"))
        for day, effect in steps:
            if day is not None:
                is_over = day <= today
                text = f"{effect}; {users}"
                found.append(Expiry(day, f"model {model.alias}", text, is_over, str(life.source)))
    return sorted(found, key=lambda one: one.at)
