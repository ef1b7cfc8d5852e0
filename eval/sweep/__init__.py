"""Scores against the value of one option, from one pass over the images (`eval.evaluate --OPTION sweep`)."""
