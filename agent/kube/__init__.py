"""The one client of the API server: where it is and who we are there, lists, watches.

in-cluster files | kubeconfig → Access → ApiClient → Watch (one a resource) → Listed, Seen, Gone
"""
