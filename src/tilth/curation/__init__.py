"""Curation: which tiles of a large pool are worth learning from, and why."""
