"""Every way to fail, at every request of a push and of a pull: all of it happens, or nothing does."""

import email.utils
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from urzoo.errors import UrzooError, UsageError
from urzoo.hub.connection import GaveUpError, HubError, Patience, UnreachableError
from urzoo.hub.pull import pull
from urzoo.hub.push import push

from .checkpoints import image_checkpoint
from .conftest import TOKEN
from .server import HubServer

QUICK = Patience(attempts=3, first_wait_seconds=0.01, longest_wait_seconds=0.1, silence_seconds=0.15)

PASSING: dict[str, dict[str, Any]] = {
    "408": {"status": 408},
    "429": {"status": 429, "retry_after": "0"},
    "500": {"status": 500},
    "503": {"status": 503},
    "cut before": {"cut": True},
    "cut after": {"cut": True, "after": True},
    "500 after": {"status": 500, "after": True},
    "cut body": {"keep_bytes": 3},
    "timeout": {"delay_seconds": 0.3},
}
ALIKE = ("408", "500", "500 after", "400", "404")
# A body that is cut after some bytes lets a download advance each time, and so does not last.
LASTING = {
    **PASSING,
    "cut body": {"keep_bytes": 0},
    "403": {"status": 403},
    "400": {"status": 400},
    "404": {"status": 404},
}


@contextmanager
def fresh_hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_user("alice", token=TOKEN)
        yield hub


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_checkpoint(tmp_path_factory.mktemp("checkpoint") / "in")


def some(faults: Iterable[str]) -> list[Any]:
    """The kinds of fault as parameters; those that fail as another does wait for the slow run."""
    return [pytest.param(fault, marks=pytest.mark.slow) if fault in ALIKE else fault for fault in faults]


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def send(hub: HubServer, folder: Path) -> None:
    push(folder, "alice/m", force=True, token=TOKEN, endpoint=hub.endpoint, patience=QUICK)


def failure(hub: HubServer, folder: Path) -> UrzooError | None:
    try:
        send(hub, folder)
    except UrzooError as error:
        return error
    return None


def requests_of_a_push(folder: Path) -> list[str]:
    with fresh_hub() as hub:
        send(hub, folder)
        return hub.asked()


def requests_of_a_pull(folder: Path, root: Path) -> list[str]:
    with fresh_hub() as hub:
        hub.store.write("alice/m", content(folder))
        pull("alice/m", token=TOKEN, endpoint=hub.endpoint, store=root / "counted")
        return hub.asked()


@pytest.mark.parametrize("fault", some(PASSING))
def test_a_push_gets_through_a_passing_fault_at_any_request(fault: str, folder: Path) -> None:
    for index, request in enumerate(requests_of_a_push(folder)):
        with fresh_hub() as hub:
            hub.fail(skip=index, **PASSING[fault])
            send(hub, folder)
            repository = hub.store.model("alice/m")
            assert repository.files() == content(folder), request
            assert len(repository.log("main")) == 2, request
            assert list(repository.tags.values()) == [repository.commit("main").oid], request


@pytest.mark.parametrize("fault", some(LASTING))
def test_a_push_that_fails_for_good_at_any_request_left_all_or_nothing(fault: str, folder: Path) -> None:
    asked = requests_of_a_push(folder)
    for index, request in enumerate(asked):
        with fresh_hub() as hub:
            hub.store.write("alice/m", {"README.md": b"of before"})
            before = hub.store.model("alice/m").state()
            # The requests of this push, into a repository that exists, are others than the counted ones; all are met.
            hub.fail(skip=index, times=1000, **LASTING[fault])
            error = failure(hub, folder)
            assert "\n" not in str(error)
            assert TOKEN not in str(error)
            repository = hub.store.model("alice/m")
            assert error or repository.files() == content(folder), request
            if repository.branches == before[0]:
                assert repository.state() == before, request
            else:
                assert repository.files() == content(folder), request
                assert len(repository.log("main")) == 3, request
            hub.faults.armed.clear()
            send(hub, folder)
            assert repository.files() == content(folder), request
            assert len(repository.log("main")) == 3, request


@pytest.mark.parametrize("fault", some([*PASSING, "flipped byte"]))
def test_a_pull_gets_through_a_passing_fault_at_any_request(fault: str, folder: Path, tmp_path: Path) -> None:
    for index, request in enumerate(requests_of_a_pull(folder, tmp_path)):
        if fault == "flipped byte" and "/cdn/" not in request:
            continue
        with fresh_hub() as hub:
            hub.store.write("alice/m", content(folder))
            hub.fail(skip=index, **PASSING.get(fault, {"flip_byte": 50}))
            out, store = tmp_path / f"out-{index}", tmp_path / f"store-{index}"
            pull("alice/m", out=out, token=TOKEN, endpoint=hub.endpoint, patience=QUICK, store=store)
            assert content(out) == content(folder), request


@pytest.mark.parametrize("fault", some([*LASTING, "flipped byte", "flipped first byte"]))
def test_a_pull_that_fails_for_good_at_any_request_leaves_no_folder(fault: str, folder: Path, tmp_path: Path) -> None:
    flips = {"flipped byte": {"flip_byte": 50}, "flipped first byte": {"flip_byte": 0}}
    for index, request in enumerate(requests_of_a_pull(folder, tmp_path)):
        with fresh_hub() as hub:
            hub.store.write("alice/m", content(folder))
            hub.fail(skip=index, times=1000, **LASTING.get(fault, flips.get(fault)))
            out, store = tmp_path / f"out-{index}", tmp_path / f"store-{index}"
            with pytest.raises(UrzooError) as failed:
                pull("alice/m", out=out, token=TOKEN, endpoint=hub.endpoint, patience=QUICK, store=store)
            assert "\n" not in str(failed.value)
            assert TOKEN not in str(failed.value)
            assert not out.exists(), request
            assert not list((store / "alice--m" / "commits").glob("*/")), request
            hub.faults.armed.clear()
            pull("alice/m", out=out, token=TOKEN, endpoint=hub.endpoint, patience=QUICK, store=store)
            assert content(out) == content(folder), request
    assert not list(tmp_path.glob(".*"))


def test_what_appears_in_the_folder_at_any_request_of_a_pull_stays(folder: Path, tmp_path: Path) -> None:
    for index, request in enumerate(requests_of_a_pull(folder, tmp_path)):
        out = tmp_path / f"out-{index}"

        def appear(out: Path = out) -> None:
            out.mkdir()
            (out / "mine").write_text("keep")

        with fresh_hub() as hub:
            hub.store.write("alice/m", content(folder))
            hub.fail(skip=index, action=appear)
            with pytest.raises(UsageError, match=r"holds something by now|is not empty"):
                pull("alice/m", out=out, token=TOKEN, endpoint=hub.endpoint, store=tmp_path / f"store-{index}")
        assert content(out) == {"mine": b"keep"}, request


def test_of_two_pulls_into_one_folder_at_any_request_one_fails(folder: Path, tmp_path: Path) -> None:
    other = image_checkpoint(tmp_path / "other", seed=1)
    for index, request in enumerate(requests_of_a_pull(folder, tmp_path)):
        out = tmp_path / f"out-{index}"
        with fresh_hub() as hub, fresh_hub() as second:
            second.store.write("alice/n", content(other))
            hub.store.write("alice/m", content(folder))

            def meanwhile(second: HubServer = second, out: Path = out, index: int = index) -> None:
                pull("alice/n", out=out, token=TOKEN, endpoint=second.endpoint, store=tmp_path / f"second-{index}")

            hub.fail(skip=index, action=meanwhile)
            with pytest.raises(UsageError, match=r"holds something by now|is not empty"):
                pull("alice/m", out=out, token=TOKEN, endpoint=hub.endpoint, store=tmp_path / f"store-{index}")
        assert content(out) == content(other), request


def test_a_cut_download_goes_on_where_it_stopped(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    hub.store.write("alice/m", content(folder))
    hub.fail("GET /cdn", keep_bytes=1000)
    done = pull("alice/m", token=TOKEN, endpoint=hub.endpoint, patience=QUICK)
    assert done.bytes_received == sum(map(len, content(folder).values()))
    ranges = [request.headers.get("range") for request in hub.faults.log if request.path.startswith("/cdn")]
    assert ranges == [None, "bytes=1000-"]


def test_a_later_pull_goes_on_where_an_earlier_one_gave_up(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    hub.store.write("alice/m", content(folder))
    hub.fail("GET /cdn", keep_bytes=1000)
    hub.fail("GET /cdn", status=503, times=1000)
    with pytest.raises(GaveUpError):
        pull("alice/m", token=TOKEN, endpoint=hub.endpoint, patience=QUICK)
    hub.faults.armed.clear()
    done = pull("alice/m", token=TOKEN, endpoint=hub.endpoint, patience=QUICK)
    rest = len(content(folder)["model.safetensors"]) - 1000
    assert done.bytes_received == rest + len(content(folder)["preprocessor_config.json"])


def test_retry_after_is_waited_for(hub: HubServer, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    hub.store.write("alice/m", content(folder))
    hub.fail("revision/main", status=429, retry_after="1")
    patience = Patience(attempts=2, first_wait_seconds=0.01, longest_wait_seconds=2.0)
    start = time.monotonic()
    pull("alice/m", token=TOKEN, endpoint=hub.endpoint, patience=patience)
    assert time.monotonic() - start >= 1.0
    assert "the Hub answers 429; trying again in 1.0 s" in caplog.text


def test_retry_after_as_a_date_is_waited_for(hub: HubServer, folder: Path) -> None:
    hub.store.write("alice/m", content(folder))
    patience = Patience(attempts=2, first_wait_seconds=0.01, longest_wait_seconds=5.0)
    until = math.ceil(time.time()) + 1
    hub.fail("revision/main", status=503, retry_after=email.utils.formatdate(until, usegmt=True))
    pull("alice/m", token=TOKEN, endpoint=hub.endpoint, patience=patience)
    assert time.time() >= until


def test_a_longer_wait_than_patience_is_not_begun(hub: HubServer, folder: Path) -> None:
    hub.store.write("alice/m", content(folder))
    hub.fail("revision/main", status=503, retry_after="3600")
    with pytest.raises(GaveUpError, match="the Hub answers 503, asking to wait 3600 s"):
        pull("alice/m", token=TOKEN, endpoint=hub.endpoint)
    assert len(hub.asked()) == 1


def test_attempts_are_bounded_and_the_error_says_what_was_sent(hub: HubServer, folder: Path) -> None:
    hub.store.write("alice/m", {"README.md": b"of before"})
    fault = hub.fail("POST .*/commit/", status=503, times=1000)
    with pytest.raises(GaveUpError) as failed:
        send(hub, folder)
    assert fault.hits == QUICK.attempts
    message = str(failed.value)
    assert "committing to alice/m: the Hub answers 503, 3 times" in message
    assert "sent: model.safetensors (to the file store, not visible without a commit); not sent: the commit" in message


def test_a_lost_answer_that_cannot_be_asked_for_again_is_said_to_leave_the_question_open(
    hub: HubServer, folder: Path
) -> None:
    hub.store.write("alice/m", {"README.md": b"of before"})
    hub.fail("POST .*/commit/", cut=True, after=True)
    hub.fail("GET .*/commits/", status=503, times=1000)
    with pytest.raises(GaveUpError, match=r"whether the commit was made cannot be found out.*not sent: perhaps"):
        send(hub, folder)
    hub.faults.armed.clear()
    assert hub.store.model("alice/m").files() == content(folder)
    send(hub, folder)
    assert len(hub.store.model("alice/m").log("main")) == 3


def test_a_push_that_lost_only_its_tag_says_so_and_the_next_sends_just_that(hub: HubServer, folder: Path) -> None:
    hub.fail("POST .*/tag/", status=503, times=1000)
    with pytest.raises(HubError, match="sent: the whole content, as one commit; not sent: the tag"):
        send(hub, folder)
    hub.faults.armed.clear()
    before = len(hub.asked("POST|PUT"))
    send(hub, folder)
    assert len(hub.asked("POST|PUT")) == before + 1
    repository = hub.store.model("alice/m")
    assert list(repository.tags.values()) == [repository.commit("main").oid]


def test_a_dead_endpoint_is_given_up_at_once(folder: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    for act in (lambda: pull("alice/m", endpoint="http://127.0.0.1:9"), lambda: push(
        folder, "alice/m", token=TOKEN, endpoint="http://127.0.0.1:9"
    )):  # fmt: skip
        with pytest.raises(UnreachableError, match="cannot be reached"):
            act()
    assert time.monotonic() - start < 5
