"""Stories of an answer, and of addresses, that nobody expected."""

from __future__ import annotations

from typing import Final

from tests.stories.steered import ORDERS, shop
from tests.stories.telling import Story, Telling, application


def _uc(told: Telling) -> None:
    told.begins()
    told.says("""
        One call of `orders` is answered with 503, flag UC, and the mesh is blamed (istio #13205, #13848, #55138).
    """)
    told.runs("ip netns exec client curl -si http://10.96.0.10/report", "503 Service Unavailable", "UC")
    told.says("""
        The header `headgate-error` says who gave up, and about whom: the server closed the connection when it had the
        whole request. To believe it, look at the wire on the server's side: `eth0` is what the client's side says, `lo`
        is the proxy and the application.
    """)
    with told.beside("headgate capture orders -w uc.pcapng", "nothing lost", ready="capturing"):
        told.runs("ip netns exec client curl -s -o /dev/null -w '%{http_code}\\n' http://10.96.0.10/report", "503")
    told.runs(
        "tshark -r uc.pcapng -Y 'http or (tcp.flags.fin == 1 and tcp.srcport == 8080)' \\\n"
        "    -T fields -e frame.interface_name -e ip.src -e ip.dst -e tcp.flags.str -e http.request.uri \\\n"
        "    -e http.response.code -e frame.comment 2>/dev/null | expand -t 6,17,28,42,51,56",
        "503",
    )
    told.runs("tail -n 1 log/orders.orders.log", "out of memory")
    told.says("""
        **Cause.** Line 3: the FIN of 10.77.0.3 port 8080 itself, and no byte of an answer before it. The application
        drops the connection when `/report` is too large for it. A connection that was kept idle and ends just as it is
        used again is not that: the proxy repeats a request without a body on a new one.

        **Remedy.** In the application; here its mended version is started.
    """)
    told.lab.kill("orders.orders")
    told.lab.start_server("orders", application("orders-2", "answers", "8080", "mended", ports=(8080,)))
    told.runs("ip netns exec client curl -sS http://10.96.0.10/report", "here you are")


def _tcpdump(told: Telling) -> None:
    told.begins()
    call = "ip netns exec client curl -s -o /dev/null http://10.96.0.10/"
    told.says("""
        Somebody looks at a pod's packets to see whom it calls, and sees no Service, but a connection to 127.0.0.1,
        which is answered from elsewhere (istio #22915).
    """)
    dump = "ip netns exec client tcpdump -l -n -q -t -i lo --immediate-mode -c 2 'tcp[tcpflags] & tcp-syn != 0'"
    with told.beside(f"{dump} 2>&1", "127.0.0.1.15001", ready="listening on lo", ends=True):
        told.runs(call)
    told.says("""
        tcpdump is right: it sees what is on the wire, behind the translation. `capture` asks conntrack what each packet
        was before, and says so; with `-w` it is a comment in the file, that Wireshark shows and filters by
        (`frame.comment contains "10.96.0.10:80"`). `--to` means the address that the application asked for.
    """)
    capture = "headgate capture client --to 10.96.0.10:80 --count 2"
    with told.beside(capture, "to 10.96.0.10:80 before translation", ready="capturing", ends=True):
        told.runs(call)
    told.says("""
        Which rule did it? `trace` has the kernel's own word.
    """)
    trace = "headgate rules trace client --to 10.96.0.10:80 --count 1"
    with told.beside(trace, "redirect to :15001", ready="tracing in", ends=True):
        told.runs(call)
    told.says("""
        **Cause.** None: this is redirection at work. **Remedy.** None needed; `conn` tells the same of connections that
        live.
    """)


UC: Final = Story("503 UC", shop(), _uc, (ORDERS,))
TCPDUMP: Final = Story("tcpdump shows the wrong addresses", shop(), _tcpdump, (ORDERS,))
