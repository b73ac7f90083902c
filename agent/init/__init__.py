"""Rules for one sidecar, installed from inside the pod: whose words ask for them, and how they are put in force.

`istio`, `linkerd` and `kuma` make an `InitRequest` of a peer's command line; they and all that they stand on are pure.
`places` looks around, `apply` acts. docs/init.md, and docs/migrate-*.md flag by flag.
"""
