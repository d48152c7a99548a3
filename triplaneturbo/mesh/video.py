"""MP4 videos of rendered frames, by PyAV or by the program ffmpeg, whichever is installed."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from triplaneturbo.errors import UserError
from triplaneturbo.request import shown

_CODECS = ("libx264", "mpeg4")  # the first that the library has
_LARGEST_NUMERATOR = 65535  # of a frame rate, in MPEG-4


def can_encode_mp4() -> bool:
    """Whether PyAV or ffmpeg is installed."""
    return _has_pyav() or shutil.which("ffmpeg") is not None


def encode_mp4(frames: Sequence[np.ndarray], frames_per_second: float) -> bytes:
    """Encode frames as an MP4 file (H.264 where available, else MPEG-4).

    Args:
        frames: uint8 [H, W, 3], all of the same shape with even sides.
        frames_per_second: frame rate, up to 65535; stored as a fraction.

    Raises:
        UserError: neither PyAV nor ffmpeg is installed, a side is odd, or the encoder fails.
        ValueError: there are no frames, or they are not RGB images of one shape.
    """
    if not frames or any(frame.shape != frames[0].shape or frame.shape[2] != 3 for frame in frames):
        raise ValueError("frames must be non-empty RGB images of one shape")
    height, width, _ = frames[0].shape
    if height % 2 or width % 2:
        raise UserError(f"MP4 needs an even size, not {width} x {height}; add or remove a pixel.")
    rate = _fraction(frames_per_second)
    if _has_pyav():
        return _by_pyav(frames, rate)
    if shutil.which("ffmpeg"):
        return _by_ffmpeg(frames, rate)
    raise UserError("MP4 needs PyAV (pip install av) or the program ffmpeg; install one, or write a .webp.")


def _fraction(rate: float) -> Fraction:
    """Return a frame rate as a fraction that both codecs can store."""
    return Fraction(rate).limit_denominator(max(1, min(1000, int(_LARGEST_NUMERATOR / rate))))


def _has_pyav() -> bool:
    try:
        import av  # noqa: F401
    except ImportError:
        return False
    return True


def _by_pyav(frames: Sequence[np.ndarray], rate: Fraction) -> bytes:
    import av

    codec = next((name for name in _CODECS if name in av.codecs_available), None)
    if codec is None:
        raise UserError("PyAV has no encoder for MP4; write a .webp instead.")
    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format="mp4") as container:
            stream = container.add_stream(codec, rate=rate)
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    except (av.error.FFmpegError, ValueError) as error:
        raise UserError(
            f"PyAV could not encode the video ({shown(str(error))}); write a .webp instead."
        ) from None
    return buffer.getvalue()


def _by_ffmpeg(frames: Sequence[np.ndarray], rate: Fraction) -> bytes:
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
