"""Run inside Blender: `blender -b --factory-startup -P blender_tangents.py -- MESH.json TANGENTS.json`.

Writes the tangents that Blender, by MikkTSpace, has at a mesh's corners: x, y, z, the bitangent's sign.
MESH.json holds lists: vertices, normals and uv (v upward) of each vertex, and faces.
"""

import json
import sys
from pathlib import Path

import bpy

source, target = sys.argv[sys.argv.index("--") + 1 :]
given = json.loads(Path(source).read_text())
mesh = bpy.data.meshes.new("mesh")
mesh.from_pydata(given["vertices"], [], given["faces"])
layer = mesh.uv_layers.new()
for loop, corner in zip(mesh.loops, layer.data, strict=True):
    corner.uv = given["uv"][loop.vertex_index]
for polygon in mesh.polygons:
    polygon.use_smooth = True
if hasattr(mesh, "use_auto_smooth"):  # before Blender 4.1
    mesh.use_auto_smooth = True
mesh.normals_split_custom_set_from_vertices(given["normals"])
mesh.calc_tangents()
found = [[*loop.tangent, loop.bitangent_sign] for loop in mesh.loops]
order = [loop.vertex_index for loop in mesh.loops]
assert order == [vertex for face in given["faces"] for vertex in face]
Path(target).write_text(json.dumps(found))
