"""Segmentation methods: a package each, collected by the registry."""
