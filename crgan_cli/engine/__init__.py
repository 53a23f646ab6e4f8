"""How a turn is executed on the hardware: precision, compilation and CUDA graphs are chosen here."""
