"""The `migrate` group: files, what stands in them, what is recorded, and how the one becomes the other.

files finds and hashes the files, directives reads what a file says about itself, script says how its statements
run, create writes new ones; ledger, lock, planning and runner work on the server.
"""
