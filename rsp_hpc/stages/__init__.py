"""The stages: units of work, what they read and write, and the loop that runs them."""

STAGES = ("ingest", "calibs", "visits", "coadds", "objects", "report")
"""All stages, in the order in which light goes through them; each is the module of its name."""
