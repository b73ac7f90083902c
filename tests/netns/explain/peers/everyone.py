"""All of them."""

from typing import Final

from tests.netns.explain.peers import Peer
from tests.netns.explain.peers.meshes import MESHES
from tests.netns.explain.peers.nodes import NODES
from tests.netns.explain.peers.users import USERS

PEERS: Final[tuple[Peer, ...]] = (*MESHES, *NODES, *USERS)
