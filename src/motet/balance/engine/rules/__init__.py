"""How single operations pass T gradients of chosen rows back: only operations listed here are known to keep rows apart.

Each rule reads what its node of the graph has saved, takes the chosen rows of it, and gives for each input its place,
the gradients (T, ...) and where the rows lie there. An operation that mixes rows, or that is not listed, raises.
"""
