"""Which network is updated, in what order, and on what: one class per kind of generation."""
