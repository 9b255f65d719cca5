"""Memory stays where it is, however often a flow is asked or trained."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads the size of a process from Linux")

RUN = """
import gc, sys
import keras, numpy as np, tensorflow as tf
import tfp_flows as tff
calls, fits = map(int, sys.argv[1:])

def megabytes():
    gc.collect()
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

x = tff.data.moons().sample(256, seed=0)
flow = tff.maf(2, num_layers=2, hidden_units=[16], seed=1)
model = tff.FlowModel(flow)
model.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)

def ask(n):
    for i in range(n):
        flow.log_prob(tf.constant(x[:8]) + float(i))
        flow.sample(8, seed=(i, 1))
        model.log_prob(x[:8])
        model.sample(8, seed=i)

def train(n):
    for i in range(n):
        model.fit(x, batch_size=64, epochs=1, verbose=0, validation_data=x[:64])

# What is compiled or cached at the first calls is no leak; allocators settle after some hundreds.
ask(calls // 10)
before = megabytes()
ask(calls)
print("ask", megabytes() - before)
train(max(5, fits // 5))
before = megabytes()
train(fits)
print("train", megabytes() - before)
"""


def grown(calls, fits):
    run = [sys.executable, "-c", RUN, str(calls), str(fits)]
    env = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3")
    lines = subprocess.run(run, env=env, capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split()[0]: float(line.split()[1]) for line in lines}


def test_memory_is_flat():
    grew = grown(300, 15)
    assert grew["ask"] < 10, grew
    assert grew["train"] < 15, grew


@pytest.mark.slow
def test_memory_is_flat_over_ten_thousand_calls_and_two_hundred_fits():
    grew = grown(10_000, 200)
    assert grew["ask"] < 30, grew
    assert grew["train"] < 30, grew
