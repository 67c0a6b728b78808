"""Time is bounded by progress: who says nothing, or next to nothing, is given up; who gets further is not."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from urzoo.errors import UrzooError
from urzoo.hub.connection import GaveUpError, HubError, Patience, UnreachableError
from urzoo.hub.guard import Budget
from urzoo.hub.listing import list_hub
from urzoo.hub.pull import pull
from urzoo.hub.push import push

from .checkpoints import image_checkpoint
from .conftest import TOKEN
from .server import HubServer
from .test_faults import content, fresh_hub, requests_of_a_pull, requests_of_a_push

# Three tenths of a second where it is a minute otherwise; a byte each 50 ms is far too little.
STALLED = Patience(attempts=100, first_wait_seconds=0.01, longest_wait_seconds=0.1, stalled_seconds=0.3)
SLOW: dict[str, dict[str, Any]] = {
    "a body that dribbles": {"dribble_seconds": 0.05},
    "headers that dribble": {"dribble_seconds": 0.05, "dribble_headers": True},
    "silence": {"delay_seconds": 30.0},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return image_checkpoint(tmp_path_factory.mktemp("checkpoint") / "in", hidden_size=64)


def ends_in_time(act: Callable[[], object]) -> None:
    start = time.monotonic()
    with pytest.raises((GaveUpError, UnreachableError)) as failed:
        act()
    assert "\n" not in str(failed.value)
    assert time.monotonic() - start < 10  # a second at most and what a busy machine adds; unbounded, minutes to hours


@pytest.mark.parametrize("fault", SLOW)
def test_a_pull_from_a_hub_that_is_too_slow_ends_at_every_request(fault: str, folder: Path, tmp_path: Path) -> None:
    for index, request in enumerate(requests_of_a_pull(folder, tmp_path)):
        with fresh_hub() as hub:
            hub.store.write("alice/m", content(folder))
            hub.fail(skip=index, times=10**6, **SLOW[fault])
            out, store = tmp_path / f"out-{index}", tmp_path / f"store-{index}"
            ends_in_time(
                lambda: pull("alice/m", out=out, token=TOKEN, endpoint=hub.endpoint, patience=STALLED, store=store)  # noqa: B023
            )
            assert not out.exists(), request


@pytest.mark.parametrize("fault", ["headers that dribble", "silence"])
def test_a_push_to_a_hub_that_is_too_slow_ends_at_every_request(fault: str, folder: Path) -> None:
    for index, request in enumerate(requests_of_a_push(folder)):
        with fresh_hub() as hub:
            hub.fail(skip=index, times=10**6, **SLOW[fault])
            ends_in_time(lambda: push(folder, "alice/m", token=TOKEN, endpoint=hub.endpoint, patience=STALLED))
            repository = hub.store.repositories.get(("model", "alice/m"))
            assert repository is None or repository.files() in ({}, content(folder)), request


def test_a_download_that_advances_at_each_attempt_is_never_given_up(
    hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    size = len(content(folder)["model.safetensors"])
    hub.store.write("alice/m", content(folder))
    fault = hub.fail("GET /cdn", keep_bytes=4000, times=10**6)
    patience = Patience(attempts=2, first_wait_seconds=0.01, stalled_seconds=30.0)
    done = pull("alice/m", out=tmp_path / "out", token=TOKEN, endpoint=hub.endpoint, patience=patience)
    assert content(tmp_path / "out") == content(folder)
    assert fault.hits == -(-size // 4000) > 10
    assert done.bytes_received == sum(map(len, content(folder).values()))


@pytest.mark.parametrize(("bytes_per_second", "ends"), [(1_000, 67), (5_000, 120), (9_000, 591), (11_000, None)])
def test_a_server_is_held_to_ten_kilobytes_a_second_after_a_minute(
    bytes_per_second: int, ends: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("urzoo.hub.guard.time.monotonic", lambda: now)
    budget = Budget(Patience())
    for second in range(1, 24 * 60):
        now = float(second)
        if budget.left_seconds <= 0:
            break
        budget.earn(bytes_per_second)
    assert second == pytest.approx(ends or 24 * 60 - 1, abs=1)


def test_a_download_below_the_least_rate_ends_though_bytes_keep_coming(
    hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    hub.store.write("alice/m", content(folder))
    hub.fail("GET /cdn", dribble_seconds=0.02, times=10**6)
    patience = Patience(attempts=100, first_wait_seconds=0.01, stalled_seconds=1.0, least_bytes_per_second=500.0)
    ends_in_time(lambda: pull("alice/m", out=tmp_path / "out", token=TOKEN, endpoint=hub.endpoint, patience=patience))
    assert not (tmp_path / "out").exists()


def test_a_download_that_is_cut_without_advancing_is_given_up(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    hub.store.write("alice/m", content(folder))
    hub.fail("GET /cdn", keep_bytes=4000)
    fault = hub.fail("GET /cdn", keep_bytes=0, times=10**6)
    patience = Patience(attempts=3, first_wait_seconds=0.01)
    with pytest.raises(GaveUpError, match="the connection was cut, 3 times"):
        pull("alice/m", out=tmp_path / "out", token=TOKEN, endpoint=hub.endpoint, patience=patience)
    assert fault.hits == 2


def test_waits_that_the_hub_asks_for_are_bounded_together(hub: HubServer, folder: Path) -> None:
    hub.fail("GET", status=429, retry_after="1", times=10**6)
    patience = Patience(attempts=100, first_wait_seconds=0.01, longest_wait_seconds=5.0, stalled_seconds=2.5)
    start = time.monotonic()
    with pytest.raises(GaveUpError, match=r"answers 429; no progress for 2\.5 s"):
        pull("alice/m", token=TOKEN, endpoint=hub.endpoint, patience=patience)
    assert time.monotonic() - start < 10


ACTS: dict[str, Callable[[HubServer, Path], object]] = {
    "pull": lambda hub, _: pull("alice/m", token=TOKEN, endpoint=hub.endpoint),
    "push": lambda hub, folder: push(folder, "alice/m", token=TOKEN, endpoint=hub.endpoint),
    "list": lambda hub, _: list_hub("alice", token=TOKEN, endpoint=hub.endpoint),
}


@pytest.mark.parametrize("act", ACTS)
def test_endless_pages_end(act: str, hub: HubServer, folder: Path) -> None:
    hub.store.write("alice/m", content(folder))
    hub.api.endless = True
    with pytest.raises(HubError, match="has more than 100 pages"):
        ACTS[act](hub, folder)
    assert len(hub.asked()) < 120


@pytest.mark.parametrize("act", ACTS)
def test_another_host_is_not_asked_for_the_next_page(act: str, hub: HubServer, folder: Path) -> None:
    with HubServer() as other:
        hub.store.write("alice/m", content(folder))
        hub.api.next_page = f"{other.endpoint}/api/models?p=1"
        with pytest.raises(HubError, match="sends to another host"):
            ACTS[act](hub, folder)
        assert not other.asked()


def test_an_answer_without_end_is_cut_off(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urzoo.hub.guard._LARGEST_ANSWER_BYTES", 100)
    hub.store.write("alice/m", {"README.md": b"x"})
    with pytest.raises(UrzooError, match="has more than 100 bytes"):
        pull("alice/m", token=TOKEN, endpoint=hub.endpoint)
