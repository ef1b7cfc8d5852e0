"""How methods fare with words that are not in the photo; `python -m eval.absent_words` is the command."""
