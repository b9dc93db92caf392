"""The test bed: real Postgres servers of several versions, reached in every way nself-db knows, and faults between.

It stands apart from the shipped code: nothing here imports nself_core, so a fault there cannot hide itself here.
"""
