"""Images around a model: in order, in bounded memory, whatever fails."""

import threading
import time

import pytest
from PIL import Image

from botvision.errors import BotvisionError, OutOfMemoryError
from botvision.images import stream
from botvision.images.stream import stream_results


def image(number):
    return Image.new("L", (number + 1, 1))


def widths(images):
    return [each.width for each in images]


def run(items, predict=widths, **options):
    return [*stream_results(items, predict, **{"pixels": lambda _: 1, "read": image, **options})]


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_results_are_in_order_whoever_is_slow(batch_size):
    def read(number):
        time.sleep(0.01 * (number % 3))
        return image(number)

    drawn = []

    def draw(number, shown, result):
        time.sleep(0.01 * (number % 2))
        assert shown.width == result == number + 1
        drawn.append(number)

    batches = []

    def predict(images):
        batches.append(len(images))
        return widths(images)

    found = run(range(20), predict, read=read, draw=draw, batch_size=batch_size)
    assert [each.item for each in found] == list(range(20))
    assert [each.result for each in found] == list(range(1, 21))
    assert [each.size for each in found] == [(width, 1) for width in range(1, 21)]
    assert sorted(drawn) == list(range(20))
    assert max(batches) == min(batch_size, 20)
    assert sum(batches) == 20


def test_nothing():
    assert run([]) == []


@pytest.mark.parametrize("where", ["pixels", "read"])
def test_faults_stay_in_their_places(where):
    def fail(number):
        if number % 3 == 1:
            raise BotvisionError(f"bad {number}")
        return image(number) if where == "read" else 1

    found = run(range(8), **{where: fail}, batch_size=2)
    assert [each.item for each in found] == list(range(8))
    for each in found:
        if each.item % 3 == 1:
            assert str(each.fault) == f"bad {each.item}"
            assert each.size is each.result is None
        else:
            assert each.result == each.item + 1
            assert each.fault is None


def test_all_are_bad():
    def fail(number):
        raise BotvisionError("bad")

    assert all(each.fault for each in run(range(9), read=fail, batch_size=2))


@pytest.mark.parametrize("where", ["pixels", "read", "predict", "draw"])
@pytest.mark.parametrize("error", [OutOfMemoryError("no memory"), ZeroDivisionError()])
def test_other_errors_end_it(where, error):
    def fail(*_):
        raise error

    options = {"pixels": lambda _: 1, "read": image, "predict": widths, "draw": lambda *_: None}
    threads = threading.active_count()
    with pytest.raises(type(error)):
        run(range(5), **{**options, where: fail})
    assert threading.active_count() == threads


@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize(
    "sides", [[3] * 30, [9, 1, 1, 20, 3, 3, 12, 1, 1, 1, 5]], ids=["alike", "mixed"]
)
def test_memory_is_bounded_by_pixels(sides, drawn, monkeypatch):
    monkeypatch.setattr(stream, "DECODED_PIXELS", 10)
    lock, held, most = threading.Lock(), 0, 0

    class Held:
        """Counts the pixels of images that are alive, from before they are read."""

        def __init__(self, size):
            nonlocal held, most
            self.size = (size, 1)
            with lock:
                held += size
                most = max(most, held)

        def __del__(self):
            nonlocal held
            with lock:
                held -= self.size[0]

    def draw(index, shown, result):
        time.sleep(0.002)

    results = stream_results(
        range(len(sides)),
        lambda images: [each.size[0] for each in images],
        pixels=lambda index: sides[index],
        read=lambda index: Held(sides[index]),
        draw=draw if drawn else None,
        batch_size=4,
    )
    assert [each.result for each in results] == sides
    # A large one is alone.
    assert most <= max(10, *sides)


def test_a_reader_that_stops_early_stops_the_threads():
    threads = threading.active_count()
    results = stream_results(range(1000), widths, pixels=lambda _: 1, read=image, batch_size=2)
    assert next(results).item == 0
    results.close()
    assert threading.active_count() == threads


def test_reading_goes_on_while_the_model_runs():
    read_by_then = []
    started = []

    def read(number):
        started.append(number)
        return image(number)

    def predict(images):
        time.sleep(0.1)
        read_by_then.append(len(started))
        return widths(images)

    run(range(6), predict, read=read, batch_size=2)
    assert read_by_then[0] > 2
