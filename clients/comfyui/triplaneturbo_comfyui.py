"""ComfyUI node: generate a textured mesh from a prompt on a triplaneturbo server.

Copy this file into ComfyUI's folder custom_nodes, and start a server (`python app.py`). It needs no package
besides those of ComfyUI.
"""

import hashlib
import http.client
import io
import json
import os
import re
import struct
import urllib.error
import urllib.parse
import urllib.request

import folder_paths  # of ComfyUI
import numpy
import torch
from PIL import Image

SERVER = "http://127.0.0.1:7860"
TIMEOUT = 600  # seconds
LARGEST_FILE = 500_000_000  # bytes
FOLDER = "3d"  # in ComfyUI's output folder
DETAIL = {
    "low": {"faces": 10_000, "texture_size": 512},
    "medium": {"faces": 40_000, "texture_size": 1024},
    "high": {"faces": 150_000, "texture_size": 2048},
}


class ServerError(Exception):
    """What went wrong, in one sentence, which ComfyUI shows beside the node."""


class TriplaneTurboGenerate:
    """Text to textured mesh, by a triplaneturbo server."""

    CATEGORY = "3d"
    FUNCTION = "generate"
    RETURN_TYPES = ("STRING", "STRING", "IMAGE")
    RETURN_NAMES = ("path", "model_file", "texture")
    OUTPUT_NODE = True  # the file is a result of its own

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "prompt": ("STRING", {"default": "a red mushroom", "multiline": True}),
                "look": (
                    "STRING",
                    {"default": "", "tooltip": "another prompt for the colours; may be blank"},
                ),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**32 - 1}),
                "detail": (list(DETAIL), {"default": "medium"}),
                "server": ("STRING", {"default": SERVER}),
            }
        }

    def generate(self, prompt, look, seed, detail, server):
        """Return the path of the GLB, the same within the output folder, and its texture [1, H, W, 3]."""
        arguments = {"prompt": prompt, "look": look, "seed": seed, **DETAIL[detail]}
        data = fetch(server, arguments)
        texture = base_color(data)
        words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:40] or "mesh"
        name = f"{words}-{seed}-{hashlib.sha256(data).hexdigest()[:8]}.glb"
        folder = os.path.join(folder_paths.get_output_directory(), FOLDER)
        path = os.path.join(folder, name)
        try:
            os.makedirs(folder, exist_ok=True)
            with open(f"{path}.part", "wb") as file:
                file.write(data)
            os.replace(f"{path}.part", path)
        except OSError as error:
            raise ServerError(f"Cannot write {path}: {error.strerror}; check this folder.") from None
        return path, f"{FOLDER}/{name}", texture


def fetch(server, arguments):
    """Return the GLB of a request: arguments of the server's endpoint /generate."""
    server = server.strip().rstrip("/")
    if not server.startswith(("http://", "https://")):
        raise ServerError(f"The server {server!r} is no address; use one such as {SERVER}.")
    if not arguments["prompt"].strip():
        raise ServerError("The prompt is blank; say what to make, such as 'a red mushroom'.")
    call = f"{server}/gradio_api/call/v2/generate"
    try:
        request = urllib.request.Request(
            call, json.dumps(arguments).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            event = json.load(answer)["event_id"]
        with urllib.request.urlopen(f"{call}/{event}", timeout=TIMEOUT) as answer:
            file, _facts = result(answer)
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


def result(stream):
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


def base_color(glb):
    """Return the texture of a GLB as ComfyUI's images are: float32 in [0, 1], [1, H, W, 3]."""
    try:
        (length,) = struct.unpack("<I", glb[12:16])
        content = json.loads(glb[20 : 20 + length])
        number = content["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]["index"]
        view = content["bufferViews"][content["images"][content["textures"][number]["source"]]["bufferView"]]
        start = 28 + length + view.get("byteOffset", 0)
        pixels = Image.open(io.BytesIO(glb[start : start + view["byteLength"]])).convert("RGB")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OSError, struct.error,
            Image.DecompressionBombError):  # fmt: skip
        raise ServerError("The server sent a GLB without a readable texture.") from None
    return torch.from_numpy(numpy.asarray(pixels, dtype=numpy.float32) / 255)[None]


NODE_CLASS_MAPPINGS = {"TriplaneTurboGenerate": TriplaneTurboGenerate}
NODE_DISPLAY_NAME_MAPPINGS = {"TriplaneTurboGenerate": "triplaneturbo: Text to Mesh"}
