"""prism_tune: visual instruction tuning with built-in, training-free data selection."""

__version__ = "0.1.0"
