"""A pod's packets in a file, each with the destination it had before translation."""
