"""The section of the job file that `cloudft sweep` reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from cloudft.spec.checks import CheckContext
from cloudft.spec.fields import READ_NUMBER, Bool, Int, Number, Scalar, field_error
from cloudft.spec.sections import NOT_STRICT, JobSection, Section, register_section
from cloudft.spec.yaml_source import JobTree
from cloudft.sweep.space import check_space
from cloudft.types import Finding

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

MAX_PARAMETERS = 20
MAX_VALUES = 100


def _check_values(values: tuple[object, ...]) -> tuple[object, ...]:
    """Raise field_error for a list with fewer than two values, or with one twice."""
    if len(values) < 2:
        fix = "list two values or more, or set the value in the job file itself"
        raise field_error("BadValue", f"{len(values)} values leave nothing to choose from", fix)
    repeated = next((one for one in values if values.count(one) > 1), None)
    if repeated is not None:
        raise field_error("BadValue", f"{repeated!r} is in the list twice", "remove one of them")
    return values


class Parameter(Section):
    """What a parameter may be: a range of numbers, or a list of values."""

    low: Number | None = Field(default=None, description="Lowest value of a range.")
    high: Number | None = Field(default=None, description="Highest value of a range.")
    log: Bool = Field(
        default=False, description="Whether factors count: from 1e-5 to 1e-4 as from 1e-4 to 1e-3."
    )
    values: Annotated[tuple[Scalar, ...], NOT_STRICT, AfterValidator(_check_values)] | None = Field(
        default=None, max_length=MAX_VALUES, description="In place of a range: the values to try."
    )

    @model_validator(mode="before")
    @classmethod
    def _read_list(cls, value: object) -> object:
        """Read `[8, 16]` as `{values: [8, 16]}`."""
        return {"values": value} if isinstance(value, (list, tuple)) else value

    @model_validator(mode="after")
    def _check_range(self) -> Parameter:
        """Refuse what is neither a range nor a list."""
        if self.values is not None:
            if self.low is not None or self.high is not None or self.log:
                raise field_error("BadValue", "both a range and values", "keep one of the two")
            return self
        if self.low is None or self.high is None:
            fix = "write {low: 1e-5, high: 1e-3, log: true}, or a list of values: [8, 16, 32]"
            raise field_error("BadValue", "a range needs low and high", fix)
        if self.low >= self.high:
            what = f"low is {self.low}, which is not below high ({self.high})"
            raise field_error("BadValue", what, "swap them, or widen the range")
        if self.log and self.low <= 0:
            what = f"low is {self.low}: a range by factors begins above 0"
            raise field_error("BadValue", what, "raise low, or remove log")
        return self

    @model_serializer(mode="wrap")
    def _write_short(self, handler: SerializerFunctionWrapHandler) -> Any:
        """Write it as the job file has it."""
        if self.values is not None:
            return list(self.values)
        return {name: value for name, value in handler(self).items() if value is not None}


class _WithShortForm:
    """Adds the short form of a list to the JSON Schema of a parameter."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        short = {"type": "array", "items": {"type": ["number", "string", "boolean"]}, "minItems": 2}
        return {"anyOf": [handler(schema), short]}


class SweepSpec(Section):
    """Search of hyperparameters: `cloudft sweep` trains the job with other values."""

    space: dict[str, Annotated[Parameter, _WithShortForm()]] = Field(
        min_length=1,
        max_length=MAX_PARAMETERS,
        description="What is tried: {learningRate: {low: 1e-5, high: 1e-3, log: true},"
        " local.lora.r: [8, 16, 32]}. Hyperparameters by name, other fields by dotted path.",
    )
    trials: Int = Field(
        default=20, ge=1, le=10_000, description="Trials, the job file's own values among them."
    )
    budget_minutes: Annotated[float, Field(gt=0, le=1e6), READ_NUMBER] | None = Field(
        default=None, description="Training time after which no trial is started."
    )
    pruning: Bool = Field(
        default=True, description="Whether trials that are behind at a validation are stopped."
    )
    parallel_trials: Annotated[int, Field(ge=1, le=64), READ_NUMBER] | None = Field(
        default=None,
        description="Trials at once, which share the cores; if unset, two where a small model's"
        " adapters are trained in bfloat16 on the CPU, else one.",
    )
    seeds: Int = Field(
        default=2, ge=0, le=20, description="Further seeds for the job file's values and the best."
    )
    repeat_best: Int = Field(
        default=2, ge=1, le=20, description="How many of the best trials are repeated with them."
    )


def check(values: JobTree, context: CheckContext) -> list[Finding]:
    """Return what is wrong with the parameters and their ranges."""
    space = values.get("space")
    return check_space(space, context) if isinstance(space, Mapping) else []


register_section(
    JobSection(
        "sweep",
        SweepSpec,
        "For `cloudft sweep`: the search of hyperparameters.",
        is_nullable=True,
        is_part_of_job=False,
        show_unset=False,
        check=check,
    )
)
