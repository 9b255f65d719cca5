# %% [markdown]
# # Save, serve and use many devices
#
# This tutorial takes a trained flow out of the notebook. You save and load it, resume an interrupted run, export a
# function that needs TensorFlow only, and train on several devices.
#
# The first cell installs the package if it is missing, for example in Colab. Replace `REPOSITORY` there.

# %%
import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf

tf.config.set_logical_device_configuration(  # makes two devices of one CPU, for the last section
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)

import tfp_flows as tff

keras.utils.set_random_seed(1)
x = tff.data.moons().sample(8000, seed=0)
x_val = tff.data.moons().sample(2000, seed=1)


def new_model(clip=1.0):
    keras.utils.set_random_seed(1)  # so that each run sees the rows in the same order
    flow = tff.spline_coupling(
        2, num_layers=2, hidden_units=[32], preprocess=tff.standardize(x), seed=1
    )
    model = tff.FlowModel(flow)
    model.compile(optimizer=keras.optimizers.Adam(3e-3, global_clipnorm=clip))
    return model


# %% [markdown]
# ## Save the whole model
#
# The file holds architecture, weights, base, preprocessing and the state of the optimizer. Import `tfp_flows` before
# you load it.

# %%
model = new_model()
model.fit(x, batch_size=200, epochs=6, verbose=0)
model.save("moons.keras")
again = keras.models.load_model("moons.keras")
print("size:", pathlib.Path("moons.keras").stat().st_size // 1024, "KB")
print("equal log-densities:", bool(np.all(model.log_prob(x_val) == again.log_prob(x_val))))
print(
    "equal samples:", bool(np.allclose(model.sample(5, seed=1), again.sample(5, seed=1), atol=1e-5))
)

# %% [markdown]
# A file contains names of classes with their arguments, and no code. What cannot be described, such as a Python
# function, is an error at once, and not when you load the file. `tff.describe` returns the description as text:

# %%
description = tff.describe(model.distribution)
print(len(description), "characters:", description[:150], "...")

# %% [markdown]
# ## Resume an interrupted run
#
# With `tff.callbacks.BackupAndRestore`, the same script continues where it stopped. Here a callback stops the first run
# after two epochs. Weights after the resumed run equal those of a run without interruption.


# %%
class Interrupt(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def run(*more):
    model = new_model()
    backup = tff.callbacks.BackupAndRestore("backup")
    model.fit(x, batch_size=200, epochs=4, verbose=0, callbacks=[backup, *more])
    return model


try:
    run(Interrupt())
except KeyboardInterrupt:
    print("interrupted after two epochs")
resumed = run()

whole = new_model()
whole.fit(x, batch_size=200, epochs=4, verbose=0)
difference = max(
    float(tf.reduce_max(tf.abs(a - b))) for a, b in zip(resumed.weights, whole.weights, strict=True)
)
print("largest difference of weights:", difference)

# %% [markdown]
# ## Export for serving
#
# `export` writes a SavedModel with two functions, `log_prob` and `sample`, for any number of rows. A process that
# serves it needs TensorFlow, and neither this package nor TFP. The next cell starts such a process.

# %%
model.export("served")
program = """
import json, sys
import tensorflow as tf

served = tf.saved_model.load("served")
answer = served.signatures["log_prob"](x=tf.constant([[0.0, 1.0], [1.0, 1.0]]))["log_prob"]
samples = served.sample(tf.constant(7), tf.constant([1, 2]))["samples"]
imported = "tfp_flows" in sys.modules
print(json.dumps({"log_prob": answer.numpy().tolist(), "samples": list(samples.shape), "tfp_flows imported": imported}))
"""
result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
answer = json.loads(result.stdout.splitlines()[-1])
print(answer)
print("here:", model.log_prob([[0.0, 1.0], [1.0, 1.0]]).numpy().tolist())

# %% [markdown]
# The directory also works with TensorFlow Serving: `tensorflow_model_server --model_base_path=/path/to/parent` serves
# the version in the subdirectory `1`.
#
# ## Train on many devices
#
# Create everything that has variables in the scope of a strategy. `batch_size` is the size of the whole batch, so the
# result does not depend on the number of devices, up to rounding. Clipping is an exception: Keras clips the gradient of
# each device before it sums them, so this example does not clip. With GPUs, `tf.distribute.MirroredStrategy()` without
# arguments uses all of them.

# %%
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    parallel = new_model(clip=None)
parallel_history = parallel.fit(x, batch_size=200, epochs=4, verbose=0).history
single_history = new_model(clip=None).fit(x, batch_size=200, epochs=4, verbose=0).history
print("devices:", strategy.num_replicas_in_sync)
print("loss of one device: ", np.round(single_history["loss"], 4))
print("loss of two devices:", np.round(parallel_history["loss"], 4))

# %% [markdown]
# The losses of the first epoch agree. Sums in another order round differently, and such differences grow with the steps of
# the optimizer.
#
# ## Train on more data than memory
#
# A stream reads rows from files, block by block, in shuffled order. Pass it in place of an array.

# %%
for i, part in enumerate(np.split(x, 4)):
    np.save(f"rows-{i}.npy", part)
rows = tff.streams.npy("rows-*.npy")
streamed = new_model()
print("loss:", np.round(streamed.fit(rows, batch_size=200, epochs=4, verbose=0).history["loss"], 4))

# %% [markdown]
# ## Exercises
#
# 1. Save only the weights with `save_weights`, and load them into a model with another `seed`. What does the error say?
# 2. Export a conditional flow. Which argument do its functions have in addition?
# 3. Put the script of a run into a file with `BackupAndRestore`, kill it with Ctrl-C in the middle of an epoch, and
#    start it again.
