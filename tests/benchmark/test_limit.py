import math

import pytest
import torch

from urzoo.benchmark.limit import limit_flops_per_second, product_flops, products

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_every_way_to_the_limit_computes_the_same_product(dtype):
    results = [call() for call in products(dtype, CPU).values()]
    assert results
    for result in results:
        torch.testing.assert_close(result, results[0], rtol=2e-3, atol=2e-3)


def test_the_limit_is_the_better_way_of_each_round():
    seconds = {"torch.mm-fp32": [2.0, 1.0], "onednn-fp32": [1.0, 4.0], "torch.mm-bf16": [0.1, 0.1], "urzoo": [9.0, 9.0]}
    assert limit_flops_per_second(seconds, "fp32", CPU) == [product_flops(CPU)] * 2
    assert all(math.isclose(rate, product_flops(CPU) * 10) for rate in limit_flops_per_second(seconds, "bf16", CPU))
