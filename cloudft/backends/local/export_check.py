"""Check what the runtimes of the job file would read otherwise, before the job is started."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cloudft import catalogue
from cloudft.backends.findings import FindingFactory
from cloudft.backends.local.request import build_exports_request
from cloudft.backends.local.trainer_program import run_trainer_program
from cloudft.backends.trained_model import trained_model
from cloudft.errors import TrainerError
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding

FIELD = "export.for"


def check_exports(job: LoadedJob, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what each runtime under `export.for` would take otherwise from the tuned model.

    A warning where that can't be found out: the weights are not on this machine. A note names the
    runtimes of which nothing was found.
    """
    model, finding = trained_model(job), FindingFactory(job)
    if job.spec.export is None or model is None:
        return
    if not any(present for _, present, _ in catalogue.find_weights(model)):
        message = f"what runtimes would read is not known: {model.alias} is not on this machine"
        yield finding("CouldNotCheck", FIELD, message, "download it, and check again.", "warning")
        return
    try:
        request = build_exports_request(job)
        silent = dict.fromkeys(runtime for runtime, _ in job.spec.export.exports)
        for reply in run_trainer_program(["local_backend.export.check"], environ, request=request):
            silent.pop(reply["runtime"], None)
            is_error = reply["severity"] == "error"
            code = "NotForRuntime" if is_error else "RuntimeDiffers"
            severity = reply["severity"]
            yield finding(code, FIELD, reply["message"], reply["fix"], severity)
        if silent:
            message = f"nothing is known that {', '.join(silent)} would read otherwise"
            yield finding("RuntimesCompared", FIELD, message, "", "note")
    except TrainerError as error:
        message = f"what runtimes would read is not known: {error.message}"
        yield finding("CouldNotCheck", FIELD, message, error.fix or "", "warning")
