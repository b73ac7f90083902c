"""What is wrong with a node, found by looking: facts, and findings that each say what, why it matters, what to do."""
