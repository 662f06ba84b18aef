"""Choose the points of a curve that a picture needs: no peak and no break is lost."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Indices = NDArray[np.intp]

LEAST_POINTS = 8


def decimate(values: Floats, limit: int) -> Indices:
    """Return the indices of at most `limit` points, in their order.

    The curve is cut into equal parts, and each part keeps its lowest, its highest and, where it has
    one, its first point that is not finite; the first and the last point are kept too. `limit` is
    at least LEAST_POINTS.
    """
    count = len(values)
    if count <= limit:
        return np.arange(count)
    finite = np.isfinite(values)
    is_whole = bool(finite.all())
    parts = (limit - 2) // (2 if is_whole else 3)
    bounds = np.linspace(0, count, parts + 1).astype(np.intp)
    low = values if is_whole else np.where(finite, values, np.inf)
    high = values if is_whole else np.where(finite, values, -np.inf)
    kept = {0, count - 1}
    for begin, end in pairwise(bounds.tolist()):
        part = finite[begin:end]
        if is_whole or part.any():
            kept.add(int(begin + np.argmin(low[begin:end])))
            kept.add(int(begin + np.argmax(high[begin:end])))
        if not is_whole and not part.all():
            kept.add(int(begin + np.argmin(part)))
    return np.array(sorted(kept), dtype=np.intp)
