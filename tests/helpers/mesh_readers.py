"""Mesh files as other readers read them."""

import io

import trimesh


def read(data, kind):
    """Load a file with trimesh, as a single Trimesh."""
    loaded = trimesh.load(io.BytesIO(data), file_type=kind, process=False)
    if isinstance(loaded, trimesh.Scene):
        (geometry,) = loaded.geometry.values()
        return geometry
    return loaded


def read_obj(data):
    """Load the single mesh in a zip of OBJ, MTL and PNG."""
    return read(data, "zip")
