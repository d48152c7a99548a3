"""Blender add-on: generate a mesh from a prompt on a triplaneturbo server and import it at the 3D cursor.

Install this file under Edit > Preferences > Add-ons > Install, start a server (`python app.py`), and open the
tab "Triplane" in the sidebar of the 3D viewport (N). It needs no package besides Blender's own.
"""

from __future__ import annotations

import http.client
import json
import os
import tempfile
import threading
import urllib.error
import urllib.parse
import urllib.request

import bpy

bl_info = {
    "name": "triplaneturbo",
    "description": "Text to textured mesh, by a triplaneturbo server",
    "author": "triplaneturbo",
    "version": (1, 0, 0),
    "blender": (3, 3, 0),
    "location": "3D Viewport > Sidebar > Triplane",
    "category": "Import-Export",
}

TIMEOUT = 600  # seconds
LARGEST_FILE = 500_000_000  # bytes


class ServerError(Exception):
    """What went wrong, in one sentence."""


def generate(server: str, prompt: str, seed: int) -> bytes:
    """Return the GLB of a prompt.

    Args:
        server: address of the server, such as http://127.0.0.1:7860.
        prompt: what to make.
        seed: seed of the generation.

    Raises:
        ServerError: the server is not reachable, or refuses the request.
    """
    server = server.strip().rstrip("/")
    if not server.startswith(("http://", "https://")):
        raise ServerError(f"The server {server!r} is no address; use one such as http://127.0.0.1:7860.")
    if not prompt.strip():
        raise ServerError("The prompt is blank; say what to make, such as 'a red mushroom'.")
    call = f"{server}/gradio_api/call/v2/generate"
    try:
        body = json.dumps({"prompt": prompt, "seed": seed}).encode()
        request = urllib.request.Request(call, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            event = json.load(answer)["event_id"]
        with urllib.request.urlopen(f"{call}/{event}", timeout=TIMEOUT) as answer:
            file, _facts = _result(answer)
        # Not the file's "url", which may be any address, also of a file on this machine.
        address = f"{server}/gradio_api/file={urllib.parse.quote(file['path'])}"
        with urllib.request.urlopen(address, timeout=TIMEOUT) as answer:
            data = answer.read(LARGEST_FILE + 1)
    except urllib.error.HTTPError as error:
        raise ServerError(f"The server answered {error.code} {error.reason}; is it triplaneturbo?") from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise ServerError(f"Cannot reach {server}: {reason}; start it, or check the address.") from None
    except http.client.HTTPException as error:
        reason = str(error) or type(error).__name__
        raise ServerError(f"The connection to {server} failed: {reason}; try again.") from None
    except (ValueError, KeyError, TypeError):
        raise ServerError(f"{server} does not answer as triplaneturbo does; check the address.") from None
    if not data.startswith(b"glTF") or len(data) > LARGEST_FILE:
        raise ServerError("The server sent no valid GLB file.")
    return data


def _result(stream) -> list:
    """Read the server-sent events of a call until its result, [file, facts]."""
    event = ""
    for line in stream:
        name, _, value = line.decode("utf-8").strip().partition(": ")
        if name == "event":
            event = value
        elif name == "data" and event == "complete":
            return json.loads(value)
        elif name == "data" and event == "error":
            found = json.loads(value)
            message = found.get("error") if isinstance(found, dict) else found
            raise ServerError(str(message or "The server reports an error; see its terminal."))
    raise ServerError("The server closed the connection without a result.")


def place(data: bytes, name: str, location) -> list:
    """Import a GLB with its origin at a location, and name its objects; return them."""
    before = set(bpy.data.objects)
    descriptor, path = tempfile.mkstemp(suffix=".glb")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        bpy.ops.import_scene.gltf(filepath=path)
    finally:
        os.unlink(path)
    added = [item for item in bpy.data.objects if item not in before]
    for item in added:
        if item.parent is None:
            item.location = location
        item.name = name
    return added


class TRIPLANETURBO_OT_generate(bpy.types.Operator):
    """Generate a mesh from the prompt and import it at the 3D cursor"""

    bl_idname = "triplaneturbo.generate"
    bl_label = "Generate"
    bl_options = {"REGISTER", "UNDO"}  # noqa: RUF012  as Blender reads it

    def execute(self, context):
        """Generate and wait, as scripts and Blender without a window do."""
        self._settings(context)
        self._work()
        return self._finish()

    def invoke(self, context, event):
        """Generate in a thread, so that Blender can be used meanwhile; Escape abandons the result."""
        self._settings(context)
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        self._timer = context.window_manager.event_timer_add(0.2, window=context.window)
        context.window_manager.modal_handler_add(self)
        context.workspace.status_text_set("triplaneturbo is generating. Escape: cancel")
        return {"RUNNING_MODAL"}

    def modal(self, context, event):
        if event.type != "ESC" and (event.type != "TIMER" or self._thread.is_alive()):
            return {"PASS_THROUGH"}
        context.window_manager.event_timer_remove(self._timer)
        context.workspace.status_text_set(None)
        return {"CANCELLED"} if event.type == "ESC" else self._finish()

    def _settings(self, context):
        scene = context.scene
        self._asked = (scene.triplaneturbo_server, scene.triplaneturbo_prompt, scene.triplaneturbo_seed)
        self._location = scene.cursor.location.copy()
        self._data, self._error = b"", ""

    def _work(self):
        try:
            self._data = generate(*self._asked)
        except ServerError as error:
            self._error = str(error)
        except Exception as error:  # a thread would lose it
            self._error = f"Internal error ({type(error).__name__}: {error}); please report it."

    def _finish(self):
        if self._error or not self._data:
            self.report({"ERROR"}, self._error or "The server sent no mesh.")
            return {"CANCELLED"}
        _, prompt, seed = self._asked
        place(self._data, f"{prompt.strip()} {seed}", self._location)
        return {"FINISHED"}


class TRIPLANETURBO_PT_panel(bpy.types.Panel):
    """The tab in the sidebar"""

    bl_idname = "TRIPLANETURBO_PT_panel"
    bl_label = "triplaneturbo"
    bl_space_type = "VIEW_3D"
    bl_region_type = "UI"
    bl_category = "Triplane"

    def draw(self, context):
        column = self.layout.column()
        column.prop(context.scene, "triplaneturbo_prompt")
        column.prop(context.scene, "triplaneturbo_seed")
        column.operator(TRIPLANETURBO_OT_generate.bl_idname, icon="MESH_MONKEY")
        column.prop(context.scene, "triplaneturbo_server")


CLASSES = (TRIPLANETURBO_OT_generate, TRIPLANETURBO_PT_panel)
PROPERTIES = {
    "triplaneturbo_server": bpy.props.StringProperty(name="Server", default="http://127.0.0.1:7860"),
    "triplaneturbo_prompt": bpy.props.StringProperty(name="Prompt", default="a red mushroom"),
    "triplaneturbo_seed": bpy.props.IntProperty(name="Seed", default=0, min=0),
}


def register():
    for cls in CLASSES:
        bpy.utils.register_class(cls)
    for name, value in PROPERTIES.items():
        setattr(bpy.types.Scene, name, value)


def unregister():
    for name in PROPERTIES:
        delattr(bpy.types.Scene, name)
    for cls in reversed(CLASSES):
        bpy.utils.unregister_class(cls)


if __name__ == "__main__":
    register()
