"""Conversion of the data of `fit`, `evaluate` and `predict` into datasets of checked batches."""

from __future__ import annotations

import collections
import functools
import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfp_flows import _compat_keras
from tfp_flows.bijectors.adapting import rows_of
from tfp_flows.checks import positive_int
from tfp_flows.data.arrays import column_names, to_array
from tfp_flows.data.streams import Stream, StreamError
from tfp_flows.data.streams.stream import stream_errors
from tfp_flows.training.batch_order import Order, order_of_rows, pipeline
from tfp_flows.training.validation import check_conditions, check_element_spec, check_events, check_levels, look_at_rows


class Glance(NamedTuple):
    """Events and conditions that are read before training; `None` where there are none."""

    name: str  # of the argument, for messages
    events: np.ndarray | None = None
    conditions: np.ndarray | None = None
    whole: bool = True  # whether `events` are all events


class Inputs(NamedTuple):
    """The form of a distribution's batches, with checks and conversions.

    A batch is `events` or `(conditions, events)`, or `(conditions or nothing, events or nothing, weights)`, in Keras' order.
    """

    event_shape: tuple[int | None, ...]
    dtype: tf.DType
    conditional_size: int | None
    levels: int | None = None  # number of levels of integer data that the model dequantizes
    density: bool = True  # whether the model fits the density of the events
    scaled: bool = False  # whether the distribution normalizes its data
    dependent: tuple[int, ...] = ()  # columns that follow from others, such as the last share of a whole

    def _events(self, name: str, x: Any) -> np.ndarray:
        if self.levels is not None:
            return check_levels(name, x, self.event_shape, self.levels)
        return check_events(name, x, self.event_shape, self.dtype)

    def check(self, x: Any, y: Any, names: tuple[str, str] = ("x", "y")):
        """Check the data. Return arrays as a tuple in Keras' order, and a dataset or generator as it is."""
        if isinstance(x, (tf.data.Dataset, Stream)):
            if y is not None:
                raise ValueError(f"`{names[1]}` must be left out where `{names[0]}` is a dataset, which yields both.")
            check_element_spec(names[0], x.element_spec, self.event_shape, self.conditional_size, self.levels)
            return x
        if _is_lazy(x):
            return x
        if self.conditional_size is None:
            if y is not None and y is not x:  # autoencoders are fitted to (x, x)
                raise ValueError(f"`{names[1]}` must be left out: this distribution has no conditions.")
            return (self._events(names[0], x),)
        if y is None:
            raise ValueError(
                f"`{names[1]}` must be given: the distribution is conditional, so `{names[0]}` are the conditions, of shape "
                f"[N, {self.conditional_size}], and `{names[1]}` the events."
            )
        conditions = check_conditions(names[0], x, self.conditional_size, self.dtype)
        events = self._events(names[1], y)
        if len(conditions) != len(events):
            raise ValueError(f"`{names[0]}` has {len(conditions)} rows, `{names[1]}` has {len(events)}.")
        return conditions, events

    def check_validation(self, data: Any):
        if not isinstance(data, (tuple, list)):
            return self.check(data, None, ("validation_data", "validation_data[1]"))
        names = ("validation_data[0]", "validation_data[1]")
        most = 1 if self.conditional_size is None else 2
        if len(data) > most:
            expected = "the events alone, since there is no `y`" if most == 1 else "(x, y)"
            raise ValueError(
                f"`validation_data` must hold {expected}, got {len(data)} arrays. For weights, let a dataset yield "
                "(x, y, sample_weight)."
            )
        return self.check(data[0], data[1] if len(data) > 1 else None, names)

    def validation_events(self, data: Any) -> np.ndarray | None:
        if data is None or isinstance(data, (tf.data.Dataset, Stream)) or _is_lazy(data):
            return None
        return to_array("validation_data", data[-1] if isinstance(data, (tuple, list)) else data)

    def _weight(self, data: Any, weight: Any) -> np.ndarray | None:
        if weight is None:
            return None
        if not isinstance(data, tuple):
            raise ValueError("`sample_weight` requires arrays; let a dataset yield (x, y, sample_weight).")
        weight, rows = np.asarray(weight, dtype=self.dtype.as_numpy_dtype), len(data[0])
        if weight.shape != (rows,) or not np.all(np.isfinite(weight)) or np.any(weight < 0):
            raise ValueError(f"`sample_weight` must hold {rows} finite weights >= 0, got shape {weight.shape}.")
        return weight

    def dataset(self, x: Any, y: Any, batch_size: int | None, weight: Any = None):
        """Return a dataset of checked batches in the order of the rows. A dataset or generator comes back as it is."""
        data = self.check(x, y)
        return self._in_order(data, batch_size, self._weight(data, weight))

    def with_class_weight(self, kwargs: dict, x: Any, y: Any) -> dict:
        if kwargs.get("class_weight") is None:
            return kwargs
        if y is None or self.conditional_size is None or kwargs.get("sample_weight") is not None:
            raise ValueError(
                "`class_weight` requires arrays of conditions that are classes, and without `sample_weight`: events are "
                "no classes. Use `sample_weight`, one for each row."
            )
        return {**kwargs, "class_weight": None, "sample_weight": weight_of_classes(kwargs["class_weight"], x)}

    def glance(self, x: Any, y: Any) -> Glance:
        """Read all arrays, or the beginning of a dataset, before training.

        Conditions are read to the end, because the first ones may all be equal. A dataset of unknown length may read
        from a generator, so it gives one batch only. Generators are not read.
        """
        if isinstance(x, (tf.data.Dataset, Stream)):
            return _look_at(x, self.conditional_size)
        if _is_lazy(x):
            return Glance("x")
        if self.conditional_size is None:
            return Glance("x", to_array("x", x))
        return Glance("y", to_array("y", y), to_array("x", x, mixed=True))

    def _in_order(self, data: Any, batch_size: int | None, weight: np.ndarray | None = None) -> Any:
        if not isinstance(data, (tuple, Stream)):
            return data
        size = check_batch_size(batch_size)
        if isinstance(data, Stream):
            return pipeline(data.batches(size).map(self._cast))
        return to_dataset(data, size, weight, order=None, shuffle=False)

    @tf.autograph.experimental.do_not_convert
    def _cast(self, *parts: tf.Tensor) -> Any:
        cast = [tf.cast(part, self.dtype) if part.dtype.is_floating else part for part in parts]
        if self.levels is not None:
            shape = cast[-1].shape
            cast[-1] = tf.ensure_shape(tf.numpy_function(self._of_levels, [cast[-1]], cast[-1].dtype), shape)
        return tuple(cast) if len(cast) > 1 else cast[0]

    def _of_levels(self, x: np.ndarray) -> np.ndarray:
        try:
            check_levels("x", x, self.event_shape, self.levels)
        except ValueError as error:
            raise StreamError(str(error)) from error
        return x

    def _from_stream(
        self, stream: Stream, batch_size: int, shuffle: bool, steps: int | None, strategy
    ) -> tuple[Any, Order]:
        """Return the training dataset and its order. Each worker reads its own part."""
        replicas, rows = strategy.num_replicas_in_sync, len(stream)
        if replicas > 1 and (batch_size % replicas or rows < batch_size):
            raise ValueError(
                f"`batch_size` must be a multiple of the {replicas} replicas, and at most the {rows} rows, got {batch_size}."
            )
        batches = rows // batch_size if replicas > 1 else -(-rows // batch_size)
        # With `steps`, each epoch starts a new pass. Continuing a pass would read all earlier rows again.
        order = Order(min(batches, steps) if steps and shuffle else batches, steps)

        def part(seed, skip, worker=0, workers=1):
            # The order counts steps, so a batch holds the rows of all replicas of a worker.
            own = stream.a_pass(seed, batch_size // workers, shuffle=shuffle, worker=worker, workers=workers)
            return own.take(order.per_pass).skip(skip).map(self._cast)

        if replicas == 1:
            return order.batches(part), order

        def of_worker(context):
            own = functools.partial(part, worker=context.input_pipeline_id, workers=context.num_input_pipelines)
            return order.batches(own).rebatch(batch_size // replicas)

        data = strategy.distribute_datasets_from_function(of_worker)
        _compat_keras.set_cardinality(data, order.per_epoch)
        return data, order

    def for_training(
        self, x, y, batch_size: int | None, kwargs: dict, strategy: tf.distribute.Strategy, glance: Glance | None = None
    ) -> tuple[Any, Order | None, dict]:
        """Return the dataset, the order of its batches, and the keywords of `keras.Model.fit`, such as `validation_data`."""
        data, kwargs, order = self.check(x, y), dict(kwargs), None
        weight = self._weight(data, kwargs.pop("sample_weight", None))
        if isinstance(data, tf.data.Dataset):
            kwargs.setdefault("shuffle", False)  # Keras ignores it for datasets, and warns
        looks = self.levels is None and self.density
        if isinstance(data, (tf.data.Dataset, Stream)) and looks:
            rows = None if glance is None else glance.events
            if rows is not None and (len(rows) > 1 or glance.whole) and np.all(np.isfinite(rows)):
                look_at_rows("x", rows, rows.astype(self.dtype.as_numpy_dtype), self.scaled, dependent=self.dependent)
        validation = kwargs.pop("validation_data", None)
        if validation is not None:
            validation = self.check_validation(validation)
        if isinstance(data, tuple):
            if looks:
                name, given = ("x", x) if self.conditional_size is None else ("y", y)
                look_at_rows(name, given, data[-1], self.scaled, column_names(given), dependent=self.dependent)
            split, rows = kwargs.pop("validation_split", 0.0), len(data[0])
            if split and validation is None:
                kept = int(rows * (1.0 - split))  # the last rows, as in Keras
                if not 0.0 < split < 1.0 or not 0 < kept < rows:
                    raise ValueError(f"`validation_split` must leave rows on both sides, got {split} of {rows}.")
                validation, data = tuple(a[kept:] for a in data), tuple(a[:kept] for a in data)
                weight = None if weight is None else weight[:kept]  # `val_loss` is the plain NLL
        if isinstance(data, (tuple, Stream)):
            shuffle, steps = bool(kwargs.pop("shuffle", True)), kwargs.pop("steps_per_epoch", None)
            kwargs["shuffle"] = False  # the order shuffles
            size = check_batch_size(batch_size)
            if isinstance(data, Stream):
                data, order = self._from_stream(data, size, shuffle, steps, strategy)
            else:
                order = Order(-(-len(data[0]) // size), steps)
                data = to_dataset(data, size, weight, order, shuffle)
        if isinstance(validation, (tuple, Stream)):
            validation = self._in_order(validation, kwargs.pop("validation_batch_size", None) or batch_size)
        return data, order, {**kwargs, "validation_data": validation}


MOST_ROWS, MOST_BYTES, MOST_SECONDS = 10_000, 2**26, 2.0  # limits of the events that are read before training


def _look_at(data: tf.data.Dataset | Stream, conditional_size: int | None) -> Glance:
    """Return the first events of a dataset, and its conditions, thinned if there are very many."""
    is_stream = isinstance(data, Stream)
    batches = data.batches(1024) if is_stream else data
    known = is_stream or int(data.cardinality()) >= 0
    start, events, count, whole = time.monotonic(), [], 0, True

    def first_parts():
        nonlocal count, whole
        for batch in batches:
            parts = [part for part in (batch if isinstance(batch, (tuple, list)) else [batch])[:2] if part is not None]
            here = np.asarray(parts[0] if conditional_size is None else parts[-1])
            if whole:
                events.append(here)
                count += len(here)
            size, seconds = count * here[:1].nbytes, time.monotonic() - start
            whole &= known and count < MOST_ROWS and size <= MOST_BYTES and seconds <= MOST_SECONDS
            yield np.asarray(parts[0])
            if not known or (conditional_size is None and not whole):
                return

    conditions = None
    with stream_errors():
        if known and conditional_size is not None:
            conditions = rows_of("conditions of `x`", first_parts(), conditional_size)
        else:
            collections.deque(first_parts(), maxlen=0)
    return Glance("x", np.concatenate(events) if events else None, conditions, whole)


def _is_lazy(x: Any) -> bool:
    """Return whether `x` yields batches that cannot be read before training."""
    return isinstance(x, (keras.utils.PyDataset, tf.distribute.DistributedDataset)) or hasattr(x, "__next__")


def weight_of_classes(class_weight: Mapping[int, float], conditions: Any) -> np.ndarray:
    """Return the weight of each row, whose condition is a class: one-hot `[N, K]`, or an integer `[N, 1]`."""
    rows = to_array("x", conditions)
    columns = rows.shape[1] if rows.ndim == 2 else 0
    if columns > 1 and np.all((rows == 0) | (rows == 1)) and np.all(rows.sum(axis=1) == 1):
        classes = rows.argmax(axis=1)
    elif columns == 1 and np.all(rows == np.round(rows)):
        classes = rows[:, 0].astype(int)
    else:
        raise ValueError("`class_weight` needs conditions that are classes: one-hot [N, K], or integers [N, 1].")
    missing = sorted(set(map(int, np.unique(classes))) - set(class_weight))
    if missing:
        raise ValueError(f"`class_weight` has no weight of class {missing[0]}, got {dict(class_weight)}.")
    return np.array([class_weight[int(c)] for c in classes])


def check_batch_size(batch_size: int | None) -> int:
    """Return a positive batch size; 32, the default of Keras, for `None`."""
    return positive_int("batch_size", 32 if batch_size is None else batch_size)


def to_dataset(
    arrays: tuple[np.ndarray, ...], batch_size: int, weight: np.ndarray | None, order: Order | None, shuffle: bool
) -> tf.data.Dataset:
    """Return batches of arrays in the arrays' own precision.

    Keras would cast arrays to `keras.config.floatx()`, and drop the weights of arrays without a `y`.
    """
    rows = len(arrays[0])
    if weight is not None:
        nothing = np.zeros([rows, 0], np.float32)
        arrays = (*arrays, *(nothing,) * (2 - len(arrays)), weight)
    # Gathering the rows of a batch is much faster than batching single elements.
    tensors = tuple(tf.constant(a) for a in arrays)

    @tf.autograph.experimental.do_not_convert
    def rows_of(indices):
        found = tuple(tf.gather(t, indices) for t in tensors)
        return found if len(found) > 1 else found[0]

    def indices_of(permutation):
        begins = tf.data.Dataset.range(0, rows, batch_size)
        return begins.map(lambda i: permutation[i : i + batch_size])

    if order is None:
        return pipeline(indices_of(tf.range(rows, dtype=tf.int64)).map(rows_of))
    return order.batches(lambda seed, skip: indices_of(order_of_rows(rows, seed, shuffle)).skip(skip).map(rows_of))


def first_of_pairs_checked(generator: Iterator) -> Iterator:
    """Yield the batches of a generator for an unconditional distribution. Raise a `ValueError` for different pairs."""
    for i, batch in enumerate(generator):
        if i == 0 and isinstance(batch, (tuple, list)) and len(batch) == 2 and batch[1] is not None:
            first, second = map(np.asarray, batch)
            if first.shape != second.shape or not np.array_equal(first, second, equal_nan=True):
                raise ValueError(
                    "`x` yields pairs, but this distribution has no conditions, so nothing would be done with the second part "
                    f"(shapes {list(first.shape)} and {list(second.shape)}): yield the events alone."
                )
        yield batch
