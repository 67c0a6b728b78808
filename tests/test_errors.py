"""Messages for unknown names."""

from urzoo.errors import ShapeError, UrzooError, UsageError, one_line, unknown


def test_near_matches_come_first() -> None:
    message = unknown("task", "smnst", ["pmnist", "smnist", "imdb"])
    assert message == ("unknown task 'smnst'. Did you mean 'smnist' or 'pmnist'? Available: imdb, pmnist, smnist.")


def test_upper_and_lower_case_are_near() -> None:
    assert "Did you mean 'smnist'" in unknown("task", "SMNIST", ["adding", "smnist"])
    assert "Did you mean 'UR'" in unknown("gate", "ur", ["UR", "--"])


def test_nothing_near_and_nothing_available() -> None:
    assert unknown("checkpoint", "x", []) == "unknown checkpoint 'x'. Available: none."


def test_wrong_use_exits_with_2_and_failure_with_1() -> None:
    assert (UrzooError.exit_code, UsageError.exit_code, ShapeError.exit_code) == (1, 2, 2)


def test_of_many_names_some_are_listed_and_the_others_counted() -> None:
    names = [f"name{number:02}" for number in range(25)]
    message = unknown("checkpoint", "name99", names)
    assert "Did you mean 'name19'" in message
    assert message.endswith("name18, name19 and 5 more.")


def test_a_failure_of_another_library_becomes_one_short_line() -> None:
    assert one_line(ValueError("first\n  second.")) == "first second"
    assert one_line(KeyError()) == "KeyError"
    assert one_line("x" * 300) == "x" * 197 + "..."
    assert one_line("Grüße\x1b]0;x\x07\u202e") == r"Grüße\x1b]0;x\x07\u202e"
    assert one_line("x" * 300, 10) == "xxxxxxx..."
