"""Data larger than memory, read from files in blocks and shuffled, with a part for each worker."""

from __future__ import annotations

from tfp_flows.data.streams.npy import npy
from tfp_flows.data.streams.parquet import parquet
from tfp_flows.data.streams.stream import Stream, StreamError
from tfp_flows.data.streams.tfrecord import tfrecord

__all__ = ["Stream", "StreamError", "npy", "parquet", "tfrecord"]
