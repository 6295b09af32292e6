from wgd.policy.remembered import remembered


def test_the_very_same_objects_are_not_asked_about_twice() -> None:
    calls = []

    @remembered
    def made(one: object, many: tuple[object, ...]) -> list[object]:
        calls.append(one)
        return [one, *many]

    first, others = object(), [object(), object()]
    result = made(first, tuple(others))
    assert made(first, tuple(others)) is result
    assert len(calls) == 1


def test_equal_objects_and_others_are_asked_about_anew() -> None:
    @remembered
    def made(one: object, many: tuple[object, ...] = ()) -> list[object]:
        return [one, *many]

    one, equal = [1], [1]
    assert made(one, ()) is not made(equal, ())
    assert made(one, ()) is not made(one, (one,))
    assert made(one, (one,)) is not made(one, (equal,))


def test_only_the_last_result_is_kept() -> None:
    @remembered
    def made(one: object) -> list[object]:
        return [one]

    one, other = object(), object()
    result = made(one)
    made(other)
    assert made(one) is not result
