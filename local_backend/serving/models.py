"""Load the base model and the adapters of several jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from local_backend.data.template_support import probe_template
from local_backend.device import choose_device, choose_dtype
from local_backend.errors import PromptError, TrainerError
from local_backend.inference.completion import Prompt, encode_prompt
from local_backend.inference.model_variants import BASE, TUNED
from local_backend.job_dir import ARTIFACTS, MODEL, JobDir
from local_backend.models.load_model import LoadedModel, load_model
from local_backend.models.load_tokenizer import fix_template_date, load_tokenizer
from local_backend.models.weights import locate_weights
from local_backend.serving.adapter_set import NO_ADAPTER, AdapterSet
from local_backend.serving.constraint import COMPILED_AT_ONCE, STACK_BYTES, SchemaCompiler
from local_backend.serving.decoder import BatchDecoder, unsupported_reason_with
from local_backend.serving.deep_calls import DeepCalls
from local_backend.serving.plain_decoder import PlainDecoder, changes_tokens
from local_backend.serving.requests import ModelReply, OpenRequest, ServedJob
from local_backend.serving.sequences import Decoder
from local_backend.serving.token_bytes import TokenBytes
from local_backend.settings import Settings, read_settings

FULL = "full"
"""The method that leaves a whole model and no adapter."""


@dataclass(eq=False)
class ServedModel:
    """A model that requests name: weights, adapter, tokenizer and what follows from them."""

    reply: ModelReply
    loaded: LoadedModel
    decoder: Decoder
    adapter: int
    schemas: SchemaCompiler
    token_bytes: TokenBytes

    def encode(self, prompt: Prompt) -> list[int]:
        """Return the tokens of a prompt. Raise PromptError for what the model can't take."""
        try:
            return encode_prompt(self.loaded, prompt)
        except PromptError:
            raise
        except TrainerError as error:  # its chat template refuses the messages, or has no tools
            raise PromptError(error.message, fix=error.fix) from error


class _Weights:
    """A base model in memory, and the adapters on it."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.loaded, self.adapters = loaded, AdapterSet(loaded.model)
        self.parameters = sum(weight.numel() for weight in loaded.model.parameters())

    def make_decoder(self) -> Decoder:
        """Return what decodes with these weights and adapters."""
        is_plain = changes_tokens(self.loaded.model)
        if not is_plain and unsupported_reason_with(self.loaded, self.adapters) is None:
            return BatchDecoder(self.loaded, self.adapters, release_weights=True)
        return PlainDecoder(self.loaded, self.adapters)


def load_models(request: OpenRequest) -> list[ServedModel]:
    """Return the models of all jobs. Raise TrainerError."""
    jobs = request["jobs"]
    settings = [read_settings(JobDir(Path(job["folder"]))) for job in jobs]
    source = _shared_source(jobs, settings)
    device = choose_device(settings[0].device)
    dtype = choose_dtype(request.get("dtype", "auto"), device)
    base = load_model(source, dtype, device)
    fix_template_date(base.tokenizer, settings[0].created_on)
    weights = _Weights(base)
    entries: list[tuple[ServedJob, str, _Weights, LoadedModel, int]] = []
    for job, its in zip(jobs, settings, strict=True):
        folder = JobDir(Path(job["folder"])) / ARTIFACTS / MODEL
        own = base
        if folder.is_dir():
            own = replace(base, tokenizer=load_tokenizer(str(folder))[0])
        if job["name"] is not None:
            if not folder.is_dir():
                raise TrainerError(
                    f"{job['jobId']} has no tuned model yet.", fix="wait until it is Completed."
                )
            tuned, number = weights, NO_ADAPTER
            if its.method == FULL:
                own_weights = replace(
                    load_model(str(folder), dtype, device), tokenizer=own.tokenizer
                )
                tuned = _Weights(own_weights)
                entries.append((job, TUNED, tuned, own_weights, number))
            else:
                number = weights.adapters.load(folder)
                entries.append((job, TUNED, tuned, own, number))
        if job["base"] is not None:
            entries.append((job, BASE, weights, own, NO_ADAPTER))
    return _serve(entries)


def _shared_source(jobs: Sequence[ServedJob], settings: Sequence[Settings]) -> str:
    """Return where the one base model of all jobs is. Raise TrainerError if they have several."""
    sources = [locate_weights(its.model_name, its.weights) for its in settings]
    for job, source in zip(jobs, sources, strict=True):
        if source != sources[0]:
            raise TrainerError(
                f"{jobs[0]['jobId']} and {job['jobId']} were tuned from different base models:"
                f" {sources[0]} and {source}.",
                fix="serve jobs of one base model together, and the others by themselves.",
            )
    full = [job["jobId"] for job, its in zip(jobs, settings, strict=True) if its.method == FULL]
    full = [name for name in full if len(jobs) > 1]
    if full:
        raise TrainerError(
            f"{full[0]} has tuned all weights, so it shares none with other jobs.",
            fix=f"serve {full[0]} by itself.",
        )
    return sources[0]


def _serve(
    entries: Sequence[tuple[ServedJob, str, _Weights, LoadedModel, int]],
) -> list[ServedModel]:
    decoders: dict[_Weights, Decoder] = {}
    tokenizers: dict[int, tuple[SchemaCompiler, TokenBytes]] = {}
    calls = DeepCalls(COMPILED_AT_ONCE, STACK_BYTES)
    served = []
    for job, variant, weights, loaded, adapter in entries:
        if weights not in decoders:
            decoders[weights] = weights.make_decoder()
        decoder = decoders[weights]
        reply: ModelReply = {
            "name": str(job["name"] if variant == TUNED else job["base"]),
            "jobId": job["jobId"],
            "variant": variant,
            "context": loaded.context_length,
            "parameters": weights.parameters,
            "features": sorted(probe_template(loaded.tokenizer, with_tools=True).features),
        }
        if id(loaded) not in tokenizers:  # a job's adapter and its base share one
            schemas = SchemaCompiler(loaded, decoder.vocabulary, calls)
            tokenizers[id(loaded)] = schemas, TokenBytes(loaded.tokenizer)
        served.append(ServedModel(reply, loaded, decoder, adapter, *tokenizers[id(loaded)]))
    names = [model.reply["name"] for model in served]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise TrainerError(
            f"Two models would be called {double[0]}.", fix="give each job a name of its own."
        )
    return served
