"""The clustering stage by itself, from the arguments of a training run."""

from pathlib import Path

from ...artifacts.domain_map import DomainMap
from ...artifacts.files import fingerprint
from ...errors import DidsError


def make_domains() -> tuple[DomainMap, Path]:
    """Make, or find, the domain map of the YAML file in `sys.argv`. Returns the map and its folder.

    Raises DidsError if the file does not ask for clustered domains.
    """
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.model import load_tokenizer
    from llamafactory.train import tuner

    from ..data.source import DataSource
    from ..domains.making import find_domains
    from ..domains.samples import proxy_samples
    from ..settings import cache_folder, settings_of

    model_args, data_args, training_args, finetuning_args, _ = tuner.get_train_args()
    settings = settings_of(data_args)
    if settings is None or settings.config.dids_domains != "cluster":
        wanted = data_args.mix_strategy if settings is None else settings.config.dids_domains
        key = "mix_strategy" if settings is None else "dids_domains"
        raise DidsError(f"{key}: got {wanted!r}, allowed: a mix_strategy of this plugin with dids_domains: cluster")
    module = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    pipeline = (template, model_args, data_args, training_args, finetuning_args.stage)
    source = DataSource(settings, get_dataset, *pipeline, **module)
    domain_map = find_domains(source, proxy_samples(source))
    return domain_map, cache_folder(settings.config) / "domains" / fingerprint(domain_map.inputs)
