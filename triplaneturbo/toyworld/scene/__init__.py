"""Scenes: object classes as signed-distance solids, their renderings and the view cache."""
