"""Catalog: the table of tiles, how it is built, checked, split and shown."""
