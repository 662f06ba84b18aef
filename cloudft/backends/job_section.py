"""The section of the job file that names the runtimes which shall run the tuned model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, create_model

from cloudft.backends.export_options import RUNTIME_FORMATS
from cloudft.spec.checks import CheckContext
from cloudft.spec.fields import READ_NUMBER, check_unique
from cloudft.spec.sections import (
    MAX_TOKENS,
    NOT_STRICT,
    JobSection,
    Section,
    register_section,
)
from cloudft.spec.yaml_source import JobTree
from cloudft.types import Finding

RuntimeName = Literal[
    "transformers", "vllm", "llama.cpp", "ollama", "mlx", "onnxruntime", "openvino"
]
FormatName = Literal["merged", "adapter", "gguf", "mlx"]


class ExportBase(Section):
    """How the tuned model will be exported."""

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Return the runtimes under `for`, which Python has as a keyword."""
        named: tuple[str, ...] = getattr(self, "for")
        return named

    @property
    def exports(self) -> list[tuple[str, str]]:
        """Return each runtime with the format that is exported for it."""
        form: str | None = getattr(self, "format", None)
        return [(name, form or RUNTIME_FORMATS[name][0]) for name in self.runtimes]


_FIELDS: dict[str, Any] = {
    "for": (
        Annotated[tuple[RuntimeName, ...], NOT_STRICT, AfterValidator(check_unique)],
        Field(min_length=1, description="Runtimes: check says what they would read otherwise."),
    ),
    "format": (
        FormatName | None,
        Field(default=None, description="Format; that of each runtime if unset."),
    ),
    "context": (
        Annotated[int, Field(ge=1, le=MAX_TOKENS), READ_NUMBER] | None,
        Field(default=None, description="Tokens of prompt and answer at most."),
    ),
}
ExportSpec: type[ExportBase] = create_model("ExportSpec", __base__=ExportBase, **_FIELDS)


def check(values: JobTree, context: CheckContext) -> list[Finding]:
    """Return an error for each runtime that does not read the format."""
    named, form = values.get("for"), values.get("format")
    runtimes = named if isinstance(named, (list, tuple)) else ()
    return [
        context.source_map.make_finding(
            "BadValue",
            ("export", "format"),
            f"{name} does not read the format {form}",
            f"remove export.format, or write {' or '.join(RUNTIME_FORMATS[name])}",
        )
        for name in runtimes
        if form is not None and form not in RUNTIME_FORMATS.get(str(name), (form,))
    ]


def runtimes_of(section: object) -> Mapping[str, Any] | None:
    """Return the request of a job's section for the trainer; None for a job without one."""
    if not isinstance(section, ExportBase):
        return None
    exports = [{"runtime": name, "format": form} for name, form in section.exports]
    return {"exports": exports, "context": getattr(section, "context", None)}


register_section(
    JobSection(
        "export",
        ExportSpec,
        "The runtimes that will run the tuned model.",
        is_nullable=True,
        is_part_of_job=False,
        show_unset=False,
        check=check,
    )
)
