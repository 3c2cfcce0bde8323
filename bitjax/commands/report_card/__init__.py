"""Measures gradient estimators, one's own too, and writes a page about each.

`names` says what an estimator is called, `config` what is measured, `measure` measures and
keeps it (`gradients`, `balls`, `digits`, `cifar`, `speed`); `numbers` have intervals, and
`pages` and `leaderboard` show them (`cells`, `svg`, `style`, `caveats`).
"""

from bitjax.commands.report_card.command import main

__all__ = ['main']
