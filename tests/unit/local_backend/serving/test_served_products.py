"""Products with weights in oneDNN's layout are those of PyTorch."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from local_backend.serving import products
from local_backend.serving.adapter_set import NO_ADAPTER
from local_backend.serving.products import AdaptedProduct, Product, RowAdapters, Update


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


def held_bytes(product: AdaptedProduct) -> int:
    """Return the memory of the tensors that a product refers to."""
    waiting, found = [*vars(product).values()], {}
    while waiting:
        value = waiting.pop()
        if isinstance(value, torch.Tensor):
            found[id(value)] = value.nbytes
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, tuple):
            waiting += value
    return sum(found.values())


def test_rows_of_many_adapters_get_their_own_update_and_memory_does_not_grow() -> None:
    torch.manual_seed(0)
    updates = {n: Update(torch.randn(2 + n, 40), torch.randn(24, 2 + n)) for n in range(5)}
    weight, rows = torch.randn(24, 40), RowAdapters()
    product = AdaptedProduct(Product(weight), updates, rows)
    at_first = held_bytes(product)
    device = torch.device("cpu")
    for size in range(1, 6):
        for numbers in itertools.combinations([NO_ADAPTER, *updates], size):
            x = torch.randn(len(numbers), 40)
            rows.choose(numbers, device, torch.float32)
            expected = x @ weight.T
            for at, number in enumerate(numbers):
                if number != NO_ADAPTER:
                    expected[at] += x[at] @ updates[number].down.T @ updates[number].up.T
            torch.testing.assert_close(product(x), expected, atol=1e-3, rtol=1e-3)
            assert held_bytes(product) <= 3 * at_first
