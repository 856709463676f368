"""A connector from another package, as an example to start from."""
