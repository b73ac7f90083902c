"""The doctor's effects: one module a mechanism, each reads one kind of facts and changes nothing."""
