"""What a caption means, whatever its wording."""

from __future__ import annotations

from dataclasses import dataclass

from triplaneturbo.errors import UserError
from triplaneturbo.toyworld.captions.words import MODIFIERS, article
from triplaneturbo.toyworld.scene.classes import THINGS
from triplaneturbo.toyworld.scene.palette import NAMES

SUPPORTS = ("box", "barrel", "stool", "table", "mushroom")
RIDERS = ("duck", "cat", "rabbit", "penguin", "snowman", "robot", "apple", "pumpkin", "teapot", "cactus")
_SEVERAL = ("dough", "s")  # how parts end that take no article


@dataclass(frozen=True)
class Spec:
    """What a caption means; two captions that mean the same have equal specs. Made by `Spec.of`.

    Attributes:
        thing: the class.
        color: its main colour, also where the caption names none.
        accent: the colour of its part in the second colour, also where the caption names none.
        modifier: one of `MODIFIERS`, or "".
        support: the class that it stands on, or "".
        support_color: the support's main colour, or "" without a support.
    """

    thing: str
    color: str
    accent: str
    modifier: str = ""
    support: str = ""
    support_color: str = ""

    @classmethod
    def of(
        cls, thing: str, color: str = "", accent: str = "", modifier: str = "", support: str = "",
        support_color: str = "",
    ) -> Spec:  # fmt: skip
        """The spec with natural colours where none is given.

        Raises:
            UserError: there is no such class, colour, modifier or support, or they do not go together.
        """
        _require("class", thing, tuple(THINGS))
        about = THINGS[thing]
        spec = cls(
            thing, color or about.color, accent or about.accent_color, modifier, support,
            support_color or (THINGS[support].color if support in THINGS else ""),
        )  # fmt: skip
        spec._check()
        return spec

    @property
    def kind(self) -> str:
        """One of "plain", "modifier", "two colours" and "pair"."""
        if self.support:
            return "pair"
        if self.modifier:
            return "modifier"
        return "plain" if self.accent == THINGS[self.thing].accent_color else "two colours"

    @property
    def caption(self) -> str:
        """The canonical wording."""
        if self.support:
            below = article(f"{self.support_color} {self.support}")
            return f"{article(f'{self.color} {self.thing}')} on {below}"
        text = article(joined(self.modifier, self.color, self.thing))
        if self.kind == "two colours":
            text += f" with {part_phrase(self, self.accent)}"
        return text

    def _check(self) -> None:
        about = THINGS[self.thing]
        _require("colour", self.color, NAMES)
        _require("colour", self.accent, NAMES)
        if self.modifier:
            _require("modifier", self.modifier, MODIFIERS)
        if self.accent != about.accent_color:
            if about.accent is None:
                raise UserError(
                    f"{article(self.thing).capitalize()} has no part in a second colour: name one colour."
                )
            if self.accent == self.color:
                raise UserError(
                    f"The {about.accent} of {article(self.thing)} must differ from the rest in colour: "
                    f"choose another than {self.color}."
                )
            if self.modifier or self.support:
                raise UserError(
                    f"The {about.accent} of {article(self.thing)} can have a colour of choice only where "
                    "nothing else is said: leave out the modifier or what it stands on."
                )
        if not self.support:
            if self.support_color:
                raise UserError(
                    "A colour is given for a support, but no support: name what the thing stands on."
                )
            return
        _require("support", self.support, SUPPORTS)
        _require("colour", self.support_color, NAMES)
        if self.thing not in RIDERS:
            raise UserError(
                f"{article(self.thing).capitalize()} cannot stand on anything: choose from "
                f"{', '.join(RIDERS)}."
            )
        if self.modifier:
            raise UserError(
                f"What stands on something else cannot be {self.modifier}: leave one of the two out."
            )


def _require(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise UserError(f"There is no {what} called {name!r}: choose from {', '.join(known)}.")


def part_phrase(spec: Spec, color: str) -> str:
    """The part in the second colour, called by that colour, with its article if it takes one."""
    noun = THINGS[spec.thing].accent or ""
    phrase = f"{color} {noun}"
    return phrase if noun.endswith(_SEVERAL) else article(phrase)


def joined(*words: str) -> str:
    """Those words that are not empty, with spaces between them."""
    return " ".join(word for word in words if word)
