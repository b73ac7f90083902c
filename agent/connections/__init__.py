"""Who talks to whom: sockets, conntrack and the proxy's table of connections, joined."""
