"""What consistency regularisation does to a generator, beside its distance to the data."""
