"""The proxy's supervising process: takes pods from the agent, opens their listeners, gives both to workers, compiles
policy once for all of them, and answers operators. It moves no byte of a pod's traffic."""
