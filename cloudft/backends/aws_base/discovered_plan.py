"""Parse the plan of a job that another machine submitted, trusting as little of it as possible.

The plan lies in a bucket that others may write to. So a plan chooses no path, no location and no
identity here: the accepted fields are typed, a name is checked by the rule that creates names, and
the plan is compared with the markers that the job itself carries, which only its submitter could
set: its id, its token, and the plan's digest. A job of a cloudft that wrote no digest is accepted
by the other two.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import orjson

from cloudft import catalogue
from cloudft.backends.capabilities import DiscoveredJob
from cloudft.backends.trainer_documents import TrainerSettings
from cloudft.data.staging.manifest import parse_manifest
from cloudft.errors import (
    BadDocument,
    CloudRefused,
    CredentialsExpired,
    DamagedJob,
    JobNotFound,
    ResourceNotFound,
)
from cloudft.spec.serialize import find_first_fault
from cloudft.storage.documents import Count, decode
from cloudft.types import Manifest, is_job_id, job_id, to_json

SUPPORTED_VERSIONS = (1,)
MAX_PLAN_BYTES = 32 * 1024 * 1024
"""The largest plan in bytes. One with 10,000 source files has some 3 million."""
REMOTE_PATH = "<a folder of another machine>"
"""Stands for a path of another machine: no model has that name."""
PATH_FIELDS = {
    "data": ("train", "validation", "test", "mix"),
    "evaluate": ("general", "documents"),
    "local": ("model",),
}
"""Fields of a job file that may be paths on the machine that submitted it."""
MACHINE_FIELDS = ("baseModel", "model", "data", "device", "processes", "fsdp")
"""Fields of the trainer's job.json that are rebuilt for this machine."""
KEPT_FIELDS: Mapping[str, tuple[str, ...] | None] = {
    "hyperparameters": None,
    "early_stopping": None,
    "seed": None,
    "tags": None,
    "data": ("columns", "group_by", "stratify"),
    "evaluate": ("task", "labels", "max_new_tokens", "templates"),
    "local": (
        *("method", "lora", "hyperparameters", "early_stopping", "dtype", "max_length"),
        *("micro_batch_size", "eval_steps", "max_truncated_share", "packed"),
    ),
}
"""The accepted part of a job file: whole sections (None), or these of their fields."""
Token = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{32}\Z")]
Numbers = dict[str, int | float]


@dataclass(frozen=True)
class PlanMarkers:
    """The markers that a job on AWS carries: its id, its token, the digest of its plan.

    Token and digest are None where the job has none.
    """

    job: str
    token: str | None
    plan: str | None


@dataclass(frozen=True)
class DiscoveredPlan:
    """The accepted part of a plan; `trainer_request` is the trainer's job.json, if it has one."""

    name: str
    token: str
    hyper_parameters: Mapping[str, int | float]
    manifest: Manifest
    estimate: Mapping[str, Any]
    spec: Mapping[str, Any]
    trainer_request: Mapping[str, Any] | None = None

    def to_discovered_job(
        self,
        backend_job_id: str,
        created_at: str,
        location: Mapping[str, str | None],
        *,
        customization_type: str | None = None,
        base_model: str | None = None,
        hyper_parameters: Mapping[str, int | float] | None = None,
    ) -> DiscoveredJob:
        """Return the job at the location where it was found.

        What AWS itself says of the job takes precedence over the plan.
        """
        numbers = dict(self.hyper_parameters if hyper_parameters is None else hyper_parameters)
        kind = customization_type or self.manifest.customization_type
        base = base_model or str(self.spec["base_model"])
        home = {} if self.trainer_request is None else {"home": self.trainer_request}
        return DiscoveredJob(
            backend_job_id=backend_job_id,
            created_at=created_at,
            name=self.name,
            token=self.token,
            customization_type=kind,
            base_model=base,
            hyper_parameters=numbers,
            request={"hyperParameters": numbers, "place": dict(location), **home},
            manifest=to_json(self.manifest),
            estimate=self.estimate,
            spec={**self.spec, "customization_type": kind, "base_model": base},
        )


class _Usd(msgspec.Struct, rename="camel"):
    training: float | None
    storage_per_month: float | None = None
    serving_per_hour: float | None = None


class _Estimate(msgspec.Struct, rename="camel"):
    usd: _Usd
    train_tokens: Count
    epochs: Count
    price_source: str
    price_date: str
    backend: str
    seconds: float | None = None
    at_most: bool = False


class _Request(msgspec.Struct, rename="camel"):
    hyper_parameters: Numbers
    home: TrainerSettings | None = None


class _Plan(msgspec.Struct):
    backend: str
    token: Token
    name: str
    request: _Request
    manifest: dict[str, Any]
    estimate: _Estimate
    spec: dict[str, Any]


def plan_digest(plan: Mapping[str, Any]) -> str:
    """Return the sha256 of a plan's content, without paths, calls and prices.

    `plan` is a `types.Plan` as JSON. Paths, calls and prices may differ between two machines that
    submit one job: paths by their disks, prices by the day. Calls are never read from another
    machine's plan.
    """
    request = plan["request"]
    home = (request.get("home") or {}).items()
    content = {
        **{key: plan[key] for key in ("backend", "name", "token")},
        "manifest": {k: value for k, value in plan["manifest"].items() if k != "sources"},
        "spec": _without_paths(plan["spec"]),
        "hyperParameters": request["hyperParameters"],
        "home": {key: value for key, value in home if key not in ("id", *MACHINE_FIELDS)},
    }
    return hashlib.sha256(orjson.dumps(to_json(content), option=orjson.OPT_SORT_KEYS)).hexdigest()


def _without_paths(spec: Mapping[str, Any]) -> dict[str, Any]:
    left = {**spec, "base_model": _unless_path(spec.get("base_model"))}
    for section, names in PATH_FIELDS.items():
        if isinstance(left.get(section), Mapping):
            inner = left[section].items()
            left[section] = {key: value for key, value in inner if key not in names}
    if stand_in := _section(spec, "local").get("model"):
        left["local"]["model"] = _unless_path(stand_in)
    return left


def _unless_path(name: object) -> object:
    return REMOTE_PATH if isinstance(name, str) and name.startswith("/") else name


def _section(spec: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = spec.get(name)
    return value if isinstance(value, Mapping) else {}


def parse_plan(content: bytes, file: str, backend: str, markers: PlanMarkers) -> DiscoveredPlan:
    """Return the accepted part of the plan in `file`. Raise DamagedJob unless it is this job's."""
    try:
        plan = decode(content, _Plan, file=file, versions=SUPPORTED_VERSIONS)
        # Markers first: nothing else of a foreign plan is worth parsing.
        _check(plan, file, backend, markers)
        if markers.plan is not None and plan_digest(orjson.loads(content)) != markers.plan:
            raise _wrong_plan("it was changed after its job was created", file, None)
        manifest = dataclasses.replace(parse_manifest(plan.manifest, file), sources=())
        spec = _spec(plan, manifest, file)
    except BadDocument as error:
        raise unusable_plan(markers.job, error) from error
    return DiscoveredPlan(
        name=plan.name,
        token=plan.token,
        hyper_parameters=plan.request.hyper_parameters,
        manifest=manifest,
        estimate=msgspec.to_builtins(plan.estimate),
        spec=spec,
        trainer_request=_local_trainer_request(plan, manifest) if plan.request.home else None,
    )


def discover_each(
    names: Iterable[tuple[str, str]], take: Callable[[str, str], DiscoveredJob | None]
) -> Iterator[DiscoveredJob | DamagedJob]:
    """Yield what `take` returns for each job, or the error of a job that is rejected.

    `names` are pairs of a job's name and its id in the backend. `take` returns None for a job that
    cloudft did not create. A job whose plan is gone is left out.
    """
    for name, backend_job_id in names:
        try:
            discovered = take(name, backend_job_id)
        except (ResourceNotFound, JobNotFound):
            continue
        except CredentialsExpired:
            raise
        except CloudRefused as error:
            yield DamagedJob(
                f"the job {name} of another machine is left out: {error.message}",
                job=name,
                file=backend_job_id,
                fix=error.fix,
            )
        except DamagedJob as error:
            yield error
        else:
            if discovered is not None:
                yield discovered


def unusable_plan(job: str, error: BadDocument) -> DamagedJob:
    """Return the error for a job of another machine whose plan is rejected: one line of a list."""
    return DamagedJob(
        f"the job {job} of another machine is left out: {error.message}",
        job=job,
        file=error.file,
        field=error.field,
        line=error.line,
        fix="its submitter can inspect it there, or submit it again under another name.",
    )


def _check(plan: _Plan, file: str, backend: str, markers: PlanMarkers) -> None:
    if plan.backend != backend:
        raise _wrong_plan(f"it is one of the backend {plan.backend[:40]}", file, "backend")
    own_id = job_id(plan.name, plan.token)
    if not is_job_id(own_id) or own_id != markers.job:
        raise _wrong_plan("its name and token are those of another job", file, "name")
    if plan.token != markers.token:
        raise _wrong_plan("its token is not the one that the job carries", file, "token")


def _wrong_plan(why: str, file: str, field: str | None) -> BadDocument:
    name = file.rpartition("/")[2]
    return BadDocument(f"{name} is not this job's plan: {why}", file=file, field=field)


def _spec(plan: _Plan, manifest: Manifest, file: str) -> dict[str, Any]:
    """Return the accepted part of the job file, checked by the rules of every job file."""
    spec: dict[str, Any] = {
        "name": plan.name,
        "customization_type": manifest.customization_type,
        "base_model": portable_model_name(plan.spec.get("base_model")),
    }
    for section, names in KEPT_FIELDS.items():
        value = plan.spec.get(section)
        if value is None:
            continue
        if names is not None and isinstance(value, dict):
            value = {key: inner for key, inner in value.items() if key in names}
        spec[section] = value
    stand_in = _section(plan.spec, "local").get("model")
    spec["data"] = {"train": REMOTE_PATH, **_section(spec, "data")}
    if stand_in is not None:
        spec["local"] = {**_section(spec, "local"), "model": portable_model_name(stand_in)}
    fault = find_first_fault(spec)
    if fault is not None:
        field, why = fault
        raise _wrong_plan(f"its job file is refused: {why}", file, f"spec.{field}")
    return spec


def portable_model_name(name: object) -> str:
    """Return a model's name that is no folder: of the catalogue, or a hub id; else REMOTE_PATH."""
    if isinstance(name, str) and (
        catalogue.find_catalogue_model(name) or catalogue.is_hub_id(name)
    ):
        return name
    return REMOTE_PATH


def _local_trainer_request(plan: _Plan, manifest: Manifest) -> dict[str, Any]:
    """Return the trainer's job.json for this machine: data of the manifest, weights by name."""
    base = portable_model_name(plan.spec.get("base_model"))
    stand_in = _section(plan.spec, "local").get("model")
    name = base if stand_in is None else portable_model_name(stand_in)
    made: dict[str, Any] = msgspec.to_builtins(plan.request.home)
    return made | {
        "id": job_id(plan.name, plan.token),
        "baseModel": base,
        "model": {"name": name, "weights": list(_weights(name))},
        "device": "auto",
        "processes": 1,
        "fsdp": "auto",
        "data": {
            role: {"path": f"data/{one.name}", "sha256": one.sha256, "records": one.records}
            for role, one in manifest.files.items()
        },
    }


def _weights(name: str) -> Iterator[dict[str, object]]:
    """Yield the weight locations of a model that is no folder."""
    model = catalogue.find_catalogue_model(name)
    if model is None and name != REMOTE_PATH:
        yield {"kind": "hub", "hub_id": name}
    for one in model.weights if model else ():
        yield one.to_json()
