"""The private names of httpx2 that the guard relies on."""

import httpcore2
import httpx2
import pytest

from urzoo.hub import guard

MOVED = "has moved: urzoo/hub/guard.py uses it, see its docstring; find where httpx2 keeps it now, or a public way"


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (httpx2.Client, "_transport"),
        (httpx2.Client, "_mounts"),
        (httpx2.HTTPTransport, "_pool"),
        (httpcore2.ConnectionPool, "_network_backend"),
    ],
)
def test_a_private_name_of_httpx2_is_where_the_guard_looks_for_it(owner, name):
    with owner() as made:
        assert hasattr(made, name), f"{owner.__name__}.{name} {MOVED}"


def test_content_that_was_read_up_to_a_bound_is_the_content_of_the_answer():
    answer = httpx2.Response(200, stream=httpx2.ByteStream(b'{"a": 1}'))
    guard.read_answer(answer)
    assert answer.content == b'{"a": 1}', f"Response._content {MOVED}"
    assert answer.json() == {"a": 1}


def test_every_stream_of_a_guarded_client_is_held_to_the_budget():
    with httpx2.Client(mounts={"http://mounted": httpx2.HTTPTransport(), "all://direct": None}) as client:
        for transport in (client._transport, *client._mounts.values()):
            guard._wrap_network(transport)
        pools = [transport._pool for transport in (client._transport, *client._mounts.values()) if transport]
        assert len(pools) == 2
        assert all(isinstance(pool._network_backend, guard._BudgetedNetwork) for pool in pools)
