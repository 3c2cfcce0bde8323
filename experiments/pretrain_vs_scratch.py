"""Is a low-bit network better if it starts from full precision, and does mixup help?

python -m experiments.pretrain_vs_scratch --help
"""

from bitjax import cli
from bitjax.studies import pretrain_vs_scratch

if __name__ == '__main__':
  cli.main(pretrain_vs_scratch.STUDY)
