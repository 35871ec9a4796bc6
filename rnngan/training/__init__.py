"""Runs: pretraining, refinement, checkpoints, logs."""
