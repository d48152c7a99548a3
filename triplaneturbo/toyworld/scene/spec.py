"""`Spec`: the meaning of a caption, independent of its wording."""

from __future__ import annotations

from dataclasses import dataclass

from triplaneturbo.errors import UserError
from triplaneturbo.toyworld.captions.words import MODIFIERS, with_article
from triplaneturbo.toyworld.scene.classes import OBJECT_CLASSES
from triplaneturbo.toyworld.scene.palette import NAMES

SUPPORTS = ("box", "barrel", "stool", "table", "mushroom")
RIDERS = ("duck", "cat", "rabbit", "penguin", "snowman", "robot", "apple", "pumpkin", "teapot", "cactus")
_PLURAL_ENDINGS = ("dough", "s")  # endings of parts that take no article


@dataclass(frozen=True)
class Spec:
    """The meaning of a caption; captions with the same meaning have equal specs. Create it with `Spec.of`.

    Attributes:
        thing: name of the object class.
        color: main colour; the class's natural colour if the caption names none.
        accent: colour of the part with a second colour; the natural one if the caption names none.
        modifier: one of `MODIFIERS`, or "".
        support: name of the class that the object stands on, or "".
        support_color: main colour of the support, or "" without a support.
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
        """Create a spec; colours that are not given are the class's natural ones.

        Raises:
            UserError: a class, colour, modifier or support is unknown, or the combination is invalid.
        """
        _check_known("class", thing, tuple(OBJECT_CLASSES))
        object_class = OBJECT_CLASSES[thing]
        spec = cls(
            thing, color or object_class.color, accent or object_class.accent_color, modifier, support,
            support_color or (OBJECT_CLASSES[support].color if support in OBJECT_CLASSES else ""),
        )  # fmt: skip
        spec._check()
        return spec

    @property
    def kind(self) -> str:
        """The kind of caption: "plain", "modifier", "two colours" or "pair"."""
        if self.support:
            return "pair"
        if self.modifier:
            return "modifier"
        return "plain" if self.accent == OBJECT_CLASSES[self.thing].accent_color else "two colours"

    @property
    def caption(self) -> str:
        """The canonical caption."""
        if self.support:
            below = with_article(f"{self.support_color} {self.support}")
            return f"{with_article(f'{self.color} {self.thing}')} on {below}"
        text = with_article(join_words(self.modifier, self.color, self.thing))
        if self.kind == "two colours":
            text += f" with {part_phrase(self, self.accent)}"
        return text

    def _check(self) -> None:
        """Raise UserError if a value is unknown or the combination is invalid."""
        object_class = OBJECT_CLASSES[self.thing]
        name = with_article(self.thing)
        _check_known("colour", self.color, NAMES)
        _check_known("colour", self.accent, NAMES)
        if self.modifier:
            _check_known("modifier", self.modifier, MODIFIERS)
        if self.accent != object_class.accent_color:
            if object_class.accent is None:
                raise UserError(f"{name.capitalize()} has no part with a second colour: name one colour.")
            part = f"The {object_class.accent} of {name}"
            if self.accent == self.color:
                raise UserError(
                    f"{part} must differ in colour from the rest: choose a colour other than {self.color}."
                )
            if self.modifier or self.support:
                raise UserError(
                    f"{part} cannot have its own colour together with a size, a pattern or a support: "
                    "leave out one of the two."
                )
        if not self.support:
            if self.support_color:
                raise UserError("A support colour is given without a support: name what the thing stands on.")
            return
        _check_known("support", self.support, SUPPORTS)
        _check_known("colour", self.support_color, NAMES)
        if self.thing not in RIDERS:
            raise UserError(f"{name.capitalize()} cannot stand on anything: choose from {', '.join(RIDERS)}.")
        if self.modifier:
            raise UserError(
                f"A thing that stands on another thing cannot be {self.modifier}: leave out one of the two."
            )


def _check_known(what: str, name: str, known: tuple[str, ...]) -> None:
    """Raise UserError if `name` is not among `known`; `what` says what it names."""
    if name not in known:
        raise UserError(f"Unknown {what} {name!r}: choose from {', '.join(known)}.")


def part_phrase(spec: Spec, color: str) -> str:
    """Return the noun phrase of the part with the second colour: "a green roof", "red fins"."""
    noun = OBJECT_CLASSES[spec.thing].accent or ""
    phrase = f"{color} {noun}"
    return phrase if noun.endswith(_PLURAL_ENDINGS) else with_article(phrase)


def join_words(*words: str) -> str:
    """Join the words that are not empty with spaces."""
    return " ".join(word for word in words if word)
