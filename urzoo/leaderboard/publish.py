"""The board as two repositories of the Hub: a static Space that shows it, and a data set that holds the results.

What they hold is put together here; `urzoo.hub` sends and fetches. A board can be built again from the data set alone.
"""

import re
from pathlib import Path

from urzoo.errors import UsageError
from urzoo.leaderboard.build import make_board, render
from urzoo.leaderboard.charts import charts
from urzoo.leaderboard.problem_curves import CURVES
from urzoo.zoo.lookup import CHECKPOINTS_FOLDER, STUDY_FOLDER

RESULTS = "results"
STUDY = STUDY_FOLDER.name
SPACE_CARD = """\
---
title: urzoo leaderboard
emoji: 📏
colorFrom: green
colorTo: gray
sdk: static
app_file: index.html
pinned: false
license: apache-2.0
short_description: Recurrent networks on tasks that need a long memory
tags: [urzoo, leaderboard]
datasets: [{repo_id}]
---

"""
DATA_SET_CARD = """\
---
pretty_name: urzoo results
license: apache-2.0
tags: [urzoo, leaderboard]
configs:
  - config_name: leaderboard
    data_files: leaderboard.csv
---

# Results of urzoo

One JSON file for each checkpoint and task, with its full provenance, in `results/`, and all rows in `leaderboard.csv`.
The board they make is the Space of the same name; `urzoo leaderboard --from {repo_id} --out DIR` builds it again.
"""
# What a data set of results holds that a board is built from.
_NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,200}"
_SOURCE = re.compile(
    rf"results/{_NAME}/[a-z0-9_]{{1,64}}\.json|curves/[a-z0-9_]{{1,64}}\.csv|{STUDY}/{_NAME}/(training\.json|log\.jsonl)"
)
LARGEST_SOURCE_BYTES = 8 * 1024**2
MOST_SOURCES = 20_000


def published_files(
    repo_id: str, out: Path, *, checkpoints: Path = CHECKPOINTS_FOLDER
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The content of the Space and of the data set, by path.

    Args:
        repo_id: OWNER/NAME of both.
        out: The board's folder, with its results, curves and remarks; results that are no rows of the board stay here.
        checkpoints: Where the shipped checkpoints are.

    Raises:
        UsageError: There is no result of which the board has a row.
        ResultError: A result file cannot be read or must not be on a board.
    """
    results = out / RESULTS
    board, _ = make_board(results, out, checkpoints=checkpoints)
    rendered = render(board, charts(board), out, checkpoints)
    # Those of the rows alone: what was measured on data of one's own is nobody else's matter.
    rows = [row for section in board.sections for row in (*section.measured, *section.outdated)]
    sources = {link: (out / link).read_bytes() for link in sorted({row.link for row in rows if row.link})}
    if not sources:
        raise UsageError(f"{results} holds no result to publish; evaluate a model first: urzoo eval --help")
    sources |= {f"{CURVES}/{path.name}": path.read_bytes() for path in sorted((out / CURVES).glob("*.csv"))}
    # How the study's networks were trained; their weights stay here.
    for name in sorted({row.model for row in rows if row.kind == "study"}):
        found = [out / STUDY / name / file for file in ("training.json", "log.jsonl")]
        sources |= {f"{STUDY}/{name}/{path.name}": path.read_bytes() for path in found if path.is_file()}
    space_card = SPACE_CARD.replace("{repo_id}", repo_id).encode() + rendered["README.md"]
    data_set_card = DATA_SET_CARD.replace("{repo_id}", repo_id).encode()
    tables = {name: rendered[name] for name in ("leaderboard.csv", "leaderboard.json")}
    return {**rendered, **sources, "README.md": space_card}, {**tables, **sources, "README.md": data_set_card}


def is_published(path: str) -> bool:
    """Whether a file of a repository is one that a published board consists of; others are never deleted there."""
    return is_source(path) or re.fullmatch(r"plots/[a-z_]{1,64}\.svg", path) is not None


def is_source(path: str) -> bool:
    """Whether a file of a data set is one that a board is built from."""
    return _SOURCE.fullmatch(path) is not None
