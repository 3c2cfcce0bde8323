"""A packed network as a circuit: matrix-vector units in Amaranth, simulated and counted.

It is no part of the installed package: a check of what `bitjax.nn.MatrixVectorUnit` and
`bitjax.deploy` promise. ``python -m hardware --help`` says what it does; the packages that it
needs are those of the extra ``hardware``.
"""
