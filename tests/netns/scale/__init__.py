"""What many pods, and many connections, ask of agent and proxy."""
