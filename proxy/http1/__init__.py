"""HTTP/1.1 messages: bytes in, decisions out. No sockets, no clock: the data path feeds it and acts.

`grammar` holds the patterns, `request` and `response` turn a head into framing and the bytes to forward, `chunked`
finds the end of a chunked body, `reply` makes the answers that the proxy gives itself.
"""
