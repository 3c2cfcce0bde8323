"""Entry point for tools that still call setup.py; see pyproject.toml."""

import setuptools

setuptools.setup()
