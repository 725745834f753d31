"""Weights that others published: read without running anything, recognised by their names, fitted, and given back under those names."""
