"""What the kernel holds in a namespace, everybody's: read, told apart, shown, what is ours removed. No agent needed.

`inventory`, `whose`, `nft_listing`, `saved`, `clean` and `view` decide and are pure; `read`, `routing` and
`remove` act in the network namespace that the calling thread is in.
"""
