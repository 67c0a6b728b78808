"""What surrounds recorded graphs: fixed tensors filled and copied out. On the CPU a replay runs the loop again."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: pip install 'urzoo[triton]'")

from urzoo.nn import URLSTM

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="with a CUDA device the real graphs are tested")


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lets shapes be recorded on the CPU; the list grows by one entry for every replay."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    from urzoo.recurrence.triton import graphs, loops, ops

    seen: list[str] = []

    def record(run):
        def replay() -> None:
            seen.append("replay")
            run()

        return replay

    monkeypatch.setattr(graphs, "can_record", lambda device: True)
    monkeypatch.setattr(graphs, "record", record)
    monkeypatch.setattr(ops, "_FORWARD", graphs.Recorder(loops.forward, backward=False))
    monkeypatch.setattr(ops, "_BACKWARD", graphs.Recorder(loops.backward, backward=True))
    return seen


def gradients(module: URLSTM, batches: torch.Tensor) -> list[torch.Tensor]:
    """Outputs and gradients with all forward passes before the first backward pass."""
    outputs = [module(batch)[0] for batch in batches]
    found = [output.detach().clone() for output in outputs]
    for output in outputs:
        found += torch.autograd.grad(output.square().sum(), list(module.parameters()))
    return found


def test_replays_share_a_graph_and_not_their_results(replays: list[str]):
    torch.manual_seed(0)
    # Two layers of one shape, so that layers share the graph as well.
    module = URLSTM(4, 4, 2, backend="triton")
    plain = URLSTM(4, 4, 2, backend="reference")
    plain.load_state_dict(module.state_dict())
    batches = torch.randn(4, 3, 2, 4)
    torch.testing.assert_close(gradients(module, batches), gradients(plain, batches))
    # 8 calls each way, of which the first two run plainly.
    assert len(replays) == 12
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.5)
    plain.load_state_dict(module.state_dict())
    torch.testing.assert_close(gradients(module, batches), gradients(plain, batches))
    assert len(replays) == 28


def test_only_the_latest_shapes_keep_a_graph(replays: list[str], monkeypatch: pytest.MonkeyPatch):
    from urzoo.recurrence.triton import graphs, ops

    monkeypatch.setattr(graphs, "RECORDED_SHAPES", 2)
    module = URLSTM(3, 4, backend="triton")
    with torch.no_grad():
        for time in (1, 2, 3):
            for _ in range(3):
                module(torch.randn(time, 2, 3))
    assert len(replays) == 3
    assert [key[0].time for key in ops._FORWARD._recorded] == [2, 3]


def test_released_graphs_are_recorded_anew(replays: list[str]):
    from urzoo.recurrence import triton
    from urzoo.recurrence.triton import ops

    module = URLSTM(3, 4, backend="triton")
    inputs = torch.randn(2, 2, 3)
    with torch.no_grad():
        first = [module(inputs)[0] for _ in range(3)]
        assert ops._FORWARD._recorded
        triton.release()
        assert not ops._FORWARD._recorded
        again = [module(inputs)[0] for _ in range(3)]
    assert len(replays) == 2
    assert all(torch.equal(one, first[0]) for one in (*first, *again))


def test_a_shape_too_large_to_record_runs_plainly(replays: list[str], monkeypatch: pytest.MonkeyPatch):
    from urzoo.recurrence.triton import graphs

    def refuse(run):
        raise torch.cuda.OutOfMemoryError("no memory left")

    monkeypatch.setattr(graphs, "record", refuse)
    module = URLSTM(3, 4, backend="triton")
    inputs = torch.randn(2, 2, 3)
    with torch.no_grad():
        results = [module(inputs)[0] for _ in range(4)]
    assert all(torch.equal(result, results[0]) for result in results)
    assert not replays
