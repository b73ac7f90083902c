"""Whatever stands in an annotation: it is understood, or refused by name; and no text of it reaches a rule unquoted."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.plan import InvalidPlan, PlanSettings, build_plan
from agent.plan.annotation_keys import KNOWN
from agent.plan.render.nft import install_script
from agent.pods import PodRef

KEYS = sorted(KNOWN)
GOOD = ("80", "3000-3005", "10.0.0.0/8", "fd00::/8", "*", "true", "net1", "br+:10.0.0.0/8", "deny", "tcp:53:1000-2000")
WORDS = (
    "80", "0", "70000", "10-5", "10.0.0.0/8", "::/0", "*", "net1", "tcp", ":", ";", ",", " ", "-", "\n", '"', "'", "{",
    "}", "#", "$(id)", "`", "\\", "accept", "lo", "٣", "é", "\x1b[0m",
)  # fmt: skip
VALUES = st.one_of(
    st.sampled_from(GOOD), st.text(max_size=40), st.lists(st.sampled_from(WORDS), max_size=6).map("".join)
)
ANNOTATIONS = st.dictionaries(
    st.one_of(st.sampled_from(KEYS), st.text(max_size=10).map(lambda tail: f"headgate.io/exclude-{tail}")),
    VALUES,
    max_size=4,
)
SETTINGS = PlanSettings()

_STRINGS = re.compile(r'"[^"]*"')
_PLAIN = re.compile(r"[A-Za-z0-9 \t\n_.:;,{}()|&=!<>/+@\"-]*")
"""All that a script of ours is made of."""
_QUOTED = re.compile(r'"(headgate:[a-z0-9-]+|[A-Za-z0-9_.@-]{1,15}\*?)"')
"""A comment, or the name of an interface."""


@given(ANNOTATIONS)
@settings(max_examples=1000, deadline=None, derandomize=True)
def test_an_annotation_is_understood_or_refused_by_name_and_never_reaches_a_rule_unquoted(
    given: dict[str, str],
) -> None:
    pod = PodRef("u", "default", "web", annotations=tuple(sorted(given.items())))
    try:
        plan = build_plan(pod, SETTINGS)
    except InvalidPlan as refused:
        assert refused.field.startswith("annotation ")
        assert str(refused).isprintable() and len(str(refused)) < 1000
        return
    script = install_script(plan, (), replace=False)
    assert _PLAIN.fullmatch(script)
    assert all(_QUOTED.fullmatch(text) for text in _STRINGS.findall(script))
