"""Why a pod is not steered: the steps from its selection to its proofs, and the first one that fails."""
