"""Settings that every test needs before TensorFlow is loaded: little output, few threads, repeatable numbers."""

import gc
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Two workers share two cores: a second thread would only wait, which costs a twentieth of the time.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
# LLVM need not optimize what runs once: a quarter of XLA's time. `XLA_FLAGS= pytest` compiles as users do.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
os.environ.setdefault("MPLBACKEND", "Agg")

import keras
import pytest


def pytest_collection_modifyitems(config, items):
    """Tests marked slow run only when asked for by `-m`."""
    if not config.option.markexpr:
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: run by `pytest -m slow`"))


def pytest_collection_finish():
    """The collector need not look again and again at what TensorFlow has imported: a twentieth of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(1234)
