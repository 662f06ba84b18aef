"""The packed path: the fast forward pass of training, for decoders of the families in its table.

Nothing else imports the modules of this folder. training/loss.py chooses between this path and the
padded one, which takes the model's own forward pass and which tests compare this one with.
"""

from local_backend.packed.decode import PackedDecoder
from local_backend.packed.families import FAMILIES, ModelFamily, find_family
from local_backend.packed.kernels import use_kernels
from local_backend.packed.kernels.choice import JobSize, choose_kernels
from local_backend.packed.loss import PackedLoss
from local_backend.packed.support import unsupported_reason

__all__ = [
    "FAMILIES",
    "JobSize",
    "ModelFamily",
    "PackedDecoder",
    "PackedLoss",
    "choose_kernels",
    "find_family",
    "unsupported_reason",
    "use_kernels",
]
