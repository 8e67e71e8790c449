"""Arrays of the clips: one .npy each, or packed into shards that other tools read, too."""

from tts_kernel.data.features.features import Features
from tts_kernel.data.features.shard_format import FeatureError
from tts_kernel.data.features.shards import ShardWriter

__all__ = ["FeatureError", "Features", "ShardWriter"]
