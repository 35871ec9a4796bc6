"""Adversarially refined recurrent generation of symbolic music."""

__version__ = "0.1.0"
