"""Desired and actual state, and the changes that lead from one to the other."""
