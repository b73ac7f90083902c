"""What of a cluster fits headgate, and whether headgate works there: asked of the API server, judged by pure checks.

gather → facts → before, conflicts, after → lines → view
"""
