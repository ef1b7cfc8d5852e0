"""Mask proposals of MobileSAM."""
