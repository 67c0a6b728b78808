"""Processes that share a job; what several do together is tested where they do it."""

import pytest

from urzoo.errors import UrzooError
from urzoo.processes import meeting


def test_a_rank_without_the_others_address_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    for name, error in (("LOCAL_RANK", UrzooError), ("UNRELATED", ValueError)):
        monkeypatch.setenv(name, "0")
        with pytest.raises(error, match="MASTER_ADDR expected, but not set"), meeting():
            raise ValueError("environment variable MASTER_ADDR expected, but not set")
        monkeypatch.delenv(name)
