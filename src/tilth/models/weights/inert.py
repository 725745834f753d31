"""What training programs leave beside weights, read as data that does nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any


class Inert:
    """Stands in for an object of a pickle: keeps what it was made of and never becomes it.

    Attributes:
        arguments: what the object was to be built from.
        state: what was to be set on it, or None.
    """

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __new__(cls, *_: Any) -> Inert:
        """Make one from any arguments; a pickle may skip ``__init__``."""
        made = super().__new__(cls)
        made.arguments = ()
        made.state = None
        return made

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __repr__(self) -> str:
        return f"Inert({self.state if self.state is not None else self.arguments!r})"


class InertMapping:
    """Stands in for a class of dictionaries: what is built is a plain ordered one."""

    def __new__(cls, *_: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]  # the point: an instance is a plain dictionary
        """Make an empty ordered dictionary, which the reader fills."""
        return OrderedDict()


_OBJECTS = (
    "argparse.Namespace",
    "types.SimpleNamespace",
    "datetime.datetime",
    "datetime.date",
    "datetime.timedelta",
    "datetime.timezone",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.PurePosixPath",
    "pathlib.WindowsPath",
    "pathlib.PureWindowsPath",
    "pathlib._local.Path",
    "pathlib._local.PosixPath",
    "pathlib._local.PurePosixPath",
    "pathlib._local.WindowsPath",
    "pathlib._local.PureWindowsPath",
    "uuid.UUID",
    "builtins.slice",
    "builtins.range",
    "builtins.frozenset",
    "builtins.object",
    "builtins.int",
    "builtins.float",
    "builtins.str",
    "builtins.bool",
    "builtins.list",
    "builtins.tuple",
    "builtins.dict",
    "typing.Any",
    "copyreg._reconstructor",
    "numpy.dtype",
    "numpy.ndarray",
    "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.numeric._frombuffer",
    "numpy._core.numeric._frombuffer",
    *(f"numpy.{name}" for name in ("bool_", "int32", "int64", "uint8", "float16", "float32", "float64")),
    *(f"numpy.dtypes.{name}DType" for name in ("Bool", "Int32", "Int64", "UInt8", "Float16", "Float32", "Float64")),
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode",
    "omegaconf.nodes.StringNode",
    "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.FloatNode",
    "omegaconf.nodes.BooleanNode",
    "mmengine.logging.history_buffer.HistoryBuffer",
    "mmcv.utils.config.ConfigDict",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint",
    "lightning.pytorch.callbacks.early_stopping.EarlyStopping",
    "torch.optim.lr_scheduler.LambdaLR",
    "torch.optim.lr_scheduler.CosineAnnealingLR",
    "torch.optim.lr_scheduler.MultiStepLR",
    "torch.optim.lr_scheduler.StepLR",
    "torch.optim.adamw.AdamW",
    "torch.optim.adam.Adam",
    "torch.optim.sgd.SGD",
)
_MAPPINGS = (
    "collections.defaultdict",
    "easydict.EasyDict",
    "yacs.config.CfgNode",
    "addict.addict.Dict",
    "mmengine.config.config.ConfigDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
)

STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *((Inert, name) for name in _OBJECTS),
    *((InertMapping, name) for name in _MAPPINGS),
]
"""For ``torch.serialization.safe_globals``: names that a pickle may mention, each with what is built instead. None is ever imported."""
