"""Training-free dense methods: each position of a grid over the photo gets its class on its own, without masks."""
