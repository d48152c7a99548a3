"""Run inside Blender: `blender -b --factory-startup -P blender_import.py -- REPORT.json RENDER.png FILE ...`.

Imports each file into an empty scene as a user does who changes no setting, and writes what is then there;
the first file is rendered.
"""

import json
import sys
from pathlib import Path

import bpy
import numpy
from mathutils import Vector

# Debian 12's Blender reads glTF with a name that its numpy has dropped.
if "bool" not in vars(numpy):
    numpy.bool = bool


def load(path):
    """Import with the importer that this Blender has for the suffix."""
    suffix = Path(path).suffix
    if suffix == ".glb":
        bpy.ops.import_scene.gltf(filepath=path)
    elif suffix == ".obj":
        bpy.ops.wm.obj_import(filepath=path)
    elif suffix == ".usdz":
        bpy.ops.wm.usd_import(filepath=path)
    elif bpy.app.version >= (4, 2):
        {".ply": bpy.ops.wm.ply_import, ".stl": bpy.ops.wm.stl_import}[suffix](filepath=path)
    else:
        {".ply": bpy.ops.import_mesh.ply, ".stl": bpy.ops.import_mesh.stl}[suffix](filepath=path)


def source(material, name):
    """The size of the image behind an input of the material's shader, or None."""
    shader = next(node for node in material.node_tree.nodes if node.type == "BSDF_PRINCIPLED")
    todo = [link.from_node for link in shader.inputs[name].links]
    while todo:
        node = todo.pop()
        if node.type == "TEX_IMAGE":
            return {"size": list(node.image.size), "space": node.image.colorspace_settings.name}
        todo += [link.from_node for entry in node.inputs for link in entry.links]
    return None


def describe():
    objects = [thing for thing in bpy.context.scene.objects if thing.type == "MESH"]
    corners = [thing.matrix_world @ vertex.co for thing in objects for vertex in thing.data.vertices]
    materials = [slot for thing in objects for slot in thing.data.materials if slot]
    colors = [
        attribute.name for thing in objects for attribute in getattr(thing.data, "color_attributes", [])
    ]
    return {
        "low": [min(corner[k] for corner in corners) for k in range(3)],
        "high": [max(corner[k] for corner in corners) for k in range(3)],
        "objects": len(objects),
        "vertices": sum(len(thing.data.vertices) for thing in objects),
        "faces": sum(len(thing.data.polygons) for thing in objects),
        "materials": len(materials),
        "base": source(materials[0], "Base Color") if materials else None,
        "normal": source(materials[0], "Normal") if materials else None,
        "uv": [len(thing.data.uv_layers) for thing in objects],
        "colors": len(colors),
    }


def render(path, low, high):
    """A picture from the front (-y), from a little above, of the materials as imported."""
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.cycles.device, scene.cycles.samples = "CPU", 16
    scene.cycles.use_denoising = False  # Debian's is built without
    scene.render.resolution_x = scene.render.resolution_y = 192
    scene.render.film_transparent = True
    scene.view_settings.view_transform = "Standard"
    scene.world = bpy.data.worlds.new("white")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs[0].default_value = (1, 1, 1, 1)
    middle = (Vector(low) + Vector(high)) / 2
    camera = bpy.data.objects.new("camera", bpy.data.cameras.new("camera"))
    camera.location = middle + Vector((0, -1, 0.25)).normalized() * 1.5 * (Vector(high) - Vector(low)).length
    camera.rotation_euler = (middle - camera.location).to_track_quat("-Z", "Y").to_euler()
    camera.data.clip_start = 1e-4
    scene.collection.objects.link(camera)
    scene.camera = camera
    scene.render.filepath = path
    bpy.ops.render.render(write_still=True)


report, picture, *files = sys.argv[sys.argv.index("--") + 1 :]
found = {}
for number, file in enumerate(files):
    if file.endswith(".usdz") and not bpy.app.build_options.usd:
        found[file] = None
        continue
    bpy.ops.wm.read_factory_settings(use_empty=True)
    load(file)
    found[file] = describe()
    if number == 0:
        render(picture, found[file]["low"], found[file]["high"])
Path(report).write_text(json.dumps(found))
