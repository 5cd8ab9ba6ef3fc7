"""torch: state dicts of its optimizers as states, and back; torch is not needed."""

from jopt.interop.order import Permuted
from jopt.interop.torch.state import load_state_dict, state_dict


__all__ = ["Permuted", "load_state_dict", "state_dict"]
