"""Sphinx configuration: pages in Markdown, the API from docstrings."""

import bitjax

project = 'bitjax'
author = 'the bitjax developers'
release = bitjax.__version__
extensions = [
  'myst_parser',
  'sphinx.ext.autodoc',
  'sphinx.ext.mathjax',
  'sphinx.ext.napoleon',
]
html_theme = 'furo'
exclude_patterns = ['_build']
default_role = 'literal'
autodoc_typehints = 'none'
napoleon_google_docstring = True
napoleon_use_ivar = True  # Else fields of named tuples are described twice.
