"""Training of SegCLIP from captions alone (Luo et al., ICML 2023)."""
