"""Merge: the methods, the blocks they are made of, and the engine that streams tensors through.

Shapes: `base` (*shape), `experts` (n, *shape), float32. Pointwise methods may be given any
contiguous block of the flattened tensors in place of the whole.
"""
