"""What the catalogue says about a job: model, customization type, hyperparameters, stopping.

Works on the merged tree, so that a fault in one field does not hide one in another; a value whose
type is wrong is left to explain.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudft.catalogue import Hyperparameter, Model, find_model
from cloudft.errors import UnknownModel
from cloudft.spec.field_index import FieldPath, find_nearest_name
from cloudft.spec.fields import SUPPORTED_CUSTOMIZATION_TYPES, TRAINER_CUSTOMIZATION_TYPES
from cloudft.spec.sections import job_sections
from cloudft.spec.validation_errors import SourceMap
from cloudft.spec.yaml_scalars import as_number
from cloudft.types import Finding, Severity

_MODEL_ARN = re.compile(
    r"arn:aws[a-z-]*:bedrock:[a-z0-9-]+:(:foundation-model|[0-9]{12}:custom-model)/."
)
JobTree = Mapping[str, Any]


@dataclass(frozen=True)
class CheckContext:
    """What a check of some values needs besides them.

    `base_dir` is the job file's folder; `source_map` knows the line and the origin of each value.
    """

    base_dir: Path
    source_map: SourceMap


def check_job(
    tree: JobTree, base_dir: Path, source_map: SourceMap
) -> tuple[Model | None, list[Finding]]:
    """Return the base model (None if there is none of that name), and every finding."""
    context, findings = CheckContext(base_dir, source_map), list[Finding]()
    model = find_named_model(("base_model",), tree.get("base_model"), context, findings)
    if model is not None:
        findings += _customization_type(tree, model, source_map)
        findings += _early_stopping(tree, model, source_map)
        values, table = tree.get("hyperparameters"), model.hyperparameters
        key = ("hyperparameters",)
        findings += check_hyperparameters(key, values, table, model.alias, source_map)
    for section in job_sections().values():
        if section.check is not None:
            values = tree.get(section.name)
            given = values if isinstance(values, Mapping) else {}
            findings += section.check(given, context)
    findings += _tag_twins(tree.get("tags"), source_map)
    return model, findings


def find_named_model(
    key: FieldPath, name: object, context: CheckContext, findings: list[Finding]
) -> Model | None:
    """Return the model that the field at `key` names; None if there is none.

    A name that is given and not known adds to `findings`.
    """
    places = context.source_map
    if not isinstance(name, str) or not name:
        return None
    try:
        return find_model(str(name), base_dir=context.base_dir)
    except UnknownModel as exc:
        if name.startswith("arn:") and not _MODEL_ARN.match(name):
            fix = "copy it whole: arn:aws:bedrock:REGION::foundation-model/ID, or custom-model's"
            message = f"{name[:200]!r} is not the ARN of a model of Bedrock"
            findings.append(places.make_finding("BadValue", key, message, fix))
            return None
        findings.append(places.make_finding(exc.code, key, exc.message, exc.fix or ""))
        return None


def _customization_type(tree: JobTree, model: Model, places: SourceMap) -> list[Finding]:
    wanted = tree.get("customization_type", SUPPORTED_CUSTOMIZATION_TYPES[0])
    if wanted not in SUPPORTED_CUSTOMIZATION_TYPES or wanted in model.customization_types:
        return []
    has = ", ".join(model.customization_types) or "none"
    source = model.sources[0]
    message = f"{model.alias} does not support {wanted} (it has: {has}; {source})"
    usable = [kind for kind in SUPPORTED_CUSTOMIZATION_TYPES if kind in model.customization_types]
    fix = "take an open-weight base_model such as smollm2-135m"
    if wanted in TRAINER_CUSTOMIZATION_TYPES:
        fix += (
            " and `cloudft submit --backend sagemaker --wait --import`: Bedrock serves it then"
        )
    if usable:
        fix = f"write {' or '.join(usable)}, or {fix}"
    key = ("customization_type",) if "customization_type" in tree else ("base_model",)
    return [places.make_finding("UnsupportedCustomizationType", key, message, fix)]


def _early_stopping(tree: JobTree, model: Model, places: SourceMap) -> list[Finding]:
    """Refused for a service without it; within its ranges for one that has it."""
    key, wanted = ("early_stopping",), tree.get("early_stopping")
    if wanted is None:
        return []
    if not model.early_stopping:
        row = next(iter(model.hyperparameters.values()), None)
        source = row.source if row else model.sources[0]
        message = f"{model.alias} has no early stopping on Bedrock ({source})"
        fix = "move it under local:, where it holds for local runs"
        return [places.make_finding("EarlyStoppingUnsupported", key, message, fix)]
    names = {"patience": "earlyStoppingPatience", "threshold": "earlyStoppingThreshold"}
    rows = {
        short: model.hyperparameters[name]
        for short, name in names.items()
        if name in model.hyperparameters
    }
    given = wanted if isinstance(wanted, Mapping) else {}
    findings = [
        finding
        for short, row in rows.items()
        if short in given
        for finding in _value((*key, short), given[short], row, model.alias, places)
    ]
    twice = sorted({row.name for row in rows.values()} & set(tree.get("hyperparameters") or ()))
    if twice:
        message = f"early_stopping and hyperparameters.{twice[0]} say the same thing"
        findings.append(places.make_finding("BadValue", key, message, "keep one of the two"))
    return findings


def check_hyperparameters(
    key: FieldPath,
    given: object,
    table: Mapping[str, Hyperparameter],
    owner: str,
    places: SourceMap,
) -> list[Finding]:
    """Check each given hyperparameter against the table of those that `owner` takes."""
    findings: list[Finding] = []
    for name, value in given.items() if isinstance(given, Mapping) else ():
        if name in table:
            findings += _value((*key, name), value, table[name], owner, places)
        else:
            findings.append(_unknown((*key, name), table, owner, places))
    return findings


def _unknown(
    key: FieldPath, table: Mapping[str, Hyperparameter], owner: str, places: SourceMap
) -> Finding:
    known = "; ".join(f"{row.name} {_range(row)}" for row in table.values())
    message = f"{owner} has no hyperparameter {key[-1][:100]!r}"
    message += f" (it has {known})" if known else " (none are documented for it)"
    near = find_nearest_name(key[-1], table)
    fix = f"did you mean {near}?" if near else "remove it"
    return places.make_finding("UnknownHyperparameter", key, message, fix)


def _value(
    key: FieldPath, raw: object, row: Hyperparameter, owner: str, places: SourceMap
) -> list[Finding]:
    value = as_number(raw)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return []  # explain.py says that it is no number
    name = ".".join(key)
    if row.type == "int" and not isinstance(value, int):
        message = f"{name} is {value}; {owner} takes a whole number ({row.source})"
        return [places.make_finding("WrongType", key, message, f"write {_whole(value)}")]
    if row.min <= value <= row.max:
        return []
    message = f"{name} is {value}; {owner} takes {_range(row)} ({row.source}"
    message += ", the range of its siblings)" if row.assumed else ")"
    fix = f"give a value of {_range(row)}"
    severity: Severity = "warning" if row.assumed else "error"
    return [places.make_finding("OutOfRange", key, message, fix, severity)]


def _whole(value: float) -> str:
    return str(round(value)) if abs(value) < 2**53 else "a whole number"


def _range(row: Hyperparameter) -> str:
    return f"{row.min:g} to {row.max:g}"


def _tag_twins(tags: object, places: SourceMap) -> list[Finding]:
    """Keys that differ in case alone: two tags to the services, one to conditions of IAM."""
    names: dict[str, str] = {}
    findings = []
    for key in tags if isinstance(tags, Mapping) else ():
        first = names.setdefault(str(key).lower(), str(key))
        if first != key:
            message = f"tags {first!r} and {key!r} differ in case alone: policies take them for one"
            fix = "keep one of them"
            findings.append(
                places.make_finding("TagTwice", ("tags", str(key)), message, fix, "warning")
            )
    return findings
