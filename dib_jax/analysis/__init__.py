"""What a trained network does: probes, statistics, figures, report."""

from dib_jax.analysis.probes import layer_outputs, probe

__all__ = ["layer_outputs", "probe"]
