"""Fault tests: what is left of a database when something dies, stops, fills up or goes silent during a run.

One file a fault. `workload` makes the migrations and says, from the tables themselves, whether each was applied wholly
and once; `watch` finds the moment at which to strike and waits for what the strike must lead to. Nothing here waits
by the clock where it can ask: a gate (an advisory lock that the test holds) stops a migration at a known statement,
and random points are counted in migrations done, not in seconds. Random tests print their seed; NSELF_FAULT_SEED
repeats one.
"""
