"""The mathematics of DIDS. It needs torch, numpy and scipy only, does no I/O, and knows no models or datasets.

Shape suffixes of the package: `N` samples, `P` tracked parameters, `M` kept gradient entries, `K` projected dimensions,
`D` domains, `T` tasks, `U` measurements so far (one more than the updates), `C` the entries of one chunk.
"""
