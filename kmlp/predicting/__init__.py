"""Predict what pictures show with weights of any form: classes, objects, class maps."""
