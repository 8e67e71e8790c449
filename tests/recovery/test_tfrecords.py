from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c as of_tensorboard

from tts_kernel.recovery.tfrecords import masked_crc32c, read_records


@pytest.mark.parametrize("length", [0, 1, 8, 51, 300])
def test_the_checksum_is_tensorboards(length: int) -> None:
    data = np.random.default_rng(length).integers(0, 256, (20, length), dtype=np.uint8)
    assert masked_crc32c(data).tolist() == [of_tensorboard(row.tobytes()) for row in data]


def test_records_of_all_lengths_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    data = [random.bytes(int(length)) for length in random.integers(0, 3000, 60)]
    content = b""
    for one in data:
        head = len(one).to_bytes(8, "little")
        content += head + of_tensorboard(head).to_bytes(4, "little") + one + of_tensorboard(one).to_bytes(4, "little")
    path, problems = tmp_path / "records", list[str]()
    path.write_bytes(content)
    records = read_records(path, problems)
    assert [records.data(number) for number in range(len(records.starts))] == data
    assert not problems
