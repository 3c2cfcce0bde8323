"""Commands that need several studies, or what studies have found."""

from bitjax.commands import findings
from bitjax.commands import published

__all__ = ['findings', 'published']
