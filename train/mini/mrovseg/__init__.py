"""Trains a mini MROVSeg: fusion of slices and global view, and queries, on features of the bundled mini model."""
