"""Public data sets: one declarative card each, and one engine that turns folders in their original layout into catalogs."""
