"""Pipelines that make weights. Nothing in ovseg_demo imports this package."""
