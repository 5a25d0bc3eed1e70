"""Named things that users may add to: task sets, estimators, optimizers and others."""

from typing import Generic, TypeVar

from learned_optimizer.utils.flags import require_member

T = TypeVar("T")


class Registry(Generic[T]):
    """Things by name; an error lists the names there are.

    Args:
        kind: What one of them is, with its article: "a task set".
        sort: Whether `names` are sorted, or in the order of registration.
    """

    def __init__(self, kind: str, sort: bool = True):
        self._kind, self._sort = kind, sort
        self._members: dict[str, T] = {}

    def register(self, name: str):
        """A decorator that adds what it decorates under a name.

        Raises:
            ValueError: The name is taken.
        """

        def add(member: T) -> T:
            if name in self._members:
                raise ValueError(
                    f"The name of {self._kind} must be new. Received: {name!r}"
                )
            self._members[name] = member
            return member

        return add

    def get(self, name: str) -> T:
        """The one of that name.

        Raises:
            ValueError: There is none; the message lists those that exist.
        """
        require_member(self._kind, name, self.names())
        return self._members[name]

    def names(self) -> list[str]:
        """The names of all."""
        return sorted(self._members) if self._sort else list(self._members)
