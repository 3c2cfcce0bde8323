"""The costs of MLPs on digits by formulas, which needs no tracing."""

from bitjax.studies.recipes import families


class Counted:
  """A `families.Family` that only counts."""

  def weights(self, cell):
    return (64 + cell.width + 10) * cell.width

  def total_bits(self, cell):
    return families.BITS[cell.bits][0] * self.weights(cell)

  def operations(self, cell):
    bits = int(families.BITS[cell.bits][0])
    rest = cell.width * (cell.width + 10)
    if cell.bits == '32':
      return 64 * cell.width + rest
    return (8 * bits * 64 * cell.width + bits**2 * rest) / 64
