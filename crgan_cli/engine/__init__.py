"""How a turn is executed on the hardware. Autocast, compilation and CUDA graphs live here alone."""
