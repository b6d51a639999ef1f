"""What pictures show, by weights of any form: classes, objects or class maps."""
