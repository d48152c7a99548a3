"""Flags and argument types shared by several commands."""

from __future__ import annotations

import argparse
import os


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that select the model, its base weights and the device."""
    add = parser.add_argument
    add(
        "--model",
        default="auto",
        metavar="NAME",
        help="auto, small, full, a folder or a Hugging Face repository; default auto",
    )
    add(
        "--base",
        metavar="FOLDER",
        help="folder with Stable Diffusion 2.1-base, for the full model; default: TRIPLANETURBO_BASE or the"
        " hub's",
    )
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1 or mps; default: the best available one")


def utf8(text: str) -> str:
    """Decode an argument as UTF-8 if the locale, such as LC_ALL=C, left its bytes undecoded."""
    if text.isascii() or not any("\udc80" <= character <= "\udcff" for character in text):
        return text
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeDecodeError:
        return text
