"""headgate beside Envoy, HAProxy and nginx: one topology, one load, interleaved rounds. `make bench`."""
