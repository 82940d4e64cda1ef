"""Layer-by-layer training of deep networks on information-theoretic losses."""
