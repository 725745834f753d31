"""Encoders that look at an image as a grid of tokens."""
