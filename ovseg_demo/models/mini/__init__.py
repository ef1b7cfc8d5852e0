"""The bundled mini model: an ImageNet classifier and a sentence encoder, aligned by trained heads."""
