"""The way to and from the Hugging Face Hub: push, pull, export, listing and model cards."""
