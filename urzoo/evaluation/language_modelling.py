"""Language models on WikiText: one continuous stream, and page by page. Two tasks, because they are two figures.

The stream is the classic test of recurrent models: the state is carried over the whole test set, and the perplexity is
for each word, line ends counting as words. The pages are lm-eval 2.0's word perplexity: the text is detokenised, every
page begins afresh from the prefix token, words and bytes are counted on the original page.

urzoo's models carry their state over the whole text. Any other causal language model reads it in windows of its longest
context whose scored tokens do not overlap, each after the first conditioned on one token before it, as in lm-eval's
rolling likelihood; the last window of a page is filled up with the tokens before it, as there. The result says that it
was read in windows (`data.subset`).
"""

import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from urzoo.data import Split
from urzoo.data.wikitext import detokenised, lines, pages, words_of_page
from urzoo.errors import CheckpointError, DataError, UsageError
from urzoo.evaluation.causality import refuse_looking_ahead
from urzoo.evaluation.dynamic_evaluation import Learner
from urzoo.evaluation.intervals import bootstrapped_ratio
from urzoo.evaluation.journal import Outputs
from urzoo.evaluation.metrics import BitsPerUnit, Perplexity, computed
from urzoo.evaluation.problem import Figures, Precision, Rows, by_length, consecutive, data_record, widened
from urzoo.evaluation.task import Task, neural_cache_size, tasks
from urzoo.zoo import load_tokenizer

Values = npt.NDArray[Any]
_TOKENS_AT_A_TIME = 512  # whose scores are held: 32 MB for a vocabulary of 16,000
_LONGEST_WINDOW = 4096  # whose scores are held at once: 0.8 GB for a vocabulary of 50,000
_ROWS_IN_A_BLOCK = 64  # drawn together by the bootstrap: lines of one paragraph or article depend on each other


class Scorer:
    """The log-probabilities that a model gives to the tokens of one text after another.

    `state` is what the model carries, None at the beginning of a text; `previous` is the token before the next one.
    """

    def __init__(self, task: Task, folder: Path, model: Any, precision: Precision) -> None:
        """Take the checkpoint's own tokenizer.

        Raises:
            CheckpointError: It is missing, malformed, or has neither a beginning nor an end token.
            UsageError: The task's context is one that the model has no settings for.
        """
        self.tokenizer = load_tokenizer(folder)
        self.model, self.precision, self.folder = model, precision, folder
        prefix = self.tokenizer.bos_token_id
        self.prefix = self.tokenizer.eos_token_id if prefix is None else prefix
        if self.prefix is None:
            raise CheckpointError(f"the tokenizer of {folder} has neither a bos_token nor an eos_token to begin with.")
        self.recurrent = model.config.model_type == "urlstm"
        self.window = None if self.recurrent else _window(model.config)
        self.looks_back_only = self.recurrent
        self.neural_cache = task.context == "neural-cache"
        if self.neural_cache and not neural_cache_size(model.config.to_dict()):
            raise UsageError(
                f"task {task.name} reads with a neural cache, but {folder / 'config.json'} has no neural_cache_size; "
                f"{_without(task, 'context')}."
            )
        self.learner: Learner | None = None
        if task.dynamic_evaluation is not None:
            if not self.recurrent:
                raise UsageError(
                    f"task {task.name} lets a model learn from the text behind it, but {folder} reads in windows; "
                    f"{_without(task, 'dynamic_evaluation')}."
                )
            self.learner = Learner(model, task.dynamic_evaluation)
        self.context = _context(task, model.config)
        self.begin()

    def begin(self) -> None:
        """Forget everything: the next token is the first."""
        self.state: Any = None
        self.previous = int(self.prefix)
        if self.learner is not None:
            self.learner.begin()

    def tokens(self, text: str, original: str) -> list[int]:
        """The tokens of a text, without any added ones.

        Raises:
            CheckpointError: The tokenizer calls more words unknown than the original has `<unk>`, or leaves out line
                ends, capitals or accents: what it cannot write would be predicted for nothing.
        """
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and ids.count(unknown) > original.count("<unk>"):
            lost = "it has unknown tokens where the text has no <unk>"
        elif not self._writes(text, ids):
            lost = "its tokens do not give the text back"
        else:
            return ids
        raise CheckpointError(
            f"the tokenizer of {self.folder} cannot write {original.strip()[:60]!r}: {lost}, which would flatter the "
            "perplexity."
        )

    def _writes(self, text: str, ids: list[int]) -> bool:
        """Whether the tokens stand for all letters and line ends of a text; an end token may stand for a line end."""
        kept = [token for token in ids if token != self.tokenizer.eos_token_id]
        written = self.tokenizer.decode(kept, clean_up_tokenization_spaces=False)
        if self.tokenizer.unk_token is not None:
            written = written.replace(self.tokenizer.unk_token, "<unk>")
        ends = written.count("\n") + len(ids) - len(kept)
        return ends >= text.count("\n") and _letters(written) == _letters(text)

    def log_probabilities(self, ids: list[int]) -> Values:
        """The log-probability of each token given all before it, in nats, `(tokens,)`; the state moves past them.

        Raises:
            CheckpointError: One is NaN.
        """
        parts, at = [], 0
        # Whatever the caller's mode: what learns needs gradients.
        with torch.inference_mode(self.learner is None):
            while at < len(ids):
                end = at + (_TOKENS_AT_A_TIME if self.learner is None else self.learner.tokens_left)
                parts.append(self._segment(ids[at:end]))
                at = end
        return self._joined(parts)

    def page(self, ids: list[int]) -> Values:
        """The log-probability of each token of a page that is read from its beginning."""
        if self.window is None:
            self.begin()
            return self.log_probabilities(ids)
        parts = [np.zeros(0)]
        for at in range(0, len(ids), self.window):
            # The last window is full as well; what it holds of the one before is scored there.
            first = min(at, max(0, len(ids) - self.window))
            parts.append(self.in_window(ids, first)[at - first :])
        return np.concatenate(parts)

    def in_window(self, ids: list[int], at: int) -> Values:
        """The log-probabilities of the tokens of the window that begins at `at`, given one token before it at most.

        Raises:
            CheckpointError: One is NaN.
        """
        assert self.window is not None
        targets = ids[at : at + self.window]
        inputs = [ids[at - 1] if at else int(self.prefix), *targets[:-1]]
        if not self.looks_back_only:
            refuse_looking_ahead(self.model, inputs[0], min(self.window, 8), self.folder)
            self.looks_back_only = True
        with torch.inference_mode():
            logits = self._logits(inputs, state=None)[0]
        return self._joined(
            [
                _values(_chosen(logits[part : part + _TOKENS_AT_A_TIME], targets[part : part + _TOKENS_AT_A_TIME]))
                for part in range(0, len(targets), _TOKENS_AT_A_TIME)
            ]
        )

    def _joined(self, parts: list[Values]) -> Values:
        values = np.concatenate([np.zeros(0), *parts])
        if not np.isfinite(values).all():
            raise self.fault("NaN or infinite scores")
        return values

    def perplexity(self, ratio: Values) -> Values:
        """The perplexities of mean log-probabilities.

        Raises:
            CheckpointError: One is infinite.
        """
        with np.errstate(over="ignore"):
            values: Values = np.exp(-ratio)
        if np.isinf(values).any():
            raise self.fault("a perplexity that no number can hold")
        return values

    def fault(self, what: str) -> CheckpointError:
        """That the model gives what no figure can be made of, and whether its learning may be why."""
        learned = ""
        if self.learner is not None:
            rate = self.learner.settings.learning_rate
            learned = (
                f" after learning at dynamic_evaluation.learning_rate {rate:g}; try a tenth of that in the task file"
            )
        return CheckpointError(f"{self.folder} gives {what}{learned}.")

    def _segment(self, targets: list[int]) -> Values:
        inputs = [self.previous, *targets[:-1]]
        logits, self.state = self._logits(inputs, state=self.state)
        self.previous = targets[-1]
        chosen = _chosen(logits, targets)
        if self.learner is not None and self.learner.scored(chosen):
            self.state = self.state.detach()
        return _values(chosen)

    def _logits(self, inputs: list[int], *, state: Any) -> tuple[torch.Tensor, Any]:
        ids = torch.tensor([inputs], device=self.precision.device)
        options: dict[str, Any] = {"use_cache": self.recurrent}
        if self.recurrent:
            options |= {"cache": state, "neural_cache": self.neural_cache}
        model = self.model if self.learner is None else self.learner.model
        with self.precision.autocast():
            output = model(input_ids=ids, **options)
        return output.logits[0], output.cache if self.recurrent else None


class LanguageModellingStream:
    """A language model on a whole split as one text; the rows are its lines."""

    default_batch_size = 64

    def __init__(self, task: Task, folder: Path, model: Any, split: Split, precision: Precision) -> None:
        """Prepare the lines.

        Raises:
            CheckpointError: The tokenizer does not do.
        """
        self.scorer = Scorer(task, folder, model, precision)
        self.lines = lines(split.texts)
        # Each line end is a word, as it is to word-level models.
        self.words = np.array([len(line.split()) + line.count("\n") for line in self.lines], dtype=np.int64)
        self.next_row = 0
        self.windows = None if self.scorer.window is None else _Windows(self.scorer, self.lines)
        read = self.scorer.context
        if self.scorer.window is not None:
            read = f"read in windows of {self.scorer.window} tokens"
        self.data = data_record(split, subset=read)

    def batches(self, batch_size: int, rows: int) -> Sequence[Rows]:
        """Lines in their order."""
        return consecutive(batch_size, rows)

    def outputs(self, rows: Rows) -> Outputs:
        """The log-probability of each line in nats, and its tokens."""
        scored = [self.windows.line(int(row)) for row in rows] if self.windows else self._carried(rows)
        return {
            "log_probability": np.array([values.sum() for values in scored]),
            "tokens": np.array([len(values) for values in scored]),
        }

    def _carried(self, rows: Rows) -> list[Values]:
        """The lines' log-probabilities, the state carried from line to line.

        The state must be that after all lines before: those that another process or an earlier run has scored are
        read again.
        """
        if self.next_row > rows[0]:
            self.scorer.begin()
            self.next_row = 0
        for row in range(self.next_row, int(rows[0])):
            self._line(row)
        scored = [self._line(int(row)) for row in rows]
        self.next_row = int(rows[-1]) + 1
        return scored

    def figures(self, outputs: Outputs, rows: Rows) -> Figures:
        """The word perplexity of the stream, with a block bootstrap, and the tokens a word takes."""
        words, values = self.words[rows], outputs["log_probability"]
        name = "word_perplexity_stream"
        self.scorer.perplexity(values.sum() / words.sum())  # refuses an infinite one, also where there is no interval
        interval = bootstrapped_ratio(values, words, self.scorer.perplexity, block=_ROWS_IN_A_BLOCK)
        metrics = {name: computed(Perplexity, predictions=values, references=words)["perplexity"]}
        metrics["tokens_per_word"] = float(outputs["tokens"].sum() / words.sum())
        return Figures(metrics, {name: interval} if interval else {})

    def predictions(self, outputs: Outputs, rows: Rows) -> dict[str, Values]:
        """The line, its words, and its log-probability in nats."""
        return {"row": rows, "words": self.words[rows], "log_probability": outputs["log_probability"]}

    def _line(self, row: int) -> Values:
        line = self.lines[row]
        return self.scorer.log_probabilities(self.scorer.tokens(line, line))


class _Windows:
    """The tokens of the whole stream in windows, whose bounds do not depend on which lines are asked for."""

    def __init__(self, scorer: Scorer, texts: Sequence[str]) -> None:
        self.scorer = scorer
        tokens = [scorer.tokens(text, text) for text in texts]
        self.ids = [token for line in tokens for token in line]
        self.ends = np.cumsum([len(line) for line in tokens])
        self._last: tuple[int, Values] = (-1, np.zeros(0))

    def line(self, row: int) -> Values:
        """The log-probability of each token of a line."""
        assert self.scorer.window is not None
        start, end = int(self.ends[row - 1]) if row else 0, int(self.ends[row])
        parts = [np.zeros(0)]
        for at in range(start // self.scorer.window * self.scorer.window, end, self.scorer.window):
            # Neighbouring lines share a window: the last one is kept.
            if self._last[0] != at:
                self._last = (at, self.scorer.in_window(self.ids, at))
            parts.append(self._last[1][max(start - at, 0) : end - at])
        return np.concatenate(parts)


class LanguageModellingPages:
    """A language model on the pages of a split, each on its own."""

    default_batch_size = 4

    def __init__(self, task: Task, folder: Path, model: Any, split: Split, precision: Precision) -> None:
        """Put the lines together to pages.

        Raises:
            CheckpointError: The tokenizer does not do.
            DataError: The text has no pages.
        """
        self.scorer = Scorer(task, folder, model, precision)
        self.pages = pages(split.texts)
        if not self.pages:
            raise DataError(
                f"{split.name} ({split.split}) has no page: expected a line ' = Title = ' before each. "
                "Read it as one text, with problem: language-modelling-stream."
            )
        self.words = np.array([words_of_page(page) for page in self.pages], dtype=np.int64)
        self.bytes = np.array([len(page.encode("utf-8")) for page in self.pages], dtype=np.int64)
        read = "whole" if self.scorer.window is None else f"in windows of {self.scorer.window} tokens"
        if self.scorer.context:
            read += f", {self.scorer.context}"
        self.data = data_record(split, subset=f"{len(self.pages)} pages, read {read}", rows=len(self.pages))

    def batches(self, batch_size: int, rows: int) -> Sequence[Rows]:
        """Pages, the longest first."""
        return by_length([len(page) for page in self.pages[:rows]], batch_size)

    def outputs(self, rows: Rows) -> Outputs:
        """The log-probability of each page in nats."""
        texts = [self.pages[row] for row in rows]
        scored = [self.scorer.page(self.scorer.tokens(detokenised(text), text)) for text in texts]
        return {"log_probability": np.array([values.sum() for values in scored])}

    def figures(self, outputs: Outputs, rows: Rows) -> Figures:
        """Word perplexity with a bootstrap over pages, byte perplexity, bits for each byte."""
        values, words, size = outputs["log_probability"], self.words[rows], self.bytes[rows]
        self.scorer.perplexity(values.sum() / words.sum())  # refuses an infinite one, also where there is no interval
        interval = bootstrapped_ratio(values, words, self.scorer.perplexity, block=1)
        metrics = {
            "word_perplexity": computed(Perplexity, predictions=values, references=words)["perplexity"],
            "byte_perplexity": computed(Perplexity, predictions=values, references=size)["perplexity"],
            "bits_per_byte": computed(BitsPerUnit, predictions=values, references=size)["bits"],
        }
        return Figures(metrics, {"word_perplexity": interval} if interval else {})

    def predictions(self, outputs: Outputs, rows: Rows) -> dict[str, Values]:
        """The page, its words, and its log-probability in nats."""
        return {"row": rows, "words": self.words[rows], "log_probability": outputs["log_probability"]}


def _chosen(logits: torch.Tensor, targets: list[int]) -> torch.Tensor:
    scores = torch.log_softmax(widened(logits), dim=-1)
    return scores[torch.arange(len(targets)), torch.tensor(targets, device=scores.device)]


def _values(chosen: torch.Tensor) -> Values:
    values: Values = chosen.detach().double().cpu().numpy()
    return values


def _letters(text: str) -> str:
    """A text without its blanks, in the form that tokenizers may bring it to without losing anything a reader sees."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def _without(task: Task, key: str) -> str:
    """What to do about a task whose `key` a model cannot follow."""
    if task.name in tasks():
        return f"name the task without it, {task.checkpoints_of}"
    return f"leave {key} out of its file"


def _context(task: Task, config: Any) -> str | None:
    """What a row says of what the model has beside its state."""
    found = []
    if task.context == "neural-cache":
        found.append(
            f"with a neural cache of {config.neural_cache_size} tokens, weight {config.neural_cache_weight:g}, "
            f"sharpness {config.neural_cache_sharpness:g}"
        )
    learning = task.dynamic_evaluation
    if learning is not None:
        found.append(
            f"with dynamic evaluation: a step of {learning.learning_rate:g} each {learning.segment_tokens} tokens, "
            f"decay {learning.decay:g}"
        )
    return "; ".join(found) or None


def _window(config: Any) -> int:
    """The longest context of a model that is not urzoo's, as lm-eval finds it; 2048 where it has none."""
    for name in ("n_positions", "max_position_embeddings", "n_ctx"):
        length = getattr(config, name, None)
        if isinstance(length, int) and length > 0:
            return min(length, _LONGEST_WINDOW)
    return 2048
