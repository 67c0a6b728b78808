"""Whatever a recipe, configuration, training summary or result holds, it shows as text and changes no structure."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from urzoo import zoo
from urzoo.errors import UrzooError
from urzoo.hub.card import render_card
from urzoo.hub.eval_results import render_eval_results

from .results import result

NAME = "urlstm-128-smnist"
PIECES = [
    "---", "\n---\n", "\n# Owned\n", "\n\n", "```", "`", "|", "<script>", "</details>", "<!--", "-->",
    "[x](javascript:y)", "![i](http://e.org/a.png)", "<http://e.org>", "https://e.org", "www.e.org", "a@e.org", "&lt;",
    "&#60;", "${{7*7}}", "{{ 7*7 }}", "{% raw %}", "\\", "*", "**", "_", "~~", "~~~", "1. ",
    "- ", "+ ", "> ", "    ", "\t", ": ", " #",
    "'", '"', "!!python/object:os.system", "*alias", "&anchor", "%TAG", "? ", "null", "yes", "1e3", "\u202e",
    "\u2028", "\x85", "\ufeff", "[^1]", "[x]: http://e.org", "===", "\r", "\r\n", "\x00", "\x1b[2J", "é", "日本",
]  # fmt: skip
hostile = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), min_size=1, max_size=8).map("".join)
# What the strict formats accept: one line without control characters.
line = hostile.map(lambda value: re.sub(r"[\x00-\x1f\x7f]", "", value)[:500])
quick = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
markdown = MarkdownIt("commonmark", {"html": True}).enable("table").enable("strikethrough")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = shutil.copytree(zoo.path(NAME), tmp_path_factory.mktemp("fuzz") / NAME)
    for name in ("config.json", "training.json", "recipe.yaml"):
        shutil.copy(copy / name, copy / f"{name}.kept")
    return copy


def restore(folder: Path) -> None:
    for kept in folder.glob("*.kept"):
        shutil.copy(kept, kept.with_suffix(""))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def front_and_body(card: str) -> tuple[dict[str, Any], str]:
    """The two parts as the Hub's own client tells them apart."""
    parsed = ModelCard(card, ignore_metadata_errors=False)
    front, body = card.removeprefix("---\n").split("\n---\n", 1)
    assert parsed.text == body
    return yaml.safe_load(front), body


def structure(body: str) -> list[Any]:
    """Headings, tables, lists, links and code of a text in Markdown, without the words."""
    found: list[Any] = []
    for token in markdown.parse(body):
        if token.type == "inline":
            # Runs of plain text count once: an escaped character makes tokens of its own.
            kinds = [
                child.type for child in token.children or () if child.type not in ("text", "text_special", "softbreak")
            ]
            found.append(kinds)
        elif token.type not in ("fence",):
            found.append((token.type, token.tag))
    return found


def unharmed(card: str, plain: str) -> dict[str, Any]:
    """The front matter, after all else was found to be built as in a card with plain values."""
    front, body = front_and_body(card)
    plain_front, plain_body = front_and_body(plain)
    assert front.keys() == plain_front.keys()
    assert structure(body) == structure(plain_body)
    outside = re.sub(r"(?ms)^(`{3,})\w*\n.*?^\1$", "", body)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029\ufeff]", body)
    assert not re.search(r"(?i)https?://e\.org|www\.e|@e\.org|<script|javascript:y\)", outside)
    return front


@quick
@given(value=hostile)
def test_a_licence_stays_one_value_of_the_front_matter(folder: Path, value: str) -> None:
    restore(folder)
    plain = render_card(folder, [])
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text()) | {"licence": value}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    try:
        card = render_card(folder, [])
    except UrzooError as error:
        assert "\n" not in str(error)  # noqa: PT017 - a refusal is one line
        return
    assert unharmed(card, plain)["license"] == yaml.safe_load((folder / "recipe.yaml").read_text())["licence"]


@quick
@given(gate=line, cell=line, architecture=line)
def test_a_configuration_changes_no_structure(folder: Path, gate: str, cell: str, architecture: str) -> None:
    restore(folder)
    named = {"gate": gate or "g", "cell": cell or "c"}
    edit(folder / "config.json", gate="g", cell="c")
    plain = render_card(folder, [])
    edit(folder / "config.json", **named, architectures=[f"{architecture}ForImageClassification"])
    unharmed(render_card(folder, []), plain)


@quick
@given(hardware=line, device=line, backend=line, dtype=line, version=line)
def test_a_training_summary_changes_no_structure(
    folder: Path, hardware: str, device: str, backend: str, dtype: str, version: str
) -> None:
    restore(folder)
    plain = render_card(folder, [])
    edit(
        folder / "training.json",
        hardware=hardware, device=device, backend=backend, dtype=dtype,
        urzoo_version=version, torch_version=version, transformers_version=version,
    )  # fmt: skip
    unharmed(render_card(folder, []), plain)


@quick
@given(device=line, hardware=line, backend=line, command=line, subset=line)
def test_a_result_changes_no_structure(
    folder: Path, device: str, hardware: str, backend: str, command: str, subset: str
) -> None:
    restore(folder)
    plain = render_card(folder, [result(folder)])
    data = {**result(folder).data.model_dump(), "subset": subset}
    made = result(folder, device=device, hardware=hardware, backend=backend, command=command, data=data)
    front = unharmed(render_card(folder, [made]), plain)
    assert front == front_and_body(plain)[0]
    (content,) = render_eval_results(NAME, [made]).values()
    (entry,) = parse_eval_result_entries(yaml.safe_load(content))
    assert (entry.task_id, entry.value) == ("smnist", 0.9789)


@quick
@given(content=hostile)
def test_a_recipes_comment_stays_in_its_code_block(folder: Path, content: str) -> None:
    restore(folder)
    plain = render_card(folder, [])
    recipe = (folder / "recipe.yaml").read_text()
    commented = "".join(f"# {one}\n" for one in re.split(r"[\r\n\x85\u2028\u2029]", content))
    (folder / "recipe.yaml").write_text(recipe + commented, encoding="utf-8")
    try:
        card = render_card(folder, [])
    except UrzooError as error:
        assert "\n" not in str(error)  # noqa: PT017 - YAML has no such character
        return
    assert structure(front_and_body(card)[1]) == structure(front_and_body(plain)[1])
