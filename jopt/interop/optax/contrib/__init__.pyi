"""The public names of ``jopt.interop.optax.contrib``."""

from .adaptive import (
    scale_by_acprop as scale_by_acprop,
    acprop as acprop,
    ScaleByAdemamixState as ScaleByAdemamixState,
    scale_by_ademamix as scale_by_ademamix,
    ademamix as ademamix,
    ScaleBySimplifiedAdEMAMixState as ScaleBySimplifiedAdEMAMixState,
    scale_by_simplified_ademamix as scale_by_simplified_ademamix,
    simplified_ademamix as simplified_ademamix,
    scale_by_adopt as scale_by_adopt,
    adopt as adopt,
    MadgradState as MadgradState,
    scale_by_madgrad as scale_by_madgrad,
    madgrad as madgrad,
    MomoState as MomoState,
    momo as momo,
    MomoAdamState as MomoAdamState,
    momo_adam as momo_adam,
)

from .parameter_free import (
    COCOBState as COCOBState,
    scale_by_cocob as scale_by_cocob,
    cocob as cocob,
    DAdaptAdamWState as DAdaptAdamWState,
    dadapt_adamw as dadapt_adamw,
    ProdigyState as ProdigyState,
    prodigy as prodigy,
    DoGState as DoGState,
    scale_by_dog as scale_by_dog,
    dog as dog,
    DoWGState as DoWGState,
    scale_by_dowg as scale_by_dowg,
    dowg as dowg,
)

from .averages import (
    ScheduleFreeState as ScheduleFreeState,
    schedule_free_eval_params as schedule_free_eval_params,
    schedule_free as schedule_free,
    schedule_free_sgd as schedule_free_sgd,
    schedule_free_adamw as schedule_free_adamw,
)

from .processing import (
    NormalizeState as NormalizeState,
    normalize as normalize,
    DifferentiallyPrivateAggregateState as DifferentiallyPrivateAggregateState,
    differentially_private_aggregate as differentially_private_aggregate,
    dpsgd as dpsgd,
    ReduceLROnPlateauState as ReduceLROnPlateauState,
    reduce_on_plateau as reduce_on_plateau,
    SplitRealAndImaginaryState as SplitRealAndImaginaryState,
    split_real_and_imaginary as split_real_and_imaginary,
)

from .matrices import (
    MuonDimensionNumbers as MuonDimensionNumbers,
    MuonState as MuonState,
    scale_by_muon as scale_by_muon,
    muon as muon,
    GaLoreDimensionNumbers as GaLoreDimensionNumbers,
    GaLoreState as GaLoreState,
    scale_by_galore as scale_by_galore,
    galore as galore,
)

from .mechanic import MechanicState as MechanicState, mechanize as mechanize

from .sharpness import SAMState as SAMState, sam as sam

from .curvature import (
    HutchinsonState as HutchinsonState,
    hutchinson_estimator_diag_hessian as hutchinson_estimator_diag_hessian,
    SophiaState as SophiaState,
    sophia as sophia,
)
