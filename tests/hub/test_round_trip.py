"""What is pushed is what is pulled, bit for bit, and what from_pretrained loads."""

from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, constants
from huggingface_hub.utils._runtime import is_xet_available

import urzoo
from urzoo.errors import UsageError
from urzoo.hub.connection import Patience
from urzoo.hub.plan import PushPlan
from urzoo.hub.pull import pull
from urzoo.hub.push import push

from .checkpoints import KINDS, image_checkpoint
from .conftest import TOKEN
from .server import HubServer

QUICK = Patience(attempts=3, first_wait_seconds=0.01, longest_wait_seconds=0.1, silence_seconds=1.0)


@pytest.mark.parametrize("xet", ["with hf_xet", "without hf_xet"])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_come_back_bit_for_bit(
    kind: str, xet: str, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", xet == "without hf_xet")
    assert is_xet_available() == (xet == "with hf_xet")
    folder = KINDS[kind](tmp_path / "in")
    sent = push(folder, "alice/m", token=TOKEN, endpoint=hub.endpoint)
    assert sent.sent
    assert sent.commit == hub.store.model("alice/m").commit("main").oid
    pulled = pull("alice/m", out=tmp_path / "out", token=TOKEN, endpoint=hub.endpoint)
    assert (pulled.commit, pulled.folder) == (sent.commit, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in folder.iterdir()}
    for path in folder.iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    one, two = (urzoo.load(place).state_dict() for place in (folder, tmp_path / "out"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_push_is_one_commit_on_the_planned_parent_and_a_tag(hub: HubServer, tmp_path: Path) -> None:
    parent = hub.store.create("model", "alice/m").commit("main").oid
    sent = push(image_checkpoint(tmp_path / "in"), "alice/m", token=TOKEN, endpoint=hub.endpoint)
    repository = hub.store.model("alice/m")
    assert [commit.oid for commit in repository.log("main")] == [sent.commit, parent]
    assert repository.tags == {sent.plan.tag: sent.commit}
    assert pull("alice/m", sent.plan.tag, token=TOKEN, endpoint=hub.endpoint).commit == sent.commit


def test_the_same_content_again_sends_nothing(hub: HubServer, tmp_path: Path) -> None:
    folder = image_checkpoint(tmp_path / "in")
    push(folder, "alice/m", token=TOKEN, endpoint=hub.endpoint)
    state, before = hub.store.model("alice/m").state(), len(hub.asked("POST|PUT"))
    again = push(folder, "alice/m", token=TOKEN, endpoint=hub.endpoint)
    assert not again.sent
    assert again.plan.sends_nothing
    assert hub.store.model("alice/m").state() == state
    assert len(hub.asked("POST|PUT")) == before


def test_a_changed_card_is_sent_alone(hub: HubServer, tmp_path: Path) -> None:
    folder = image_checkpoint(tmp_path / "in")
    push(folder, "alice/m", token=TOKEN, endpoint=hub.endpoint)
    card = folder / "README.md"
    card.write_text(card.read_text() + "More.\n")
    sent = push(folder, "alice/m", token=TOKEN, endpoint=hub.endpoint)
    assert [file.path for file in sent.plan.changed] == ["README.md"]
    assert len(hub.asked("PUT /lfs")) == 1
    assert hub.store.model("alice/m").files()["README.md"].endswith(b"More.\n")
    assert len(hub.store.model("alice/m").tags) == 2


def test_a_dry_run_and_a_refused_confirmation_send_nothing(hub: HubServer, tmp_path: Path) -> None:
    folder = image_checkpoint(tmp_path / "in")
    shown: list[PushPlan] = []

    def refuse(plan: PushPlan) -> bool:
        shown.append(plan)
        return False

    for options in ({"dry_run": True}, {"confirm": refuse}):
        done = push(folder, "alice/m", token=TOKEN, endpoint=hub.endpoint, **options)
        assert (done.sent, done.commit) == (False, None)
    assert shown[0].creates_repository
    assert shown[0].bytes_to_send == sum(path.stat().st_size for path in folder.iterdir())
    assert not hub.asked("POST|PUT")
    assert not hub.store.repositories


def test_a_branch_is_made_and_main_stays(hub: HubServer, tmp_path: Path) -> None:
    push(image_checkpoint(tmp_path / "one", seed=1), "alice/m", token=TOKEN, endpoint=hub.endpoint)
    main = hub.store.model("alice/m").commit("main").oid
    two = image_checkpoint(tmp_path / "two", seed=2)
    sent = push(two, "alice/m", revision="try/two", token=TOKEN, endpoint=hub.endpoint)
    assert sent.plan.creates_branch
    assert hub.store.model("alice/m").branches == {"main": main, "try/two": sent.commit}
    folder = pull("alice/m", "try/two", token=TOKEN, endpoint=hub.endpoint).folder
    assert (folder / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()


def test_a_pull_request_leaves_the_branch_as_it_is(hub: HubServer, tmp_path: Path) -> None:
    push(image_checkpoint(tmp_path / "one", seed=1), "alice/m", token=TOKEN, endpoint=hub.endpoint)
    before = hub.store.model("alice/m").branches, hub.store.model("alice/m").tags.copy()
    two = image_checkpoint(tmp_path / "two", seed=2)
    sent = push(two, "alice/m", create_pr=True, token=TOKEN, endpoint=hub.endpoint)
    assert sent.pull_request_url == f"{hub.endpoint}/alice/m/discussions/1"
    assert (hub.store.model("alice/m").branches, hub.store.model("alice/m").tags) == before
    assert pull("alice/m", "refs/pr/1", token=TOKEN, endpoint=hub.endpoint).commit == sent.commit


def test_private_is_for_new_repositories_and_never_changes_an_old_one(hub: HubServer, tmp_path: Path) -> None:
    folder = image_checkpoint(tmp_path / "in")
    push(folder, "alice/secret", private=True, token=TOKEN, endpoint=hub.endpoint)
    assert hub.store.model("alice/secret").private
    hub.store.create("model", "alice/open")
    with pytest.raises(UsageError, match="alice/open exists and is public"):
        push(folder, "alice/open", private=True, token=TOKEN, endpoint=hub.endpoint)
    assert hub.store.model("alice/open").files() == {}


def test_a_push_with_code_carries_it_and_a_pull_leaves_it_there(hub: HubServer, tmp_path: Path) -> None:
    sent = push(image_checkpoint(tmp_path / "in"), "alice/m", with_code=True, token=TOKEN, endpoint=hub.endpoint)
    assert sent.plan.has_code
    plain = pull("alice/m", token=TOKEN, endpoint=hub.endpoint)
    assert not list(plain.folder.glob("*.py"))
    assert any("Python files" in warning and "not taken" in warning for warning in plain.warnings)
    coded = pull("alice/m", with_code=True, token=TOKEN, endpoint=hub.endpoint)
    assert (coded.folder / "modeling_urlstm.py").is_file()
    assert coded.commit == plain.commit
    assert not push(coded.folder, "alice/m", token=TOKEN, endpoint=hub.endpoint).sent


def test_a_second_pull_receives_nothing(hub: HubServer, tmp_path: Path) -> None:
    push(image_checkpoint(tmp_path / "in"), "alice/m", token=TOKEN, endpoint=hub.endpoint)
    first = pull("alice/m", token=TOKEN, endpoint=hub.endpoint)
    second = pull("alice/m", out=tmp_path / "out", token=TOKEN, endpoint=hub.endpoint)
    assert first.bytes_received == sum(path.stat().st_size for path in first.folder.iterdir())
    assert second.bytes_received == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == list(second.files)


def test_a_pull_does_not_touch_a_folder_that_holds_something(hub: HubServer, tmp_path: Path) -> None:
    push(image_checkpoint(tmp_path / "in"), "alice/m", token=TOKEN, endpoint=hub.endpoint)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    with pytest.raises(UsageError, match="not empty"):
        pull("alice/m", out=tmp_path / "out", token=TOKEN, endpoint=hub.endpoint)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_pushed_tag_can_be_listed_by_any_client(hub: HubServer, tmp_path: Path) -> None:
    sent = push(image_checkpoint(tmp_path / "in"), "zoo/m", token=TOKEN, endpoint=hub.endpoint)
    refs = HfApi(endpoint=hub.endpoint, token=False).list_repo_refs("zoo/m")
    assert [(tag.name, tag.target_commit) for tag in refs.tags] == [(sent.plan.tag, sent.commit)]
