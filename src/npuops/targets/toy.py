"""`toy`: the smallest target that is complete. Read it before you write one.

Its "chip" takes a handful of operators at batch 1; its "compiler" copies the graph; its runner is a numpy
interpreter of that handful. It has no vendor SDK, so the house's own tests run everywhere.
"""
