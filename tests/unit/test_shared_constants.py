"""Constants that are written in two packages, or in Bedrock's API, and must be equal."""

from __future__ import annotations

import dataclasses
from typing import Any, get_args

import botocore.session
import pytest

from cloudft import types
from cloudft.backends import export_options
from cloudft.backends.job_section import FormatName, RuntimeName
from cloudft.backends.local import four_bits as check
from cloudft.backends.local import job_folder, request
from cloudft.evaluate.rewards import prompts
from cloudft.serving import engine_process
from cloudft.serving.engine import EngineRequest
from cloudft.storage import artifacts
from local_backend import errors, job_dir, settings
from local_backend.export import export_model as trainer_proof
from local_backend.export import options as trainer_export
from local_backend.export.gguf.precision import QUANTIZATIONS
from local_backend.grading import shapes
from local_backend.models import four_bits


def constants(module: Any) -> dict[str, Any]:
    """Return the module's own upper-case names with text values."""
    return {
        name: value
        for name, value in vars(module).items()
        if name.isupper() and not name.startswith("_") and isinstance(value, (str, tuple))
    }


@pytest.fixture(scope="module")
def bedrock() -> Any:
    return botocore.session.get_session().get_service_model("bedrock")


@pytest.mark.parametrize("module", [job_folder, artifacts])
def test_file_names_and_columns_are_the_trainers_own(module: Any) -> None:
    mine, trainers = constants(module), constants(job_dir)
    assert len(mine) >= 7
    assert mine == {name: trainers.get(name) for name in mine}


def test_no_file_name_of_the_trainer_is_unknown_outside() -> None:
    private = {"COMPLETED", "FAILED", "STOPPED", "IN_PROGRESS", "PHASES", "MEETING", "REFERENCE"}
    private |= {"KERNELS"}
    assert constants(job_dir).keys() - private == (
        constants(job_folder).keys() | constants(artifacts).keys()
    )


def test_a_request_has_the_version_that_the_trainer_reads() -> None:
    assert request.VERSION == settings.VERSION


def test_the_price_of_four_bits_is_the_trainers() -> None:
    assert check.PRICE == four_bits.PRICE_ON_CPU
    assert check.LEAST_PARAMETERS == four_bits.LEAST_PARAMETERS


def test_what_can_be_exported_is_what_the_trainer_writes() -> None:
    assert export_options.RUNTIME_FORMATS == trainer_export.RUNTIME_FORMATS
    assert export_options.FORMATS == trainer_export.FORMATS == get_args(FormatName)
    assert export_options.DTYPES == trainer_export.DTYPES
    assert export_options.DEFAULT_QUANTIZATION == trainer_export.DEFAULT_QUANTIZATION
    assert tuple(trainer_export.RUNTIME_FORMATS) == get_args(RuntimeName)
    assert export_options.PROOF == trainer_proof.PROOF
    ours, trainers = (
        {field.name: field.default for field in dataclasses.fields(module.ExportOptions)}
        for module in (export_options, trainer_export)
    )
    assert ours == trainers
    assert {name.lower() for name in QUANTIZATIONS} == set(export_options.QUANTIZATIONS)
    assert tuple(trainer_export.MLX_BITS) == export_options.MLX_QUANTIZATIONS


def test_the_engine_knows_every_code_of_the_trainers_errors() -> None:
    codes = {
        value.code
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.TrainerError) and value.code
    }
    assert codes == set(engine_process.ERRORS)
    fields = {field.name for field in dataclasses.fields(EngineRequest)}
    assert {field for _, field in engine_process.ERRORS.values() if field} <= fields


def test_a_grader_gets_the_same_metadata_from_the_trainer() -> None:
    assert prompts.NOT_METADATA == shapes.NOT_METADATA


def test_statuses_are_bedrocks_word_for_word(bedrock: Any) -> None:
    assert set(get_args(types.Status)) == set(bedrock.shape_for("ModelCustomizationJobStatus").enum)
    assert set(get_args(types.DetailStatus)) == set(bedrock.shape_for("JobStatusDetails").enum)
    assert set(types.STATUSES) - types.TERMINAL_STATUSES == {"InProgress", "Stopping"}


def test_the_trainers_statuses_and_phases_are_bedrocks(bedrock: Any) -> None:
    words = {job_dir.COMPLETED, job_dir.FAILED, job_dir.STOPPED, job_dir.IN_PROGRESS}
    assert words < set(types.STATUSES)
    phases = bedrock.shape_for("StatusDetails").members
    assert set(job_dir.PHASES) == set(phases)
    assert list(types.to_json(types.StatusDetails())) == list(job_dir.PHASES)


def test_the_fields_of_a_job_carry_bedrocks_names(bedrock: Any) -> None:
    theirs = set(bedrock.operation_model("GetModelCustomizationJob").output_shape.members)
    shared = {"status", "statusDetails", "hyperParameters", "customizationType", "failureMessage"}
    assert shared <= theirs
    assert {"status", "statusDetails", "failureMessage"} <= set(types.to_json(_state()))


def _state() -> types.JobState:
    return types.JobState("id", "InProgress", types.StatusDetails(), "now")
