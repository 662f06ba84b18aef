"""Check what `method: qlora` needs here, and say what it costs on a CPU."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from cloudft.backends.findings import FindingFactory
from cloudft.backends.trained_model import count_parameters, trained_model
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding

FIELD = "local.method"
LEAST_PARAMETERS = 500_000_000
"""Below that, QLoRA on a CPU takes no less memory than LoRA on the packed path."""
PRICE = (
    "4-bit weights on a CPU take 0.6 bytes a parameter instead of 2, and a step up to three times"
    " LoRA's time on the packed path, 1.7 times that on the padded one"
)
"""The same as the trainer's (local_backend/models/four_bits.py), which has the figures."""


def check_four_bits(
    job: LoadedJob, device: str, packages: Collection[str], *, packed: bool
) -> Iterator[Finding]:
    """Yield an error where the trainer would refuse, and a warning with the price on a CPU.

    `device` is the one that the trainer chooses, `packages` what is installed of those it uses,
    `packed` whether LoRA would take the packed path.
    """
    finding = FindingFactory(job)
    if device not in ("cuda", "cpu"):
        message = f"local.method is qlora, and no 4-bit weights are computed on the device {device}"
        yield finding("NoSuchDevice", FIELD, message, "use `method: lora`, or `device: cpu`.")
        return
    if "bitsandbytes" not in packages:
        message = "local.method is qlora, and bitsandbytes is not installed"
        fix = "pip install 'cloudft[qlora]', or use `method: lora`."
        yield finding("QloraNotInstalled", FIELD, message, fix)
        return
    if device == "cuda":
        return
    model = trained_model(job)
    count = count_parameters(model) if model else None
    if packed and count is not None and count < LEAST_PARAMETERS:
        message = (
            f"local.method is qlora, and the model has {count / 1e6:.0f} million parameters: on a"
            f" CPU, LoRA takes no more memory below {LEAST_PARAMETERS / 1e6:.0f} million, and less"
            " time"
        )
        yield finding("QloraDoesNotPay", FIELD, message, "use `method: lora`.")
        return
    yield finding("SlowQlora", FIELD, PRICE, "use `method: lora` where that fits.", "warning")
