# %% [markdown]
# # MAF against IAF
#
# A masked autoregressive flow (MAF; Papamakarios et al. 2017, [arXiv:1705.07057](https://arxiv.org/abs/1705.07057)) and
# an inverse autoregressive flow (IAF; Kingma et al. 2016, [arXiv:1606.04934](https://arxiv.org/abs/1606.04934)) use the
# same layer in opposite directions. One of them computes densities in a single step, the other one samples. This
# tutorial shows why, measures it, and shows which flow to use for which task.
#
# The first cell installs the package if it is missing, for example in Colab. Replace `REPOSITORY` there.

# %%
import time

import keras
import numpy as np
import tensorflow as tf
import tfp_flows as tff

keras.utils.set_random_seed(1)

# %% [markdown]
# ## Look at the masks
#
# An autoregressive network returns a shift $\mu_i$ and a log-scale $\alpha_i$ for each dimension, which depend only on
# the dimensions before it. Masks on the weights remove all other connections. The product of the masks counts the paths
# from input $j$ to the parameters of dimension $i$. Everything on and above its diagonal is empty.

# %%
template = tff.masked_autoregressive_template([16, 16], event_size=5, seed=1)
tff.plots.masks(template)
# %% [markdown]
# A MAF layer maps $z$ to $x_i = z_i \exp(\alpha_i(x_{<i})) + \mu_i(x_{<i})$:
#
# - **Density.** You know all of $x$, so one pass of the network returns all parameters, and $z$ follows at once.
# - **Sampling.** $x_2$ needs $x_1$, $x_3$ needs both, and so on: D steps.
#
# An IAF layer computes the parameters from $z$ instead, $x_i = z_i \exp(\alpha_i(z_{<i})) + \mu_i(z_{<i})$. Now
# sampling takes one pass, and the density takes D steps. In both cases the Jacobian is triangular, and its
# log-determinant is $\sum_i \alpha_i$. Gray entries of the picture are exactly zero.

# %%
layer = tff.MaskedAutoregressiveFlow(template)
tff.testing.redraw_weights(layer, seed=1)
tff.plots.jacobian(layer)

# %% [markdown]
# ## Measure both directions
#
# Times are in milliseconds for 1000 events, the best of ten calls after compilation. The D steps of this package are
# small: each computes only what is new. The difference between the directions is therefore smaller than the factor D of
# a simple loop.


# %%
def milliseconds(method, argument):
    call = tf.function(lambda: method(argument))
    call()
    times = []
    for _ in range(10):
        begin = time.perf_counter()
        call().numpy()
        times.append(time.perf_counter() - begin)
    return 1000 * min(times)


print(f"{'D':>4} {'MAF density':>12} {'MAF sampling':>13} {'IAF density':>12} {'IAF sampling':>13}")
for size in (2, 16, 64):
    points = tf.random.stateless_normal([1000, size], seed=[1, 2])
    row = []
    for recipe in (tff.maf, tff.iaf):
        timed = recipe(size, num_layers=4, hidden_units=[128, 128], seed=1)
        row += [milliseconds(timed.log_prob, points), milliseconds(timed.sample, 1000)]
    print(f"{size:4d} {row[0]:12.1f} {row[1]:13.1f} {row[2]:12.1f} {row[3]:13.1f}")

# %% [markdown]
# ## Fit data: use a MAF
#
# Maximum likelihood evaluates the density of given data in each step. Both flows can learn, but the IAF pays D steps
# for it. In two dimensions this is affordable, so you can compare the results.

# %%
moons = tff.data.moons()
x, x_val = moons.sample(10_000, seed=0), moons.sample(5_000, seed=1)
fitted = {}
for recipe in (tff.maf, tff.iaf):
    flow = recipe(2, num_layers=5, hidden_units=[64, 64], preprocess=tff.standardize(x), seed=1)
    model = tff.FlowModel(flow)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, decay_steps=1000)
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=1.0))
    begin = time.perf_counter()
    model.fit(x, batch_size=250, epochs=25, verbose=0)
    fitted[recipe.__name__] = model
    print(
        f"{recipe.__name__}: {time.perf_counter() - begin:.0f} s, held-out NLL {-np.mean(model.log_prob(x_val)):.3f}"
    )
print(f"entropy: {moons.entropy():.3f}")

# %%
tff.plots.compare(fitted, x_val, floor=moons.entropy())
# %% [markdown]
# In the same number of steps, the IAF takes longer, and ends farther from the entropy.
#
# ## Approximate a density: use an IAF
#
# Variational inference draws samples in each step and needs their density. The log-det of a sample comes with the
# sample, so an IAF needs a single pass. The target is a banana in ten dimensions: a normal distribution whose other
# coordinates bend with the first one.

# %%
size = 10


def log_banana(z):
    bend = z[..., 1:] - 0.5 * (z[..., :1] ** 2 - 1.0)
    square = z[..., 0] ** 2 + tf.reduce_sum(bend**2, axis=-1)
    return -0.5 * (square + size * np.log(2 * np.pi))


for recipe in (tff.maf, tff.iaf):
    flow = recipe(size, num_layers=2, hidden_units=[64, 64], base="trainable", seed=1)
    model = tff.VariationalFlow(flow, log_banana, sample_size=256, log_normalizer=0.0, seed=1)
    rate = keras.optimizers.schedules.CosineDecay(5e-3, decay_steps=1000)
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=10.0))
    begin = time.perf_counter()
    history = model.fit(steps_per_epoch=100, epochs=10, verbose=0)
    print(
        f"{recipe.__name__}: {time.perf_counter() - begin:.0f} s, KL {history.history['kl'][-1]:.4f}"
    )

# %% [markdown]
# Both come close to the target. The IAF takes less time.
#
# ## Summary
#
# | | density of given points | sampling, with density | use it for |
# |---|---|---|---|
# | `maf` | 1 pass | D steps | fitting data |
# | `iaf` | D steps | 1 pass | variational inference, fast sampling |
#
# ## Exercises
#
# 1. Measure the two directions for `tff.real_nvp` and `tff.spline_coupling`. What do coupling flows give up for two
#    fast directions? Compare their NLL on two moons with that of the MAF.
# 2. Draw the Jacobian of a MAF of two layers, `tff.maf(5, num_layers=2).bijector`, with redrawn weights. Why is it not
#    triangular?
# 3. Reverse the columns of the moons, `x[:, ::-1]`, and fit a MAF of one layer to both orders. Which order is easier,
#    and why?
