"""The kernels compile for real GPUs, which needs none; and, where there is one, its graphs replay what was run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: pip install 'urzoo[triton]'")

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu_kernels"


@pytest.mark.parametrize(
    "capability", [pytest.param(80, marks=pytest.mark.slow), 90, pytest.param(100, marks=pytest.mark.slow)]
)
def test_every_kernel_compiles_for_a_gpu_and_spills_nothing(capability: int, tmp_path: Path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(SCRIPT), str(capability)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 1 + 4 * 6  # two dtypes, all flags on and off, of six kernels


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
