"""Parts that turn feature maps of several scales into one map, and that into classes."""
