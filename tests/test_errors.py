"""Messages for unknown names."""

from urzoo.errors import ShapeError, UrzooError, UsageError, unknown


def test_near_matches_come_first() -> None:
    message = unknown("task", "smnst", ["pmnist", "smnist", "imdb"])
    assert message == ("unknown task 'smnst'. Did you mean 'smnist' or 'pmnist'? Available: imdb, pmnist, smnist.")


def test_nothing_near_and_nothing_available() -> None:
    assert unknown("checkpoint", "x", []) == "unknown checkpoint 'x'. Available: none."


def test_wrong_use_exits_with_2_and_failure_with_1() -> None:
    assert (UrzooError.exit_code, UsageError.exit_code, ShapeError.exit_code) == (1, 2, 2)
