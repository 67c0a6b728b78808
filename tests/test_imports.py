"""Where private names of transformers may stand: in models/, and in training/trainer.py."""

import ast
from pathlib import Path

from transformers import Trainer

import urzoo

PACKAGE = Path(urzoo.__file__).parent
ALLOWED = ("models", "training/trainer.py")


def private_names(path: Path) -> set[str]:
    """Names with a leading underscore that a file imports from transformers, or defines or uses of its Trainer."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "transformers":
            parts = [*node.module.split("."), *(name.name for name in node.names)]
            found |= {part for part in parts if part.startswith("_")}
        if isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") == "Trainer" for base in node.bases):
            methods = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
            found |= {name for name in methods if name.startswith("_") and hasattr(Trainer, name)} - {"__init__"}
    return found


def test_private_names_of_transformers_stand_in_two_places():
    where = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if private_names(path)}
    assert "training/trainer.py" in where
    assert {place for place in where if not place.startswith(ALLOWED)} == set()
