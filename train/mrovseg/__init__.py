"""Training of MROVSeg (Zhu et al., arXiv 2408.14776)."""
