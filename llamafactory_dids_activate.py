"""Makes LLaMA-Factory know the plugin, in every process that trains with it.

LLaMA-Factory has no plugin entry point, and it starts itself anew: `llamafactory-cli train` re-executes its
launcher under torchrun, Ray starts workers, LlamaBoard a subprocess. A patch made in one process is lost in
the next. So the distribution installs a one-line `.pth` file, which imports this module at the start of
every Python process of the environment.

Most of these processes have nothing to do with LLaMA-Factory, so this module imports `sys` only and does
one thing: it puts a finder on `sys.meta_path` that waits for a single module, `llamafactory.train.tuner`.
Every way to train imports it, and it imports every module that the plugin rebinds. Right after it has been
executed the plugin is registered, and the finder goes.

`LLAMAFACTORY_DIDS=0` switches this off; `activate()` does the same on request, whatever the switch says.
"""

import sys

SWITCH = "LLAMAFACTORY_DIDS"
TUNER = "llamafactory.train.tuner"


class TunerFinder:
    """Finds the tuner through the other finders, and has the plugin registered once it is loaded.

    It goes only after a registration that succeeded: when one failed, a second import of the tuner must
    fail likewise and not go on without the plugin.
    """

    def find_spec(self, fullname, path=None, target=None):
        if fullname != TUNER:
            return None
        spec = self._find_elsewhere(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = RegisteringLoader(spec.loader, self)
        return spec

    def _find_elsewhere(self, fullname, path, target):
        for finder in sys.meta_path:
            find_spec = None if is_ours(finder) else getattr(finder, "find_spec", None)
            spec = find_spec and find_spec(fullname, path, target)
            if spec is not None:
                return spec
        return None

    def leave(self):
        if self in sys.meta_path:
            sys.meta_path.remove(self)


class RegisteringLoader:
    """Stands in for a module's loader, and registers the plugin after it has executed the module.

    An exception of the registration is one of the import: Python takes the module out of `sys.modules` again.
    """

    def __init__(self, loader, finder):
        self._loader = loader
        self._finder = finder

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        # The module gets its own loader back first: whoever asks for it later should not meet this one.
        module.__loader__ = module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        register()
        self._finder.leave()

    def __getattr__(self, name):
        return getattr(self._loader, name)


def register():
    from llamafactory_dids.integration import registration

    registration.register()


def is_ours(finder):
    """By name, not by class: a second import of this file makes another class of the same name."""
    return (type(finder).__module__, type(finder).__name__) == (__name__, "TunerFinder")


def activate():
    """Register the plugin, now or as soon as the tuner has been imported; a second call changes nothing."""
    if any(map(is_ours, sys.meta_path)):
        return
    if TUNER in sys.modules:
        register()
    else:
        sys.meta_path.insert(0, TunerFinder())


def is_switched_on():
    """Whether the environment lets the plugin activate by itself.

    `os` is taken from `sys.modules`: `site`, which reads `.pth` files, has loaded it by then, and this
    module has promised to load nothing. It is read now, not when the tuner is found, as "off" means no
    finder at all.
    """
    return sys.modules["os"].environ.get(SWITCH) != "0"


if is_switched_on():
    activate()
