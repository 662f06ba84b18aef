"""The environment of the trainer's programs: an allow-list of variables.

Credentials, addresses of databases and whatever else a shell has never reach a process that runs a
model and writes a log.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from cloudft.errors import BadDocument
from cloudft.storage.documents import decode
from cloudft.storage.home import Home

ALLOWED_NAMES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TZ", "LANG", "LANGUAGE", "TERM", "NO_COLOR"),
        *("TMPDIR", "TMP", "TEMP", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "VIRTUAL_ENV", "CONDA_PREFIX", "NLTK_DATA"),
        *("HF_HOME", "HF_ENDPOINT", "HF_MODULES_CACHE", "HUGGINGFACE_HUB_CACHE"),
        *("HF_HUB_DISABLE_IMPLICIT_TOKEN", "SSL_CERT_FILE", "SSL_CERT_DIR"),
        *("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
    }
)
ALLOWED_PREFIXES = (
    *("LC_", "PYTHON", "DYLD_"),
    *("CUDA_", "CUBLAS_", "CUDNN_", "NVIDIA_", "NCCL_", "GLOO_", "HIP_", "HSA_", "ROCR_", "ROCM_"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "DNNL_", "ONEDNN_", "OPENBLAS_", "VECLIB_", "NUMEXPR_"),
    *("MALLOC_", "TORCH_", "TORCHINDUCTOR_", "PYTORCH_", "TRITON_", "BNB_", "ACCELERATE_"),
    *("HF_HUB_", "HF_DATASETS_", "TRANSFORMERS_", "TOKENIZERS_", "SAFETENSORS_", "TQDM_"),
)
SECRET_NAME = re.compile(r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|APIKEY|KEY)(?:_|$)")
"""A name with such a word is kept out, whatever it begins with."""
HUB_NAMES = frozenset(
    {
        *("HF_TOKEN", "HF_TOKEN_PATH", "HUGGING_FACE_HUB_TOKEN"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    }
)
"""What a program needs besides that downloads: a gated model's token, proxies with a password."""


SHARED_MACHINE_ENVIRON = {"GOMP_SPINCOUNT": "1000", "MALLOC_ARENA_MAX": "1"}
"""How long a thread of GNU OpenMP spins before it sleeps. By default it spins so long that two
trainers on one machine come to a tenth of their speed; see benchmarks/RESULTS.md. And one arena of
glibc's malloc instead of one a thread: a tenth less memory, at the same speed."""


class WeightLocation(msgspec.Struct):
    """A location of a model's weights, as job.json names it."""

    kind: str
    module: str | None = None
    path: str | None = None
    base: list[WeightLocation] = []
    """Of a job's model, the locations of what the job started from."""


class _Model(msgspec.Struct):
    weights: list[WeightLocation] = []


class _Distillation(msgspec.Struct):
    teacher: _Model


class _Job(msgspec.Struct):
    model: _Model
    distillation: _Distillation | None = None


def trainer_environment(home: Home, *, hub: bool) -> dict[str, str]:
    """Return the environment of the trainer's programs. `hub` allows what a download needs."""
    kept = filter_environment(os.environ, hub=hub)
    ours = {
        "CLOUDFT_MODEL_CACHE": str(home.models),
        "CLOUDFT_TOKEN_CACHE": str(home.tokens),
        "PYTHONUNBUFFERED": "1",
    }
    return SHARED_MACHINE_ENVIRON | kept | ours


def filter_environment(environ: Mapping[str, str], *, hub: bool) -> dict[str, str]:
    """Return the allowed variables of `environ`. `hub` allows those that a download needs."""
    return {name: value for name, value in environ.items() if _is_allowed(name, hub)}


def _is_allowed(name: str, hub: bool) -> bool:
    if name in ALLOWED_NAMES or (hub and name in HUB_NAMES):
        return True
    return name.startswith(ALLOWED_PREFIXES) and not SECRET_NAME.search(name)


def job_needs_download(job_file: Path) -> bool:
    """Return whether only the model hub has a job's model or its teacher.

    False where its job.json can't be read: the trainer reports that.
    """
    try:
        job = decode(job_file.read_bytes(), _Job, file=job_file)
    except (OSError, BadDocument):
        return False
    models = [job.model] if job.distillation is None else [job.model, job.distillation.teacher]
    return any(needs_download(model.weights) for model in models)


def needs_download(weights: Iterable[WeightLocation]) -> bool:
    """Return whether only the model hub has the weights: no other location exists."""
    places = list(weights)
    if any(needs_download(place.base) for place in places if place.base):
        return True
    return any(place.kind == "hub" for place in places) and not any(map(_is_present, places))


def _is_present(place: WeightLocation) -> bool:
    if place.kind == "package" and place.module:
        return importlib.util.find_spec(place.module) is not None
    return place.kind == "folder" and place.path is not None and Path(place.path).is_dir()
