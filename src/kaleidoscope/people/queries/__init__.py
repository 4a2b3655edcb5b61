"""All SQL of people.

Locks are taken in one order, so that no two transactions wait for each other: the identity lock
(callbacks share it, whoever merges, splits or undoes holds it alone), the photo's row, the founding
lock, then the rows of persons by id.
"""
