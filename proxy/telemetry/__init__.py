"""What the data path records. `series` lives in the workers, its deltas are summed by the supervisor."""
