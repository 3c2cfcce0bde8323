"""Commands that need several studies, what studies have found, or trained networks."""

from bitjax.commands import findings
from bitjax.commands import pack
from bitjax.commands import predict
from bitjax.commands import published
from bitjax.commands import report_card
from bitjax.commands import reproduce
from bitjax.commands import super_resolve
from bitjax.commands import tables
from bitjax.commands import trained
from bitjax.commands.dispatch import COMMANDS
from bitjax.commands.dispatch import run

__all__ = [
  'COMMANDS',
  'findings',
  'pack',
  'predict',
  'published',
  'report_card',
  'reproduce',
  'run',
  'super_resolve',
  'tables',
  'trained',
]
