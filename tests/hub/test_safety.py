"""Hostile and unfitting repositories, private ones, concurrent pushes, and working offline."""

import threading
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from urzoo.errors import CheckpointError, UrzooError, UsageError
from urzoo.hub.connection import HubError, MissingError, StaleParentError, UnreachableError
from urzoo.hub.listing import list_hub
from urzoo.hub.names import locate
from urzoo.hub.pull import pull
from urzoo.hub.push import push
from urzoo.hub.reference import parse_reference

from .checkpoints import CARD, image_checkpoint
from .conftest import OTHER, READER, TOKEN
from .server import HubServer
from .store import Blob


@pytest.fixture
def files(tmp_path: Path) -> dict[str, bytes]:
    folder = image_checkpoint(tmp_path / "good")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def refused(hub: HubServer, tmp_path: Path, match: str, error: type[UrzooError] = HubError) -> None:
    """A pull fails with this message, writes no folder, and fetches no weights."""
    with pytest.raises(error, match=match) as failed:
        pull("alice/m", out=tmp_path / "out", token=TOKEN, endpoint=hub.endpoint)
    assert "\n" not in str(failed.value)
    assert not (tmp_path / "out").exists()
    assert not hub.asked("GET /cdn")


@pytest.mark.parametrize(
    "name",
    [
        "../evil.json",
        "a/../../evil",
        "/etc/passwd",
        "a\\..\\evil",
        "C:evil",
        "config.json\n",
        ".git/config",
        "con.json",
    ],
)
def test_a_hostile_file_name_refuses_the_repository(
    name: str, hub: HubServer, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.store.write("alice/m", {**files, name: b"{}"})
    refused(hub, tmp_path, "hostile name")
    assert not hub.asked("/resolve/")


def test_names_that_differ_in_case_only_are_refused(hub: HubServer, files: dict[str, bytes], tmp_path: Path) -> None:
    hub.store.write("alice/m", {**files, "CONFIG.json": b"{}"})
    refused(hub, tmp_path, "one file on some systems")


def test_weights_as_pickles_only_are_refused(hub: HubServer, files: dict[str, bytes], tmp_path: Path) -> None:
    del files["model.safetensors"]
    hub.store.write("alice/m", {**files, "pytorch_model.bin": b"\x80\x04."})
    refused(hub, tmp_path, r"'pytorch_model\.bin' only, which can run code")


def test_pickles_and_strange_files_beside_the_weights_stay_there(
    hub: HubServer, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.store.write("alice/m", {**files, "optimizer.pt": b"\x80\x04.", "run.sh": b"rm", "sub/config.json": b"{}"})
    done = pull("alice/m", out=tmp_path / "out", token=TOKEN, endpoint=hub.endpoint)
    assert {path.name for path in (tmp_path / "out").iterdir()} == files.keys()
    assert done.skipped == (".gitattributes", "optimizer.pt", "run.sh", "sub/config.json")
    assert any("optimizer.pt" in warning for warning in done.warnings)


def test_a_huge_file_is_refused_before_a_byte_of_it(hub: HubServer, files: dict[str, bytes], tmp_path: Path) -> None:
    hub.store.write("alice/m", {**files, "model.safetensors": Blob(b"x", lfs=True, claimed_size=1 << 40)})
    refused(hub, tmp_path, r"model\.safetensors has 1099511627776 bytes; expected at most")
    assert not hub.asked("/resolve/")


def test_a_file_longer_than_its_listing_is_cut_off(hub: HubServer, files: dict[str, bytes], tmp_path: Path) -> None:
    hub.store.write("alice/m", {**files, "README.md": Blob(files["README.md"] * 100, claimed_size=10)})
    hub.api.redirect = False
    with pytest.raises(HubError):
        pull("alice/m", out=tmp_path / "out", token=TOKEN, endpoint=hub.endpoint)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("config", [b'{"model_type": "bert", "architectures": ["BertModel"]}', b"[]", b"{", b"{}"])
def test_another_model_type_is_refused_before_its_weights_are_fetched(
    config: bytes, hub: HubServer, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.store.write("alice/m", {**files, "config.json": config})
    refused(hub, tmp_path, "config.json of alice/m is", CheckpointError)


def test_weights_that_do_not_fit_the_configuration_are_refused(
    hub: HubServer, files: dict[str, bytes], tmp_path: Path
) -> None:
    config = files["config.json"].replace(b'"hidden_size": 8', b'"hidden_size": 9')
    hub.store.write("alice/m", {**files, "config.json": config})
    with pytest.raises(CheckpointError, match=r"alice/m is not a checkpoint that urzoo loads: model\.safetensors"):
        pull("alice/m", out=tmp_path / "out", token=TOKEN, endpoint=hub.endpoint)
    assert not (tmp_path / "out").exists()


def test_a_private_repository_needs_its_owners_token(hub: HubServer, files: dict[str, bytes], tmp_path: Path) -> None:
    hub.store.create("model", "alice/m", private=True)
    hub.store.write("alice/m", files)
    for token, error in ((OTHER, MissingError), ("hf_wrongTokenThatNobodyHas000000", HubError), (None, MissingError)):
        with pytest.raises(error) as failed:
            pull("alice/m", out=tmp_path / "out", token=token, endpoint=hub.endpoint)
        assert token is None or token not in str(failed.value)
        assert not (tmp_path / "out").exists()
    assert pull("alice/m", out=tmp_path / "out", token=TOKEN, endpoint=hub.endpoint).files


def test_a_push_without_the_right_to_leaves_the_repository_as_it_was(hub: HubServer, tmp_path: Path) -> None:
    folder = image_checkpoint(tmp_path / "in")
    state = hub.store.create("model", "zoo/m").state()
    for token in (OTHER, READER, "hf_wrongTokenThatNobodyHas000000", None):
        with pytest.raises(HubError) as failed:
            push(folder, "zoo/m", token=token, endpoint=hub.endpoint)
        assert token is None or token not in str(failed.value)
    assert hub.store.model("zoo/m").state() == state


@pytest.mark.parametrize("repository", ["one that exists", "a new one"])
def test_of_two_pushes_at_once_one_wins_and_the_other_hears_of_it(
    repository: str, hub: HubServer, tmp_path: Path
) -> None:
    if repository == "one that exists":
        hub.store.create("model", "alice/m")
    folders = [image_checkpoint(tmp_path / f"in-{seed}", seed=seed) for seed in (1, 2)]
    both_planned = threading.Barrier(2)
    outcomes: list[object] = []

    def send(folder: Path) -> None:
        try:
            outcomes.append(
                push(folder, "alice/m", token=TOKEN, endpoint=hub.endpoint, confirm=lambda _: both_planned.wait() >= 0)
            )
        except UrzooError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=send, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lost = [outcome for outcome in outcomes if isinstance(outcome, StaleParentError)]
    won = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
    assert (len(lost), len(won)) == (1, 1), outcomes
    assert "somebody else pushed to main of alice/m" in str(lost[0]) or "made by somebody else" in str(lost[0])
    made = hub.store.model("alice/m")
    assert [commit.oid for commit in made.log("main")][:-1] == [won[0].commit]
    assert made.files()["model.safetensors"] in [(f / "model.safetensors").read_bytes() for f in folders]


def test_an_incomplete_folder_is_refused_before_the_hub_is_asked(hub: HubServer, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "preprocessor_config.json", "README.md"):
        folder = image_checkpoint(tmp_path / name)
        (folder / name).unlink()
        with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
            push(folder, "alice/m", token=TOKEN, endpoint=hub.endpoint)
    assert not hub.asked()


def test_a_token_in_a_file_is_not_published(hub: HubServer, tmp_path: Path) -> None:
    folder = image_checkpoint(tmp_path / "in")
    (folder / "README.md").write_text(f"{CARD}\nlogin with {TOKEN}\n")
    with pytest.raises(CheckpointError, match="holds an access token") as failed:
        push(folder, "alice/m", token=TOKEN, endpoint=hub.endpoint)
    assert TOKEN not in str(failed.value)
    assert not hub.asked()


def test_the_token_is_in_no_file_that_a_pull_writes(hub: HubServer, files: dict[str, bytes], tmp_path: Path) -> None:
    hub.store.write("alice/m", files)
    pull("alice/m", out=tmp_path / "out", token=TOKEN, endpoint=hub.endpoint)
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path


def test_offline_gives_the_copy_pulled_earlier_or_one_line_quickly(
    hub: HubServer, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.store.write("alice/m", files)
    first = pull("alice/m", token=TOKEN, endpoint=hub.endpoint)
    start = time.monotonic()
    for offline, endpoint in ((True, hub.endpoint), (False, "http://127.0.0.1:9")):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        for revision in (None, first.commit):
            again = pull("alice/m", revision, token=TOKEN, endpoint=endpoint)
            assert (again.offline, again.commit, again.folder) == (True, first.commit, first.folder)
            assert len(again.warnings) == 1
        with pytest.raises(UnreachableError, match="no copy of alice/other@main was pulled earlier") as failed:
            pull("alice/other", endpoint=endpoint)
        assert "\n" not in str(failed.value)
    assert time.monotonic() - start < 5


def test_what_was_pulled_is_found_offline_under_its_name_too_and_the_other_way_round(
    hub: HubServer, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("alice/pulled", "alice/evaluated"):
        hub.store.write(name, files)
    kept = [pull("alice/pulled", endpoint=hub.endpoint), pull("alice/evaluated", endpoint=hub.endpoint, any_model=True)]
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.warns(UserWarning, match="pulled earlier"):
        assert locate("alice/pulled").folder == kept[0].folder
    assert pull("alice/evaluated").folder == kept[1].folder


def test_a_kept_copy_that_was_damaged_is_not_handed_out(
    hub: HubServer, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.store.write("alice/m", files)
    weights = pull("alice/m", token=TOKEN, endpoint=hub.endpoint).folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UnreachableError):
        pull("alice/m", endpoint="http://127.0.0.1:9")
    folder = pull("alice/m", token=TOKEN, endpoint=hub.endpoint).folder
    assert (folder / "model.safetensors").read_bytes() == content


def test_what_a_killed_pull_left_half_written_is_cleared_by_the_next(
    hub: HubServer, files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.store.write("alice/m", files)
    commits = pull("alice/m", token=TOKEN, endpoint=hub.endpoint, store=tmp_path / "store").folder.parent
    (commits / ".abc.json.x1.part").write_text("{")
    (commits.parent / "refs" / ".main.x2.part").write_text("")
    (commits / ".abc.x3.part" / "new").mkdir(parents=True)
    pull("alice/m", token=TOKEN, endpoint=hub.endpoint, store=tmp_path / "store")
    assert not list(commits.parent.rglob(".*"))


def test_a_folder_that_cannot_be_written_is_one_line(hub: HubServer, files: dict[str, bytes], tmp_path: Path) -> None:
    hub.store.write("alice/m", files)
    (tmp_path / "locked").write_text("a file where a folder should be")
    with pytest.raises(UrzooError, match="cannot write"):
        pull("alice/m", out=tmp_path / "locked" / "out", token=TOKEN, endpoint=hub.endpoint)


def test_listing_gives_an_owners_checkpoints(hub: HubServer, files: dict[str, bytes]) -> None:
    hub.store.write("alice/b", files)
    hub.store.write("alice/a", files)
    hub.store.write("alice/other", {"README.md": b"# none\n"})
    hub.store.create("model", "alice/secret", private=True)
    hub.store.write("alice/secret", files)
    ids = [checkpoint.repo_id for checkpoint in list_hub("alice", token=TOKEN, endpoint=hub.endpoint)]
    assert ids == ["alice/a", "alice/b", "alice/secret"]
    found = list_hub("alice", token=OTHER, endpoint=hub.endpoint)
    assert [(one.repo_id, one.private, one.commit) for one in found] == [
        (name, False, hub.store.model(name).commit("main").oid) for name in ("alice/a", "alice/b")
    ]
    with pytest.raises(UnreachableError):
        list_hub("alice", endpoint="http://127.0.0.1:9")


@pytest.mark.parametrize(
    "reference",
    [
        "alice",
        "a/b/c",
        "https://example.org/a/b",
        "hf://datasets/a/b",
        "https://huggingface.co/datasets/a/b",
        "a/..",
        "a/b@",
        "/b",
        "",
    ],
)
def test_what_is_no_repository_is_refused_by_name(reference: str) -> None:
    with pytest.raises(UsageError, match=r"OWNER/NAME|ends in '@'|names no model"):
        parse_reference(reference)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("hf://alice/m", ("alice/m", None)),
        ("hf://alice/m@v1", ("alice/m", "v1")),
        ("hf://models/alice/m@refs%2Fpr%2F1", ("alice/m", "refs/pr/1")),
        ("https://huggingface.co/alice/m", ("alice/m", None)),
        ("https://hf.co/alice/m/", ("alice/m", None)),
        ("https://huggingface.co/alice/m/tree/v1", ("alice/m", "v1")),
        ("https://huggingface.co/alice/m/tree/refs%2Fpr%2F1", ("alice/m", "refs/pr/1")),
        ("https://huggingface.co/alice/m/blob/main/config.json?x=1#L2", ("alice/m", "main")),
        ("https://huggingface.co/alice/m/commit/0123abc", ("alice/m", "0123abc")),
        ("https://huggingface.co/alice/m/discussions/3", ("alice/m", None)),
    ],
)
def test_addresses_of_the_hub_are_references(reference: str, expected: tuple[str, str | None]) -> None:
    assert parse_reference(reference) == expected


def test_a_reference_is_a_repository_and_a_revision() -> None:
    assert parse_reference("alice/m@refs/pr/1") == ("alice/m", "refs/pr/1")
    assert parse_reference("alice/m") == ("alice/m", None)
