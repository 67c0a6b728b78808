"""A board on the Hub: a static Space and a data set, one atomic commit each, and the way back."""

import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.leaderboard.conftest import write_example, write_result
from urzoo.cli import main
from urzoo.leaderboard.publish import published_files

from .conftest import OTHER, TOKEN
from .server import HubServer
from .store import Blob
from .test_commands import use_endpoint

BOARD = Path("leaderboard")
Tell = Callable[..., tuple[str, str]]


@pytest.fixture(autouse=True)
def _a_board(hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A board's results in the current folder, and a Hub to publish it on."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    use_endpoint(monkeypatch, hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    write_example(BOARD / "results")


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str]) -> Tell:
    """Run `urzoo leaderboard`; its standard output and error, after a look at the exit code."""

    def run(*arguments: str, code: int = 0) -> tuple[str, str]:
        capsys.readouterr()
        ended = main(["leaderboard", *arguments])
        out, err = capsys.readouterr()
        assert ended == code, out + err
        if code:
            assert err.splitlines()[-1].startswith("error: ")
        return out, err

    return run


def published(hub: HubServer, kind: str) -> dict[str, bytes]:
    return hub.store.repositories[kind, "alice/board"].files()


def test_a_dry_run_shows_both_plans_and_sends_nothing(hub: HubServer, tell: Tell):
    _, err = tell("--publish", "alice/board", "--dry-run", "--private")
    assert "of a new private data set alice/board" in err
    assert "of a new private Space alice/board" in err
    assert "index.html" in err
    assert not hub.asked("POST|PUT|DELETE")
    assert not hub.store.repositories


def test_nothing_is_sent_without_being_asked_for(hub: HubServer, tell: Tell):
    _, err = tell("--publish", "alice/board", code=2)
    assert "add --yes" in err
    assert not hub.store.repositories


def test_the_board_becomes_a_space_and_a_data_set_in_one_commit_each(hub: HubServer, tell: Tell):
    out, _ = tell("--publish", "alice/board", "--yes")
    space, data_set = published_files("alice/board", BOARD)
    assert (published(hub, "space"), published(hub, "dataset")) == (space, data_set)
    for kind in ("space", "dataset"):
        repository = hub.store.repositories[kind, "alice/board"]
        assert len(repository.log("main")) == 2  # the first one made the repository
        assert f"{hub.endpoint}/{kind}s/alice/board/commit/{repository.branches['main']}" in out
    assert len(hub.asked("POST /api/.*/commit/")) == 2
    out, _ = tell("--publish", "alice/board", "--yes")
    assert out.count("already holds exactly this; nothing was sent.") == 2
    assert len(hub.asked("POST /api/.*/commit/")) == 2


def test_a_result_that_is_gone_goes_there_too_and_other_files_stay(hub: HubServer, tell: Tell):
    tell("--publish", "alice/board", "--yes")
    notes = hub.store.repositories["dataset", "alice/board"]
    head = notes.commit("main")
    tree = {**head.tree, "notes.txt": head.tree["README.md"]}
    notes.branches["main"] = notes.add_commit(tree, parent=head.oid, title="Add notes", author="alice").oid
    (BOARD / "results" / "lstm-128-smnist" / "smnist.json").unlink()
    _, err = tell("--publish", "alice/board", "--yes")
    assert err.count("deleted") == 2
    for kind in ("space", "dataset"):
        assert "results/lstm-128-smnist/smnist.json" not in published(hub, kind)
    assert "notes.txt" in published(hub, "dataset")


def test_a_repository_that_holds_something_else_is_left_alone(hub: HubServer, tell: Tell):
    repository = hub.store.create("dataset", "alice/board", private=False)
    head = repository.commit("main")
    tree = {**head.tree, "train.parquet": next(iter(head.tree.values()))}
    repository.branches["main"] = repository.add_commit(tree, parent=head.oid, title="Add", author="alice").oid
    before = repository.state()
    _, err = tell("--publish", "alice/board", "--yes", code=2)
    assert "holds something else ('train.parquet'); name another repository" in err
    assert repository.state() == before
    assert ("space", "alice/board") not in hub.store.repositories


def test_a_space_that_holds_something_else_leaves_the_data_set_unsent_too(hub: HubServer, tell: Tell):
    repository = hub.store.create("space", "alice/board", private=False)
    head = repository.commit("main")
    tree = {**head.tree, "app.py": next(iter(head.tree.values()))}
    repository.branches["main"] = repository.add_commit(tree, parent=head.oid, title="Add", author="alice").oid
    _, err = tell("--publish", "alice/board", "--yes", code=2)
    assert "the space alice/board holds something else ('app.py')" in err
    assert ("dataset", "alice/board") not in hub.store.repositories
    assert not hub.asked("POST|PUT|DELETE")


def test_an_interruption_between_the_two_is_made_good_by_the_same_command(
    hub: HubServer, tell: Tell, monkeypatch: pytest.MonkeyPatch
):
    from urzoo.hub import push

    committed = push.Push._commit

    def interrupted(self):
        if self.plan.kind == "space":
            raise KeyboardInterrupt
        return committed(self)

    monkeypatch.setattr(push.Push, "_commit", interrupted)
    _, err = tell("--publish", "alice/board", "--yes", code=130)
    assert "interrupted" in err
    assert published(hub, "dataset") == published_files("alice/board", BOARD)[1]
    monkeypatch.setattr(push.Push, "_commit", committed)
    out, _ = tell("--publish", "alice/board", "--yes")
    assert "already holds exactly this" in out
    assert published(hub, "space") == published_files("alice/board", BOARD)[0]


def test_a_board_without_results_is_not_published(hub: HubServer, tell: Tell):
    shutil.rmtree(BOARD / "results")
    (BOARD / "results").mkdir()
    _, err = tell("--publish", "alice/board", "--yes", code=2)
    assert "leaderboard/results holds no result to publish" in err
    assert not hub.asked("POST|PUT|DELETE")


@pytest.mark.parametrize("reference", ["hf://datasets/alice/board", "{endpoint}/datasets/alice/board/tree/main"])
def test_a_data_set_is_named_by_its_addresses_too(hub: HubServer, tell: Tell, reference: str):
    tell("--publish", "alice/board", "--yes")
    tell("--from", reference.format(endpoint=hub.endpoint), "--out", "again")
    assert Path("again/index.html").is_file()


HOSTILE_TEXT = "<script>alert(1)</script> [x](javascript:alert(1)) | a | **b** =cmd|' /C calc'!A0"


def _put(hub: HubServer, path: str, record: dict) -> None:
    """Put a result into the published data set, as anybody who may write there can."""
    repository = hub.store.repositories["dataset", "alice/board"]
    head = repository.commit("main")
    tree = {**head.tree, path: Blob(json.dumps(record).encode())}
    repository.branches["main"] = repository.add_commit(tree, parent=head.oid, title="Add", author="alice").oid


def _hostile(**changes) -> dict:
    record = json.loads((BOARD / "results" / "urlstm-128-smnist" / "smnist.json").read_text())
    record["model"] |= {"name": "x", "source": "folder"}
    record["intervals"] = {}
    for key, value in changes.items():
        place = record
        *parents, last = key.split("__")
        for parent in parents:
            place = place[parent]
        place[last] = value
    return record


def test_text_of_a_strangers_row_stays_text(hub: HubServer, tell: Tell):
    tell("--publish", "alice/board", "--yes")
    texts = dict.fromkeys(("hardware", "device", "command", "model__architecture", "data__subset"), HOSTILE_TEXT)
    _put(hub, "results/x/smnist.json", _hostile(**texts, model__parameters=2**40))
    tell("--from", "alice/board", "--out", "again")
    page = Path("again/index.html").read_text()
    assert "<script>alert" not in page
    assert 'href="javascript' not in page
    assert "](javascript" not in Path("again/README.md").read_text()
    with Path("again/leaderboard.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert str(2**40) in cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@"))]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"hardware": "a\u202eb"}, "U+202E"),
        ({"hardware": "a\x1b[31mb"}, "hardware"),
        ({"metrics": {"accuracy": 1e308}}, "key metrics.accuracy is 1e+308; expected 0 to 100 %"),
        ({"metrics": {"accuracy": 5.0}}, "key metrics.accuracy is 5.0; expected 0 to 100 %"),
        ({"wall_seconds": -1}, "wall_seconds"),
        ({"model__name": "urlstm-128-smnist"}, "expected it at"),
    ],
    ids=["bidirectional", "control", "huge score", "five of one", "negative time", "duplicate"],
)
def test_a_strangers_impossible_row_is_refused_with_its_file_and_key(
    hub: HubServer, tell: Tell, changes: dict, complaint: str
):
    tell("--publish", "alice/board", "--yes")
    _put(hub, "results/x/smnist.json", _hostile(**changes))
    _, err = tell("--from", "alice/board", "--out", "again", code=1)
    assert "alice/board: results/x/smnist.json" in err
    assert complaint in err
    assert all(char.isprintable() or char == "\n" for char in err)
    assert not Path("again").exists()


def test_a_commit_whose_answer_is_lost_is_made_once(hub: HubServer, tell: Tell, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    hub.fail("POST /api/datasets/.*/commit/", cut=True, after=True)
    tell("--publish", "alice/board", "--yes")
    assert len(hub.store.repositories["dataset", "alice/board"].log("main")) == 2


def test_without_a_right_to_write_nothing_is_there_and_no_token_shows(
    hub: HubServer, tell: Tell, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_TOKEN", OTHER)
    out, err = tell("--publish", "alice/board", "--yes", code=1)
    assert "403" in err
    assert OTHER not in out + err
    assert not hub.store.repositories


def test_a_token_in_a_result_is_never_sent(hub: HubServer, tell: Tell):
    write_result(BOARD / "results", hardware=f"a machine {TOKEN}")
    _, err = tell("--publish", "alice/board", "--yes", code=1)
    assert "access token" in err
    assert not hub.store.repositories


def test_a_board_is_built_from_a_data_set_pinned_to_its_commit(hub: HubServer, tell: Tell):
    tell("--publish", "alice/board", "--yes")
    commit = hub.store.repositories["dataset", "alice/board"].branches["main"]
    out, err = tell("--from", "alice/board", "--out", "again")
    assert commit in err
    assert "again/index.html" in out
    assert Path("again/index.html").read_bytes() == published(hub, "space")["index.html"]
    again = Path("again/results/urlstm-128-smnist/smnist.json")
    assert json.loads(again.read_text())["model"]["name"] == "urlstm-128-smnist"


def test_what_is_no_result_is_not_taken_and_what_is_no_fit_one_is_refused_whole(hub: HubServer, tell: Tell):
    tell("--publish", "alice/board", "--yes")
    repository = hub.store.repositories["dataset", "alice/board"]
    head = repository.commit("main")
    script = {"results/x/run.py": head.tree["README.md"], "evil.sh": head.tree["README.md"]}
    tree = {**head.tree, **script}
    repository.branches["main"] = repository.add_commit(tree, parent=head.oid, title="Add", author="alice").oid
    tell("--from", "alice/board", "--out", "again")
    assert not list(Path("again").rglob("*.py")) + list(Path("again").rglob("*.sh"))
    tree["results/x/smnist.json"] = head.tree["README.md"]
    repository.branches["main"] = repository.add_commit(tree, parent=head.oid, title="Add", author="alice").oid
    _, err = tell("--from", "alice/board", "--out", "third", code=1)
    assert "alice/board: results/x/smnist.json is not JSON" in err
    assert not Path("third").exists()


def test_a_result_damaged_on_the_way_is_refused(hub: HubServer, tell: Tell):
    tell("--publish", "alice/board", "--yes")
    for _ in range(2):
        hub.fail("GET /datasets/.*/resolve/.*urlstm-128-smnist", flip_byte=20)
    _, err = tell("--from", "alice/board", "--out", "again", code=1)
    assert "not what the Hub's listing promises" in err
    assert not Path("again").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--publish", "alice/board", "--check"), "--check and --publish are different jobs"),
        (("--dry-run",), "--dry-run goes with --publish"),
        (("--publish", "board"), "is not OWNER/NAME"),
        (("--publish", "alice/board", "--results", "elsewhere"), "which --results elsewhere is not"),
        (("--from", "alice/board"), "--from alice/board makes a new folder; name it: --out DIR"),
        (("--from", "alice/board", "--out", "leaderboard/results"), "exists and is not empty"),
        (("--from", "hf://spaces/alice/board", "--out", "x"), "names no data set; expected hf://datasets/OWNER/NAME"),
        (("--from", "https://huggingface.co/alice/board", "--out", "x"), "is of no data set"),
        (("--from", "alice/board@", "--out", "x"), "ends in '@'"),
    ],
)
def test_wrong_use_is_one_line_before_anything_is_asked(
    hub: HubServer, tell: Tell, arguments: tuple[str, ...], complaint: str
):
    _, err = tell(*arguments, code=2)
    assert complaint in err
    assert not hub.asked()
