"""The Hub as a source: fetched at the pinned revision, verified, and missed once and quickly."""

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.data.conftest import ROWS, images, labels, write_parquet
from tests.hub.conftest import client_environment
from tests.hub.server import HubServer

TWO_SPLITS = """
import time
from urzoo.data import DataMissing, load_split
began = time.perf_counter()
for name, split in (("mnist", "train"), ("imdb", "test"), ("imdb", "train"), ("wikitext-2", "test")):
    try:
        load_split(name, split)
    except DataMissing as error:
        print(error)
print("seconds", time.perf_counter() - began)
"""


def run(code: str, environment: dict[str, str], folder: Path) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment(tmp_path: Path, **extra: str) -> dict[str, str]:
    with HubServer() as server:
        kept = client_environment(server, tmp_path / "home", token=None)
    return {**{key: value for key, value in kept.items() if key != "URZOO_DATA_ROOT"}, **extra}


def test_a_hub_that_never_answers_is_noticed_once_and_quickly(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        kept: list[socket.socket] = []
        thread = threading.Thread(target=lambda: [kept.append(silent.accept()[0]) for _ in range(3)], daemon=True)
        thread.start()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.perf_counter()
        output = run(TWO_SPLITS, environment(tmp_path, HF_ENDPOINT=endpoint), tmp_path)
        assert time.perf_counter() - began < 30
    lines = output.splitlines()
    assert len(lines) == 5
    assert all("cannot be reached" in line for line in lines[:4])
    assert float(lines[-1].split()[1]) < 10
    assert len(kept) == 1


FETCH = """
from pathlib import Path
from urzoo.data import load_split, schema
schema.SETS_FOLDER = Path("sets")
for _ in range(2):
    split = load_split("toy", "test")
    print(split.source, split.rows, int(split.images.sum()))
"""


def test_a_split_is_fetched_at_its_revision_once_and_read_offline_later(toy: Path, place, tmp_path: Path):
    write_parquet(place(), images(), labels())
    with HubServer() as server:
        name = "plain/test-00000-of-00001.parquet"
        pinned = server.store.write("owner/toy", {name: place().read_bytes()}, kind="dataset").commit("main").oid
        server.store.write("owner/toy", {name: b"a later revision"}, kind="dataset")
        file = tmp_path / "sets" / "toy.yaml"
        file.write_text(file.read_text().replace("0" * 40, pinned))
        variables = environment(tmp_path, HF_ENDPOINT=server.endpoint)
        expected = f"Hub {ROWS} {images().sum()}\n" * 2
        assert run(FETCH, variables, tmp_path) == expected
        assert len(server.asked(f"GET .*{name}")) <= 2
        assert all(pinned in request for request in server.asked(name))
    assert run(FETCH, {**variables, "HF_HUB_OFFLINE": "1"}, tmp_path) == expected


def test_a_split_that_the_hub_holds_in_another_form_is_refused(toy: Path, place, tmp_path: Path):
    write_parquet(place(), images(seed=1), labels())
    with HubServer() as server:
        name = "plain/test-00000-of-00001.parquet"
        pinned = server.store.write("owner/toy", {name: place().read_bytes()}, kind="dataset").commit("main").oid
        file = tmp_path / "sets" / "toy.yaml"
        file.write_text(file.read_text().replace("0" * 40, pinned))
        code = FETCH.replace(
            "for _",
            "from urzoo.errors import DataError\ntry:\n  load_split('toy', 'test')\n"
            "except DataError as error:\n  print(error)\nfor _",
        ).replace("range(2)", "()")
        assert "is not split 'test' of toy" in run(code, environment(tmp_path, HF_ENDPOINT=server.endpoint), tmp_path)


def test_a_repository_that_is_gone_from_the_hub_is_told_in_one_line(tmp_path: Path):
    with HubServer() as server:
        output = run(TWO_SPLITS, environment(tmp_path, HF_ENDPOINT=server.endpoint), tmp_path)
    assert len(output.splitlines()) == 5
    assert "could not be fetched from ylecun/mnist" in output


def test_a_proxy_that_cannot_be_used_is_told_in_one_line_each(tmp_path: Path):
    for proxy in ("socks5://127.0.0.1:9", "foo://bar"):
        output = run(TWO_SPLITS, environment(tmp_path, HTTP_PROXY=proxy, HF_ENDPOINT="http://hub.invalid"), tmp_path)
        assert len(output.splitlines()) == 5
        assert output.count("the Hub cannot be reached (") == 4
        assert "no answer" not in output


def test_offline_mode_asks_nobody(tmp_path: Path):
    with HubServer() as server:
        output = run(TWO_SPLITS, environment(tmp_path, HF_ENDPOINT=server.endpoint, HF_HUB_OFFLINE="1"), tmp_path)
        assert server.asked() == []
    assert "offline by HF_HUB_OFFLINE" in output


def test_a_refused_connection_is_told_in_one_line_each(tmp_path: Path):
    output = run(TWO_SPLITS, environment(tmp_path, HF_ENDPOINT="http://127.0.0.1:9"), tmp_path)
    assert len(output.splitlines()) == 5
