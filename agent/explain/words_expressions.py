"""What a value is made of, in words: `the connection's mark & 0xff`, `one of 12 ports by the source address`. Pure."""

from typing import Final

from agent.explain.statements import Bits, Constant, Elements, Expression, Field, Joined, Looked, Opaque, Read, Xored
from agent.explain.words_values import count, name, noun, value_in_words
from agent.printable import printable

TEXT_LIMIT: Final = 100
"""Of what cannot be read: the line says other things too."""


def expression_in_words(said: Expression, what: str = "values") -> str:
    """`what`: of several values, what they are."""
    match said:
        case Constant():
            return value_in_words(None, said.value)
        case Read():
            return f"the {noun(said.field)}"
        case Bits():
            return _bits(said)
        case Xored():
            return f"{expression_in_words(said.left)} ^ {expression_in_words(said.right)}"
        case Joined():
            return what_in_words(said)
        case Looked():
            return f"{one_of(said.among, what)} by {expression_in_words(said.key)}"
        case Opaque():
            return opaque_in_words(said)


def what_in_words(said: Expression) -> str:
    """Without the article: `source address . destination port`, as nft writes those in a row."""
    if isinstance(said, Joined):
        return " . ".join(what_in_words(part) for part in said.parts)
    return expression_in_words(said).removeprefix("the ")


def opaque_in_words(said: Opaque) -> str:
    text = printable(said.text, TEXT_LIMIT)
    return f"{text}: {said.why}" if said.why else text


def _bits(said: Bits) -> str:
    text = f"{expression_in_words(said.of)} & {said.mask:#x}"
    if said.xor:
        text += f" ^ {said.xor:#x}"
    return f"{text} | {said.ored:#x}" if said.ored else text


def one_of(among: Elements, what: str) -> str:
    return f"one of {count(among)} {what}" + (f" of @{name(among.name)}" if among.name else "")


def fields_of(left: Expression) -> tuple[Field | None, ...]:
    """What its values are values of, component by component."""
    while isinstance(left, Bits):
        left = left.of
    if isinstance(left, Joined):
        return tuple(field for part in left.parts for field in fields_of(part))
    return (left.field,) if isinstance(left, Read) else (None,)
