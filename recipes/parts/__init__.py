"""What recipes and tools share; nothing here calls them."""
