"""MPI and nothing of ours: communicators, self-scheduling over teams of ranks, and the request to stop."""
