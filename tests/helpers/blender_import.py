"""Run inside Blender: `blender -b --factory-startup -P blender_import.py -- REPORT.json RENDER.png FILE ...`.

Import each file into an empty scene with default settings and report what the scene then contains; the first
file is also rendered. A file that this Blender cannot import is reported as `{"missing": REASON}`.
"""

import json
import sys
from pathlib import Path

import bpy
from mathutils import Vector

try:
    import numpy
except ImportError:  # Debian's blender only recommends it, and some importers need it
    pass
else:
    # Debian 12's glTF importer uses numpy.bool, which its numpy no longer has.
    if "bool" not in vars(numpy):
        numpy.bool = bool

NEW = bpy.app.version >= (4, 2)
IMPORTERS = {
    ".glb": bpy.ops.import_scene.gltf,
    ".obj": bpy.ops.wm.obj_import,
    ".usdz": bpy.ops.wm.usd_import,
    ".ply": bpy.ops.wm.ply_import if NEW else bpy.ops.import_mesh.ply,
    ".stl": bpy.ops.wm.stl_import if NEW else bpy.ops.import_mesh.stl,
}


class Missing(Exception):
    """What has to be installed before this Blender can import a file."""


def load(path):
    """Import a file, or raise Missing."""
    suffix = Path(path).suffix
    if suffix == ".usdz" and not bpy.app.build_options.usd:
        raise Missing("this Blender is built without USD, as Debian's is: install one from blender.org")
    importer = IMPORTERS[suffix]
    try:
        importer.get_rna_type()
    except KeyError:
        raise Missing(f"this Blender has no {suffix} importer: install its add-ons") from None
    try:
        importer(filepath=path)
    except (ImportError, RuntimeError) as error:  # Blender turns an add-on's ImportError into a RuntimeError
        if "No module named 'numpy'" in str(error):
            raise Missing(f"Blender needs numpy to import {suffix}: apt install python3-numpy") from None
        raise


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
    bpy.ops.wm.read_factory_settings(use_empty=True)
    try:
        load(file)
    except Missing as missing:
        found[file] = {"missing": str(missing)}
        continue
    found[file] = describe()
    if number == 0:
        render(picture, found[file]["low"], found[file]["high"])
Path(report).write_text(json.dumps(found))
