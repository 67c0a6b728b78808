"""The kernels compile for real GPUs, which needs none; and, where there is one, its graphs replay what was run."""

import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: pip install 'urzoo[triton]'")

COMPILE = """
import itertools, sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton import compile
from urzoo.recurrence.triton import kernels

exact = {"product", "gates", "cell_before", "cell_after", "cell_grad", "hidden_grad", "passed_grad", "carry_before",
         "carry_after", "update", "recalled_grad", "sums"}
sizes = {"rows": "i32", "hidden_size": "i32", "mask": "*u8"}
count = 0
for name in sys.argv[2:]:
    kernel = getattr(kernels, name)
    flags = [flag for flag in ("TIED", "REFINED", "MASKED", "SAVE", "SUM") if flag in kernel.arg_names]
    for dtype, values in itertools.product(("fp32", "bf16"), ((False,) * len(flags), (True,) * len(flags))):
        constants = dict(zip(flags, values)) | {"BLOCK": kernels.BLOCK}
        signature = {
            argument: "constexpr" if argument in constants
            else sizes.get(argument, "*fp32" if argument in exact else "*" + dtype)
            for argument in kernel.arg_names
        }
        source = ASTSource(kernel, signature=signature, constexprs=constants)
        assert compile(source, target=GPUTarget("cuda", int(sys.argv[1]), 32)).asm["cubin"]
        count += 1
print(count)
"""
KERNELS = [
    "lstm_forward",
    "lstm_backward",
    "gru_gates_forward",
    "gru_candidate_forward",
    "gru_candidate_backward",
    "gru_reset_backward",
]


@pytest.mark.parametrize("capability", [pytest.param(80, marks=pytest.mark.slow), 90])
def test_every_kernel_compiles_for_a_gpu(capability: int, tmp_path: object):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, str(capability), *KERNELS],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 4 * len(KERNELS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_graphs_replay_what_the_plain_loop_computes(kind: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    from urzoo.nn import URGRU, URLSTM
    from urzoo.recurrence.triton import graphs, ops

    torch.manual_seed(0)
    module = (URLSTM if kind == "lstm" else URGRU)(3, 64, 2, device="cuda", dtype=dtype, backend="triton")
    batches = torch.randn(5, 20, 8, 3, device="cuda", dtype=dtype)

    def run() -> list[torch.Tensor]:
        results = []
        for batch in batches:
            module.zero_grad()
            outputs, _ = module(batch)
            outputs.float().square().sum().backward()
            results += [outputs.detach().clone(), *(parameter.grad.clone() for parameter in module.parameters())]
        return results

    with monkeypatch.context() as patch:
        patch.setattr(graphs, "can_record", lambda device: False)
        expected = run()
    recorded = run()
    assert ops._FORWARD._recorded
    assert ops._BACKWARD._recorded
    assert all(torch.equal(one, other) for one, other in zip(recorded, expected, strict=True))
