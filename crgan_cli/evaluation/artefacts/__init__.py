"""What consistency regularization does to a generator, beyond its distance to the data."""
