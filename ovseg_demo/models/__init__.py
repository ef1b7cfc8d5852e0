"""Vision-language models: embed words, embed image regions, compare the two."""
