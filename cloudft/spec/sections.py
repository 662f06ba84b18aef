"""The sections of the job file, and the registry in which their owners put them.

A backend's section is defined and registered in `cloudft/backends/NAME/job_section.py`, that of
another package in `cloudft/NAME/job_section.py`. Those modules are found by their file name and
imported when the first job file is read; they import `cloudft.spec` and `cloudft.catalogue`,
nothing of a backend. From the registry come the model that
validates a job file, its JSON Schema, the known names and the nearest-name suggestions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model

from cloudft.spec.fields import GROUP_ID, SUBNET_ID, Float, Int, check_unique
from cloudft.spec.yaml_source import JobTree
from cloudft.types import Finding

if TYPE_CHECKING:
    from cloudft.spec.checks import CheckContext
    from cloudft.spec.model import JobSpec

MAX_TOKENS = 10_000_000
"""Above the context of every model; a number beyond it is a slip."""
NOT_STRICT = Field(strict=False)  # YAML has lists, no tuples; what is in them stays strict


class Section(BaseModel):
    """A mapping of the job file: no unknown keys, no guessed types, no changes later."""

    # defer_build: a section's validator is built as a part of the job model's, not once more alone.
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True
    )


AnySection = TypeVar("AnySection", bound=Section)


class EarlyStopping(Section):
    """When to stop before the last epoch."""

    patience: Int = Field(
        ge=1, le=10_000, description="Evaluations without improvement before stopping."
    )
    threshold: Float = Field(
        ge=0, le=1000, description="Smallest decrease of the loss that counts as improvement."
    )


class Vpc(Section):
    """The network of an AWS job. Both lists are required."""

    subnet_ids: Annotated[tuple[SUBNET_ID, ...], NOT_STRICT, AfterValidator(check_unique)] = Field(
        min_length=1, max_length=16, description="1 to 16 subnets."
    )
    security_group_ids: Annotated[
        tuple[GROUP_ID, ...], NOT_STRICT, AfterValidator(check_unique)
    ] = Field(min_length=1, max_length=5, description="1 to 5 security groups.")


def section_field(description: str) -> Any:
    """Return the field of a section that is always there, with its defaults if nothing is given.

    The empty mapping is validated by the outer model. `default_factory=SomeSection` would build a
    second validator for the section alone, which takes longer than reading a whole job file.
    """
    return Field(default_factory=dict, validate_default=True, description=description)


@dataclass(frozen=True)
class JobSection:
    """A top-level section of the job file, as its owner registers it."""

    name: str
    """The key in the job file."""
    model: type[Section]
    description: str
    is_nullable: bool = False
    """Whether the section is None unless it is given; else it is there with its defaults."""
    after: str | None = None
    """The field that it follows in the JSON Schema and in `show`; None for the end."""
    show_unset: bool = True
    """Whether `show --resolved` lists its defaults when nothing of it is given."""
    check: Callable[[JobTree, CheckContext], list[Finding]] | None = None
    """Find what the model's types can't: gets the section's values as they were given."""
    is_part_of_job: bool = True
    """Whether what the job trains follows from it. If not, no backend and no record gets it."""
    has_hyperparameters: bool = False
    """Whether its field `hyperparameters` takes the names that the catalogue has."""
    model_fields: tuple[str, ...] = ()
    """Fields that name a base model, which may be a folder."""
    path_fields: tuple[str, ...] = ()
    """Fields that name a file, relative to the job file's folder."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables besides CLOUDFT_* that set a field of it; the last one that is set wins."""


_sections: dict[str, JobSection] = {}


def register_section(section: JobSection) -> None:
    """Add a section. Raises ValueError if its name is taken."""
    if section.name in _sections:
        raise ValueError(f"a job-file section {section.name!r} is registered already")
    _sections[section.name] = section
    _build_job_model.cache_clear()


@contextmanager
def registered_section(section: JobSection) -> Iterator[JobSection]:
    """Register a section for the length of a `with` block."""
    job_sections()
    register_section(section)
    try:
        yield section
    finally:
        del _sections[section.name]
        _build_job_model.cache_clear()


@cache
def _import_section_modules() -> None:
    """Import every module `job_section` of a package or a backend, in alphabetical order."""
    package = Path(__file__).parents[1]
    for path in sorted(
        [*package.glob("backends/*/job_section.py"), *package.glob("*/job_section.py")]
    ):
        folder = path.parent.relative_to(package.parent)
        import_module(".".join((*folder.parts, "job_section")))
    # Another import may have loaded one of them before: the order must not depend on that.
    ordered = sorted(_sections.values(), key=lambda section: section.model.__module__)
    _sections.clear()
    _sections.update({section.name: section for section in ordered})
    _build_job_model.cache_clear()


def job_sections() -> Mapping[str, JobSection]:
    """Return the registered sections by name."""
    _import_section_modules()
    return _sections


def job_model() -> type[JobSpec]:
    """Return the model that validates a job file: the core fields and every registered section."""
    job_sections()
    return _build_job_model()


@cache
def _build_job_model() -> type[JobSpec]:
    from cloudft.spec.model import JobSpec, JobSpecBase

    # Not a subclass of JobSpec: its own fields would all come before the sections.
    fields: dict[str, Any] = {n: (i.annotation, i) for n, i in JobSpec.model_fields.items()}
    for section in _sections.values():
        entry: tuple[Any, Any] = (section.model, section_field(section.description))
        if section.is_nullable:
            entry = (section.model | None, Field(default=None, description=section.description))
        names = list(fields)
        at = names.index(section.after) + 1 if section.after in fields else len(names)
        items = list(fields.items())
        fields = dict([*items[:at], (section.name, entry), *items[at:]])
    model: Any = create_model("JobSpec", __base__=JobSpecBase, __doc__=JobSpec.__doc__, **fields)
    return model  # type: ignore[no-any-return]
