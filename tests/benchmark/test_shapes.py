import pytest

from urzoo.benchmark.shapes import SHAPES, shape_named
from urzoo.errors import UsageError


def test_flops_count_the_products_of_the_bound():
    # performance.md's bound: 50,176 tokens at 484 GFLOP/s take 1 / 3693 of a thousand tokens a second at 128 units.
    assert SHAPES["h128"].forward_flops(4) == 2 * 64 * 784 * 4 * 128 * 128
    assert SHAPES["h128"].tokens / (SHAPES["h128"].forward_flops(4) / 484e9) == pytest.approx(3_693_000, rel=1e-3)


def test_an_input_wider_than_one_counts_in_the_flops_and_asks_for_its_gradient():
    shape = SHAPES["lm512"]
    assert shape.forward_flops(4) == 2 * 16 * 128 * 4 * 512 * (512 + 512)
    assert shape.training_flops(4) == 3 * shape.forward_flops(4)
    assert shape.input_gradient
    assert not SHAPES["h128"].input_gradient


def test_a_shape_can_be_written_out():
    shape = shape_named("b2t5i3h8")
    assert (shape.batch, shape.time, shape.input_size, shape.hidden_size) == (2, 5, 3, 8)


@pytest.mark.parametrize("name", ["h129", "b2t5i3", "b0t5i3h8", "", "B2T5I3H8 "])
def test_an_unknown_shape_is_refused_in_one_line(name):
    with pytest.raises(UsageError) as error:
        shape_named(name)
    assert repr(name) in str(error.value)
    assert "\n" not in str(error.value)
