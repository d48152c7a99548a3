"""A page in this process, at an address of this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from triplaneturbo.ui.blocks import SERVING, theme_options


@contextmanager
def launched(make: Callable[[], Any], **options: Any) -> Iterator[Any]:
    """Build a page and launch it at 127.0.0.1; close it at the end, and restore the environment."""
    before = os.environ.copy()
    page = make()
    try:
        settings = SERVING | theme_options() | options
        page.launch(server_name="127.0.0.1", prevent_thread_lock=True, **settings)
        yield page
    finally:
        page.close()
        os.environ.clear()
        os.environ.update(before)
