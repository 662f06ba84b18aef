"""Create and update what serves a job's model, after showing what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from cloudft.cli.number_format import format_local_time, format_usd
from cloudft.cli.options import Console, aws_location
from cloudft.errors import JobNotFound, OverBudget, UsageError

if TYPE_CHECKING:
    from cloudft.backends.base import Backend
    from cloudft.backends.capabilities import SupportsServing, SupportsServingUpdate
    from cloudft.backends.resources import (
        CloudResource,
        Commitment,
        ServingPlan,
        ServingUpdatePlan,
    )
    from cloudft.storage.store import JobRecord


@dataclass(frozen=True)
class DeployOptions:
    """The options of `cloudft deploy`, as they were given."""

    reference: str | None
    update: str | None
    rollback: str | None
    provisioned: bool
    units: int
    commitment: str | None
    max_cost: float | None
    ttl: float | None
    dry_run: bool
    yes: bool


def require_serving(record: JobRecord, backend: Backend) -> SupportsServing:
    """Return the backend if it can serve models. Raise UsageError if it can't."""
    from cloudft.backends.capabilities import SupportsServing

    if not isinstance(backend, SupportsServing):
        raise _not_served_error(record, backend)
    return backend


def _not_served_error(record: JobRecord, backend: Backend) -> UsageError:
    from cloudft.backends.capabilities import SupportsExport

    fix = f"`cloudft generate {record.id}` sends it prompts"
    if isinstance(backend, SupportsExport):
        fix += f"; `cloudft import {record.id}` imports it into Bedrock, which serves it"
    return UsageError(
        f"the model of a job on {record.backend} is not served by a deployment", fix=f"{fix}."
    )


def create_deployment(options: DeployOptions, console: Console) -> int:
    """Deploy a job's model, or renew the time to live of its deployment."""
    from cloudft.cli.jobs import open_job
    from cloudft.cli.output import json_text
    from cloudft.types import to_json

    record, backend, _ = open_job(str(options.reference))
    server = require_serving(record, backend)
    plan = server.plan_serving(
        record.backend_job_id or record.id,
        provisioned=options.provisioned,
        units=options.units,
        hours=options.ttl,
        commitment=options.commitment,
    )
    summary = _plan_text(plan)
    if options.dry_run:
        call = plan.renewal if plan.existing is not None else plan.call
        # JSON keeps the key `stands`, which scripts read, for what serves the model already.
        content = to_json(plan)
        content["stands"] = content.pop("existing")
        console.print_result(content, f"{json_text(call)}\n{summary}" if call else summary)
        return 0
    if plan.commitment is not None and plan.existing is None:
        _check_commitment(plan.commitment, options)
    if not options.yes and (plan.existing is None or plan.renewal is not None):
        question = "create it?" if plan.existing is None else "renew it?"
        click.confirm(f"{summary}\n{question}", abort=True, err=True)
    creating = "creating it; Ctrl-C detaches, and the creation continues ..."
    console.note(f"{summary}\n{creating}" if plan.existing is None else summary)
    resource = server.deploy(plan)
    until = f"  expires {format_local_time(resource.expires_at)}" if resource.expires_at else ""
    console.print_result(resource, f"{resource.id}  {resource.status}{until}")
    return 0


def _check_commitment(commitment: Commitment, options: DeployOptions) -> None:
    """Raise UsageError where a term would be bought without a look at its price.

    Raise OverBudget for one above --max-cost, or whose price is not known.
    """
    if options.max_cost is None:
        if options.yes:
            total = "an unknown price" if commitment.usd is None else format_usd(commitment.usd)
            raise UsageError(
                f"--yes alone does not buy a commitment: the term costs {total}, and can't be"
                " canceled",
                fix="add --max-cost USD, or confirm it without --yes.",
            )
        return
    if commitment.usd is None:
        raise OverBudget(
            "--max-cost can't be kept: no price of this commitment is known",
            fix="state the price in prices.yaml of CLOUDFT_HOME, or confirm it without --max-cost.",
        )
    if commitment.usd > options.max_cost:
        raise OverBudget(
            f"the term costs {format_usd(commitment.usd)}, above --max-cost"
            f" {format_usd(options.max_cost)}",
            fix="set a higher --max-cost, fewer --units or a shorter --commitment.",
        )


def _plan_text(plan: ServingPlan) -> str:
    hour, month = plan.usd["perHour"], plan.usd["perMonth"]
    rest = ", and tokens by use" if plan.kind == "on-demand" else " until it is removed"
    costs = (
        f"{plan.kind} {plan.name}: {format_usd(hour)} per hour, {format_usd(month)} per month{rest}"
    )
    if plan.existing is not None:
        return f"{costs}\n{_expiry_text(plan, plan.existing)}"
    return f"{costs}\n{_commitment_text(plan.commitment)}" if plan.commitment else costs


def _commitment_text(commitment: Commitment) -> str:
    """Return what the term costs and when it ends.

    Source of the renewal: Bedrock user guide, "Delete a Provisioned Throughput", 2026-10.
    """
    return (
        f"commitment {commitment.duration}: {format_usd(commitment.usd)} for the whole term, used"
        f" or not, until about {format_local_time(commitment.ends_at)}; it can't be removed before,"
        " and AWS renews it unless it is removed then"
    )


def _expiry_text(plan: ServingPlan, existing: CloudResource) -> str:
    """Return when the existing deployment expires, and whether this command changes that."""
    expires_at = existing.expires_at
    now = f"expires {format_local_time(expires_at)}" if expires_at else "never expires"
    if plan.renewal is None:
        return f"it exists already and {now}; --ttl HOURS changes that"
    return f"it exists already and {now}; renewed until {format_local_time(plan.expires_at)}"


def update_deployment(options: DeployOptions, console: Console) -> int:
    """Put the job's model behind a deployment, or put back the model of before."""
    from cloudft.cli.output import json_text

    if options.update is not None:
        server, plan = _plan_update(str(options.reference), options.update)
    else:
        server, plan = _plan_rollback(str(options.rollback))
    summary = _update_text(plan)
    if options.dry_run:
        text = "\n".join(json_text(call) for call in plan.calls)
        console.print_result(plan, f"{text}\n{summary}" if text else summary)
        return 0
    if plan.calls and not options.yes:
        click.confirm(f"{summary}\nupdate it?", abort=True, err=True)
    waiting = "updating it; Ctrl-C detaches, and the update continues ..."
    console.note(f"{summary}\n{waiting}" if plan.calls else summary)
    resource = server.update_serving(plan)
    console.print_result(resource, f"{resource.id}  {resource.status}  serves {plan.to_job}")
    return 0


def _plan_update(
    reference: str, deployment: str
) -> tuple[SupportsServingUpdate, ServingUpdatePlan]:
    from cloudft.backends.capabilities import SupportsServingUpdate
    from cloudft.cli.jobs import open_job

    record, backend, _ = open_job(reference)
    if not isinstance(backend, SupportsServingUpdate):
        raise _not_served_error(record, backend)
    job_id = record.backend_job_id or record.id
    return backend, backend.plan_update(job_id, deployment, _job_ids(deployment))


def _plan_rollback(deployment: str) -> tuple[SupportsServingUpdate, ServingUpdatePlan]:
    """Return the plan, in the account of the job that is named, else where the flags lead."""
    from cloudft.backends import make_backend
    from cloudft.backends.capabilities import SupportsServingUpdate
    from cloudft.cli.jobs import open_job
    from cloudft.storage.home import Home

    try:
        record, backend, _ = open_job(deployment)
    except JobNotFound:
        backend = make_backend("bedrock", Home.from_environ()).bind(aws_location())
    else:
        if not isinstance(backend, SupportsServingUpdate):
            raise _not_served_error(record, backend)
    assert isinstance(backend, SupportsServingUpdate)
    return backend, backend.plan_rollback(deployment, _job_ids(deployment))


def _job_ids(reference: str) -> set[str]:
    """Return the ids of the jobs that a deployment may be named by: any id, or one of this home."""
    from cloudft.storage.home import Home
    from cloudft.storage.store import Store

    try:
        return {reference, Store(Home.from_environ().jobs).find_by_reference(reference).id}
    except UsageError:  # no job of this home, or several
        return {reference}


def _update_text(plan: ServingUpdatePlan) -> str:
    resource = plan.resource
    what = f"{resource.kind} {resource.name}"
    if not plan.calls or plan.from_model == plan.to_model:
        return f"{what} serves the model of {plan.to_job} already"
    price = "tokens by use, as before"
    if resource.kind != "deployment":
        price = f"{format_usd(resource.usd['perHour'])} per hour, as before"
    expires = resource.expires_at
    life = f"expires {format_local_time(expires)}, as before" if expires else "never expires"
    return (
        f"{what} ({resource.id})\n"
        f"  now   {plan.from_job} ({plan.from_model})\n"
        f"  then  {plan.to_job} ({plan.to_model})\n"
        f"  {price}; {life}"
    )
