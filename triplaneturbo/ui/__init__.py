"""The Gradio page.

Gradio reads environment variables when it is imported, so they are set before the import here.
"""

from triplaneturbo.serving.gradio_environment import prepare, without_proxies

prepare()
with without_proxies():
    import gradio  # noqa: F401
