"""bitjax: how good are the gradients that low-bit networks are trained with?"""

from bitjax.version import __version__

__all__ = ['__version__']
