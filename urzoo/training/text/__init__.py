"""Text for training: documents of data sets, tokenizers made by recipe, tokens on disk."""

from urzoo.training.text.documents import documents_of
from urzoo.training.text.recipe import TextSource, TokenizerRecipe
from urzoo.training.text.tokenizer import load_or_train_tokenizer, save_tokenizer

__all__ = ["TextSource", "TokenizerRecipe", "documents_of", "load_or_train_tokenizer", "save_tokenizer"]
