"""cloudft: fine-tune a language model from one job file, on this machine or in the cloud.

The CLI is a thin layer over this API:

    from cloudft import Home, Store, load_job, make_backend, prepare, submit, wait

    home = Home.from_environ()
    local = make_backend("local", home)
    staged, warnings = prepare(load_job(Path("cloudft.yaml")), local, home)
    job = submit(staged, local, Store(home.jobs))
    state = wait(local, job.record.id, poll=1)
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "Home": "cloudft.storage.home",
    "Store": "cloudft.storage.store",
    "check": "cloudft.jobs.prepare",
    "load_job": "cloudft.spec.load",
    "make_backend": "cloudft.backends",
    "prepare": "cloudft.jobs.prepare",
    "submit": "cloudft.jobs.lifecycle",
    "wait": "cloudft.jobs.wait",
    "CloudftError": "cloudft.errors",
}
__all__ = [*_EXPORTS, "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import cloudft` loads nothing."""
    if name not in _EXPORTS:
        raise AttributeError(f"module 'cloudft' has no attribute {name!r}")
    return getattr(import_module(_EXPORTS[name]), name)
