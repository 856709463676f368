"""Nothing lost, nothing doubled: real processes, real kills, real outages, counted from outside.

The only judge is what the pretend systems received. Every test reports its figures, and the run ends with a table of
them. The ordinary run has the short form of every row; `pytest tests/faults --long` the long one.
"""
