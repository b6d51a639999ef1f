"""Distillation: what a student's loss is, and the teachers it can learn from."""

from kmlp.training.distillation.teachers import Objective, Teacher, open_teacher

__all__ = ["Objective", "Teacher", "open_teacher"]
