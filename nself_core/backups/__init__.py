"""The `backup` group: what a backup is called, what stands beside it, how it is taken, found, verified and pruned."""
