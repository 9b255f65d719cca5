"""Streams from files: every row once, in an order of its own, at constant memory; what is fitted by reading them."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from stopping import Stop

import tfp_flows as tff
from tfp_flows.data.moments import moments
from tfp_flows.training.inputs import Inputs

ROWS = 1000
TABLE = np.random.default_rng(0).normal(size=[ROWS, 3]).astype(np.float32) * [1.0, 5.0, 0.1] + [0.0, 100.0, -3.0]
TABLE = TABLE.astype(np.float32)
FEATURES = {"x": tf.io.FixedLenFeature([3], tf.float32)}


def parse(records):
    return tf.io.parse_example(records, FEATURES)["x"]


def parse_pair(records):
    rows = parse(records)
    return rows[:, :1], rows[:, 1:]


def write_records(path, rows):
    with tf.io.TFRecordWriter(str(path)) as file:
        for row in rows:
            feature = {"x": tf.train.Feature(float_list=tf.train.FloatList(value=row))}
            file.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path_factory.mktemp("rows")
    for i, part in enumerate(np.split(TABLE, [300, 310, 900])):
        np.save(folder / f"{i}.npy", part)
        write_records(folder / f"{i}.tfrecord", part)
        table = pa.table(dict(zip("abc", part.T, strict=True)))
        pq.write_table(table, folder / f"{i}.parquet", row_group_size=64)
    return folder


def stream(folder, kind, conditional=False, **options):
    if kind == "npy":
        return tff.streams.npy(
            str(folder / "*.npy"), block_rows=64, conditional_size=1 if conditional else None, **options
        )
    if kind == "parquet":
        given = {"columns": ["b", "c"], "conditional_columns": ["a"]} if conditional else {}
        return tff.streams.parquet(str(folder / "*.parquet"), **given, **options)
    files = [folder / f"{i}.tfrecord" for i in range(4)]
    return tff.streams.tfrecord(files, parse_pair if conditional else parse, **options)


def rows_of(dataset):
    return np.concatenate([batch if not isinstance(batch, tuple) else np.concatenate(batch, 1) for batch in dataset])


def by_row(rows):
    return rows[np.lexsort(rows.T)]


KINDS = ["npy", "parquet", "tfrecord"]


@pytest.mark.parametrize("kind", KINDS)
def test_all_rows_in_their_order(folder, kind):
    source = stream(folder, kind)
    assert len(source) == ROWS
    sizes = [len(batch) for batch in source.batches(128)]
    assert sizes == [128] * 7 + [104]
    rows = rows_of(source.batches(128).as_numpy_iterator())
    np.testing.assert_array_equal(rows, TABLE)
    np.testing.assert_array_equal(np.concatenate(list(source.chunks())), rows)


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_has_every_row_once_in_an_order_that_its_seed_decides(folder, kind, conditional):
    source = stream(folder, kind, conditional, window=200)
    spec = source.element_spec
    assert [s.shape[1] for s in spec] == [1, 2] if conditional else spec.shape[1] == 3
    first, again, other = (
        rows_of(source.a_pass(tf.constant([seed, 0], tf.int64), 50).as_numpy_iterator()) for seed in (1, 1, 2)
    )
    for rows in (first, other):
        np.testing.assert_array_equal(by_row(rows), by_row(TABLE))
    np.testing.assert_array_equal(first, again)
    assert np.mean(np.all(first == other, axis=1)) < 0.05
    # Far from the order of the files: ranks in the file hardly correlate with those in the pass.
    rank = {tuple(row): i for i, row in enumerate(TABLE)}
    places = [rank[tuple(row)] for row in first]
    assert kind == "tfrecord" or abs(np.corrcoef(places, np.arange(ROWS))[0, 1]) < 0.5
    neighbours = np.mean(np.abs(np.diff(places)) == 1)
    assert neighbours < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_workers_have_rows_of_their_own_and_as_many_batches(folder, kind):
    source = stream(folder, kind, window=100)
    seed = tf.constant([3, 4], tf.int64)
    parts = []
    for worker in range(2):
        batches = source.a_pass(seed, 20, worker=worker, workers=2).take(ROWS // 40)
        parts.append(rows_of(batches.as_numpy_iterator()))
        assert len(parts[-1]) == ROWS // 2
    assert not {tuple(r) for r in parts[0]} & {tuple(r) for r in parts[1]}
    if kind != "tfrecord":  # whose blocks here are 300, 10, 590 and 100 rows
        assert len({tuple(r) for r in np.concatenate(parts)}) > 0.9 * ROWS
    with pytest.raises(ValueError, match="fewer blocks than there are workers"):
        source.a_pass(seed, 20, worker=0, workers=10**6)


@pytest.mark.parametrize("kind", KINDS)
def test_standardize_reads_batch_by_batch(folder, kind):
    whole = tff.standardize(TABLE)
    for data in (stream(folder, kind), stream(folder, kind).batches(77)):
        fitted = tff.standardize(data)
        np.testing.assert_allclose(fitted.shift, whole.shift, rtol=1e-6)
        np.testing.assert_allclose(fitted.scale, whole.scale, rtol=1e-6)
    of_pairs = tff.standardize(stream(folder, kind, conditional=True))
    np.testing.assert_allclose(of_pairs.shift, whole.shift[1:], rtol=1e-6)


def test_moments_do_not_lose_digits_to_a_large_mean():
    x = np.random.default_rng(1).normal(size=[5000, 2]) * [1.0, 1e-3] + [1e8, 1.0]
    found = moments("x", 2, np.array_split(x, 37))
    np.testing.assert_allclose(found.mean, x.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(found.deviation, x.std(axis=0), rtol=1e-7)
    assert found.rows == 5000
    np.testing.assert_array_equal(found.lowest, x.min(axis=0))
    bad = x.copy()
    bad[4321, 1] = np.inf
    with pytest.raises(ValueError, match="row 4321, column 1"):
        moments("x", 2, np.array_split(bad, 37))


@pytest.mark.parametrize("normalization", ["actnorm", "batch_norm"])
def test_layers_start_from_all_of_the_data(folder, normalization):
    models = []
    for data in (TABLE, stream(folder, "npy"), None):
        flow = tff.real_nvp(3, num_layers=2, hidden_units=[8], normalization=normalization, seed=1)
        model = tff.FlowModel(flow)
        model.compile(optimizer="sgd")
        if data is not None:
            model.adapt(data, batch_size=ROWS if data is TABLE else 100)
        models.append([w.numpy() for w in model.weights])
    assert any(np.any(a != b) for a, b in zip(models[0], models[2], strict=True))
    for a, b in zip(*models[:2], strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3)
    # The latent values are standardized, of all rows and not of one batch.
    z = model.distribution.bijector
    model.adapt(TABLE)
    z = z.inverse(TABLE)
    np.testing.assert_allclose(tf.math.reduce_std(z, axis=0), 1.0, atol=0.35)


@pytest.mark.parametrize("kind", KINDS)
def test_fit_evaluate_and_predict(folder, kind):
    source = stream(folder, kind)
    # Not standardized, so that there is something to learn.
    flow = tff.maf(3, num_layers=1, hidden_units=[16], seed=1)
    model = tff.FlowModel(flow)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=False)
    before = model.evaluate(source, batch_size=100, verbose=0)
    assert before == pytest.approx(model.evaluate(TABLE, batch_size=100, verbose=0), rel=1e-4)
    history = model.fit(source, batch_size=100, epochs=3, validation_data=source, verbose=0).history
    assert model.optimizer.iterations.numpy() == 30
    assert history["val_loss"][-1] < before - 0.1
    assert model.predict(source, batch_size=100, verbose=0).shape == (ROWS,)
    if kind != "parquet":  # pairs of each kind are read above
        return
    conditional = tff.real_nvp(2, num_layers=2, hidden_units=[8], conditional_size=1, seed=1)
    model = tff.FlowModel(conditional)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=False)
    model.fit(stream(folder, kind, conditional=True), batch_size=100, steps_per_epoch=4, epochs=3, verbose=0)
    assert model.optimizer.iterations.numpy() == 12


def test_images_of_levels(tmp_path):
    images = np.random.default_rng(0).integers(0, 4, [200, 4, 4, 1]).astype(np.uint8)
    np.save(tmp_path / "images.npy", images)
    source = tff.streams.npy(tmp_path / "images.npy", block_rows=50)
    flow = tff.image_real_nvp((4, 4, 1), num_scales=1, num_couplings=1, filters=4, num_blocks=1, seed=1)
    assert Inputs((4, 4, 1), tf.float32, None, levels=4).dataset(source, None, 50).element_spec.dtype == tf.uint8
    model = tff.FlowModel(flow, dequantize=4)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
    model.fit(source, batch_size=50, epochs=1, verbose=0)
    assert np.all(np.isfinite(model.evaluate(source, batch_size=50, verbose=0)))
    np.save(tmp_path / "images.npy", images + 1)
    with pytest.raises(tff.streams.StreamError, match="must hold the integers 0 to 3"):
        model.fit(tff.streams.npy(tmp_path / "images.npy"), batch_size=50, verbose=0)
    with pytest.raises(ValueError, match="yields dtype uint8"):
        compiled(tff.image_real_nvp((4, 4, 1), num_scales=1, num_couplings=1, filters=4, num_blocks=1)).fit(source)


def compiled(flow):
    model = tff.FlowModel(flow)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), jit_compile=False)
    return model


def test_a_run_on_a_stream_goes_on_as_if_nothing_had_been(folder, tmp_path):
    def fit(seed, callbacks):
        keras.utils.set_random_seed(seed)
        model = compiled(tff.maf(3, num_layers=1, hidden_units=[8], seed=1))
        model.fit(stream(folder, "npy", window=200), batch_size=64, epochs=3, verbose=0, callbacks=callbacks)
        return model.get_weights()

    def backup():
        return tff.callbacks.BackupAndRestore(str(tmp_path / "backup"), save_freq=5)

    whole = fit(1, [Stop(-1)])
    with pytest.raises(KeyboardInterrupt):
        fit(1, [backup(), Stop(23)])
    for a, b in zip(fit(2, [backup(), Stop(-1)]), whole, strict=True):
        np.testing.assert_array_equal(a, b)


def bad_file(tmp_path, kind):
    path = tmp_path / "x.npy"
    if kind == "missing":
        return tmp_path / "none*.npy"
    if kind == "text":
        path.write_text("no array")
    elif kind == "objects":
        np.save(path, np.array([{}, 1], dtype=object), allow_pickle=True)
    elif kind == "flat":
        np.save(path, np.zeros(5))
    elif kind == "empty":
        np.save(path, np.zeros([0, 2], np.float32))
    elif kind == "words":
        np.save(path, np.array([["a", "b"]]))
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "`paths`: no such file"),
        ("text", "is not a .npy file of numbers"),
        ("objects", "is not a .npy file of numbers"),
        ("flat", r"must hold an array of numbers of shape \[N, ...\], got float64\[5\]"),
        ("words", "must hold an array of numbers"),
        ("empty", "have no rows"),
    ],
)
def test_files_that_are_no_streams(tmp_path, kind, message):
    with pytest.raises(ValueError, match=message):
        tff.streams.npy(bad_file(tmp_path, kind))


def test_files_that_differ(tmp_path, folder):
    np.save(tmp_path / "a.npy", np.zeros([5, 2], np.float32))
    for other, message in ((np.zeros([5, 3], np.float32), "has rows"), (np.zeros([5, 2]), "has dtype float64")):
        np.save(tmp_path / "b.npy", other)
        with pytest.raises(ValueError, match=message):
            tff.streams.npy(str(tmp_path / "*.npy"))
    with pytest.raises(ValueError, match="no column 'z'; it has a, b, c"):
        tff.streams.parquet(folder / "0.parquet", ["z"])
    with pytest.raises(ValueError, match="is not a Parquet file"):
        tff.streams.parquet(folder / "0.npy")
    with pytest.raises(ValueError, match="cannot be read as TFRecord"):
        tff.streams.tfrecord(folder / "0.npy", parse)
    for sizes in ([], [300, 10]):
        with pytest.raises(ValueError, match=rf"`sizes` must hold .* 1 files, got {len(sizes)}"):
            tff.streams.tfrecord(folder / "0.tfrecord", parse, sizes=sizes)
    with pytest.raises(ValueError, match="`conditional_size`"):
        tff.streams.npy(folder / "0.npy", conditional_size=3)


def test_a_value_that_is_not_finite_is_found_while_it_is_read(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    x = np.zeros([500, 2], np.float32)
    x[321, 1] = np.nan
    np.save(tmp_path / "x.npy", x)
    column = [0.0] * 500
    column[70] = None
    pq.write_table(pa.table({"a": column}), tmp_path / "x.parquet", row_group_size=50)
    model = compiled(tff.real_nvp(2, num_layers=2, hidden_units=[8], seed=1))
    write_records(tmp_path / "x.tfrecord", np.concatenate([x, x], axis=1)[:, :3])
    rows = tff.streams.npy(tmp_path / "x.npy", block_rows=100)
    for read in (model.fit, model.evaluate, model.predict):
        with pytest.raises(tff.streams.StreamError, match=r"x.npy is not finite in row 321, column 1"):
            read(rows, verbose=0)
    with pytest.raises(tff.streams.StreamError, match=r"x.tfrecord is not finite in row 321, column 1"):
        tff.standardize(tff.streams.tfrecord(tmp_path / "x.tfrecord", parse))
    with pytest.raises(tff.streams.StreamError, match=r"missing value in column 'a', in rows 50 to 99"):
        tff.standardize(tff.streams.parquet(tmp_path / "x.parquet"))


def test_shapes_are_checked_before_training(folder):
    with pytest.raises(ValueError, match=r"`x` must yield batches of shape \[None, 2\]"):
        compiled(tff.real_nvp(2, num_layers=2, seed=1)).fit(stream(folder, "npy"), verbose=0)
    with pytest.raises(ValueError, match="`y` must be left out"):
        compiled(tff.real_nvp(3, num_layers=2, seed=1)).fit(stream(folder, "npy"), TABLE, verbose=0)


MEMORY = """
import sys
import keras, numpy as np
import tfp_flows as tff
rows, path = int(sys.argv[1]), sys.argv[2]
source = tff.streams.npy(path)
model = tff.FlowModel(tff.real_nvp(16, num_layers=2, hidden_units=[8], preprocess=tff.standardize(source), seed=1))
model.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
model.fit(source, batch_size=4096, epochs=1, verbose=0)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) / 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads the peak of memory from Linux")
def test_memory_does_not_grow_with_the_rows(tmp_path):
    """Eight times the rows, 112 MiB of them more, within 40 MiB."""
    peaks = []
    for rows in (2**18, 2**21):
        path = tmp_path / f"{rows}.npy"
        file = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, 16))
        rng = np.random.default_rng(0)
        for first in range(0, rows, 2**17):
            file[first : first + 2**17] = rng.standard_normal([2**17, 16], np.float32)
        file.flush()
        del file
        env = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3")
        run = [sys.executable, "-c", MEMORY, str(rows), str(path)]
        peaks.append(float(subprocess.run(run, env=env, capture_output=True, text=True, check=True).stdout.split()[-1]))
        path.unlink()
    assert peaks[1] - peaks[0] < 40, peaks


def test_each_window_has_an_order_of_its_own(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(200.0, dtype=np.float32)[:, None])
    source = tff.streams.npy(tmp_path / "x.npy", block_rows=50, window=50)
    windows = [rows[:, 0] for rows in source.a_pass(tf.constant([1, 2], tf.int64), 50).as_numpy_iterator()]
    assert sorted(int(window.min()) for window in windows) == [0, 50, 100, 150]
    assert len({tuple(window - window.min()) for window in windows}) == 4


def test_a_bad_record_is_counted_from_the_beginning_of_its_file(tmp_path):
    x = np.zeros([2500, 3], np.float32)
    x[2345, 2] = np.inf
    write_records(tmp_path / "x.tfrecord", x)
    with pytest.raises(tff.streams.StreamError, match=r"x.tfrecord is not finite in row 2345, column 2"):
        tff.standardize(tff.streams.tfrecord(tmp_path / "x.tfrecord", parse))
