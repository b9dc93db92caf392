"""Taking away what was built: drop, and the marker that forbids it."""
