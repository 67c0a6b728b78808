"""Text for training: documents of data sets, tokenizers made by recipe, tokens on disk."""
