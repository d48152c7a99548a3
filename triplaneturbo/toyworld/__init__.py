"""The toy world: a procedural domain on which the built-in model is trained and scored."""
