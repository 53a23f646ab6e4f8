"""What `bench.py` measures: one module a verb, with `add(verbs)`, and how time is taken."""
