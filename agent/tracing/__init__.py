"""What the kernel does with packets while somebody watches: its own trace, joined with rules and conntrack."""
