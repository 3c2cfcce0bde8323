"""Commands that need several studies, or what studies have found."""

from bitjax.commands import findings
from bitjax.commands import published
from bitjax.commands import reproduce
from bitjax.commands import tables
from bitjax.commands.dispatch import COMMANDS
from bitjax.commands.dispatch import run

__all__ = ['COMMANDS', 'findings', 'published', 'reproduce', 'run', 'tables']
