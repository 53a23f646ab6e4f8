"""Who plays, in what order, and on what: one class a kind of generation."""
