"""Statements of nft's JSON that write addresses and ports: nat, and tproxy, which writes none. Pure."""

import functools
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from agent.explain.nft_expressions import translated
from agent.explain.nft_sets import Sets, is_ranged
from agent.explain.nft_tests import CACHED, Reader
from agent.explain.nft_text import Json
from agent.explain.nft_values import ADDRESS4, ADDRESS6, PORT, Kind, Unreadable, opaque
from agent.explain.statements import Constant, Expression, Nat, NatKind, Statement, Tproxy


def _nat(kind: NatKind) -> Reader:
    to_port = functools.lru_cache(maxsize=CACHED)(lambda port: Nat(kind, None, Constant(port)))

    def read(said: Json, sets: Sets) -> Statement:
        if said is None:
            return Nat(kind)
        address, port = said.get("addr"), said.get("port")
        if len(said) == 1 and type(port) is int:  # what most rules that capture say
            return to_port(port)
        family = said.get("family", sets.family)
        into = Nat(
            kind,
            _part(address, sets, _address(family), family),
            _part(port, sets, PORT, family),
            (type(address) is dict and _is_ranged(address, sets)) or (type(port) is dict and _is_ranged(port, sets)),
        )
        if "prefix" in _listed(said.get("type_flags")) or "netmap" in _listed(said.get("flags")):
            return replace(into, address=opaque(address, "a part of the address stays as it was"))
        if type(address) is dict and _leads_to_both(address, sets):
            return replace(into, port=_part(address, sets, PORT, family, 1))
        return into

    return read


def _tproxy(said: Json, sets: Sets) -> Statement:
    family = said.get("family", sets.family)
    address = _part(said.get("addr"), sets, _address(family), family)
    return Tproxy(address, _part(said.get("port"), sets, PORT, family))


TRANSLATIONS: Final = {**{kind.value: _nat(kind) for kind in NatKind}, "tproxy": _tproxy}


def _address(family: str) -> Kind:
    return ADDRESS6 if family == "ip6" else ADDRESS4


def _part(raw: Json, sets: Sets, kind: Kind, family: str, number: int = 0) -> Expression | None:
    if raw is None:
        return None
    try:
        if type(raw) is not dict:
            return Constant(kind.read(raw))
        return translated(raw, sets, kind, family, number)
    except Unreadable as error:
        return opaque(raw, error.why)


def _leads(raw: Json, sets: Sets) -> Iterable[Json]:
    """What a map's elements lead to, as they are listed."""
    if type(raw) is not dict or "map" not in raw:
        return ()
    data = raw["map"]["data"]
    return (to for _, to in (sets.elements_of(data[1:]) if type(data) is str else data["set"]))


def _leads_to_both(raw: Json, sets: Sets) -> bool:
    return any(type(to) is dict and "concat" in to for to in _leads(raw, sets))


def _is_ranged(raw: Json, sets: Sets) -> bool:
    return is_ranged(raw) or any(map(is_ranged, _leads(raw, sets)))


def _listed(raw: Json) -> Json:
    return raw if type(raw) is list else (raw,)
