"""What is said of a file that does not fit its schema."""

import math
from typing import Self

import pytest
from pydantic import model_validator

from urzoo.errors import UsageError
from urzoo.schema import Strict, validated

INNER = {"channels": 1, "steps": 2}


class Inner(Strict):
    channels: int
    steps: int

    @model_validator(mode="after")
    def _few_channels(self) -> Self:
        if self.channels > self.steps:
            raise ValueError(f"channels is {self.channels}, but steps is {self.steps}")
        return self


class Outer(Strict):
    title: str
    inner: Inner
    rate: float = 0.5


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
        ([], "f: key the file is []: Input should be an object with the keys title, inner, rate."),
        (
            {"title": "x", "inner": True},
            "f: key inner is True: Input should be an object with the keys channels, steps.",
        ),
        ({"title": "x", "inner": {"channels": 9, "steps": 2}}, "f: key inner: channels is 9, but steps is 2."),
        (
            {"title": "x", "inner": INNER, "rate": "5e-4"},
            "f: key rate is '5e-4': Input should be a valid number, as in 0.0005.",
        ),
        (
            {"title": "x", "inner": INNER, "rate": "1e-6"},
            "f: key rate is '1e-6': Input should be a valid number, as in 1.0e-06.",
        ),
        ({"title": "x", "inner": INNER, "rate": "nan"}, "f: key rate is 'nan': Input should be a valid number."),
        ({"title": "x", "inner": INNER, "rate": "fast"}, "f: key rate is 'fast': Input should be a valid number."),
        ({"title": "x", "inner": INNER, "rate": math.nan}, "f: key rate is nan: Input should be a finite number."),
        ({"title": "x", "inner": INNER, "rate": math.inf}, "f: key rate is inf: Input should be a finite number."),
    ],
)
def test_the_first_fault_is_told_and_a_misspelt_key_before_others(content: object, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        validated(Outer, content, "f", error=UsageError)
    assert str(caught.value) == said
