"""What every recorded run shares: the lock, the proof that a transaction is still ours, the unit of one file."""
