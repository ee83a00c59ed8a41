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
from prism_tune.evaluation.benchmark import Benchmark as Benchmark
from prism_tune.evaluation.predictions import join_predictions as join_predictions
from prism_tune.evaluation.predictions import read_predictions as read_predictions
from prism_tune.models.families import Family as Family
from prism_tune.schema import BenchmarkResult as BenchmarkResult
from prism_tune.schema import Prediction as Prediction
from prism_tune.schema import Question as Question
from prism_tune.selection.arrays import ChosenRows as ChosenRows
from prism_tune.selection.arrays import select_rows as select_rows
from prism_tune.selection.evidence.names import evidence as evidence
from prism_tune.selection.finished import Subset as Subset
from prism_tune.selection.scorer_options import ScorerOptions as ScorerOptions
from prism_tune.selection.scorer_options import read_options as read_options
from prism_tune.selection.scorers.scorer import ScoredRecords as ScoredRecords
from prism_tune.selection.scorers.scorer import Scorer as Scorer
from prism_tune.selection.scorers.scorer import ScoringContext as ScoringContext

__version__: str
