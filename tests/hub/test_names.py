"""Checkpoints of the Hub under all their names, in every command; and what the options of pull, push and list do."""

import json
from pathlib import Path

import pytest
import yaml

import urzoo
from urzoo import zoo
from urzoo.errors import CheckpointError, UsageError

from .checkpoints import image_checkpoint, language_checkpoint
from .conftest import TOKEN, Say, use_endpoint
from .server import HubServer

NAME = "urlstm-128-smnist"

pytestmark = pytest.mark.usefixtures("on_the_test_hub")


@pytest.fixture
def pushed(hub: HubServer, say: Say) -> str:
    say("push", NAME, "alice/mine", "-y", "--tag", "v1")
    return hub.store.model("alice/mine").commit("main").oid


def test_every_name_of_a_repository_loads(pushed: str, hub: HubServer) -> None:
    for name in ("alice/mine", "alice/mine@v1", f"hf://alice/mine@{pushed}", f"{hub.endpoint}/alice/mine/tree/main"):
        assert (urzoo.path(name) / "config.json").is_file()
        found = urzoo.info(name)
        assert (found.name, found.source) == ("alice/mine", "Hub")
    assert type(urzoo.load("alice/mine")).__name__ == "URLSTMForImageClassification"
    assert urzoo.info(NAME) == zoo.info(NAME)
    with pytest.raises(UsageError, match="unknown checkpoint"):
        urzoo.load("urlstm-128-smist")
    with pytest.raises(CheckpointError, match="there is no folder"):
        urzoo.load("./alice/mine")


def test_a_folder_here_goes_before_a_repository(pushed: str, tmp_path: Path, hub: HubServer) -> None:
    image_checkpoint(Path("alice/mine"))
    asked = len(hub.asked())
    assert urzoo.info("alice/mine").source == "folder"
    assert len(hub.asked()) == asked
    assert urzoo.info("hf://alice/mine").source == "Hub"


def test_every_command_takes_a_repository(pushed: str, say: Say, hub: HubServer, tmp_path: Path) -> None:
    described = json.loads(say("info", "alice/mine@v1", "--json")[0])
    assert (described["name"], described["source"]) == ("alice/mine", "Hub")
    say("export", "hf://alice/mine", "exported")
    assert Path("exported/model.safetensors").is_file()
    Path("none").mkdir()
    card = say("card", "alice/mine", "--results", "none")[0]
    assert card.startswith("---\n")
    assert f"# {NAME}" in card
    say("push", image_checkpoint(tmp_path / "in"), "alice/plain", "-y")
    card = say("card", "alice/plain", "--results", "none")[0]  # no recipe gives it a name
    assert "# alice/plain\n" in card
    assert 'urzoo.path("alice/plain")' in card
    assert (
        hub.store.model("alice/mine").files()["config.json"] == (urzoo.path("alice/mine") / "config.json").read_bytes()
    )
    say("push", "alice/mine@v1", "alice/copy", "-y")
    copy, mine = (hub.store.model(f"alice/{name}").files() for name in ("copy", "mine"))
    assert copy.pop("README.md") == mine.pop("README.md").replace(b"/alice/mine/resolve/", b"/alice/copy/resolve/")
    assert copy == mine
    for model in ("alice/mine", NAME):
        say("eval", model, "--task", "smnist", "--limit", 4, "--results", "r", "--save-predictions")
    out = say("compare", f"alice/mine@{pushed}", NAME, "--task", "smnist", "--results", "r")[0]
    assert "alice/mine+" in out
    assert "rows that differ" not in out
    for command in (("info", "alice/none"), ("export", "alice/none", "x"), ("card", "alice/none")):
        assert "shows no such repository" in say(*command, code=1)[1]


def test_models_of_two_revisions_are_compared_each_by_its_own_predictions(
    pushed: str, say: Say, tmp_path: Path
) -> None:
    say("push", "urlstm-256-smnist", "alice/mine", "-y", "--tag", "v2")
    compare = ("compare", "alice/mine@v1", "alice/mine@v2", "--task", "smnist", "--results", "r")
    evaluate = ("--task", "smnist", "--limit", 4, "--results", "r", "--save-predictions")
    say("eval", "alice/mine@v1", *evaluate)
    assert "evaluate with --save-predictions first" in say(*compare, code=1)[1]
    say("eval", "alice/mine@v2", *evaluate)
    digests = [urzoo.info(f"alice/mine@{tag}").checkpoint_sha256[:8] for tag in ("v1", "v2")]
    models = json.loads(say(*compare, "--json")[0])["models"]
    assert models == [f"alice/mine+{digest}" for digest in digests]
    assert digests[0] != digests[1]
    assert "no such branch, tag or commit" in say(*compare[:2], "alice/mine@v3", *compare[3:], code=1)[1]


def test_a_pull_takes_the_files_it_is_told_to(pushed: str, hub: HubServer, say: Say) -> None:
    hub.store.write("alice/mine", {"notes.md": b"x", "old.bin": b"x", "run.py": b"x", "sub/b.json": b"{}"})
    say(
        "pull",
        "alice/mine",
        "some",
        "--include",
        "*.json",
        "--include",
        "*.bin",
        "--include",
        "*.py",
        "--exclude",
        "t*",
    )
    taken = {path.relative_to("some").as_posix() for path in Path("some").rglob("*") if path.is_file()}
    assert taken == {"config.json", "preprocessor_config.json", "sub/b.json"}
    say("pull", "alice/mine", "rest", "--exclude", "*.png", "--exclude", ".eval_results/*", "--revision", "v1")
    assert not list(Path("rest").glob("*.png"))
    assert Path("rest/model.safetensors").is_file()
    for wrong, said in {
        ("--include", "*.json"): "need a folder to write to",
        ("x", "--include", "nothing*"): "no file of alice/mine is taken by these patterns",
        ("@v1", "x", "--revision", "main"): "are two revisions",
    }.items():
        reference = f"alice/mine{wrong[0]}" if wrong[0].startswith("@") else "alice/mine"
        assert said in say("pull", reference, *[one for one in wrong if one[0] != "@"], code=2)[1]
    assert not Path("x").exists()


def test_a_forced_pull_replaces_files_of_the_same_names_alone(pushed: str, say: Say, tmp_path: Path) -> None:
    Path("out").mkdir()
    Path("out/mine.txt").write_text("keep")
    Path("out/config.json").write_text("{}")
    assert "is not empty" in say("pull", "alice/mine", "out", code=2)[1]
    say("pull", "alice/mine", "out", "--force")
    assert Path("out/mine.txt").read_text() == "keep"
    assert urzoo.info(Path("out")).weights_sha256 == zoo.info(NAME).weights_sha256
    (tmp_path / "elsewhere").mkdir()
    Path("out2").mkdir()
    Path("out2/.eval_results").symlink_to(tmp_path / "elsewhere")
    assert "is a link" in say("pull", "alice/mine", "out2", "--force", code=2)[1]
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_pull_takes_a_token(hub: HubServer, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    say("push", NAME, "alice/secret", "-y", "--private")
    monkeypatch.delenv("HF_TOKEN")
    assert "shows no such repository" in say("pull", "alice/secret", "out", code=1)[1]
    said = say("pull", "alice/secret", "out", "--token", TOKEN)
    assert Path("out/config.json").is_file()
    assert TOKEN not in "".join(said)


def test_a_push_says_what_it_is_told_to(hub: HubServer, say: Say) -> None:
    say("push", NAME, "alice/m", "-y", "--commit-message", "Better", "--tag", "v2", "--license", "mit")
    repository = hub.store.model("alice/m")
    assert (repository.commit("main").title, repository.tags) == ("Better", {"v2": repository.commit("main").oid})
    front = repository.files()["README.md"].decode().split("\n---\n")[0].removeprefix("---\n")
    assert yaml.safe_load(front)["license"] == "mit"
    hub.store.write("alice/m", {"vocab.txt": b"mine"})
    assert (
        "stays there, not in this checkpoint; --delete removes it: vocab.txt" in say("push", NAME, "alice/m", "-y")[1]
    )
    assert "deleted " in say("push", NAME, "alice/m", "-y", "--delete")[1]
    hub.store.write("alice/other", {"config.json": b'{"model_type": "bert"}'})
    assert "replace it with --force" in say("push", NAME, "alice/other", "-y", code=2)[1]
    say("push", NAME, "alice/other", "-y", "--force")


def test_a_list_can_be_searched_and_breaks_no_name(
    hub: HubServer,
    say: Say,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    folder = image_checkpoint(tmp_path / "in")
    long = "alice/urlstm-512-a-very-long-name-of-a-checkpoint-that-would-not-fit-into-a-narrow-column"
    for name in (long, "alice/b"):
        say("push", folder, name, "-y")
    out = say("list", "--hub", "alice")[0]
    assert any(line.startswith(f"{long}  ") for line in out.splitlines())
    assert say("list", "--hub", "alice", "--search", "very-long", "--plain")[0] == f"{long}\n"
    assert say("list", "--hub", "alice", "--search", "nothing", "--plain")[0] == ""
    assert "goes with --hub" in say("list", "--search", "x", code=2)[1]


@pytest.mark.parametrize("form", [(), ("--plain",), ("--json",)])
def test_nothing_of_a_repository_steers_the_terminal(form: tuple[str, ...], hub: HubServer, say: Say) -> None:
    card = '---\npipeline_tag: "\\e]0;x\\a\\e[31mRED\\nalice/fake"\ntags: [urzoo]\n---\n'
    hub.store.write("alice/m", {"README.md": card.encode()})
    hub.store.write("alice/evil\x1b[2J\nalice-two", {"README.md": card.encode()})
    hub.store.write("alice/m\x9b31m", {"README.md": card.encode()})
    out, err = say("list", "--hub", "alice", *form)
    assert all(char.isprintable() or char == "\n" for char in out + err)
    assert "RED" not in out
    assert "fake" not in out
    assert "evil" not in out
    assert "alice/m" in out


def test_a_configuration_steers_no_terminal(hub: HubServer, say: Say, tmp_path: Path) -> None:
    folder = image_checkpoint(tmp_path / "in")
    config = json.loads((folder / "config.json").read_text())
    for key, value in {"gate": "\x9b31m\u202eU", "architectures": ["\x9b31mForImageClassification"]}.items():
        (folder / "config.json").write_text(json.dumps(config | {key: value}))
        hub.store.write("alice/m", {path.name: path.read_bytes() for path in folder.iterdir()})
        for command in (("info", str(folder)), ("pull", "alice/m"), ("info", "alice/m")):
            out, err = say(*command, code=None)
            assert all(char.isprintable() or char == "\n" for char in out + err), command


@pytest.mark.parametrize("command", [("pull", "alice/m"), ("list", "--hub", "alice"), ("push", NAME, "alice/m", "-y")])
def test_a_token_in_the_endpoint_is_never_printed(
    command: tuple[str, ...],
    say: Say,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secret = "hf_SecretOfTheEndpoint0123456789ab"
    for address in (f"http://{secret}@127.0.0.1:9", f"http://alice:{secret}@127.0.0.1:9/x", f"{secret}"):
        use_endpoint(monkeypatch, address)
        out, err = say(*command, code=2)
        assert secret not in out + err
        assert "endpoint" in err


def test_weights_in_files_of_another_kind_are_not_left_beside_new_ones(hub: HubServer, say: Say) -> None:
    """One file is loaded in the place of shards: an earlier one would answer for the new weights."""
    language_checkpoint(Path("file"))
    language_checkpoint(Path("shards"), seed=1)
    model = zoo.load(Path("shards"))
    model.save_pretrained("shards", max_shard_size="6KB")
    expected = zoo.info(Path("shards")).weights_sha256
    assert Path("shards/model.safetensors.index.json").is_file()
    for first, second in (("file", "shards"), ("shards", "file")):
        repository = f"alice/{second}"
        say("push", first, repository, "-y")
        say("pull", repository, f"out-{second}")
        assert "deleted " in say("push", second, repository, "-y")[1]
        say("pull", repository, f"out-{second}", "--force")
        for name in (repository, f"./out-{second}"):
            assert urzoo.info(name).weights_sha256 == zoo.info(Path(second)).weights_sha256
        assert (urzoo.info(repository).weights_sha256 == expected) is (second == "shards")


def test_a_folder_above_is_pushed_with_code(hub: HubServer, say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    (image_checkpoint(Path("here")) / "inside").mkdir()
    monkeypatch.chdir("here/inside")
    say("push", "..", "alice/above", "-y", "--with-code")
    assert "modeling_urlstm.py" in hub.store.model("alice/above").files()


def test_a_store_that_cannot_be_written_gives_what_it_holds(
    pushed: str, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = urzoo.path("alice/mine")

    def refuse(_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("urzoo.hub.store.RepositoryStore.locked", refuse)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert urzoo.path("alice/mine") == found
