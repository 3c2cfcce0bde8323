"""The targets of the study: what is measured, in which unit, and its limit."""

from __future__ import annotations

from bitjax.evidence import targets

__all__ = ['TARGETS']

TARGETS = {
  'killed runs': targets.Target('runs', 1.0, higher_is_better=True),
  'ends that differ': targets.Target('runs', 0.0),
  'files left over': targets.Target('files', 0.0),
  'chunks and files': targets.Target('of the time of one call', 0.03),
  'resume': targets.Target('seconds', 5.0),
  'memory': targets.Target('times the results', 1.8),
  'weak scaling': targets.Target(
    'of two processes', 0.9, higher_is_better=True
  ),
}
