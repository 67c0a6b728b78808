import pytest
import torch

from urzoo.benchmark import timing
from urzoo.benchmark.agreement import DisagreementError, check_gradients, check_outputs
from urzoo.benchmark.contenders import CONTENDERS, Contender, Layer, Workload, absence, contenders_named, takes_part
from urzoo.benchmark.figures import Contest, build_layers
from urzoo.benchmark.measurements import FIGURES, find
from urzoo.benchmark.memory import measure, peak_memory_mib
from urzoo.benchmark.run import run_benchmark
from urzoo.benchmark.shapes import Shape, shape_named
from urzoo.benchmark.training_step import TrainingStep
from urzoo.errors import UrzooError, UsageError
from urzoo.recurrence import Gating, backends

CPU = torch.device("cpu")
TINY = shape_named("b3t7i2h9")
PEER_INSTALLED = absence(CONTENDERS["ur-lstm-torch"], Gating(), CPU) == ""
ONNX_INSTALLED = absence(CONTENDERS["onnxruntime-lstm"], Gating(), CPU) == ""


@pytest.fixture(autouse=True)
def _short_samples(monkeypatch):
    """No figure is asserted here, so that single calls are long enough."""
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 0.0001)


def layers(names, gating=None, shape=TINY):
    workload = Workload(shape, gating or Gating(), CPU)
    return {name: Layer(CONTENDERS[name], workload) for name in names}


@pytest.mark.parametrize("input_size", [1, 2])
def test_all_usable_contenders_agree(input_size):
    contest = Contest(Shape("tiny", 3, 7, input_size, 9), "forward_backward")
    built, _ = build_layers(contest, list(CONTENDERS.values()), Gating(), CPU)
    assert "urzoo-reference" in built
    assert ("urzoo-cpu" in built) == (absence(CONTENDERS["urzoo-cpu"], Gating(), CPU) == "")
    check_outputs(built)
    check_gradients(built)


def test_torch_lstm_agrees_where_the_gating_is_its_own():
    gating = Gating("--", tie_input_gate=False)
    built = layers(["urzoo-reference", "torch-lstm", "torch-lstm-bf16"], gating)
    check_outputs(built)
    check_gradients(built)
    with torch.no_grad():
        built["torch-lstm"]._module.weight_hh_l0.mul_(1.1)
    with pytest.raises(DisagreementError, match="'torch-lstm' disagrees with 'urzoo-reference'"):
        check_outputs(built)


@pytest.mark.parametrize("parameter", ["weight_hh_l0", "forget_bias_l0"])
def test_a_planted_fault_is_caught_before_timing(parameter):
    # The stand-in is a second layer of the reference, one of whose parameters is not the others'.
    workload = Workload(TINY, Gating(), CPU)
    built = {name: Layer(CONTENDERS["urzoo-reference"], workload) for name in ("honest", "faulty")}
    check_outputs(built)
    check_gradients(built)
    with torch.no_grad():
        getattr(built["faulty"]._module, parameter).add_(0.05)
    with pytest.raises(DisagreementError, match="'faulty' disagrees with 'honest'"):
        check_outputs(built)
    with pytest.raises(DisagreementError, match="gradient of"):
        check_gradients(built)


def test_nan_is_no_agreement():
    workload = Workload(TINY, Gating(), CPU)
    built = {name: Layer(CONTENDERS["urzoo-reference"], workload) for name in ("honest", "faulty")}
    with torch.no_grad():
        built["faulty"]._module.bias_l0.fill_(float("nan"))
    with pytest.raises(DisagreementError):
        check_outputs(built)


@pytest.mark.skipif(not PEER_INSTALLED, reason="needs ur-lstm-torch")
def test_training_gives_the_gradient_of_every_weight_and_of_a_wide_input():
    built = layers(["urzoo-reference", "ur-lstm-torch"])
    for layer in built.values():
        gradients = layer.train()
        assert gradients.keys() >= dict(layer._module.named_parameters()).keys()
        assert all(bool(gradient.abs().sum() > 0) for name, gradient in gradients.items())
        assert "inputs" in gradients


@pytest.mark.skipif(not ONNX_INSTALLED, reason="needs onnx and onnxruntime")
@pytest.mark.parametrize("input_size", [1, 2])
def test_onnxruntime_computes_what_torch_lstm_does(input_size):
    shape = Shape("tiny", 3, 7, input_size, 9)
    built = layers(["torch-lstm", "onnxruntime-lstm"], Gating("--", tie_input_gate=False), shape)
    torch.testing.assert_close(built["onnxruntime-lstm"].forward(), built["torch-lstm"].forward())
    hidden, cell = built["onnxruntime-lstm"].decode()
    expected_hidden, expected_cell = built["torch-lstm"].decode()
    torch.testing.assert_close(torch.from_numpy(hidden)[0], expected_hidden)
    torch.testing.assert_close(torch.from_numpy(cell)[0], expected_cell)
    check_outputs(built | layers(["urzoo-reference"], Gating("--", tie_input_gate=False), shape))


def test_onnxruntime_says_why_it_is_absent(monkeypatch):
    contender, cuda = CONTENDERS["onnxruntime-lstm"], torch.device("cuda")
    assert absence(contender, Gating(), cuda) == "it runs on the CPU only"
    assert contender not in contenders_named(None, cuda)
    assert absence(contender, Gating("UR", "gru"), CPU) == "it is an LSTM and no GRU"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert absence(contender, Gating(), CPU) == "not installed: pip install 'urzoo[onnx]'"


@pytest.mark.parametrize("name", ["urzoo-reference", "torch-lstm"])
def test_a_step_of_the_layer_is_that_of_the_cell(name):
    layer = layers([name], Gating("--", tie_input_gate=False))[name]
    for by_cell, by_layer in zip(layer.decode(), layer.decode_layer(), strict=True):
        torch.testing.assert_close(by_layer[0], by_cell)


@pytest.mark.skipif(bool(backends()["cpu"]), reason=backends()["cpu"])
@pytest.mark.parametrize("dtype", ["", "-bf16"])
def test_a_stream_takes_the_steps_of_the_cell(dtype):
    names = [f"urzoo-stream{dtype}", f"urzoo-cpu{dtype}"]
    built = layers(names)
    stream, cell = (built[name] for name in names)
    hidden, _ = cell.decode()
    stream.decode()
    tolerance = {"rtol": 2e-2, "atol": 2e-2} if dtype else {}
    torch.testing.assert_close(stream._single._stream.state[0][0].float(), hidden.float(), **tolerance)
    assert [figure for figure in FIGURES if takes_part(stream.contender, figure)] == ["decode"]


def test_decoding_goes_on_from_its_own_state():
    layer = layers(["urzoo-reference"])["urzoo-reference"]
    hidden, cell = layer.decode()
    first = layer._single(layer._token, layer._state)
    assert not torch.allclose(hidden, first[0])
    assert not torch.allclose(cell, first[1])


@pytest.mark.parametrize("gating", [Gating(), Gating("--", tie_input_gate=False), Gating("UR", "gru"), Gating("C-")])
def test_a_run_has_a_row_for_every_contender_and_figure(gating):
    names = ["urzoo-reference", "urzoo-cpu", "torch-lstm", "ur-lstm-torch", "onnxruntime-lstm"]
    figures = ["forward", "forward_backward", "decode", "decode_layer"]
    report = run_benchmark(shapes=["b2t3i1h8"], contenders=names, figures=figures, gating=gating, threads=1, seconds=60)
    assert report.environment.threads == 1
    for figure in figures:
        for name in names:
            if not takes_part(CONTENDERS[name], figure):
                continue
            row = find(report.rows, shape="b2t3i1h8", figure=figure, contender=name)
            assert row is not None
            assert (row.note == "") == (row.milliseconds is not None)
            if row.milliseconds is not None:
                assert row.milliseconds_low <= row.milliseconds <= row.milliseconds_high
    reference = find(report.rows, shape="b2t3i1h8", figure="forward", contender="urzoo-reference")
    assert reference.share_of_limit > 0
    assert reference.tokens_per_second == pytest.approx(6 / (reference.milliseconds / 1000))
    limit = find(report.rows, shape="b2t3i1h8", figure="forward", contender="limit-fp32")
    assert limit.gflops_per_second > 0


@pytest.mark.parametrize("shape", ["b2t3i1h8", "b2t3i8h8"])
def test_the_whole_training_step_stands_beside_the_bare_recurrence(shape):
    report = run_benchmark(shapes=[shape], figures=["training_step"], seconds=60)
    row = find(report.rows, shape=shape, figure="training_step", contender="urzoo-reference")
    assert row.share_of_recurrence > 0
    assert find(report.rows, shape=shape, figure="training_step", contender="torch-lstm") is None


@pytest.mark.parametrize("shape", ["b2t3i1h8", "b2t3i8h8"])
def test_training_steps_lower_the_loss(shape):
    step = TrainingStep(CONTENDERS["urzoo-reference"], shape_named(shape), Gating(), CPU)
    first = float(step())
    for _ in range(20):
        last = float(step())
    assert last < first


@pytest.mark.skipif(not backends()["triton"], reason="Triton runs here")
def test_a_back_end_that_is_not_usable_has_a_row_that_says_why():
    report = run_benchmark(
        shapes=["b2t3i1h8"], contenders=["urzoo-triton", "urzoo-reference"], figures=["forward"], seconds=60
    )
    row = find(report.rows, shape="b2t3i1h8", figure="forward", contender="urzoo-triton")
    assert row.milliseconds is None
    assert row.note == backends()["triton"]


def test_peak_memory_is_that_of_what_training_saves():
    # The reference saves some ten to thirty tensors of 16 KiB a step: 400 steps of 64 rows of 64 units.
    shape = Shape("saved", 64, 400, 1, 64)
    peak = peak_memory_mib(CONTENDERS["urzoo-reference"], shape, Gating(), device="cpu", threads=1)
    assert 10 * 400 / 64 < peak < 60 * 400 / 64


def test_a_failing_memory_process_is_an_error_of_one_line():
    with pytest.raises(UrzooError, match="measuring the memory of 'urzoo-reference'") as error:
        peak_memory_mib(CONTENDERS["urzoo-reference"], Shape("bad", 1, 1, 1, 0), Gating(), device="cpu", threads=1)
    assert "\n" not in str(error.value)


def test_threads_are_put_back():
    before = torch.get_num_threads()
    run_benchmark(
        shapes=["b2t3i1h8"], contenders=["urzoo-reference"], figures=["decode"], threads=before + 1, seconds=60
    )
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"shapes": ["h12"]}, "shape 'h12'"),
        ({"contenders": ["urzoo-gpu"]}, "contender 'urzoo-gpu'"),
        ({"figures": ["speed"]}, "figure 'speed'"),
        ({"device": "tpu"}, "device 'tpu'"),
        ({"threads": 0}, "threads is 0"),
        ({"seconds": 0.0}, "seconds is 0"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"shapes": []}, "shapes is empty"),
        ({"contenders": []}, "contenders is empty"),
        ({"figures": []}, "figures is empty"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(options, named):
    with pytest.raises(UsageError, match=named) as error:
        run_benchmark(**options)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_is_refused_where_there_is_none():
    with pytest.raises(UsageError, match="--device cpu"):
        run_benchmark(device="cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_on_a_gpu_has_times_and_memory():
    report = run_benchmark(shapes=["b2t3i1h8"], device="cuda", seconds=60)
    row = find(report.rows, shape="b2t3i1h8", figure="forward", contender="urzoo-reference")
    assert row.milliseconds > 0
    memory = measure(CONTENDERS["urzoo-reference"], TINY, Gating(), device=torch.device("cuda"))
    assert memory > 0


def test_every_back_end_has_a_contender():
    assert {contender.backend for contender in CONTENDERS.values()} >= set(backends())
    assert set(FIGURES) == {"forward", "forward_backward", "memory", "decode", "decode_layer", "training_step"}
    assert isinstance(CONTENDERS["torch-lstm"], Contender)
