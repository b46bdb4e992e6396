"""Triton kernels of the gradient stage on a GPU. `fused` calls them, documents them and checks their inputs.

Each program reads a block of a gradient's entries. Programs that run side by side read the same block of different
rows: they share the block's codes, and do not all add to the same place.
"""

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def _block(gradients, num_rows, num_entries, row_stride, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """This program's row, entries, mask of the entries that exist, values, and bits of the magnitudes."""
    row = (tl.program_id(0) % num_rows).to(tl.int64)
    entry = (tl.program_id(0) // num_rows).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = entry < num_entries
    x = tl.load(gradients + row * row_stride + entry, mask=inside, other=0.0)
    return row, entry, inside, x, x.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit  # type: ignore[untyped-decorator]
def count_magnitudes(  # type: ignore[no-untyped-def]
    gradients,
    num_rows,
    num_entries,
    row_stride,
    low,
    high,
    sure,
    counts,
    MAGNITUDES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Count a row's entries from `high` on, and its entries at each magnitude from `low` to `high`."""
    row, _, inside, _, bits = _block(gradients, num_rows, num_entries, row_stride, BLOCK)
    from_low, from_high = tl.load(low + row), tl.load(high + row)
    tl.atomic_add(sure + row, tl.sum((inside & (bits >= from_high)).to(tl.int32)), sem="relaxed")
    between = inside & (bits >= from_low) & (bits < from_high)
    tl.atomic_add(counts + row * MAGNITUDES + (bits - from_low), 1, mask=between, sem="relaxed")


@triton.jit  # type: ignore[untyped-decorator]
def add_above(  # type: ignore[no-untyped-def]
    gradients,
    num_rows,
    num_entries,
    row_stride,
    codes,
    threshold,
    y,
    num_ties,
    ties,
    output_dim,
    TIES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add a row's entries above the threshold to its projection. Count the ties, and list them while there is room."""
    row, entry, inside, x, bits = _block(gradients, num_rows, num_entries, row_stride, BLOCK)
    last = tl.load(threshold + row)
    above = inside & (bits > last)
    code = tl.load(codes + entry, mask=above, other=0)
    signed = tl.where((code & 1) == 1, -x, x).to(tl.float64)
    tl.atomic_add(y + row * output_dim + (code >> 1), signed, mask=above, sem="relaxed")
    at = inside & (bits == last)
    if tl.sum(at.to(tl.int32)) > 0:
        place = tl.atomic_add(num_ties + row + tl.zeros_like(bits), 1, mask=at, sem="relaxed")
        tl.store(ties + row * TIES + place, entry.to(tl.int32), mask=at & (place < TIES))
