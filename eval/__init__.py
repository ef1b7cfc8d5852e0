"""Measurements of models and methods on labelled images."""
