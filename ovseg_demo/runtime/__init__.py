"""How work is run: stages with a cache, worker pool, fused layers, memory."""
