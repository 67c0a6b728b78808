"""The one proof that needs a real environment without urzoo: made by pip, some minutes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from urzoo import zoo
from urzoo.hub.export import export
from urzoo.hub.push import push

from .answers import answers
from .checkpoints import KINDS, kind_of
from .conftest import TOKEN, client_environment
from .server import HubServer

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
NEEDED = ("torch", "transformers", "tokenizers", "pillow", "numpy")


@pytest.fixture
def clean_python(tmp_path: Path) -> Path:
    """The Python of a new virtual environment with the pinned versions of what the exported code needs."""
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-c", CONSTRAINTS, *NEEDED], check=True)
    return python


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_exported_checkpoints_answer_the_same_in_an_environment_without_urzoo(
    hub: HubServer, clean_python: Path, tmp_path: Path
) -> None:
    # PYTHONPATH, which may point to urzoo's sources, stays outside.
    own_environment = client_environment(hub, tmp_path / "home")
    environment = {key: value for key, value in own_environment.items() if not key.startswith("PYTHON")}

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [clean_python, *arguments],
            env=environment,
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    assert "No module named 'urzoo'" in run("-c", "import urzoo").stderr
    folders = {kind: make(tmp_path / f"{kind}-in") for kind, make in KINDS.items()}
    folders |= {f"{kind_of(zoo.path(name))}:{name}": zoo.path(name) for name in zoo.checkpoints()}
    own, pairs = {}, []
    for key, folder in folders.items():
        own[key] = json.loads(json.dumps(answers(key, str(folder), trust=None, backend="reference")))
        # Each by its folder, and from the Hub.
        name = key.replace(":", "-")
        pairs.append(f"{key}={export(folder, tmp_path / name, with_code=True).folder}")
        push(folder, f"alice/{name}", with_code=True, token=TOKEN, endpoint=hub.endpoint)
        pairs.append(f"{key}{'' if ':' in key else ':'}@Hub=alice/{name}")
    done = run(Path(__file__).with_name("answers.py"), "remote", *pairs)
    assert done.returncode == 0, done.stderr
    remote = json.loads(done.stdout.splitlines()[-1])
    assert all("trust_remote_code=True" in message for message in remote["refused"])
    assert len(remote["answers"]) == len(remote["refused"]) == len(pairs) == 2 * len(folders)
    for key, answer in remote["answers"].items():
        assert answer[0].startswith("transformers_modules."), key
        assert answer[1:] == own[key.removesuffix("@Hub").removesuffix(":")][1:], key
    assert set(map(tuple, remote["recurrences"].values())) == {("reference",)}
