"""The Compare tab: a draft and its refined mesh, from one camera, with a slider between them."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from triplaneturbo.errors import Cancelled, UserError
from triplaneturbo.serving.refine_request import RefineRequest
from triplaneturbo.ui.generate.updates import Updates
from triplaneturbo.utils.atomic_files import write_atomically

if TYPE_CHECKING:
    from triplaneturbo.request import Request
    from triplaneturbo.serving.engine import Engine
    from triplaneturbo.serving.sessions import Session
    from triplaneturbo.ui.generate.result import ResultView

SIZE = 512  # pixels per side


def compare(engine: Engine, session: Session, result_view: ResultView, request: Request) -> Updates:
    """Render a refined result beside its draft or the uploaded mesh; a draft may be generated again.

    Args:
        request: the request of the result, with all defaults filled in.

    Returns:
        The update of the slider; {} if the result is none of a refinement, or one of the meshes is no longer
        in memory.
    """
    if not isinstance(request, RefineRequest):
        return {}
    try:
        draft = engine.refinements.uploaded_mesh(request.upload) or engine.again(request.draft()).mesh
        refined = engine.again(request).mesh
    except (Cancelled, UserError):
        return {}
    # Unique names: a browser does not request a URL again that it has cached.
    prefix = secrets.token_hex(8)
    paths = [
        write_atomically(session.folder / f"comparison-{prefix}-{number}.png", data)
        for number, data in enumerate(engine.thumbnails((draft, refined), SIZE))
    ]
    session.picture(paths)
    return {result_view.comparison: tuple(map(str, paths))}
