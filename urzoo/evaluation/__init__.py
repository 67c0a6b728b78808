"""Evaluating checkpoints on tasks: task files, metrics, the runner and the result files."""
