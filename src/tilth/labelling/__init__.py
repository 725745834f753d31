"""Labels that models make: the classes of tiles, how sure the model is of them, and the catalog that the next training reads."""
