"""Noise predictors of diffusion models, the maps that can be tapped from them, and heads that turn such maps into classes."""
