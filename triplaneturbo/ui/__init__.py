"""The page. Gradio reads its environment when it is imported, so it is set and imported here first."""

from triplaneturbo.serving.gradio_environment import prepare, without_proxies

prepare()
with without_proxies():
    import gradio  # noqa: F401
