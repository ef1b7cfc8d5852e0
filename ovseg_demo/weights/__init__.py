"""Weight files: the catalogue, downloads, safe reading and strict loading."""
