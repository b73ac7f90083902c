"""The smallest ruleset that steers as the product's does; what the product's own says is tested elsewhere."""

STEER = """\
table inet headgate {
	set grandfathered4 {
		type ipv4_addr . inet_service . ipv4_addr . inet_service
	}
	chain output {
		type nat hook output priority -100; policy accept;
		oifname "lo" counter return comment "headgate:own"
		meta mark & 0xfff == 0x539 counter return comment "headgate:mark"
		tcp flags & (fin|syn|rst|ack) == syn counter redirect to :15001 comment "headgate:out"
	}
	chain prerouting {
		type nat hook prerouting priority -100; policy accept;
		iifname "lo" counter return comment "headgate:lo"
		tcp flags & (fin|syn|rst|ack) == syn counter redirect to :15006 comment "headgate:in"
	}
}
"""
