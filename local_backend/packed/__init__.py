"""The packed path: the fast forward pass of training, for decoders of the families in its table.

Nothing else imports the modules of this folder: what others may use is named here. training/loss.py
chooses between this path and the padded one, which takes the model's own forward pass and which
tests compare this one with. serving/ computes the same blocks for sequences that come and go.
"""

from local_backend.packed.attention import AttentionKind, apply_rotary, softmax_with_sinks
from local_backend.packed.block import PackedBlock
from local_backend.packed.decode import PackedDecoder
from local_backend.packed.families import FAMILIES, ModelFamily, find_family
from local_backend.packed.kernels import use_kernels
from local_backend.packed.kernels.choice import JobSize, choose_kernels
from local_backend.packed.layers import AttentionLayer
from local_backend.packed.loss import PackedLoss
from local_backend.packed.model import PackedModel
from local_backend.packed.projections import FusedProjection
from local_backend.packed.support import unsupported_reason

__all__ = [
    "FAMILIES",
    "AttentionKind",
    "AttentionLayer",
    "FusedProjection",
    "JobSize",
    "ModelFamily",
    "PackedBlock",
    "PackedDecoder",
    "PackedLoss",
    "PackedModel",
    "apply_rotary",
    "choose_kernels",
    "find_family",
    "softmax_with_sinks",
    "unsupported_reason",
    "use_kernels",
]
