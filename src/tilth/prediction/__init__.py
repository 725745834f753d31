"""From a scene of any size to a georeferenced map of class ids."""
