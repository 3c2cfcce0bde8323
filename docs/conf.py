"""Sphinx configuration: pages in Markdown, the API from docstrings."""

import pathlib
import sys

import bitjax

sys.path.insert(0, str(pathlib.Path(__file__).parent))

project = 'bitjax'
author = 'the bitjax developers'
release = bitjax.__version__
extensions = [
  'myst_parser',
  'sphinx.ext.autodoc',
  'sphinx.ext.autosummary',
  'sphinx.ext.napoleon',
  'extensions.mathematics',
  'extensions.reference',
]
html_theme = 'furo'
html_title = 'bitjax'
html_static_path = ['_static']
html_css_files = ['site.css']
html_math_renderer = 'mathml'
exclude_patterns = ['_build']
default_role = 'py:name'
add_function_parentheses = False
add_module_names = False
autosummary_generate = False
autodoc_typehints = 'signature'
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = 'hide'
myst_heading_anchors = 3
napoleon_google_docstring = True
napoleon_attr_annotations = False  # The signature has them, as written.
napoleon_use_ivar = True  # Else fields of named tuples are described twice.
