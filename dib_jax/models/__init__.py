"""Networks as tuples of stages, one linen module each; and auxiliary heads."""
