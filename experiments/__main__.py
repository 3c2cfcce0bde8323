"""Lists the studies, as the command ``bitjax`` does.

python -m experiments
"""

from bitjax import __main__ as command

if __name__ == '__main__':
  raise SystemExit(command.main(program='python -m experiments.{}'))
