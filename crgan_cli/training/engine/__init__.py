"""How a turn is executed on the hardware: precision, compilation, CUDA graphs."""
