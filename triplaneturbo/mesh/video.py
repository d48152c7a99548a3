"""MP4 videos of rendered frames, by PyAV or by the program ffmpeg, whichever is installed."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from triplaneturbo.errors import UserError

_CODECS = ("libx264", "mpeg4")  # the first that the library has


def can_encode_mp4() -> bool:
    """Whether PyAV or ffmpeg is installed."""
    return _has_pyav() or shutil.which("ffmpeg") is not None


def encode_mp4(frames: Sequence[np.ndarray], frames_per_second: int) -> bytes:
    """Encode frames as an MP4 file (H.264 where available, else MPEG-4).

    Args:
        frames: uint8 [H, W, 3], all of the same shape with even sides.
        frames_per_second: frame rate.

    Raises:
        UserError: neither PyAV nor ffmpeg is installed, a side is odd, or the encoder fails.
        ValueError: there are no frames, or they are not RGB images of one shape.
    """
    if not frames or any(frame.shape != frames[0].shape or frame.shape[2] != 3 for frame in frames):
        raise ValueError("frames must be non-empty RGB images of one shape")
    height, width, _ = frames[0].shape
    if height % 2 or width % 2:
        raise UserError(f"MP4 needs an even size, not {width} x {height}; add or remove a pixel.")
    if _has_pyav():
        return _by_pyav(frames, frames_per_second)
    if shutil.which("ffmpeg"):
        return _by_ffmpeg(frames, frames_per_second)
    raise UserError("MP4 needs PyAV (pip install av) or the program ffmpeg; install one, or write a .webp.")


def _has_pyav() -> bool:
    try:
        import av  # noqa: F401
    except ImportError:
        return False
    return True


def _by_pyav(frames: Sequence[np.ndarray], rate: int) -> bytes:
    import av

    codec = next(name for name in _CODECS if name in av.codecs_available)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def _by_ffmpeg(frames: Sequence[np.ndarray], rate: int) -> bytes:
    height, width, _ = frames[0].shape
    raw = b"".join(np.ascontiguousarray(frame).tobytes() for frame in frames)
    reading = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(rate), "-i", "-"]
    error = b""
    with tempfile.TemporaryDirectory(prefix="triplaneturbo-") as folder:
        for codec in _CODECS:
            target = Path(folder, f"{codec}.mp4")
            done = subprocess.run(
                ["ffmpeg", "-v", "error", *reading, "-c:v", codec, "-pix_fmt", "yuv420p", str(target)],
                input=raw, capture_output=True, check=False,
            )  # fmt: skip
            if done.returncode == 0:
                return target.read_bytes()
            error = done.stderr
    reason = " ".join(error.decode("utf-8", "replace").split())[:120]
    raise UserError(f"ffmpeg could not encode the video ({reason}); write a .webp instead.")
