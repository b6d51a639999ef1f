"""Distillation: what a student's loss is, and the teachers it can learn from."""

from training.distillation.objective import Objective
from training.distillation.teachers import Teacher, open_teacher

__all__ = ["Objective", "Teacher", "open_teacher"]
