"""Training-free dense methods: every place of the photo is named on its own, without masks."""
