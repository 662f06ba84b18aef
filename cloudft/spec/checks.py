"""Check a job against the catalogue: model, customization type, hyperparameters, early stopping.

Works on the merged tree, so that a fault in one field does not hide one in another; a value whose
type is wrong is left to validation_errors.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cloudft.catalogue import (
    CUSTOMIZATION_TYPES,
    DEFAULT_CUSTOMIZATION_TYPE,
    Hyperparameter,
    Model,
    describe_offer,
    find_model,
    find_serverless_model,
    load_models,
    offer_fix,
    techniques_for,
    trains_on,
)
from cloudft.errors import UnknownModel
from cloudft.spec.field_index import find_nearest_name
from cloudft.spec.sections import job_sections
from cloudft.spec.validation_errors import SourceMap
from cloudft.spec.yaml_scalars import as_number
from cloudft.spec.yaml_source import FieldPath, JobTree
from cloudft.types import Finding, Severity

MAX_NAMED_MODELS = 3
_MODEL_ARN = re.compile(
    r"arn:aws[a-z-]*:bedrock:[a-z0-9-]+:(:foundation-model|[0-9]{12}:"
    r"(custom-model|inference-profile|application-inference-profile))/."
)


@dataclass(frozen=True)
class CheckContext:
    """What a check of some values needs besides them.

    `base_dir` is the job file's folder; `source_map` knows the line and the origin of each value.
    `tree` has the whole job, `model` its base model, None where there is none of that name.
    """

    base_dir: Path
    source_map: SourceMap
    customization_type: str = ""
    tree: JobTree = field(default_factory=dict)
    model: Model | None = None


def check_job(
    tree: JobTree, base_dir: Path, source_map: SourceMap
) -> tuple[Model | None, list[Finding]]:
    """Return the base model (None if there is none of that name), and every finding."""
    kind = str(tree.get("customization_type", DEFAULT_CUSTOMIZATION_TYPE))
    context, findings = CheckContext(base_dir, source_map, kind, tree), list[Finding]()
    model = find_named_model(("base_model",), tree.get("base_model"), context, findings)
    context = replace(context, model=model)
    if model is not None:
        findings += _check_customization_type(tree, model, source_map)
        findings += _check_early_stopping(tree, model, source_map)
        values, table = tree.get("hyperparameters"), model.hyperparameters
        key = ("hyperparameters",)
        findings += check_hyperparameters(key, values, table, model.alias, source_map)
    for section in job_sections().values():
        if section.check is not None:
            values = tree.get(section.name)
            given = values if isinstance(values, Mapping) else {}
            findings += section.check(given, context)
    findings += _check_preference(tree, source_map)
    findings += _check_tags(tree.get("tags"), source_map)
    return model, findings


def find_named_model(
    path: FieldPath, name: object, context: CheckContext, findings: list[Finding]
) -> Model | None:
    """Return the model that the field at `path` names; None if there is none.

    A name that is given and not known adds to `findings`.
    """
    if not isinstance(name, str) or not name:
        return None
    try:
        return find_model(str(name), base_dir=context.base_dir)
    except UnknownModel as exc:
        code, message, fix = exc.code, exc.message, exc.fix or ""
        if name.startswith("arn:") and not _MODEL_ARN.match(name):
            code = "BadValue"
            message = f"{name[:200]!r} is not the ARN of a Bedrock model"
            fix = "copy it whole: arn:aws:bedrock:REGION::foundation-model/ID, or custom-model's"
        findings.append(context.source_map.make_finding(code, path, message, fix))
        return None


def _check_customization_type(tree: JobTree, model: Model, source_map: SourceMap) -> list[Finding]:
    """Refuse a customization type that the model does not support."""
    requested = tree.get("customization_type", DEFAULT_CUSTOMIZATION_TYPE)
    if requested not in CUSTOMIZATION_TYPES or requested in model.customization_types:
        return []
    supported = ", ".join(model.customization_types) or "none"
    source = model.sources[0]
    message = f"{model.alias} does not support {requested} (it has: {supported}; {source})"
    message += _lost_teachers(model) if requested == "DISTILLATION" else ""
    usable = [kind for kind in CUSTOMIZATION_TYPES if kind in model.customization_types]
    fix = f"take {_name_models(requested)}"
    if requested in trains_on("sagemaker") and CUSTOMIZATION_TYPES[str(requested)].section is None:
        command = "cloudft submit --backend sagemaker --wait --import"
        fix = (
            "take an open-weight base_model such as smollm2-135m and run"
            f" `{command}`, which makes it a Bedrock model"
        )
    if usable:
        fix = f"write {' or '.join(usable)}, or {fix}"
    path = ("customization_type",) if "customization_type" in tree else ("base_model",)
    refused = source_map.make_finding("UnsupportedCustomizationType", path, message, fix)
    return [refused, *_serverless_offer(str(requested), model, path, source_map)]


def _check_preference(tree: JobTree, source_map: SourceMap) -> list[Finding]:
    """Refuse the section `preference` for another customization type."""
    requested = tree.get("customization_type", DEFAULT_CUSTOMIZATION_TYPE)
    if tree.get("preference") is None or requested == "PREFERENCE_OPTIMIZATION":
        return []
    message = f"the section preference has no meaning for {requested}"
    fix = "set customization_type: PREFERENCE_OPTIMIZATION, or remove the section"
    return [source_map.make_finding("UnusedValue", ("preference",), message, fix)]


def _serverless_offer(
    requested: str, model: Model, path: FieldPath, source_map: SourceMap
) -> list[Finding]:
    """Warn where SageMaker's serverless customization tunes the model in that way."""
    techniques, listed = techniques_for(requested), find_serverless_model(model)
    if listed is None or not set(techniques) & set(listed.techniques):
        return []
    offer, fix = describe_offer(listed, techniques), offer_fix(listed, techniques)
    return [source_map.make_finding("ServerlessServes", path, offer, fix, "warning")]


def _lost_teachers(model: Model) -> str:
    """Return, as the end of a message, that a model's teachers are past their end of life."""
    teachers = [find_model(name) for name in model.former_teachers]
    if model.teachers or not teachers:
        return ""
    if len(teachers) == 1:
        [teacher] = teachers
        return f": its only teacher, {teacher.title}, ended on {teacher.lifecycle.date}"
    ends = [f"{one.title} on {one.lifecycle.date}" for one in teachers]
    return f": all its teachers have ended ({', '.join(ends)})"


def _name_models(kind: str) -> str:
    """Return the base models that support a customization type, for a remedy."""
    able = [
        model.alias
        for model in load_models()
        if kind in model.customization_types and model.lifecycle.state == "active"
    ]
    if not able:
        return "an open-weight base_model such as smollm2-135m"
    return f"a base_model that does: {' or '.join(able[:MAX_NAMED_MODELS])}"


def _check_early_stopping(tree: JobTree, model: Model, source_map: SourceMap) -> list[Finding]:
    """Refuse early stopping for a service without it; check its ranges for one that has it."""
    path, values = ("early_stopping",), tree.get("early_stopping")
    if values is None:
        return []
    if not model.early_stopping:
        row = next(iter(model.hyperparameters.values()), None)
        source = row.source if row else model.sources[0]
        message = f"{model.alias} has no early stopping on Bedrock ({source})"
        fix = "move it under local:, where it applies to local runs"
        return [source_map.make_finding("EarlyStoppingUnsupported", path, message, fix)]
    names = {"patience": "earlyStoppingPatience", "threshold": "earlyStoppingThreshold"}
    rows = {
        field: model.hyperparameters[name]
        for field, name in names.items()
        if name in model.hyperparameters
    }
    given = values if isinstance(values, Mapping) else {}
    findings = [
        finding
        for field, row in rows.items()
        if field in given
        for finding in check_value((*path, field), given[field], row, model.alias, source_map)
    ]
    hyperparameters = tree.get("hyperparameters")
    if isinstance(hyperparameters, Mapping):
        both = sorted({row.name for row in rows.values()} & set(hyperparameters))
        if both:
            message = f"early_stopping and hyperparameters.{both[0]} set the same value"
            finding = source_map.make_finding("BadValue", path, message, "keep one of the two")
            findings.append(finding)
    return findings


def check_hyperparameters(
    path: FieldPath,
    values: object,
    table: Mapping[str, Hyperparameter],
    owner: str,
    source_map: SourceMap,
) -> list[Finding]:
    """Check each given hyperparameter against the table of those that `owner` takes."""
    findings: list[Finding] = []
    for name, value in values.items() if isinstance(values, Mapping) else ():
        if name in table:
            findings += check_value((*path, name), value, table[name], owner, source_map)
        else:
            findings.append(_unknown_hyperparameter((*path, name), table, owner, source_map))
    return findings


def _unknown_hyperparameter(
    path: FieldPath, table: Mapping[str, Hyperparameter], owner: str, source_map: SourceMap
) -> Finding:
    name = path[-1]
    known = "; ".join(f"{row.name} {_range(row)}" for row in table.values())
    message = f"{owner} has no hyperparameter {name[:100]!r}"
    message += f" (it has {known})" if known else " (none are documented for it)"
    fix = "remove it"
    if any(name in model.hyperparameters for model in load_models()):
        # Spelled right, but other models' own: a similar name would be another setting.
        fix = f"remove it: other base models take it, {owner} does not"
    elif near := find_nearest_name(name, table):
        fix = f"did you mean {near}?"
    return source_map.make_finding("UnknownHyperparameter", path, message, fix)


def check_value(
    path: FieldPath, raw: object, row: Hyperparameter, owner: str, source_map: SourceMap
) -> list[Finding]:
    """Check one value of a hyperparameter against its range."""
    value = as_number(raw)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return []  # validation_errors.py has the finding: it is no number
    name = ".".join(path)
    if row.type == "int" and not isinstance(value, int):
        message = f"{name} is {value}; {owner} takes a whole number ({row.source})"
        return [source_map.make_finding("WrongType", path, message, f"write {_whole(value)}")]
    if row.min <= value <= row.max:
        return []
    message = f"{name} is {value}; {owner} takes {_range(row)} ({row.source}"
    message += ", the range of its siblings)" if row.assumed else ")"
    fix = f"give a value of {_range(row)}"
    # The range of a model that is not documented itself may be wrong: it warns.
    severity: Severity = "warning" if row.assumed else "error"
    return [source_map.make_finding("OutOfRange", path, message, fix, severity)]


def _whole(value: float) -> str:
    return str(round(value)) if abs(value) < 2**53 else "a whole number"


def _range(row: Hyperparameter) -> str:
    return f"{row.min:g} to {row.max:g}"


def _check_tags(tags: object, source_map: SourceMap) -> list[Finding]:
    """Warn of keys that differ only in case: IAM conditions take them for the same tag."""
    names: dict[str, str] = {}
    findings = []
    for key in tags if isinstance(tags, Mapping) else ():
        first = names.setdefault(str(key).lower(), str(key))
        if first != key:
            message = f"tags {first!r} and {key!r} differ only in case: policies treat them as one"
            path, fix = ("tags", str(key)), "keep one of them"
            findings.append(source_map.make_finding("TagTwice", path, message, fix, "warning"))
    return findings
