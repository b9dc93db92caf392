"""The `migrate` group: files, what stands in them, what is recorded, and how the one becomes the other.

files finds and hashes the files, create writes new ones; ledger, planning and runner work on the server.
"""
