"""A request to the test Hub, and its answer."""

import json
from dataclasses import dataclass, field
from typing import Any

from .store import User


@dataclass
class Call:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    user: User | None

    def json(self) -> dict[str, Any]:
        return json.loads(self.body or b"{}")


@dataclass
class Answer:
    body: Any = field(default_factory=dict)  # bytes, or what is sent as JSON
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
