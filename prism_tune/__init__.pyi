from prism_tune.api import audit_pool as audit_pool
from prism_tune.api import evaluate as evaluate
from prism_tune.api import open_pool as open_pool
from prism_tune.api import select as select
from prism_tune.api import train as train
from prism_tune.config.load import load_config as load_config
from prism_tune.config.sections import Config as Config
from prism_tune.data.records import Pool as Pool
from prism_tune.errors import ConfigError as ConfigError
from prism_tune.errors import UserError as UserError
from prism_tune.selection.arrays import ChosenRows as ChosenRows
from prism_tune.selection.arrays import select_rows as select_rows
from prism_tune.selection.finished import Subset as Subset

__version__: str
