"""A module for each library; each has a function for every part that it takes part in. See `benchmarks.workers`."""
