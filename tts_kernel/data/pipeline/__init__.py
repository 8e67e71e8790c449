"""CosyVoice2's data pipeline: processors by name, counted before they run, with an account of every one of them."""

from tts_kernel.data.pipeline.accounts import Account, Accounts, Drop
from tts_kernel.data.pipeline.lengths import Lengths, lengths_of_statistics
from tts_kernel.data.pipeline.plan import Counted, PipelinePlan, check, count, remarks
from tts_kernel.data.pipeline.processors import Pipeline, PipelineError, build
from tts_kernel.data.pipeline.shard_lengths import read_lengths
from tts_kernel.data.pipeline.shards import read_list
from tts_kernel.data.pipeline.text import Encoder
from tts_kernel.data.pipeline.upstream import parse_pipeline, read_pipeline

__all__ = [
    "Account",
    "Accounts",
    "Counted",
    "Drop",
    "Encoder",
    "Lengths",
    "Pipeline",
    "PipelineError",
    "PipelinePlan",
    "build",
    "check",
    "count",
    "lengths_of_statistics",
    "parse_pipeline",
    "read_lengths",
    "read_list",
    "read_pipeline",
    "remarks",
]
