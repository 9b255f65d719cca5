"""A run that ends in the middle."""

import keras


class Stop(keras.callbacks.Callback):
    """Ends a run after a number of steps, counted over all runs."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) == self.steps:
            raise KeyboardInterrupt
