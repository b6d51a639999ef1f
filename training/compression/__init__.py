"""Smaller networks from trained ones, and what they lose and gain."""

from training.compression.job import run

__all__ = ["run"]
