"""Formulas become MathML when the site is built: no script and no network later.

A command that the converter does not know is a warning, and warnings are errors here.
"""

import re

from docutils import nodes
from latex2mathml import converter
from sphinx.util import logging

_LOG = logging.getLogger(__name__)
# What TeX knows about spaces and the converter does not: a bar is no operator, and a
# function's name stands apart from an argument without brackets.
_SPACES = (
  ('<mo stretchy="false">&#x0007C;</mo>',
   '<mo stretchy="false" lspace="0" rspace="0">|</mo>'),
)  # fmt: skip
_FUNCTION = re.compile(
  r'(<mi>(?:cosh?|ln|log|tanh)</mi>(?:<mn>\d</mn></msup>)?)(?=<mi>|<msub>)'
)


def mathml(text: str, display: str) -> str:
  """Returns ``text``, which is LaTeX, as a ``math`` element."""
  result = converter.convert(text, display=display)
  for old, new in _SPACES:
    result = result.replace(old, new)
  return _FUNCTION.sub(r'\1<mspace width="0.17em" />', result)


def _element(node, display):
  text = node.astext()
  result = mathml(text, display)
  if '<mi>\\' in result:
    _LOG.warning('cannot render the formula %s', text, location=node)
  return result


def _inline(self, node):
  self.body.append(_element(node, 'inline'))
  _skip()


def _block(self, node):
  self.body.append(f'<div class="math">{_element(node, "block")}</div>\n')
  _skip()


def _skip():
  raise nodes.SkipNode


def setup(app):
  """Registers the renderer, which `html_math_renderer` then chooses."""
  app.add_html_math_renderer('mathml', (_inline, None), (_block, None))
  return {'parallel_read_safe': True, 'parallel_write_safe': True}
