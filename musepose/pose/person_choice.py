"""Which of several people is meant: the largest, or one by his place from left to right."""

from collections.abc import Sequence

from musepose.utils.errors import UserError

LARGEST, LEFT, RIGHT = WORDS = ("largest", "left", "right")
Choice = int | str  # one of WORDS, or N, the N-th from the left, from 1


class TooFew(UserError):
    """There is no N-th person."""

    def __init__(self, wanted: int, count: int) -> None:
        super().__init__(f"person {wanted} from the left is wanted, but only {count} can be seen: give at most {count}")
        self.wanted, self.count = wanted, count


def place_from_left(choice: Choice, centres: Sequence[float]) -> int:
    """Index of the person at the chosen place, by the x of everybody's centre; not for the largest.

    Raises TooFew.
    """
    order = sorted(range(len(centres)), key=centres.__getitem__)
    if choice == LEFT:
        return order[0]
    if choice == RIGHT:
        return order[-1]
    if choice > len(order):
        raise TooFew(choice, len(order))
    return order[choice - 1]
