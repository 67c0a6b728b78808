"""The one proof that needs a real environment without urzoo: made by pip, some minutes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from urzoo.hub.export import export

from .answers import answers
from .checkpoints import KINDS

CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_exported_checkpoints_answer_the_same_in_an_environment_without_urzoo(tmp_path: Path) -> None:
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    needed = ["torch", "transformers", "pillow", "numpy"]
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-c", CONSTRAINTS, *needed], check=True)
    missing = subprocess.run([python, "-c", "import urzoo"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "No module named 'urzoo'" in missing.stderr
    own, pairs = {}, []
    for kind, make in KINDS.items():
        folder = make(tmp_path / f"{kind}-in")
        own[kind] = answers(kind, str(folder), trust=None, backend="reference")
        pairs.append(f"{kind}={export(folder, tmp_path / kind, with_code=True).folder}")
    done = subprocess.run(
        [python, Path(__file__).with_name("answers.py"), *pairs],
        env={**os.environ, "HF_HOME": str(tmp_path / "home")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    remote = json.loads(done.stdout.splitlines()[-1])
    for kind in KINDS:
        assert remote[kind][0].startswith("transformers_modules.")
        assert remote[kind][1:] == json.loads(json.dumps(own[kind][1:]))
