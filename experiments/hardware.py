"""What do few bits save in energy, memory and time on hardware, and at what accuracy?

python -m experiments.hardware --help
"""

from bitjax import cli
from bitjax.studies import hardware

if __name__ == '__main__':
  cli.main(hardware.STUDY)
