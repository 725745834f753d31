"""Metrics, the evaluation of a model on a catalog, and honest comparison of groups of evaluations."""
