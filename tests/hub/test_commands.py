"""The `urzoo` command against the test Hub: what a user types, what is answered, and that no token shows."""

import io
import json
import logging
import shutil
import time
from pathlib import Path

import pytest
from huggingface_hub import ModelCard, constants

from urzoo import zoo

from .checkpoints import image_checkpoint, text_checkpoint
from .conftest import OTHER, TOKEN, Say, use_endpoint
from .server import HubServer

NAME = "urlstm-128-smnist"


pytestmark = pytest.mark.usefixtures("on_the_test_hub")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_push_shows_its_plan_and_sends_when_told_to(hub: HubServer, say: Say, tmp_path: Path) -> None:
    folder = image_checkpoint(tmp_path / "in")
    out, err = say("push", folder, "alice/m", "--dry-run", "--private")
    assert out == "Nothing was sent.\n"
    assert "One commit to branch main of a new private repository alice/m" in err
    for path in folder.iterdir():
        assert f"new      {path.stat().st_size:>12,} bytes  {path.name}" in err
    _, err = say("push", folder, "alice/m", code=2)
    assert "there is no terminal to ask on, so nothing was sent; add --yes" in err
    assert not hub.asked("POST|PUT")
    out, _ = say("push", folder, "alice/m", "--yes", "--private")
    repository = hub.store.model("alice/m")
    assert out == f"{hub.endpoint}/alice/m/commit/{repository.commit('main').oid}\n"
    assert repository.private
    out, _ = say("push", folder, "alice/m", "--yes")
    assert out == "alice/m already holds exactly this; nothing was sent.\n"


@pytest.mark.parametrize("answer", ["n\n", "\n", "y\n"])
def test_a_push_asks_on_a_terminal(
    answer: str, hub: HubServer, say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    out, err = say("push", image_checkpoint(tmp_path / "in"), "alice/m")
    assert "Send this? [y/N]" in err
    assert bool(hub.asked("POST .*/commit/")) == (answer == "y\n")
    assert (out.strip() == "Nothing was sent.") == (answer != "y\n")


def test_a_push_to_a_branch_a_pull_request_and_its_json(hub: HubServer, say: Say, tmp_path: Path) -> None:
    one, two = (image_checkpoint(tmp_path / f"in-{seed}", seed=seed) for seed in (1, 2))
    say("push", one, "alice/m", "-y")
    main_commit = hub.store.model("alice/m").commit("main").oid
    out, _ = say("push", two, "alice/m", "-y", "--create-pr")
    assert out == f"{hub.endpoint}/alice/m/discussions/1\n"
    out, _ = say("push", two, "alice/m", "-y", "--revision", "try", "--with-code", "--json")
    done = json.loads(out)
    assert done["commit"] == hub.store.model("alice/m").commit("try").oid
    assert done["plan"]["has_code"]
    assert hub.store.model("alice/m").commit("main").oid == main_commit


def test_a_pull_prints_the_folder_and_warns_of_code(hub: HubServer, say: Say, tmp_path: Path) -> None:
    say("push", text_checkpoint(tmp_path / "in"), "alice/m", "-y", "--with-code")
    commit = hub.store.model("alice/m").commit("main").oid
    out, err = say("pull", f"alice/m@{commit}")
    assert (Path(out.strip()) / "model.safetensors").is_file()
    assert "Python files" in err
    assert "not taken" in err
    assert f"alice/m at commit {commit}" in err
    out, _ = say("pull", "alice/m", "mine", "--with-code", "--json")
    assert json.loads(out)["commit"] == commit
    assert (Path("mine") / "modeling_urlstm.py").is_file()
    _, err = say("pull", "alice/m", "mine", code=2)
    assert "folder mine exists and is not empty" in err
    for wrong, said in {
        "alice/m@v9": "no such branch, tag or commit",
        "alice/n": "shows no such repository",
        "alice/m@../x": "revision '../x' is not the name",
    }.items():
        _, err = say("pull", wrong, code=2 if "../" in wrong else 1)
        assert said in err


def test_the_hubs_checkpoints_are_listed(hub: HubServer, say: Say, tmp_path: Path) -> None:
    for name in ("alice/b", "alice/a"):
        say("push", image_checkpoint(tmp_path / name), name, "-y")
    assert say("list", "--hub", "alice", "--plain")[0] == "alice/a\nalice/b\n"
    (first, _) = json.loads(say("list", "--hub", "alice", "--json")[0])
    assert first["repo_id"] == "alice/a"
    assert first["commit"] == hub.store.model("alice/a").commit("main").oid
    assert "alice/a" in say("list", "--hub", "alice")[0]
    assert "bob has no urzoo checkpoints" in say("list", "--hub", "bob")[1]


def test_an_evaluation_from_the_hub_records_repository_and_commit(
    hub: HubServer, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    say("push", NAME, "alice/mine", "-y")
    commit = hub.store.model("alice/mine").commit("main").oid
    arguments = ("--task", "smnist", "--limit", 4, "--results", "results", "--json", "--overwrite", "always")
    (result,) = json.loads(say("eval", "alice/mine", *arguments)[0])
    name = f"alice/mine+{zoo.info(NAME).checkpoint_sha256[:8]}"
    assert result["model"]["name"] == name
    assert (result["model"]["source"], result["model"]["revision"]) == ("Hub", commit)
    assert result["model"]["weights_sha256"] == zoo.info(NAME).weights_sha256
    assert result["command"].startswith(f"urzoo eval alice/mine@{commit} --task smnist ")
    assert json.loads(Path(f"results/{name.replace('/', '__')}/smnist.json").read_text()) == result
    # Without a connection the copy that was pulled is evaluated, and is still said to be of that commit.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    out, err = say("eval", f"alice/mine@{commit}", *arguments)
    assert json.loads(out)[0]["model"]["revision"] == commit
    assert "copy of commit" in err
    _, err = say("eval", "alice/other", *arguments, code=1)
    assert "no copy of alice/other@main was pulled earlier" in err


@pytest.mark.parametrize("how", ["offline mode", "a dead endpoint", "no such host"])
def test_without_a_connection_each_command_ends_at_once_in_one_line(
    how: str, say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = image_checkpoint(tmp_path / "in")
    say("push", folder, "alice/m", "-y")
    say("pull", "alice/m")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", how == "offline mode")
    if how != "offline mode":
        address = "http://127.0.0.1:9" if how == "a dead endpoint" else "http://nowhere.invalid"
        use_endpoint(monkeypatch, address)
    start = time.monotonic()
    out, err = say("pull", "alice/m")
    assert (Path(out.strip()) / "config.json").is_file()
    assert "pulled earlier" in err
    for arguments in (
        ("pull", "alice/n"),
        ("push", folder, "alice/m", "-y"),
        ("list", "--hub", "alice"),
        ("eval", "alice/n", "--task", "smnist"),
    ):
        _, err = say(*arguments, code=1)
        assert "cannot be reached" in err or "offline mode is on" in err
        assert err.count("\n") == 1
    assert time.monotonic() - start < 30  # a busy machine; without an end to retries it would be minutes


def test_no_command_lets_a_token_show(
    hub: HubServer, say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Every way out of push, pull, list and eval, with all logs at their most talkative."""
    for name in ("", "huggingface_hub", "httpx2", "httpcore2", "urzoo", "transformers"):
        caplog.set_level(logging.DEBUG, logger=name or None)
    monkeypatch.setattr("time.sleep", lambda _: None)
    folder = image_checkpoint(tmp_path / "in")
    said = [*say("push", folder, "alice/m", "-y", "--json"), *say("pull", "alice/m", "out", "--json")]
    said += say("list", "--hub", "alice", "--json")
    hub.store.create("model", "alice/secret", private=True)
    for token in (TOKEN, OTHER, "hf_wrongTokenThatNobodyHas000000"):
        monkeypatch.setenv("HF_TOKEN", token)
        said += say("pull", "alice/none", code=1)
        if token != TOKEN:
            said += say("pull", "alice/secret", code=1)
            said += say("push", folder, "alice/secret", "-y", code=1)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for number, fault in enumerate(
        ({"status": 503}, {"status": 403}, {"cut": True}, {"status": 418}, {"keep_bytes": 2})
    ):
        hub.faults.armed.clear()
        hub.fail(times=10**6, **fault)
        changed = image_checkpoint(tmp_path / f"in-{number}", seed=number)
        for arguments in (("push", changed, "alice/m", "-y"), ("pull", "alice/m", "never"), ("list", "--hub", "alice")):
            said += say(*arguments, code=1)
    said.append(caplog.text)
    assert len(caplog.records) > 20
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    for token in (TOKEN, OTHER, "hf_wrongTokenThatNobodyHas000000"):
        assert not [text for text in said if token in text]
        assert not [path for path in written if token.encode() in path.read_bytes()]
    assert [request for request in hub.faults.log if TOKEN in request.headers.get("authorization", "")]  # it was used


def test_a_shipped_checkpoint_goes_there_and_back_with_all_its_files(hub: HubServer, say: Say, tmp_path: Path) -> None:
    for name in zoo.checkpoints():
        say("push", name, f"alice/{name}", "-y")
        say("pull", f"alice/{name}", tmp_path / name)
        sent, taken = (
            {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
            for folder in (zoo.path(name), tmp_path / name)
        )
        card = taken[Path("README.md")].decode()
        picture = f"thumbnail: {hub.endpoint}/alice/{name}/resolve/main/learning_curve.png\n"
        assert card.count(picture) == 1
        without = ModelCard(card.replace(picture, "")), ModelCard(sent.pop(Path("README.md")).decode())
        assert without[0].data.to_dict() == without[1].data.to_dict()
        assert without[0].text == without[1].text
        assert {path: content for path, content in taken.items() if path.name != "README.md"} == sent
        shutil.rmtree(tmp_path / name)
