"""MROVSeg (Zhu et al., arXiv 2408.14776): slices of a photo and the whole photo through one frozen CLIP."""
