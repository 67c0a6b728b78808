"""What the guard relies on in httpx2: a trace that tells of each new stream, and answers made of what was read."""

import gzip
import socket
import threading

import httpcore2
import httpx2
import pytest

from urzoo.hub import guard


def test_content_that_was_read_up_to_a_bound_is_the_content_of_the_answer():
    request = httpx2.Request("GET", "http://hub/api")
    before = httpx2.Response(302, request=request)
    body = gzip.compress(b'{"a": 1}')
    headers = [("Content-Encoding", "gzip"), ("Link", "one"), ("Link", "two")]
    read = guard.read_answer(
        httpx2.Response(200, headers=headers, stream=httpx2.ByteStream(body), request=request, history=[before])
    )
    assert read.json() == {"a": 1}
    assert (read.status_code, read.request, read.history) == (200, request, [before])
    assert read.headers.get_list("Link") == ["one", "two"]


def test_an_answer_without_content_keeps_the_length_that_it_tells_of():
    response = httpx2.Response(200, headers={"Content-Length": "123"}, stream=httpx2.ByteStream(b""))
    response.request = httpx2.Request("HEAD", "http://hub/file")
    assert guard.read_answer(response).headers["Content-Length"] == "123"


@pytest.fixture
def server():
    """Answers every request on any number of connections with an empty page; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer(connection):
            with connection:
                while connection.recv(1 << 16):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        def accept():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize("mounts", [None, {"http://": httpx2.HTTPTransport()}])
def test_the_bytes_of_a_guarded_request_are_counted_and_those_of_others_are_not(server, mounts, monkeypatch):
    earned = []
    budget = guard.Budget(guard.Patience())
    monkeypatch.setattr(budget, "earn", earned.append)
    with httpx2.Client(mounts=mounts, trust_env=False) as client:
        monkeypatch.setattr(guard, "get_session", lambda: client)
        with guard.guarded(guard.Guard(server, None, guard.Patience(), budget)):
            assert client.get(server).content == b""
        sent, came = earned
        assert sent > 20
        assert came > 20
        client.get(server)  # on the same connection
        assert earned == [sent, came]


def test_a_spent_budget_ends_a_request(server, monkeypatch):
    budget = guard.Budget(guard.Patience())
    with httpx2.Client(trust_env=False) as client:
        monkeypatch.setattr(guard, "get_session", lambda: client)
        budget.ends = 0.0
        with (
            guard.guarded(guard.Guard(server, None, guard.Patience(), budget)),
            pytest.raises(guard.PassingError, match="nothing came, or too little"),
        ):
            client.get(server)


def test_streams_are_told_of_by_the_trace_of_a_request(server):
    told = []
    with httpx2.Client(trust_env=False) as client:
        client.get(server, extensions={"trace": lambda _, info: told.append(info.get("return_value"))})
    assert sum(isinstance(one, httpcore2.NetworkStream) for one in told) == 1
