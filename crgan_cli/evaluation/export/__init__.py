"""`crgan export`: a generator as a file for other programs, checked against the original."""
