"""Do several small steps of STE beat one scanned step, inside one budget?

python -m experiments.multistep_ste --help
"""

from bitjax import cli
from bitjax.studies import multistep_ste

if __name__ == '__main__':
  cli.main(multistep_ste.STUDY)
