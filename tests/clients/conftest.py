"""A server of small meshes for the clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from tests.helpers.launched import launched  # needs gradio, which not all tests here do
    from tests.helpers.quick import make_small
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.ui.blocks import build

    with Engine("small", device="cpu") as engine, pytest.MonkeyPatch.context() as patch:
        make_small(patch, engine)
        with launched(lambda: build(engine, tmp_path_factory.mktemp("served"))) as page:
            yield page.local_url
