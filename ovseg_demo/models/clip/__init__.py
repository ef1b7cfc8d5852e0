"""CLIP: image towers, text tower, weights, and layers optimised for inference."""
