"""Speed and memory of the demo and of every method; `python -m eval.benchmark` says how."""
