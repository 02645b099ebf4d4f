"""What a user writes as SOURCE -> the source."""

from trainers.config import nearest
from trainers.data.sources.folder import Folder, NoImages
from trainers.data.sources.hugging_face import HuggingFaceSet
from trainers.data.sources.source import Source
from trainers.data.sources.tables import SUFFIXES, Tables, split_pattern
from trainers.data.sources.torchvision_sets import NAMES, TorchvisionSet
from trainers.errors import DataError
from trainers.system.storage import is_there, is_uri, locate

ALLOWED = (
    "a folder of images or of parquet or Arrow files, such a file, a pattern such as "
    "'data/train-*.parquet', torchvision:NAME[:FOLDER], hf:NAME[:CONFIG]"
)


def open_source(text: str) -> Source:
    """The source that `text` names. Raises DataError, which says what is allowed."""
    kind, colon, rest = text.partition(":")
    if kind == "torchvision" and colon:
        name, _, root = rest.partition(":")
        return TorchvisionSet(name, root)
    if kind == "hf" and colon:
        return _hugging_face(rest)
    folder, pattern = split_pattern(text)
    if colon and not is_uri(text) and not is_there(folder):
        raise DataError(
            f"{text!r} is no file or folder, nor a kind of source; SOURCE is {ALLOWED}"
            + nearest(f"{kind}:".lower(), ["torchvision:", "hf:"])
        )
    if pattern:
        return Tables(text)
    home = locate(text)
    found = home.kind()
    if found == "nothing":
        raise DataError(
            f"{text!r} cannot be read: no such file or folder; SOURCE is {ALLOWED}"
            + nearest(text.lower(), list(NAMES)).replace("mean ", "mean torchvision:")
        )
    if found == "file":
        if not home.path.endswith(SUFFIXES):
            raise DataError(f"{text!r} is no image set; SOURCE is {ALLOWED}")
        return Tables(text)
    try:
        return Folder(text)
    except NoImages:
        if not any(name.endswith(SUFFIXES) for name, _, _ in home.files()):
            raise
    return Tables(text)


def _hugging_face(text: str) -> Source:
    """A local copy (parquet files, or a folder that `save_to_disk` wrote) needs no library."""
    if not text:
        raise DataError("hf: names no data set; SOURCE is " + ALLOWED)
    if is_uri(text) or is_there(text):
        return open_source(text)
    name, _, configuration = text.partition(":")
    return HuggingFaceSet(name, configuration or None)
