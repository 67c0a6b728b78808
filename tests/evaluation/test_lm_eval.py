"""The figures page by page against lm-evaluation-harness itself, where that is installed."""

import json
import warnings
from pathlib import Path

import pytest

from tests.evaluation.examples import WIKI, make_foreign, make_writer, run, split_of
from urzoo.data.wikitext import pages
from urzoo.training.text.recipe import ByteLevelTokenizerRecipe, TextSource
from urzoo.training.text.tokenizer import train_tokenizer
from urzoo.zoo import load, load_tokenizer

lm_eval = pytest.importorskip("lm_eval")

TASK = """
task: pages_of_our_own
dataset_path: json
dataset_kwargs:
  data_files: {{test: {file}}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: !function preprocess_wikitext.wikitext_detokenizer
process_results: !function preprocess_wikitext.process_results
metric_list:
  - metric: word_perplexity
  - metric: byte_perplexity
  - metric: bits_per_byte
metadata:
  version: 2.0
"""


def harness_scores(folder: Path, texts: list[str], place: Path, longest: int = 100_000) -> dict[str, float]:
    """What lm-eval's own task wikitext gives on these pages, read in windows of `longest` tokens."""
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    place.mkdir()
    (place / "pages.jsonl").write_text("".join(json.dumps({"page": text}) + "\n" for text in texts))
    (place / "pages.yaml").write_text(TASK.format(file=place / "pages.jsonl"))
    own = Path(lm_eval.__file__).parent / "tasks" / "wikitext" / "preprocess_wikitext.py"
    (place / own.name).write_bytes(own.read_bytes())
    model = HFLM(
        pretrained=load(folder),
        tokenizer=load_tokenizer(folder),
        backend="causal",
        max_length=longest,
        batch_size=1,
        device="cpu",
    )
    manager = TaskManager(include_path=str(place), include_defaults=False)
    found = lm_eval.simple_evaluate(
        model, tasks=["pages_of_our_own"], task_manager=manager, bootstrap_iters=0, log_samples=False
    )
    scores = found["results"]["pages_of_our_own"]
    return {name: scores[f"{name},none"] for name in ("word_perplexity", "byte_perplexity", "bits_per_byte")}


# Other projects' code warns of what is theirs.
@pytest.mark.filterwarnings("ignore")
def test_the_figures_are_those_of_lm_eval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    source = TextSource(name="wikitext-2", split="train", documents="pages", surface="as-is", rare_words_below=None)
    recipe = ByteLevelTokenizerRecipe(
        kind="byte-level-bpe", vocab_size=300, minimum_frequency=2, pattern="wikitext", texts=[source]
    )
    tokenizer = train_tokenizer(recipe, WIKI)
    # Far from even guessing, so that every token's place and weight shows in the sum.
    folder = make_writer(tmp_path / "writer", vocabulary=len(tokenizer), initializer_range=2.0, bos_token_id=1)
    tokenizer.save_pretrained(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = harness_scores(folder, pages(WIKI), tmp_path / "harness")
    metrics = run(folder, "wikitext103_pages", split_of("wikitext-103-raw", "test", text=WIKI)).metrics
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert expected["word_perplexity"] > 1e3


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_reads_in_windows_has_the_figures_of_lm_eval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    folder, split = make_foreign("gpt2-pages", tmp_path / "gpt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = harness_scores(folder, pages(WIKI), tmp_path / "harness", longest=16)
    metrics = run(folder, "wikitext103_pages", split).metrics
    assert {name: metrics[name] for name in expected} == pytest.approx(expected, rel=1e-6)
