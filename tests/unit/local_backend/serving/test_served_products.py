"""Products with weights in oneDNN's layout are those of PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from local_backend.serving import products
from local_backend.serving.products import Product


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rows", [1, 7])
def test_a_product_is_that_of_pytorch(rows: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(24, 40, dtype=dtype), torch.randn(24, dtype=dtype)
    x = torch.randn(rows, 40, dtype=dtype)
    tolerance = 0.2 if dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(
        Product(weight, bias)(x), F.linear(x, weight, bias), atol=tolerance, rtol=0.02
    )


def test_a_weight_that_there_is_no_memory_for_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    if not products._multiplies(torch.float32):
        pytest.skip("this build of PyTorch has no such products")

    def fail(_: Any) -> None:
        raise RuntimeError("can't allocate memory")

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", fail)
    with pytest.raises(RuntimeError, match="can't allocate"):
        Product(torch.ones(24, 40))
