"""What a cluster is given: rendered from daemonset/ when headgate is built (`make manifests`), one file an overlay."""
