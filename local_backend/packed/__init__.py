"""The packed path: the fast forward pass of training, for models with Llama's blocks.

Nothing else imports the modules of this folder. training/loss.py chooses between this path and the
padded one, which takes the model's own forward pass and which tests compare this one with.
"""

from local_backend.packed.decode import PackedDecoder
from local_backend.packed.families import FAMILIES, ModelFamily, unsupported_reason
from local_backend.packed.loss import PackedLoss

__all__ = ["FAMILIES", "ModelFamily", "PackedDecoder", "PackedLoss", "unsupported_reason"]
