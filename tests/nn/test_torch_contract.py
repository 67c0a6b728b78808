"""What torch's own recurrent modules do beside computing, and so do these: tracing, devices, empty batches, strides."""

from collections.abc import Callable
from functools import partial
from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from urzoo.errors import ShapeError, UsageError
from urzoo.nn import URGRU, URLSTM, Stream, URGRUCell, URLSTMCell

LAYERS = {"lstm": URLSTM, "gru": URGRU, "two layers both ways": partial(URLSTM, num_layers=2, bidirectional=True)}
CELLS = {"lstm": URLSTMCell, "gru": URGRUCell}
each_layer = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
each_cell = pytest.mark.parametrize("make", CELLS.values(), ids=CELLS)
every_module = pytest.mark.parametrize("make", [*LAYERS.values(), *CELLS.values()])


def parts(found: Tensor | tuple) -> list[Tensor]:
    """All tensors of what a module returns, in order."""
    return [found] if isinstance(found, Tensor) else [tensor for part in found for tensor in parts(part)]


@pytest.mark.filterwarnings("ignore:`torch.jit", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("gradients", [True, False])
@every_module
@pytest.mark.parametrize("time", [1, 5])
def test_torch_jit_traces_it(time: int, make: Callable, gradients: bool):
    module = make(3, 4)
    inputs = (
        torch.randn(time, 2, 3)
        if isinstance(module, nn.Module) and hasattr(module, "num_layers")
        else torch.randn(2, 3)
    )
    with torch.set_grad_enabled(gradients):
        traced = torch.jit.trace(module, inputs)
    other = torch.randn_like(inputs)
    for ours, eager in zip(parts(traced(other)), parts(module(other)), strict=True):
        torch.testing.assert_close(ours, eager)


@pytest.mark.filterwarnings("ignore:`torch.jit")
@every_module
def test_torch_jit_script_is_refused_in_one_line(make: Callable):
    for module in (make(3, 4), nn.Sequential(make(3, 4))):
        with pytest.raises(UsageError, match=r"^torch\.jit\.script cannot compile UR\w+; take torch\.compile, .*$"):
            torch.jit.script(module)


def test_all_weights_lists_the_parameters_as_torch_does():
    ours = URLSTM(3, 4, 2, bidirectional=True)
    theirs = nn.LSTM(3, 4, 2, bidirectional=True)
    assert [[*map(id, each)] for each in ours.all_weights] == [
        [id(getattr(ours, f"{name}{suffix}")) for name in ("weight_ih", "weight_hh", "bias", "forget_bias")]
        for suffix in ("_l0", "_l0_reverse", "_l1", "_l1_reverse")
    ]
    assert len(ours.all_weights) == len(theirs.all_weights)
    assert [len(each) for each in URGRU(3, 4, bias=False, gate="O-").all_weights] == [2]


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("gradients", [True, False])
def test_an_empty_batch_gives_empty_outputs_as_in_torch(batch_first: bool, gradients: bool):
    inputs = torch.zeros((0, 5, 3) if batch_first else (5, 0, 3))
    for ours, theirs in ((URLSTM, nn.LSTM), (URGRU, nn.GRU)):
        modules = [kind(3, 4, 2, batch_first=batch_first, bidirectional=True) for kind in (ours, theirs)]
        with torch.set_grad_enabled(gradients):
            found, expected = (parts(module(inputs)) for module in modules)
        assert [part.shape for part in found] == [part.shape for part in expected]
        if gradients:
            found[0].sum().backward()
            assert all(parameter.grad.abs().sum() == 0 for parameter in modules[0].parameters())
    for ours, theirs in ((URLSTMCell, nn.LSTMCell), (URGRUCell, nn.GRUCell)):
        found, expected = (parts(cell(3, 4)(torch.zeros(0, 3))) for cell in (ours, theirs))
        assert [part.shape for part in found] == [part.shape for part in expected]


@every_module
def test_shapes_come_out_on_the_meta_device(make: Callable):
    shape = (5, 2, 3) if make in LAYERS.values() else (2, 3)
    found = parts(make(3, 4, device="meta")(torch.zeros(shape, device="meta")))
    expected = parts(make(3, 4)(torch.zeros(shape)))
    assert [(part.shape, part.dtype) for part in found] == [(part.shape, part.dtype) for part in expected]
    assert all(part.is_meta for part in found)


STRIDES: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda tensor: tensor.movedim(0, -1).contiguous().movedim(-1, 0),
    "every second": lambda tensor: torch.stack([tensor, tensor], dim=-1)[..., 0],
    "a part": lambda tensor: torch.cat([tensor, tensor], dim=-1)[..., : tensor.shape[-1]],
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gate", ["UR", "O-"])
@pytest.mark.parametrize("strides", STRIDES)
@every_module
def test_strides_of_parameters_inputs_and_state_make_no_difference(
    make: Callable, strides: str, gate: str, dtype: torch.dtype
):
    torch.manual_seed(0)
    module = make(3, 4, gate=gate, dtype=dtype)
    layer = make in LAYERS.values()
    inputs = torch.randn((5, 2, 3) if layer else (2, 3), dtype=dtype)
    state = parts(module(inputs))[layer:]
    expected = _results(module, inputs, state)
    for parameter in module.parameters():
        parameter.data = STRIDES[strides](parameter.data)
    found = _results(module, STRIDES[strides](inputs), [STRIDES[strides](part) for part in state])
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("save", ["activations", "recompute"])
@pytest.mark.parametrize("strides", STRIDES)
@each_layer
def test_so_do_those_of_what_hooks_hand_back_of_saved_tensors(make: Callable, strides: str, save: str):
    layer, inputs = make(3, 21, save=save), torch.randn(5, 2, 3)
    expected = torch.autograd.grad(layer(inputs)[0].square().sum(), list(layer.parameters()))
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, STRIDES[strides]):
        loss = layer(inputs)[0].square().sum()
    for ours, theirs in zip(torch.autograd.grad(loss, list(layer.parameters())), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def _results(module: nn.Module, inputs: Tensor, state: list[Tensor]) -> list[Tensor]:
    """What it returns with and without gradients, and the gradients."""
    hx = tuple(part.detach() for part in state) if len(state) > 1 else state[0].detach()
    with torch.no_grad():
        found = parts(module(inputs, hx))
    differentiated = parts(module(inputs, hx))
    loss = sum(part.float().sum() for part in differentiated)
    gradients = torch.autograd.grad(loss, list(module.parameters()))
    return [*found, *(part.detach() for part in differentiated), *gradients]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_16_bit_gru_cell_returns_its_dtype_as_torchs_does(dtype: torch.dtype):
    ours, theirs = URGRUCell(3, 4, dtype=dtype), nn.GRUCell(3, 4, dtype=dtype)
    inputs = torch.randn(2, 3, dtype=dtype)
    for cell in (ours, theirs):
        hidden = cell(inputs)
        assert hidden.dtype == dtype
        assert cell(inputs, hidden).dtype == dtype
        assert nn.Linear(4, 2, dtype=dtype)(hidden).dtype == dtype
    with torch.autocast("cpu", torch.bfloat16):
        assert URGRUCell(3, 4)(torch.randn(2, 3)).dtype == torch.float32  # what is carried is not rounded


@torch.no_grad()
@pytest.mark.parametrize("time", [1, 5])
@pytest.mark.parametrize("backend", [None, "reference"])
@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS)
def test_outputs_that_are_written_to_in_place_leave_the_state_as_it_is(make: Callable, backend: str | None, time: int):
    layer, inputs = make(3, 4, backend=backend), torch.randn(time, 2, 3)
    expected = parts(layer(inputs)[1])
    outputs, state = layer(inputs)
    outputs.zero_()
    assert all(map(torch.equal, parts(state), expected))


@pytest.mark.parametrize("batch", [2, 70])
@pytest.mark.parametrize("time", [1, 5])
@every_module
def test_float16_under_autocast_is_multiplied_as_bfloat16(make: Callable, time: int, batch: int):
    layer = make in LAYERS.values()
    if time > 1 and not layer:
        return
    fused, plain = make(3, 40).half(), make(3, 40, backend="reference").half()
    plain.load_state_dict(fused.state_dict())
    inputs = torch.randn((time, batch, 3) if layer else (batch, 3)).half()
    with torch.autocast("cpu", torch.bfloat16):
        state = [part.half() for part in parts(plain(inputs))[layer:]]
        for ours, theirs in zip(_results(fused, inputs, state), _results(plain, inputs, state), strict=True):
            assert ours.dtype == theirs.dtype
            torch.testing.assert_close(ours, theirs, rtol=3e-2, atol=3e-2 * max(1.0, float(theirs.abs().max())))
        if layer and not fused.bidirectional:
            stream = Stream(fused, batch)
            found = torch.stack([stream(step) for step in inputs])
            torch.testing.assert_close(found, plain(inputs)[0], rtol=3e-2, atol=3e-2)


@torch.no_grad()
@pytest.mark.parametrize("autocast", [None, torch.bfloat16, torch.float16])
@every_module
def test_any_mixture_of_dtypes_is_computed_or_refused_as_by_the_reference(make: Callable, autocast: torch.dtype | None):
    """The compiled library reads and writes memory as of the dtypes that it is told."""
    layer = make in LAYERS.values()
    dtypes = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    fused, plain = make(3, 17), make(3, 17, backend="reference")
    plain.load_state_dict(fused.state_dict())
    inputs = torch.randn((1, 2, 3) if layer else (2, 3))
    state = parts(plain(inputs))[layer:]
    for weights, biases, given, carried in product(dtypes, repeat=4):
        found = []
        for module in (fused, plain):
            for name, parameter in module.named_parameters():
                parameter.data = parameter.data.to(weights if name.startswith("weight") else biases)
            hx = tuple(part.to(carried) for part in state)
            with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
                try:
                    found.append(parts(module(inputs.to(given), hx if len(hx) > 1 else hx[0])))
                except ShapeError as error:
                    found.append(str(error))
        ours, theirs = found
        if isinstance(ours, str) or isinstance(theirs, str):
            assert ours == theirs
        else:
            torch.testing.assert_close(ours, theirs, rtol=3e-2, atol=3e-2)


@every_module
def test_another_default_device_makes_no_difference(make: Callable):
    inputs = torch.randn((5, 2, 3) if make in LAYERS.values() else (2, 3))
    torch.manual_seed(0)
    expected = make(3, 4)
    with torch.device("meta"):
        torch.manual_seed(0)
        found = make(3, 4, device="cpu")
        state = parts(expected(inputs))[make in LAYERS.values() :]
        results = _results(found, inputs, state)
    assert all(map(torch.equal, found.parameters(), expected.parameters()))
    assert all(map(torch.equal, results, _results(expected, inputs, state)))


def test_a_packed_sequence_runs_where_another_device_is_the_default():
    packed = pack_sequence([torch.randn(4, 3), torch.randn(2, 3)])
    for layer in (nn.LSTM(3, 4), URLSTM(3, 4)):
        expected = layer(packed)[0].data
        with torch.device("meta"):
            assert torch.equal(layer(packed)[0].data, expected)


@pytest.mark.parametrize("default", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("save", ["activations", "recompute"])
@every_module
def test_torchs_default_dtype_makes_no_difference(make: Callable, save: str, dtype: torch.dtype, default: torch.dtype):
    def run() -> list[Tensor]:
        torch.manual_seed(0)
        options = {"save": save} if make in LAYERS.values() else {}
        module = make(3, 40, dtype=dtype, **options)
        inputs = torch.randn((5, 2, 3) if options else (2, 3), dtype=dtype)
        return [*_results(module, inputs, parts(module(inputs))[bool(options) :]), *module.parameters()]

    expected = run()
    torch.set_default_dtype(default)
    try:
        found = run()
    finally:
        torch.set_default_dtype(torch.float32)
    for ours, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=0)
