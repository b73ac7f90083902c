"""What a ruleset does to a packet: parsers of real rulesets, whoever made them, and an interpreter of their sum. Pure.

    nft -j list ruleset ┐                             Packet, Surroundings ┐
    iptables-*-save     ┴→ Ruleset (tables, chains, rules of statements) ──┴→ Explanation (outcome, path, unknown)

What cannot be interpreted is named and both ways it could go are followed: nothing is guessed.
"""
