"""matplotlib figures as displayed objects, whatever backend without a window is in use."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from io import BytesIO
from types import ModuleType
from typing import Any

BACKEND = "Agg"
_BASES = "matplotlib.backend_bases"


class FigureDisplay:
    """Renders the figures that pyplot holds: on `show()`, and those left open at the end of a call."""

    def __init__(self, publish: Callable[[dict[str, Any]], None]) -> None:
        self.publish = publish
        self._shown: list[Any] = []

    def install(self) -> None:
        """Make `show()` of figures display them, now or as soon as matplotlib is imported."""
        module = sys.modules.get(_BASES)
        if module is not None:
            self._patch(module)
        else:
            sys.meta_path.insert(0, _AfterImport(_BASES, self._patch))

    def begin(self) -> None:
        """A new call starts."""
        self._shown.clear()

    def render(self, figure: Any) -> bytes:
        """`figure` as PNG, for a formatter; it is not shown a second time at the end of the call."""
        self._shown.append(figure)
        buffer = BytesIO()
        figure.savefig(buffer, format="png", bbox_inches="tight")
        return buffer.getvalue()

    def finish(self, *, show: bool) -> None:
        """Close the figures that are open; with `show`, display those that were not displayed yet."""
        registry = sys.modules.get("matplotlib._pylab_helpers")
        if registry is None:
            return
        try:
            for manager in registry.Gcf.get_all_fig_managers():
                figure = manager.canvas.figure
                if show and not any(figure is shown for shown in self._shown):
                    self._show(figure)
        finally:
            registry.Gcf.destroy_all()
            self._shown.clear()

    def _show(self, figure: Any) -> None:
        self.publish({"image/png": self.render(figure), "text/plain": repr(figure)})

    def _patch(self, module: ModuleType) -> None:
        def show(manager: Any) -> None:
            self._show(manager.canvas.figure)
            sys.modules["matplotlib._pylab_helpers"].Gcf.destroy(manager)

        # Every backend without a window inherits this; the original only warns.
        module.FigureManagerBase.show = show


class _AfterImport(MetaPathFinder):
    """Calls a function once, after one module was imported."""

    def __init__(self, name: str, then: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._then = then

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _LoaderThen(spec.loader, self._then)
        return spec


class _LoaderThen(Loader):
    def __init__(self, loader: Loader, then: Callable[[ModuleType], None]) -> None:
        self._loader = loader
        self._then = then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._then(module)
