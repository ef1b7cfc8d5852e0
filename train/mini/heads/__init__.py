"""Training of the heads of the bundled mini model."""
