"""The `seed` group: which files fill the database, in which order, what ran of them, and whether it is still there.

files finds the seeds and directives reads their heads; scripts turns each kind into statements, typescript those that
are programs; order sorts them; ledger, runner and verify work on the server.
"""
