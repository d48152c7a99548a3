"""Which endpoints of the page agents may call by MCP (the Model Context Protocol). Imports nothing heavy.

Gradio offers every endpoint as a tool, and calls those that it queues through a client on this machine, for
which the limits of remote visitors would not hold. Only endpoints that it calls directly are kept, with the
request of the agent.
"""

from __future__ import annotations

from typing import Any

from triplaneturbo.errors import UserError

MISSING = 'MCP needs the package mcp; install it with: pip install "gradio[mcp]".'


class McpAccess:
    """The MCP tools of a page. The route filter rejects MCP requests until they are open.

    Attributes:
        endpoints: the names of the endpoints, by the name of their tool; set when the page is built.
        is_open: whether agents may connect.
    """

    def __init__(self) -> None:
        self.endpoints: dict[str, str] = {}
        self.is_open = False

    def open(self, page: Any) -> None:
        """Limit the MCP server of a launched page to these tools, and let agents connect.

        Raises:
            UserError: the page has no MCP server, as its package is missing.
        """
        server = page.mcp_server_obj
        if server is None:
            raise UserError(MISSING)
        server.tool_to_endpoint.clear()
        server.tool_to_endpoint.update(self.endpoints)
        self.is_open = True


def check_installed() -> None:
    """Raise UserError if the package is not installed."""
    from importlib.util import find_spec

    if find_spec("mcp") is None:
        raise UserError(MISSING)
