"""Tables that were kept as Parquet, against the same made again."""

from collections.abc import Collection, Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from ablations.registration import Entry


def writers_of(chain: Iterable[Entry]) -> set[str]:
    """The versions of Arrow that registrations name, as a file says who wrote it."""
    versions = {entry.packages.get("pyarrow") for entry in chain}
    return {f"parquet-cpp-arrow version {version}" for version in versions if version}


def same_table(kept: bytes, made: bytes, writers: Collection[str]) -> bool:
    """Whether a file holds what was made again: byte for byte, if this version of Arrow wrote it.

    What another of the `writers` wrote is compared value for value, with the metadata.
    """
    if kept == made:
        return True
    try:
        with pq.ParquetFile(pa.BufferReader(kept), page_checksum_verification=True) as file:
            writer, before = file.metadata.created_by, file.read(use_threads=False)
    except (pa.ArrowException, OSError, ValueError):
        return False
    with pq.ParquetFile(pa.BufferReader(made)) as file:
        is_another = writer in writers and writer != file.metadata.created_by
        return is_another and bool(before.equals(file.read(use_threads=False), check_metadata=True))
