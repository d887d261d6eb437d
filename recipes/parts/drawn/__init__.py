"""Small data sets that are drawn, for machines without the real ones: each in the real one's format on the disk."""
