"""Write the facts of a tuned model as a CycloneDX ML-BOM (ECMA-424).

cyclonedx-python-lib writes the components, hashes, licenses, pedigree and dependencies. It has no
classes for model cards and for data (11.12: both are a TODO in its source), so these two parts are
added to its JSON, and the whole is validated by its strict validator before anything is written.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, UUID, uuid5

from cloudft.errors import CloudftError, UsageError
from cloudft.publishing.facts import DataFile, ModelFacts, Score, describe_limits
from cloudft.publishing.model_files import ModelFile

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component

MODEL_REF, BASE_REF = "model", "base-model"
SCHEMA = "1.6"
"""The version of the specification that is written: the newest that most readers take."""
APPROACHES = {
    "FINE_TUNING": "supervised",
    "DISTILLATION": "supervised",
    "PREFERENCE_OPTIMIZATION": "supervised",
    "CONTINUED_PRE_TRAINING": "self-supervised",
    "REINFORCEMENT_FINE_TUNING": "reinforcement-learning",
}
"""Customization type -> `approach.type` of a model card."""
PROPERTY_PREFIX = "cloudft:"


@dataclass(frozen=True)
class Materials:
    """What a BOM is made of: the facts, and the files of the tuned model with their digests."""

    facts: ModelFacts
    files: Sequence[ModelFile] = ()


def render_bom(materials: Materials) -> str:
    """Return the BOM as JSON, validated by the schema. The same facts give the same bytes.

    Raise UsageError when cyclonedx-python-lib is not installed, CloudftError for a BOM that the
    schema refuses.
    """
    try:
        from cyclonedx.output import make_outputter
        from cyclonedx.schema import OutputFormat, SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator
    except ImportError as error:
        raise UsageError(
            "a bill of materials needs cyclonedx-python-lib, which is not installed",
            fix="pip install 'cloudft[bom]'",
        ) from error
    bom = _build_bom(materials)
    version = SchemaVersion.from_version(SCHEMA)
    content = json.loads(make_outputter(bom, OutputFormat.JSON, version).output_as_string())
    _add_model_card(content, materials.facts)
    _add_data(content, materials.facts)
    content["serialNumber"] = _serial_number(content).urn
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    problem = JsonStrictValidator(version).validate_str(text)
    if problem is not None:
        raise CloudftError(
            f"the bill of materials does not fit the schema of CycloneDX {SCHEMA}:"
            f" {' '.join(str(problem.data).split())[:300]}",
            fix="please report this with the job's type; nothing was written.",
        )
    return text


def _serial_number(content: Mapping[str, Any]) -> UUID:
    """Return an id that follows from the content, so that the same job has the same one."""
    rest = {name: value for name, value in content.items() if name != "serialNumber"}
    return uuid5(NAMESPACE_URL, json.dumps(rest, sort_keys=True))


def _build_bom(materials: Materials) -> Bom:
    from cyclonedx.model.bom import Bom, BomMetaData

    facts = materials.facts
    made_at = datetime.fromisoformat(facts.ended_at or facts.created_at)
    base = _base_component(facts, BASE_REF)
    model = _model_component(materials)
    data = [_data_component(number, one) for number, one in enumerate(facts.data)]
    libraries = list(_libraries(facts))
    bom = Bom(
        components=[base, *data, *libraries],
        metadata=BomMetaData(component=model, timestamp=made_at, tools=_tools(facts)),
        serial_number=UUID(int=0),
    )
    bom.register_dependency(model, [base, *data, *libraries])
    return bom


def _model_component(materials: Materials) -> Component:
    from cyclonedx.model.component import Component, ComponentType, Pedigree

    facts = materials.facts
    return Component(
        name=facts.name,
        version=facts.job_id,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=MODEL_REF,
        description=f"{facts.base.title}, tuned by cloudft ({facts.customization_type})",
        licenses=_licenses(facts),
        # An ancestor is a component of its own: without a reference, as the list has it already.
        pedigree=Pedigree(ancestors=[_base_component(facts, None)]),
        components=[_file_component(file) for file in materials.files],
        properties=_properties(
            {
                "job": facts.job_id,
                "method": facts.method,
                "backend": facts.backend,
                "data-sha256": facts.data_sha256,
                **{f"setting:{name}": value for name, value in facts.settings},
            }
        ),
    )


def _base_component(facts: ModelFacts, reference: str | None) -> Component:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    base = facts.base
    owner, _, name = (base.hub_id or base.title).rpartition("/")
    values = {"weights-sha256": base.sha256 or "", "job": base.job or ""}
    return Component(
        name=name,
        group=owner or None,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=reference,
        licenses=_licenses(facts),
        purl=PackageURL("huggingface", owner, name) if base.hub_id else None,
        properties=_properties(values),
    )


def _file_component(file: ModelFile) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        name=file.name,
        type=ComponentType.FILE,
        bom_ref=f"file:{file.name}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=file.sha256)],
        properties=_properties({"bytes": str(file.size)}),
    )


def _data_component(number: int, data: DataFile) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType

    return Component(
        name=data.name,
        type=ComponentType.DATA,
        bom_ref=_data_ref(number, data),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=data.sha256)],
        properties=_properties(
            {
                "role": data.role,
                "records": str(data.records),
                "bytes": str(data.bytes),
                "format": data.format,
            }
        ),
    )


def _data_ref(number: int, data: DataFile) -> str:
    return f"data:{number}:{data.role}"


def _libraries(facts: ModelFacts) -> Iterator[Component]:
    """Yield what trained and wrote the model. It is no part of the model: scope `excluded`."""
    from cyclonedx.model.component import Component, ComponentScope, ComponentType
    from packageurl import PackageURL

    for name, version in sorted(facts.versions.items()):
        yield Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            bom_ref=f"library:{name}",
            scope=ComponentScope.EXCLUDED,
            purl=PackageURL("pypi", None, name, version),
        )


def _tools(facts: ModelFacts) -> Any:
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.tool import ToolRepository

    version = facts.versions["cloudft"]
    tool = Component(name="cloudft", version=version, type=ComponentType.APPLICATION)
    return ToolRepository(components=[tool])


def _licenses(facts: ModelFacts) -> list[Any]:
    """Return the base's license, by its SPDX id where it has one; nothing where it is unknown."""
    from cyclonedx.contrib.license.factories import LicenseFactory

    license = facts.base.license
    return [LicenseFactory().make_from_string(license.name)] if license else []


def _properties(values: Mapping[str, str]) -> list[Any]:
    from cyclonedx.model import Property

    return [
        Property(name=PROPERTY_PREFIX + name, value=value)
        for name, value in values.items()
        if value
    ]


def _add_model_card(content: dict[str, Any], facts: ModelFacts) -> None:
    """Add the model card to the tuned model's component."""
    found = facts.evaluation
    parameters: dict[str, Any] = {
        "approach": {"type": APPROACHES.get(facts.customization_type, "supervised")},
        "task": found.task if found else "text-generation",
        "datasets": [{"ref": _data_ref(*one)} for one in enumerate(facts.data)],
        "inputs": [{"format": "text"}],
        "outputs": [{"format": "text"}],
    }
    if facts.base.architecture:
        parameters["modelArchitecture"] = facts.base.architecture
    card: dict[str, Any] = {
        "modelParameters": parameters,
        "considerations": {"technicalLimitations": describe_limits(facts)},
    }
    if found is not None:
        metrics = [metric for score in found.scores for metric in _metrics(facts, score)]
        card["quantitativeAnalysis"] = {"performanceMetrics": metrics}
        card["properties"] = [
            {"name": PROPERTY_PREFIX + name, "value": value}
            for name, value in (
                ("evaluated-at", found.evaluated_at),
                ("held-out-sha256", found.data_sha256),
                ("significance", f"{found.test}, p = {found.p_value:.3g}"),
                ("verdict", found.sentence),
                ("answered-by", found.engine or "cloudft"),
            )
        ]
    content["metadata"]["component"]["modelCard"] = card


def _metrics(facts: ModelFacts, score: Score) -> Iterator[dict[str, Any]]:
    """Yield a metric of the tuned model, of its base, and their difference."""
    found = facts.evaluation
    assert found is not None
    records = f"{found.records} held-out records"
    for value, interval, name in (
        (score.tuned, score.tuned_interval, score.label),
        (score.base, score.base_interval, f"{score.label} of the base model"),
        (score.difference, score.interval, f"{score.label}, tuned minus base"),
    ):
        if value is None:
            continue
        metric: dict[str, Any] = {"type": name, "value": _number(value), "slice": records}
        if interval is not None:
            low, high = map(_number, interval)
            metric["confidenceInterval"] = {"lowerBound": low, "upperBound": high}
        yield metric


def _number(value: float) -> str:
    return f"{value:.6g}"


def _add_data(content: dict[str, Any], facts: ModelFacts) -> None:
    """Describe each data component as a dataset; its content is not in the BOM."""
    described = {
        _data_ref(number, one): [
            {
                "type": "dataset",
                "name": one.name,
                "description": f"{one.records} records used for {one.role}; not published",
            }
        ]
        for number, one in enumerate(facts.data)
    }
    for component in content["components"]:
        if component["bom-ref"] in described:
            component["data"] = described[component["bom-ref"]]
