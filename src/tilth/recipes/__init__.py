"""Recipes: stages in a YAML file, done in order; finished ones are not done twice."""
