"""What counts, fixed beforehand."""

import math

__all__ = ['LOSS', 'VARIANCE']

# Of a log loss ratio or of (L1 - Lm) / L1: half a percent of the loss.
LOSS = 0.005
# Of a log variance ratio: a tenth of the variance. Twelve seeds in the place of eleven
# change the variance of a mean by as much.
VARIANCE = math.log(1.1)
