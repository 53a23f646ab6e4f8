"""What the players pay besides the adversarial loss: one class a method."""
