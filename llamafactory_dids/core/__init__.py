"""The mathematics of DIDS: torch, numpy and scipy only, no I/O, and no knowledge of models or datasets.

Shape suffixes, everywhere in this package: `N` samples, `P` tracked parameters, `M` kept gradient entries,
`K` projected dimensions, `D` domains, `T` tasks, `U` measurements so far (one more than the updates made),
`C` the entries of one chunk.
"""
