"""The command line: help, exit codes, and one line for every mistake."""

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from huggingface_hub import constants

from urzoo.cli import app, main
from urzoo.data import sources
from urzoo.evaluation.recommended import recommended_checkpoints
from urzoo.hub.export import export
from urzoo.zoo import checkpoints, path, study_checkpoints

COMMANDS = [
    "list",
    "info",
    "eval",
    "reproduce",
    "compare",
    "leaderboard",
    "train",
    "push",
    "pull",
    "export",
    "card",
    "bench",
]


def _error(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    return captured.err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f"Example:\n\n      urzoo {command}" in capsys.readouterr().out


def test_the_list_of_commands_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    registered = [command.name or getattr(command.callback, "__name__", "") for command in app.registered_commands]
    assert sorted(registered) == sorted(COMMANDS)


def test_help_needs_no_torch() -> None:
    code = "import sys; from urzoo.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


RECIPE = Path(__file__).parents[2] / "configs" / "scifar" / "urgru-256.yaml"
MISTAKES = [
    (["lst"], "Did you mean 'list'?"),
    (["list", "--plian"], "--plain"),
    (["list", "--plain", "--json"], "exclude each other"),
    (["list", "--hub", "alice", "--all"], "leave --all out"),
    (["info", "urlstm-128-smnst"], "Did you mean 'urlstm-128-smnist'"),
    (["eval"], "no checkpoint is named"),
    (["eval", "--all", "urlstm-128-smnist"], "not both"),
    (["eval", "urlstm-128-smnist", "--task", "smnst"], "Did you mean 'smnist'"),
    (["eval", "urlstm-128-smnist", "--overwrite", "yes"], "Available: always, never, stale"),
    (["eval", "urlstm-128-smnist", "--dtype", "float23"], "Did you mean 'float32'"),
    (["eval", "urlstm-128-smnist", "--batch-size", "none"], "batch-size"),
    (["train", "nowhere.yaml"], "nowhere.yaml"),
    (["train"], "recipe"),
    (["bench", "--shape", "h127"], "Did you mean"),
    (["bench", "--gate", "XR"], "unknown gate 'XR'"),
    (["bench", "--threads", "2,x"], "threads is '2,x', expected a number from 1 to 256"),
    (["bench", "--threads", "0"], "threads is '0'"),
    (["push", "urlstm-128-smnist", "no-owner"], "no-owner"),
    (["pull", "alice/../x"], "alice/../x"),
    (["export", "nothing", "folder"], "unknown checkpoint 'nothing'"),
    (["card", "nothing"], "unknown checkpoint 'nothing'. Recommended: urgru-"),
    (["eval", "urlstm-256-smnst"], "Did you mean 'urlstm-256-smnist'"),
    (["list", "--all", "--study"], "--all and --study exclude each other"),
    (["list", "--hub", "alice", "--study"], "leave --study out"),
    (["card", "urlstm-128-smnist", "--check"], "no folder 'leaderboard/results' with result files"),
    (["card", "urlstm-128-smnist", "--results", "nowhere"], "no folder 'nowhere' with result files"),
    (["info", ""], "unknown checkpoint ''"),
    (["eval", "alice/m@"], "ends in '@'"),
    (["compare", "a", "b", "--task", "smnst"], "Did you mean 'smnist'"),
    (["list", "--hub", "a b"], "a b"),
    (["data", "digest"], "folder"),
    (["eval", "urlstm-128-smnist", "--task", "digits.yaml"], "there is no task file 'digits.yaml'"),
    (["train", "FILE.yaml", "--task", "digits.yaml"], "there is no task file 'digits.yaml'"),
    (["reproduce", "--task", "smnst", "--results", "."], "Did you mean 'smnist'"),
    (["info", "./nowhere"], "there is no folder './nowhere'"),
    (["info", "~nobody-of-this-name/x"], "the home of a user who is not known"),
    (["export", "urlstm-128-smnist", "~nobody-of-this-name/x"], "the home of a user who is not known"),
    (["info", "."], "has no config.json"),
    (["eval", "./nowhere", "--task", "smnist"], "there is no folder './nowhere'"),
    (["eval", "urlstm-128-smnist", "--task", "smnist", "--data-root", "nowhere"], "'nowhere' does not exist"),
    (["eval", "urlstm-128-smnist", "--limit", "x"], "unable to parse string as an integer; it is 'x'"),
    (["eval", "urlstm-128-smnist", "--results", "FILE"], "FILE' is a file"),
    (["eval", "urlstm-128-smnist", "--task", "FILE.yaml"], "FILE.yaml: key data is None"),
    (["reproduce", "--results", "nowhere"], "there is no folder 'nowhere' with result files"),
    (["reproduce", "--results", ".", "--out", "FILE"], "FILE' is a file"),
    (["compare", "a", "b", "--task", "smnist"], "there is no folder 'leaderboard/results' with result files"),
    (["compare", "a", "b", "--task", "smnist", "--results", "."], "unknown model 'a'"),
    (["leaderboard"], "there is no folder 'leaderboard/results' with result files"),
    (["leaderboard", "--results", "nowhere"], "there is no folder 'nowhere' with result files"),
    (["leaderboard", "--results", ".", "--readme", "nowhere"], "'nowhere' does not exist"),
    (["leaderboard", "--results", ".", "--out", "o", "--readme", "FILE"], "FILE must hold the lines"),
    (["leaderboard", "--submission", "nowhere", "--checkpoint", "m"], "'nowhere' does not exist"),
    (["leaderboard", "--from", "alice/board"], "name it: --out DIR"),
    (["leaderboard", "--check", "--verify", "3"], "--check and --verify are different jobs"),
    (["leaderboard", "--publish", "a/b", "--samples", "3"], "--samples goes with --submission, not with --publish"),
    (["leaderboard", "--private"], "--private goes with --publish."),
    (["bench", "--check", "--quick"], "--quick does not go with --check."),
    (["bench", "--check", "--summary"], "--check and --summary are different jobs"),
    (
        ["train", str(RECIPE), "--task", "smnist"],
        f"--task smnist is task 'smnist', but {RECIPE} is a recipe of task 's",
    ),
    (["train", "FILE.yaml"], "FILE.yaml holds no keys; expected a recipe"),
    (["train", "FILE.yaml", "--data-root", "nowhere"], "'nowhere' does not exist"),
    (["train", "FILE.yaml", "--runs", "FILE"], "FILE' is a file"),
    (["push", "./nowhere", "alice/x"], "there is no folder './nowhere'"),
    (["push", ".", "alice/x"], "has no config.json"),
    (["pull", "alice/x", "FILE"], "FILE exists and is no folder"),
    (["export", "./nowhere", "folder"], "there is no folder './nowhere'"),
    (["export", "urlstm-128-smnist", "FILE"], "FILE exists and is no folder"),
    (["card", "./nowhere"], "there is no folder './nowhere'"),
    (["bench", "--out", "nowhere", "--check"], "there is no folder 'nowhere' with CSV files"),
    (["bench", "--out", "nowhere", "--summary"], "there is no folder 'nowhere' with CSV files"),
    (["bench", "--out", "FILE"], "FILE' is a file"),
    (["data", "digest", "nowhere"], "'nowhere' does not exist"),
    (["data", "digest", "."], "holds no parquet file"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=" ".join)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("FILE", "FILE.yaml"):
        (tmp_path / name).touch()
    assert main(arguments) == 2
    assert said in _error(capsys)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["FILE", "FILE.yaml"]


def test_every_command_is_among_the_mistakes() -> None:
    tried = {arguments[0] for arguments, _ in MISTAKES}
    assert set(COMMANDS) | {"data"} <= tried


@pytest.mark.parametrize("failing", ["training.json", "model.safetensors"])
def test_what_went_wrong_is_exit_code_1_whatever_the_command(
    failing: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    damaged = export(path("urlstm-128-smnist"), tmp_path / "damaged").folder
    (damaged / failing).write_bytes(b"{")
    (tmp_path / "results").mkdir()
    for arguments in (
        ["info", "./damaged"],
        ["eval", "./damaged", "--task", "smnist"],
        ["push", "./damaged", "alice/x", "--dry-run"],
        ["export", "./damaged", "out"],
        ["card", "./damaged", "--results", "results"],
        ["leaderboard", "--results", "results", "--check"],
    ):
        assert main(arguments) == 1, arguments
        assert arguments[0] == "leaderboard" or failing in _error(capsys)
        capsys.readouterr()


def test_version_and_module_agree_with_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    said = capsys.readouterr().out
    assert said == f"urzoo {version('urzoo')}\n"
    done = subprocess.run([sys.executable, "-m", "urzoo", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, said)


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("urzoo rep", "reproduce"),
        ("urzoo eval urlstm-256-s", "urlstm-256-smnist"),
        ("urzoo eval m --task sm", "smnist"),
        ("urzoo train configs/smnist/urlstm-2", "configs/smnist/urlstm-256.yaml"),
    ],
)
def test_the_shell_completes_commands_checkpoints_and_tasks(words: str, completed: str) -> None:
    asked = {"_URZOO_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from urzoo.cli import main; sys.exit(main())"],
        env={**os.environ, **asked}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.split() == [completed], done.stderr


def test_list_gives_the_recommended_checkpoints_and_with_a_flag_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--plain"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert names == sorted(set(recommended_checkpoints().values()))
    assert main(["list", "--plain", "--all"]) == 0
    assert capsys.readouterr().out.splitlines() == checkpoints()
    assert main(["list", "--plain", "--study"]) == 0
    assert capsys.readouterr().out.splitlines() == study_checkpoints()
    assert main(["list"]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["name", "task", "cell", "gate", "hidden", "parameters", "validation"]
    assert [row.split()[0] for row in rows] == names


def test_list_and_info_give_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json", "--all"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert listed["urlstm-128-pmnist"]["gate"] == "UR"
    assert main(["info", "urlstm-128-pmnist", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hidden_size"] == 128


def test_info_says_which_back_end_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["backends"]["reference"] == ""
    ran = ", ".join(", ".join(gatings) for gatings in content["default_back_end"].values())
    assert "lstm OM" in ran
    assert "gru UR" in ran
    assert main(["info"]) == 0
    said = capsys.readouterr().out
    assert "nothing is known of its speed on a GPU" in said
    assert "WikiText-103, one stream, with dynamic evaluation\n  wikitext103_pages " in said


def test_a_partial_evaluation_is_written_and_marked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["eval", "urlstm-128-smnist", "--task", "smnist", "--limit", "8", "--results", str(tmp_path), "--json"]
    assert main(arguments) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["partial"] is True
    assert result["samples"] == 8
    assert json.loads((tmp_path / "urlstm-128-smnist" / "smnist.json").read_text("utf-8")) == result


def test_what_cannot_be_had_does_not_keep_the_rest_from_being_evaluated(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sources, "hub_unreachable", lambda: "not in a test")
    monkeypatch.delenv("URZOO_DATA_ROOT", raising=False)
    models = ["alice/nothing", "urlstm-128-smnist", "urlstm-64-character_trajectories"]
    assert main(["eval", *models, "--limit", "8", "--results", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert [line.split(":")[0] for line in captured.out.splitlines()] == ["urlstm-128-smnist on smnist"]
    assert captured.err.count("error: offline mode is on") == captured.err.count("no copy of alice/nothing@main") == 1
    assert captured.err.count("character_trajectories: the test split") == 1
    assert captured.err.splitlines()[-1] == f"The results are in {tmp_path}."


def test_lacking_data_that_were_asked_for_fail(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("URZOO_DATA_ROOT", raising=False)
    arguments = ["eval", "urlstm-128-smnist", "--task", "character_trajectories", "--results", str(tmp_path)]
    assert main(arguments) == 1
    assert "character" in capsys.readouterr().err


def test_a_stale_board_exits_with_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    assert main(["leaderboard", "--check", "--results", str(tmp_path / "none"), "--out", str(tmp_path)]) == 1
    assert "urzoo leaderboard" in _error(capsys)


def test_export_makes_a_folder_that_loads(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["export", "urlstm-128-smnist", str(tmp_path / "copy")]) == 0
    assert main(["info", str(tmp_path / "copy"), "--json"]) == 0
    assert '"name": "copy"' in capsys.readouterr().out


def test_a_closed_pipe_is_no_error() -> None:
    for options in ("--json", "--plain"):  # one write that fails at the end, several that fail on the way
        command = f"{sys.executable} -m urzoo list {options} | true; exit ${{PIPESTATUS[0]}}"
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_current_folder_that_was_removed_is_one_line(tmp_path: Path) -> None:
    command = f"rmdir {tmp_path}; {sys.executable} -m urzoo info urlstm-128-smnist"
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "error: the current folder has been removed; change to another one.\n")


def test_a_full_output_is_one_line() -> None:
    command = f"{sys.executable} -m urzoo list --plain >/dev/full"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "error: No space left on device.\n")


def test_closed_streams_change_nothing(tmp_path: Path) -> None:
    for arguments, code in ((["export", "urlstm-128-smnist", "out"], 0), (["info", "nothing"], 2)):
        command = f"{sys.executable} -m urzoo {' '.join(arguments)} <&- >&- 2>&-"
        environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
        assert subprocess.run(command, shell=True, cwd=tmp_path, env=environment).returncode == code
    for file in path("urlstm-128-smnist").glob("[!.]*"):
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()
    opened = "import sys; from urzoo.cli import _open_closed_streams; _open_closed_streams(); "
    check = "sys.exit([s.fileno() for s in (sys.stdin, sys.stdout, sys.stderr)] != [0, 1, 2] or sys.stdin.isatty())"
    command = f'{sys.executable} -c "{opened}{check}" <&- >&- 2>&-'
    assert subprocess.run(command, shell=True).returncode == 0


def test_a_name_too_long_for_the_system_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "a" * 300]) == 1
    assert "File name too long" in _error(capsys)


def test_an_interruption_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("urzoo.zoo.checkpoints", interrupted)
    assert main(["list"]) == 130
    assert "interrupted" in _error(capsys)
