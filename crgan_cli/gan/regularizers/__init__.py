"""Loss terms besides the adversarial loss: one class per method."""
