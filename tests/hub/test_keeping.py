"""What a push finds in a repository and did not put there stays there, and no push is made twice."""

import json
import shutil
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from urzoo import zoo
from urzoo.errors import CheckpointError, UsageError
from urzoo.hub.card import check_card, render_card, write_card
from urzoo.hub.connection import GaveUpError, HubError, RefusedError
from urzoo.hub.merge import merge
from urzoo.hub.plan import PushResult
from urzoo.hub.pull import pull
from urzoo.hub.push import push
from urzoo.models import PixelSequenceImageProcessor, URLSTMConfig
from urzoo.models.card_urlstm import basic_card

from .checkpoints import CARD, image_checkpoint
from .conftest import READER, TOKEN
from .results import result
from .server import HubServer
from .test_faults import QUICK

NAME = "urlstm-128-smnist"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return image_checkpoint(tmp_path / "in")


@pytest.fixture
def carded(tmp_path: Path) -> Path:
    """A checkpoint with a generated card."""
    copy = shutil.copytree(zoo.path(NAME), tmp_path / NAME)
    (copy / "README.md").unlink()
    write_card(copy, [])
    return copy


def send(hub: HubServer, folder: Path, **options: Any) -> PushResult:
    return push(folder, "alice/m", token=TOKEN, endpoint=hub.endpoint, patience=QUICK, **options)


def front(card: bytes | str) -> dict[str, Any]:
    text = card.decode() if isinstance(card, bytes) else card
    return yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))


OTHERS = {
    "LICENSE": b"mine", "app.py": b"print()", "train.py": b"print()", "vocab.txt": b"a", "tokenizer.json": b"{}",
    "modeling_urlstm.py": b"old", "diagram.svg": b"<svg/>",
}  # fmt: skip


def test_nothing_is_deleted_unless_told_to(hub: HubServer, folder: Path) -> None:
    hub.store.write("alice/m", OTHERS)
    (folder / "optimizer.pt").write_bytes(b"mine")
    sent = send(hub, folder)
    assert sent.plan.deletions == ()
    assert sent.plan.kept == ("LICENSE", "modeling_urlstm.py", "tokenizer.json", "vocab.txt")
    assert sent.plan.left_out == ("optimizer.pt",)
    files = hub.store.model("alice/m").files()
    assert OTHERS.items() <= files.items()
    assert "optimizer.pt" not in files
    deleted = send(hub, folder, delete=True)
    assert deleted.plan.deletions == ("LICENSE", "modeling_urlstm.py", "tokenizer.json", "vocab.txt")
    assert {"app.py", "train.py", "diagram.svg"} <= hub.store.model("alice/m").files().keys()
    assert not set(deleted.plan.deletions) & hub.store.model("alice/m").files().keys()


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"config.json": b'{"model_type": "bert"}', "model.safetensors": b"x"}, "holds a model of type 'bert'"),
        ({"config.json": b'{"model_type": "\\u001b[31m"}'}, r"holds a model of type '\\x1b\[31m'"),
        ({"config.json": b"[" * 200_000}, "holds a model of type 'None'"),
        ({"pytorch_model.bin": b"x"}, "holds weights of another model"),
    ],
)
def test_another_model_is_not_replaced_unless_told_to(
    files: dict[str, bytes], said: str, hub: HubServer, folder: Path
) -> None:
    hub.store.write("alice/m", files)
    before = hub.store.model("alice/m").state()
    with pytest.raises(UsageError, match=said):
        send(hub, folder)
    assert hub.store.model("alice/m").state() == before
    assert not hub.asked("POST|PUT")
    send(hub, folder, force=True)
    assert hub.store.model("alice/m").files()["config.json"] == (folder / "config.json").read_bytes()


def edited(card: bytes) -> bytes:
    """A card as somebody leaves it who edits it on the Hub's page."""
    text = card.decode().replace("license: apache-2.0\n", "license: mit\nlanguage:\n- en\n", 1)
    text = text.replace("- smnist\n", "- smnist\n- favourite\n", 1)
    assert text.count("favourite") == 1
    return f"{text}\n## About us\n\nWe like pixels.\n".encode()


def test_a_card_that_was_edited_on_the_hub_is_kept(hub: HubServer, carded: Path) -> None:
    send(hub, carded)
    hub.store.write("alice/m", {"README.md": edited(hub.store.model("alice/m").files()["README.md"])})
    write_card(carded, [result(carded)])
    send(hub, carded)
    card = hub.store.model("alice/m").files()["README.md"]
    assert (front(card)["license"], front(card)["language"]) == ("mit", ["en"])
    assert front(card)["tags"][-1] == "favourite"
    assert front(card)["model-index"]
    assert card.decode().endswith("\n## About us\n\nWe like pixels.\n")
    assert "| 97.89 % |" in card.decode()
    # It is the same again, and what was generated once and is no more goes.
    assert not send(hub, carded).sent
    write_card(carded, [])
    send(hub, carded)
    card = hub.store.model("alice/m").files()["README.md"]
    assert "model-index" not in front(card)
    assert front(card)["language"] == ["en"]
    assert b"We like pixels." in card
    (carded / "README.md").write_bytes(card)
    check_card(carded, [])  # text of one's own is not stale, and pulled and pushed again it is the same
    assert not send(hub, carded).sent


def test_a_card_that_somebody_wrote_stays_above_the_generated_part(hub: HubServer, carded: Path) -> None:
    hub.store.write("alice/m", {"README.md": b"---\nlicense: mit\ntags: [x]\n---\n# My model\n\nBy hand.\n"})
    send(hub, carded)
    card = hub.store.model("alice/m").files()["README.md"].decode()
    assert front(card)["license"] == "mit"
    assert front(card)["tags"] == ["urzoo", "ur-lstm", "recurrent-neural-network", "smnist", "x"]
    assert "# My model\n\nBy hand.\n<!-- Generated" in card
    assert not send(hub, carded).sent


def test_two_cards_with_text_of_their_own_are_not_made_one_silently(hub: HubServer, folder: Path) -> None:
    send(hub, folder)
    (folder / "README.md").write_text(f"{CARD}Newer.\n")
    send(hub, folder)  # nobody else wrote meanwhile
    hub.store.write("alice/m", {"README.md": f"{CARD}By hand.\n".encode()})
    (folder / "README.md").write_text(f"{CARD}Newest.\n")
    with pytest.raises(UsageError, match=r"README\.md here and the one on the Hub have different text"):
        send(hub, folder)
    assert hub.store.model("alice/m").files()["README.md"].endswith(b"By hand.\n")
    send(hub, folder, force=True)
    assert hub.store.model("alice/m").files()["README.md"].endswith(b"Newest.\n")


def test_edits_inside_the_generated_part_are_told(hub: HubServer, carded: Path) -> None:
    send(hub, carded)
    card = hub.store.model("alice/m").files()["README.md"]
    hub.store.write("alice/m", {"README.md": card.replace(b"## Use", b"## How to use it")})
    sent = send(hub, carded)
    assert sent.plan.notes == ("README.md was edited inside its generated part on the Hub; those edits are replaced",)


@pytest.mark.parametrize("theirs", [b"---\na: [\n---\n", b"---\n&a [*a]\n---\n", b"---\n- a\n---\nx"])
def test_a_card_without_readable_metadata_is_one_line(theirs: bytes, hub: HubServer, carded: Path) -> None:
    hub.store.write("alice/m", {"README.md": theirs})
    with pytest.raises(UsageError, match="the card that is there") as failed:
        send(hub, carded)
    assert "\n" not in str(failed.value)


def test_a_card_that_transformers_made_is_replaced(carded: Path) -> None:
    stub = (
        "---\nlibrary_name: transformers\nlicense: mit\ntags: []\n---\n\n# Model Card for Model ID\n\nThis is the "
        "model card of a 🤗 transformers model that has been pushed on the Hub. This model card has been automatically "
        "generated."
    )
    card = merge(render_card(carded, []), stub).text
    assert "Model Card for Model ID" not in card
    assert front(card)["license"] == "mit"


def test_a_card_that_push_to_hub_made_is_replaced_by_the_fuller_one(folder: Path) -> None:
    basic = basic_card(URLSTMConfig(), "URLSTMForImageClassification", 10, "alice/m", ["urzoo", "mine"])
    (folder / "README.md").write_text(basic)
    write_card(folder, [])
    card = (folder / "README.md").read_text()
    assert "whoever trained the model" not in card
    assert card.count("\n# ") == 1
    assert front(card)["tags"][-1] == "mine"


def test_a_generated_card_has_a_picture_of_its_own_repository(hub: HubServer, carded: Path, tmp_path: Path) -> None:
    send(hub, carded)
    assert "thumbnail" not in front((carded / "README.md").read_text())
    card = hub.store.model("alice/m").files()["README.md"]
    picture = f"{hub.endpoint}/alice/m/resolve/main/learning_curve.png"
    assert front(card)["thumbnail"] == picture
    assert httpx2.get(picture, headers={"Authorization": f"Bearer {TOKEN}"}, follow_redirects=True).content == (
        (carded / "learning_curve.png").read_bytes()
    )
    assert not send(hub, carded).sent
    pulled = pull("alice/m", out=tmp_path / "out", token=TOKEN, endpoint=hub.endpoint).folder
    check_card(pulled, [])
    push(pulled, "alice/copy", token=TOKEN, endpoint=hub.endpoint)
    copied = front(hub.store.model("alice/copy").files()["README.md"])
    assert copied["thumbnail"] == f"{hub.endpoint}/alice/copy/resolve/main/learning_curve.png"
    own = card.replace(picture.encode(), b"https://example.org/mine.png")
    hub.store.write("alice/m", {"README.md": own})
    send(hub, carded)
    assert front(hub.store.model("alice/m").files()["README.md"])["thumbnail"] == "https://example.org/mine.png"


@pytest.mark.parametrize("form", [b"\r\n", b"\n"], ids=["Windows line ends", "a byte-order mark"])
def test_a_card_from_another_editor_has_one_front_matter(form: bytes, hub: HubServer, carded: Path) -> None:
    mine = b"---\nlicense: mit\ntags: [x]\n---\n# Mine\n".replace(b"\n", form)
    (carded / "README.md").write_bytes(mine if form == b"\r\n" else b"\xef\xbb\xbf" + mine)
    send(hub, carded, licence="apache-2.0")
    card = hub.store.model("alice/m").files()["README.md"]
    assert card == b"---\nlicense: apache-2.0\ntags:\n- x\n---\n# Mine\n"


def test_keys_of_several_types_in_a_card_are_kept(carded: Path) -> None:
    theirs = "---\nlanguages: {no: Norsk, en: English}\n---\nBy hand.\n"
    kept = front(merge((carded / "README.md").read_text(), theirs).text)["languages"]
    assert set(kept.values()) == {"Norsk", "English"}


def test_message_tag_and_licence_are_those_asked_for(hub: HubServer, carded: Path) -> None:
    local = (carded / "README.md").read_bytes()
    sent = send(hub, carded, commit_message="Better ones", tag="v1.0", licence="cc-by-4.0")
    repository = hub.store.model("alice/m")
    assert repository.tags == {"v1.0": sent.commit}
    assert repository.commit("main").title == "Better ones"
    card = repository.files()["README.md"]
    assert front(card)["license"] == "cc-by-4.0"
    assert b"The weights: cc-by-4&#46;0." in card or b"The weights: cc-by-4.0." in card
    assert (carded / "README.md").read_bytes() == local
    assert not send(hub, carded, tag="v1.0").sent  # it stays what it was said to be
    (carded / "LICENSE").write_text("new")
    asked = len(hub.asked("POST|PUT"))
    with pytest.raises(UsageError, match=r"tag 'v1\.0' of alice/m exists, at commit"):
        send(hub, carded, tag="v1.0")
    with pytest.raises(UsageError, match=r"^tag '\.\./x' is not the name of a tag, for example v1\.0$"):
        send(hub, carded, tag="../x")
    for wrong in (
        {"commit_message": "a\nb"},
        {"licence": "My own!"},
        {"tag": "v2", "create_pr": True},
    ):
        with pytest.raises(UsageError):
            send(hub, carded, **wrong)
    assert len(hub.asked("POST|PUT")) == asked


def test_a_revision_that_is_no_branch_is_refused_before_anything_is_sent(hub: HubServer, folder: Path) -> None:
    sent = send(hub, folder)
    (folder / "LICENSE").write_text("new")
    asked = len(hub.asked("POST|PUT"))
    for revision, kind in ((sent.plan.tag, "tag"), (sent.commit, "commit")):
        with pytest.raises(UsageError, match=f"is a {kind}, which no push can change"):
            send(hub, folder, revision=revision)
    assert len(hub.asked("POST|PUT")) == asked


def test_a_pull_request_is_made_once(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    send(hub, folder)
    changed = image_checkpoint(tmp_path / "changed", seed=1)
    first = send(hub, changed, create_pr=True)
    again = send(hub, changed, create_pr=True)
    assert (again.sent, again.pull_request_url) == (False, first.pull_request_url)
    repository = hub.store.model("alice/m")
    assert len(repository.pulls) == 1
    repository.closed.add(1)
    assert send(hub, changed, create_pr=True).pull_request_url.endswith("/discussions/2")
    assert send(hub, image_checkpoint(tmp_path / "other", seed=2), create_pr=True).sent


def test_a_pull_request_whose_answer_was_lost_is_not_made_again(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    send(hub, folder)
    changed = image_checkpoint(tmp_path / "changed", seed=1)
    hub.fail("POST .*/commit/", action=lambda: hub.fail(times=1000, cut=True), cut=True, after=True)
    with pytest.raises(GaveUpError):  # as a kill between commit and answer leaves it
        send(hub, changed, create_pr=True)
    hub.faults.armed.clear()
    assert len(hub.store.model("alice/m").pulls) == 1
    assert not send(hub, changed, create_pr=True).sent
    assert len(hub.store.model("alice/m").pulls) == 1


def test_who_may_not_is_not_told_to_push_again(hub: HubServer, folder: Path) -> None:
    hub.store.create("model", "zoo/m")
    for token in (READER, TOKEN):
        if token == TOKEN:
            hub.fail("POST", status=401, times=100)
        with pytest.raises(RefusedError) as failed:
            push(folder, "zoo/m", token=token, endpoint=hub.endpoint)
        assert "again to go on" not in str(failed.value)
        assert "nothing was sent" in str(failed.value)


@pytest.mark.parametrize("verify", [True, False])
def test_an_upload_that_is_accepted_and_not_kept_is_told(verify: bool, hub: HubServer, folder: Path) -> None:
    hub.api.verify, hub.api.lose_uploads = verify, 1 if verify else 2
    if verify:
        send(hub, folder)  # it is sent once more
    else:
        with pytest.raises(HubError, match=r"the Hub took a file and does not have it .*Push again to go on"):
            send(hub, folder)
        send(hub, folder)
    assert hub.store.model("alice/m").files()["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    hub.store.repositories.clear()
    hub.api.verify, hub.api.lose_uploads = True, 100
    with pytest.raises(GaveUpError, match="the Hub took the file and does not have it, 3 times"):
        send(hub, folder)


def test_json_of_the_plan_can_be_written(hub: HubServer, folder: Path) -> None:
    from dataclasses import asdict

    assert json.loads(json.dumps(asdict(send(hub, folder, dry_run=True))))["plan"]["kept"] == []


def test_a_processor_of_another_number_of_channels_is_not_sent(hub: HubServer, folder: Path) -> None:
    PixelSequenceImageProcessor(size={"height": 4, "width": 4}, do_grayscale=False).save_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"input_size is 1, but the image processor makes pixels of 3; save"):
        send(hub, folder)
    assert not hub.asked("POST|PUT")
