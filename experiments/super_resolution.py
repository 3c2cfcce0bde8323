"""Which parts of a super-resolution network do not suit low bits, and by how much?

python -m experiments.super_resolution --help
"""

from bitjax import cli
from bitjax.studies import super_resolution

if __name__ == '__main__':
  cli.main(super_resolution.STUDY)
