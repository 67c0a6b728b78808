"""What is said of a file that does not fit its schema."""

import pytest

from urzoo.errors import UsageError
from urzoo.schema import Strict, validated


class Inner(Strict):
    channels: int
    steps: int


class Outer(Strict):
    title: str
    inner: Inner


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            {"title": "x", "inner": {"chanels": 1, "steps": 2}},
            "f: unknown key inner.chanels. Did you mean 'channels'?",
        ),
        ({"titel": "x", "inner": {"chanels": 1, "steps": 2}}, "f: unknown key inner.chanels. Did you mean 'channels'?"),
        ({"title": "x", "inner": {"steps": 2}}, "f: key inner.channels is missing."),
        ({"inner": {"steps": 2}}, "f: key title is missing. (1 more like this.)"),
        (
            {"title": "x", "inner": {"channels": 1, "steps": 2, "a": 1, "b": 2}},
            "f: unknown key inner.a. (1 more like this.)",
        ),
        ({"title": 1, "inner": {"channels": 1, "steps": 2}}, "f: key title is 1: Input should be a valid string."),
        ([], "f: key the file is []: Input should be an object."),
    ],
)
def test_the_first_fault_is_told_and_a_misspelt_key_before_others(content: object, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        validated(Outer, content, "f", error=UsageError)
    assert str(caught.value) == said
