"""Evaluating checkpoints on tasks: task files, metrics, the runner and the result files.

Names are resolved when first used: the schemas are wanted where torch and transformers are not.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from urzoo.evaluation.schema import Result, read_result, result_name, result_path
from urzoo.evaluation.task import Task, load_task, tasks

if TYPE_CHECKING:
    from urzoo.evaluation.comparison import Comparison, compare
    from urzoo.evaluation.pairs import Pair, evaluate_pairs
    from urzoo.evaluation.runner import Settings, Subject, evaluate

__all__ = [
    "Comparison",
    "Pair",
    "Result",
    "Settings",
    "Subject",
    "Task",
    "compare",
    "evaluate",
    "evaluate_pairs",
    "load_task",
    "read_result",
    "result_name",
    "result_path",
    "tasks",
]

_HOMES = {
    "Comparison": "comparison",
    "compare": "comparison",
    "Pair": "pairs",
    "evaluate_pairs": "pairs",
    "Settings": "runner",
    "Subject": "runner",
    "evaluate": "runner",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'urzoo.evaluation' has no attribute {name!r}")
    return getattr(import_module(f"urzoo.evaluation.{_HOMES[name]}"), name)
