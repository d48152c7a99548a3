"""The package with the built-in model and the page's assets, which have folders of their own in a checkout.

`triplaneturbo.models.catalog.ROOT` finds them in both places. Everything else is in pyproject.toml.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["triplaneturbo*"]),
        "triplaneturbo.assets",
        "triplaneturbo.checkpoints.small",
    ],
    package_dir={
        "triplaneturbo.assets": "assets",
        "triplaneturbo.checkpoints.small": "checkpoints/small",
    },
)
