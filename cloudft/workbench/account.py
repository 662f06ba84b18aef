"""What the account page shows: costs and budgets, what expires, and what `gc` would remove."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from cloudft.account import cleanup
from cloudft.account.cleanup import Garbage, GarbageCriteria, KeptReason
from cloudft.account.expiry import Expiry, list_model_expiries, list_resource_expiries
from cloudft.aws.location_variables import location_from_environ
from cloudft.backends.local.kept_tokens import KeptTokens, find_unused_tokens, remove_tokens
from cloudft.backends.partial_listing import UnreadParts, group_unavailable
from cloudft.backends.resources import CloudResource
from cloudft.errors import CloudftError
from cloudft.jobs.budgets import CostSums, JobCost, cost_of, sum_costs
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord
from cloudft.types import Listing
from cloudft.workbench.job_states import KnownJob
from cloudft.workbench.workbench import Workbench

KEPT_REASONS: dict[KeptReason, str] = {
    "live": "in use: `cloudft gc --live` removes them",
    "another-home": "of jobs that other machines submitted: `cloudft gc --all-homes` removes them",
    "use-unknown": "data that a job may be reading: name it by its id",
    "committed": "bought for a term that has not ended",
}


@dataclass(frozen=True)
class LocalView:
    """What this machine knows without any call: costs of its jobs, model ends, unused tokens."""

    budgets: Sequence[JobCost]
    sums: CostSums
    expiries: Sequence[Expiry]
    tokens: Sequence[KeptTokens]

    @property
    def token_bytes(self) -> int:
        """Return what removing the tokens frees."""
        return sum(one.bytes for one in self.tokens)


@dataclass(frozen=True)
class CloudView:
    """What a look at the account found. `unread` are parts that are unknown, not empty."""

    resources: Sequence[CloudResource]
    unread: Sequence[UnreadParts]
    usd: dict[str, float]
    unpriced: int
    bases: Sequence[tuple[str, str]]
    expiries: Sequence[Expiry]
    garbage: Garbage
    kept: Sequence[tuple[str, int]]

    @property
    def saves(self) -> dict[str, float]:
        """Return what removing the unused resources saves, as far as prices are known."""
        return cleanup.total_usd(self.garbage.removable)

    @property
    def saves_bound(self) -> str:
        """Return `at least ` where the savings lack a price that is unknown, else nothing."""
        is_bound = any(one.usd["perMonth"] is None for one in self.garbage.removable)
        return "at least " if is_bound else ""

    @property
    def is_blind(self) -> bool:
        """Return whether nothing at all could be read."""
        return bool(self.unread) and not self.resources


@dataclass(frozen=True)
class Removal:
    """What a confirmed removal has done: `left` was confirmed, but may not be removed any more."""

    removed: tuple[str, ...]
    left: tuple[str, ...] = ()
    error: CloudftError | None = None


@dataclass
class Removals:
    """The outcomes of removals, for the pages that follow them; the oldest are forgotten."""

    found: dict[str, Removal] = field(default_factory=dict)
    keep: int = 20

    def add(self, removal: Removal) -> str:
        """Keep an outcome and return its key."""
        key = secrets.token_urlsafe(8)
        self.found[key] = removal
        while len(self.found) > self.keep:
            del self.found[next(iter(self.found))]
        return key


def view_local(workbench: Workbench) -> LocalView:
    """Return what is known without waiting for anything but the disk. Raise StoreError."""
    known = [job for job in workbench.jobs.list_jobs() if isinstance(job, KnownJob)]
    costs = [cost_of(job.record, job.state) for job in known]
    budgets = [cost for cost in costs if cost.budget is not None]
    records: list[JobRecord] = [job.record for job in known]
    return LocalView(
        sorted(budgets, key=lambda cost: -(cost.share or 0.0)),
        sum_costs(costs),
        list_model_expiries(records),
        find_unused_tokens(workbench.home),
    )


def look_at_account(home: Home) -> CloudView:
    """Read the account: every resource, its cost, and which of them nothing needs any more."""
    listing = cleanup.list_account(None, home, location_from_environ())
    return _view_account(listing, home)


def _view_account(listing: Listing[CloudResource], home: Home) -> CloudView:
    garbage = cleanup.find_garbage(listing, home, GarbageCriteria())
    resources = listing.items
    reasons = [why for _, why in garbage.kept]
    bases = dict.fromkeys((one.kind, one.basis) for one in resources if one.basis)
    return CloudView(
        resources,
        group_unavailable(listing.unavailable),
        cleanup.total_usd(resources),
        sum(one.usd["perMonth"] is None for one in resources),
        list(bases),
        list_resource_expiries(resources),
        garbage,
        [(KEPT_REASONS[why], reasons.count(why)) for why in KEPT_REASONS if why in reasons],
    )


def remove_confirmed(home: Home, confirmed: Sequence[str]) -> Removal:
    """Remove the resources whose keys were confirmed, as far as nothing needs them now either.

    The account is read again: what has come into use since the confirmation stays.
    """
    location = location_from_environ()
    listing = cleanup.list_account(None, home, location)
    garbage = cleanup.find_garbage(listing, home, GarbageCriteria())
    chosen = [one for one in garbage.removable if resource_key(one) in confirmed]
    removed: list[CloudResource] = []
    error: CloudftError | None = None
    try:
        for resource in cleanup.remove_resources(home, location, chosen):
            removed.append(resource)
    except CloudftError as raised:
        error = raised
    done = {resource_key(one) for one in removed}
    left = tuple(key for key in confirmed if key not in done)
    return Removal(tuple(f"{one.kind} {one.name}" for one in removed), left, error)


def resource_key(resource: CloudResource) -> str:
    """Return what names a resource in a form: its kind and id, in one line."""
    return f"{resource.kind} {resource.id}"


def remove_confirmed_tokens(home: Home, confirmed: Sequence[str]) -> Removal:
    """Remove the tokens whose names were confirmed, as far as no job needs them now either."""
    chosen = [one for one in find_unused_tokens(home) if one.name in confirmed]
    removed: list[str] = []
    error: CloudftError | None = None
    try:
        for tokens in remove_tokens(chosen):
            removed.append(tokens.name)
    except CloudftError as raised:
        error = raised
    left = tuple(name for name in confirmed if name not in removed)
    return Removal(tuple(f"tokens {name}" for name in removed), left, error)
