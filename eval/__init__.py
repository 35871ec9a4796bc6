"""Evaluation of symbolic music against real music."""
