"""Makes LLaMA-Factory know the plugin, in every process that trains with it.

LLaMA-Factory has no plugin entry point, and it starts itself anew: `llamafactory-cli train` re-executes its
launcher under torchrun, Ray starts workers, LlamaBoard a subprocess. A patch made in one process is lost in
the next. So the distribution installs a one-line `.pth` file, which imports this module at the start of
every Python process of the environment.

Most of these processes have nothing to do with LLaMA-Factory, so this module imports `sys` only and does
one thing: it puts a finder on `sys.meta_path` that waits for two modules. Every way to train imports
`llamafactory.train.tuner`, and the web page `llamafactory.webui.interface` (and not the tuner); each imports
every module that the plugin rebinds for it. Right after one has been executed, what the plugin adds to it is
registered; after both, the finder goes.

`LLAMAFACTORY_DIDS=0` switches this off; `activate()` does the same on request, whatever the switch says.
"""

import sys

SWITCH = "LLAMAFACTORY_DIDS"
TRIGGERS = {  # the module that is waited for: the function of integration/registration.py that it calls for
    "llamafactory.train.tuner": "register",
    "llamafactory.webui.interface": "register_page",
}


class HostFinder:
    """Finds the modules of TRIGGERS through the other finders, and has the plugin registered once one is loaded.

    It stops waiting for a module only after a registration that succeeded: when one failed, a second import
    must fail likewise and not go on without the plugin.
    """

    def __init__(self, waiting):
        self.waiting = set(waiting)

    def find_spec(self, fullname, path=None, target=None):
        if fullname not in self.waiting:
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

    def done(self, fullname):
        self.waiting.discard(fullname)
        if not self.waiting and self in sys.meta_path:
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
        register(module.__name__)
        self._finder.done(module.__name__)

    def __getattr__(self, name):
        return getattr(self._loader, name)


def register(trigger):
    from llamafactory_dids.integration import registration

    getattr(registration, TRIGGERS[trigger])()


def is_ours(finder):
    """By name, not by class: a second import of this file makes another class of the same name."""
    return (type(finder).__module__, type(finder).__name__) == (__name__, "HostFinder")


def activate():
    """Register the plugin, now or as soon as a trigger has been imported; a second call changes nothing."""
    if any(map(is_ours, sys.meta_path)):
        return
    loaded = [name for name in TRIGGERS if name in sys.modules]
    for name in loaded:
        register(name)
    if len(loaded) < len(TRIGGERS):
        sys.meta_path.insert(0, HostFinder(name for name in TRIGGERS if name not in loaded))


def is_switched_on():
    """Whether the environment lets the plugin activate by itself.

    `os` is taken from `sys.modules`: `site`, which reads `.pth` files, has loaded it by then, and this
    module has promised to load nothing. It is read now, not when a module is found, as "off" means no
    finder at all.
    """
    return sys.modules["os"].environ.get(SWITCH) != "0"


def explain_the_switch():
    """Let LLaMA-Factory's refusal of a `dids_` key, or of a strategy of ours, end in a line that names the switch.

    The program ends as it would have; where the plugin was activated on request, nothing is added.
    """
    previous = sys.excepthook

    def hook(kind, error, trace):
        named = "dids_" in str(error) or "Unknown mixing strategy" in str(error)
        if named and not any(map(is_ours, sys.meta_path)) and "llamafactory.hparams" in sys.modules:
            print(
                f"error: {SWITCH}=0 turns the plugin off, and these arguments are its own; allowed: without {SWITCH}, "
                "or without dids_ keys and a mix_strategy of the plugin",
                file=sys.stderr,
            )
        else:
            previous(kind, error, trace)

    sys.excepthook = hook


if is_switched_on():
    activate()
else:
    explain_the_switch()
