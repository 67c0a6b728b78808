"""The machine's limit for matrix products, measured in place: no recurrence can be faster than its products.

For float32 it is the better of oneDNN on a packed weight and torch.mm: on AVX-512 machines torch.mm goes
through a slower path, and a bound taken from it alone would flatter everyone. For bfloat16 torch.mm goes
through oneDNN already.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from urzoo.benchmark.timing import Call

# Rows, inner and columns. On a CPU the operands sit in the second-level caches and give the best figure of the
# sizes tried; a GPU needs more work than that to be busy.
CPU_PRODUCT = (256, 512, 2048)
CUDA_PRODUCT = (4096, 4096, 4096)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def product_flops(device: torch.device) -> int:
    """Floating-point operations of one call of the products that `products` returns."""
    rows, inner, columns = CUDA_PRODUCT if device.type == "cuda" else CPU_PRODUCT
    return 2 * rows * inner * columns


def products(dtype: str, device: torch.device) -> dict[str, Call]:
    """The ways to run one large product in `dtype` ("fp32", "bf16" or "fp16"), by name."""
    rows, inner, columns = CUDA_PRODUCT if device.type == "cuda" else CPU_PRODUCT
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(rows, inner, generator=generator).to(device, DTYPES[dtype])
    weight = torch.randn(columns, inner, generator=generator).to(device, DTYPES[dtype])
    right = weight.t()

    def through_torch() -> Tensor:
        with torch.no_grad():
            return torch.mm(left, right)

    ways: dict[str, Call] = {f"torch.mm-{dtype}": through_torch}
    if dtype == "fp32" and device.type == "cpu" and torch._C._has_mkldnn:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)

        def through_onednn() -> Tensor:
            result: Tensor = torch.ops.mkldnn._linear_pointwise(left, packed, None, "none", [], "")
            return result

        ways[f"onednn-{dtype}"] = through_onednn
    return ways


def limit_flops_per_second(seconds: Mapping[str, Sequence[float]], dtype: str, device: torch.device) -> list[float]:
    """The limit in each round: the best of the ways in `dtype` that were timed in `seconds`."""
    ways = [values for name, values in seconds.items() if name in (f"torch.mm-{dtype}", f"onednn-{dtype}")]
    return [product_flops(device) / min(times) for times in zip(*ways, strict=True)]
