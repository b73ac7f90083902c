"""Our plugin in the chain of the node's CNI configuration: put in, kept there, taken out."""
