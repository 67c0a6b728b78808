"""Training of language models: aligned streams of tokens, the state carried from one segment to the next."""
