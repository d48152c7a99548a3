"""A sentence becomes a UV-textured mesh."""

__version__ = "0.1.0"
