"""Where names of others may stand: private ones of transformers in models/ and the trainer, gatings' in recurrence/."""

import ast
from pathlib import Path

import pytest
from transformers import Trainer

import urzoo
from urzoo.recurrence import GATINGS
from urzoo.recurrence.gates import STANDARD

PACKAGE = Path(urzoo.__file__).parent
ALLOWED = {"transformers": ("models", "training/trainer.py"), "huggingface_hub": ()}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names(source: str, library: str) -> set[str]:
    """Names with a leading underscore that a file imports from a library, reads of what it imports, or overrides."""
    tree = ast.parse(source)
    found, imported = set(), set()
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == library:
            names = [*node.module.split("."), *(alias.name for alias in node.names)]
            imported |= {alias.asname or alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            ours = [alias for alias in node.names if alias.name.split(".")[0] == library]
            names = [part for alias in ours for part in alias.name.split(".")]
            imported |= {alias.asname or library for alias in ours}
        found |= {name for name in names if is_private(name)}
        if isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") == "Trainer" for base in node.bases):
            methods = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
            found |= {name for name in methods if is_private(name) and hasattr(Trainer, name) and "Trainer" in imported}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            start = node.value
            while isinstance(start, ast.Attribute):
                start = start.value
            if isinstance(start, ast.Name) and start.id in imported:
                found.add(node.attr)
    return found


@pytest.mark.parametrize(
    "source",
    [
        "from {} import _private",
        "from {}.utils._private import name",
        "import {}._private",
        "import {}.utils as shown\nshown._private",
        "import {}\n{}.utils.name._private()",
        "from {}.utils import name as shown\nshown._private",
    ],
)
@pytest.mark.parametrize("library", ALLOWED)
def test_private_names_are_found(source, library):
    assert private_names(source.replace("{}", library), library) == {"_private"}
    assert private_names(source.replace("{}", "torch"), library) == set()


@pytest.mark.parametrize("library", ALLOWED)
def test_private_names_of_a_library_stand_where_they_may(library):
    found = {str(path.relative_to(PACKAGE)): private_names(path.read_text(), library) for path in PACKAGE.rglob("*.py")}
    where = {path: names for path, names in found.items() if names}
    assert {path: names for path, names in where.items() if not path.startswith(ALLOWED[library])} == {}
    if library == "transformers":
        assert "training/trainer.py" in where


def letters(source: str) -> set[str]:
    """The names of gatings in a file, and the axes that its conditions look at."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        # "--" means much else to other programs: only beside a gating is it one's name.
        if isinstance(node, ast.Constant) and node.value in GATINGS and node.value != STANDARD:
            found.add(node.value)
        if isinstance(node, ast.Compare) and getattr(node.left, "attr", "") in ("primary", "auxiliary"):
            found.add(node.left.attr)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Gating" and "'--'" in ast.unparse(node):
            found.add(STANDARD)
        if isinstance(node, ast.Compare) and "gate" in ast.unparse(node) and "'--'" in ast.unparse(node):
            found.add(STANDARD)
    return found


def test_the_letters_of_gatings_are_found():
    source = "a = Gating('--')\nb = 'UR'\nc = row.gate == '--'\nd = gating.primary == 'C'\ne = subprocess('--')"
    assert letters(source) == {"--", "UR", "primary"}


def test_the_letters_of_gatings_stand_in_the_recurrence_alone():
    files = [path for path in PACKAGE.rglob("*.py") if not path.is_relative_to(PACKAGE / "recurrence")]
    found = {str(path.relative_to(PACKAGE)): letters(path.read_text()) for path in files}
    assert {path: names for path, names in found.items() if names} == {}
