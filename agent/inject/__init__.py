"""Rules and a proxy of its own added to a pod's manifest, and taken out again: no IO, the same everywhere.

template (what is added) · steering (annotations → arguments) · fitting (which pods cannot have it) → pod (the decision)
→ edits, as a JSON Patch for the webhook, or in the text of a file: nodes → text_edits → manifests.
"""
