"""What a trained language model does where nothing else is asked of it."""

from pathlib import Path

from tests.hub.checkpoints import language_checkpoint
from urzoo import zoo
from urzoo.training.kinds.language_model import generation_settings


def test_a_trained_language_model_samples_without_loops_and_never_writes_an_unknown_word(tmp_path: Path):
    tokenizer = zoo.load_tokenizer(language_checkpoint(tmp_path / "model"))
    settings = generation_settings(tokenizer)
    assert settings.do_sample
    assert settings.repetition_penalty > 1
    assert settings.bad_words_ids == [[tokenizer.unk_token_id]]
    assert (settings.eos_token_id, settings.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    settings.validate(strict=True)
