"""x"""
def page(results):
  from matplotlib import pyplot
  return pyplot.figure()
