"""Looking at features: what the maps inside of an encoder show, in pictures and in numbers."""
