"""Training on the synthetic problems, whose sequences are drawn as they are needed: copy and adding."""
